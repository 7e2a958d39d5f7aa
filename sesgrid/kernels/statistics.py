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

from collections.abc import Callable

import numpy as np

from sesgrid.kernels.bootstrap import group_members, percentile_interval, resample_counts

__all__ = [
    "activation_ratios",
    "bootstrap_interval",
    "column_means",
    "pearson_r",
    "ridge_predict",
]

_AT_ONCE = 65_536
"""Cells that are added up at once: the values of a nation's fill gigabytes."""


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


def column_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means from sums and counts of the same shape; NaN where nothing was counted.

    >>> column_means(np.array([3.0, 0.0]), np.array([2, 0])).tolist()
    [1.5, nan]
    """
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)


def bootstrap_interval(
    values: np.ndarray,
    *,
    n_bootstrap: int,
    rng: np.random.Generator,
    level: float = 0.95,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of the means of columns, resampling cells.

    All columns are resampled together (a cell is drawn with all that it holds), so the intervals
    of ratios of means are right as well. A resample is a vector of counts: one matrix product
    gives the means of every column. Of a great many cells, groups are drawn; see
    `sesgrid.kernels.bootstrap.group_members`.

    Parameters
    ----------
    values : np.ndarray
        float ``(cell, column)``, NaN = missing: a column's mean runs over the cells that have it.
        Cells that have nothing are not drawn.
    n_bootstrap : int
        Number of resamples.
    rng : np.random.Generator
        Source of chance.
    level : float
        Share of the resamples inside the interval.
    statistic : callable, optional
        From means ``(resample, column)`` to statistics ``(resample, statistic)``; the means
        themselves by default.

    Returns
    -------
    low, high : np.ndarray
        float64 ``(statistic,)``; NaN where no resample holds the statistic.

    Examples
    --------
    >>> low, high = bootstrap_interval(
    ...     np.ones((5, 1)), n_bootstrap=50, rng=np.random.default_rng(0)
    ... )
    >>> low.tolist(), high.tolist()
    ([1.0], [1.0])
    """
    values = values[np.isfinite(values).any(axis=1)]
    n_cells, n_columns = values.shape
    members = group_members(n_cells, rng)
    # column-major: the product below runs along the groups
    stacked = np.zeros((members.shape[0], 2 * n_columns), order="F")
    for a in range(0, n_cells, _AT_ONCE):
        some = values[a : a + _AT_ONCE]
        present = np.isfinite(some)
        both = np.concatenate([np.where(present, some, 0.0), present], axis=1)
        stacked += members[:, a : a + _AT_ONCE] @ both
    if n_cells == 0 or n_bootstrap < 1:
        shape = (1, n_columns)
        means = np.full(shape, np.nan)
    else:
        sums = np.concatenate(
            [counts @ stacked for counts in resample_counts(len(stacked), n_bootstrap, rng)]
        )
        means = column_means(sums[:, :n_columns], sums[:, n_columns:])
    return percentile_interval(means if statistic is None else statistic(means), level)


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
