"""Burn polygons into a raster of classes, by GDAL's pixel-centre rule.

One pass over the edges of a polygon instead of one per scanline: every edge
drops its crossings with the pixel-centre lines into the buckets of those lines
(count, prefix sum, place), each bucket is sorted and filled pair by pair. The
work is O(vertices + crossings + pixels filled).

To be the same *pixel for pixel* as GDAL and not only by the same idea, the
kernel repeats the floating-point operations of GDAL in their order: the
inverse transform, the crossing of an edge with a line, and the rounding.

References
----------
GDAL, ``alg/llrasterize.cpp`` (``GDALdllImageFilledPolygon``) and
``gcore/gdal_misc.cpp`` (``GDALInvGeoTransform``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
import shapely
from affine import Affine

from sesgrid.errors import FormatError

__all__ = ["burn_polygons"]

_POLYGON = shapely.GeometryType.POLYGON
_MULTIPOLYGON = shapely.GeometryType.MULTIPOLYGON
_COLLECTION = shapely.GeometryType.GEOMETRYCOLLECTION


def burn_polygons(
    geometries: Sequence[shapely.Geometry] | np.ndarray,
    values: np.ndarray,
    out_shape: tuple[int, int],
    transform: Affine,
    fill: int = 0,
) -> np.ndarray:
    """Give each pixel the value of the last polygon that holds its centre.

    Parameters
    ----------
    geometries : sequence of shapely geometries, or a GeoSeries
        Polygons and MultiPolygons, with holes, valid or not; of a GeometryCollection
        the polygonal parts. Empty ones are skipped. They may lie outside the raster.
    values : np.ndarray
        uint8 or uint32 ``(geometry,)``; the dtype of the result. Where polygons
        overlap, the later one wins.
    out_shape : (int, int)
        (y, x), in pixels.
    transform : affine.Affine
        (col, row) → (x, y) of the raster, north-up: ``a > 0``, ``e < 0``, no rotation.
    fill : int
        Value of the pixels in no polygon.

    Returns
    -------
    np.ndarray
        ``(y, x)``, dtype of `values`.

    Raises
    ------
    FormatError
        A geometry is missing, not polygonal or has a coordinate that is not finite; `values`
        is not a uint8 or uint32 array of the same length; `fill` does not fit its dtype;
        `transform` is not north-up; `out_shape` is not two sizes.

    Notes
    -----
    For centres that lie exactly on an edge, as GDAL: a line of pixel centres is filled from
    crossing x1 to crossing x2 over the pixels floor(x1 + ½) to floor(x2 + ½) − 1, so a
    centre on a left border is out, on a right border in. An edge from y1 to y2 (rows, growing
    southward) crosses the lines of y1 ≤ y < y2: upper border in, lower border out; but
    a horizontal edge on pixel centres is filled on its own when it runs westward, its ring
    turned clockwise: the lower border of an outer ring is in after all.
    Parts of one geometry are united; the rings of one polygon are even-odd.

    Examples
    --------
    >>> from shapely import box
    >>> burn_polygons(
    ...     [box(0, 0, 4, 2), box(1, 0, 2, 1)],
    ...     np.array([1, 2], np.uint8), (3, 4), Affine(1, 0, 0, 0, -1, 3),
    ... ).tolist()
    [[0, 0, 0, 0], [1, 1, 1, 1], [1, 2, 1, 1]]
    """
    geoms = _as_geometries(geometries)
    values = _checked_values(values, len(geoms))
    out = np.full(_checked_shape(out_shape), _checked_fill(fill, values.dtype), values.dtype)
    inverse = _inverse(transform)
    if out.size and len(geoms):
        xy, ring_start, polygon_start, owner = _ragged(geoms)
        _burn(out, xy, ring_start, polygon_start, values[owner], inverse)
    return out


def _as_geometries(geometries: Sequence[shapely.Geometry] | np.ndarray) -> np.ndarray:
    geoms = np.asarray(geometries, dtype=object)
    if geoms.ndim != 1:
        raise FormatError(
            f"geometries: expected a flat sequence, received an array of shape {geoms.shape}"
        )
    try:
        kinds = shapely.get_type_id(geoms)
    except TypeError as error:
        raise FormatError(f"geometries: expected shapely geometries; {error}") from error
    areal = (kinds == _POLYGON) | (kinds == _MULTIPOLYGON) | (kinds == _COLLECTION)
    wrong = np.flatnonzero(~areal)
    if wrong.size:
        i = int(wrong[0])
        found = "a missing geometry" if geoms[i] is None else geoms[i].geom_type
        raise FormatError(
            f"geometry {i}: expected a Polygon or MultiPolygon, received {found} "
            f"({wrong.size} of {len(geoms)} are not polygonal); remove them or buffer them first"
        )
    return geoms


def _checked_values(values: np.ndarray, n: int) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.dtype not in (np.uint8, np.uint32):
        found = getattr(values, "dtype", type(values).__name__)
        raise FormatError(
            f"values: expected a numpy array of uint8 or uint32, received {found}; pass "
            "np.asarray(values, dtype=np.uint8), or np.uint32 for polygon numbers"
        )
    if values.shape != (n,):
        raise FormatError(
            f"values: expected one per geometry, shape ({n},), received shape {values.shape}"
        )
    return values


def _checked_fill(fill: int, dtype: np.dtype) -> int:
    top = np.iinfo(dtype).max
    if fill != int(fill) or not 0 <= fill <= top:
        raise FormatError(f"fill: expected an integer from 0 to {top} ({dtype}), received {fill!r}")
    return int(fill)


def _checked_shape(out_shape: tuple[int, int]) -> tuple[int, int]:
    shape = tuple(out_shape)
    if len(shape) != 2 or any(n != int(n) or n < 0 for n in shape):
        raise FormatError(f"out_shape: expected (y, x) in pixels, received {out_shape!r}")
    return int(shape[0]), int(shape[1])


def _inverse(transform: Affine) -> tuple[float, float, float, float]:
    """(x0, dx, y0, dy) with col = x0 + dx·x, row = y0 + dy·y; rounded as GDAL rounds."""
    a, b, c, d, e, f = tuple(transform)[:6]
    if not all(map(math.isfinite, (a, b, c, d, e, f))) or b != 0 or d != 0 or a <= 0 or e >= 0:
        raise FormatError(
            "transform: expected a finite north-up grid without rotation (a > 0, b = d = 0, "
            f"e < 0), received a={a}, b={b}, c={c}, d={d}, e={e}, f={f}; warp onto one first"
        )
    return -c / a, 1.0 / a, -f / e, 1.0 / e


def _ragged(geoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates ``(vertex, 2)``, first vertex of each ring, first ring of each polygon, and
    the geometry that each polygon belongs to. The starts have one more entry, the end."""
    owner = np.arange(len(geoms))
    kinds = shapely.get_type_id(geoms)
    while (kinds > _POLYGON).any():  # one level of nesting a turn
        geoms, parent = shapely.get_parts(geoms, return_index=True)
        owner, kinds = owner[parent], shapely.get_type_id(geoms)
    polygonal = kinds == _POLYGON
    if not polygonal.all():
        geoms, owner = geoms[polygonal], owner[polygonal]
    rings, polygon_of = shapely.get_rings(geoms, return_index=True)
    xy, ring_of = shapely.get_coordinates(rings, return_index=True)
    if not np.isfinite(xy).all():
        vertex = int(np.flatnonzero(~np.isfinite(xy).all(axis=1))[0])
        raise FormatError(
            f"geometry {owner[polygon_of[ring_of[vertex]]]}: expected finite coordinates, "
            f"received {tuple(xy[vertex].tolist())}; repair or remove it"
        )
    return xy, _starts(ring_of, len(rings)), _starts(polygon_of, len(geoms)), owner


def _starts(group_of: np.ndarray, n_groups: int) -> np.ndarray:
    return np.searchsorted(group_of, np.arange(n_groups + 1))


@numba.njit(nogil=True)
def _burn(out, xy, ring_start, polygon_start, values, inverse):
    """Burn every polygon in turn. `px`, `py` are pixel coordinates; `line` counts the centre
    lines above a vertex, so an edge crosses those from the lower to the higher count."""
    x0, dx, y0, dy = inverse
    n_rows, n_cols = out.shape
    px = np.empty(xy.shape[0])
    py = np.empty(xy.shape[0])
    line = np.empty(xy.shape[0], np.int32)
    for i in range(xy.shape[0]):
        px[i] = x0 + dx * xy[i, 0]
        py[i] = y0 + dy * xy[i, 1]
        line[i] = int(min(max(np.ceil(py[i] - 0.5), 0.0), float(n_rows)))
    bucket = np.zeros(n_rows, np.int32)
    crossings = np.empty(1024, np.int32)
    for p in range(polygon_start.size - 1):
        rings = ring_start[polygon_start[p] : polygon_start[p + 1] + 1]
        top, bottom, total = _count_crossings(line, rings, bucket)
        if total > crossings.size:
            crossings = np.empty(2 * total, np.int32)
        _place_crossings(px, py, line, rings, n_cols, bucket, crossings)
        _fill_between(out, top, bottom, values[p], bucket, crossings)
        _fill_horizontal_edges(out, xy, px, py, rings, values[p])


@numba.njit(nogil=True)
def _count_crossings(line, rings, bucket):
    """Turn `bucket`, all zero, into the first place of each line's crossings.

    Returns the half-open range of lines crossed and the number of crossings."""
    top, bottom = bucket.size, 0
    for i in range(rings[0], rings[-1]):
        top, bottom = min(top, line[i]), max(bottom, line[i])
    for r in range(rings.size - 1):
        for i in range(rings[r], rings[r + 1] - 1):
            for y in range(min(line[i], line[i + 1]), max(line[i], line[i + 1])):
                bucket[y] += 1
    total = 0
    for y in range(top, bottom):
        count = bucket[y]
        bucket[y] = total
        total += count
    return top, bottom, total


@numba.njit(nogil=True)
def _place_crossings(px, py, line, rings, n_cols, bucket, crossings):
    """Write each crossing into its line's bucket, which then points to its end."""
    for r in range(rings.size - 1):
        for i in range(rings[r], rings[r + 1] - 1):
            a, b = (i, i + 1) if line[i] < line[i + 1] else (i + 1, i)
            for y in range(line[a], line[b]):
                x = (y + 0.5 - py[a]) * (px[b] - px[a]) / (py[b] - py[a]) + px[a]
                crossings[bucket[y]] = _column(x, n_cols)
                bucket[y] += 1


@numba.njit(nogil=True)
def _fill_between(out, top, bottom, value, bucket, crossings):
    """Fill from odd to even crossings; leaves `bucket` all zero."""
    begin = 0
    for y in range(top, bottom):
        end = bucket[y]
        bucket[y] = 0
        _sort(crossings, begin, end)
        for k in range(begin, end - 1, 2):
            _fill(out[y], crossings[k], crossings[k + 1], value)
        begin = end


@numba.njit(nogil=True)
def _fill_horizontal_edges(out, xy, px, py, rings, value):
    """Fill the edges that lie exactly on pixel centres and run westward once their ring is
    turned clockwise: the lower edges of an outer ring."""
    for r in range(rings.size - 1):
        turn = 0
        for i in range(rings[r], rings[r + 1] - 1):
            row = np.floor(py[i])
            if py[i] != py[i + 1] or py[i] - row != 0.5 or not 0 <= row < out.shape[0]:
                continue
            if turn == 0:
                turn = 1 if _is_clockwise(xy[rings[r] : rings[r + 1]]) else -1
            a, b = _column(px[i], out.shape[1]), _column(px[i + 1], out.shape[1])
            if turn > 0:
                a, b = b, a
            _fill(out[int(row)], a, b, value)


@numba.njit(nogil=True)
def _is_clockwise(ring):
    """Orientation of a closed ring ``(vertex, 2)``, y northward, as OGR sees it.

    By the turn at the lowest, then rightmost, vertex; by the signed area where that vertex is
    repeated, or within 1e-5 of a neighbour. The two differ on rings that cross themselves."""
    n = len(ring) - 1
    v = 0
    for i in range(1, n):
        if ring[i, 1] < ring[v, 1] or (ring[i, 1] == ring[v, 1] and ring[i, 0] > ring[v, 0]):
            v = i
    by_area = False
    for i in range(v + 1, n):
        by_area |= ring[i, 0] == ring[v, 0] and ring[i, 1] == ring[v, 1]
    before, after = ring[(v - 1) % n] - ring[v], ring[(v + 1) % n] - ring[v]
    by_area |= max(abs(before[0]), abs(before[1])) < 1e-5
    by_area |= max(abs(after[0]), abs(after[1])) < 1e-5
    cross = after[0] * before[1] - before[0] * after[1]
    if not by_area and cross != 0:
        return cross < 0
    area = ring[0, 0] * (ring[1, 1] - ring[n, 1])
    for i in range(1, n):
        area += ring[i, 0] * (ring[i + 1, 1] - ring[i - 1, 1])
    return area + ring[n, 0] * (ring[0, 1] - ring[n - 1, 1]) < 0


@numba.njit(nogil=True, inline="always")
def _fill(row, start, stop, value):
    pixels = row[start:stop]  # a slice counts from 0: no negative index to wrap, one memset
    for x in range(pixels.size):
        pixels[x] = value


@numba.njit(nogil=True, inline="always")
def _column(x, n_cols):
    """floor(x + ½), held inside [0, n_cols] before the conversion can overflow; NaN to 0."""
    column = np.floor(x + 0.5)
    if not column > 0:
        return 0
    return int(column) if column < n_cols else n_cols


@numba.njit(nogil=True)
def _sort(a, begin, end):
    """Shell sort of ``a[begin:end]`` in place: two values mostly, thousands for a comb."""
    gap = 1
    while 3 * gap + 1 < end - begin:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(begin + gap, end):
            value = a[i]
            j = i
            while j >= begin + gap and a[j - gap] > value:
                a[j] = a[j - gap]
                j -= gap
            a[j] = value
        gap //= 3
