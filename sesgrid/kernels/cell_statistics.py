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
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse

from sesgrid.errors import FormatError

__all__ = ["N_BINS", "CellStatistics", "majority_elsewhere", "split_statistics"]

N_BINS = 10
"""Bins of equal width of the predicted class' probability: (0, 0.1], … (0.9, 1]."""

_N_BASELINE, _N_MOMENTS = 2, 4


@dataclass(frozen=True)
class CellStatistics:
    """What the statistics of cells follow from: few numbers a cell, so that rows are made as they are needed.

    Each cell's own, but for the two ranks, which place it among the others: all cells are told at once.
    """

    n_classes: int
    """K."""
    true: np.ndarray
    """int32 ``(cell,)``, 1…K."""
    predicted: np.ndarray
    """int32 ``(cell,)``, 1…K."""
    baseline: np.ndarray | None
    """int32 ``(cell,)``, 1…K: the class that a baseline says."""
    confidence: np.ndarray | None
    """float64 ``(cell,)``: the probability of the predicted class; NaN: not known."""
    rank: np.ndarray | None
    """float64 ``(cell,)``: t, with t + ½ the cell's rank of income (midranks, 0 to 1); NaN: not known."""
    expected: np.ndarray | None
    """float64 ``(cell,)``: e, with e + ½ what its probabilities expect of the rank; NaN: not known."""

    @classmethod
    def of(
        cls,
        true: np.ndarray,
        predicted: np.ndarray,
        n_classes: int,
        *,
        baseline: np.ndarray | None = None,
        probabilities: Sequence[np.ndarray] | None = None,
        income: np.ndarray | None = None,
    ) -> CellStatistics:
        """From classes, probabilities and incomes.

        Parameters
        ----------
        true, predicted : np.ndarray
            int ``(cell,)``, classes 1…K.
        n_classes : int
            K.
        baseline : np.ndarray, optional
            int ``(cell,)``, 1…K: the class that a baseline says; see `majority_elsewhere`.
        probabilities : sequence of np.ndarray, optional
            float ``(cell,)`` of each class, one at a time: a nation's are a hundred megabytes; a cell with
            NaN adds nothing to the bins and moments.
        income : np.ndarray, optional
            float ``(cell,)``, any unit: only ranks matter; a cell with NaN adds nothing to the moments.

        Raises
        ------
        FormatError
            A class is not one of 1…K.
        """
        for name, classes in (("true", true), ("predicted", predicted)):
            if len(classes) and not 1 <= np.min(classes) <= np.max(classes) <= n_classes:
                raise FormatError(
                    f"expected {name} classes from 1 to {n_classes}, received {np.min(classes)} to "
                    f"{np.max(classes)}: is n_classes that of this table?"
                )
        true, predicted = np.asarray(true, np.int32), np.asarray(predicted, np.int32)
        confidence = rank = expected = None
        if probabilities is not None:
            confidence = np.full(len(true), np.nan)
            known = np.ones(len(true), dtype=bool)
            for k, p in enumerate(probabilities):
                known &= np.isfinite(p)
                np.copyto(confidence, p, where=predicted == k + 1)
            confidence[~known] = np.nan
            if income is not None:
                rank = _ranks(np.asarray(income, np.float64))
                shares = np.bincount(true[np.isfinite(rank)] - 1, minlength=n_classes)
                # Σ_k P(k) · (middle of class k's share of the cells)
                expected = np.full(len(true), -0.5)
                for p, middle in zip(probabilities, _middles(shares), strict=True):
                    expected += p * middle
                expected[~known] = np.nan
        said = None if baseline is None else np.asarray(baseline, np.int32)
        return cls(n_classes, true, predicted, said, confidence, rank, expected)

    def __len__(self) -> int:
        return len(self.true)

    @property
    def width(self) -> int:
        """Statistics of a cell: K² + 2 + 4 + 3 × 10."""
        return self.n_classes**2 + _N_BASELINE + _N_MOMENTS + 3 * N_BINS

    def rows(self, at: slice = slice(None)) -> scipy.sparse.csr_array:
        """What each cell adds to the sums that scores are made of.

        Parameters
        ----------
        at : slice
            Of the cells.

        Returns
        -------
        scipy.sparse.csr_array
            float64 ``(cell, statistic)``, `width` of them, at most ten of which are not zero:

            - one for the pair of classes, at (true − 1) · K + predicted − 1;
            - 1, and whether the baseline's class is the true one;
            - 1, t, t² and (t − e)²;
            - 1, the probability of the predicted class, and whether that class is the true one, each in
              the column of its bin.

        Examples
        --------
        >>> p = [np.array([0.75, 0.5]), np.array([0.25, 0.5])]
        >>> cells = CellStatistics.of(
        ...     np.array([1, 2]), np.array([1, 1]), 2, probabilities=p, income=np.array([10.0, 20.0])
        ... )
        >>> cells.rows().toarray()[:, :4].tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
        >>> cells.rows().toarray()[:, 6:10].tolist()
        [[1.0, -0.25, 0.0625, 0.015625], [1.0, 0.25, 0.0625, 0.0625]]
        """
        true, predicted = self.true[at] - 1, self.predicted[at] - 1
        entries, start = [_Entries(true * self.n_classes + predicted, np.ones(len(true)))], 0
        start += self.n_classes**2
        if self.baseline is not None:
            hit = true == self.baseline[at] - 1
            entries += [_Entries(start, np.ones(len(true))), _Entries(start + 1, hit)]
        start += _N_BASELINE
        if self.rank is not None and self.expected is not None:
            moments = _moments(self.rank[at], self.expected[at])
            entries += [_Entries(start + k, moments[:, k]) for k in range(_N_MOMENTS)]
        start += _N_MOMENTS
        if self.confidence is not None:
            entries += _bins(self.confidence[at], true == predicted, start)
        return _table(entries, self.width)


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


def _bins(confidence: np.ndarray, right: np.ndarray, start: int) -> Iterator[_Entries]:
    """Count, confidence and correctness of each cell in the column of its bin, from column ``start`` on."""
    known = np.isfinite(confidence)
    sure = np.where(known, confidence, 0.0)
    where = np.searchsorted(np.linspace(0, 1, N_BINS + 1)[1:-1], sure, side="left")
    for k, value in enumerate((known, sure, known & right)):
        yield _Entries(start + k * N_BINS + where, value)


def _moments(rank: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """1, t, t², (t − e)² of each cell; zeros where income or probabilities are missing."""
    moments = np.zeros((len(rank), _N_MOMENTS))
    known = np.isfinite(rank) & np.isfinite(expected)
    t, e = rank[known], expected[known]
    moments[known] = np.stack([np.ones_like(t), t, t**2, (t - e) ** 2], axis=1)
    return moments


def _ranks(income: np.ndarray) -> np.ndarray:
    """Midranks of the incomes that are known, 0 to 1, less ½: around 0 less is lost in sums of squares."""
    known, rank = np.isfinite(income), np.full(len(income), np.nan)
    _, where, counts = np.unique(income[known], return_inverse=True, return_counts=True)
    rank[known] = _middles(counts)[where] - 0.5
    return rank


def _middles(counts: np.ndarray) -> np.ndarray:
    """Middle of each group's share of all, the groups one after the other on 0 to 1."""
    return (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)


def split_statistics(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The parts of statistics, or of sums of them.

    Parameters
    ----------
    sums : np.ndarray
        float64 ``(…, statistic)``: of `CellStatistics.rows`.

    Returns
    -------
    confusion, hits, moments, bins : np.ndarray
        float64 ``(…, true, predicted)``, ``(…, 2)``, ``(…, 4)`` and ``(…, 3, bin)``, in the order of
        `CellStatistics.rows`.

    Examples
    --------
    >>> rows = CellStatistics.of(np.array([1, 1, 2]), np.array([1, 2, 2]), 2).rows()
    >>> [part.shape for part in split_statistics(rows.toarray())]
    [(3, 2, 2), (3, 2), (3, 4), (3, 3, 10)]
    """
    n_pairs = sums.shape[-1] - _N_BASELINE - _N_MOMENTS - 3 * N_BINS
    k, ends = math.isqrt(n_pairs), np.cumsum([n_pairs, _N_BASELINE, _N_MOMENTS])
    confusion, hits, moments, bins = np.split(sums, ends, axis=-1)
    lead = sums.shape[:-1]
    return confusion.reshape(*lead, k, k), hits, moments, bins.reshape(*lead, 3, N_BINS)
