"""Which part of a file to read: bounds on the grid, as a filter in the file's own CRS."""

from __future__ import annotations

import math

from pyproj import CRS as ProjCRS
from pyproj import Transformer
from pyproj.exceptions import ProjError

from sesgrid.grid import CRS

__all__ = ["Bounds", "filter_in"]

Bounds = tuple[float, float, float, float]
"""(west, south, east, north), metres in EPSG:3035."""

_MARGIN_M, _MARGIN_SHARE = 1000.0, 0.02
"""Straight edges on the grid are curves elsewhere: more is read than was asked for, never less."""


def filter_in(crs: str | None, within: Bounds | None) -> Bounds | None:
    """Bounds in another CRS that surely hold `within`; None where nothing can be left out.

    Examples
    --------
    >>> west, south, east, north = filter_in("EPSG:2154", (3_760_000, 2_880_000, 3_761_600, 2_881_600))
    >>> round(west, -3), round(south, -3), east - west < 5_000
    (651000.0, 6851000.0, True)
    """
    if within is None or crs is None:
        return None
    west, south, east, north = within
    more = _MARGIN_M + _MARGIN_SHARE * max(east - west, north - south)
    try:
        there = Transformer.from_crs(CRS, ProjCRS.from_user_input(crs), always_xy=True)
        bounds = there.transform_bounds(
            west - more, south - more, east + more, north + more, densify_pts=63
        )
    except ProjError:
        return None
    left, bottom, right, top = bounds
    # across the antimeridian, or where the other CRS has no place for it
    usable = all(map(math.isfinite, bounds)) and left < right and bottom < top
    return (left, bottom, right, top) if usable else None
