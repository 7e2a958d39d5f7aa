"""The configuration that runs a synthetic city on a laptop."""

from __future__ import annotations

from pathlib import Path

from sesgrid.errors import ConfigError
from sesgrid.store.parts import write_atomically
from sesgrid.synth import SynthCity

__all__ = ["write_demo_config"]

_TEMPLATE = """\
name = "Syntheville"
output = "{output}"

[sources]
census = "{census}"
ortho = "{ortho}"
landcover = "{landcover}"

[grid]
pixels_per_cell = 256

[cells]
folds = 3
# true trains folds of squares of cells too, and tells how much the random ones leak: twice the time
compare_folds = false

[train]
protocol = "scratch"
"""


def write_demo_config(city: SynthCity, output: str = "result") -> Path:
    """Write ``city.toml`` into the city's folder.

    Parameters
    ----------
    city : SynthCity
    output : str
        Folder of the run's results, relative to the file.
    """
    base = Path(city.directory)

    def relative(path: Path | str) -> str:
        return Path(path).relative_to(base).as_posix()

    text = _TEMPLATE.format(
        output=output,
        census=relative(city.census),
        ortho=relative(city.ortho),
        landcover=relative(city.landcover),
    )
    path = base / "city.toml"
    if path.exists() and path.read_text() != text:
        raise ConfigError(
            f"{path} exists and says something else: it is left as it is; run it, or move it away"
        )
    write_atomically(path, text)
    return path
