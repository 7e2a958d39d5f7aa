"""A run in miniature, without its stages: brightness tells the class, a network trains in a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import keras
import numpy as np
import pandas as pd
import pytest
from distributed import WorkerPlugin
from keras import layers

import sesgrid
from sesgrid.batches.blocks import members_of, plan_batches
from sesgrid.grid import Extent, Grid, rowcol_of_ids
from sesgrid.kernels.backbones import BACKBONES, Backbone
from sesgrid.run.config import Config, load_config
from sesgrid.run.job import Job
from sesgrid.run.tables import write_table
from sesgrid.run.training import run_train
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import Cube
from tests.test_cells import census

PX, SIDE, CLASSES, FOLDS = 64, 4, 3, 2

SETTINGS = f"""
[grid]
pixels_per_cell = {PX}
cells_per_block = {SIDE}
[cells]
classes = {CLASSES}
folds = {FOLDS}
compare_folds = false
fold_block_cells = 2
[train]
protocol = "scratch"
backbone = "pinhole"
epochs = 2
learning_rate = 0.02
schedule = "constant"
[analyse]
bootstrap = 100
"""


WIDTH = {"pinhole": 6, "keyhole": 8}


class _Holes(Backbone):
    """Five strided convolutions: a backbone that compiles at once."""

    def build(self, weights=None, scaling="backbone", drop_connect_rate=0.2) -> keras.Model:
        x = image = keras.Input((None, None, 3), name="image")
        x = layers.Rescaling(1 / 127.5, -1, name="rescaling")(x)
        for k in range(5):
            x = layers.Conv2D(WIDTH[self.name], 3, 2, "same", name=f"conv_{k}")(x)
            x = layers.Activation("swish", name="top_activation" if k == 4 else f"act_{k}")(x)
        # random numbers of its own, which a training that is taken up must take up too
        x = layers.Dropout(0.1, name="dropout")(x)
        return keras.Model(image, x)


class Register(WorkerPlugin):
    """Makes the backbones known to a worker's process."""

    name = "holes"

    def setup(self, worker: object) -> None:
        BACKBONES.update({name: _Holes(name, name) for name in WIDTH})


@contextmanager
def small_backbones() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in WIDTH:
            patch.setitem(BACKBONES, name, _Holes(name, name))
        yield


def configure(folder: Path, name: str, *changes: tuple[str, str], landcover: bool = True) -> Config:
    """The configuration of a run whose sources are but names."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (
        f'name = "{name}"\noutput = "result"\n[sources]\ncensus = "census.csv"\northo = "ortho"\n'
    )
    text += 'landcover = "landcover.gpkg"\n' if landcover else ""
    text += SETTINGS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    for source in ("census.csv", "ortho", "landcover.gpkg"):
        (folder / source).touch()
    (folder / "run.toml").write_text(text)
    return load_config(folder / "run.toml")


def write_run(
    config: Config, table: gpd.GeoDataFrame | None = None, *, dark: int = 0, **labelling: object
) -> gpd.GeoDataFrame:
    """Cells, imagery and land cover as the stages would leave them; the last ``dark`` cells lack imagery."""
    c, files = config.cells, Workspace.of(config)
    files.take(config)
    table = census(60, imputed=6) if table is None else table
    settings = {
        "classes": c.classes, "folds": c.folds, "cells_per_block": SIDE, "compare_folds": False,
        "fold_block_cells": c.fold_block_cells, **labelling,
    }  # fmt: skip
    cells = sesgrid.cells(table, city=config.name, **settings)
    write_cells(files, "cells", cells)
    coverage = np.where(np.arange(len(cells)) < len(cells) - dark, 1.0, 0.5)
    imagery = pd.DataFrame({"coverage": coverage, "void_share": 0.0}, index=cells.index)
    write_cells(files, "mosaic", imagery)
    _write_cube(files.cube, cells)
    for stage in ("cells", "mosaic", "landcover"):
        files.record(stage).write({"made for": "tests", "output": config.output}, {})
    return cells


def write_cells(files: Workspace, stage: str, table: pd.DataFrame) -> None:
    """Write a stage's table of some or all cells."""
    at = rowcol_of_ids(table.index)
    places = pd.DataFrame(at, columns=["row", "col"]).assign(departement="75")
    write_table(files.table(stage), table, members_of(plan_batches(Grid(PX, SIDE), places), places))


def _write_cube(path: str, cells: gpd.GeoDataFrame) -> None:
    extent = Extent.of_cells(Grid(PX, SIDE), cells["row"], cells["col"])
    rng = np.random.default_rng(1)
    image = rng.integers(0, 60, (3, *extent.shape_px)).astype(np.uint8)
    for row, col, ses in zip(cells["row"], cells["col"], cells["ses_true"], strict=True):
        image[(slice(None), *extent.cell_slices(row, col))] += np.uint8((ses - 1) * 40)
    # patches of six classes, whose colours differ a little
    patches = rng.integers(1, 7, [n // 16 for n in extent.shape_px]).astype(np.uint8)
    landcover = patches.repeat(16, 0).repeat(16, 1)
    image[0] += landcover * 3
    cube, n = Cube.create(path, extent, {}), extent.grid.block_px
    for i in range(extent.n_block_rows):
        for j in range(extent.n_block_cols):
            at = (slice(i * n, (i + 1) * n), slice(j * n, (j + 1) * n))
            arrays = {
                "image": image[:, *at],
                "coverage": np.ones((n, n), np.uint8),
                "landcover": landcover[at],
            }
            cube.write_block(extent.block_row + i, extent.block_col + j, arrays)


def train_and_predict(config: Config, client) -> None:
    """The stages ``train`` and ``predict`` of such a run, with their records."""
    from sesgrid.run.cell_stages import run_predict

    files = Workspace.of(config)
    for stage, run in (("train", run_train), ("predict", run_predict)):
        summary = run(Job(config, files, client, f"{stage} of {config.name}"))
        files.record(stage).write({"output": config.output}, {}, summary.get("result_id"))
