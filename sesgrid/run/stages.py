"""What each stage of a run does with its files: read, call the stage's function, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import geopandas as gpd
import pandas as pd
from distributed import Client

from sesgrid import __version__
from sesgrid.errors import FormatError, MissingInputError
from sesgrid.grid import Extent, Grid
from sesgrid.kernels.method import Method, method_named
from sesgrid.run.batches import in_batches, run_batches
from sesgrid.run.config import Config
from sesgrid.run.memory import require_mosaic_fits
from sesgrid.run.workspace import Workspace, load_table, save_rows, save_table
from sesgrid.sources import (
    ClassReader,
    RasterReader,
    class_names,
    read_boundary,
    read_class_rasters,
    read_class_table,
    read_filosofi,
    read_ortho,
    read_urban_atlas,
    select_cells,
)
from sesgrid.stages.cells import cells as label_cells
from sesgrid.stages.classified import Classified
from sesgrid.stages.explain import Explain, activation_dataset, fragments_table
from sesgrid.stages.fragments import with_polygons
from sesgrid.stages.landcover import Landcover, plan_landcover
from sesgrid.stages.mosaic import Mosaic, plan_mosaic
from sesgrid.stages.place import GROUP_SIDE, BlockResult, group_blocks, place, plan_blocks
from sesgrid.stages.predict import (
    CellTask,
    Predict,
    assign_models,
    join_predictions,
    place_cells,
    with_model,
)
from sesgrid.stages.protocol import Protocol, protocol_named
from sesgrid.store.codec import PixelCodec
from sesgrid.store.cube import Cube
from sesgrid.store.location import exists
from sesgrid.store.models import ModelRef
from sesgrid.store.parts import BATCH, Parts

__all__ = ["Job", "explain_stage", "method_of", "protocol_of"]

CELL_BATCH = 4096
"""Cells in one part of the stages that make rows."""


@dataclass(frozen=True)
class Job:
    """What a stage's runner is given."""

    config: Config
    files: Workspace
    client: Client
    key: str
    """Hash of this stage's settings and inputs."""

    @property
    def grid(self) -> Grid:
        """The run's grid."""
        return Grid(self.config.grid.pixels_per_cell, self.config.grid.cells_per_block)

    def cube(self, cells: gpd.GeoDataFrame) -> Cube:
        """The run's cube, which must lie on the grid of the run's cells."""
        cube = Cube.open(self.files.cube)
        cube.require(Extent.of_cells(self.grid, cells["row"], cells["col"]))
        return cube

    def parts(self, stage: str) -> Parts:
        """The parts of a stage, with this job's key."""
        return Parts(self.files.parts(stage), self.key)


def protocol_of(config: Config) -> Protocol:
    """The training protocol with the run's changes."""
    t = config.train
    protocol = protocol_named(
        t.protocol,
        epochs=t.epochs,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
        patience=t.patience,
        validation_share=t.validation_share,
        weights=t.weights,
    )
    if t.weights == "random":
        from dataclasses import replace

        protocol = replace(protocol, weights=None)
    return protocol


_FOOTPRINT = "footprint of the imagery (every cell that it touches)"


def run_cells(job: Job) -> dict[str, Any]:
    """Census → selected, labelled, folded cells."""
    c = job.config
    census = read_filosofi(c.sources.census, c.sources.census_layer, vintage=c.sources.vintage)
    total = len(census)
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
        folds=c.cells.folds,
        labels=c.cells.labels or protocol_of(c).labels,
        cells_per_block=c.grid.cells_per_block,
        seed=c.cells.seed,
    )
    save_table(table, job.files.table("cells"))
    imputed = table["imputed"].fillna(False).astype(bool)
    return {
        "census cells": total,
        "cells": len(table),
        "labelled": int(table["labelled"].sum()),
        "imputed": int(imputed.sum()),
        "vintage": table.attrs["vintage"],
        "boundary": origin,
        "thresholds": table.attrs["thresholds"],
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
    table = cells.copy()
    indexed = rows.set_index("cell_id")
    for name in ("coverage", "share_nodata", "share_read_failed", "ortho_year", "ortho_source"):
        table[name] = indexed[name].reindex(table.index)
    table["ortho_year"] = table["ortho_year"].astype("Int64")
    table["ortho_gap_years"] = table["ortho_year"] - near if near is not None else pd.NA
    table["ortho_gap_years"] = table["ortho_gap_years"].astype("Int64")
    table["ortho_source"] = table["ortho_source"].astype("string")
    table.attrs = dict(cells.attrs)
    save_table(table, job.files.table("mosaic"))
    enough = int((table["coverage"] >= c.cells.min_coverage).sum())
    years = table["ortho_year"].dropna().astype(int).value_counts().sort_index()
    return {
        "tiles": len(tiles),
        "blocks": len(work),
        "blocks resumed": resumed,
        "memory of a worker, projected": f"{projected / 1e9:.2f} GB",
        "cells with imagery": int((table["coverage"] > 0).sum()),
        f"cells covered at least {c.cells.min_coverage:.0%}": enough,
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


def class_table(config: Config) -> pd.DataFrame | None:
    """The classes of a classified raster; None: the study's own, of the Urban Atlas."""
    path = config.sources.landcover_classes
    return None if path is None else read_class_table(path)


def load_models(job: Job) -> dict[str, ModelRef]:
    """The run's models by id, each verified against its card."""
    refs = [ModelRef.open(p) for p in sorted(job.files.models.glob("fold-*.keras"))]
    return {ref.model_id: ref for ref in refs}


def run_over_cells(
    job: Job,
    name: str,
    stage: Any,
    named: gpd.GeoDataFrame,
    models: Mapping[str, ModelRef],
    layers: Sequence[str],
    dress: Callable[[list[CellTask]], Sequence[CellTask]] = list,
) -> pd.DataFrame:
    """Run a stage over every cell that has a model; one row a cell."""
    todo = with_model(named, job.config.grid.cells_per_block)
    pixels = job.cube(named).pixels()

    def make(batch: Any) -> Any:
        # by model, so that the device's batches fill; the cube is read cell by cell anyway
        chosen = todo.iloc[list(batch)].sort_values("model_id", kind="stable")
        chosen.attrs = dict(named.attrs)
        return place_cells(stage, chosen, pixels, models, layers, name, dress)

    rows, _, _ = run_batches(
        job.client,
        job.parts(name),
        name,
        in_batches(range(len(todo)), CELL_BATCH),
        make,
        lambda results: (results, {}),
        unit="cell",
    )
    return rows


def run_predict(job: Job) -> dict[str, Any]:
    """Pixels and models → the class of every covered cell."""
    c, cells = job.config, load_table(job.files.table("mosaic"))
    models = load_models(job)
    named = assign_models(cells, models, min_coverage=c.cells.min_coverage)
    stage = Predict()
    rows = run_over_cells(job, "predict", stage, named, models, Predict.layers)
    table = join_predictions(named, rows)
    save_table(table, job.files.table("predict"))
    without = int(named["model_id"].isna().sum())
    return {"cells predicted": len(rows), "cells without enough imagery": without}


def run_explain(job: Job) -> dict[str, Any]:
    """Pixels, class pixels and models → class sums of the activation maps."""
    if job.config.sources.landcover is None:
        return {"explain": "skipped: no land cover given"}
    named = load_table(job.files.table("predict"))
    stage, polygons = explain_stage(job.config), _polygons_to_keep(job.config)
    rows = run_over_cells(
        job, "explain", stage, named, load_models(job), Explain.layers,
        list if polygons is None else lambda tasks: with_polygons(tasks, job.grid, polygons),
    )  # fmt: skip
    summary = {"cells explained": len(rows), "preset": stage.method.name}
    if polygons is not None:
        table = fragments_table(rows, polygons)
        save_rows(table, job.files.fragments)
        rows, summary["fragments"] = rows.drop(columns="fragments"), len(table)
    save_rows(rows, job.files.table("explain"))
    return summary


def _polygons_to_keep(config: Config) -> gpd.GeoDataFrame | None:
    """The land cover whose polygons get statistics of their own."""
    s = config.sources
    if not config.explain.fragments or s.landcover is None:
        return None
    return read_urban_atlas(s.landcover, s.landcover_layer)


def method_of(config: Config) -> Method:
    """The explaining method with the run's changes."""
    e = config.explain
    return method_named(
        e.preset, layer=e.layer, gates=e.gates, cam=e.cam, clip_percentile=e.clip_percentile,
        channels=e.channels,
    )  # fmt: skip


def explain_stage(config: Config) -> Explain:
    """The explaining stage as the run's settings ask for it."""
    names = class_names(class_table(config))
    return Explain(len(names) + 1, method_of(config), config.explain.precision)


def load_activation(config: Config, files: Workspace) -> Any:
    """The class sums of a run as a dataset; empty without land cover."""
    if config.sources.landcover is None:
        rows = pd.DataFrame()
    else:
        rows = pd.read_parquet(files.table("explain"))
    return activation_dataset(
        rows,
        class_names(class_table(config)),
        {"preset": method_of(config).name, "precision": config.explain.precision},
    )


Runner = Callable[[Job], Mapping[str, Any]]


def missing_outputs(config: Config, files: Workspace, stage: str) -> list[str]:
    """Names of files without which a stage is not finished, and which are not there."""
    models = [files.models / f"fold-{k}.keras" for k in range(config.cells.folds)]
    sums = [files.table("explain")] if config.sources.landcover is not None else []
    tables = [files.table("activation"), files.table("pairs")]
    needed = {
        "cells": [files.table("cells")],
        "mosaic": [files.table("mosaic")],
        "landcover": [],
        "train": models,
        "predict": [files.table("predict")],
        "explain": [*sums, *([files.fragments] if config.explain.fragments else [])],
        "analyse": [files.cells, files.activation, files.pairs, files.metrics, *tables],
        "report": [files.report],
    }[stage]
    missing = [p.name for p in needed if not p.exists()]
    if stage == "mosaic" and not _is_of(files):
        missing.append(PurePath(files.cube).name)
    return missing


def _is_of(files: Workspace) -> bool:
    """Whether the cube of the mosaic's record lies there: another run may have put its own in the place."""
    try:
        token = Cube.open(files.cube).token
    except (FormatError, MissingInputError):
        return False
    return str(files.record("mosaic").read().get("result_id", "")).endswith(token)
