"""Random access to the cells of an image, for training: by any thread, in any order, without a copy.

A cube's cells are read from their shards directly. Where a cell lies is in its shard's index, which is read
once; so a cell costs one read of its own bytes (one range request in an object store), one checksum, one
decoding and one pass into the batch, nearly all of it without the GIL. Through xarray and zarr-python it
takes half as long again, on one thread, and the planes still have to be interleaved. Any other image, in
memory or lazy, is read through xarray.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from sesgrid.errors import GridMismatchError, ReadError
from sesgrid.grid import Extent
from sesgrid.kernels.batch import average, place_cell
from sesgrid.store.checked import CheckedStore
from sesgrid.store.codec import PixelCodec
from sesgrid.store.cube_layout import VERSION
from sesgrid.store.location import store_failures
from sesgrid.store.rooms import Rooms
from sesgrid.store.shard import decode_index, index_size, size_told

__all__ = ["CellReader"]

_KNOWN_SHARDS = 16_384
"""Indices kept at once: 1 KB each with 8 × 8 cells to a block."""

_WRAPPERS = (
    "ImplicitToExplicitIndexingAdapter",
    "CopyOnWriteArray",
    "MemoryCachedArray",
    "LazilyIndexedArray",
)
"""What xarray lays around a stored array without changing a pixel; anything else is read through xarray."""

_REQUESTS = 16
"""Range requests in flight at once, for one batch from an object store."""


class CellReader:
    """Cells of an image by their place on the grid.

    Parameters
    ----------
    image : xarray.DataArray
        uint8 ``(band, y, x)``, three bands, on whole blocks of the cells' grid: the ``image`` of a cube
        (`sesgrid.open_cube`, ``Cube.pixels``), or one with the attributes of its extent.
    size : int, optional
        Pixels along a cell as it is handed out; default: as it is stored. Divides ``pixels_per_cell``: each
        pixel is the mean of a square, rounded to the nearest whole number, halves up.

    Raises
    ------
    GridMismatchError
        The image does not lie on the grid, or `size` does not divide its cells.

    Examples
    --------
    >>> from sesgrid.grid import Grid
    >>> extent = Extent.of_cells(Grid(4, 2), [0], [0])
    >>> pixels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    >>> image = xr.DataArray(pixels, dims=("band", "y", "x"), attrs=extent.attributes())
    >>> CellReader(image).read(np.array([[0, 1], [1, 0]])).shape
    (2, 4, 4, 3)
    >>> CellReader(image, size=1).read(np.array([[0, 1]])).ravel().tolist()
    [18, 82, 146]
    """

    def __init__(self, image: xr.DataArray, *, size: int | None = None) -> None:
        self._shards = _Shards.behind(image)
        self._variable = image.variable
        self._rooms = Rooms()
        self.extent = self._shards.extent if self._shards else Extent.from_attributes(image.attrs)
        expected = (3, *self.extent.shape_px)
        named = image.dims == ("band", "y", "x")
        if not named or image.shape != expected or image.dtype != np.uint8:
            raise GridMismatchError(
                f"expected an image of uint8 (band, y, x) {expected}, received {image.dtype} "
                f"{image.dims} {image.shape}"
            )
        stored = self.extent.grid.pixels_per_cell
        self.size = stored if size is None else size
        if not 1 <= self.size <= stored or stored % self.size:
            raise GridMismatchError(
                f"size: expected a divisor of the {stored} pixels per cell, received {size!r}"
            )

    @property
    def from_shards(self) -> bool:
        """Whether cells come from a cube's shards directly, not through xarray."""
        return self._shards is not None

    def read(
        self,
        cells: np.ndarray,
        *,
        flips: np.ndarray | None = None,
        corners: np.ndarray | None = None,
        side: int | None = None,
    ) -> np.ndarray:
        """Read cells, each flipped and then cropped.

        Parameters
        ----------
        cells : np.ndarray
            Global (row, col), int64 ``(cell, 2)``; in any order, also repeatedly.
        flips : np.ndarray, optional
            bool ``(cell, 2)``: upside down, left and right around.
        corners : np.ndarray, optional
            int64 ``(cell, 2)``: top and left of the crop, in pixels of the flipped cell of `size`.
        side : int, optional
            Of the crops, in pixels; default: `size`.

        Returns
        -------
        np.ndarray
            uint8 ``(cell, y, x, band)``. A cell that the cube does not hold is zero.

        Raises
        ------
        ReadError
            A cell's bytes, or the index of its shard, are damaged or cannot be had.
        GridMismatchError
            A cell lies outside the image, or a crop outside its cell.
        """
        cells = np.asarray(cells, dtype=np.int64).reshape(-1, 2)
        n, side = len(cells), self.size if side is None else side
        flips = np.zeros((n, 2), bool) if flips is None else np.asarray(flips, bool)
        corners = np.zeros((n, 2), np.int64) if corners is None else np.asarray(corners, np.int64)
        if n and not (side > 0 <= corners.min() and corners.max() + side <= self.size):
            raise GridMismatchError(
                f"crops: expected squares within [0, {self.size}), received a side of {side} at corners "
                f"from {corners.min()} to {corners.max()}"
            )
        out = self._rooms.take((n, side, side, 3))
        planes = self._shards.planes(cells) if self._shards else map(self._plane, cells)
        factor = self.extent.grid.pixels_per_cell // self.size
        for k, cell in enumerate(planes):
            if cell is None:
                out[k] = 0
                continue
            if factor > 1:
                cell = average(cell, factor)
            place_cell(cell, out[k], *flips[k], *corners[k])
        return out

    def _plane(self, cell: np.ndarray) -> np.ndarray:
        y, x = self.extent.cell_slices(*map(int, cell))
        return np.asarray(self._variable[:, y, x])


class _Shards:
    """The encoded cells of a cube's image, wherever it lies."""

    def __init__(self, array: zarr.Array, extent: Extent, codec: PixelCodec) -> None:
        self.array, self.extent, self.codec = array, extent, codec
        self._checked = array.store if isinstance(array.store, CheckedStore) else None
        self.store = self._checked.inner if self._checked else array.store
        self._index = lru_cache(_KNOWN_SHARDS)(self._read_index)
        self._room = threading.local()
        self._requests = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="cells")

    @classmethod
    def behind(cls, image: xr.DataArray) -> _Shards | None:
        """The shards that an image shows, whole and untouched; None where it is anything else."""
        array = _stored_array(image)
        if array is None or array.path != "pixels/image":
            return None
        attributes = dict(zarr.open_group(array.store, mode="r", zarr_format=3).attrs)
        if VERSION not in attributes:
            return None
        extent, codec = Extent.from_attributes(attributes), PixelCodec.from_attributes(attributes)
        return cls(array, extent, codec)

    def planes(self, cells: np.ndarray) -> Iterator[np.ndarray | None]:
        """Decoded cells, uint8 ``(band, y, x)`` of any strides; None where absent.

        Each holds until the next is asked for: a thread decodes into one place.
        """
        if isinstance(self.store, LocalStore):
            found: Iterator[bytes | np.ndarray | None] = map(self._encoded, cells)
        else:
            found = self._requests.map(self._encoded, cells)
        shape = (3, *[self.extent.grid.pixels_per_cell] * 2)
        if not hasattr(self._room, "cell"):
            self._room.cell = np.empty(shape, np.uint8)
        for (row, col), data in zip(cells.tolist(), found, strict=True):
            try:
                yield None if data is None else self.codec.decode(data, shape, self._room.cell)
            except ReadError as error:
                raise ReadError(self._damage(row, col, error)) from error

    def _encoded(self, cell: np.ndarray) -> bytes | np.ndarray | None:
        row, col = map(int, cell)
        block = self.extent.grid.block_of(row, col)
        key = self._key(self.extent.block_position(*block))
        try:
            index = self._index(key)
            if index is None:
                return None
            offset, length = index[self.extent.grid.cell_in_block(row, col)].tolist()
            data = self._fetch(key, offset, length) if offset >= 0 else b""
            if data is None:
                raise ReadError("the shard went away after its index was read")
        except store_failures() as error:  # ReadError is one of them
            raise ReadError(self._damage(row, col, error)) from error
        return data if len(data) else None

    def _key(self, at: tuple[int, int]) -> str:
        metadata = cast(Any, self.array.metadata)
        return f"{self.array.path}/{metadata.encode_chunk_key((0, *at))}"

    def _read_index(self, key: str) -> np.ndarray | None:
        """Index of the shard at a key; None where there is no shard."""
        n = self.extent.grid.cells_per_block
        data = self._fetch(key, -index_size(n), index_size(n))
        index = None if data is None else decode_index(data, n)
        if self._checked is not None:
            self._checked.require_size(key, 0 if index is None else size_told(index))
        return index

    def _fetch(self, key: str, offset: int, length: int) -> bytes | np.ndarray | None:
        """Bytes of a shard, from the end where the offset is negative; None where there is no shard.

        Of a local file they hold until the thread reads the next.
        """
        store = self.store
        if isinstance(store, LocalStore):
            if len(getattr(self._room, "data", b"")) < length:
                self._room.data = np.empty(length + length // 4, np.uint8)
            return _read_range(f"{store.root}/{key}", offset, length, self._room.data)
        part = (
            RangeByteRequest(offset, offset + length) if offset >= 0 else SuffixByteRequest(length)
        )
        buffer = sync(store.get(key, default_buffer_prototype(), part))
        return None if buffer is None else buffer.to_bytes()

    def _damage(self, row: int, col: int, error: Exception) -> str:
        block = self.extent.grid.block_of(row, col)
        return (
            f"{_place(self.store)}: cell ({row}, {col}) of block {block} cannot be read: {error}; "
            f"the shard is {self._key(self.extent.block_position(*block))}: make the cube again with "
            "`sesgrid mosaic`"
        )


def _read_range(path: str, offset: int, length: int, room: np.ndarray) -> np.ndarray | None:
    """Some bytes of a file, or fewer where it ends; from its end where the offset is negative.

    They are read into memory that is there: the pages of fresh memory cost more than the reading.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    try:
        start = offset if offset >= 0 else max(0, os.fstat(file).st_size + offset)
        found = room[: os.preadv(file, [room[:length].data], start)]
        found.flags.writeable = False
        return found
    finally:
        os.close(file)


def _place(store: Store) -> str:
    return str(store.root if isinstance(store, LocalStore) else store)


def _stored_array(image: xr.DataArray) -> zarr.Array | None:
    """The zarr array behind an image that xarray opened and nobody changed, or None.

    Encodings would not tell: they stay with an array whose pixels were replaced.
    """
    data: Any = image.variable._data
    if hasattr(data, "dask"):
        # what a lazy array was made from is a task of its graph, named after it
        data = data.dask.get(f"original-{data.name}")
    while type(data).__name__ in _WRAPPERS:
        parts = data.key.tuple if hasattr(data, "key") else ()
        for part, n in zip(parts, data.array.shape, strict=bool(parts)):
            if not isinstance(part, slice) or range(n)[part] != range(n):
                return None
        data = data.array
    array = data.get_array() if hasattr(data, "get_array") else None
    return array if isinstance(array, zarr.Array) else None
