"""A region explained with a model that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from distributed import Client

from sesgrid.run.cell_stages import explain_stage, rows_over_cells
from sesgrid.run.config import Config
from sesgrid.run.freshness import key_of
from sesgrid.run.job import Job, method_of, protocol_of
from sesgrid.run.tables import TableWriter
from sesgrid.run.workspace import Workspace, load_cells
from sesgrid.stages.cells import usable
from sesgrid.stages.explain import Explain
from sesgrid.stages.predict import Predict, join_predictions
from sesgrid.store.models import ModelRef

__all__ = ["explain_with"]


def explain_with(config: Config, client: Client, model: Path) -> pd.DataFrame:
    """Predict and explain every covered cell of a built cube with one given model.

    The model is taken to be foreign to the region: whoever trained it here knows which cells it saw.
    An interrupted call goes on where it stopped.

    Parameters
    ----------
    config : Config
        Of the region; its cube is up to date.
    client : Client
    model : Path
        A ``.keras`` file with its card beside it.

    Returns
    -------
    DataFrame
        A row per covered cell, also written to ``region.parquet``, there with its square: ``model_id``,
        ``p``, class and probabilities, and, where there is land cover, the class sums (``low_0`` …
        ``area_19``).
    """
    ref, files = ModelRef.open(model), Workspace.of(config)
    made_from = {
        stage: files.record(stage).read()["result_id"] for stage in ("mosaic", "landcover")
    }
    voids = protocol_of(config).max_void
    facts = {"model": ref.sha256, "min_coverage": config.cells.min_coverage, "max_void": voids}
    key = key_of({**made_from, **facts, "method": method_of(config), **vars(config.explain)})
    job = Job(config, files, client, key)
    cells = load_cells(files)
    enough = usable(cells, config.cells.min_coverage, voids)
    named = pd.Series(ref.model_id, index=cells.index, dtype="string")
    cells["model_id"] = named.where(pd.Series(enough, index=cells.index))
    models, stage = {ref.model_id: ref}, explain_stage(config)
    sums = None
    if config.sources.landcover is not None:
        rows = rows_over_cells(job, "region-explain", stage, cells, models, Explain.layers)
        sums = rows.set_index("cell_id").filter(regex=r"^(low|high|area)_")
    if sums is None or not stage.predicts:
        rows = rows_over_cells(job, "region-predict", Predict(), cells, models, Predict.layers)
    # else one pass is enough: what the network says of a cell came with where it looked
    table = join_predictions(cells, rows)
    table = table if sums is None else table.join(sums)
    table = table[table["model_id"].notna()]
    table.attrs = dict(cells.attrs)
    files.mark.enter(files.output / "region.parquet")
    with TableWriter(files.output / "region.parquet", table.attrs, squares=True) as writer:
        writer.write(table)
    return table
