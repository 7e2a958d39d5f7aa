"""How well the predicted classes meet the true ones, on cells that no model had seen.

Every labelled cell was predicted by the model of its own fold, which did not
see it: a fold is scored by itself, and the figures of a city are the means over
its folds (as in Fig. 2 of the paper). What is undefined is None, never NaN, so
that the result can be written as JSON.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from sesgrid.errors import MissingInputError, TooFewCellsError
from sesgrid.kernels.statistics import (
    confusion_matrix,
    ordinal_scores,
    pearson_r,
    ridge_predict,
)

__all__ = ["class_count", "colour_baseline", "metrics", "require_columns"]

_AVERAGED = ("accuracy", "accuracy_within_one", "mae", "majority_baseline_accuracy")


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


def metrics(cells: pd.DataFrame) -> dict[str, Any]:
    """Score the predictions of labelled cells, fold by fold.

    Parameters
    ----------
    cells : DataFrame
        One row a cell, with ``labelled``, ``ses_true``, ``ses_predicted`` (1…K) and ``fold``;
        ``attrs["n_classes"]`` = K. Cells that lack any of them are not scored.

    Returns
    -------
    dict
        ``pearson_r``, ``accuracy``, ``accuracy_within_one``, ``mae`` (classes) and
        ``majority_baseline_accuracy``: means over the folds; ``n``, ``n_classes``, ``confusion``
        (counts, rows true, all folds together), ``folds`` (the same for each fold) and ``notes``.
        None = undefined. A fold with constant predictions has no correlation: its ``pearson_r`` is
        None and counts as 0 in the mean, which ``notes`` then says.

    Raises
    ------
    MissingInputError
        A column or attribute is missing.

    Examples
    --------
    >>> cells = pd.DataFrame({"labelled": True, "fold": [0, 0, 0], "ses_true": [1, 2, 3],
    ...                       "ses_predicted": [1, 2, 2]})
    >>> cells.attrs["n_classes"] = 3
    >>> scores = metrics(cells)
    >>> round(scores["pearson_r"], 3), scores["accuracy_within_one"], scores["confusion"]
    (0.866, 1.0, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    """
    require_columns(cells, ("labelled", "ses_true", "ses_predicted", "fold"))
    n_classes = class_count(cells)
    scored = _scored_cells(cells)
    true, predicted = (
        scored["ses_true"].to_numpy(np.int64),
        scored["ses_predicted"].to_numpy(np.int64),
    )
    fold = scored["fold"].to_numpy(np.int64)
    folds = [
        {"fold": int(f), **_fold_scores(true, predicted, fold == f, n_classes)}
        for f in np.unique(fold)
    ]
    confusion = confusion_matrix(true, predicted, n_classes)
    return {
        "pearson_r": _mean_r([f["pearson_r"] for f in folds]),
        **{k: _mean([f[k] for f in folds]) for k in _AVERAGED},
        "n": len(scored),
        "n_classes": n_classes,
        "confusion": confusion.tolist(),
        "folds": folds,
        "notes": _notes(folds),
    }


def _scored_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Labelled cells with a fold, a true and a predicted class."""
    labelled = cells["labelled"].fillna(False).astype(bool)
    complete = cells[["ses_true", "ses_predicted", "fold"]].notna().all(axis=1)
    return cells.loc[labelled & complete, ["ses_true", "ses_predicted", "fold"]]


def _fold_scores(
    true: np.ndarray, predicted: np.ndarray, inside: np.ndarray, n_classes: int
) -> dict[str, Any]:
    """Scores of one fold; the majority class is learnt from the other folds."""
    confusion = confusion_matrix(true[inside], predicted[inside], n_classes)
    others = true[~inside] if not inside.all() else true
    majority = int(np.bincount(others, minlength=n_classes + 1)[1:].argmax()) + 1
    return {
        "n": int(inside.sum()),
        "pearson_r": _none_if_nan(pearson_r(true[inside], predicted[inside])),
        **ordinal_scores(confusion),
        "majority_baseline_accuracy": float((true[inside] == majority).mean()),
        "confusion": confusion.tolist(),
    }


def _notes(folds: list[dict[str, Any]]) -> list[str]:
    """What a reader of the means has to know."""
    if not folds:
        return ["no labelled cell was predicted by a model that had not seen it: nothing to score"]
    undefined = [f["fold"] for f in folds if f["pearson_r"] is None]
    if not undefined:
        return []
    return [
        f"Pearson r is undefined in fold {', '.join(map(str, undefined))} (constant predictions or "
        "true classes) and counts as 0 in the mean over folds"
    ]


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
