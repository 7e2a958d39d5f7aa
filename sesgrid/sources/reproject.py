"""Vectors brought to the grid's CRS: long edges are cut first, that straight lines stay where they are.

A straight edge of another CRS is a curve in EPSG:3035: of a rectangle in degrees, the middle of an edge of
two degrees lies 500 m beside the line between its transformed ends. So edges are cut until no part bends by
more than a pixel; as equal edges are cut equally, polygons that shared a border still do.
"""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from pyproj import Transformer
from pyproj.exceptions import ProjError

from sesgrid.errors import FormatError
from sesgrid.grid import CRS
from sesgrid.sources.wkb import listed_rows

__all__ = ["TOLERANCE_M", "to_grid_crs"]

TOLERANCE_M = 0.25
"""How far an edge may lie from its true course: a pixel of the model's input."""

_ROUNDS = 8
_SAMPLE = 1000
_FARTHEST_M = 2e7
"""No place on Earth has coordinates beyond these in EPSG:3035."""
_FARTHEST = 2e8
"""Nor beyond these in any CRS, even in feet; some transformations take more and make places of it."""


def to_grid_crs(geometry: gpd.GeoSeries, label: str) -> gpd.GeoSeries:
    """Bring geometries to EPSG:3035; edges are at most `TOLERANCE_M` off.

    Parameters
    ----------
    geometry : GeoSeries
        In any CRS; heights are dropped.
    label : str
        File and layer, for messages.

    Raises
    ------
    FormatError
        No CRS that can be transformed, or coordinates that the transformation does not take.

    Examples
    --------
    >>> box = gpd.GeoSeries([shapely.box(2, 48, 4, 49)], crs="EPSG:4326")
    >>> len(to_grid_crs(box, "city").iloc[0].exterior.coords) > 100
    True
    """
    crs: Any = geometry.crs
    if crs is None or not (crs.is_projected or crs.is_geographic):
        raise FormatError(
            f"{label} has no usable CRS: expected {CRS} or one that can be transformed to it; "
            "assign it (ogr2ogr -a_srs), or bring the missing .prj"
        )
    with np.errstate(all="ignore"):  # coordinates may be anything until they are looked at
        return _placed(geometry, crs, label)


def _placed(geometry: gpd.GeoSeries, crs: Any, label: str) -> gpd.GeoSeries:
    flat = shapely.force_2d(np.asarray(geometry.values, dtype=object))
    _refuse_far(flat, _FARTHEST, label, crs)
    if crs != CRS:
        try:
            transformer = Transformer.from_crs(crs, CRS, always_xy=True)
        except ProjError as error:
            raise FormatError(
                f"{label}: its CRS ({crs.name}) cannot be transformed to {CRS}: {error}"
            ) from error
        flat = _transformed(_cut(flat, transformer), transformer)
    _refuse_far(flat, _FARTHEST_M, label, crs)
    return gpd.GeoSeries(flat, index=geometry.index, crs=CRS)


def _cut(geometry: np.ndarray, transformer: Transformer) -> np.ndarray:
    """Edges in parts of one length, that none bends by more than the tolerance."""
    for _ in range(_ROUNDS):
        longest = _longest_straight(geometry, transformer)
        if longest is None:
            break
        geometry = shapely.segmentize(geometry, longest)
    return geometry


def _longest_straight(geometry: np.ndarray, transformer: Transformer) -> float | None:
    """Length of an edge (in the CRS' own units) that stays straight enough; None if all do."""
    xy, part = shapely.get_coordinates(shapely.get_rings(geometry), return_index=True)
    if not len(xy):
        return None
    start, end = xy[:-1], xy[1:]
    edge = part[:-1] == part[1:]
    start, end = start[edge], end[edge]
    length = np.hypot(*(end - start).T)
    # the bend grows with the square of the length: what is much shorter than the longest can wait its turn
    longer = length > length.max(initial=0.0) / 4
    start, end, length = start[longer], end[longer], length[longer]
    few = np.argsort(length)[-_SAMPLE:]
    # most sources have short edges only: the longest of them tell that none needs a cut
    if _bends(start[few], end[few], transformer).max(initial=0.0) < TOLERANCE_M / 16:
        return None
    bend = _bends(start, end, transformer)
    over = np.isfinite(bend) & (bend > TOLERANCE_M)
    if not over.any():
        return None
    return float((length[over] / np.ceil(np.sqrt(bend[over] / TOLERANCE_M) * 1.05)).min())


def _bends(start: np.ndarray, end: np.ndarray, transformer: Transformer) -> np.ndarray:
    """How far (m) the middle of each edge comes from the line between its transformed ends."""
    a, b, middle = (_forward(p, transformer) for p in (start, end, (start + end) / 2))
    return np.hypot(*(middle - (a + b) / 2).T)


def _forward(xy: np.ndarray, transformer: Transformer) -> np.ndarray:
    return np.stack(transformer.transform(xy[:, 0], xy[:, 1]), axis=1)


def _transformed(geometry: np.ndarray, transformer: Transformer) -> np.ndarray:
    return shapely.transform(geometry, lambda xy: _forward(xy, transformer))


def _refuse_far(geometry: np.ndarray, farthest: float, label: str, crs: Any) -> None:
    xy, row = shapely.get_coordinates(geometry, return_index=True)
    lost = np.unique(row[~(np.abs(xy) <= farthest).all(axis=1)])
    if lost.size:
        raise FormatError(
            f"{label}: {lost.size} of {len(geometry)} geometries lie nowhere on Earth, read as {crs.name} "
            f"({listed_rows(lost)}); check the file's CRS, correct or remove these rows"
        )
