"""Colours that fill corners and borders of a photograph which does not say that nothing was seen there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import rasterio
from rasterio.windows import Window

from sesgrid.errors import ReadError
from sesgrid.foreign import reading

__all__ = ["Colour", "filled_colours"]

Colour = tuple[int, ...]

_LEAST_PX = 64
"""Shortest side of a raster that is looked at, and shortest run along a side that is told of."""

_SHARE = 128
"""Of a long side a run is at least this part: a roof in full sun is not told of."""

_SAMPLES = 8
"""Pixels that are looked at along the shortest run."""

_BLURRED = 2
"""How far lossy coding moves the white or black of a filling."""

_CORNER_PX, _FEWEST_PX = 128, 8
"""Side of a corner that is looked at, and of what must be left of it at a coarser level."""

_LARGEST_BLOCK_PX = 2**22
"""Where more than this is decoded for a single pixel, nothing is looked at."""


def filled_colours(dataset: rasterio.DatasetReader, bands: Sequence[int]) -> tuple[Colour, ...]:
    """White or black along a side of a raster, or any one colour all over a corner; as no photograph has.

    Of a side every eighth pixel of the shortest run is looked at, at a coarser level where there is one: what
    is read is a small part of the raster, whatever its layout.

    Raises
    ------
    ReadError
        The file is truncated or damaged there.
    """
    least = min(dataset.height, dataset.width)
    if least < _LEAST_PX or np.prod(dataset.block_shapes[0]) > _LARGEST_BLOCK_PX:
        return ()
    found: dict[Colour, None] = {}
    with reading(dataset.name, ReadError):
        for corner in _corners(dataset, bands):
            if (corner == corner[:, :1]).all():
                found[tuple(int(v) for v in corner[:, 0])] = None
        for side in _sides(dataset, bands):
            found |= dict.fromkeys(_runs(side))
    return tuple(found)


def _corners(dataset: rasterio.DatasetReader, bands: Sequence[int]) -> Iterator[np.ndarray]:
    """Pixels of each corner, uint8 ``(band, pixel)``."""
    side = min(_CORNER_PX, dataset.height // 2, dataset.width // 2)
    # a coarser level, for a JPEG 2000 may have to be decoded from its beginning
    shrink = max((k for k in dataset.overviews(1) if k * _FEWEST_PX <= side), default=1)
    shape = (len(bands), side // shrink, side // shrink)
    for row in (0, dataset.height - side):
        for col in (0, dataset.width - side):
            window = Window(col, row, side, side)
            yield dataset.read(list(bands), window=window, out_shape=shape).reshape(len(bands), -1)


def _sides(dataset: rasterio.DatasetReader, bands: Sequence[int]) -> Iterator[np.ndarray]:
    """Pixels along each side, uint8 ``(band, pixel)``: `_SAMPLES` of them are the shortest run."""
    height, width, n = dataset.height, dataset.width, len(bands)
    step = max(_LEAST_PX, max(height, width) // _SHARE) // _SAMPLES
    for row in (0, height - step):
        window, shape = Window(0, row, width, step), (n, 1, width // step)
        yield dataset.read(list(bands), window=window, out_shape=shape).reshape(n, -1)
    for col in (0, width - step):
        window, shape = Window(col, 0, step, height), (n, height // step, 1)
        yield dataset.read(list(bands), window=window, out_shape=shape).reshape(n, -1)


def _runs(side: np.ndarray) -> Iterator[Colour]:
    """White and black of runs along a side: all pixels nearly, and most of one colour."""
    if side.shape[1] < _SAMPLES:
        return
    for extreme in (0, 255):
        near = (np.abs(side.astype(np.int16) - extreme) <= _BLURRED).all(axis=0)
        long = np.lib.stride_tricks.sliding_window_view(near, _SAMPLES).all(axis=1)
        for start in np.flatnonzero(long):
            run = side[:, start : start + _SAMPLES]
            middle = np.median(run, axis=1).astype(np.uint8)
            if (run == middle[:, np.newaxis]).all(axis=0).mean() > 0.5:
                yield tuple(int(v) for v in middle)
                break
