"""Cells that cannot be, or hardly can be, where their ids say.

One wrong digit puts a cell at sea or a thousand kilometres away, and a grid that is to hold it with the
others would be mostly empty.
"""

from __future__ import annotations

import numpy as np

__all__ = ["BOUNDS_M", "FAR_M", "beyond_europe", "far_from_others", "widest_gap"]

BOUNDS_M = (-146_600, 196_400, 7_825_000, 6_971_600)
"""(west, south, east, north) of EPSG:3035's area of use, metres, outward to whole cells."""

FAR_M = 300_000
"""Distance along either axis beyond which a few cells are taken for a mistake; Corsica is 170 km off."""

_FEW = 10
_SHARE = 0.05


def beyond_europe(northing_m: np.ndarray, easting_m: np.ndarray) -> np.ndarray:
    """Which cells, int64 ``(cell,)`` corners, lie outside the area that EPSG:3035 is made for.

    >>> beyond_europe(np.array([2881200, 0]), np.array([3759200, 3759200])).tolist()
    [False, True]
    """
    west, south, east, north = BOUNDS_M
    inside = (easting_m >= west) & (easting_m < east)
    return ~(inside & (northing_m >= south) & (northing_m < north))


def far_from_others(northing_m: np.ndarray, easting_m: np.ndarray) -> np.ndarray:
    """Which cells are at most ten, at most one in twenty, and more than `FAR_M` away from all the others.

    Two cities far apart are no mistake, however small the smaller one is among a few cells.

    Parameters
    ----------
    northing_m, easting_m : np.ndarray
        int64 ``(cell,)``, corners.

    Returns
    -------
    np.ndarray
        bool ``(cell,)``.

    Examples
    --------
    >>> northing = np.array([2881200 + 200 * k for k in range(30)] + [3881200])
    >>> np.flatnonzero(far_from_others(northing, np.full(31, 3759200))).tolist()
    [30]
    """
    far = np.zeros(len(northing_m), bool)
    while True:
        left = np.flatnonzero(~far)
        found = np.zeros(len(left), bool)
        for along in (northing_m, easting_m):
            found |= _few_beyond_gaps(along[left])
        if not found.any():
            return far
        far[left[found]] = True


def widest_gap(northing_m: np.ndarray, easting_m: np.ndarray) -> int:
    """Metres along either axis, at the widest, in which no cell lies between others.

    >>> widest_gap(np.array([2881200, 2881400, 3881200]), np.array([3759200, 3759200, 3759400]))
    999800
    """
    gaps = [np.diff(np.sort(along)) for along in (northing_m, easting_m)]
    return int(max(gap.max(initial=0) for gap in gaps))


def _few_beyond_gaps(along: np.ndarray) -> np.ndarray:
    order = np.argsort(along, kind="stable")
    group = np.zeros(len(along), np.int64)
    group[order[1:]] = np.cumsum(np.diff(along[order]) > FAR_M)
    sizes = np.bincount(group)
    few = (sizes <= _FEW) & (sizes <= _SHARE * len(along))
    few[np.argmax(sizes)] = False
    return few[group]
