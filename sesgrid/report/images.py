"""Pixels as ``data:`` addresses: class maps, orthophotos, activation overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from sesgrid.report.palette import NO_VALUE, ramp

__all__ = ["activation_overlay", "block_mean", "class_image", "photo", "ses_image"]

_LOW_RAMP = ("#1d4f91", "#4d9be6", "#eaf6ff")
_HIGH_RAMP = ("#8f1d20", "#f0703c", "#fff3df")


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _rgb_bytes(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _indexed_png(indices: np.ndarray, colours: Sequence[str | None]) -> str:
    """A PNG of uint8 ``(y, x)`` indices into colours; None is transparent."""
    y, x = indices.shape
    image = Image.frombytes("P", (x, y), np.asarray(indices, dtype=np.uint8).tobytes())
    image.putpalette([v for colour in colours for v in _rgb_bytes(colour or "#ffffff")])
    alpha = bytes(0 if colour is None else 255 for colour in colours)
    return _data_uri(image, "PNG", optimize=True, transparency=alpha)


def ses_image(
    rows: np.ndarray, cols: np.ndarray, classes: np.ndarray, colours: Sequence[str], limit: int
) -> tuple[str, tuple[int, int], int]:
    """Draw one pixel a cell; cells without a class are grey, no cell is transparent.

    Parameters
    ----------
    rows, cols : np.ndarray
        int64 ``(cell,)``, global indices; row grows southward.
    classes : np.ndarray
        float ``(cell,)``, 1…K, NaN = no class.
    colours : sequence of str
        One per class.
    limit : int
        Longest side in pixels. A larger city is drawn with the mean class of several cells.

    Returns
    -------
    uri : str
        PNG.
    shape : (int, int)
        (y, x) pixels.
    cells_per_pixel : int
        Along one side; 1 unless the city is larger than ``limit``.
    """
    y, x = rows - rows.min(), cols - cols.min()
    step = max(1, -(-int(max(y.max(), x.max()) + 1) // limit))
    y, x = y // step, x // step
    shape = int(y.max()) + 1, int(x.max()) + 1
    flat = y * shape[1] + x
    known = np.isfinite(classes)
    inhabited = np.bincount(flat, minlength=shape[0] * shape[1]) > 0
    counted = np.bincount(flat[known], minlength=inhabited.size)
    total = np.bincount(flat[known], weights=classes[known], minlength=inhabited.size)
    mean = np.rint(np.divide(total, counted, out=np.zeros(total.size), where=counted > 0))
    indices = np.where(counted > 0, mean.astype(int) + 1, inhabited.astype(int))
    return _indexed_png(indices.reshape(shape), [None, NO_VALUE, *colours]), shape, step


def class_image(classes: np.ndarray, colours: Mapping[int, str], max_px: int) -> str:
    """Draw a class raster, every n-th pixel (classes have no mean).

    Parameters
    ----------
    classes : np.ndarray
        uint8 ``(y, x)``; values without a colour, 0 among them, are pale grey.
    colours : mapping of int to str
        Value → colour.
    max_px : int
        Longest side of the picture.
    """
    step = max(1, -(-max(classes.shape) // max_px))
    return _indexed_png(
        np.asarray(classes)[::step, ::step], [colours.get(v, "#ecebe6") for v in range(256)]
    )


def block_mean(array: np.ndarray, max_px: int) -> np.ndarray:
    """Mean over whole squares of pixels, so that no side exceeds ``max_px``.

    A rest at the southern and eastern border, narrower than a square, is cut off.

    >>> block_mean(np.array([[1.0, 3.0], [5.0, 7.0]]), 1).tolist()
    [[4.0]]
    """
    step = max(1, -(-max(array.shape[:2]) // max_px))
    y, x = array.shape[0] // step, array.shape[1] // step
    squares = array[: y * step, : x * step].reshape(y, step, x, step, *array.shape[2:])
    return squares.mean(axis=(1, 3))


def photo(image: np.ndarray, max_px: int) -> str:
    """An orthophoto, uint8 ``(y, x, 3)``, as JPEG."""
    small = block_mean(np.asarray(image, dtype=np.float32), max_px)
    return _jpeg(small / 255)


def activation_overlay(image: np.ndarray, activation: np.ndarray, side: str, max_px: int) -> str:
    """An activation map glowing over its darkened, grey orthophoto.

    Scaled to the 99th percentile of the picture itself: colours compare within a map, not
    between maps.

    Parameters
    ----------
    image : np.ndarray
        uint8 ``(y, x, 3)``.
    activation : np.ndarray
        float ``(y, x)``, not negative; what is not finite counts as 0.
    side : str
        ``low`` (blue) or ``high`` (red).
    max_px : int
        Longest side of the picture.
    """
    grey = block_mean(np.asarray(image, dtype=np.float32).mean(axis=2), max_px) / 255
    finite = np.where(np.isfinite(activation), activation, 0.0)
    glow = block_mean(finite, max_px)
    top = np.percentile(glow, 99) or glow.max()
    glow = np.clip(glow / top, 0.0, 1.0) ** 0.6 if top > 0 else np.zeros_like(glow)
    colour = ramp(_LOW_RAMP if side == "low" else _HIGH_RAMP, glow)
    return _jpeg((0.55 * grey * (1 - glow))[..., None] + colour * glow[..., None])


def _jpeg(rgb: np.ndarray) -> str:
    image = Image.fromarray(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))
    return _data_uri(image, "JPEG", quality=82, optimize=True)
