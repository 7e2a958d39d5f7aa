"""Cells: from census squares to labelled, folded cells: the table that every later stage joins on."""

from __future__ import annotations

import hashlib
import warnings

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import ConfigError, FormatError, SesgridWarning, TooFewCellsError
from sesgrid.grid import Grid, rowcol_of_ids

__all__ = ["cells", "classify", "fold_of_block", "quantile_thresholds", "stratified_folds"]


def cells(
    census: gpd.GeoDataFrame,
    *,
    city: str = "city",
    classes: int = 5,
    folds: int = 5,
    labels: str = "observed",
    cells_per_block: int = 8,
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Label census cells with their socioeconomic class and assign them to folds.

    Parameters
    ----------
    census : GeoDataFrame
        From `sesgrid.read_filosofi`: index ``cell_id``; ``individuals``, ``households``,
        ``income`` (euros a year), ``imputed``; squares in EPSG:3035.
    city : str
        Names the models.
    classes : int
        K: classes are quantiles of income over the labelled cells.
    folds : int
        Random folds, stratified by class.
    labels : {"observed", "all"}
        Which cells are labelled. Imputed cells were filled from their neighbours by INSEE, so a random
        fold that tests on them has seen their answer.
    cells_per_block : int
        Unlabelled cells take the fold that a hash of their block gives.
    seed : int
        Of the fold assignment.

    Returns
    -------
    GeoDataFrame
        The census columns, and ``row``, ``col`` (int64, global), ``labelled`` (bool), ``ses_true``
        (Int64, 1…K), ``fold`` (Int64, the fold whose model does not see this cell). ``attrs``: city,
        n_classes, n_folds, thresholds (K − 1 incomes, euros), vintage, labels.

    Raises
    ------
    TooFewCellsError
        Fewer labelled cells than folds × classes.
    FormatError
        Incomes so alike that the quantiles coincide.

    Notes
    -----
    Class k holds the incomes in (threshold k−1, threshold k].
    """
    if labels not in ("observed", "all"):
        raise ConfigError(f"labels must be 'observed' or 'all', received {labels!r}")
    out = census.sort_index().copy()
    rowcol = rowcol_of_ids(out.index)
    out["row"], out["col"] = rowcol[:, 0], rowcol[:, 1]
    imputed = out["imputed"].fillna(False).to_numpy(dtype=bool)
    if labels == "observed" and out["imputed"].isna().all():
        warnings.warn(
            "the census has no flag of imputed cells, so all are labelled as if observed; random folds "
            "leak where INSEE filled a cell from its neighbours",
            SesgridWarning,
            stacklevel=2,
        )
    labelled = np.ones(len(out), dtype=bool) if labels == "all" else ~imputed
    _require_enough(int(labelled.sum()), classes, folds, len(out), labels)
    income = out["income"].to_numpy(dtype=np.float64)
    thresholds = quantile_thresholds(income[labelled], classes)
    ses = classify(income, thresholds)
    fold = fold_of_block(rowcol, cells_per_block, folds)
    fold[labelled] = stratified_folds(ses[labelled], folds, seed)
    out["labelled"] = labelled
    out["ses_true"] = pd.array(ses, dtype="Int64")
    out["fold"] = pd.array(fold, dtype="Int64")
    out.attrs = {
        **census.attrs,
        "city": city,
        "n_classes": classes,
        "n_folds": folds,
        "thresholds": [float(t) for t in thresholds],
        "labels": labels,
    }
    return out


def _require_enough(n: int, classes: int, folds: int, total: int, labels: str) -> None:
    if classes < 2 or folds < 2:
        raise ConfigError(f"at least 2 classes and 2 folds are needed, got {classes} and {folds}")
    if n < folds * classes:
        hint = "; labels = 'all' would add the imputed ones" if labels == "observed" else ""
        raise TooFewCellsError(
            f"{folds} folds × {classes} classes need at least {folds * classes} labelled cells, "
            f"received {n} of {total} cells{hint}; choose fewer folds or classes, or a wider area"
        )


def quantile_thresholds(income: np.ndarray, classes: int) -> np.ndarray:
    """The K − 1 inner quantiles of income, float64, strictly increasing.

    >>> quantile_thresholds(np.arange(1.0, 12.0), 5).tolist()
    [3.0, 5.0, 7.0, 9.0]
    """
    # rounded to a millionth of a euro: interpolation leaves 25.000000000000004 where 25 is meant,
    # and a cell on the threshold would change its class
    thresholds = np.round(np.quantile(income, np.arange(1, classes) / classes), 6)
    if np.any(np.diff(thresholds) <= 0):
        raise FormatError(
            f"incomes are too alike for {classes} classes: the quantiles are "
            f"{', '.join(f'{t:.2f}' for t in thresholds)}; choose fewer classes"
        )
    return thresholds


def classify(income: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Class 1…K of every income; class k is (threshold k−1, threshold k].

    >>> classify(np.array([1.0, 2.0, 3.0]), np.array([2.0])).tolist()
    [1, 1, 2]
    """
    return np.searchsorted(thresholds, income, side="left").astype(np.int64) + 1


def stratified_folds(ses: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every cell: sizes, overall and per class, differ by at most one.

    >>> np.bincount(stratified_folds(np.array([1, 1, 1, 2, 2, 2]), 3, 0)).tolist()
    [2, 2, 2]
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ses))
    order = order[np.argsort(ses[order], kind="stable")]
    fold = np.empty(len(ses), dtype=np.int64)
    fold[order] = np.arange(len(ses)) % folds
    return fold


def fold_of_block(rowcol: np.ndarray, cells_per_block: int, folds: int) -> np.ndarray:
    """Fold of every cell by a hash of its block: neighbours share it, in any city and any order.

    >>> fold_of_block(np.array([[0, 0], [0, 1]]), 8, 3).tolist()
    [2, 2]
    """
    grid = Grid(1, cells_per_block)
    known: dict[tuple[int, int], int] = {}
    out = np.empty(len(rowcol), dtype=np.int64)
    for k, (row, col) in enumerate(rowcol):
        block = grid.block_of(row, col)
        if block not in known:
            digest = hashlib.sha256(f"{block[0]},{block[1]}".encode()).digest()
            known[block] = int.from_bytes(digest[:8], "big") % folds
        out[k] = known[block]
    return out
