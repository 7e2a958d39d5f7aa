"""A land cover like a town's, fixed by a seed: blocks of buildings between streets."""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine

__all__ = ["town"]

CELL_M = 200


def town(
    n_polygons: int, size_px: int, seed: int = 0, segment_m: float = 2.0
) -> tuple[list, np.ndarray, Affine]:
    """A tessellation of one cell with wavering borders of short segments.

    Parameters
    ----------
    n_polygons : int
        Polygons that meet the cell, about.
    size_px : int
        Pixels along the cell's side.
    seed : int
    segment_m : float
        Length of a border's segments, about, metres.

    Returns
    -------
    polygons : list of shapely.Polygon
        Metres in EPSG:3035; some reach over the cell's border, as real ones do.
    values : np.ndarray
        uint8 ``(polygon,)``, 1 to 19.
    transform : affine.Affine
    """
    rng = np.random.default_rng(seed)
    west, north = 3759200, 2881400
    points = rng.uniform(-0.1 * CELL_M, 1.1 * CELL_M, (round(n_polygons * 1.2), 2))
    parts = shapely.voronoi_polygons(shapely.MultiPoint(points)).geoms
    cell = shapely.box(0, 0, CELL_M, CELL_M)
    parts = shapely.segmentize([p for p in parts if p.intersects(cell)], segment_m)

    def place(xy: np.ndarray) -> np.ndarray:
        x, y = xy.T
        return np.stack([west + x + np.sin(y / 5), north - CELL_M + y + np.sin(x / 7)], axis=1)

    polygons = list(shapely.transform(parts, place))
    values = rng.integers(1, 20, len(polygons)).astype(np.uint8)
    step = CELL_M / size_px
    return polygons, values, Affine(step, 0, west, 0, -step, north)
