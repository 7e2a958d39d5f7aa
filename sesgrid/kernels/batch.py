"""A decoded cell into its place in a batch: averaged down, flipped, cropped, bands last.

Compiled without the GIL, so that the threads of a loader run side by side. A cell passes once through the
cache: each row is read band by band and written interleaved.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["average", "place_cell"]


@numba.njit(nogil=True)
def place_cell(cell, out, vertical, horizontal, top, left):
    """Write a cell, flipped and then cropped, into `out`.

    Parameters
    ----------
    cell : np.ndarray
        uint8 ``(band, y, x)``, three bands, of any strides.
    out : np.ndarray
        uint8 ``(y, x, band)``, contiguous, no larger than the cell.
    vertical, horizontal : bool
        Turn it upside down; turn left and right around.
    top, left : int
        Corner of the crop, in pixels of the flipped cell. Nothing is checked: the crop must lie within.

    Examples
    --------
    >>> cell = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    >>> out = np.empty((1, 2, 3), np.uint8)
    >>> place_cell(cell, out, True, False, 0, 0)
    >>> out.tolist()
    [[[2, 6, 10], [3, 7, 11]]]
    """
    height, width = cell.shape[1], cell.shape[2]
    n = out.shape[1]
    for y in range(out.shape[0]):
        source = height - 1 - (top + y) if vertical else top + y
        red, green, blue = cell[0, source], cell[1, source], cell[2, source]
        # one index into a flat row: LLVM makes vectors of it, ten times as fast as of [x, band]
        row = out[y].reshape(-1)
        if horizontal:
            last = width - 1 - left
            for x in range(n):
                row[3 * x] = red[last - x]
                row[3 * x + 1] = green[last - x]
                row[3 * x + 2] = blue[last - x]
        else:
            for x in range(n):
                row[3 * x] = red[left + x]
                row[3 * x + 1] = green[left + x]
                row[3 * x + 2] = blue[left + x]


@numba.njit(nogil=True)
def average(cell, factor):
    """Means of squares of pixels, rounded to the nearest whole number, halves up; exact.

    Parameters
    ----------
    cell : np.ndarray
        uint8 ``(band, y, x)``, of any strides.
    factor : int
        Side of a square; divides both sides of the cell.

    Returns
    -------
    np.ndarray
        uint8 ``(band, y, x)``.

    Examples
    --------
    >>> average(np.array([[[1, 2, 0, 0], [2, 1, 0, 1]]], np.uint8), 2).tolist()
    [[[2, 0]]]
    """
    bands, height, width = cell.shape[0], cell.shape[1] // factor, cell.shape[2] // factor
    out = np.empty((bands, height, width), np.uint8)
    area = np.uint32(factor * factor)
    sums = np.empty(width, np.uint32)
    for band in range(bands):
        for y in range(height):
            sums[:] = area // 2
            for source in range(y * factor, (y + 1) * factor):
                row = cell[band, source]
                for x in range(width):
                    for k in range(factor):
                        sums[x] += row[x * factor + k]
            for x in range(width):
                out[band, y, x] = sums[x] // area
    return out
