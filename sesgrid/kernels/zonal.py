"""What the low and the high map are like inside each polygon of a cell, in a few passes over the pixels.

A polygon is known by its number in a raster of ids, burnt on the fly. Statistics are kept per **fragment**,
the part of a polygon inside one cell: no reduction crosses cells, and medians are never merged.
"""

from __future__ import annotations

import numba
import numpy as np

from sesgrid.errors import FormatError, GridMismatchError

__all__ = ["FRAGMENT_STATISTICS", "fragment_statistics"]

FRAGMENT_STATISTICS = (
    *(f"{m}_{name}" for m in ("low", "high") for name in ("sum", "min", "max", "mean", "median")),
    "total_variation",
    "symmetric_kl",
)
"""Columns of `fragment_statistics`."""


def fragment_statistics(
    maps: np.ndarray, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistics of a cell's two maps inside every polygon.

    Parameters
    ----------
    maps : np.ndarray
        float32 ``(map, y, x)``, map = low, high; at least 0.
    ids : np.ndarray
        uint32 ``(y, x)``: number of the polygon among those of the cell (1, 2, …), 0 = none. The memory
        taken grows with the largest.

    Returns
    -------
    ids : np.ndarray
        uint32 ``(fragment,)``, ascending: the polygons in the cell.
    counts : np.ndarray
        int64 ``(fragment,)``: their pixels.
    statistics : np.ndarray
        float64 ``(fragment, statistic)``; see `FRAGMENT_STATISTICS`. Sums add values row by row. The last
        two compare the maps after each is divided by its own sum inside the fragment: half the sum of
        their absolute differences, and KL(low‖high) + KL(high‖low) in nats, infinite where one is zero
        and the other is not. Both are NaN where a map is zero throughout the fragment: there is nothing
        to compare.

    Raises
    ------
    FormatError
        Wrong dtypes, or a value that is not finite or below zero.
    GridMismatchError
        The shapes do not belong together.

    Examples
    --------
    >>> low = np.array([[1, 3], [2, 0]], np.float32)
    >>> ids, counts, statistics = fragment_statistics(
    ...     np.stack([low, low[::-1]]), np.array([[7, 7], [7, 0]], np.uint32)
    ... )
    >>> ids.tolist(), counts.tolist(), statistics[0, :5].tolist()
    ([7], [3], [6.0, 1.0, 3.0, 2.0, 2.0])
    """
    if maps.dtype != np.float32 or ids.dtype != np.uint32:
        raise FormatError(
            f"expected maps as float32 and ids as uint32, received {maps.dtype} and {ids.dtype}"
        )
    if maps.ndim != 3 or len(maps) != 2 or maps.shape[1:] != ids.shape:
        raise GridMismatchError(
            f"expected maps (2, y, x) and ids (y, x) of the same pixels, received {maps.shape} and "
            f"{ids.shape}"
        )
    values = np.ascontiguousarray(maps.reshape(2, -1))
    flat = np.ascontiguousarray(ids.ravel())
    known, place, counts = _places(flat)
    out = np.empty((len(known), len(FRAGMENT_STATISTICS)))
    if not _describe(values, flat, place, counts, out):
        y, x = np.argwhere(~((maps >= 0) & (maps < np.inf)).all(axis=0))[0].tolist()
        raise FormatError(
            f"maps: expected finite values of at least 0, received {maps[:, y, x].tolist()} at pixel "
            f"(y, x) = ({y}, {x})"
        )
    return known, counts, out


def _places(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids that occur, ascending, without 0; per id up to the largest its place or −1; pixels."""
    tally = np.bincount(ids)
    tally[0] = 0
    known = np.flatnonzero(tally)
    place = np.full(len(tally), -1, np.int64)
    place[known] = np.arange(len(known))
    return known.astype(np.uint32), place, tally[known].astype(np.int64)


@numba.njit(nogil=True)
def _describe(values, ids, place, counts, out):
    """Fill `out`; False where a value is not finite or negative inside a fragment."""
    starts = np.zeros(counts.size + 1, np.int64)
    starts[1:] = np.cumsum(counts)
    grouped = np.empty((2, starts[-1]), np.float32)
    fill = starts[:-1].copy()
    for k in range(ids.size):
        fragment = place[ids[k]]
        if fragment < 0:
            continue
        at = fill[fragment]
        fill[fragment] = at + 1
        for m in range(2):
            value = values[m, k]
            if not 0 <= value < np.inf:
                return False
            grouped[m, at] = value
    for fragment in range(counts.size):
        low = grouped[0, starts[fragment] : starts[fragment + 1]]
        high = grouped[1, starts[fragment] : starts[fragment + 1]]
        for m, part in enumerate((low, high)):
            total = 0.0
            for value in part:
                total += value
            out[fragment, 5 * m] = total
            out[fragment, 5 * m + 1] = part.min()
            out[fragment, 5 * m + 2] = part.max()
            out[fragment, 5 * m + 3] = total / part.size
        out[fragment, 10], out[fragment, 11] = _apart(low, high, out[fragment, 0], out[fragment, 5])
        # last: finding a median may reorder
        out[fragment, 4], out[fragment, 9] = np.median(low), np.median(high)
    return True


@numba.njit(nogil=True)
def _apart(low, high, low_total, high_total):
    """Total variation and symmetric Kullback–Leibler divergence of two maps, each scaled to sum to 1."""
    if low_total == 0 or high_total == 0:
        return np.nan, np.nan
    variation, divergence = 0.0, 0.0
    for k in range(low.size):
        p, q = low[k] / low_total, high[k] / high_total
        variation += abs(p - q)
        if p == q:
            continue
        divergence += (p - q) * np.log(p / q) if p > 0 and q > 0 else np.inf
    return variation / 2, divergence
