"""What any result must beat, on the cells of a run: the commonest class, and boosting on simple features."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from distributed import Client

from sesgrid import __version__
from sesgrid.batches.flight import Noted
from sesgrid.batches.running import Batch, Task, run_batches
from sesgrid.run.config import Config
from sesgrid.run.freshness import key_of
from sesgrid.run.job import class_table, protocol_of, scores_of
from sesgrid.run.workspace import Workspace
from sesgrid.sources import class_names
from sesgrid.stages.baselines import Features, baselines, place_features
from sesgrid.stages.predict import GROUP
from sesgrid.store.cube import Cube
from sesgrid.store.parts import Parts

__all__ = ["MOST_CELLS", "run_baselines"]

_TASKS = 64
"""In one part."""

MOST_CELLS = 50_000
"""Cells that the baselines learn from and are scored on, at most: of more, so many are drawn.

Their features are another look at the cells' pixels, and boosting on simple features learns no more from a
nation than from as many cells.
"""


def run_baselines(
    config: Config, client: Client, cells: gpd.GeoDataFrame
) -> dict[str, dict[str, Any]]:
    """Score the baselines on the cells and folds of a run.

    Features of cells are parts like others: they are computed once for a cube and its land cover. Of more
    than `MOST_CELLS` labelled cells, so many are drawn by ``analyse.seed``; ``n`` tells how many were scored.
    A buffer between spatial folds is then drawn around the drawn cells: around every one that is scored.

    Parameters
    ----------
    config : Config
        Its cube is up to date, with land cover where it names one.
    client : Client
    cells : GeoDataFrame
        With labels, folds and shares of imagery.

    Returns
    -------
    dict
        By name, as of `sesgrid.stages.score.metrics`.
    """
    labelled = np.flatnonzero(cells["labelled"].fillna(False).to_numpy(bool))
    if len(labelled) > MOST_CELLS:
        rng = np.random.default_rng(config.analyse.seed)
        labelled = np.sort(rng.choice(labelled, MOST_CELLS, replace=False))
        attributes, cells = cells.attrs, cells.iloc[labelled]
        labelled, cells.attrs = np.arange(MOST_CELLS), dict(attributes)
    values = _features(config, client, cells.iloc[labelled])
    found = baselines(
        values.reindex(cells.index),  # the others are neither learnt from nor scored
        cells,
        min_coverage=config.cells.min_coverage,
        max_void=protocol_of(config).max_void,
        seed=config.train.seed,
    )
    return {name: scores_of(config, table) for name, table in found.items()}


def _features(config: Config, client: Client, cells: gpd.GeoDataFrame) -> pd.DataFrame:
    files = Workspace.of(config)
    used = config.sources.landcover is not None
    names = tuple(class_names(class_table(config))) if used else None
    made_from = {s: files.record(s).read().get("result_id") for s in ("mosaic", "landcover")}
    key = key_of({"sesgrid": __version__, **made_from, "cells": list(cells.index), "names": names})
    stage, pixels = Features(names), Cube.open(files.cube).pixels()
    side = config.grid.cells_per_block
    tasks = [Task.of_cells(cells.iloc[a : a + GROUP], side) for a in range(0, len(cells), GROUP)]
    batches = [
        Batch.of(f"{k:06d}", key, tasks[a : a + _TASKS])
        for k, a in enumerate(range(0, len(tasks), _TASKS))
    ]
    parts = Parts(files.parts("features"))
    parts.keep_only([b.name for b in batches])
    outcome = run_batches(
        client,
        parts,
        "features",
        batches,
        lambda some: place_features(
            stage,
            pd.concat([t.items for t in some]),
            pixels,
            tuple(t.cells for t in some),
            Noted(stage),
        ),
    )
    outcome.require_whole("features")
    return parts.read(outcome.done).set_index("cell_id")
