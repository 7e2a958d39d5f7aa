"""What any result must beat, on the cells of a run: the commonest class, and boosting on simple features."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import pandas as pd
from distributed import Client

from sesgrid import __version__
from sesgrid.run.batches import in_batches, run_batches
from sesgrid.run.config import Config
from sesgrid.run.freshness import key_of
from sesgrid.run.job import class_table, protocol_of, scores_of
from sesgrid.run.workspace import Workspace
from sesgrid.sources import class_names
from sesgrid.stages.baselines import Features, baselines, place_features
from sesgrid.store.cube import Cube
from sesgrid.store.parts import Parts

__all__ = ["run_baselines"]

_BATCH = 4096
"""Cells in one part."""


def run_baselines(
    config: Config, client: Client, cells: gpd.GeoDataFrame
) -> dict[str, dict[str, Any]]:
    """Score the baselines on the cells and folds of a run.

    Features of cells are parts like others: they are computed once for a cube and its land cover.

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
    values = _features(config, client, cells[cells["labelled"].fillna(False).astype(bool)])
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
    rows, _, _ = run_batches(
        client,
        Parts(files.parts("features"), key),
        "features",
        in_batches(range(len(cells)), _BATCH),
        lambda batch: place_features(stage, cells.iloc[list(batch)], pixels),
        lambda results: (results, {}),
        unit="cell",
    )
    return rows.set_index("cell_id")
