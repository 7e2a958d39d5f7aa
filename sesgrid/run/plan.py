"""What a run will take, before it begins: blocks, tasks, bytes, memory, hours, cost, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.batches.blocks import BlockBatch, departements_of, fullest_group, plan_batches
from sesgrid.batches.turns import cells_per_task, groups_per_task
from sesgrid.errors import ConfigError
from sesgrid.grid import CELL_M, Grid, rowcol_of_ids
from sesgrid.run.choose import choose_cells
from sesgrid.run.config import Config
from sesgrid.run.imagery import imagery_of, reader_of
from sesgrid.run.inside import inside
from sesgrid.run.job import land_polygons, protocol_of
from sesgrid.run.memory import mosaic_bytes, sparing
from sesgrid.run.rates import Rates
from sesgrid.run.settings import bytes_of
from sesgrid.run.trained import trained_cities
from sesgrid.sources import read_class_rasters
from sesgrid.stages.mosaic import Mosaic, TileIndex
from sesgrid.stages.predict import GROUP

__all__ = ["Machines", "Plan", "StagePlan", "lines", "make_plan"]

_OVERLAP = 1.2
"""Source windows of blocks over the blocks' area: the grids are turned against each other by five degrees."""

_DRIVER_BYTES, _DRIVER_BYTES_A_CELL, _OF_OTHER_FOLDS, _ID_BYTES = 450 << 20, 440, 220, 40
"""At most in a run: tables are joined, and cells analysed, beside their predictions by models of the other
kind of folds where there are such, and beside the ids of those explained where some were not; see
benchmarks/RESULTS.md, scale."""

_ROW_BYTES = {"mosaic": 30, "landcover": 8, "predict": 80, "explain": 420}
"""Of a cell in a stage's parts."""


@dataclass(frozen=True)
class Machines:
    """What the run may use."""

    processors: int
    gpus: int = 0
    threads: int = 1
    """Of a worker."""
    memory: int | None = None
    """Bytes of a worker; None: whatever there is."""
    price: float = 0.0
    """Of a processor for an hour."""
    gpu_price: float = 0.0
    """Of a GPU for an hour."""


@dataclass(frozen=True)
class StagePlan:
    """What a stage will take."""

    stage: str
    tasks: int
    bytes_in: int
    bytes_out: int
    worker_bytes: int
    """Peak of a worker."""
    processor_hours: float
    gpu_hours: float
    hours: float
    """On the machines that were asked about."""


@dataclass
class Plan:
    """What a run will take."""

    name: str
    cells: int
    blocks: int
    batches: int
    tiles: int
    stages: list[StagePlan]
    driver_bytes: int
    hours: float
    cost: float
    missing: dict[str, Any]
    rates: Rates
    machines: Machines
    over_memory: list[str] = field(default_factory=list)
    """Stages of which a worker would need more than it has, with the numbers."""

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    def require_fits(self) -> None:
        """Refuse a plan over the memory budget.

        Raises
        ------
        ConfigError
            Names the stages and the numbers.
        """
        if self.over_memory:
            raise ConfigError(
                f"the plan does not fit into memory: {'; '.join(self.over_memory)}: give workers fewer "
                "threads or more memory, or make blocks smaller (grid.cells_per_block)"
            )


@sparing()
def make_plan(config: Config, rates: Rates, machines: Machines) -> Plan:
    """Plan a run from its census, its catalogue of tiles and what cells cost.

    Parameters
    ----------
    config : Config
    rates : Rates
        From `sesgrid.run.rates.measure_rates`, for cells of the same size.
    machines : Machines

    Raises
    ------
    ConfigError
        The rates are of other cells.
    SesgridError
        The run's inputs cannot be read.
    """
    if (rates.pixels_per_cell, rates.backbone) != (
        config.grid.pixels_per_cell,
        protocol_of(config).backbone,
    ):
        raise ConfigError(
            f"the rates were measured for cells of {rates.pixels_per_cell} pixels and {rates.backbone}, the "
            f"run has {config.grid.pixels_per_cell} and {protocol_of(config).backbone}: measure again with "
            "--calibrate"
        )
    _, cells, _ = choose_cells(config)
    at = rowcol_of_ids(cells.index)
    cells["row"], cells["col"] = at[:, 0], at[:, 1]
    grid = Grid(config.grid.pixels_per_cell, config.grid.cells_per_block)
    plan = plan_batches(grid, cells)
    tiles = imagery_of(config)
    shown = inside(cells, tiles.geometry)
    classed = _with_landcover(config, cells)
    modelled = _with_model(config, cells)
    missing = _missing(cells, shown, classed, modelled)
    stages = list(_stages(config, rates, machines, grid, plan, tiles, cells, shown & modelled))
    over = [
        f"{s.stage} needs {s.worker_bytes / 1e9:.1f} GB in a worker of {machines.threads} threads, which has "
        f"{machines.memory / 1e9:.1f} GB"
        for s in stages
        if machines.memory and s.worker_bytes > machines.memory
    ]
    return Plan(
        name=config.name,
        cells=len(cells),
        blocks=sum(batch.n_blocks for batch in plan),
        batches=len(plan),
        tiles=len(tiles),
        stages=stages,
        driver_bytes=_driver_bytes(config, len(cells), int((shown & modelled).sum())),
        hours=sum(s.hours for s in stages),
        cost=sum(_cost(s, machines) for s in stages),
        missing=missing,
        rates=rates,
        machines=machines,
        over_memory=over,
    )


def _driver_bytes(config: Config, cells: int, explained: int) -> int:
    twice = config.models is None and config.cells.compare_folds
    each = _DRIVER_BYTES_A_CELL + (_OF_OTHER_FOLDS if twice else 0)
    return _DRIVER_BYTES + cells * each + (_ID_BYTES * explained if explained < cells else 0)


def _with_landcover(config: Config, cells: pd.DataFrame) -> np.ndarray | None:
    """Whether each cell's centre has land cover; None: the run has none."""
    source = config.sources.landcover
    if source is None:
        return None
    grid = Grid(config.grid.pixels_per_cell, config.grid.cells_per_block)
    polygons = land_polygons(config, grid, cells)
    return inside(cells, (read_class_rasters(source) if polygons is None else polygons).geometry)


def _with_model(config: Config, cells: pd.DataFrame) -> np.ndarray:
    """Whether each cell will have a model."""
    if config.models is None or config.models.elsewhere != "none":
        return np.ones(len(cells), dtype=bool)
    known = [city.cells.index for city in trained_cities(config.models.cities)]
    return np.asarray(np.logical_or.reduce([cells.index.isin(ids) for ids in known]), dtype=bool)


def _missing(
    cells: pd.DataFrame, shown: np.ndarray, classed: np.ndarray | None, modelled: np.ndarray
) -> dict[str, Any]:
    departement = departements_of(cells)
    without = pd.Series(~shown, index=cells.index).groupby(departement.to_numpy())
    counted = without.agg(["sum", "size"])
    dark = counted[counted["sum"] == counted["size"]]
    return {
        "cells without imagery": int((~shown).sum()),
        "départements without imagery": {str(d): int(n) for d, n in dark["size"].items()},
        "cells without land cover": None if classed is None else int((~classed).sum()),
        "cells without a model": int((~modelled).sum()),
    }


def _stages(
    config: Config,
    rates: Rates,
    machines: Machines,
    grid: Grid,
    plan: Sequence[BlockBatch],
    tiles: gpd.GeoDataFrame,
    cells: pd.DataFrame,
    asked: np.ndarray,
) -> Iterator[StagePlan]:
    """Each stage that goes over cells or blocks."""
    n, looked, p2 = len(cells), int(asked.sum()), grid.pixels_per_cell**2
    groups, slots = sum(len(b.group_starts) for b in plan), machines.processors
    by_group = -(-groups // groups_per_task(groups, slots))
    index = TileIndex(grid, tiles, prefer=config.mosaic.prefer)
    stage, fullest = Mosaic(grid, reader_of(config)), fullest_group(plan)
    drawn = mosaic_bytes(
        stage, index.items(fullest), machines.threads, config.cluster.gdal_cache_mb
    )
    image, classes = rates.image_bytes, rates.landcover_bytes

    def staged(
        name: str, tasks: int, n: int, seconds: float, read: float, written: float, memory: int,
        *, model: bool = False, at_once: int | None = None,
    ) -> StagePlan:  # fmt: skip
        hours, on_gpu = n * seconds / 3600, model and rates.on_gpu
        units = machines.gpus if on_gpu else machines.processors
        units = units if at_once is None else min(units, at_once)
        return StagePlan(
            name, tasks, round(read), round(written), memory, 0.0 if on_gpu else hours,
            hours if on_gpu else 0.0, hours / max(units, 1),
        )  # fmt: skip

    rows = _ROW_BYTES
    yield staged(
        "mosaic", by_group, n, rates.mosaic_s, _source_bytes(tiles, n), n * (image + rows["mosaic"]), drawn
    )  # fmt: skip
    if config.sources.landcover is not None:
        read = sum(_file_bytes(Path(config.sources.landcover)))
        burnt = (450 << 20) + machines.threads * 3 * grid.block_px**2
        yield staged(
            "landcover", by_group, n, rates.landcover_s, read, n * (classes + rows["landcover"]), burnt
        )  # fmt: skip
    # reading, and what is held of it, beside the network's own memory
    held = (rates.model_peak_mb << 20) + machines.threads * GROUP * 5 * p2
    if config.models is None:
        protocol, folds = protocol_of(config), config.cells.folds
        kinds = 2 if config.cells.compare_folds else 1
        epoch = protocol.samples_per_epoch or looked * (folds - 1) // folds
        seen = epoch * protocol.epochs * folds * kinds
        yield staged(
            "train", folds * kinds, seen, rates.train_s, seen * image, 0, held, model=True,
        )  # fmt: skip
    tasks = -(-looked // cells_per_task(looked, slots))
    yield staged(
        "predict", tasks, looked, rates.predict_s, looked * image, looked * rows["predict"], held, model=True
    )  # fmt: skip
    if config.sources.landcover is not None or config.explain.maps != "none":
        kept = 2 * p2 // 4 if config.explain.maps != "none" else 0
        yield staged(
            "explain", tasks, looked, rates.explain_s, looked * (image + classes),
            looked * (rows["explain"] + kept), held, model=True,
        )  # fmt: skip


def _source_bytes(tiles: gpd.GeoDataFrame, cells: int) -> float:
    """What drawing cells reads of the tiles' files: their windows' share, at most everything."""
    whole = sum(size for path in tiles["path"] for size in _file_bytes(Path(path)))
    pixels = float((tiles["width"].astype("int64") * tiles["height"]).sum())
    resolution = float(tiles["resolution_m"].median())
    wanted = cells * (CELL_M / resolution) ** 2 * _OVERLAP
    return whole * min(1.0, wanted / max(pixels, 1.0))


def _file_bytes(path: Path) -> Iterator[int]:
    if path.is_dir():
        yield from (p.stat().st_size for p in path.rglob("*") if p.is_file())
    elif path.exists():
        yield path.stat().st_size


def _cost(stage: StagePlan, machines: Machines) -> float:
    """What the stage's hours cost: all that was asked for is paid while it runs."""
    return stage.hours * (machines.processors * machines.price + machines.gpus * machines.gpu_price)


def memory_of(text: str) -> int | None:
    """Bytes, as Dask writes memory; None: whatever there is.

    Raises
    ------
    ConfigError
        It is no amount.
    """
    try:
        return bytes_of(text)
    except ValueError as error:
        raise ConfigError(f"memory: expected {error}, received {text!r}") from error


def lines(plan: Plan) -> Iterator[str]:
    """The plan as text."""
    yield (
        f"{plan.name}: {plan.cells} cells in {plan.blocks} blocks, {plan.batches} batches; "
        f"{plan.tiles} tiles"
    )
    yield (
        f"{'stage':10} {'tasks':>7} {'read':>9} {'written':>9} {'memory':>9} {'processor h':>12} "
        f"{'GPU h':>8} {'hours':>8}"
    )
    for s in plan.stages:
        yield (
            f"{s.stage:10} {s.tasks:7} {_size(s.bytes_in):>9} {_size(s.bytes_out):>9} "
            f"{_size(s.worker_bytes):>9} {s.processor_hours:12.1f} {s.gpu_hours:8.1f} {s.hours:8.2f}"
        )
    m = plan.machines
    yield f"driver: {_size(plan.driver_bytes)} of memory"
    yield (
        f"{plan.hours:.1f} hours on {m.processors} processors and {m.gpus} GPUs, cost {plan.cost:.2f} "
        f"({m.price:g} a processor and hour, {m.gpu_price:g} a GPU)"
    )
    unused = m.gpus and not plan.rates.on_gpu
    yield f"rates: of {plan.rates.machine}, measured {plan.rates.measured}" + (
        "; that machine has no GPU, so the models are counted on processors" if unused else ""
    )
    for what, value in plan.missing.items():
        yield f"missing: {what}: {_told(value)}"


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} ({n} cells)" for k, n in value.items()) or "none"
    return "no land cover is given" if value is None else str(value)


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
