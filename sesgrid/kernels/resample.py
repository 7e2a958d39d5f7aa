"""Resampling along the rows of a lattice, all bands in one pass; numba.

Inside a mesh a row of output pixels is a straight line in the source, so positions advance by a
constant step, in fixed point (32 bits behind the point). Positions and weights are made once a row and
shared by the bands. The stretch of a row whose taps all lie inside and are valid is blended without a
test in the inner loops; what is left (borders, holes) takes the careful road, which gives the same
bytes on the same taps.

Numbers: a position is rounded to 1/2048 source pixel, a weight is a product of two such
fractions (22 bits), a blend fits 31 bits and is rounded half up.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["bilinear_rows", "box_rows", "four_valid", "nearest_rows"]

_ONE = 1 << 32
_HALF = 1 << 31
_ROUND = 1 << 20  # half of the last kept bit
_FRACTION_BITS = 11
_DROPPED = 32 - _FRACTION_BITS
_UNIT = 1 << _FRACTION_BITS


@njit(nogil=True)
def _line(nodes, row, i, i0, i1, k):
    """(position at the left node, at the right node) of an output row inside a mesh."""
    t = (row - i0) / max(i1 - i0, 1)
    left = nodes[i, k] + (nodes[i + 1, k] - nodes[i, k]) * t
    right = nodes[i, k + 1] + (nodes[i + 1, k + 1] - nodes[i, k + 1]) * t
    return left, right


@njit(nogil=True)
def _fixed(left, right, width):
    """Fixed-point start (of pixel centres' coordinates, first tap at or before) and step.

    The start is far outside where the projection has no answer.
    """
    far = 1 << 30
    if not (abs(left) < far and abs(right) < far):
        return np.int64(-far) * _ONE, np.int64(0)
    start = np.int64(np.floor((left - 0.5) * _ONE + 0.5)) + _ROUND
    step = np.int64(np.floor((right - left) / max(width, 1) * _ONE + 0.5))
    return start, step


@njit(nogil=True)
def _stretches(rows, cols, ys, xs):
    """Rows of output pixels, cut where the meshes end.

    Yields (row, first column, pixels, fixed-point y and its step, x and its step).
    """
    for i_mesh in range(len(rows) - 1):
        i0, i1 = rows[i_mesh], rows[i_mesh + 1]
        for i in range(i0, i1 + (i_mesh == len(rows) - 2)):
            for k in range(len(cols) - 1):
                j0, j1 = cols[k], cols[k + 1]
                left, right = _line(ys, i, i_mesh, i0, i1, k)
                y, y_step = _fixed(left, right, j1 - j0)
                left, right = _line(xs, i, i_mesh, i0, i1, k)
                x, x_step = _fixed(left, right, j1 - j0)
                yield i, j0, j1 - j0 + (k == len(cols) - 2), y, y_step, x, x_step


@njit(nogil=True)
def _first_at_least(start, step, bound, n):
    """Smallest j in 0 … n with start + j · step ≥ bound, for step > 0."""
    if start >= bound:
        return 0
    j = (bound - start + step - 1) // step
    return min(j, n)


@njit(nogil=True)
def _inside(start, step, last, n):
    """Half-open range of j in 0 … n where 0 ≤ start + j · step < last (fixed point)."""
    if step == 0:
        return (0, n) if 0 <= start < last else (0, 0)
    if step > 0:
        return _first_at_least(start, step, 0, n), _first_at_least(start, step, last, n)
    # mirrored: start + j · step < last  ⇔  −start − j · step > −last
    first = _first_at_least(-start, -step, -last + 1, n)
    return first, _first_at_least(-start, -step, 1, n)


@njit(nogil=True)
def _place(y, y_step, x, x_step, stride, offset, fy, fx):
    for j in range(offset.shape[0]):
        at_y, at_x = y + j * y_step, x + j * x_step
        fy[j] = np.int32((at_y >> _DROPPED) & (_UNIT - 1))
        fx[j] = np.int32((at_x >> _DROPPED) & (_UNIT - 1))
        offset[j] = np.uint64((at_y >> 32) * stride + (at_x >> 32))


@njit(nogil=True)
def _fetch(pairs, stride, offset, upper, lower):
    """Taps of a row: each read takes a pixel and its right neighbour."""
    for j in range(offset.shape[0]):
        at = offset[j]
        upper[j] = pairs[at]
        lower[j] = pairs[at + stride]


@njit(nogil=True)
def _blend(upper, lower, fy, fx, out):
    byte, bits = np.int32(255), np.int32(_FRACTION_BITS)
    for j in range(out.shape[0]):
        u, v = np.int32(upper[j]), np.int32(lower[j])
        a, c = u & byte, v & byte
        top = (a << bits) + ((u >> np.int32(8)) - a) * fx[j]
        bottom = (c << bits) + ((v >> np.int32(8)) - c) * fx[j]
        value = (top << bits) + (bottom - top) * fy[j] + np.int32(1 << (2 * _FRACTION_BITS - 1))
        out[j] = np.uint8(value >> np.int32(2 * _FRACTION_BITS))


@njit(nogil=True)
def _there(valid, whole, height, width, row, col):
    """Is this a valid source pixel?"""
    return 0 <= row < height and 0 <= col < width and (whole or valid[row, col] != 0)


@njit(nogil=True)
def _careful(source, valid, whole, y, x, out, i, j):
    """One pixel from its valid taps only; False where its own source pixel is not valid."""
    _, height, width = source.shape
    if not _there(valid, whole, height, width, (y + _HALF) >> 32, (x + _HALF) >> 32):
        return False
    top, left = y >> 32, x >> 32
    fy, fx = (y >> _DROPPED) & (_UNIT - 1), (x >> _DROPPED) & (_UNIT - 1)
    total = np.int64(0)
    for dy in range(2):
        for dx in range(2):
            r, c = top + dy, left + dx
            if _there(valid, whole, height, width, r, c):
                total += (fy if dy else _UNIT - fy) * (fx if dx else _UNIT - fx)
    for band in range(source.shape[0]):
        value = total // 2
        for dy in range(2):
            for dx in range(2):
                r, c = top + dy, left + dx
                if _there(valid, whole, height, width, r, c):
                    weight = (fy if dy else _UNIT - fy) * (fx if dx else _UNIT - fx)
                    value += weight * source[band, r, c]
        out[band, i, j] = np.uint8(value // total)
    return True


@njit(nogil=True)
def _blend_run(source, pairs, stride, line, a, b, out, i, j0, buffers):
    """Blend the output pixels a … b of a line, all of whose taps are valid."""
    y, y_step, x, x_step = line
    offset, fy, fx, upper, lower = buffers
    n = b - a
    _place(
        y + a * y_step, y_step, x + a * x_step, x_step,
        np.int64(stride), offset[:n], fy[:n], fx[:n],
    )  # fmt: skip
    for band in range(source.shape[0]):
        _fetch(pairs[band], stride, offset[:n], upper[:n], lower[:n])
        _blend(upper[:n], lower[:n], fy[:n], fx[:n], out[band, i, j0 + a : j0 + b])


@njit(nogil=True)
def _run_end(clear, line, a, last):
    """End of the run of pixels from `a` on whose four taps are all valid."""
    y, y_step, x, x_step = line
    while a < last and clear[(y + a * y_step) >> 32, (x + a * x_step) >> 32]:
        a += 1
    return a


@njit(nogil=True)
def four_valid(valid):
    """uint8 ``(y, x)``: 1 where a pixel, its right, lower and lower right neighbour are valid."""
    height, width = valid.shape
    clear = np.zeros((height, width), np.uint8)
    for y in range(height - 1):
        for x in range(width - 1):
            clear[y, x] = (
                (valid[y, x] != 0)
                & (valid[y, x + 1] != 0)
                & (valid[y + 1, x] != 0)
                & (valid[y + 1, x + 1] != 0)
            )
    return clear


@njit(nogil=True)
def bilinear_rows(source, pairs, stride, valid, clear, whole, rows, cols, ys, xs, out, coverage):
    """Blend the four nearest source pixels.

    Parameters
    ----------
    source : uint8 ``(band, y, x)``
    pairs : uint16 ``(band, y · stride + x)``
        A pixel and its right neighbour, read as one number; unaligned.
    stride : uint64
        Pixels from a source row to the next.
    valid : uint8 ``(y, x)``
        Non-zero where observed.
    clear : uint8 ``(y, x)``
        From `four_valid`.
    whole : bool
        Every source pixel is valid; then neither `valid` nor `clear` is looked at.
    rows, cols : int64 ``(node,)``
    ys, xs : float64 ``(node_y, node_x)``
        See `sesgrid.kernels.lattice.Lattice`.
    out : uint8 ``(band, y, x)``, zeros
    coverage : uint8 ``(y, x)``, zeros
    """
    _, height, width = source.shape
    longest = np.max(cols[1:] - cols[:-1]) + 1
    buffers = (
        np.empty(longest, np.uint64),
        np.empty(longest, np.int32),
        np.empty(longest, np.int32),
        np.empty(longest, np.uint16),
        np.empty(longest, np.uint16),
    )
    last_y, last_x = np.int64(height - 1) * _ONE, np.int64(width - 1) * _ONE
    for i, j0, n, y, y_step, x, x_step in _stretches(rows, cols, ys, xs):
        line = (y, y_step, x, x_step)
        first_y, end_y = _inside(y, y_step, last_y, n)
        first_x, end_x = _inside(x, x_step, last_x, n)
        first = max(first_y, first_x)
        last = max(first, min(end_y, end_x))
        j = 0
        while j < n:
            if first <= j < last:
                end = last if whole else _run_end(clear, line, j, last)
                if end > j:
                    _blend_run(source, pairs, stride, line, j, end, out, i, j0, buffers)
                    coverage[i, j0 + j : j0 + end] = 1
                    j = end
                    continue
            coverage[i, j0 + j] = _careful(
                source, valid, whole, y + j * y_step, x + j * x_step, out, i, j0 + j
            )
            j += 1


@njit(nogil=True)
def nearest_rows(source, valid, whole, rows, cols, ys, xs, out, coverage):
    """Take the source pixel that holds the output pixel's centre; arrays as in `bilinear_rows`."""
    _, height, width = source.shape
    for i, j0, n, y, y_step, x, x_step in _stretches(rows, cols, ys, xs):
        for j in range(n):
            row, col = (y + j * y_step + _HALF) >> 32, (x + j * x_step + _HALF) >> 32
            if _there(valid, whole, height, width, row, col):
                coverage[i, j0 + j] = 1
                for band in range(source.shape[0]):
                    out[band, i, j0 + j] = source[band, row, col]


@njit(nogil=True)
def _box_weights(centre, half, length, weights):
    """First tap and number of taps of a box around a position; weights in 1/65536 pixel.

    Position and half width in fixed point, counted from the pixels' edges.
    """
    low, high = max(centre - half, 0), min(centre + half, np.int64(length) << 32)
    first = low >> 32
    count = 0
    while (first + count) << 32 < high and count < len(weights):
        edge = (first + count) << 32
        weights[count] = (min(high, edge + _ONE) - max(low, edge) + (1 << 15)) >> 16
        count += 1
    return first, count


@njit(nogil=True)
def box_rows(source, valid, whole, half_y, half_x, rows, cols, ys, xs, out, coverage):
    """Average the source pixels under a box around the output pixel's centre.

    Parameters
    ----------
    half_y, half_x : int64
        Half the sides of the box, fixed point.
    others
        As in `bilinear_rows`.
    """
    _, height, width = source.shape
    wy = np.empty((half_y >> 31) + 3, np.int64)
    wx = np.empty((half_x >> 31) + 3, np.int64)
    for i, j0, n, y, y_step, x, x_step in _stretches(rows, cols, ys, xs):
        for j in range(n):
            at_y, at_x = y + j * y_step + _HALF, x + j * x_step + _HALF
            row, col = at_y >> 32, at_x >> 32
            if not _there(valid, whole, height, width, row, col):
                continue
            coverage[i, j0 + j] = 1
            top, n_y = _box_weights(at_y, half_y, height, wy)
            start, n_x = _box_weights(at_x, half_x, width, wx)
            for band in range(source.shape[0]):
                value = np.int64(0)
                total = np.int64(0)
                for dy in range(n_y):
                    for dx in range(n_x):
                        if whole or valid[top + dy, start + dx] != 0:
                            weight = wy[dy] * wx[dx]
                            total += weight
                            value += weight * source[band, top + dy, start + dx]
                out[band, i, j0 + j] = np.uint8((value + total // 2) // total)
