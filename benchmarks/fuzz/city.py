"""A small city with a finished run, and the scheduler that the commands of a campaign share.

``python -m benchmarks.fuzz.city FOLDER STAGE`` draws the city, brings the run up to a stage, prints the
scheduler's address and keeps it until its standard input ends. It is a process of its own: it has threads,
and what is forked may have none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ADDRESS", "AUDITED", "CITY", "prepared"]

CITY, ADDRESS = "SESGRID_FUZZ_CITY", "SESGRID_FUZZ_SCHEDULER"
"""Where a child finds the finished city, and the scheduler."""

AUDITED = 4
"""Cells that the audit of the finished run looked at."""

_SETTINGS = """
[grid]
pixels_per_cell = 32
cells_per_block = 4
[cells]
folds = 2
compare_folds = false
[train]
protocol = "scratch"
backbone = "peephole"
epochs = 1
[analyse]
bootstrap = 100
"""


def _register() -> None:
    """A backbone that compiles at once."""
    import keras
    from keras import layers

    from sesgrid.kernels.backbones import BACKBONES, Backbone

    class Peephole(Backbone):
        def build(
            self,
            weights: str | None = None,
            scaling: str = "backbone",
            drop_connect_rate: float = 0.2,
        ) -> keras.Model:
            x = image = keras.Input((None, None, 3), name="image")
            x = layers.Rescaling(1 / 127.5, -1, name="rescaling")(x)
            x = layers.Conv2D(4, 8, 8, "same", name="conv")(x)
            return keras.Model(image, layers.Activation("swish", name="top_activation")(x))

    BACKBONES["peephole"] = Peephole("peephole", "peephole")


def _serve(folder: Path, last: str) -> None:
    from distributed import Client, LocalCluster

    from sesgrid.run.audit import run_audit
    from sesgrid.run.config import load_config
    from sesgrid.run.engine import run_stages
    from sesgrid.synth import write_city

    city = write_city(folder, cells=6, seed=3, resolution_m=1.6)
    names = {
        n: Path(getattr(city, n)).relative_to(folder).as_posix()
        for n in ("census", "ortho", "landcover")
    }
    sources = "".join(f'{n} = "{p}"\n' for n, p in names.items())
    text = f'name = "Fuzzville"\noutput = "out"\n[sources]\n{sources}'
    (folder / "city.toml").write_text(text + _SETTINGS)
    if last not in ("cells", "mosaic", "landcover"):
        _register()
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            protocol="tcp://",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        config = load_config(folder / "city.toml")
        run_stages(config, client, last, lambda line: print(line, file=sys.stderr))
        if last == "report":
            run_audit(config, client, AUDITED, seed=0)
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


@contextmanager
def prepared(folder: Path, last: str) -> Iterator[None]:
    """While it lasts, children find the city in a folder, and its scheduler."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fuzz.city", str(folder), last],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        address = (process.stdout or sys.stdin).readline().strip()
        if not address:
            raise RuntimeError(f"the city cannot be made: {process.communicate()[1][-2000:]}")
        os.environ |= {CITY: str(folder), ADDRESS: address}
        try:
            yield
        finally:
            process.communicate()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
