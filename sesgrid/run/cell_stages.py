"""The stages that run the models over cells: predict, explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import ConfigError
from sesgrid.run.batches import in_batches, run_batches
from sesgrid.run.cluster import on_gpus
from sesgrid.run.config import Config
from sesgrid.run.job import Job, class_table, load_models, method_of
from sesgrid.run.workspace import Workspace, load_table, save_rows, save_table
from sesgrid.sources import class_names, read_urban_atlas
from sesgrid.stages.explain import MAPS, Explain, activation_dataset, fragments_table
from sesgrid.stages.fragments import with_polygons
from sesgrid.stages.predict import (
    GROUP,
    CellTask,
    Predict,
    assign_models,
    join_predictions,
    place_cells,
    with_model,
)
from sesgrid.store.cube import ACTIVATION, Cube
from sesgrid.store.models import ModelRef

__all__ = ["explain_stage", "load_activation", "run_explain", "run_over_cells", "run_predict"]

CELL_BATCH = 4096
"""Cells in one part of the stages that make rows."""


@dataclass(frozen=True)
class KeptMaps:
    """Explain one block, and write its maps into the cube from the task that made them."""

    stage: Explain
    cube: Cube

    def __call__(self, items: Sequence[CellTask], *inputs: np.ndarray) -> list[dict[str, Any]]:
        """The rows of the stage without their maps; the items are all cells of one block."""
        rows, grid = self.stage(items, *inputs), self.cube.extent.grid
        block, p = grid.block_of(items[0].row, items[0].col), grid.pixels_per_cell
        top, left = (k * grid.cells_per_block for k in block)
        maps = np.zeros((len(MAPS), grid.block_px, grid.block_px), np.uint8)
        kept = [
            (task, row.pop("maps")) for task, row in zip(items, rows, strict=True) if "maps" in row
        ]
        for task, values in kept:
            y, x = (task.row - top) * p, (task.col - left) * p
            maps[:, y : y + p, x : x + p] = values
        if kept:
            self.cube.write_block(*block, {ACTIVATION: maps})
        return rows


def run_over_cells(
    job: Job,
    name: str,
    stage: Any,
    named: gpd.GeoDataFrame,
    models: Mapping[str, ModelRef],
    layers: Sequence[str],
    dress: Callable[[list[CellTask]], Sequence[CellTask]] = list,
    *,
    by_block: bool = False,
) -> pd.DataFrame:
    """Run a stage over every cell that has a model; one row a cell.

    By block: a task is given all cells of one block, and no others, so that it may write into the cube.
    """
    side = job.config.grid.cells_per_block
    todo = with_model(named, side)
    pixels = job.cube(named).pixels()
    batches = (
        _blocks_in_batches(todo, side) if by_block else in_batches(range(len(todo)), CELL_BATCH)
    )

    def make(batch: Any) -> Any:
        chosen = todo.iloc[list(batch)]
        group = _block_sizes(chosen, side) if by_block else GROUP
        if not by_block:
            # by model, so that the device's batches fill; the cube is read cell by cell anyway
            chosen = chosen.sort_values("model_id", kind="stable")
        chosen.attrs = dict(named.attrs)
        return place_cells(stage, chosen, pixels, models, layers, name, dress, group)

    rows, _, _ = run_batches(
        job.client,
        job.parts(name),
        name,
        batches,
        make,
        lambda results: (results, {}),
        unit="cell",
        resources=on_gpus(job.client),
    )
    return rows


def _block_sizes(cells: gpd.GeoDataFrame, side: int) -> tuple[int, ...]:
    """Cells of each block, in the order of the table, which is by block."""
    blocks = zip(cells["row"] // side, cells["col"] // side, strict=True)
    return tuple(len(list(members)) for _, members in groupby(blocks))


def _blocks_in_batches(cells: gpd.GeoDataFrame, side: int) -> list[range]:
    """Batches of about `CELL_BATCH` cells that end with a block."""
    out, start, end = [], 0, 0
    for size in _block_sizes(cells, side):
        end += size
        if end - start >= CELL_BATCH:
            out.append(range(start, end))
            start = end
    return [*out, range(start, end)] if end > start else out


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
    """Pixels, class pixels and models → class sums of the activation maps, and the maps where asked."""
    c = job.config
    if c.sources.landcover is None and c.explain.maps == "none":
        return {"explain": "skipped: no land cover given"}
    named = load_table(job.files.table("predict"))
    stage, polygons = explain_stage(c), _polygons_to_keep(c)
    keeping, cube = c.explain.maps != "none", job.cube(named)
    stage = replace(stage, keep=_cells_to_keep(c, named))
    cube.keep_activation(job.key if keeping else None)
    rows = run_over_cells(
        job, "explain", KeptMaps(stage, cube) if keeping else stage, named, load_models(job),
        Explain.layers,
        list if polygons is None else lambda tasks: with_polygons(tasks, job.grid, polygons),
        by_block=keeping,
    )  # fmt: skip
    summary = {"cells explained": len(rows), "preset": stage.method.name}
    if keeping:
        summary["maps kept"] = int(rows["peak_low"].notna().sum()) if "peak_low" in rows else 0
    if polygons is not None:
        table = fragments_table(rows, polygons)
        save_rows(table, job.files.fragments)
        rows, summary["fragments"] = rows.drop(columns="fragments"), len(table)
    save_rows(rows, job.files.table("explain"))
    return summary


def _cells_to_keep(config: Config, cells: pd.DataFrame) -> Any:
    """Whose maps are kept, as `Explain` takes it."""
    asked = config.explain.maps
    if isinstance(asked, str):
        return asked
    strangers = sorted(set(asked) - set(cells.index))
    if strangers:
        raise ConfigError(
            f"explain.maps: {len(strangers)} cells are not of this city, the first {strangers[0]!r}: give "
            "ids as in cells.parquet"
        )
    return frozenset(asked)


def _polygons_to_keep(config: Config) -> gpd.GeoDataFrame | None:
    """The land cover whose polygons get statistics of their own."""
    s = config.sources
    if not config.explain.fragments or s.landcover is None:
        return None
    return read_urban_atlas(s.landcover, s.landcover_layer)


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
