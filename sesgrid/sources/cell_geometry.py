"""The id is the geometry: corners and squares of many cells, and the check of what a file drew.

Files often carry geometries of their own: transformed, clipped at a commune's
edge, or without a usable CRS. They tell nothing that the id does not, so they are
only checked against the id's square, then replaced by it.
"""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from pyproj import Transformer

from sesgrid.errors import CellIdError, FormatError
from sesgrid.grid import CELL_M, CRS, parse_cell_id

__all__ = ["cell_squares", "corners_of_ids", "count_redrawn"]

_ID = rf"^CRS3035RES{CELL_M}mN(?P<northing>-?\d{{1,9}})E(?P<easting>-?\d{{1,9}})$"
_EQUAL_M = 0.01
_OUTSIDE_M = 1.0
_FULL_TURN = 400.0
"""No angle is larger, in degrees or gons."""
_LIKELY_CRS = (CRS, "EPSG:2154")
"""What coordinates without a usable CRS may be in: the grid's own, or Lambert-93."""


def corners_of_ids(cell_ids: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """South-west corners of many cell ids, in one pass of a compiled regular expression.

    Parameters
    ----------
    cell_ids : Series of str
        A few million take a second.

    Returns
    -------
    northing_m, easting_m : np.ndarray
        int64 ``(cell,)``, EPSG:3035.

    Raises
    ------
    CellIdError
        Naming the first row (counted from 1, without the header) that is wrong, and their number.

    Examples
    --------
    >>> corners_of_ids(pd.Series(["CRS3035RES200mN2881200E3759200"]))
    (array([2881200]), array([3759200]))
    """
    text = pa.array(cell_ids.astype("string"), type=pa.large_string(), from_pandas=True)
    parts = pc.extract_regex(text, _ID)
    wrong = pc.is_null(parts).to_numpy(zero_copy_only=False)
    northing, easting = (
        np.zeros(len(text), np.int64)
        if wrong.all()
        else pc.fill_null(pc.cast(pc.struct_field(parts, name), pa.int64()), 0).to_numpy()
        for name in ("northing", "easting")
    )
    wrong |= (northing % CELL_M != 0) | (easting % CELL_M != 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        reason = _why_wrong(cell_ids.iloc[row])
        raise CellIdError(f"row {row + 1}: {reason} ({int(wrong.sum())} such rows)")
    return northing, easting


def _why_wrong(cell_id: str) -> str:
    try:
        parse_cell_id(cell_id)
    except CellIdError as error:
        return str(error)
    return f"cell id {cell_id!r} does not lie in Europe or is not in plain digits"


def cell_squares(northing_m: np.ndarray, easting_m: np.ndarray) -> np.ndarray:
    """Squares of cells given by their south-west corners, polygons in EPSG:3035.

    >>> cell_squares(np.array([200]), np.array([400]))[0].bounds
    (400.0, 200.0, 600.0, 400.0)
    """
    return shapely.box(easting_m, northing_m, easting_m + CELL_M, northing_m + CELL_M)


def count_redrawn(
    source: gpd.GeoSeries, northing_m: np.ndarray, easting_m: np.ndarray, label: str
) -> int:
    """Count the geometries of a file that lie inside their id's square without filling it.

    Parameters
    ----------
    source : GeoSeries
        One geometry a cell, in any CRS. Without a usable one (none, an "undefined Cartesian" one, or degrees
        of coordinates that are none, as GeoJSON and GeoParquet have it where nothing is told) the
        coordinates are tried as EPSG:3035 and EPSG:2154.
    northing_m, easting_m : np.ndarray
        int64 ``(cell,)``, the corners that the ids name.
    label : str
        File and layer, for the message.

    Raises
    ------
    FormatError
        A geometry reaches more than 1 m beyond its square.
    """
    square = np.stack([easting_m, northing_m, easting_m + CELL_M, northing_m + CELL_M], axis=1)
    candidates = [source.crs] if _is_usable(source) else list(_LIKELY_CRS)
    drawings = [_to_grid(source.values, crs) for crs in candidates]
    reaches = [_reach_beyond(shapely.bounds(d), square) for d in drawings]
    best = int(np.argmin([reach.max(initial=0.0) for reach in reaches]))
    drawn, reach = drawings[best], reaches[best]
    outside = np.flatnonzero(reach > _OUTSIDE_M)
    if outside.size:
        ids = [f"CRS3035RES{CELL_M}mN{northing_m[i]}E{easting_m[i]}" for i in outside[:3]]
        tried = " or ".join(str(c) if isinstance(c, str) else c.name for c in candidates)
        raise FormatError(
            f"{label}: the geometry of {outside.size} cells lies outside the square that its id "
            f"names, by up to {reach.max():.6g} m (first: {', '.join(ids)}; read as {tried}): "
            "expected the cell itself or a part of it; check the file's CRS, or drop its geometry"
        )
    same = np.abs(shapely.bounds(drawn) - square).max(axis=1) < _EQUAL_M
    same &= np.abs(shapely.area(drawn) - CELL_M**2) < _EQUAL_M * 2 * CELL_M
    return int((~same).sum())


def _is_usable(source: gpd.GeoSeries) -> bool:
    """Whether the CRS is one of the Earth that the coordinates can be in."""
    if source.crs is None or not source.crs.is_geographic:
        return source.crs is not None and source.crs.is_projected
    farthest = np.abs(shapely.bounds(np.asarray(source.values, dtype=object)))
    return not (farthest > _FULL_TURN).any()


def _to_grid(geometries: np.ndarray, crs: object) -> np.ndarray:
    """Geometries (may be missing) transformed vertex by vertex to EPSG:3035."""
    geometries = shapely.force_2d(np.asarray(geometries, dtype=object))
    if crs == CRS:
        return geometries
    to_grid = Transformer.from_crs(crs, CRS, always_xy=True)
    return shapely.transform(
        geometries, lambda xy: np.stack(to_grid.transform(xy[:, 0], xy[:, 1]), axis=1)
    )


def _reach_beyond(bounds: np.ndarray, square: np.ndarray) -> np.ndarray:
    """How far (m) each drawing reaches out of its square; 0 for a missing one."""
    low = square[:, :2] - bounds[:, :2]
    high = bounds[:, 2:] - square[:, 2:]
    reach = np.concatenate([low, high], axis=1)
    reach[np.isnan(bounds).any(axis=1)] = 0.0
    return np.maximum(reach.max(axis=1, initial=-np.inf), 0.0)
