"""Polygons from outside made usable: in EPSG:3035, valid, not empty, each once; repairs counted."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.grid import CRS
from sesgrid.sources.reproject import to_grid_crs

__all__ = ["clean_polygons", "count_overlaps", "tell_overlaps"]

_OVERLAP_M2 = 1.0
_POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


def clean_polygons(frame: gpd.GeoDataFrame, label: str, *, stacklevel: int = 3) -> gpd.GeoDataFrame:
    """Return the rows with usable polygons, in EPSG:3035, in their order.

    Of equal geometries the last row stays, as the later of overlapping polygons wins.

    Parameters
    ----------
    frame : GeoDataFrame
        In any CRS.
    label : str
        File and layer, for messages.

    Raises
    ------
    FormatError
        No CRS, geometries that are no polygons, or none left.

    Warns
    -----
    SesgridWarning
        Once for each kind of repair, with its count.
    """
    placed = to_grid_crs(frame.geometry, label)
    geometry, collections = _polygons_of(np.asarray(placed.values, dtype=object))
    polygonal = np.isin(shapely.get_type_id(geometry), _POLYGONAL)
    other = ~(polygonal | shapely.is_missing(geometry) | shapely.is_empty(geometry))
    if other.any():
        raise FormatError(
            f"{label}: {int(other.sum())} of {len(frame)} geometries are no polygons (first: "
            f"{geometry[other][0].geom_type}); expected land-cover or boundary polygons"
        )

    def warn(count: int, what: str) -> None:
        if count:
            text = f"{label}: {count} of {len(frame)} polygons {what}"
            warnings.warn(text, SesgridWarning, stacklevel=stacklevel + 1)

    warn(collections, "are collections, of which the polygons are taken")
    wrong = ~shapely.is_valid(geometry) & ~shapely.is_missing(geometry)
    warn(int(wrong.sum()), "were invalid and are repaired")
    geometry[wrong] = shapely.make_valid(geometry[wrong], method="structure", keep_collapsed=False)
    empty = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    warn(int(empty.sum()), "are empty and left out")
    result = frame.set_geometry(gpd.GeoSeries(geometry, index=frame.index, crs=CRS))[~empty]
    twice = _repeated(np.asarray(result.geometry.values, dtype=object))
    warn(int(twice.sum()), "repeat a later one and are left out")
    result = result[~twice]
    if result.empty:
        raise FormatError(f"{label} holds no polygon; expected at least one")
    return result


def _polygons_of(geometry: np.ndarray) -> tuple[np.ndarray, int]:
    """Collections replaced by the polygons in them, and how many there were."""
    kind = shapely.get_type_id(geometry)
    rows = np.flatnonzero(kind == shapely.GeometryType.GEOMETRYCOLLECTION)
    rows = rows[~shapely.is_empty(geometry[rows])]
    taken = 0
    for row in rows:
        parts = _flattened(geometry[row])
        polygons = [p for p in parts if shapely.get_type_id(p) in _POLYGONAL]
        if polygons:
            geometry[row] = shapely.union_all(shapely.make_valid(polygons))
            taken += 1
    return geometry, taken


def _flattened(geometry: shapely.Geometry) -> list[shapely.Geometry]:
    if shapely.get_type_id(geometry) != shapely.GeometryType.GEOMETRYCOLLECTION:
        return [geometry]
    return [part for inner in shapely.get_parts(geometry) for part in _flattened(inner)]


def count_overlaps(geometry: np.ndarray) -> int:
    """Count the pairs of polygons that share more than 1 m².

    Land cover is nearly a coverage (shared borders, no overlap), so only polygons with a border
    that breaks the coverage's rules are compared, with all that they touch: one that holds another
    whole has no such border, the other has.

    Parameters
    ----------
    geometry : np.ndarray
        Valid polygons ``(polygon,)`` in metres.

    Examples
    --------
    >>> count_overlaps(shapely.box([0, 10, 15], 0, [10, 20, 30], 10))
    1
    """
    suspects = np.flatnonzero(~shapely.is_empty(shapely.coverage_invalid_edges(geometry)))
    if suspects.size == 0:
        return 0
    at, other = shapely.STRtree(geometry).query(geometry[suspects], predicate="intersects")
    pairs = np.sort([suspects[at], other], axis=0)
    first, second = np.unique(pairs[:, pairs[0] < pairs[1]], axis=1)
    shared = shapely.intersection(geometry[first], geometry[second])
    return int((shapely.area(shared) > _OVERLAP_M2).sum())


def tell_overlaps(land: gpd.GeoDataFrame, label: str, wins: str) -> None:
    """Warn of polygons that overlap, and which of two wins."""
    overlaps = count_overlaps(np.asarray(land.geometry.values, dtype=object))
    if overlaps:
        text = f"{label}: {overlaps} pairs of polygons overlap; where they do, the {wins} one wins"
        warnings.warn(text, SesgridWarning, stacklevel=3)


def _repeated(geometry: np.ndarray) -> np.ndarray:
    """Whether a later polygon covers the same points, whatever its first vertex."""
    wkb = pd.Series(shapely.to_wkb(shapely.normalize(geometry)))
    return wkb.duplicated(keep="last").to_numpy()
