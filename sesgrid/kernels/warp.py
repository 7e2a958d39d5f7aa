"""Resample an image onto another grid, and say which pixels were observed.

GDAL does the work for now; the contract below is ours. Three things are set so
that blocks warped apart fit together without a seam and black stays a colour:

- the coordinates of every pixel are exact (GDAL interpolates between a few by default);
- the width of the resampling kernel follows from the two grids, not from the window that
  GDAL happens to read (its default, which blurs and differs from block to block);
- validity travels as an alpha band. No pixel value means "nodata".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points

from sesgrid.errors import FormatError, GridMismatchError

__all__ = ["warp"]

_TOLERANCE_PX = 1e-3
"""Error of a coordinate that GDAL may make, source pixels. `rasterio.warp.reproject` fixes it
at 0.125, and `WarpedVRT` of rasterio 1.4 fails at 0; at 1e-3 every pixel is projected."""


def warp(
    source: np.ndarray,
    source_transform: Affine,
    source_crs: Any,
    out_shape: tuple[int, int],
    out_transform: Affine,
    out_crs: Any,
    resampling: str = "bilinear",
    source_valid: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Warp an image onto the output grid.

    An output pixel is **observed** when the centre of the pixel falls inside a valid source
    pixel (half-open: the left and upper borders belong to a pixel). Its colour is interpolated
    from valid source pixels only, their weights scaled to sum to one; so a constant image
    stays constant up to its border. Where the output is coarser, the bilinear kernel is
    widened by the ratio of the pixel sizes, which averages what it skips.

    Parameters
    ----------
    source : np.ndarray
        uint8 ``(band, y, x)``. Every value is a colour, (0, 0, 0) too.
    source_transform, out_transform : affine.Affine
        (col, row) → (x, y) of either grid.
    source_crs, out_crs : anything that rasterio reads as a CRS
    out_shape : (int, int)
        (y, x), in pixels.
    resampling : str
        Name of a GDAL resampling: ``"bilinear"``, ``"nearest"``, ``"cubic"``, ``"average"`` …
    source_valid : np.ndarray, optional
        ``(y, x)``, non-zero (or True) where the source was observed; everywhere by default.

    Returns
    -------
    pixels : np.ndarray
        uint8 ``(band, y, x)``, 0 where not observed.
    coverage : np.ndarray
        uint8 ``(y, x)``, 1 = observed, 0 = not.

    Raises
    ------
    FormatError
        `source` is not uint8 ``(band, y, x)``; an unknown resampling or CRS.
    GridMismatchError
        `source_valid` has another shape.

    Examples
    --------
    >>> image = np.full((1, 2, 2), 7, np.uint8)
    >>> pixels, coverage = warp(
    ...     image, Affine(1, 0, 600000, 0, -1, 6800000), "EPSG:2154",
    ...     (2, 3), Affine(1, 0, 600001, 0, -1, 6800000), "EPSG:2154",
    ... )
    >>> pixels.tolist(), coverage.tolist()
    ([[[7, 0, 0], [7, 0, 0]]], [[1, 0, 0], [1, 0, 0]])
    """
    valid = _checked_valid(source, source_valid)
    method = _resampling(resampling)
    source_crs, out_crs = _crs(source_crs, "source_crs"), _crs(out_crs, "out_crs")
    shape = int(out_shape[0]), int(out_shape[1])
    if not valid.any() or 0 in shape:
        return np.zeros((len(source), *shape), np.uint8), np.zeros(shape, np.uint8)
    grids = (source_transform, source_crs, shape, out_transform, out_crs)
    coverage = _gdal_warp(valid[np.newaxis], *grids, Resampling.nearest)[0]
    if not coverage.any():
        return np.zeros((len(source), *shape), np.uint8), coverage
    with_alpha = np.concatenate([source, valid[np.newaxis] * np.uint8(255)])
    pixels = _gdal_warp(with_alpha, *grids, method, src_alpha=len(source) + 1)[:-1]
    pixels *= coverage
    return pixels, coverage


def _checked_valid(source: np.ndarray, source_valid: np.ndarray | None) -> np.ndarray:
    """uint8 ``(y, x)``, 1 where valid."""
    if source.dtype != np.uint8 or source.ndim != 3 or 0 in source.shape:
        raise FormatError(
            f"source: expected uint8 (band, y, x), received {source.dtype} {source.shape}"
        )
    if source_valid is None:
        return np.ones(source.shape[1:], np.uint8)
    if source_valid.shape != source.shape[1:]:
        raise GridMismatchError(
            f"source_valid: expected (y, x) = {source.shape[1:]} as the source has, received "
            f"{source_valid.shape}"
        )
    return (source_valid != 0).astype(np.uint8)


def _resampling(name: str) -> Resampling:
    try:
        return Resampling[name]
    except KeyError:
        known = ", ".join(r.name for r in Resampling if r.name != "gauss")
        raise FormatError(f"resampling: expected one of {known}; received {name!r}") from None


def _crs(crs: Any, name: str) -> CRS:
    try:
        return CRS.from_user_input(crs)
    except (CRSError, ValueError) as error:
        raise FormatError(f"{name}: expected a CRS like 'EPSG:3035', received {crs!r}") from error


def _gdal_warp(
    bands: np.ndarray,
    source_transform: Affine,
    source_crs: CRS,
    shape: tuple[int, int],
    out_transform: Affine,
    out_crs: CRS,
    resampling: Resampling,
    **options: Any,
) -> np.ndarray:
    """uint8 ``(band, y, x)`` → ``(band, *shape)``, 0 where GDAL wrote nothing."""
    grids = (source_transform, source_crs, shape, out_transform, out_crs)
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "photometric": "MINISBLACK", "alpha": "UNSPECIFIED"}
    with MemoryFile() as memory:
        with memory.open(
            **profile, count=count, height=height, width=width, dtype="uint8",
            transform=source_transform, crs=source_crs,
        ) as target:  # fmt: skip
            target.write(bands)
        with (
            memory.open() as dataset,
            WarpedVRT(
                dataset, crs=out_crs, transform=out_transform, height=shape[0], width=shape[1],
                resampling=resampling, tolerance=_TOLERANCE_PX, **_scale(*grids), **options,
            ) as vrt,
        ):  # fmt: skip
            return vrt.read()


def _scale(
    source_transform: Affine,
    source_crs: CRS,
    shape: tuple[int, int],
    out_transform: Affine,
    out_crs: CRS,
) -> dict[str, float]:
    """Output pixels per source pixel along the source's axes, at the centre of the output.

    Two significant digits: the scale of a projection drifts by less within a country, and all
    blocks shall get the same kernel."""
    col = shape[1] / 2 + np.array([0.0, 1.0, 0.0])  # a pixel, its right, its lower neighbour
    row = shape[0] / 2 + np.array([0.0, 0.0, 1.0])
    x, y = transform_points(out_crs, source_crs, *_apply(out_transform, col, row))
    x, y = _apply(~source_transform, np.asarray(x), np.asarray(y))
    x_step = math.hypot(x[1] - x[0], x[2] - x[0])
    y_step = math.hypot(y[1] - y[0], y[2] - y[0])
    if not (math.isfinite(x_step * y_step) and x_step > 0 and y_step > 0):
        return {}  # the centre cannot be projected: GDAL's own guess
    return {"XSCALE": float(f"{1 / x_step:.2g}"), "YSCALE": float(f"{1 / y_step:.2g}")}


def _apply(transform: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * x + b * y + c, d * x + e * y + f
