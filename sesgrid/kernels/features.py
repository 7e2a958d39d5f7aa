"""Simple features of a cell's image: colour, texture at a few scales, shares of land cover.

What a model that never saw a house could know. Only observed pixels count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sesgrid.errors import FormatError, GridMismatchError

__all__ = ["SCALES", "cell_features"]

SCALES = (1, 2, 4, 8)
"""Side of the pixels, in pixels of the image, at which texture is measured."""

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of red, green and blue (ITU-R BT.601)."""

_COLOURS = ("red", "green", "blue")


def cell_features(
    image: np.ndarray,
    observed: np.ndarray,
    landcover: np.ndarray | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, float]:
    """Colour, texture and land-cover shares of one cell.

    Parameters
    ----------
    image : np.ndarray
        uint8 ``(band, y, x)``, RGB.
    observed : np.ndarray
        bool ``(y, x)``: pixels that show something.
    landcover : np.ndarray, optional
        uint8 ``(y, x)``: 0 = no class, else the class of that number, counted from 1.
    class_names : sequence of str
        Names of classes 1, 2, …

    Returns
    -------
    dict of str to float
        ``mean_red`` …, ``std_red`` … (0–255); at each of the `SCALES` ``gradient_1px`` …, the mean
        magnitude of the gradient of luminance (differences to the right and lower neighbours, per
        pixel of that scale), and ``variance_1px`` …, the mean variance of luminance inside squares of
        2 × 2 such pixels; ``share_water`` …, shares of the cell. NaN where nothing is observed. A
        coarser pixel is the mean of 2 × 2 finer ones, and observed where all four are; a last odd
        row or column is dropped.

    Raises
    ------
    GridMismatchError
        The arrays are not of the same pixels.
    FormatError
        A class without a name.

    Examples
    --------
    >>> image = np.zeros((3, 4, 4), np.uint8)
    >>> image[:, :, 2:] = 100
    >>> features = cell_features(image, np.ones((4, 4), bool))
    >>> features["mean_red"], features["std_red"]
    (50.0, 50.0)
    >>> round(features["gradient_1px"], 4), round(features["gradient_2px"], 4)
    (33.3333, 100.0)
    """
    if image.shape != (len(_COLOURS), *observed.shape):
        raise GridMismatchError(
            f"expected an image (band, y, x) = {(len(_COLOURS), *observed.shape)}, as the mask of "
            f"observed pixels says, received {image.shape}"
        )
    # as a rule all are observed, and picking pixels would take longer than all the rest
    pixels = image.reshape(len(image), -1) if observed.all() else image[:, observed]
    out: dict[str, float] = {}
    for name, values in zip(_COLOURS, pixels, strict=True):
        out[f"mean_{name}"] = _mean(values)
        out[f"std_{name}"] = float(values.std(dtype=np.float64)) if values.size else np.nan
    out |= _texture(np.tensordot(_LUMINANCE, image, axes=1).astype(np.float32), observed)
    return out | ({} if landcover is None else _shares(landcover, observed.shape, class_names))


def _texture(luminance: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    out = {}
    for scale in SCALES:
        down = luminance[1:, :-1] - luminance[:-1, :-1]
        right = luminance[:-1, 1:] - luminance[:-1, :-1]
        both = seen[:-1, :-1] & seen[1:, :-1] & seen[:-1, 1:]
        out[f"gradient_{scale}px"] = _mean(np.hypot(down, right)[both])
        squares, whole = _squares(luminance), np.all(_squares(seen), axis=0)
        coarse = squares.mean(axis=0)
        out[f"variance_{scale}px"] = _mean(((squares - coarse) ** 2).mean(axis=0)[whole])
        luminance, seen = coarse, whole
    return out


def _squares(array: np.ndarray) -> np.ndarray:
    """The four pixels of every 2 × 2 square: ``(4, y // 2, x // 2)``."""
    y, x = (n // 2 * 2 for n in array.shape)
    return np.stack([array[i:y:2, j:x:2] for i in (0, 1) for j in (0, 1)])


def _shares(
    landcover: np.ndarray, shape: tuple[int, ...], class_names: Sequence[str]
) -> dict[str, float]:
    if landcover.shape != shape:
        raise GridMismatchError(
            f"land cover has (y, x) = {landcover.shape} pixels, the image {shape}: expected the same"
        )
    counts = np.bincount(landcover.ravel(), minlength=len(class_names) + 1)
    if len(counts) > len(class_names) + 1:
        raise FormatError(
            f"land cover holds class {len(counts) - 1}, and {len(class_names)} classes are named: "
            "pass the names of the table that it was made with"
        )
    return {
        f"share_{name}": float(n / landcover.size)
        for name, n in zip(class_names, counts[1:], strict=True)
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
