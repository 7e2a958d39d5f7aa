"""Convex polygons: cut by a line, measured, and divided into plots.

A polygon is an array ``(vertex, 2)`` of (x, y) in metres, counter-clockwise, not closed. The city
is made of straight cuts alone, so every piece stays convex and the cutting stays short.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["MAX_VERTICES", "area_m2", "clip", "cut", "extents", "subdivide"]

MAX_VERTICES = 12
"""Vertices that one drawn polygon may have."""


@njit(nogil=True)
def area_m2(polygon: np.ndarray) -> float:
    """Area of a polygon ``(vertex, 2)``; positive when counter-clockwise.

    >>> float(area_m2(np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 3.0], [0.0, 3.0]])))
    6.0
    """
    total = 0.0
    n = polygon.shape[0]
    for i in range(n):
        j = (i + 1) % n
        total += polygon[i, 0] * polygon[j, 1] - polygon[j, 0] * polygon[i, 1]
    return 0.5 * total


@njit(nogil=True)
def clip(polygon: np.ndarray, nx: float, ny: float, limit: float) -> np.ndarray:
    """The part of a convex polygon where ``nx * x + ny * y <= limit``; maybe no vertex.

    >>> square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    >>> float(area_m2(clip(square, 1.0, 0.0, 0.5)))
    1.0
    """
    n = polygon.shape[0]
    out = np.empty((n + 2, 2))
    m = 0
    for i in range(n):
        j = (i + 1) % n
        here = nx * polygon[i, 0] + ny * polygon[i, 1] - limit
        there = nx * polygon[j, 0] + ny * polygon[j, 1] - limit
        if here <= 0.0:
            out[m] = polygon[i]
            m += 1
        if (here < 0.0 < there) or (there < 0.0 < here):
            t = here / (here - there)
            out[m, 0] = polygon[i, 0] + t * (polygon[j, 0] - polygon[i, 0])
            out[m, 1] = polygon[i, 1] + t * (polygon[j, 1] - polygon[i, 1])
            m += 1
    return out[:m].copy()


def cut(polygon: np.ndarray, normal: np.ndarray, offset: float, width_m: float) -> list[np.ndarray]:
    """Cut a strip of ``width_m`` along the line ``normal · p = offset`` out of a convex polygon.

    Returns
    -------
    list of np.ndarray
        The pieces on either side (one, when the strip passes outside).
    """
    nx, ny = float(normal[0]), float(normal[1])
    half = width_m / 2
    sides = (clip(polygon, nx, ny, offset - half), clip(polygon, -nx, -ny, -offset - half))
    return [side for side in sides if len(side) >= 3 and area_m2(side) > 1.0]


@njit(nogil=True)
def extents(polygon: np.ndarray, angle: float) -> tuple[float, float, float, float]:
    """(u_min, u_max, v_min, v_max) of a polygon in axes turned by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    u = polygon[:, 0] * c + polygon[:, 1] * s
    v = polygon[:, 1] * c - polygon[:, 0] * s
    return u.min(), u.max(), v.min(), v.max()


@njit(nogil=True)
def _split_offset(
    polygon: np.ndarray, nx: float, ny: float, low: float, high: float, share: float
) -> float:
    """Offset of the line that leaves ``share`` of the area on its lower side (bisection)."""
    target = area_m2(polygon) * share
    for _ in range(14):
        middle = 0.5 * (low + high)
        if area_m2(clip(polygon, nx, ny, middle)) < target:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@njit(nogil=True)
def subdivide(polygon: np.ndarray, parts: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Divide a convex polygon into ``parts`` plots of equal area.

    Halved again and again across its longer side, in axes turned by ``angle`` radians.

    Returns
    -------
    vertices : np.ndarray
        float64 ``(plot, MAX_VERTICES, 2)``, the unused places repeat the last vertex.
    counts : np.ndarray
        int64 ``(plot,)``, vertices used.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [6.0, 0.0], [6.0, 6.0], [0.0, 6.0]])
    >>> vertices, counts = subdivide(square, 9, 0.0)
    >>> [round(float(area_m2(v[:n])), 2) for v, n in zip(vertices, counts)][:3]
    [4.0, 4.0, 4.0]
    """
    vertices = np.zeros((parts, MAX_VERTICES, 2))
    counts = np.zeros(parts, dtype=np.int64)
    stack = [polygon.copy()]
    wanted = [parts]
    done = 0
    c, s = np.cos(angle), np.sin(angle)
    while len(stack) > 0:
        piece = stack.pop()
        k = wanted.pop()
        if piece.shape[0] < 3:
            continue
        if k == 1:
            n = min(piece.shape[0], MAX_VERTICES)
            vertices[done, :n] = piece[:n]
            vertices[done, n:] = piece[n - 1]
            counts[done] = n
            done += 1
            continue
        u0, u1, v0, v1 = extents(piece, angle)
        first = k // 2
        if u1 - u0 >= v1 - v0:
            nx, ny, low, high = c, s, u0, u1
        else:
            nx, ny, low, high = -s, c, v0, v1
        offset = _split_offset(piece, nx, ny, low, high, first / k)
        stack.append(clip(piece, nx, ny, offset))
        wanted.append(first)
        stack.append(clip(piece, -nx, -ny, -offset))
        wanted.append(k - first)
    return vertices[:done], counts[:done]
