"""The configuration that runs a synthetic city on a laptop."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from pydantic import ValidationError

from sesgrid.errors import ConfigError
from sesgrid.foreign import cause_of
from sesgrid.run.config import Config
from sesgrid.run.config_errors import faults_of
from sesgrid.store.parts import write_atomically
from sesgrid.synth import SynthCity

__all__ = ["write_demo_config"]

_TEMPLATE = """\
name = "Syntheville"
output = {output}

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

    Raises
    ------
    ConfigError
        The configuration could not be read with such an output, or another one lies there.
    """
    base = Path(city.directory)

    def relative(path: Path | str) -> str:
        return Path(path).relative_to(base).as_posix()

    text = _TEMPLATE.format(
        # text of JSON is text of TOML, but for one control character
        output=json.dumps(output, ensure_ascii=False).replace("\x7f", "\\u007f"),
        census=relative(city.census),
        ortho=relative(city.ortho),
        landcover=relative(city.landcover),
    )
    path = base / "city.toml"
    _require_readable(text)
    if path.exists() and path.read_bytes() != text.encode():
        raise ConfigError(
            f"{path} exists and says something else: it is left as it is; run it, or move it away"
        )
    write_atomically(path, text)
    return path


def _require_readable(text: str) -> None:
    """Refuse what `sesgrid run` would not read."""
    try:
        text.encode()  # a name of a file may be no text
        Config.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise ConfigError(faults_of(error, Config)) from error
    except ValueError as error:
        raise ConfigError(f"output: expected the name of a folder ({cause_of(error)})") from error
