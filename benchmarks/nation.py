"""All of metropolitan France on two cores: what is left of a national run when its kernels cost nothing.

2.3 million made-up cells in 211,000 blocks, 22,400 tiles, a land-cover raster: the engine's own stages from
the census to the explained cells, the sealed arrays and the report, on a scheduler and two workers that are
processes of their own. Graphs, batches, leases, journals, parts, checksums and tables are the real ones; a
kernel returns rows of the right shape at once, and no pixels are stored (France's are 4 TB).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import from_origin

from benchmarks.france import CELLS, draw_france, write_census, write_tiles
from sesgrid.grid import cell_id_of
from sesgrid.kernels.method import PRESETS, Method
from sesgrid.run.rates import Rates
from sesgrid.stages.place import BlockResult
from sesgrid.stages.predict import CellTask

__all__ = ["BlankBlocks", "BlankExplain", "BlankPredict", "drive", "run_nation"]

STAGES = ("mosaic", "landcover", "predict", "explain")
EARLY, LATE = (2_000, 12_000), (190_000, 200_000)
Window = tuple[int, int]
_CLASSES = 5
_MIB_IN_GB = (1 << 20) / 1e9


@dataclass(frozen=True)
class BlankBlocks:
    """Blocks without pixels, with the rows that the mosaic tells of its cells."""

    rows: bool

    def each(self, group: Sequence[Any]) -> Iterator[BlockResult]:
        """One result per block, at once."""
        for item in group:
            rows = tuple(self._row(cell, item) for cell in item.block.cells) if self.rows else ()
            yield BlockResult(item.block, {}, rows)

    def peak_bytes(self, _: Sequence[Any]) -> int:
        """Of nothing."""
        return 0

    @staticmethod
    def _row(cell: tuple[int, int], item: Any) -> dict[str, Any]:
        tile = item.tiles[0]
        return {
            "cell_id": cell_id_of(*cell), "coverage": 1.0, "share_nodata": 0.0, "share_read_failed": 0.0,
            "void_share": 0.0, "ortho_year": tile.year, "ortho_source": Path(tile.path).name,
        }  # fmt: skip


@dataclass(frozen=True)
class BlankPredict:
    """The rows of a prediction, from nothing."""

    layers: ClassVar = ("image", "coverage")

    def __call__(self, items: Sequence[CellTask]) -> list[dict[str, Any]]:
        """One row per cell."""
        shares = {f"probability_{k + 1}": 1 / _CLASSES for k in range(_CLASSES)}
        colour = {f"mean_{band}": 100.0 for band in ("red", "green", "blue")}
        return [
            {
                "cell_id": t.cell_id, "model_id": t.model.model_id, "p": 0.5,
                "ses_predicted": 1 + (t.row + t.col) % _CLASSES, **shares, **colour,
            }
            for t in items
        ]  # fmt: skip


@dataclass(frozen=True)
class BlankExplain:
    """The rows of an explanation, from nothing."""

    classes: int
    keep: Any = "none"
    method: Method = PRESETS["paper"]

    def __call__(self, items: Sequence[CellTask]) -> list[dict[str, Any]]:
        """One row per cell."""
        sums = {f"{m}_{k}": 1.0 for m in ("low", "high") for k in range(self.classes)}
        areas = {f"area_{k}": 640_000 // self.classes for k in range(self.classes)}
        return [
            {"cell_id": t.cell_id, "model_id": t.model.model_id, **sums, **areas} for t in items
        ]


@dataclass(frozen=True)
class BlankFeatures:
    """The rows that the baselines learn from, from nothing."""

    class_names: Any = None
    layers: ClassVar = ()

    def __call__(self, items: Sequence[str]) -> list[dict[str, Any]]:
        """One row per cell."""
        return [{"cell_id": name, "mean_red": float(k % 7)} for k, name in enumerate(items)]


def write_nation(folder: Path, cells: int) -> Path:
    """Everything that a national run reads; its TOML."""
    france = draw_france(cells)
    write_census(france, folder / "census_2019.parquet")
    write_tiles(france, folder / "ortho")
    _write_landcover(folder, france.northing_m, france.easting_m)
    _write_city(folder / "city", france.northing_m, france.easting_m)
    config = folder / "france.toml"
    config.write_text(
        'name = "France"\noutput = "result"\n[sources]\ncensus = "census_2019.parquet"\northo = "ortho"\n'
        'landcover = "landcover"\nlandcover_classes = "classes.csv"\n[cells]\nrule = "all"\nlabels = "all"\n'
        'compare_folds = false\nmax_void = 1.0\n[models]\ncities = "city"\n'
    )
    return config


def _write_landcover(folder: Path, north: np.ndarray, east: np.ndarray) -> None:
    """One raster of 10 m over the nation without a pixel, and its classes."""
    (folder / "landcover").mkdir()
    west, top = int(east.min()) - 1000, int(north.max()) + 1000
    width, height = ((int(v.max() - v.min()) + 3000) // 10 for v in (east, north))
    with rasterio.open(
        folder / "landcover" / "landcover.tif", "w", driver="GTiff", width=width, height=height, count=1,
        dtype="uint8", crs="EPSG:3035", transform=from_origin(west, top, 10, 10), sparse_ok=True, tiled=True,
        blockxsize=2048, blockysize=2048,
    ):  # fmt: skip
        pass
    table = "".join(f"{k},class {k},group {k % 3}\n" for k in range(1, 18))
    (folder / "classes.csv").write_text(f"code,landcover_class,group\n{table}")


def _write_city(folder: Path, north: np.ndarray, east: np.ndarray) -> None:
    """The models of a city whose cells are the first of the nation's; nobody opens the networks."""
    from sesgrid.batches.blocks import members_of, plan_batches
    from sesgrid.grid import Grid
    from sesgrid.run.settings import GridSettings
    from sesgrid.run.tables import write_table
    from sesgrid.run.workspace import Workspace

    grid, files = GridSettings(), Workspace(folder)
    rows, cols = -(north[:2000] // 200) - 1, east[:2000] // 200
    table = pd.DataFrame({"row": rows, "col": cols, "fold": np.arange(len(rows)) % 5})
    table["departement"] = "01"
    table.index = pd.Index(
        [cell_id_of(r, c) for r, c in zip(rows, cols, strict=True)], name="cell_id"
    )
    table.attrs = {"city": "City", "n_folds": 5, "folds_kind": "random", "n_classes": _CLASSES}
    plan = plan_batches(Grid(grid.pixels_per_cell, grid.cells_per_block), table)
    write_table(files.table("cells"), table, members_of(plan, table))
    files.models.mkdir()
    for k in range(5):
        data = f"model {k}".encode()
        (files.models / f"random-{k}.keras").write_bytes(data)
        card: dict[str, Any] = {"model_id": f"City-random{k}", "sha256": sha256(data).hexdigest()}
        card |= {"pixels_per_cell": grid.pixels_per_cell, "n_classes": _CLASSES}
        (files.models / f"random-{k}.json").write_text(json.dumps(card))


@contextmanager
def _without_kernels() -> Iterator[None]:
    """The engine as it is, but for what would look at pixels."""
    from sesgrid.batches.turns import InTurns
    from sesgrid.run import baselines, cell_stages, pixel_stages, results

    real = InTurns.of
    with ExitStack() as stack:
        for target, name, blank in (
            (pixel_stages, "Mosaic", lambda *_: BlankBlocks(rows=True)),
            (pixel_stages, "Classified", lambda *_: BlankBlocks(rows=False)),
            (cell_stages, "Predict", BlankPredict),
            (cell_stages, "explain_stage", lambda _: BlankExplain(18)),
            (baselines, "Features", BlankFeatures),
            (results, "_thumbnails", lambda *_: []),
            (InTurns, "of", lambda stage, pixels, _, whole: real(stage, pixels, (), whole)),
        ):
            stack.enter_context(mock.patch.object(target, name, blank))
        yield


def drive(config_path: Path, scheduler: str, last: str) -> dict[str, Any]:
    """The driver: every stage up to the last, and what it took."""
    from sesgrid.batches.flight import peak_mb
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import load_config
    from sesgrid.run.engine import run_stages
    from sesgrid.run.job import Job
    from sesgrid.run.memory import give_back
    from sesgrid.run.results import _write_cells
    from sesgrid.run.tables import CellTable
    from sesgrid.run.workspace import Workspace
    from sesgrid.store.cube import Cube

    config = load_config(config_path)
    files, seconds, peaks = Workspace.of(config), {}, {}
    with connected(config.cluster, scheduler) as client, _without_kernels():
        for stage in ("cells", *STAGES):
            started = time.perf_counter()
            run_stages(config, client, stage, lambda line: print(line, file=sys.stderr))
            seconds[stage], peaks[stage] = time.perf_counter() - started, peak_mb()
        started = time.perf_counter()
        files.mark.enter(files.cells)
        names = _write_cells(Job(config, files, client, ""), [])
        Cube.open(files.cube).seal(partial(CellTable(files.cells).read, with_id=False), names, {})
        give_back()  # as after a stage
        seconds["seal"], peaks["seal"] = time.perf_counter() - started, peak_mb()
        cpu = {"cpu_s": _spent(), "scheduler_cpu_s": client.run_on_scheduler(_spent)}
        cpu["scheduler_peak_mb"] = client.run_on_scheduler(peak_mb)
        cpu["worker_peak_mb"] = max(client.run(peak_mb).values())
        for stage in ("analyse", "report") if last == "report" else ():
            started = time.perf_counter()
            run_stages(config, client, stage, lambda line: print(line, file=sys.stderr))
            seconds[stage], peaks[stage] = time.perf_counter() - started, peak_mb()
    return {"seconds": seconds, "driver_peak_mb": peaks, **cpu}


def run_nation(folder: Path, cells: int = CELLS, rounds: int = 3) -> dict[str, Any]:
    """Run the nation in processes of their own.

    Parameters
    ----------
    folder : Path
        Empty.
    cells : int
    rounds : int
        Times that all is done anew: of times the median counts, of peaks the highest. Analysed once.

    Returns
    -------
    dict
        Figures of `benchmarks.scale`'s text, and seconds and peaks per stage of the last round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = write_nation(folder, cells)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
    }
    told, ends, per_block = [], [], []
    for r in range(rounds):
        result = folder / "result"
        shutil.rmtree(result, ignore_errors=True)
        last = STAGES[-1] if r < rounds - 1 else "report"
        of_round = _run_once(folder / f"round-{r}", config, environment, last)
        blocks, flying, ended = _ended(result / "work" / "journal")
        staged = sum(of_round["seconds"][stage] for stage in STAGES)
        clock = [flying, staged, of_round["cpu_s"], of_round["scheduler_cpu_s"]]
        per_block.append([1000 * seconds / blocks for seconds in clock])
        ends.append(ended)
        told.append(of_round)
        print(f"round {r}: ms per block {per_block[-1]}", file=sys.stderr)
    names = ("scheduler", "stages", "driver_cpu", "scheduler_cpu")
    seconds, half = told[-1]["seconds"], blocks // 2
    windows, halves = (EARLY, LATE), ((1, half), (half, blocks))
    rates = _rates(ends, windows) if blocks >= LATE[1] else {}
    return {
        **_plan(config, environment),
        "cells": cells,
        "blocks": blocks,
        **{
            f"{n}_ms_per_block": v for n, v in zip(names, np.median(per_block, axis=0), strict=True)
        },
        "driver_peak_gb": max(max(t["driver_peak_mb"].values()) for t in told) * _MIB_IN_GB,
        "scheduler_peak_gb": max(t["scheduler_peak_mb"] for t in told) * _MIB_IN_GB,
        "analyse_s": seconds["analyse"] + seconds["report"],
        "rate_late_over_early": rates.get("all"),
        "rates": rates,
        "rates_of_rounds": [_rates([e], windows) for e in ends] if rates else [],
        "rate_second_half_over_first": _rates(ends, halves),
        **told[-1],
    }


def _run_once(folder: Path, config: Path, environment: dict[str, str], last: str) -> dict[str, Any]:
    """A scheduler, two workers and the driver, from nothing to a stage."""
    folder.mkdir()
    file = folder / "scheduler.json"

    def start(name: str, *options: str) -> subprocess.Popen[bytes]:
        command = [f"distributed.cli.dask_{name}", *options, "--no-dashboard"]
        command += ["--scheduler-file", str(file)]
        with open(folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command], env=environment, stdout=log, stderr=log
            )

    cluster = [start("scheduler", "--host", "127.0.0.1", "--port", "0")]
    cluster += [start("worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]
    try:
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        command = [sys.executable, "-m", "benchmarks.scale", "--drive", str(config), address, last]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        told = dict(json.loads(done.stdout.splitlines()[-1]))
    finally:
        for process in cluster:
            process.kill()
    return told


def _spent() -> float:
    """Seconds of a processor that this process took."""
    return sum(os.times()[:2])


def _ended(journals: Path) -> tuple[int, float, dict[str, list[float]]]:
    """Blocks of a stage, seconds of all stages from plan to last block, and when each one's blocks ended."""
    from sesgrid.batches.journal import plan_path, read_journals

    ended: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for line in read_journals(journals):
        if line["stage"] in ended:
            ended[line["stage"]].append(_seconds(line["time"]))
    flying = 0.0
    for stage, times in ended.items():
        times.sort()
        flying += times[-1] - _seconds(json.loads(plan_path(journals, stage).read_text())["time"])
    return len(ended["mosaic"]), flying, ended


def _rates(rounds: Sequence[dict[str, list[float]]], windows: Sequence[Window]) -> dict[str, float]:
    """Blocks a second in the second window over the first, by stage and of all of them together.

    Of the seconds that a window takes, the median of the rounds counts: a stage's are about two, and every
    pause is among them.
    """
    took = np.array(
        [
            [[ended[stage][b - 1] - ended[stage][a - 1] for a, b in windows] for stage in STAGES]
            for ended in rounds
        ]
    )
    seconds = {stage: took[:, k] for k, stage in enumerate(STAGES)} | {"all": took.sum(axis=1)}
    blocks = np.array([b - a for a, b in windows])
    rates = {name: blocks / np.median(of, axis=0) for name, of in seconds.items()}
    return {name: float(second / first) for name, (first, second) in rates.items()}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _plan(config: Path, environment: dict[str, str]) -> dict[str, float]:
    """What planning takes, in a process of its own."""
    rates = config.with_name("rates.json")
    rates.write_text(json.dumps(asdict(_RATES)))
    code = (
        "import sys, time; from sesgrid.commands.cli import main; from sesgrid.batches.flight import peak_mb;"
        "started = time.perf_counter(); main(sys.argv[1:], standalone_mode=False);"
        "print(time.perf_counter() - started, peak_mb())"
    )
    asked = ["plan", str(config), "--rates", str(rates), "--processors", "96", "--gpus", "1"]
    command = [sys.executable, "-c", code, *asked]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, file=sys.stderr)
    seconds, peak = done.stdout.splitlines()[-1].split()
    return {"plan_s": float(seconds), "plan_peak_gb": float(peak) * _MIB_IN_GB}


_RATES = Rates(
    "any", "never", 800, "efficientnetb0", "zstd", 0.06, 0.004, 0.4, 1.1, 1.5, False, 1_400_000, 5_000, 2000
)  # fmt: skip
"""Of the right size; the time of planning does not depend on them."""
