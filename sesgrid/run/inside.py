"""Which cells lie in some polygons, of a nation too."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from sesgrid.grid import CELL_M, place_codes

__all__ = ["inside"]

_AT_ONCE = 200_000
"""Cells looked up at once."""

_SQUARE = 8
"""Cells on a side that are looked at together."""


def inside(cells: pd.DataFrame, polygons: gpd.GeoSeries) -> np.ndarray:
    """Whether the centre of each cell lies in one of the polygons, bool ``(cell,)``."""
    tree = shapely.STRtree(np.asarray(polygons.values, dtype=object))
    at = cells[["row", "col"]].to_numpy(np.int64)
    # squares of cells that lie in one polygon as a whole spare looking at their cells
    within = at // _SQUARE
    _, index, of = np.unique(place_codes(*within.T), return_index=True, return_inverse=True)
    rows, cols = within[index].T
    side = _SQUARE * CELL_M
    boxes = shapely.box(cols * side, -(rows + 1) * side, (cols + 1) * side, -rows * side)
    whole = np.zeros(len(index), dtype=bool)
    whole[tree.query(boxes, predicate="within")[0]] = True
    found = whole[of]
    left = np.flatnonzero(~found)
    y, x = -(at[left, 0] + 0.5) * CELL_M, (at[left, 1] + 0.5) * CELL_M
    for a in range(0, len(left), _AT_ONCE):
        points = shapely.points(x[a : a + _AT_ONCE], y[a : a + _AT_ONCE])
        found[left[a + tree.query(points, predicate="within")[0]]] = True
    return found
