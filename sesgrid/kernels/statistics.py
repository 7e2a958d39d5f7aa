"""The numbers of the findings: ratios, bootstrap intervals of means, a correlation, a ridge.

Arrays in, arrays out. NaN marks what is missing: a class that is absent from a
cell, a mean over no cells, a correlation that is not defined. What a table or a
report makes of a NaN is decided there.

References
----------
Levy Abitbol & Karsai (2020), Nature Machine Intelligence 2, 684–692: activation
ratio and coactivation. Suel et al. (2019), Scientific Reports 9, 6229: the scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from sesgrid.kernels.bootstrap import group_units, percentile_interval, resampled_sums

__all__ = ["ColumnSums", "Means", "activation_ratios", "pearson_r", "ridge_predict"]


def activation_ratios(activation: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Activation ratio r_u = A_u / (F_u Σ_k A_k) of every cell and class.

    Parameters
    ----------
    activation : np.ndarray
        float ``(cell, landcover_class)``, not negative: sum of the activation map over the
        pixels of the class. Only classified pixels: leave out the column "unclassified".
    area : np.ndarray
        int ``(cell, landcover_class)``: pixels of the class.

    Returns
    -------
    np.ndarray
        float64 ``(cell, landcover_class)``; 1 where a class draws its share of the area. NaN where
        the class is absent from the cell, and in cells whose total is zero or not finite.

    Examples
    --------
    >>> activation_ratios(np.array([[3.0, 1.0, 0.0]]), np.array([[50, 50, 0]])).tolist()
    [[1.5, 0.5, nan]]
    """
    present = np.asarray(area) > 0
    activation = np.where(present, np.asarray(activation, dtype=np.float64), 0.0)
    total = activation.sum(axis=1, keepdims=True)
    classified = np.where(present, area, 0).sum(axis=1, keepdims=True)
    defined = present & np.isfinite(total) & (total > 0)
    share_of_activation = np.divide(
        activation, total, out=np.full(activation.shape, np.nan), where=defined
    )
    share_of_area = np.divide(area, classified, out=np.ones(activation.shape), where=defined)
    return share_of_activation / share_of_area


@dataclass(frozen=True)
class Means:
    """Means of columns, and those of resamples of the cells."""

    count: np.ndarray
    """int64 ``(column,)``: cells that have it."""
    mean: np.ndarray
    """float64 ``(column,)``; NaN where none has it."""
    resamples: np.ndarray
    """float64 ``(resample, column)``; NaN where none of the drawn has it."""

    def columns(self, at: slice | np.ndarray) -> Means:
        """Some of the columns."""
        return Means(self.count[at], self.mean[at], self.resamples[:, at])

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """95 % percentile interval of each mean, low and high float64 ``(column,)``; NaN below 2 cells."""
        low, high = percentile_interval(self.resamples)
        few = self.count < 2
        return np.where(few, np.nan, low), np.where(few, np.nan, high)


class ColumnSums:
    """Sums of columns over cells that come some at a time; means of columns, and of resamples, follow.

    All columns are resampled together (a cell is drawn with all that it holds), so the intervals of ratios
    of means are right as well. A resample is a vector of counts: one matrix product gives the means of
    every column. Of a great many cells, groups are drawn; see `sesgrid.kernels.bootstrap.group_units`.

    Parameters
    ----------
    n_cells : int
        Of the table that cells are numbered in.
    n_columns : int
    rng : np.random.Generator
        Source of chance.

    Examples
    --------
    >>> sums = ColumnSums(5, 2, np.random.default_rng(0))
    >>> sums.add(np.array([0, 4]), np.array([[1.0, np.nan], [3.0, np.nan]]))
    >>> sums.add(np.array([2]), np.array([[5.0, 2.0]]))
    >>> means = sums.means(50)
    >>> means.count.tolist(), means.mean.tolist(), means.resamples.shape
    ([3, 1], [3.0, 2.0], (50, 2))
    """

    def __init__(self, n_cells: int, n_columns: int, rng: np.random.Generator) -> None:
        self._rng, self._group = rng, group_units(n_cells, rng)
        shape = (int(self._group.max(initial=-1)) + 1, n_columns)
        self._sums, self._counts = np.zeros(shape), np.zeros(shape)

    def add(self, at: np.ndarray, values: np.ndarray) -> None:
        """Add cells, each once.

        Parameters
        ----------
        at : np.ndarray
            int64 ``(cell,)``: their positions in the table.
        values : np.ndarray
            float64 ``(cell, column)``, NaN = missing: a column's mean runs over the cells that have it.
        """
        _add(self._sums, self._counts, self._group[at], np.asarray(values, np.float64))

    def means(self, n_bootstrap: int) -> Means:
        """Means, and those of so many resamples; what has nothing in any column is not drawn."""
        count = self._counts.sum(axis=0)
        there = self._counts.any(axis=1)
        sums, counts = (t if there.all() else t[there] for t in (self._sums, self._counts))
        n = max(n_bootstrap, 0) if len(sums) else 0
        drawn = resampled_sums([sums, counts], n_bootstrap=n, rng=self._rng)
        return Means(count.astype(np.int64), _ratio(sums.sum(axis=0), count), _ratio(*drawn))


@numba.njit(nogil=True)
def _add(sums: np.ndarray, counts: np.ndarray, group: np.ndarray, values: np.ndarray) -> None:
    """Add each row's values to its group's sums, and count them; what is missing counts nowhere."""
    for i in range(values.shape[0]):
        g = group[i]
        for c in range(values.shape[1]):
            value = values[i, c]
            if np.isfinite(value):
                sums[g, c] += value
                counts[g, c] += 1.0


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means; NaN where nothing was counted."""
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)


def pearson_r(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of two samples; NaN where either is constant or has fewer than 2 values.

    >>> round(pearson_r(np.array([1, 2, 3]), np.array([2, 4, 6])), 12)
    1.0
    >>> pearson_r(np.array([1, 2, 3]), np.array([2, 2, 2]))
    nan
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.clip(x @ y / norm, -1.0, 1.0)) if norm > 0 else float("nan")


def ridge_predict(
    features: np.ndarray, target: np.ndarray, new_features: np.ndarray, *, alpha: float = 1.0
) -> np.ndarray:
    """Ridge regression in closed form, on features standardised by the training samples.

    Minimises ‖y − b − Zw‖² + α‖w‖²; the intercept b is not penalised.

    Parameters
    ----------
    features, new_features : np.ndarray
        float ``(sample, feature)``: to learn from, and to predict.
    target : np.ndarray
        float ``(sample,)``.
    alpha : float
        Weight of the penalty.

    Returns
    -------
    np.ndarray
        float64 ``(sample,)`` for ``new_features``.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> ridge_predict(x, np.array([0.0, 1.0, 2.0]), np.array([[1.0], [3.0]]), alpha=0.0).tolist()
    [1.0, 3.0]
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = (features - mean) / scale
    gram = z.T @ z + alpha * np.eye(z.shape[1])
    # lstsq, not solve: with alpha = 0 a constant or repeated feature leaves the matrix singular
    weights = np.linalg.lstsq(gram, z.T @ (target - target.mean()), rcond=None)[0]
    return target.mean() + ((new_features - mean) / scale) @ weights
