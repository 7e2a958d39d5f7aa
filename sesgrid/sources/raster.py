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
_UNIT_PX = 512
"""Side of what is decoded at once where the raster itself has smaller blocks."""

COARSEST_LEVEL = 5
"""Levels beyond this are of no use to 200 m cells."""

_STRICT = {
    # a cut JPEG (alone or inside a TIFF) otherwise decodes to grey; a cut JPEG 2000 raises anyway
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # with threads of its own, GDAL 3.10 reads a broken JPEG 2000 at a coarser level as black, and says
    # so to standard error alone; a worker has its own threads anyway
    "GDAL_NUM_THREADS": "1",
    # nothing may be written beside the user's files
    "GDAL_PAM_ENABLED": "NO",
    # a folder may hold a nation: companions are looked for by name, not in a list of all its files
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
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

    def levels(self, path: str | Path) -> int:
        """Coarsest level at which a raster can be read.

        Pixels of a level of a JPEG 2000 lie elsewhere than means of squares, so only the levels that the
        file has count; of other rasters any level can be made.

        Raises
        ------
        ReadError
            The file cannot be opened.
        """
        with rasterio.Env(**_STRICT):
            dataset = _opened(str(path), 0, self.open_files).dataset
        if not dataset.driver.startswith("JP2"):
            return COARSEST_LEVEL
        overviews = dataset.overviews(1)
        return next(k for k in range(COARSEST_LEVEL + 1) if 2 ** (k + 1) not in overviews)

    def unit_shape(self, path: str | Path, level: int = 0) -> tuple[int, int]:
        """(y, x) of the parts that the raster decodes as a whole, in pixels of the level.

        The raster's own tiles, or as many of its blocks as come near 512 × 512 pixels.

        Raises
        ------
        ReadError
            The file cannot be opened.
        """
        with rasterio.Env(**_STRICT):
            return _opened(str(path), level, self.open_files).unit_shape(level)

    def read(
        self, path: str | Path, window: tuple[int, int, int, int], level: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read all three colours of a window in one pass of the decoder.

        Parameters
        ----------
        path : str or Path
        window : tuple of int
            ``(row0, row1, col0, col1)``, half-open pixel ranges inside the raster, in pixels of the
            level.
        level : int
            0 = as it is; k = the resolution halved k times: the raster's own overview where it has
            one, else means of squares.

        Returns
        -------
        pixels : np.ndarray
            uint8 ``(band=3, y, x)``, red, green, blue.
        valid : np.ndarray or None
            bool ``(y, x)``: False where nodata, alpha or the mask says that nothing was observed; None
            where the raster has none of these. Black pixels are valid.

        Raises
        ------
        ReadError
            The file is gone, truncated or damaged where the window lies.
        GridMismatchError
            The window does not lie inside the raster.
        """
        row0, row1, col0, col1 = (int(edge) for edge in window)
        with rasterio.Env(**_STRICT):
            tile = _opened(str(path), level, self.open_files)
            height, width = tile.shape
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
    """A dataset at a level, with what reading needs to know of it.

    All of it is asked on opening: GDAL's last error stays pending in a thread, and rasterio would
    raise one tile's failed read again when another tile is asked for its colours.
    """

    dataset: rasterio.DatasetReader
    bands: tuple[int, int, int]
    alpha: int | None
    nodata: tuple[float | None, ...]
    has_mask: bool
    shrink: int
    """Pixels of the dataset along a pixel of the level: 1 where the file has the level."""

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader, shrink: int) -> _OpenTile:
        bands, colours = rgb_bands(dataset), dataset.colorinterp
        has_alpha = ColorInterp.alpha in colours
        return cls(
            dataset=dataset,
            bands=bands,
            alpha=colours.index(ColorInterp.alpha) + 1 if has_alpha else None,
            nodata=tuple(dataset.nodatavals[band - 1] for band in bands),
            has_mask=MaskFlags.per_dataset in dataset.mask_flag_enums[bands[0] - 1],
            shrink=shrink,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) in pixels of the level."""
        return self.dataset.height // self.shrink, self.dataset.width // self.shrink

    def unit_shape(self, level: int) -> tuple[int, int]:
        # a level's blocks are as many source pixels as those of the raster itself
        side = _UNIT_PX * self.shrink >> level
        block_y, block_x = self.dataset.block_shapes[self.bands[0] - 1]
        width = block_x * max(1, side // block_x)
        height = block_y * max(1, side**2 // (width * block_y))
        return max(1, height // self.shrink), max(1, width // self.shrink)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        if self.shrink > 1:
            return self._shrunk(window)
        return self._as_it_is(window)

    def _shrunk(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Means of squares of valid pixels."""
        n = self.shrink
        pixels, valid = self._as_it_is(
            Window(*(n * v for v in (window.col_off, window.row_off, window.width, window.height)))
        )
        shape = window.height, n, window.width, n
        if valid is None:
            sums = pixels.reshape(3, *shape).sum(axis=(2, 4), dtype=np.uint32)
            return ((sums + n * n // 2) // (n * n)).astype(np.uint8), None
        sums = (pixels * valid).reshape(3, *shape).sum(axis=(2, 4), dtype=np.uint32)
        count = valid.reshape(shape).sum(axis=(1, 3), dtype=np.uint32)
        known = np.maximum(count, 1)
        return ((sums + known // 2) // known).astype(np.uint8), 2 * count >= n * n

    def _as_it_is(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        if self.alpha is not None:
            pixels = self.dataset.read([*self.bands, self.alpha], window=window)
            return pixels[:3], pixels[3] > 0
        pixels = self.dataset.read(list(self.bands), window=window)
        if self.has_mask:
            return pixels, self.dataset.dataset_mask(window=window) > 0
        if all(value is None for value in self.nodata):
            return pixels, None
        # a value that uint8 cannot hold (-9999, NaN) marks no pixel
        absent = [layer == value for layer, value in zip(pixels, self.nodata, strict=True)]
        return pixels, ~np.logical_and.reduce(absent)


class _OpenFiles(threading.local):
    """Tiles that this thread has open, by path and state of the file, least recently used first."""

    def __init__(self) -> None:
        self.by_key: OrderedDict[tuple[str, int, int, int], _OpenTile] = OrderedDict()


_OPEN = _OpenFiles()
_OPENING = threading.Lock()


def _opened(path: str, level: int, limit: int) -> _OpenTile:
    """This thread's dataset of the file as it is now: a replaced file is opened anew."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}; was it moved?") from error
    key = (path, level, status.st_mtime_ns, status.st_size)
    if key not in _OPEN.by_key:
        _forget(path, but=key[2:])
        _OPEN.by_key[key] = _open_level(path, level)
    _OPEN.by_key.move_to_end(key)
    while len(_OPEN.by_key) > max(limit, 1):
        _OPEN.by_key.popitem(last=False)[1].dataset.close()
    return _OPEN.by_key[key]


def _open_level(path: str, level: int) -> _OpenTile:
    dataset = _open(path)
    if level == 0:
        return _OpenTile.of(dataset, 1)
    overviews = dataset.overviews(1)
    if 2**level not in overviews:
        return _OpenTile.of(dataset, 2**level)
    dataset.close()
    return _OpenTile.of(_open(path, overview_level=overviews.index(2**level)), 1)


def _forget(path: str, but: tuple[int, int] | None = None) -> None:
    """Close this thread's datasets of a file, but for those of a state of it."""
    for key in [key for key in _OPEN.by_key if key[0] == path and key[2:] != but]:
        _OPEN.by_key.pop(key).dataset.close()


def _open(path: str | Path, **options: int) -> rasterio.DatasetReader:
    # the lock: warning filters belong to the whole process
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(path, **options)
        except (RasterioIOError, OSError) as error:
            raise ReadError(
                f"{path} cannot be opened as a raster: {error}; the file is truncated, damaged or "
                "of another kind: fetch it again"
            ) from error
