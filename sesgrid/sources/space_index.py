"""The spatial index of a GeoPackage's layer, compared with the geometries that it is to find.

Programs that do not know of it leave it as it was when they add or move geometries: a search by place then
passes over them. Each geometry has its envelope at its beginning, so none is decoded.

References
----------
OGC 12-128r18, GeoPackage 1.3, clause 2.1.3 (geometry blobs) and annex F.3 (spatial index).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from sesgrid.sources.geopackage import geometry_column, opened, quoted

__all__ = ["listed_within"]

_HEADER = np.dtype(
    [("magic", "S2"), ("version", "u1"), ("flags", "u1"), ("crs", "V4"), ("box", "V32")]
)
_EMPTY, _LITTLE = 0x10, 0x01


def listed_within(
    path: Path, layer: str, bounds: tuple[float, float, float, float]
) -> set[int] | None:
    """Rows that lie inside of bounds, of a layer whose spatial index tells where each lies.

    None stands for a layer without an index, or whose index is not that of its geometries.

    Parameters
    ----------
    path : Path
        The GeoPackage.
    layer : str
    bounds : (west, south, east, north)
        In the layer's CRS.
    """
    try:
        with opened(path) as database:
            column = geometry_column(database, layer)
            if column is None:
                return None
            name, geometry = quoted(layer), quoted(column)
            blobs = database.execute(
                f"SELECT rowid, CAST(substr({geometry}, 1, 40) AS BLOB) FROM {name} "
                f"WHERE {geometry} IS NOT NULL"
            )
            drawn = np.fromiter(blobs, [("row", "i8"), ("head", "S40")])
            index = quoted(f"rtree_{layer}_{column}")
            entries = database.execute(f"SELECT id, minx, maxx, miny, maxy FROM {index}")
            listed = np.fromiter(entries, np.dtype((np.float64, 5)))
    except (
        sqlite3.OperationalError,
        TypeError,
    ):  # a view, no index, or an SQLite that knows of none
        return None
    found = _envelopes(drawn)
    if found is None:
        return None
    rows, boxes = found
    known = listed[np.argsort(listed[:, 0])]
    at = np.searchsorted(known[:, 0], rows)
    if not np.isin(rows, known[:, 0]).all():
        return None
    low, high = boxes[:, ::2], boxes[:, 1::2]
    # the index rounds to four bytes, outwards
    if (known[at][:, 1::2] > low).any() or (known[at][:, 2::2] < high).any():
        return None
    west, south, east, north = bounds
    inside = (low > (west, south)).all(axis=1) & (high < (east, north)).all(axis=1)
    return set(rows[inside].tolist())


def _envelopes(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers of the rows that are not empty, int64, and west, east, south, north of each, float64.

    None where one does not tell.
    """
    heads = np.ascontiguousarray(drawn["head"]).view(_HEADER)
    if (heads["magic"] != b"GP").any():
        return None
    filled = (heads["flags"] & _EMPTY) == 0
    heads, rows = heads[filled], drawn["row"][filled]
    kind = heads["flags"] >> 1 & 7
    if (kind == 0).any():
        return None
    box = np.ascontiguousarray(heads["box"])
    little, big = (box.view(order).reshape(-1, 4).astype(np.float64) for order in ("<f8", ">f8"))
    boxes = np.where((heads["flags"] & _LITTLE == _LITTLE)[:, None], little, big)
    return (rows, boxes) if np.isfinite(boxes).all() else None
