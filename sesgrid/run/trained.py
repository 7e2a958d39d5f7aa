"""Models of cities that were trained elsewhere, and which of them may look at each cell of a run.

A cell of a trained city takes the model of that city that did not see it: a labelled cell its own fold's, an
unlabelled one its block's. Any other cell takes one of the city that the run names, or of the nearest, the
fold by a hash of its block; or none, and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from sesgrid.batches.blocks import PlaceIndex
from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.stages.cells import usable
from sesgrid.stages.folds import fold_of_block
from sesgrid.stages.leakage import kind_of_folds
from sesgrid.store.models import ModelRef

__all__ = ["TrainedCity", "assign_trained", "trained_cities"]


@dataclass(frozen=True, eq=False)
class TrainedCity:
    """A finished run's models, and who saw what."""

    name: str
    cells: gpd.GeoDataFrame
    """With ``row``, ``col`` and ``fold``; index ``cell_id``."""
    models: tuple[ModelRef, ...]
    """By fold."""


def trained_cities(folders: Sequence[Path]) -> list[TrainedCity]:
    """The cities of some runs' output folders.

    Raises
    ------
    MissingInputError
        A folder holds no run, or not all of its models.
    ConfigError
        Two cities have one name, so that a model's id would not name it.
    """
    cities: list[TrainedCity] = []
    for folder in folders:
        files = Workspace(folder)
        if not files.table("cells").exists():
            raise MissingInputError(
                f"models.cities: {folder} is not the output folder of a run: it has no "
                f"{files.table('cells').relative_to(folder)}"
            )
        of, trained = files.record("cells").read(), files.record("train").read()
        if of and trained.get("facts", {}).get("stage cells") != of["result_id"]:
            raise MissingInputError(
                f"models.cities: the models in {folder} are not of the cells and folds that lie there now: "
                "run the stage train there again"
            )
        cells = load_table(files.table("cells"))
        kind, n = kind_of_folds(cells.attrs), int(cells.attrs["n_folds"])
        models = tuple(ModelRef.open(files.models / f"{kind}-{k}.keras") for k in range(n))
        city = TrainedCity(str(cells.attrs["city"]), cells, models)
        if city.name in {c.name for c in cities}:
            raise ConfigError(
                f"models.cities: two runs are of {city.name!r}: their models could not be told apart"
            )
        cities.append(city)
    return cities


def assign_trained(
    cells: gpd.GeoDataFrame,
    cities: Sequence[TrainedCity],
    elsewhere: str,
    *,
    cells_per_block: int,
    min_coverage: float,
    max_void: float | None = None,
) -> gpd.GeoDataFrame:
    """Name the model of every cell.

    Parameters
    ----------
    cells : GeoDataFrame
        With ``row``, ``col`` and what the mosaic tells of their imagery.
    cities : sequence of TrainedCity
        A cell of several belongs to the first.
    elsewhere : str
        "nearest", "none", or a city's name.
    cells_per_block : int
        Blocks by whose hash a fold is chosen where no city knows the cell.
    min_coverage : float
    max_void : float, optional

    Returns
    -------
    GeoDataFrame
        The cells with ``model_id``; NA: too little imagery, or no model.

    Raises
    ------
    ConfigError
        ``elsewhere`` names none of the cities.
    """
    names = [c.name for c in cities]
    if elsewhere not in ("nearest", "none", *names):
        raise ConfigError(
            f"models.elsewhere: expected 'nearest', 'none' or one of {', '.join(names)}, received "
            f"{elsewhere!r}"
        )
    at = cells[["row", "col"]].to_numpy(np.int64)
    ids = [ref.model_id for city in cities for ref in city.models]
    first = np.cumsum([0, *(len(city.models) for city in cities)])
    # numbers of models: a nation's cells are too many to handle their names
    model = np.full(len(at), -1, dtype=np.int64)
    for k in reversed(range(len(cities))):
        fold = _known_folds(at, cities[k])
        model[fold >= 0] = first[k] + fold[fold >= 0]
    strangers = np.flatnonzero(model < 0)
    if elsewhere != "none" and len(strangers):
        chosen = _nearest(at[strangers], cities)
        if elsewhere != "nearest":
            chosen[:] = names.index(elsewhere)
        for k, city in enumerate(cities):
            of = strangers[chosen == k]
            model[of] = first[k] + fold_of_block(at[of], cells_per_block, len(city.models))
    model[~usable(cells, min_coverage, max_void)] = -1
    named = pd.array(ids, dtype="string").take(model, allow_fill=True)
    out = cells.assign(model_id=pd.Series(named, index=cells.index))
    out.attrs = dict(cells.attrs)
    return out


def _known_folds(at: np.ndarray, city: TrainedCity) -> np.ndarray:
    """The city's fold of each place ``(cell, 2)``, −1 where it has none: int64 ``(cell,)``."""
    own = city.cells[city.cells["fold"].notna()]
    found = PlaceIndex(own[["row", "col"]].to_numpy(np.int64)).find(at)
    folds = np.full(len(at), -1, dtype=np.int64)
    folds[found >= 0] = own["fold"].to_numpy(np.int64)[found[found >= 0]]
    return folds


def _nearest(at: np.ndarray, cities: Sequence[TrainedCity]) -> np.ndarray:
    """The city whose nearest cell is nearest, int64 ``(cell,)``; of equal ones the first."""
    distance = np.stack(
        [cKDTree(c.cells[["row", "col"]].to_numpy(np.float64)).query(at)[0] for c in cities]
    )
    return distance.argmin(axis=0)
