"""What a cell adds to the sums that scores are made of.

A cell adds to four things: the counts of (true, predicted) classes, the hits of a baseline, the moments of
income ranks, and the sums of calibration bins. These K² + 2 + 4 + 30 numbers are its **statistics**.

References
----------
Guo et al. (2017), ICML, PMLR 70: the bins of the reliability curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from sesgrid.errors import FormatError

__all__ = ["N_BINS", "cell_statistics", "majority_elsewhere", "split_statistics"]

N_BINS = 10
"""Bins of equal width of the predicted class' probability: (0, 0.1], … (0.9, 1]."""

_N_BASELINE, _N_MOMENTS = 2, 4


def cell_statistics(
    true: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    *,
    baseline: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    income: np.ndarray | None = None,
) -> scipy.sparse.csr_array:
    """What each cell adds to the sums that scores are made of.

    Parameters
    ----------
    true, predicted : np.ndarray
        int ``(cell,)``, classes 1…K.
    n_classes : int
        K.
    baseline : np.ndarray, optional
        int ``(cell,)``, 1…K: the class that a baseline says; see `majority_elsewhere`.
    probabilities : np.ndarray, optional
        float ``(cell, class)``; a cell with NaN adds nothing to the bins and moments.
    income : np.ndarray, optional
        float ``(cell,)``, any unit: only ranks matter; a cell with NaN adds nothing to the moments.

    Returns
    -------
    scipy.sparse.csr_array
        float64 ``(cell, statistic)``, K² + 2 + 4 + 3 × 10 of them, at most ten of which are not zero:

        - one for the pair of classes, at (true − 1) · K + predicted − 1;
        - 1, and whether the baseline's class is the true one;
        - 1, t, t² and (t − e)², with t + ½ the cell's rank of income (midranks, 0 to 1) and e + ½ what its
          probabilities expect: Σ_k P(k) · (middle of class k's share of the cells);
        - 1, the probability of the predicted class, and whether that class is the true one, each in
          the column of its bin.

    Raises
    ------
    FormatError
        A class is not one of 1…K.

    Examples
    --------
    >>> p = np.array([[0.75, 0.25], [0.5, 0.5]])
    >>> rows = cell_statistics(
    ...     np.array([1, 2]), np.array([1, 1]), 2, probabilities=p, income=np.array([10.0, 20.0])
    ... )
    >>> rows.toarray()[:, :4].tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    >>> rows.toarray()[:, 6:10].tolist()
    [[1.0, -0.25, 0.0625, 0.015625], [1.0, 0.25, 0.0625, 0.0625]]
    """
    for name, classes in (("true", true), ("predicted", predicted)):
        if len(classes) and not 1 <= np.min(classes) <= np.max(classes) <= n_classes:
            raise FormatError(
                f"expected {name} classes from 1 to {n_classes}, received {np.min(classes)} to "
                f"{np.max(classes)}: is n_classes that of this table?"
            )
    true, predicted = np.asarray(true, np.int64) - 1, np.asarray(predicted, np.int64) - 1
    pairs = _Entries(true * n_classes + predicted, np.ones(len(true)))
    entries, start = [pairs], n_classes**2
    if baseline is not None:
        hit = true == np.asarray(baseline, np.int64) - 1
        entries += [_Entries(start, np.ones(len(true))), _Entries(start + 1, hit)]
    start += _N_BASELINE
    if probabilities is not None:
        p = np.asarray(probabilities, np.float64)
        if income is not None:
            moments = _moments(true, p, np.asarray(income, np.float64))
            entries += [_Entries(start + k, moments[:, k]) for k in range(_N_MOMENTS)]
        entries += _bins(true, predicted, p, start + _N_MOMENTS)
    return _table(entries, start + _N_MOMENTS + 3 * N_BINS)


class _Entries(NamedTuple):
    """One statistic of every cell, of those that it may have one of."""

    column: np.ndarray | int
    """int ``(cell,)``; or one for all."""
    value: np.ndarray
    """``(cell,)``; 0: the cell adds nothing."""


def _table(entries: Sequence[_Entries], n_columns: int) -> scipy.sparse.csr_array:
    """A row a cell with its entries, in the order of the columns."""
    n, each = len(entries[0].value), len(entries)
    columns, values = np.empty((n, each), np.int32), np.empty((n, each))
    for k, (column, value) in enumerate(entries):
        columns[:, k], values[:, k] = column, value
    starts = np.arange(0, n * each + 1, each)
    table = scipy.sparse.csr_array((values.ravel(), columns.ravel(), starts), shape=(n, n_columns))
    table.eliminate_zeros()
    return table


def majority_elsewhere(true: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The commonest class of the other folds: what a model says that learnt nothing else from them.

    Like the models, it is learnt once, not again in every resample.

    Parameters
    ----------
    true : np.ndarray
        int ``(cell,)``, 1…K.
    fold : np.ndarray
        int ``(cell,)``, from 0.

    Returns
    -------
    np.ndarray
        int64 ``(cell,)``, 1…K; the lowest of equally common classes. A single fold takes its own.

    Examples
    --------
    >>> majority_elsewhere(np.array([1, 1, 2, 3]), np.array([0, 0, 1, 1])).tolist()
    [2, 2, 1, 1]
    """
    counts = np.zeros((fold.max(initial=0) + 1, true.max(initial=0) + 1))
    np.add.at(counts, (fold, true), 1)
    others = counts.sum(axis=0) - counts
    return np.where(others.any(axis=1, keepdims=True), others, counts).argmax(axis=1)[fold]


def _bins(true: np.ndarray, predicted: np.ndarray, p: np.ndarray, start: int) -> Iterator[_Entries]:
    """Count, confidence and correctness of each cell in the column of its bin, from column ``start`` on."""
    known = np.isfinite(p).all(axis=1)
    confidence = np.where(known, p[np.arange(len(true)), predicted], 0.0)
    where = np.searchsorted(np.linspace(0, 1, N_BINS + 1)[1:-1], confidence, side="left")
    for k, value in enumerate((known, confidence, known & (true == predicted))):
        yield _Entries(start + k * N_BINS + where, value)


def _moments(true: np.ndarray, p: np.ndarray, income: np.ndarray) -> np.ndarray:
    """1, t, t², (t − e)² of each cell; zeros where income or probabilities are missing."""
    moments = np.zeros((len(true), _N_MOMENTS))
    ranked = np.isfinite(income)
    _, where, counts = np.unique(income[ranked], return_inverse=True, return_counts=True)
    # ranks lie around 0: less is lost where the squares of sums are subtracted
    rank = np.full(len(true), np.nan)
    rank[ranked] = _middles(counts)[where] - 0.5
    expected = p @ _middles(np.bincount(true[ranked], minlength=p.shape[1])) - 0.5
    known = np.isfinite(rank) & np.isfinite(expected)
    t, e = rank[known], expected[known]
    moments[known] = np.stack([np.ones_like(t), t, t**2, (t - e) ** 2], axis=1)
    return moments


def _middles(counts: np.ndarray) -> np.ndarray:
    """Middle of each group's share of all, the groups one after the other on 0 to 1."""
    return (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)


def split_statistics(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The parts of statistics, or of sums of them.

    Parameters
    ----------
    sums : np.ndarray
        float64 ``(…, statistic)``: of `cell_statistics`.

    Returns
    -------
    confusion, hits, moments, bins : np.ndarray
        float64 ``(…, true, predicted)``, ``(…, 2)``, ``(…, 4)`` and ``(…, 3, bin)``, in the order of
        `cell_statistics`.

    Examples
    --------
    >>> rows = cell_statistics(np.array([1, 1, 2]), np.array([1, 2, 2]), 2)
    >>> [part.shape for part in split_statistics(rows.toarray())]
    [(3, 2, 2), (3, 2), (3, 4), (3, 3, 10)]
    """
    n_pairs = sums.shape[-1] - _N_BASELINE - _N_MOMENTS - 3 * N_BINS
    k, ends = math.isqrt(n_pairs), np.cumsum([n_pairs, _N_BASELINE, _N_MOMENTS])
    confusion, hits, moments, bins = np.split(sums, ends, axis=-1)
    lead = sums.shape[:-1]
    return confusion.reshape(*lead, k, k), hits, moments, bins.reshape(*lead, 3, N_BINS)
