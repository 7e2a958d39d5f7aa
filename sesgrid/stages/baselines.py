"""Baselines that any result must beat: the commonest class, and gradient boosting on plain features.

They see what the networks see of folds: the same training cells, the same weights, and every cell is
predicted by a model that did not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.errors import GridMismatchError, TooFewCellsError
from sesgrid.kernels.features import cell_features
from sesgrid.stages.cells import usable
from sesgrid.stages.folds import training_cells
from sesgrid.stages.mosaic import OBSERVED
from sesgrid.stages.place import Groups, place, stack_cells
from sesgrid.stages.predict import GROUP, join_predictions

__all__ = ["BASELINES", "Features", "baselines", "features", "place_features"]

_ROUNDS = 100
"""Of boosting; no early stopping, which would hold out cells by lot beside those that train."""


@dataclass(frozen=True)
class Features:
    """The stage: simple features of cells."""

    class_names: tuple[str, ...] | None = None
    """Names of land-cover classes 1, 2, …; None = no land cover."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The pixels that it reads."""
        return ("image", "coverage", *(() if self.class_names is None else ("landcover",)))

    def __call__(
        self, items: Sequence[str], image: np.ndarray, coverage: np.ndarray, *landcover: np.ndarray
    ) -> list[dict[str, Any]]:
        """One row per cell id; image uint8 ``(cell, band, y, x)``, the others uint8 ``(cell, y, x)``."""
        seen = coverage == OBSERVED
        land = landcover[0] if landcover else [None] * len(items)
        return [
            {"cell_id": name, **cell_features(image[i], seen[i], land[i], self.class_names or ())}
            for i, name in enumerate(items)
        ]


def place_features(
    stage: Features,
    cells: pd.DataFrame,
    pixels: xr.Dataset,
    group: Groups = GROUP,
    run: Any = None,
) -> da.Array:
    """Lay the stage, or what runs it, over cells: object ``(cell,)``, a row each; nothing is computed."""
    rows, cols = cells["row"].to_numpy(), cells["col"].to_numpy()
    inputs = stack_cells(pixels, stage.layers, rows, cols, group)
    return place(run or stage, list(map(str, cells.index)), *inputs, group=group, name="features")


def features(
    cells: pd.DataFrame, pixels: xr.Dataset, class_names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Colour, texture and land-cover shares of cells.

    Parameters
    ----------
    cells : DataFrame
        From `sesgrid.cells`.
    pixels : xarray.Dataset
        From `sesgrid.mosaic` or a cube.
    class_names : sequence of str, optional
        Names of land-cover classes 1, 2, …, as `sesgrid.class_names` gives them, where ``pixels`` hold
        land cover; without them its shares are left out.

    Returns
    -------
    DataFrame
        float64, index ``cell_id`` in the order of the cells; the columns are those of
        `sesgrid.kernels.features.cell_features`.
    """
    stage = Features(None if class_names is None else tuple(class_names))
    rows = pd.DataFrame(list(place_features(stage, cells, pixels).compute()))
    return rows.set_index("cell_id").astype(np.float64).reindex(cells.index)


def baselines(
    features: pd.DataFrame,
    cells: gpd.GeoDataFrame,
    *,
    kind: str | None = None,
    min_coverage: float = 0.99,
    max_void: float | None = None,
    seed: int = 0,
) -> dict[str, gpd.GeoDataFrame]:
    """Predict every covered cell by each of the baselines.

    Parameters
    ----------
    features : DataFrame
        From `features`; numbers, index ``cell_id``. NaN is a value like others.
    cells : GeoDataFrame
        From `sesgrid.cells`, with ``coverage``.
    kind : {"random", "spatial"}, optional
        Of folds; default: the table's own.
    min_coverage, max_void
        Which cells are trained on and predicted; see `sesgrid.stages.cells.usable`.
    seed : int
        Of the boosting.

    Returns
    -------
    dict of str to GeoDataFrame
        By the names in `BASELINES`, in the form of `sesgrid.predict`: the cells, and ``p`` (the
        expected class over its range, 0–1), ``ses_predicted`` (1…K, the most probable class; the lower one
        of equals), ``probability_1`` … ``probability_K``. NA where imagery is missing.

    Raises
    ------
    GridMismatchError
        A cell that should be predicted has no features.
    TooFewCellsError
        A fold's training part has fewer than two classes.

    Examples
    --------
    >>> cells = pd.DataFrame({"fold": [0, 0, 1, 1, 1], "ses_true": [1, 2, 1, 2, 2], "weight": 1.0,
    ...                       "coverage": 1.0, "labelled": True}, index=list("abcde"))
    >>> cells.attrs |= {"n_classes": 2, "n_folds": 2, "city": "Ville"}
    >>> out = baselines(pd.DataFrame({"mean_red": [1.0, 9, 1, 9, 9]}, index=cells.index), cells)
    >>> out["majority"]["ses_predicted"].tolist()
    [2, 2, 1, 1, 1]
    >>> out["majority"]["p"].round(3).tolist()
    [0.667, 0.667, 0.5, 0.5, 0.5]
    """
    enough = usable(cells, min_coverage, max_void)
    missing = cells.index[enough].difference(features.index)
    if len(missing):
        raise GridMismatchError(
            f"{len(missing)} of {int(enough.sum())} covered cells have no features (first: {missing[0]}): "
            "make the features from the same table of cells"
        )
    values = features.reindex(cells.index).to_numpy(dtype=np.float64, na_value=np.nan)
    return {
        name: _predicted(learn, values, cells, kind, enough, seed)
        for name, learn in BASELINES.items()
    }


def _predicted(
    learn: _Learn,
    values: np.ndarray,
    cells: gpd.GeoDataFrame,
    kind: str | None,
    enough: np.ndarray,
    seed: int,
) -> gpd.GeoDataFrame:
    """Predict each fold by what was learnt from its training cells."""
    k = cells.attrs["n_classes"]
    ses = cells["ses_true"].to_numpy(dtype=np.int64) - 1
    weight = cells["weight"].to_numpy(dtype=np.float64)
    fold = cells["fold" if kind is None else f"fold_{kind}"].to_numpy(dtype=np.int64)
    probabilities = np.full((len(cells), k), np.nan)
    for f in range(cells.attrs["n_folds"]):
        tested = enough & (fold == f)
        trained = enough & training_cells(cells, f, kind)
        if len(np.unique(ses[trained])) < 2:
            raise TooFewCellsError(
                f"fold {f} of {cells.attrs['city']} has {int(trained.sum())} covered training cells of "
                "fewer than two classes; add imagery, or choose fewer folds or classes"
            )
        if tested.any():
            probabilities[tested] = learn(
                values[trained], ses[trained], weight[trained], values[tested], k, seed
            )
    known = np.isfinite(probabilities).all(axis=1)
    chosen = probabilities[known]
    rows = pd.DataFrame(chosen, columns=[f"probability_{c + 1}" for c in range(k)])
    rows["p"] = np.clip(chosen @ np.arange(k) / (k - 1), 0.0, 1.0)
    rows["ses_predicted"] = chosen.argmax(axis=1) + 1
    rows["cell_id"] = cells.index[known]
    return join_predictions(cells, rows)


_Learn = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]
"""Features, classes (0 … K − 1) and weights to learn from, features to predict, K, seed → probabilities
float64 ``(cell, class)``."""


def _majority(
    x: np.ndarray, ses: np.ndarray, weight: np.ndarray, new: np.ndarray, k: int, seed: int
) -> np.ndarray:
    """The shares of the classes in the training part, whatever the cell looks like."""
    shares = np.bincount(ses, weights=weight, minlength=k) / weight.sum()
    return np.tile(shares, (len(new), 1))


def _gradient_boosting(
    x: np.ndarray, ses: np.ndarray, weight: np.ndarray, new: np.ndarray, k: int, seed: int
) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=_ROUNDS, early_stopping=False, random_state=seed
    )
    known = np.isfinite(x).any(axis=0)
    if not known.any():
        return _majority(x, ses, weight, new, k, seed)
    # scikit-learn cannot bin what no training cell has
    x, new = x[:, known], new[:, known]
    model.fit(x, ses, sample_weight=weight)
    out = np.zeros((len(new), k))
    out[:, model.classes_] = model.predict_proba(new)
    return out


BASELINES: dict[str, _Learn] = {"majority": _majority, "gradient_boosting": _gradient_boosting}
"""How each learns, by name."""
