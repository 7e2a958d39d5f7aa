"""A region explained with a model that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd
from distributed import Client

from sesgrid.run.config import Config
from sesgrid.run.workspace import Workspace, load_table, save_table
from sesgrid.sources import class_names
from sesgrid.stages.explain import Explain
from sesgrid.stages.predict import (
    Predict,
    batch_size_for,
    join_predictions,
    place_cells,
    with_model,
)
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef

__all__ = ["explain_with"]


def explain_with(config: Config, client: Client, model: Path) -> gpd.GeoDataFrame:
    """Predict and explain every covered cell of a built cube with one given model.

    Parameters
    ----------
    config : Config
        Of the region; its cube is up to date.
    client : Client
    model : Path
        A ``.keras`` file with its card beside it.

    Returns
    -------
    GeoDataFrame
        A row per covered cell, also written to ``region.parquet``: ``model_id``, ``p``, class and
        probabilities, and, where there is land cover, the class sums (``low_0`` … ``area_19``).
    """
    ref, files = ModelRef.open(model), Workspace(config.output)
    cells = load_table(files.table("mosaic"))
    enough = cells["coverage"] >= config.cells.min_coverage
    cells["model_id"] = pd.Series(ref.model_id, index=cells.index, dtype="string").where(enough)
    covered = with_model(cells, config.grid.cells_per_block)
    pixels = Cube.open(files.cube).pixels()
    batch = batch_size_for(config.grid.pixels_per_cell)

    def rows(stage: object, layers: list[str], name: str) -> pd.DataFrame:
        placed = place_cells(stage, covered, pixels, {ref.model_id: ref}, layers, name)
        return pd.DataFrame(list(client.compute(placed).result()))

    table = join_predictions(covered, rows(Predict(batch), ["image", "coverage"], "predict"))
    if config.sources.landcover is not None:
        stage = Explain(batch, len(class_names()) + 1)
        sums = rows(stage, ["image", "coverage", "landcover"], "explain").set_index("cell_id")
        table = table.join(sums.drop(columns="model_id"))
    table.attrs = dict(covered.attrs)
    save_table(table, files.output / "region.parquet")
    return table
