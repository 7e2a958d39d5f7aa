"""The stages that choose the cells and make their pixels: cells, mosaic, landcover."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid import __version__
from sesgrid.batches.blocks import BlockBatch, fullest_group, plan_batches
from sesgrid.batches.running import Outcome
from sesgrid.errors import ClusterError, FormatError, MissingInputError
from sesgrid.grid import Extent
from sesgrid.run.choose import choose_cells
from sesgrid.run.config import Config
from sesgrid.run.freshness import Folders, digest, fingerprint
from sesgrid.run.imagery import imagery_of, reader_of
from sesgrid.run.job import Job, class_table, folds_kind, land_polygons, protocol_of
from sesgrid.run.memory import require_mosaic_fits
from sesgrid.run.pixel_blocks import (
    LAYERS_OF,
    PixelWork,
    list_layers,
    pixels_of,
    read_failures,
    run_blocks,
)
from sesgrid.run.published import published
from sesgrid.run.tables import CellTable, TableWriter, write_table
from sesgrid.run.workspace import load_places
from sesgrid.sources import (
    ClassReader,
    holds_rasters,
    read_boundary,
    read_class_rasters,
    select_cells,
)
from sesgrid.stages.cells import cells as label_cells
from sesgrid.stages.cells import usable
from sesgrid.stages.classified import Classified
from sesgrid.stages.folds import FOLD_KINDS
from sesgrid.stages.labels import Thresholds, income_thresholds
from sesgrid.stages.landcover import Landcover, LandcoverIndex, PolygonBlock
from sesgrid.stages.mosaic import Mosaic, TiledBlock, TileIndex
from sesgrid.store.codec import PixelCodec
from sesgrid.store.cube import Cube, require_owner
from sesgrid.store.location import is_empty
from sesgrid.store.parts import Parts
from sesgrid.store.written import forget_written

__all__ = [
    "described",
    "landcover_work",
    "mosaic_work",
    "result_of",
    "run_cells",
    "run_landcover",
    "run_mosaic",
]

_SHARES = ("coverage", "share_nodata", "share_read_failed", "void_share")
"""What the mosaic tells of each cell's pixels."""

_NO_IMAGERY = pd.DataFrame(columns=["cell_id", *_SHARES, "ortho_year", "ortho_source"])


def run_cells(job: Job) -> dict[str, Any]:
    """Census → selected, labelled, folded cells."""
    c = job.config
    census, chosen, origin = choose_cells(c)
    table = label_cells(
        chosen,
        city=c.name,
        classes=c.cells.classes,
        thresholds=_thresholds(job, census, chosen),
        labels=c.cells.labels or protocol_of(c).labels,
        imputed_weight=c.cells.imputed_weight,
        folds=c.cells.folds,
        folds_kind=folds_kind(c),
        fold_block_cells=c.cells.fold_block_cells,
        buffer_cells=c.cells.buffer_cells,
        compare_folds=c.cells.compare_folds,
        cells_per_block=c.grid.cells_per_block,
        seed=c.cells.seed,
    )
    plan = plan_batches(job.grid, table)
    write_table(job.files.table("cells"), table, (batch.members for batch in plan))
    return {
        "census cells": len(census),
        "boundary": origin,
        **_summary(table),
        "result_id": _places(plan, str(table.attrs["vintage"])),
    }


def _places(plan: Sequence[BlockBatch], vintage: str) -> str:
    """Names what pixels are drawn for: the cells of each batch, and the year that imagery should be near."""
    found = hashlib.sha256(vintage.encode())
    for batch in plan:
        found.update(batch.name.encode() + b"\0" + np.ascontiguousarray(batch.cells).tobytes())
    return found.hexdigest()[:16]


def _thresholds(job: Job, census: pd.DataFrame, chosen: pd.DataFrame) -> Thresholds | list[float]:
    """Where the classes part, as the run's settings ask for it."""
    c = job.config.cells
    if c.thresholds is not None:
        return c.thresholds
    tables, of = [chosen], "city"
    if c.quantiles == "nation":
        tables, of = [census], "nation"
    elif c.quantiles == "cities":
        cities = job.config.sources.cities
        rule = "centre" if c.rule == "all" else c.rule
        tables = [select_cells(census, read_boundary(path), rule) for path in cities]
        of = f"cities: {', '.join(path.name for path in cities)}"
    labels = c.labels or protocol_of(job.config).labels
    return income_thresholds(
        *tables, of=of, classes=c.classes, labels=labels, weight=c.quantile_weight
    )


def _summary(table: gpd.GeoDataFrame) -> dict[str, Any]:
    """What the record of the stage tells of its cells."""
    attrs, labelled = table.attrs, table[table["labelled"]]
    sizes = {
        kind: [int((labelled[f"fold_{kind}"] == f).sum()) for f in range(attrs["n_folds"])]
        for kind in FOLD_KINDS
    }
    return {
        "cells": len(table),
        "labelled": len(labelled),
        "imputed": int(table["imputed"].fillna(False).astype(bool).sum()),
        "vintage": attrs["vintage"],
        "thresholds": attrs["thresholds"],
        "thresholds of": attrs["thresholds_of"],
        "quantiles count": attrs["quantile_weight"],
        "labelled cells per class": np.bincount(
            labelled["ses_true"].to_numpy(np.int64), minlength=attrs["n_classes"] + 1
        )[1:].tolist(),
        "folds": attrs["folds_kind"],
        **{f"labelled cells per {kind} fold": n if any(n) else None for kind, n in sizes.items()},
        "buffer of spatial folds, in cells": attrs["buffer_cells"],
    }


def _tiles_read() -> Callable[[TiledBlock], list[tuple[str, str]]]:
    """What tells of an item which tiles it reads, and whether they changed; each file is looked at once."""
    folders = Folders()
    known = cache(lambda path: fingerprint(Path(path), folders))
    return lambda item: [(Path(tile.path).name, known(tile.path)) for tile in item.tiles]


def _polygons_read(item: PolygonBlock) -> str:
    return digest([*item.wkb, item.values])


def mosaic_work(job: Job, cells: pd.DataFrame, plan: Sequence[BlockBatch]) -> PixelWork:
    """Every block with the tiles that may show it.

    Raises
    ------
    MissingInputError
        No tile touches any cell.
    """
    c = job.config
    tiles = imagery_of(c)
    near = _census_year(cells)
    index = TileIndex(job.grid, tiles, near_year=near, prefer=c.mosaic.prefer)
    index.require_any((batch.blocks for batch in plan), cells)
    stage = Mosaic(job.grid, reader_of(c))
    return PixelWork(stage, index.items, _tiles_read(), {"tiles": len(tiles)})


def _census_year(cells: pd.DataFrame) -> int | None:
    vintage = str(cells.attrs.get("vintage", ""))
    return int(vintage) if vintage.isdigit() else None


def run_mosaic(job: Job) -> dict[str, Any]:
    """Tiles → image and coverage in the cube."""
    c, cells = job.config, load_places(job.files)
    plan, near = plan_batches(job.grid, cells), _census_year(cells)
    work = mosaic_work(job, cells, plan)
    cube = _cube(job, Extent.of_cells(job.grid, cells["row"], cells["col"]))
    fullest = work.items(fullest_group(plan))
    projected = require_mosaic_fits(job.client, work.stage, fullest, c.cluster.gdal_cache_mb)
    for layer in LAYERS_OF["mosaic"]:
        forget_written(cube.path, layer)
    outcome = run_blocks(job, "mosaic", work, plan, cube)
    parts = job.parts("mosaic")
    told = {
        **work.counted,
        **_counted(plan, outcome),
        "memory of a worker, projected": f"{projected / 1e9:.2f} GB",
        "errors": read_failures(parts, outcome.done),
        "failures": outcome.told(),
    }
    if job.only is not None:
        return told
    list_layers(parts, "mosaic", cube, outcome.done)
    _write_imagery(job, plan, outcome, near)
    shown = ["coverage", "void_share", "ortho_year", "ortho_gap_years"]
    table = CellTable(job.files.table("mosaic")).read(shown, with_id=False)
    covered = usable(table, c.cells.min_coverage)
    max_void = protocol_of(c).max_void
    void = 0 if max_void is None else int((covered & ~usable(table, 0.0, max_void)).sum())
    years = table["ortho_year"].dropna().astype(int).value_counts().sort_index()
    return {
        **told,
        "cells with imagery": int((table["coverage"] > 0).sum()),
        f"cells covered at least {c.cells.min_coverage:.0%}": int(covered.sum()),
        "of these left out by the void filter": void,
        "imagery years": {str(k): int(v) for k, v in years.items()},
        "years between imagery and census, at most": _largest_gap(table),
        "cube": cube.token,
        "result_id": result_of("mosaic", parts, outcome.done, cube),
    }


def result_of(stage: str, parts: Parts, done: Sequence[str], cube: Cube) -> str:
    """Names the pixels that a stage wrote."""
    name = pixels_of(parts, done)
    # of the first also the cube's token: what else lay in the cube before is gone with it
    return f"{name}-{cube.token}" if stage == "mosaic" else name


def _write_imagery(
    job: Job, plan: Sequence[BlockBatch], outcome: Outcome, near: int | None
) -> None:
    """What the mosaic tells of each cell; nothing where its batch failed."""
    parts, done = job.parts("mosaic"), set(outcome.done)
    cells = CellTable(job.files.table("cells")).batches([])
    with TableWriter(job.files.table("mosaic"), {}) as writer:
        for batch, ids in zip(plan, cells, strict=True):
            rows = parts.rows(batch.name) if batch.name in done else _NO_IMAGERY
            writer.write(_imagery(rows.set_index("cell_id").reindex(ids.index), near))


def _imagery(rows: pd.DataFrame, near: int | None) -> pd.DataFrame:
    year = rows["ortho_year"].astype("Int64")
    gap = year - near if near is not None else pd.Series(pd.NA, index=rows.index)
    shares = {n: rows[n].astype("float64") for n in _SHARES}
    source = rows["ortho_source"].astype("string")
    named = {"ortho_year": year, "ortho_source": source, "ortho_gap_years": gap.astype("Int64")}
    return pd.DataFrame({**shares, **named})


def _counted(plan: Sequence[BlockBatch], outcome: Outcome) -> dict[str, int]:
    counted = {
        "blocks": sum(batch.n_blocks for batch in plan),
        "batches": len(plan),
        "batches kept": outcome.resumed,
    }
    left = len(plan) - outcome.asked
    return counted | {"batches left to other jobs": left} if left else counted


def _largest_gap(table: pd.DataFrame) -> int | None:
    gaps = table["ortho_gap_years"].dropna().abs()
    return int(gaps.max()) if len(gaps) else None


def _cube(job: Job, extent: Extent) -> Cube:
    """The cube of this very run if it is there (resume, or another job made it), else a new one.

    Raises
    ------
    ClusterError
        A cube of other settings lies there, and another driver is at work on it.
    """
    with _alone(job):
        return _opened_or_made(job, extent)


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """One driver at a time changes what the cube tells of itself."""
    if job.leases is None:
        yield
        return
    job.leases.wait("cube", "cube")
    try:
        yield
    finally:
        job.leases.release("cube", "cube")


def _opened_or_made(job: Job, extent: Extent) -> Cube:
    path, codec = job.files.cube, PixelCodec(job.config.cube.codec, job.config.cube.quality)
    owner = job.files.mark.run_id()
    if not is_empty(path):
        require_owner(path, owner)
        try:
            cube = Cube.open(path)
        except (FormatError, MissingInputError):
            cube = None  # of another version, or never finished
        if cube is not None and cube.extent == extent and cube.attribute("mosaic_key") == job.key:
            cube.describe(published(job.config))  # sources may have been added since
            return cube
        busy = None if job.leases is None else job.leases.holder(_ON_PIXELS)
        if busy is not None:
            raise ClusterError(
                f"{path} was made with other settings, and would have to be made anew, but {busy}: wait for "
                "it, or give this run an output of its own"
            )
    told = described(job.config, job.key)
    made = Cube.create(path, extent, told, codec, ready=False, owner=owner)
    for stage in ("mosaic", "landcover"):
        job.parts(stage).keep_only([])
    # only now: a cube without pixels must never stand beside parts that say they were drawn
    made.mark_ready()
    return made


def described(config: Config, mosaic_key: str) -> dict[str, Any]:
    """What a run's cube tells of itself."""
    return {
        "title": config.name,
        "software": f"sesgrid {__version__}",
        "mosaic_key": mosaic_key,
        **published(config),
    }


_ON_PIXELS = (
    "mosaic", "landcover", "train", "predict", "predict-other", "explain", "analyse", "report",
)  # fmt: skip
"""Stages that read or write the cube."""


def landcover_work(job: Job, cells: pd.DataFrame, plan: Sequence[BlockBatch]) -> PixelWork | None:
    """Every block with the polygons, or the class rasters, that touch it; None: no land cover is given."""
    source, table = job.config.sources.landcover, class_table(job.config)
    if source is not None and table is not None and holds_rasters(source):
        rasters = read_class_rasters(source)
        tiles = TileIndex(job.grid, rasters, prefer=("finest",))
        tiles.require_any((batch.blocks for batch in plan), cells)
        stage = Classified(job.grid, ClassReader.of(table))
        return PixelWork(stage, tiles.items, _tiles_read(), {"rasters": len(rasters)})
    polygons = land_polygons(job.config, job.grid, cells)
    if polygons is None:
        return None
    laid = LandcoverIndex(job.grid, polygons)
    laid.require_any(batch.blocks for batch in plan)
    counted = {"polygons": len(polygons)}
    return PixelWork(Landcover(job.grid), laid.items, _polygons_read, counted)


def run_landcover(job: Job) -> dict[str, Any]:
    """Polygons → class pixels in the cube."""
    cells = load_places(job.files)
    plan = plan_batches(job.grid, cells)
    work, cube = landcover_work(job, cells, plan), job.cube(cells)
    with _alone(job):
        cube.describe(published(job.config))
    if work is None:
        job.parts("landcover").keep_only([])
        return {"landcover": "none given: activations cannot be summed per class"}
    forget_written(cube.path, "landcover")
    outcome = run_blocks(job, "landcover", work, plan, cube)
    parts = job.parts("landcover")
    told = {
        **work.counted,
        **_counted(plan, outcome),
        "errors": read_failures(parts, outcome.done),
        "failures": outcome.told(),
    }
    if job.only is not None:
        return told
    list_layers(parts, "landcover", cube, outcome.done)
    return told | {"result_id": result_of("landcover", parts, outcome.done, cube)}
