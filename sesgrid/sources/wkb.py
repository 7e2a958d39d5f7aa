"""Well-known binary from outside as geometries: what GEOS refuses but means polygons is read all the same.

GIS programs write arcs (ArcGIS, QGIS), surfaces of faces (3D models), rings that are not closed (old
exports), and read them all; GEOS refuses each. Such rows, and only those, are taken apart here: arcs become
chords, faces polygons, rings are closed. Each kind is counted and told; what is no geometry is refused.

References
----------
OGC 06-103r4, Simple Feature Access 1, clause 8; ISO/IEC 13249-3 for the kinds 8 to 17.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections import Counter
from collections.abc import Iterable

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.sources.arcs import chords

__all__ = ["geometries_of_wkb", "listed_rows", "refuse_infinite"]

_ARCS = "have arcs, which are drawn as chords of 1°"
_FACES = "are surfaces of faces, whose faces are taken as polygons"
_OPEN = "had rings that were not closed; they are closed"
_SHORT = "had rings of fewer than three points; those are left out"

_MAX_DEPTH = 16


def geometries_of_wkb(blobs: Iterable[bytes | None], label: str) -> np.ndarray:
    """Geometries of WKB, ISO or extended, in two dimensions or more.

    Parameters
    ----------
    blobs : iterable of bytes or None
    label : str
        File and layer, for messages.

    Returns
    -------
    np.ndarray
        Geometries ``(row,)``; None where there was none.

    Raises
    ------
    FormatError
        A blob is no geometry, is cut short, or has coordinates that are no finite numbers; naming the rows.

    Warns
    -----
    SesgridWarning
        Once for each kind of repair, with its count.

    Examples
    --------
    >>> wkb = shapely.to_wkb(shapely.box(0, 0, 1, 1))
    >>> geometries_of_wkb([wkb, None], "a.gpkg")
    array([<POLYGON ((1 0, 1 1, 0 1, 0 0, 1 0))>, None], dtype=object)
    """
    raw = np.asarray([b or None for b in blobs] or [], dtype=object)
    found = _by_geos(raw)
    odd = [int(r) for r in np.flatnonzero(shapely.is_missing(found)) if raw[r] is not None]
    repairs: Counter[str] = Counter()
    damaged = []
    for row in odd:
        reader = _Reader(raw[row])
        try:
            with np.errstate(all="ignore"):
                found[row] = reader.geometry()
        except (ValueError, struct.error, shapely.errors.GEOSException):
            damaged.append(row)
        repairs.update(reader.repairs)
    if damaged:
        raise FormatError(
            f"{label}: {len(damaged)} of {len(raw)} geometries are cut short or damaged "
            f"({listed_rows(damaged)}); fetch the file again, or remove these rows"
        )
    refuse_infinite(found, label)
    for what, count in repairs.items():
        text = f"{label}: {count} of {len(raw)} geometries {what}"
        warnings.warn(text, SesgridWarning, stacklevel=4)
    return found


def listed_rows(rows: Iterable[int]) -> str:
    """Rows, counted from 1, the first of them by number.

    >>> listed_rows([0, 4, 5, 8])
    'rows 1, 5, 6 …'
    """
    numbers = [int(row) + 1 for row in rows]
    more = " …" if len(numbers) > 3 else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:3]))}{more}"


def _by_geos(raw: np.ndarray) -> np.ndarray:
    """What GEOS reads, None for the rest."""
    with np.errstate(all="ignore"):  # of coordinates that are no numbers
        try:
            found = shapely.from_wkb(raw, on_invalid="ignore")
        except NotImplementedError:  # one of them has arcs: shapely then gives none at all
            found = np.full(len(raw), None, dtype=object)
            for row, blob in enumerate(raw):
                with contextlib.suppress(NotImplementedError):
                    found[row] = shapely.from_wkb(blob, on_invalid="ignore")
    # a collection may hold arcs: shapely takes it, and can do nothing with it
    collections = shapely.get_type_id(found) == shapely.GeometryType.GEOMETRYCOLLECTION
    for at in np.flatnonzero(collections):
        try:
            shapely.get_coordinates(found[at])
        except shapely.errors.GEOSException:
            found[at] = None
    return found


def refuse_infinite(geometry: np.ndarray, label: str) -> None:
    """Raise where coordinates are no finite numbers.

    Raises
    ------
    FormatError
        Naming the rows.
    """
    xy, row = shapely.get_coordinates(geometry, return_index=True)
    wrong = np.unique(row[~np.isfinite(xy).all(axis=1)])
    if wrong.size:
        raise FormatError(
            f"{label}: {wrong.size} of {len(geometry)} geometries have coordinates that are no finite "
            f"numbers ({listed_rows(wrong)}); correct or remove these rows"
        )


class _Reader:
    """Takes one blob apart, from its beginning; `repairs` says what was done."""

    def __init__(self, blob: bytes) -> None:
        self.blob, self.at = bytes(blob), 0
        self.repairs: set[str] = set()

    def geometry(self, depth: int = 0) -> BaseGeometry:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        kind, order, dims = self._header()
        if kind == 1:
            return shapely.Point(self._points(order, dims, 1)[0])
        if kind in (2, 8, 9):
            return shapely.LineString(self._curve(kind, order, dims))
        if kind in (3, 10, 17):
            return self._surface(kind, order, dims, depth)
        if kind not in (4, 5, 6, 7, 11, 12, 15, 16):
            raise ValueError(f"no geometry of kind {kind}")
        parts = [self.geometry(depth + 1) for _ in range(self._count(order))]
        if kind in (15, 16):
            self.repairs.add(_FACES)
            # faces that stand upright have no area; neighbours in the plane become one
            flat = shapely.make_valid(shapely.force_2d(parts)) if parts else parts
            return shapely.union_all([f for f in flat if shapely.area(f) > 0])
        if kind in (6, 12):
            return shapely.MultiPolygon([p for p in parts if not p.is_empty])
        return shapely.GeometryCollection(parts)

    def _header(self) -> tuple[int, str, int]:
        """Kind, byte order and dimensions; extended WKB has flags, and may have a CRS, which is skipped."""
        (first,) = self._unpack("B")
        if first > 1:
            raise ValueError("no byte order")
        order = "<" if first else ">"
        (code,) = self._unpack(order + "I")
        dims = 2 + bool(code & 0x8000_0000) + bool(code & 0x4000_0000)
        if code & 0x2000_0000:
            self._unpack(order + "I")
        iso, kind = divmod(code & 0x0FFF_FFFF, 1000)
        if iso > 3:
            raise ValueError("no dimensions")
        return kind, order, max(dims, (2, 3, 3, 4)[iso])

    def _unpack(self, form: str) -> tuple:
        values = struct.unpack_from(form, self.blob, self.at)
        self.at += struct.calcsize(form)
        return values

    def _count(self, order: str) -> int:
        """How many follow, each of a byte at least."""
        (count,) = self._unpack(order + "I")
        if count > len(self.blob) - self.at:
            raise ValueError("more parts than bytes")
        return count

    def _points(self, order: str, dims: int, count: int) -> np.ndarray:
        """x and y ``(point, 2)`` float64."""
        end = self.at + 8 * dims * count
        if end > len(self.blob):
            raise ValueError("bytes are missing")
        values = np.frombuffer(self.blob[self.at : end], order + "f8").reshape(count, dims)
        self.at = end
        return values[:, :2].astype(np.float64)

    def _curve(self, kind: int, order: str, dims: int) -> np.ndarray:
        if kind == 9:
            parts = [np.empty((0, 2))]
            for _ in range(self._count(order)):
                inner, inner_order, inner_dims = self._header()
                if inner not in (2, 8):
                    raise ValueError("a compound curve holds lines and arcs only")
                part = self._curve(inner, inner_order, inner_dims)
                parts.append(part[1:] if len(parts) > 1 else part)
            return np.concatenate(parts)
        points = self._points(order, dims, self._count(order))
        if kind == 8:
            self.repairs.add(_ARCS)
            return chords(points)
        return points

    def _surface(self, kind: int, order: str, dims: int, depth: int) -> shapely.Polygon:
        rings = []
        for _ in range(self._count(order)):
            if kind == 10:
                inner, inner_order, inner_dims = self._header()
                if inner not in (2, 8, 9):
                    raise ValueError("a ring is a curve")
                rings.append(self._ring(self._curve(inner, inner_order, inner_dims)))
            else:
                rings.append(self._ring(self._points(order, dims, self._count(order))))
        if not rings or rings[0] is None:  # without its shell a hole means nothing
            return shapely.Polygon()
        return shapely.Polygon(rings[0], [ring for ring in rings[1:] if ring is not None])

    def _ring(self, points: np.ndarray) -> np.ndarray | None:
        if len(points) and not np.isfinite(points).all():
            raise ValueError("no finite coordinates")
        if len(np.unique(points, axis=0)) < 3:
            self.repairs.add(_SHORT)
            return None
        if (points[0] == points[-1]).all():
            return points
        self.repairs.add(_OPEN)
        return np.concatenate([points, points[:1]])
