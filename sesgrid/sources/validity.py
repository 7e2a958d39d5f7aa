"""Which pixels of a photograph were observed: alpha, masks and nodata, all that a raster says.

Absence is never known from black: deep shadow is black too. Where a delivery fills with a colour and says so
nowhere (`sesgrid.sources.filling`), the user names it (``mosaic.fill_values``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from sesgrid.errors import ReadError
from sesgrid.foreign import reading

__all__ = ["Validity", "alpha_band", "tagged_alpha"]

_PATCH_PX = 32
_PATCHES = 4
"""Patches along each side of a raster that are looked at."""

_CLEAR, _OPAQUE = 8, 247
"""An alpha band between these is partly transparent; lossy coding blurs a mask by less."""

_BLURRED = 0.1
"""Share of such pixels that a mask may have, of smoothed borders."""


@dataclass(frozen=True)
class Validity:
    """What tells observed pixels of a dataset from others.

    All of it is asked on opening: GDAL's last error stays pending in a thread, and rasterio would
    raise one tile's failed read again when another tile is asked for its colours.
    """

    alpha: int | None
    """Number of the band that is a mask."""
    has_mask: bool
    nodata: tuple[float | None, ...]
    """Of each colour."""

    @classmethod
    def of(
        cls, dataset: rasterio.DatasetReader, bands: Sequence[int], alpha: int | None
    ) -> Validity:
        """For the bands of a dataset; `alpha` from `alpha_band`."""
        flags = dataset.mask_flag_enums[bands[0] - 1]
        return cls(
            alpha=alpha,
            has_mask=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
            nodata=tuple(dataset.nodatavals[band - 1] for band in bands),
        )

    @property
    def says_anything(self) -> bool:
        """Whether the raster tells at all which of its pixels were observed."""
        return self.alpha is not None or self.has_mask or any(v is not None for v in self.nodata)

    def read(
        self, dataset: rasterio.DatasetReader, bands: Sequence[int], window: Window
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Bands of a window, uint8 ``(band, y, x)``, and bool ``(y, x)``, None where all is observed."""
        extra = [] if self.alpha is None else [self.alpha]
        pixels = dataset.read([*bands, *extra], window=window)
        said = []
        if extra:
            pixels, alpha = pixels[:-1], pixels[-1]
            said.append(alpha > 0)
        if self.has_mask:
            said.append(dataset.dataset_mask(window=window) > 0)
        if any(value is not None for value in self.nodata):
            # a value that uint8 cannot hold (-9999, NaN) marks no pixel
            absent = [layer == value for layer, value in zip(pixels, self.nodata, strict=True)]
            said.append(~np.logical_and.reduce(absent))
        return pixels, np.logical_and.reduce(said) if said else None


def tagged_alpha(dataset: rasterio.DatasetReader) -> int | None:
    """Number of the band that the file calls alpha."""
    colours = dataset.colorinterp
    return colours.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colours else None


def alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    """Number of the band that is a mask; None where what is called alpha is another measurement.

    GDAL and others call any fourth byte alpha, infrared among them. A mask is clear or opaque, but at
    its borders; reflectances are in between. Looked at are a few patches, at any level the same ones.

    Raises
    ------
    ReadError
        The file is truncated or damaged there.
    """
    band = tagged_alpha(dataset)
    if band is None:
        return None
    with reading(dataset.name, ReadError):
        patches = [dataset.read(band, window=window) for window in _patches(dataset)]
    between = [((patch > _CLEAR) & (patch < _OPAQUE)).mean() for patch in patches]
    return band if np.mean(between) <= _BLURRED else None


def _patches(dataset: rasterio.DatasetReader) -> Iterator[Window]:
    """Small windows spread over a raster."""
    height, width = min(_PATCH_PX, dataset.height), min(_PATCH_PX, dataset.width)
    for row in np.linspace(0, dataset.height - height, _PATCHES).astype(int):
        for col in np.linspace(0, dataset.width - width, _PATCHES).astype(int):
            yield Window(int(col), int(row), width, height)
