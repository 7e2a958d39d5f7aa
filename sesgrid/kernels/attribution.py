"""From the factors of an explanation to its maps, or straight to their sums per class.

The network gives, per cell, a coarse map of evidence E ``(v, u)`` and the image's sensitivity S ``(y, x)``
(`sesgrid.kernels.saliency.Factors`). Here they meet, pixel by pixel: E is taken by sign and enlarged
bilinearly (half-pixel centres, as `keras.ops.image.resize`), multiplied by S, and, where the method
says so, clipped at a percentile of the cell's pixels. Where the sign is taken after the enlargement
(``centred``), one product a pixel serves both maps. The maps are summed per class as they are made, in
the order of `sesgrid.kernels.class_sums`, and need not be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numba
import numpy as np

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.kernels.class_sums import (
    _checked_classes,
    _unknown_class,
)
from sesgrid.kernels.lanes import stretch_sum
from sesgrid.kernels.method import Method
from sesgrid.kernels.runs import run_ends

__all__ = ["attributed_sums", "attribution_maps", "quantised", "restored"]


def attributed_sums(
    evidence: np.ndarray,
    sensitivity: np.ndarray,
    classes: np.ndarray,
    n_classes: int,
    method: Method,
    *,
    signed: bool = True,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Sum every cell's maps over the pixels of each class.

    Parameters
    ----------
    evidence : np.ndarray
        float32 ``(cell, 1, v, u)``, signed; or ``(cell, map, v, u)`` with ``signed=False``.
    sensitivity : np.ndarray
        float32 ``(cell, 1 or map, y, x)``, at least 0; y = x. Of a signed map: one for both signs, or the low
        one's and the high one's.
    classes : np.ndarray
        uint8 ``(cell, y, x)``, values 0 to ``n_classes - 1``.
    n_classes : int
        1 to 256.
    method : Method
        Its ``cam`` and ``clip_percentile``.
    signed : bool
        Whether the evidence is one signed map: low where negative, high where positive.
    names : sequence of str, optional
        Of the cells, for messages; their positions by default.

    Returns
    -------
    np.ndarray
        float64 ``(cell, map, class)``; map = low, high where signed. A map that is zero throughout
        has sums of zero.

    Raises
    ------
    FormatError
        A class is ≥ `n_classes`, or a factor is not finite (the cell is named).
    GridMismatchError
        The shapes do not belong together.
    """
    n, size = _checked_factors(evidence, sensitivity, signed)
    if classes.shape != (n, size, size):
        raise GridMismatchError(
            f"classes: expected (cell, y, x) = {(n, size, size)} as the factors have, received "
            f"{classes.shape}"
        )
    flat = _checked_classes(classes.reshape(n * size, size), size, n_classes)
    out = np.zeros((n, 2 if signed else evidence.shape[1], n_classes))
    product = np.empty((size, size), np.float32)
    names = names or [f"cell {k}" for k in range(n)]
    for k in range(n):
        rows = flat[k * size : (k + 1) * size]
        for part in _parts(evidence[k], sensitivity[k], method, signed):
            limits, scales = part.multiply(product, method, names[k])
            sums = np.zeros((len(part.maps), n_classes))
            if not _sum_cell(product, part.signs, limits, rows, sums):
                raise _unknown_class(rows, n_classes)
            out[k, part.maps] = sums * scales[:, np.newaxis]
    return out


def attribution_maps(
    evidence: np.ndarray, sensitivity: np.ndarray, method: Method, *, signed: bool = True
) -> np.ndarray:
    """The maps themselves: float32 ``(cell, map, y, x)``, at least 0.

    Parameters as in `attributed_sums`.
    """
    n, size = _checked_factors(evidence, sensitivity, signed)
    out = np.empty((n, 2 if signed else evidence.shape[1], size, size), np.float32)
    product = np.empty((size, size), np.float32)
    for k in range(n):
        for part in _parts(evidence[k], sensitivity[k], method, signed):
            limits, scales = part.multiply(product, method, f"cell {k}")
            for m, sign, limit, scale in zip(part.maps, part.signs, limits, scales, strict=True):
                kept = np.minimum(np.maximum(sign * product, 0), limit)
                out[k, m] = kept * np.float32(scale)
    return out


def quantised(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps as bytes: the square root of the share of the peak, in 255 steps.

    Most of a map lies far below its peak: by the root, 99 % of the activation ratios from the bytes are
    within 0.002 of those from the map, by equal steps within 0.09 (preset ``paper``, the demo's models;
    ``python -m benchmarks.kept_maps``).

    Parameters
    ----------
    maps : np.ndarray
        float32 ``(…, y, x)``, at least 0.

    Returns
    -------
    values : np.ndarray
        uint8 ``(…, y, x)``.
    peaks : np.ndarray
        float32 ``(…,)``: ``activation = peak · (value / 255)²``.

    Examples
    --------
    >>> values, peaks = quantised(np.array([[0.0, 1.0], [2.0, 4.0]], np.float32))
    >>> values.tolist(), peaks.item()
    ([[0, 128], [180, 255]], 4.0)
    """
    peaks = maps.max(axis=(-2, -1))
    whole = np.where(peaks > 0, peaks, 1)[..., np.newaxis, np.newaxis]
    share = np.sqrt(maps / whole)
    return np.rint(share * 255).astype(np.uint8), peaks


def restored(values: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """What `quantised` took, to half a step: float32 ``(…, y, x)``."""
    share = values.astype(np.float32) / 255
    return share * share * np.asarray(peaks, np.float32)[..., np.newaxis, np.newaxis]


def _checked_factors(
    evidence: np.ndarray, sensitivity: np.ndarray, signed: bool
) -> tuple[int, int]:
    """Cells, and pixels along a side."""
    fits = (
        evidence.ndim == sensitivity.ndim == 4
        and len(evidence) == len(sensitivity)
        and sensitivity.shape[2] == sensitivity.shape[3]
        and (evidence.shape[1] == 1 or not signed)
        and sensitivity.shape[1] in ((1, 2) if signed else (1, evidence.shape[1]))
    )
    if not fits or evidence.dtype != np.float32 or sensitivity.dtype != np.float32:
        raise GridMismatchError(
            "expected evidence float32 (cell, map, v, u) and sensitivity float32 (cell, 1 or map, y, x), "
            f"received {evidence.dtype} {evidence.shape} and {sensitivity.dtype} {sensitivity.shape}"
        )
    return len(evidence), sensitivity.shape[3]


@dataclass(frozen=True)
class _Part:
    """Nodes that are enlarged once, and the maps that come of them."""

    nodes: np.ndarray
    """float32 ``(v, u)``."""
    low: np.ndarray
    """Sensitivity float32 ``(y, x)`` where the enlarged nodes are negative."""
    high: np.ndarray
    """Where they are not."""
    maps: list[int]
    signs: np.ndarray
    """float32, per map: −1 or 1, the side of the product that it keeps."""

    def multiply(
        self, product: np.ndarray, method: Method, name: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fill ``product``; per map the value to clip at, and the factor to scale by."""
        extremes = _multiply(
            self.nodes,
            *_neighbours(self.nodes.shape[0], product.shape[0]),
            *_neighbours(self.nodes.shape[1], product.shape[1]),
            self.low,
            self.high,
            product,
        )
        if not np.isfinite(extremes).all():
            raise FormatError(
                f"the factors of {name} hold values that are not finite: the network's weights are "
                "damaged, or its computation overflowed"
            )
        limits = np.full(len(self.maps), np.inf, np.float32)
        if method.clip_percentile is not None:
            bits = product.view(np.uint32).ravel()
            for i, sign in enumerate(self.signs):
                limits[i] = _percentile(bits, sign < 0, method.clip_percentile)
        scales = np.ones(len(self.maps))
        if method.cam == "centred":
            peaks = self.signs * np.array([extremes[0 if sign < 0 else 1] for sign in self.signs])
            # a map without evidence of its sign is zero, whatever it is divided by
            scales[peaks > 0] = 1 / peaks[peaks > 0]
        return limits, scales


def _parts(
    evidence: np.ndarray, sensitivity: np.ndarray, method: Method, signed: bool
) -> Iterator[_Part]:
    """What has to be enlarged and multiplied for one cell."""
    low, high = sensitivity[0], sensitivity[-1]
    if method.cam == "centred":
        nodes = evidence - evidence.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        nodes = nodes.astype(np.float32)
        if signed:
            yield _Part(nodes[0], low, high, [0, 1], np.array([-1, 1], np.float32))
            return
    else:
        nodes = np.maximum(np.concatenate([-evidence, evidence]) if signed else evidence, 0)
    for m, of_map in enumerate(nodes):
        own = sensitivity[m if len(sensitivity) > 1 else 0]
        yield _Part(of_map, own, own, [m], np.ones(1, np.float32))


def _neighbours(nodes: int, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pixel the nodes before and after it, and the weight of the latter."""
    at = (np.arange(pixels) + 0.5) * (nodes / pixels) - 0.5
    before = np.floor(at).astype(np.int64)
    weight = (at - before).astype(np.float32)
    return np.clip(before, 0, nodes - 1), np.clip(before + 1, 0, nodes - 1), weight


@numba.njit(nogil=True)
def _multiply(nodes, y0, y1, wy, x0, x1, wx, low, high, out):
    """``out = e · (low if e < 0 else high)`` with e the enlarged nodes; (least, largest) of e, or NaN
    where a product is not finite."""
    least, largest, worst = np.float32(0), np.float32(0), np.float32(0)
    row = np.empty(nodes.shape[1], np.float32)
    line = np.empty(out.shape[1], np.float32)
    for y in range(out.shape[0]):
        above, below, w = nodes[y0[y]], nodes[y1[y]], wy[y]
        for u in range(row.size):
            row[u] = above[u] + (below[u] - above[u]) * w
        for x in range(line.size):
            line[x] = row[x0[x]] + (row[x1[x]] - row[x0[x]]) * wx[x]
        for x in range(line.size):
            e = line[x]
            least, largest = min(least, e), max(largest, e)
            value = e * (low[y, x] if e < 0 else high[y, x])
            out[y, x] = value
            worst += value * np.float32(0)
    return least + worst, largest + worst


@numba.njit(nogil=True)
def _percentile(bits, negative, q):
    """``np.percentile(·, q)`` of one side of float32 values, the other side counted as zeros.

    The bits of non-negative floats are ordered as the floats are: their upper half finds the bin of a
    rank, their lower half the rank in the bin, exactly.
    """
    flip = np.uint32(0x80000000) if negative else np.uint32(0)
    upper = np.zeros(1 << 15, np.int64)
    for k in range(bits.size):
        upper[_own_side(bits[k], flip) >> np.uint32(16)] += 1
    place = q / 100 * (bits.size - 1)
    rank = int(place)
    below = _ranked(bits, flip, upper, rank)
    if rank + 1 == bits.size or place == rank:
        return below
    above = _ranked(bits, flip, upper, rank + 1)
    return np.float32(below + (above - below) * (place - rank))


@numba.njit(nogil=True, inline="always")
def _own_side(value, flip):
    """The bits of a float of the wanted side, or zero."""
    value = np.uint32(value ^ flip)
    return value if value < np.uint32(0x80000000) else np.uint32(0)


@numba.njit(nogil=True)
def _ranked(bits, flip, upper, rank):
    """The value of a rank, 0 the smallest."""
    bin_ = 0
    while rank >= upper[bin_]:
        rank -= upper[bin_]
        bin_ += 1
    lower = np.zeros(1 << 16, np.int64)
    for k in range(bits.size):
        value = _own_side(bits[k], flip)
        if value >> np.uint32(16) == bin_:
            lower[value & np.uint32(0xFFFF)] += 1
    low = 0
    while rank >= lower[low]:
        rank -= lower[low]
        low += 1
    found = np.empty(1, np.uint32)
    found[0] = (bin_ << 16) | low
    return found.view(np.float32)[0]


@numba.njit(nogil=True)
def _sum_cell(product, signs, limits, classes, out):
    """Sum a cell's maps into `out` ``(map, class)``; False when a class has no column."""
    size = classes.shape[1]
    lines = np.empty((signs.size, size), np.float32)
    ends = np.empty(size, np.int64)
    for y in range(classes.shape[0]):
        for m in range(signs.size):
            for x in range(size):
                lines[m, x] = min(max(signs[m] * product[y, x], np.float32(0)), limits[m])
        x = 0
        for k in range(run_ends(classes[y], 0, size, ends)):
            value = classes[y, x]
            if value >= out.shape[1]:
                return False
            for m in range(signs.size):
                out[m, value] += stretch_sum(lines[m], x, ends[k])
            x = ends[k]
    return True
