"""Scores of ordered classes, all of them functions of sums over cells.

A score sees only the sums of the cells' statistics (`sesgrid.kernels.cell_statistics`) over a fold. So a
resample of cells, or of blocks of cells, is a product of counts and statistics (`sesgrid.kernels.bootstrap`),
and scores take any number of axes before the last. NaN marks a score that is not defined.

References
----------
Suel et al. (2019), Scientific Reports 9, 6229: accuracy within one class, MAE and Pearson r of ordered
classes. Cohen (1968), Psychological Bulletin 70, 213–220: weighted kappa. Guo et al. (2017), ICML, PMLR 70:
reliability and expected calibration error.
"""

from __future__ import annotations

import numpy as np

from sesgrid.kernels.cell_statistics import split_statistics

__all__ = [
    "CHANCE_CORRECTED",
    "SCORES",
    "bin_means",
    "confusion_matrix",
    "fold_scores",
    "mean_scores",
    "row_shares",
]

SCORES = (
    "pearson_r",
    "spearman_r",
    "quadratic_weighted_kappa",
    "accuracy",
    "accuracy_within_one",
    "mae",
    "r2_income_rank",
    "expected_calibration_error",
    "majority_baseline_accuracy",
)
"""Names of the scores, in the order of tables."""

CHANCE_CORRECTED = ("pearson_r", "spearman_r", "quadratic_weighted_kappa")
"""Scores that are 0 for predictions by lot: so much a fold counts where its own is not defined."""


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is not positive."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def confusion_matrix(sums: np.ndarray) -> np.ndarray:
    """Counts of (true, predicted) classes.

    Parameters
    ----------
    sums : np.ndarray
        float64 ``(…, statistic)``: sums of `CellStatistics.rows`.

    Returns
    -------
    np.ndarray
        float64 ``(…, true, predicted)``, K × K; row 0 is class 1.

    Examples
    --------
    >>> from sesgrid.kernels.cell_statistics import CellStatistics
    >>> rows = CellStatistics.of(np.array([1, 1, 2]), np.array([1, 2, 2]), 2).rows()
    >>> confusion_matrix(rows.sum(axis=0)).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    return split_statistics(sums)[0]


def row_shares(sums: np.ndarray) -> np.ndarray:
    """Share of the cells of each true class that were predicted as each class.

    Parameters
    ----------
    sums : np.ndarray
        float64 ``(…, statistic)``.

    Returns
    -------
    np.ndarray
        float64 ``(…, true, predicted)``; rows sum to 1, or are NaN where no cell has the true class.

    Examples
    --------
    >>> from sesgrid.kernels.cell_statistics import CellStatistics
    >>> rows = CellStatistics.of(np.array([1, 1]), np.array([1, 2]), 2).rows()
    >>> row_shares(rows.sum(axis=0)).tolist()
    [[0.5, 0.5], [nan, nan]]
    """
    confusion = confusion_matrix(sums)
    return _ratio(confusion, confusion.sum(axis=-1, keepdims=True))


def bin_means(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reliability curve: how often the predicted class is right, by its probability.

    Parameters
    ----------
    sums : np.ndarray
        float64 ``(…, statistic)``.

    Returns
    -------
    n, confidence, accuracy : np.ndarray
        float64 ``(…, bin)``: cells, mean probability of the predicted class, share of cells where
        it is the true one; the means NaN in empty bins.

    Examples
    --------
    >>> from sesgrid.kernels.cell_statistics import CellStatistics
    >>> p = [np.array([0.75, 0.75]), np.array([0.25, 0.25])]
    >>> rows = CellStatistics.of(np.array([1, 2]), np.array([1, 1]), 2, probabilities=p).rows()
    >>> n, confidence, accuracy = bin_means(rows.sum(axis=0))
    >>> n[7], confidence[7], accuracy[7]
    (np.float64(2.0), np.float64(0.75), np.float64(0.5))
    """
    n, confidence, correct = np.moveaxis(split_statistics(sums)[3], -2, 0)
    return n, _ratio(confidence, n), _ratio(correct, n)


def fold_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Every score of every fold.

    Parameters
    ----------
    sums : np.ndarray
        float64 ``(…, fold, statistic)``: sums of `CellStatistics.rows` over the cells of each fold.

    Returns
    -------
    dict of str to np.ndarray
        float64 ``(…, fold)`` for each of `SCORES`; NaN where it is not defined (no cells, no probabilities,
        a correlation with a constant).

        ``accuracy``, ``accuracy_within_one`` (at most one class off) and ``mae`` (mean distance in classes);
        ``pearson_r`` and ``spearman_r`` (midranks of ties) of true against predicted class;
        ``quadratic_weighted_kappa``; ``r2_income_rank`` = 1 − SS_res / SS_tot within the fold,
        not recalibrated, so it may be negative; ``expected_calibration_error``;
        ``majority_baseline_accuracy``, the hits of the baseline.

    Examples
    --------
    >>> from sesgrid.kernels.cell_statistics import CellStatistics
    >>> rows = CellStatistics.of(np.array([1, 3, 2, 3]), np.array([1, 1, 2, 2]), 3).rows()
    >>> scores = fold_scores(rows.sum(axis=0)[None])
    >>> [scores[name].tolist() for name in ("accuracy", "accuracy_within_one", "mae")]
    [[0.5], [0.75], [0.75]]
    """
    confusion, hits, moments, bins = split_statistics(sums)
    k = np.arange(confusion.shape[-1], dtype=np.float64)
    distance = np.abs(k[:, None] - k)
    n = confusion.sum(axis=(-1, -2))
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    kappa_loss = (confusion * distance**2).sum(axis=(-1, -2)) * n
    kappa_chance = (true[..., :, None] * predicted[..., None, :] * distance**2).sum(axis=(-1, -2))
    count, t, t2, residual = np.moveaxis(moments, -1, 0)
    total = t2 - _ratio(t**2, count)
    in_bins, confidence, correct = np.moveaxis(bins, -2, 0)
    return {
        "pearson_r": _correlation(confusion, k, k),
        "spearman_r": _correlation(confusion, _double_ranks(true), _double_ranks(predicted)),
        "quadratic_weighted_kappa": 1 - _ratio(kappa_loss, kappa_chance),
        "accuracy": _ratio((confusion * (distance == 0)).sum(axis=(-1, -2)), n),
        "accuracy_within_one": _ratio((confusion * (distance <= 1)).sum(axis=(-1, -2)), n),
        "mae": _ratio((confusion * distance).sum(axis=(-1, -2)), n),
        # incomes that are all alike leave the rounding of t² behind
        "r2_income_rank": 1 - _ratio(residual, np.where(total > 1e-12 * t2, total, 0.0)),
        "expected_calibration_error": _ratio(
            np.abs(correct - confidence).sum(axis=-1), in_bins.sum(axis=-1)
        ),
        "majority_baseline_accuracy": _ratio(hits[..., 1], hits[..., 0]),
    }


def _correlation(confusion: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation of a value x of the true class and a value y of the predicted one.

    Whole numbers stay whole until the division: a constant has a variance of exactly 0.
    """
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    n = true.sum(axis=-1)
    sum_x, sum_y = (true * x).sum(axis=-1), (predicted * y).sum(axis=-1)
    var_x = n * (true * x**2).sum(axis=-1) - sum_x**2
    var_y = n * (predicted * y**2).sum(axis=-1) - sum_y**2
    means = (confusion * y[..., None, :]).sum(axis=-1)
    covariance = n * (means * x).sum(axis=-1) - sum_x * sum_y
    return np.clip(_ratio(covariance, np.sqrt(var_x) * np.sqrt(var_y)), -1.0, 1.0)


def _double_ranks(counts: np.ndarray) -> np.ndarray:
    """Twice the midrank of each class, from the middle of all: whole numbers whose sum over cells is 0."""
    return 2 * np.cumsum(counts, axis=-1) - counts - counts.sum(axis=-1, keepdims=True)


def mean_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of each score over the folds, each fold counting once.

    A fold without cells is left out. A fold with cells whose correlation or kappa is not defined has not
    shown any agreement: it counts as 0. Where another score is not defined the fold is left out of its mean.

    Parameters
    ----------
    sums : np.ndarray
        float64 ``(…, fold, statistic)``: sums of `CellStatistics.rows` over the cells of each fold.

    Returns
    -------
    dict of str to np.ndarray
        float64 ``(…)`` for each of `SCORES`; NaN where no fold has the score.

    Examples
    --------
    >>> from sesgrid.kernels.cell_statistics import CellStatistics
    >>> rows = CellStatistics.of(np.array([1, 2, 1, 2]), np.array([1, 2, 1, 1]), 2).rows()
    >>> folds = np.stack([rows[:2].sum(axis=0), rows[2:].sum(axis=0), np.zeros(40)])
    >>> means = mean_scores(folds)
    >>> means["pearson_r"].item(), means["accuracy"].item()
    (0.5, 0.75)
    """
    filled, out = confusion_matrix(sums).any(axis=(-1, -2)), {}
    for name, values in fold_scores(sums).items():
        if name in CHANCE_CORRECTED:
            values = np.where(np.isnan(values) & filled, 0.0, values)
        known = np.isfinite(values)
        out[name] = _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
    return out
