"""The stages that run the models over cells: predict, explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import ConfigError
from sesgrid.run.batches import in_batches, run_batches
from sesgrid.run.cluster import on_gpus
from sesgrid.run.config import Config
from sesgrid.run.job import Job, class_table, load_models, method_of, protocol_of
from sesgrid.run.workspace import Workspace, load_cells, load_table, save_rows, save_table
from sesgrid.sources import class_names, read_urban_atlas
from sesgrid.stages.explain import MAPS, Explain, activation_dataset, fragments_table
from sesgrid.stages.folds import other_kind
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
from sesgrid.store.cube import Cube
from sesgrid.store.cube_layout import ACTIVATION
from sesgrid.store.models import ModelRef

__all__ = [
    "OTHER_FOLDS",
    "explain_stage",
    "load_activation",
    "run_explain",
    "run_over_cells",
    "run_predict",
]

OTHER_FOLDS = "of these by the other kind of folds too"
"""In the summary of ``predict``, where both kinds were trained."""

CELL_BATCH = 4096
"""Cells in one part of the stages that make rows."""


@dataclass(frozen=True)
class KeptMaps:
    """Explain some blocks, and write their maps into the cube from the task that made them."""

    stage: Explain
    cube: Cube

    def __call__(self, items: Sequence[CellTask], *inputs: np.ndarray) -> list[dict[str, Any]]:
        """The rows of the stage without their maps; the items are all cells of their blocks."""
        rows, grid = self.stage(items, *inputs), self.cube.extent.grid
        kept: dict[tuple[int, int], list[tuple[CellTask, np.ndarray]]] = {}
        for task, row in zip(items, rows, strict=True):
            if "maps" in row:
                block = grid.block_of(task.row, task.col)
                kept.setdefault(block, []).append((task, row.pop("maps")))
        p = grid.pixels_per_cell
        for block, members in kept.items():
            maps = np.zeros((len(MAPS), grid.block_px, grid.block_px), np.uint8)
            top, left = (k * grid.cells_per_block for k in block)
            for task, values in members:
                y, x = (task.row - top) * p, (task.col - left) * p
                maps[:, y : y + p, x : x + p] = values
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

    By block: a task is given all cells of its blocks, so that it may write these into the cube.
    """
    side = job.config.grid.cells_per_block
    todo = with_model(named, side)
    # these may be some of the city's cells: each must lie in the cube, which its slices make sure of
    pixels = Cube.open(job.files.cube).pixels()
    batches: list[Any] = in_batches(range(len(todo)), CELL_BATCH)
    if by_block:
        ends = [0, *accumulate(_whole_blocks(todo, side, CELL_BATCH))]
        batches = [range(a, b) for a, b in pairwise(ends)]

    def make(batch: Any) -> Any:
        chosen = todo.iloc[list(batch)]
        group = _whole_blocks(chosen, side, GROUP) if by_block else GROUP
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


def _whole_blocks(cells: gpd.GeoDataFrame, side: int, least: int) -> tuple[int, ...]:
    """Sizes of groups of at least so many cells, each of whole blocks; the table is by block."""
    blocks = zip(cells["row"] // side, cells["col"] // side, strict=True)
    sizes, filled = [], True
    for _, members in groupby(blocks):
        n = len(list(members))
        if filled:
            sizes.append(n)
        else:
            sizes[-1] += n
        filled = sizes[-1] >= least
    return tuple(sizes)


def run_predict(job: Job) -> dict[str, Any]:
    """Pixels and models → the class of every covered cell, and of labelled ones by the other folds."""
    c, cells = job.config, load_cells(job.files)
    table, predicted = _predicted(job, "predict", cells, load_models(job))
    save_table(table, job.files.table("predict"))
    summary = {
        "cells predicted": predicted,
        "cells without enough imagery": int(table["model_id"].isna().sum()),
    }
    other = other_kind(cells) if c.cells.compare_folds else None
    models = {} if other is None else load_models(job, other.attrs["folds_kind"])
    if other is None or not models:
        # not wanted, or there were too few cells to train them
        job.files.table("predict-other").unlink(missing_ok=True)
        return summary
    other = other[other["labelled"].fillna(False).astype(bool)]
    table, predicted = _predicted(job, "predict-other", other, models)
    save_table(table, job.files.table("predict-other"))
    return {**summary, OTHER_FOLDS: predicted}


def _predicted(
    job: Job, name: str, cells: gpd.GeoDataFrame, models: Mapping[str, ModelRef]
) -> tuple[gpd.GeoDataFrame, int]:
    """The cells with what the models of their folds say, and how many there are."""
    least, voids = job.config.cells.min_coverage, protocol_of(job.config).max_void
    named = assign_models(cells, models, min_coverage=least, max_void=voids)
    rows = run_over_cells(job, name, Predict(), named, models, Predict.layers)
    return join_predictions(named, rows), len(rows)


def run_explain(job: Job) -> dict[str, Any]:
    """Pixels, class pixels and models → class sums of the activation maps, and the maps where asked."""
    c = job.config
    named = load_table(job.files.table("predict"))
    keep, keeping, cube = _cells_to_keep(c, named), c.explain.maps != "none", job.cube(named)
    room = cube.keep_activation(job.key if keeping else None)
    if c.sources.landcover is None and not keeping:
        return {"explain": "skipped: no land cover given"}
    # parts that speak of maps belong to the room that these were written into
    job = replace(job, key=f"{job.key}-{room}") if room else job
    stage, polygons = replace(explain_stage(c), keep=keep), _polygons_to_keep(c)
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
