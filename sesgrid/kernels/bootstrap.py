"""Resampling units with replacement: how often each is drawn, what the drawn ones add up to, percentiles.

A resample is a vector of counts, one a unit; whatever is a sum over units is then a matrix product. A
unit may be a cell, or a block of cells that are alike because they are neighbours.

References
----------
Efron & Tibshirani (1993), An Introduction to the Bootstrap: the percentile interval. Lahiri (2003),
Resampling Methods for Dependent Data: whole blocks are drawn where neighbours depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["percentile_interval", "resample_counts", "resampled_sums", "sums_by_unit"]

_BATCH_COUNTS = 4_000_000
"""Resampling counts held at once (resample × unit), 32 MB."""


def resample_counts(
    n_units: int, n_bootstrap: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """How often each unit is drawn, in batches of resamples.

    Parameters
    ----------
    n_units : int
        Units to draw from, at least 1; as many are drawn, with replacement.
    n_bootstrap : int
        Number of resamples.
    rng : np.random.Generator
        Source of chance; the draws do not depend on the size of the batches.

    Yields
    ------
    np.ndarray
        float64 ``(resample, unit)``; rows sum to ``n_units``.

    Examples
    --------
    >>> [counts] = resample_counts(3, 4, np.random.default_rng(0))
    >>> counts.shape, counts.sum(axis=1).tolist()
    ((4, 3), [3.0, 3.0, 3.0, 3.0])
    """
    batch = max(1, _BATCH_COUNTS // n_units)
    for start in range(0, n_bootstrap, batch):
        size = min(batch, n_bootstrap - start)
        drawn = rng.integers(0, n_units, (size, n_units))
        drawn += np.arange(size)[:, None] * n_units
        counts = np.bincount(drawn.ravel(), minlength=size * n_units)
        yield counts.reshape(size, n_units).astype(np.float64)


def sums_by_unit(statistics: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up the rows of each unit.

    Parameters
    ----------
    statistics : np.ndarray
        float ``(cell, statistic)``.
    unit : np.ndarray
        int ``(cell,)``: the unit that a cell belongs to.

    Returns
    -------
    units : np.ndarray
        int64 ``(known,)``: the units that occur, ascending.
    sums : np.ndarray
        float64 ``(known, statistic)``.

    Examples
    --------
    >>> units, sums = sums_by_unit(np.array([[1.0], [2.0], [4.0]]), np.array([7, 3, 7]))
    >>> units.tolist(), sums.tolist()
    ([3, 7], [[2.0], [5.0]])
    """
    order = np.argsort(unit, kind="stable")
    units, starts = np.unique(np.asarray(unit, np.int64)[order], return_index=True)
    if not units.size:
        return units, np.zeros((0, statistics.shape[1]))
    return units, np.add.reduceat(np.asarray(statistics, np.float64)[order], starts, axis=0)


def resampled_sums(
    groups: Sequence[tuple[np.ndarray, np.ndarray]],
    n_units: int,
    *,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """What groups of cells add up to in each resample of the units.

    All groups see the same resamples: a unit is drawn with all that it holds, so differences between
    groups are paired.

    Parameters
    ----------
    groups : sequence of (units, sums)
        As `sums_by_unit` makes them, at least one; a unit may have a part in several groups.
    n_units : int
        Units to draw from, numbered from 0; at least 1.
    n_bootstrap : int
        Number of resamples.
    rng : np.random.Generator
        Source of chance.

    Returns
    -------
    np.ndarray
        float64 ``(resample, group, statistic)``.

    Examples
    --------
    >>> one = (np.array([0, 1]), np.array([[1.0], [1.0]]))
    >>> sums = resampled_sums([one, one], 2, n_bootstrap=3, rng=np.random.default_rng(0))
    >>> sums[..., 0].tolist()
    [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """
    out = np.zeros((n_bootstrap, len(groups), groups[0][1].shape[1]))
    done = 0
    for counts in resample_counts(n_units, n_bootstrap, rng):
        part = slice(done, done + len(counts))
        for g, (units, sums) in enumerate(groups):
            out[part, g] = counts[:, units] @ sums
        done = part.stop
    return out


def percentile_interval(
    statistics: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the middle ``level`` of the resamples, skipping NaN.

    Parameters
    ----------
    statistics : np.ndarray
        float ``(resample, …)``.
    level : float
        Share of the resamples inside, 0 to 1.

    Returns
    -------
    low, high : np.ndarray
        float64 ``(…)``; NaN where no resample holds the statistic.

    Examples
    --------
    >>> low, high = percentile_interval(np.array([[0.0, np.nan], [1.0, np.nan]]), 0.5)
    >>> low.tolist(), high.tolist()
    ([0.25, nan], [0.75, nan])
    """
    columns = statistics.reshape(len(statistics), math.prod(statistics.shape[1:]))
    bounds = np.full((2, columns.shape[1]), np.nan)
    full = np.isfinite(columns).any(axis=0)
    if full.any():
        tail = 50 * (1 - level)
        bounds[:, full] = np.nanpercentile(columns[:, full], [tail, 100 - tail], axis=0)
    low, high = bounds.reshape(2, *statistics.shape[1:])
    return low, high
