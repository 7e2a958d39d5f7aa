"""Headers and windows of RGB rasters, through GDAL, with damage never read as pixels.

Absence is known from nodata, alpha or a mask, never from black: deep shadow is black too.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from sesgrid.errors import FormatError, GridMismatchError, ReadError

__all__ = ["RasterHeader", "RasterReader", "read_header", "rgb_bands"]

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_STRICT = {
    # a cut JPEG (alone or inside a TIFF) otherwise decodes to grey; a cut JPEG 2000 raises anyway
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # nothing may be written beside the user's files
    "GDAL_PAM_ENABLED": "NO",
}


@dataclass(frozen=True)
class RasterHeader:
    """What a raster says of itself, without its pixels."""

    width: int
    """Pixels in x."""

    height: int
    """Pixels in y."""

    transform: Affine | None
    """(col, row) of a pixel corner → CRS coordinates; None without georeferencing."""

    crs_wkt: str | None
    """CRS as WKT; None where the file has none."""

    year: int | None
    """Year of the TIFF tag ``TIFFTAG_DATETIME``."""


def read_header(path: str | Path) -> RasterHeader:
    """Open a raster, check that it holds 8-bit RGB, and return its header.

    Raises
    ------
    ReadError
        The file cannot be opened.
    FormatError
        Not 8-bit RGB (see `rgb_bands`).
    """
    with rasterio.Env(**_STRICT), _open(path) as dataset:
        rgb_bands(dataset)
        transform = dataset.transform
        date = dataset.tags().get("TIFFTAG_DATETIME", "")[:4]
        return RasterHeader(
            width=dataset.width,
            height=dataset.height,
            transform=None if transform == Affine.identity() else transform,
            crs_wkt=dataset.crs.to_wkt() if dataset.crs else None,
            year=int(date) if date.isdigit() and int(date) > 1900 else None,
        )


def rgb_bands(dataset: rasterio.DatasetReader) -> tuple[int, int, int]:
    """Band numbers (from 1) of red, green and blue.

    Three bands without named colours, as in IGN's JP2, are red, green, blue. A fourth band is
    accepted where the file names the colours of the others: alpha is validity, infrared is left.

    Raises
    ------
    FormatError
        Not 8 bits a band, a palette, one or two bands, or colours that the file does not name.
    """
    name, colours = Path(dataset.name).name, dataset.colorinterp
    if ColorInterp.palette in colours:
        raise FormatError(
            f"{name} is paletted: expected 3 bands of 8 bits (red, green, blue); convert it with "
            f"'gdal_translate -expand rgb {name} out.tif'"
        )
    if dataset.count < 3:
        raise FormatError(
            f"{name} has {dataset.count} band(s): expected red, green and blue; it is no colour "
            "photograph: leave it out, or give the RGB tiles"
        )
    if set(dataset.dtypes) != {"uint8"}:
        raise FormatError(
            f"{name} has bands of {dataset.dtypes[0]}: expected uint8; convert it with "
            f"'gdal_translate -ot Byte -scale {name} out.tif' (one scale for all tiles)"
        )
    if set(_RGB) <= set(colours):
        red, green, blue = (colours.index(c) + 1 for c in _RGB)
        return red, green, blue
    if dataset.count == 3 and not set(colours) & {ColorInterp.cyan, ColorInterp.Y}:
        return 1, 2, 3
    raise FormatError(
        f"{name} has {dataset.count} bands named {', '.join(c.name for c in colours)}: which are "
        "red, green and blue is not said; convert it with "
        f"'gdal_translate -b 1 -b 2 -b 3 -colorinterp red,green,blue {name} out.tif'"
    )


@dataclass(frozen=True)
class RasterReader:
    """Reads windows of tiles; small enough to travel with a task, opened files stay per thread.

    Examples
    --------
    >>> import tempfile
    >>> from rasterio.io import MemoryFile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "tile.tif"
    >>> with rasterio.open(path, "w", driver="GTiff", width=4, height=3, count=3, dtype="uint8",
    ...                    transform=Affine(1, 0, 0, 0, -1, 3), nodata=9) as tile:
    ...     tile.write(np.arange(36, dtype=np.uint8).reshape(3, 3, 4) // 12)
    >>> pixels, valid = RasterReader().read(path, (1, 3, 0, 2))
    >>> pixels.shape, pixels[:, 0, 0].tolist(), bool(valid.all())
    ((3, 2, 2), [0, 1, 2], True)
    >>> folder.cleanup()
    """

    open_files: int = 8
    """Most datasets that one thread keeps open (GDAL datasets are not shared by threads)."""

    def read(
        self, path: str | Path, window: tuple[int, int, int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read all three colours of a window in one pass of the decoder.

        Parameters
        ----------
        path : str or Path
        window : tuple of int
            ``(row0, row1, col0, col1)``, half-open pixel ranges inside the raster.

        Returns
        -------
        pixels : np.ndarray
            uint8 ``(band=3, y, x)``, red, green, blue.
        valid : np.ndarray
            bool ``(y, x)``: False where nodata, alpha or the mask says that nothing was observed.
            Black pixels are valid.

        Raises
        ------
        ReadError
            The file is gone, truncated or damaged where the window lies.
        GridMismatchError
            The window does not lie inside the raster.
        """
        row0, row1, col0, col1 = (int(edge) for edge in window)
        with rasterio.Env(**_STRICT):
            tile = _opened(str(path), self.open_files)
            height, width = tile.dataset.shape
            if not (0 <= row0 < row1 <= height and 0 <= col0 < col1 <= width):
                raise GridMismatchError(
                    f"window rows {row0}:{row1}, columns {col0}:{col1} does not lie inside "
                    f"{path}, which has {height} rows and {width} columns"
                )
            try:
                return tile.read(Window(col0, row0, col1 - col0, row1 - row0))
            except (RasterioError, CPLE_BaseError, OSError) as error:
                _forget(str(path))
                raise ReadError(
                    f"{path} cannot be read at rows {row0}:{row1}, columns {col0}:{col1}: "
                    f"{error.__cause__ or error}; the file is truncated or damaged: fetch it again"
                ) from error


@dataclass(frozen=True)
class _OpenTile:
    """A dataset with what reading needs to know of it.

    All of it is asked on opening: GDAL's last error stays pending in a thread, and rasterio would
    raise one tile's failed read again when another tile is asked for its colours.
    """

    dataset: rasterio.DatasetReader
    bands: tuple[int, int, int]
    alpha: int | None
    nodata: tuple[float | None, ...]
    has_mask: bool

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader) -> _OpenTile:
        bands, colours = rgb_bands(dataset), dataset.colorinterp
        has_alpha = ColorInterp.alpha in colours
        return cls(
            dataset=dataset,
            bands=bands,
            alpha=colours.index(ColorInterp.alpha) + 1 if has_alpha else None,
            nodata=tuple(dataset.nodatavals[band - 1] for band in bands),
            has_mask=MaskFlags.per_dataset in dataset.mask_flag_enums[bands[0] - 1],
        )

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        if self.alpha is not None:
            pixels = self.dataset.read([*self.bands, self.alpha], window=window)
            return pixels[:3], pixels[3] > 0
        pixels = self.dataset.read(list(self.bands), window=window)
        if self.has_mask:
            return pixels, self.dataset.dataset_mask(window=window) > 0
        if all(value is None for value in self.nodata):
            return pixels, np.ones(pixels.shape[1:], dtype=bool)
        # a value that uint8 cannot hold (-9999, NaN) marks no pixel
        absent = [layer == value for layer, value in zip(pixels, self.nodata, strict=True)]
        return pixels, ~np.logical_and.reduce(absent)


class _OpenFiles(threading.local):
    """Tiles that this thread has open, by path and state of the file, least recently used first."""

    def __init__(self) -> None:
        self.by_key: OrderedDict[tuple[str, int, int], _OpenTile] = OrderedDict()


_OPEN = _OpenFiles()
_OPENING = threading.Lock()


def _opened(path: str, limit: int) -> _OpenTile:
    """This thread's dataset of the file as it is now: a replaced file is opened anew."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}; was it moved?") from error
    key = (path, status.st_mtime_ns, status.st_size)
    if key not in _OPEN.by_key:
        _forget(path)
        _OPEN.by_key[key] = _OpenTile.of(_open(path))
    _OPEN.by_key.move_to_end(key)
    while len(_OPEN.by_key) > max(limit, 1):
        _OPEN.by_key.popitem(last=False)[1].dataset.close()
    return _OPEN.by_key[key]


def _forget(path: str) -> None:
    """Close this thread's dataset of a file."""
    for key in [key for key in _OPEN.by_key if key[0] == path]:
        _OPEN.by_key.pop(key).dataset.close()


def _open(path: str | Path) -> rasterio.DatasetReader:
    # the lock: warning filters belong to the whole process
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(path)
        except (RasterioIOError, OSError) as error:
            raise ReadError(
                f"{path} cannot be opened as a raster: {error}; the file is truncated, damaged or "
                "of another kind: fetch it again"
            ) from error
