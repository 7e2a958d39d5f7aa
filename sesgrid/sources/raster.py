"""Headers and windows of RGB rasters, through GDAL, with damage never read as pixels."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from sesgrid.errors import FormatError, GridMismatchError, ReadError
from sesgrid.foreign import reading
from sesgrid.sources.filling import Colour, filled_colours
from sesgrid.sources.gdal_says import remarks
from sesgrid.sources.opening import STRICT, open_raster
from sesgrid.sources.validity import Validity, alpha_band, tagged_alpha

__all__ = ["RasterHeader", "RasterReader", "read_header", "rgb_bands"]

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_UNIT_PX = 512
"""Side of what is decoded at once where the raster itself has smaller blocks."""

COARSEST_LEVEL = 5
"""Levels beyond this are of no use to 200 m cells."""


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

    false_alpha: bool = False
    """Whether a band is called alpha and is no mask."""

    filled: tuple[Colour, ...] = ()
    """Colours that fill a corner or a border, where nothing says that it is no imagery."""

    remarks: tuple[str, ...] = ()
    """What GDAL warned of."""


def read_header(path: str | Path) -> RasterHeader:
    """Open a raster, check that it holds 8-bit RGB, and return its header.

    Raises
    ------
    ReadError
        The file cannot be opened.
    FormatError
        Not 8-bit RGB (see `rgb_bands`).
    """
    with rasterio.Env(**STRICT), remarks() as said, open_raster(path) as dataset:
        bands = rgb_bands(dataset)
        transform = dataset.transform
        date = dataset.tags().get("TIFFTAG_DATETIME", "")[:4]
        false_alpha, filled = _looks(dataset, bands)
        return RasterHeader(
            width=dataset.width,
            height=dataset.height,
            transform=None if transform == Affine.identity() else transform,
            crs_wkt=dataset.crs.to_wkt() if dataset.crs else None,
            year=int(date) if date.isdigit() and int(date) > 1900 else None,
            false_alpha=false_alpha,
            filled=filled,
            remarks=tuple(said),
        )


def _looks(
    dataset: rasterio.DatasetReader, bands: tuple[int, int, int]
) -> tuple[bool, tuple[Colour, ...]]:
    """What a few pixels tell, where they can be read; whoever needs the others meets the damage."""
    try:
        alpha = alpha_band(dataset)
        validity = Validity.of(dataset, bands, alpha)
        filled = () if validity.says_anything else filled_colours(dataset, bands)
    except ReadError:
        return False, ()
    return alpha is None and tagged_alpha(dataset) is not None, filled


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

    fill_values: tuple[int, ...] = ()
    """Pixels that have one of these values in all three colours count as not observed."""

    def levels(self, path: str | Path) -> int:
        """Coarsest level at which a raster can be read.

        Pixels of a level of a JPEG 2000 lie elsewhere than means of squares, so only the levels that the
        file has count; of other rasters any level can be made.

        Raises
        ------
        ReadError
            The file cannot be opened.
        """
        with rasterio.Env(**STRICT):
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
        with rasterio.Env(**STRICT):
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
        with rasterio.Env(**STRICT):
            tile = _opened(str(path), level, self.open_files)
            height, width = tile.shape
            if not (0 <= row0 < row1 <= height and 0 <= col0 < col1 <= width):
                raise GridMismatchError(
                    f"window rows {row0}:{row1}, columns {col0}:{col1} does not lie inside "
                    f"{path}, which has {height} rows and {width} columns"
                )
            part = f"rows {row0}:{row1}, columns {col0}:{col1}"
            try:
                with reading(path, ReadError, f"{part} are truncated or damaged: fetch it again"):
                    window_px = Window(col0, row0, col1 - col0, row1 - row0)
                    return tile.read(window_px, self.fill_values)
            except ReadError:
                _forget(str(path))
                raise


@dataclass(frozen=True)
class _OpenTile:
    """A dataset at a level, with what reading needs to know of it."""

    dataset: rasterio.DatasetReader
    bands: tuple[int, int, int]
    validity: Validity
    shrink: int
    """Pixels of the dataset along a pixel of the level: 1 where the file has the level."""

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

    def read(
        self, window: Window, fill_values: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if self.shrink > 1:
            return self._shrunk(window, fill_values)
        return self._as_it_is(window, fill_values)

    def _shrunk(
        self, window: Window, fill_values: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Means of squares of valid pixels."""
        n = self.shrink
        squares = (window.col_off, window.row_off, window.width, window.height)
        pixels, valid = self._as_it_is(Window(*(n * v for v in squares)), fill_values)
        shape = window.height, n, window.width, n
        if valid is None:
            sums = pixels.reshape(3, *shape).sum(axis=(2, 4), dtype=np.uint32)
            return ((sums + n * n // 2) // (n * n)).astype(np.uint8), None
        sums = (pixels * valid).reshape(3, *shape).sum(axis=(2, 4), dtype=np.uint32)
        count = valid.reshape(shape).sum(axis=(1, 3), dtype=np.uint32)
        known = np.maximum(count, 1)
        return ((sums + known // 2) // known).astype(np.uint8), 2 * count >= n * n

    def _as_it_is(
        self, window: Window, fill_values: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        pixels, valid = self.validity.read(self.dataset, self.bands, window)
        for value in fill_values:
            observed = (pixels != value).any(axis=0)
            valid = observed if valid is None else valid & observed
        return pixels, valid


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
    dataset = open_raster(path)
    bands, alpha = rgb_bands(dataset), alpha_band(dataset)
    overviews = dataset.overviews(1) if level else []
    shrink = 2**level
    if shrink in overviews:
        dataset.close()
        dataset, shrink = open_raster(path, overview_level=overviews.index(shrink)), 1
    return _OpenTile(dataset, bands, Validity.of(dataset, bands, alpha), shrink)


def _forget(path: str, but: tuple[int, int] | None = None) -> None:
    """Close this thread's datasets of a file, but for those of a state of it."""
    for key in [key for key in _OPEN.by_key if key[0] == path and key[2:] != but]:
        _OPEN.by_key.pop(key).dataset.close()
