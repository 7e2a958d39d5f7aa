"""The stages that choose the cells and make their pixels: cells, mosaic, landcover."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid import __version__
from sesgrid.errors import FormatError, MissingInputError
from sesgrid.grid import Extent
from sesgrid.run.batches import in_batches, run_batches
from sesgrid.run.job import Job, class_table, folds_kind, protocol_of
from sesgrid.run.memory import require_mosaic_fits
from sesgrid.run.workspace import load_table, save_rows, save_table
from sesgrid.sources import (
    ClassReader,
    RasterReader,
    read_boundary,
    read_class_rasters,
    read_filosofi,
    read_ortho,
    read_urban_atlas,
    select_cells,
)
from sesgrid.stages.cells import cells as label_cells
from sesgrid.stages.cells import usable
from sesgrid.stages.classified import Classified
from sesgrid.stages.folds import FOLD_KINDS
from sesgrid.stages.labels import Thresholds, income_thresholds
from sesgrid.stages.landcover import Landcover, plan_landcover
from sesgrid.stages.mosaic import Mosaic, plan_mosaic
from sesgrid.stages.place import GROUP_SIDE, BlockResult, group_blocks, place, plan_blocks
from sesgrid.store.codec import PixelCodec
from sesgrid.store.cube import Cube
from sesgrid.store.location import exists
from sesgrid.store.parts import BATCH

__all__ = ["run_cells", "run_landcover", "run_mosaic"]

_OF_IMAGERY = (
    "coverage",
    "share_nodata",
    "share_read_failed",
    "void_share",
    "ortho_year",
    "ortho_source",
)
"""What the mosaic tells of each cell."""

_FOOTPRINT = "footprint of the imagery (every cell that it touches)"


def run_cells(job: Job) -> dict[str, Any]:
    """Census → selected, labelled, folded cells."""
    c = job.config
    census = read_filosofi(c.sources.census, c.sources.census_layer, vintage=c.sources.vintage)
    if c.sources.boundary is not None:
        area = read_boundary(c.sources.boundary, c.sources.boundary_layer)
        origin = c.sources.boundary.name
    elif c.sources.landcover is not None and c.sources.landcover_classes is None:
        area, origin = read_boundary(c.sources.landcover), c.sources.landcover.name
    else:
        area = read_ortho(c.sources.ortho, default_crs=c.sources.ortho_crs)
        origin = _FOOTPRINT
    chosen = select_cells(census, area, "touching" if origin == _FOOTPRINT else c.cells.rule)
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
    save_table(table, job.files.table("cells"))
    return {
        "census cells": len(census),
        "boundary": origin,
        **_summary(table),
        "result_id": _places(table),
    }


def _places(table: gpd.GeoDataFrame) -> str:
    """Names what pixels are drawn for: where the cells lie, and the year that imagery should be near."""
    at = np.ascontiguousarray(table[["row", "col"]].to_numpy(np.int64))
    return hashlib.sha256(at.tobytes() + str(table.attrs["vintage"]).encode()).hexdigest()[:16]


def _thresholds(
    job: Job, census: gpd.GeoDataFrame, chosen: gpd.GeoDataFrame
) -> Thresholds | list[float]:
    """Where the classes part, as the run's settings ask for it."""
    c = job.config.cells
    if c.thresholds is not None:
        return c.thresholds
    tables, of = [chosen], "city"
    if c.quantiles == "nation":
        tables, of = [census], "nation"
    elif c.quantiles == "cities":
        cities = job.config.sources.cities
        tables = [select_cells(census, read_boundary(path), c.rule) for path in cities]
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


@dataclass(frozen=True)
class Written:
    """A stage whose blocks go into the cube one by one as they are made; their records are left."""

    stage: Mosaic | Landcover | Classified
    cube: Cube

    def __call__(self, items: Sequence[Any]) -> list[tuple[BlockResult, ...]]:
        """Groups of blocks → per group, the results without their pixels."""
        return [tuple(self._write(r) for r in self.stage.each(group)) for group in items]

    def _write(self, result: BlockResult) -> BlockResult:
        block = result.block
        self.cube.write_block(block.block_row, block.block_col, result.arrays)
        return BlockResult(block, {}, result.rows, result.errors, result.seconds)


def _split_blocks(groups: list[tuple[BlockResult, ...]]) -> tuple[list[dict], dict[str, Any]]:
    results = [result for group in groups for result in group]
    rows = [
        row | {"block_row": r.block.block_row, "block_col": r.block.block_col}
        for r in results
        for row in (r.rows or ({},))
    ]
    errors = {path: message for r in results for path, message in r.errors.items()}
    return rows, {"errors": errors, "block_seconds": [round(r.seconds, 3) for r in results]}


def _run_blocks(
    job: Job, name: str, stage: Mosaic | Landcover | Classified, groups: Sequence[Any], cube: Cube
) -> tuple[pd.DataFrame, list[dict[str, Any]], int]:
    """Run a stage that makes pixels, each block written by the task that made it."""
    return run_batches(
        job.client,
        job.parts(name),
        name,
        in_batches(groups, BATCH // GROUP_SIDE**2),
        lambda batch: place(Written(stage, cube), batch, name=name),
        _split_blocks,
        unit="block",
        size=len,
    )


def run_mosaic(job: Job) -> dict[str, Any]:
    """Tiles → image and coverage in the cube."""
    c, cells = job.config, load_table(job.files.table("cells"))
    tiles = read_ortho(c.sources.ortho, default_crs=c.sources.ortho_crs)
    vintage = str(cells.attrs.get("vintage", ""))
    near = int(vintage) if vintage.isdigit() else None
    work = plan_mosaic(job.grid, cells, tiles, near_year=near, prefer=c.mosaic.prefer)
    groups = group_blocks(work)
    extent = Extent.of_cells(job.grid, cells["row"], cells["col"])
    cube = _cube(job, extent)
    stage = Mosaic(job.grid, RasterReader())
    projected = require_mosaic_fits(job.client, stage, groups, c.cluster.gdal_cache_mb)
    rows, records, resumed = _run_blocks(job, "mosaic", stage, groups, cube)
    table = rows.set_index("cell_id")[list(_OF_IMAGERY)].reindex(cells.index)
    table["ortho_year"] = table["ortho_year"].astype("Int64")
    table["ortho_gap_years"] = table["ortho_year"] - near if near is not None else pd.NA
    table["ortho_gap_years"] = table["ortho_gap_years"].astype("Int64")
    table["ortho_source"] = table["ortho_source"].astype("string")
    save_rows(table, job.files.table("mosaic"))
    covered = usable(table, c.cells.min_coverage)
    max_void = protocol_of(c).max_void
    void = 0 if max_void is None else int((covered & ~usable(table, 0.0, max_void)).sum())
    years = table["ortho_year"].dropna().astype(int).value_counts().sort_index()
    return {
        "tiles": len(tiles),
        "blocks": len(work),
        "blocks resumed": resumed,
        "memory of a worker, projected": f"{projected / 1e9:.2f} GB",
        "cells with imagery": int((table["coverage"] > 0).sum()),
        f"cells covered at least {c.cells.min_coverage:.0%}": int(covered.sum()),
        "of these left out by the void filter": void,
        "imagery years": {str(k): int(v) for k, v in years.items()},
        "years between imagery and census, at most": _largest_gap(table),
        "errors": list({p: e for r in records for p, e in r["errors"].items()}.values()),
        "result_id": cube.token,
    }


def _largest_gap(table: pd.DataFrame) -> int | None:
    gaps = table["ortho_gap_years"].dropna().abs()
    return int(gaps.max()) if len(gaps) else None


def _cube(job: Job, extent: Extent) -> Cube:
    """The cube of this very run if it is there (resume), else a new one."""
    path, codec = job.files.cube, PixelCodec(job.config.cube.codec, job.config.cube.quality)
    if exists(path):
        try:
            cube = Cube.open(path)
        except (FormatError, MissingInputError):
            cube = None  # of another version, or never finished
        if cube is not None and cube.extent == extent and cube.attribute("mosaic_key") == job.key:
            return cube
    attributes = {
        "title": job.config.name,
        "software": f"sesgrid {__version__}",
        "mosaic_key": job.key,
        "sources": json.loads(job.config.sources.model_dump_json()),
        "configuration": json.loads(job.config.model_dump_json()),
    }
    made = Cube.create(path, extent, attributes, codec, ready=False)
    for stage in ("mosaic", "landcover"):
        for part in job.files.parts(stage).glob("part-*.parquet"):
            part.unlink()
    # only now: a cube without pixels must never stand beside parts that say they were drawn
    made.mark_ready()
    return made


def run_landcover(job: Job) -> dict[str, Any]:
    """Polygons → class pixels in the cube."""
    source = job.config.sources.landcover
    if source is None:
        return {"landcover": "none given: activations cannot be summed per class"}
    cells = load_table(job.files.table("cells"))
    table = class_table(job.config)
    stage: Landcover | Classified
    groups: Sequence[Sequence[Any]]
    if table is not None:
        rasters = read_class_rasters(source)
        groups = group_blocks(plan_mosaic(job.grid, cells, rasters, prefer=("finest",)))
        stage, counted = Classified(job.grid, ClassReader.of(table)), {"rasters": len(rasters)}
    else:
        polygons = read_urban_atlas(source, job.config.sources.landcover_layer)
        blocks = plan_blocks(job.grid, cells["row"].to_numpy(), cells["col"].to_numpy())
        groups = group_blocks(plan_landcover(job.grid, blocks, polygons))
        stage, counted = Landcover(job.grid), {"polygons": len(polygons)}
    _run_blocks(job, "landcover", stage, groups, job.cube(cells))
    return {**counted, "blocks": sum(map(len, groups))}
