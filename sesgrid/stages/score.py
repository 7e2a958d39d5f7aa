"""How well the predicted classes meet the true ones, on cells that no model had seen.

Every labelled cell was predicted by the model of its own fold, which did not
see it: a fold is scored by itself, and the figures of a city are the means over
its folds (as in Fig. 2 of the paper), with the intervals that chance leaves them.
What is undefined is None, never NaN, so that the result can be written as JSON.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from sesgrid.errors import MissingInputError, TooFewCellsError
from sesgrid.kernels.statistics import pearson_r, ridge_predict
from sesgrid.stages.score_sheet import score_sheets
from sesgrid.stages.scored_cells import SCORED, scorable

__all__ = ["class_count", "colour_baseline", "metrics", "require_columns"]


def class_count(cells: pd.DataFrame) -> int:
    """K, the number of socioeconomic classes, from ``cells.attrs["n_classes"]``.

    Raises
    ------
    MissingInputError
        The attribute is missing.
    TooFewCellsError
        Fewer than two classes: nothing to tell apart.
    """
    if "n_classes" not in cells.attrs:
        raise MissingInputError(
            "expected the number of classes in cells.attrs['n_classes'], received "
            f"attributes {sorted(map(str, cells.attrs))}; pass the table that the stage `cells` "
            "made (attributes are lost by some joins: copy them over)"
        )
    n_classes = int(cells.attrs["n_classes"])
    if n_classes < 2:
        raise TooFewCellsError(f"n_classes must be at least 2, received {n_classes}")
    return n_classes


def require_columns(cells: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Check that the table has the columns.

    Raises
    ------
    MissingInputError
        Names the missing ones.
    """
    missing = [c for c in columns if c not in cells.columns]
    if missing:
        raise MissingInputError(
            f"the table of cells lacks {missing}; it has {list(cells.columns)}: run the stages "
            "`cells` and `predict` first"
        )


def metrics(
    cells: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0, cells_per_block: int = 8
) -> dict[str, Any]:
    """Score the predictions of labelled cells, fold by fold.

    Parameters
    ----------
    cells : DataFrame
        One row a cell, with ``labelled``, ``ses_true``, ``ses_predicted`` (1…K) and ``fold``;
        ``attrs["n_classes"]`` = K. Cells that lack any of them are not scored; a weight that training gave a
        cell does not matter here. Where they are there: ``probability_1`` … ``probability_K`` and ``income``
        (euros), for what needs them; ``row`` and ``col``, for the intervals over blocks; ``imputed``.
    n_bootstrap : int
        Resamples for the 95 % intervals (percentiles).
    seed : int
        Of the bootstrap.
    cells_per_block : int
        Side of the blocks that are drawn, in cells: the block of a cell is (row // B, col // B).

    Returns
    -------
    dict
        Ready for JSON; None = undefined.

        - each of `sesgrid.kernels.scores.SCORES`: mean over the folds; ``mae`` in classes;
        - ``n``, ``n_classes``, ``n_blocks`` (those that hold scored cells);
        - ``intervals``: {score: {"cells": [low, high], "blocks": [low, high]}} of the means;
        - ``confusion`` (counts, rows true, all folds together) and ``confusion_share_intervals`` (of the
          shares of rows, {"cells": {"low", "high"}, "blocks": …});
        - ``reliability``: for ten bins of the predicted class' probability, ``from`` (not included), ``to``
          (included), ``n``, mean ``confidence``, ``accuracy`` and its ``intervals``; all folds together;
        - ``folds``: for each its number ``fold``, ``n``, the scores, their ``intervals`` over cells, and
          ``confusion``;
        - ``observed_only``: where imputed cells are among the scored, the scores and ``n`` of those that
          are not, else None;
        - ``notes``: sentences.

        A fold whose correlation or kappa is undefined counts as 0 in the mean, which ``notes`` then says.

    Raises
    ------
    MissingInputError
        A column or attribute is missing.

    Examples
    --------
    >>> cells = pd.DataFrame({"labelled": True, "fold": [0, 0, 0], "ses_true": [1, 2, 3],
    ...                       "ses_predicted": [1, 2, 2]})
    >>> cells.attrs["n_classes"] = 3
    >>> scores = metrics(cells, n_bootstrap=100)
    >>> round(scores["pearson_r"], 3), scores["accuracy_within_one"], scores["confusion"]
    (0.866, 1.0, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    >>> scores["intervals"]["mae"], scores["r2_income_rank"]
    ({'cells': [0.0, 1.0], 'blocks': None}, None)
    """
    require_columns(cells, SCORED)
    sheets, _ = score_sheets(
        [scorable(cells)], class_count(cells), cells_per_block, n_bootstrap=n_bootstrap, seed=seed
    )
    return sheets[0]


def colour_baseline(
    mean_colour: np.ndarray,
    ses_true: np.ndarray,
    fold: np.ndarray,
    *,
    n_classes: int,
    alpha: float = 1.0,
    rounded: bool = False,
) -> float | None:
    """Pearson r of a ridge regression on a cell's mean colour: what colour alone can tell.

    Learnt on the other folds, predicted on the held-out one, correlated there with the true class;
    mean over folds. By default the regression's output is correlated as it is, which is the
    baseline at its strongest: rounding to classes flattens its shrunken predictions.

    Parameters
    ----------
    mean_colour : np.ndarray
        float ``(cell, band)``; cells with NaN are left out.
    ses_true : np.ndarray
        ``(cell,)``, 1…K; missing values are left out.
    fold : np.ndarray
        ``(cell,)``, 0…F−1; missing values are left out.
    n_classes : int
        K, to clip to when rounding.
    alpha : float
        Ridge penalty on standardised colours.
    rounded : bool
        Round and clip the predictions to 1…K before correlating.

    Returns
    -------
    float or None
        Folds with undefined r count as 0; None where no fold can be held out.

    Examples
    --------
    >>> colour = np.array([[0.0], [1.0], [2.0]] * 2)
    >>> r = colour_baseline(
    ...     colour, np.array([1, 2, 3] * 2), np.array([0, 0, 0, 1, 1, 1]), n_classes=3
    ... )
    >>> round(r, 6)
    1.0
    """
    x = np.asarray(mean_colour, dtype=np.float64)
    y = pd.to_numeric(pd.Series(ses_true)).to_numpy(np.float64, na_value=np.nan)
    held = pd.to_numeric(pd.Series(fold)).to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(x).all(axis=1) & np.isfinite(y) & np.isfinite(held)
    x, y, held = x[known], y[known], held[known]
    folds = np.unique(held)
    if folds.size < 2:
        return None
    scores = []
    for f in folds:
        inside = held == f
        guess = ridge_predict(x[~inside], y[~inside], x[inside], alpha=alpha)
        if rounded:
            guess = np.clip(np.rint(guess), 1, n_classes)
        scores.append(_none_if_nan(pearson_r(y[inside], guess)))
    return _mean_r(scores)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _mean_r(values: list[float | None]) -> float | None:
    """Mean over folds; a fold without a correlation (None) counts as 0."""
    return _mean([0.0 if v is None else v for v in values])
