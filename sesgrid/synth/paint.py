"""The painter: ground textures, then strokes, on one tile of pixels.

Every colour is a function of the point alone (noise is a hash of coordinates), so tiles painted
one by one join without a seam.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sesgrid.synth.strokes import FILL, OUTLINE, SHADE, TREE, Strokes

__all__ = ["paint_ground", "paint_strokes"]


@njit(nogil=True)
def _hash(ix: int, iy: int, salt: int) -> float:
    """A number in [0, 1) from two integers."""
    h = (ix * 374761393 + iy * 668265263 + salt * 2246822519) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 2654435761) & 0xFFFFFFFF
    return (h ^ (h >> 15)) / 4294967296.0


@njit(nogil=True)
def _noise(x: float, y: float, salt: int) -> float:
    """Value noise of unit lattice, in [-1, 1)."""
    ix, iy = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    low = _hash(ix, iy, salt) * (1 - fx) + _hash(ix + 1, iy, salt) * fx
    high = _hash(ix, iy + 1, salt) * (1 - fx) + _hash(ix + 1, iy + 1, salt) * fx
    return 2 * (low * (1 - fy) + high * fy) - 1


@njit(nogil=True)
def paint_ground(
    canvas: np.ndarray, ids: np.ndarray, west: float, north: float, step: float, table: np.ndarray
) -> None:
    """Fill the canvas with the ground of each polygon.

    Parameters
    ----------
    canvas : np.ndarray
        uint8 ``(y, x, rgb)``, written.
    ids : np.ndarray
        int32 ``(y, x)``, polygon of each pixel: a row of ``table``.
    west, north, step : float
        North-west corner and pixel side, metres from the frame's base.
    table : np.ndarray
        float64 ``(polygon, 9)``: red, green, blue, amplitudes of fine, middle and coarse noise,
        of stripes, their period (m) and direction (radians).
    """
    height, width = ids.shape
    for i in range(height):
        y = north - (i + 0.5) * step
        for j in range(width):
            x = west + (j + 0.5) * step
            row = table[ids[i, j]]
            fine = row[3] * _noise(x / 1.3, y / 1.3, 1)
            middle = row[4] * _noise(x / 6.0, y / 6.0, 2)
            coarse = row[5] * _noise(x / 34.0, y / 34.0, 3)
            light = 1 + fine + middle
            if row[6] > 0:
                across = y * np.cos(row[8]) - x * np.sin(row[8])
                light += row[6] * np.sin(2 * np.pi * across / row[7])
            for c in range(3):
                # coarse patches go from green to straw, as grass does
                tint = 1 + coarse * (1.0 if c == 0 else 0.45 if c == 1 else 0.2)
                value = row[c] * light * tint
                canvas[i, j, c] = np.uint8(min(max(value, 0.0), 255.0))


@njit(nogil=True)
def _coverage(corners: np.ndarray, count: int, x: float, y: float, step: float, inset: float):
    """Share of a pixel inside a convex polygon shrunk by ``inset`` (exact for a straight edge)."""
    outside = 0.0
    for k in range(count):
        m = k + 1 if k + 1 < count else 0
        ex, ey = corners[m, 0] - corners[k, 0], corners[m, 1] - corners[k, 1]
        length = np.sqrt(ex * ex + ey * ey)
        if length < 1e-4:
            continue
        d = (ex * (y - corners[k, 1]) - ey * (x - corners[k, 0])) / length - inset
        d = d / step + 0.5
        if d < 1.0:
            outside += 1.0 - d if d > 0.0 else 1.0
            if outside >= 1.0:
                return 0.0
    return 1.0 - outside


@njit(nogil=True)
def _paint(
    canvas,
    ids,
    codes,
    west,
    north,
    step,
    vertices,
    counts,
    kinds,
    colours,
    opacity,
    widths,
    owners,
    salts,
):
    height, width = ids.shape
    for s in range(len(counts)):
        n = counts[s]
        corners = vertices[s]
        reach = 1.25 * widths[s] + step if kinds[s] == TREE else step
        x0, x1 = corners[:n, 0].min() - reach, corners[:n, 0].max() + reach
        y0, y1 = corners[:n, 1].min() - reach, corners[:n, 1].max() + reach
        j0, j1 = max(int((x0 - west) / step), 0), min(int((x1 - west) / step) + 1, width)
        i0, i1 = max(int((north - y1) / step), 0), min(int((north - y0) / step) + 1, height)
        for i in range(i0, i1):
            y = north - (i + 0.5) * step
            for j in range(j0, j1):
                here = ids[i, j]
                owner = owners[s]
                if owner != -1 and owner != here and owner != -codes[here]:
                    continue
                x = west + (j + 0.5) * step
                light = 1.0
                if kinds[s] == TREE:
                    dx, dy = (x - corners[0, 0]) / widths[s], (y - corners[0, 1]) / widths[s]
                    r = np.sqrt(dx * dx + dy * dy)
                    ragged = 1 + 0.16 * _noise(
                        x / (0.45 * widths[s]), y / (0.45 * widths[s]), salts[s]
                    )
                    cover = min(max((ragged - r) * widths[s] / step + 0.5, 0.0), 1.0)
                    light = 1 + 0.42 * (0.34 * dx - 0.94 * dy) + 0.8 * (ragged - 1)
                else:
                    cover = _coverage(corners, n, x, y, step, 0.0)
                    if kinds[s] == OUTLINE:
                        cover -= _coverage(corners, n, x, y, step, widths[s])
                if cover <= 0.0:
                    continue
                cover *= opacity[s]
                if kinds[s] == FILL:
                    light = 1 + 0.05 * _noise(x / 1.1, y / 1.1, 7)
                for c in range(3):
                    old = float(canvas[i, j, c])
                    new = 0.0 if kinds[s] == SHADE else colours[s, c] * light
                    # a hash dithers the rounding, so that thin glazes are not lost
                    dither = _hash(int(np.floor(x / step)), int(np.floor(y / step)), salts[s] + c)
                    value = old + cover * (new - old) + dither
                    canvas[i, j, c] = np.uint8(min(max(value, 0.0), 255.0))


def paint_strokes(
    canvas: np.ndarray,
    ids: np.ndarray,
    codes: np.ndarray,
    west: float,
    north: float,
    step: float,
    strokes: Strokes,
) -> None:
    """Paint strokes in order over the canvas, each within its owner.

    Parameters
    ----------
    canvas, ids, west, north, step
        As for :func:`paint_ground`.
    codes : np.ndarray
        int32 ``(polygon,)``: class code of each polygon id.
    """
    x, y = strokes.vertices[..., 0], strokes.vertices[..., 1]
    reach = np.where(strokes.kinds == TREE, 1.3 * strokes.width_m, 0) + step
    near = (
        (x.max(axis=1) + reach > west)
        & (x.min(axis=1) - reach < west + canvas.shape[1] * step)
        & (y.min(axis=1) - reach < north)
        & (y.max(axis=1) + reach > north - canvas.shape[0] * step)
    )
    salts = np.flatnonzero(near)  # a stroke's own number, the same in every tile
    _paint(
        canvas,
        ids,
        codes,
        west,
        north,
        step,
        strokes.vertices[salts],
        strokes.counts[salts],
        strokes.kinds[salts],
        strokes.colours[salts],
        strokes.opacity[salts],
        strokes.width_m[salts],
        strokes.owners[salts],
        salts,
    )
