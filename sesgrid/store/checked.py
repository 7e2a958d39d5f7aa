"""A store that gives no pixel of a cube but what was written: gone or damaged shards are refused by name."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from zarr.abc.store import SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

from sesgrid.errors import ReadError
from sesgrid.store.location import get, store_at
from sesgrid.store.sealed_cells import SealedCells
from sesgrid.store.shard import decode_index, index_size, is_checked, is_intact, size_told
from sesgrid.store.written import STAMPS_KEY, listed, require_stamps, shard_at, stamps_in

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

    from sesgrid.grid import Extent

__all__ = ["CheckedStore"]

_AT_ONCE = 16
"""Requests to a store at a time."""

_SHARD = re.compile(r"pixels/(\w+)/c/(?:0/)?(\d+)/(\d+)")


class CheckedStore(WrapperStore["Store"]):
    """The store of a cube, for reading.

    Parameters
    ----------
    path : str
        Of the cube.
    extent : Extent
        Of the cube.
    cells : SealedCells, optional
        What is expected below ``cells``; by default nothing, for who reads pixels alone: a run whose sealed
        cells are gone or damaged has to read them before it can seal the cube again.
    """

    def __init__(
        self,
        path: str,
        extent: Extent,
        *,
        store: Store | None = None,
        stamps: dict[str, str] | None = None,
        cells: SealedCells | None = None,
    ) -> None:
        super().__init__(store_at(path, read_only=True) if store is None else store)
        self.path, self.extent = path, extent
        # as they are now: a layer that is made anew has another, and nothing is expected of it here
        self._stamps = require_stamps(path) if stamps is None else stamps
        self._cells = SealedCells(path) if cells is None else cells
        # now, and not when a shard is missed: that is in zarr's own loop, which reads no array then
        self._lists = {layer: listed(path, layer, stamp) for layer, stamp in self._stamps.items()}

    def _with_store(self, store: Store) -> CheckedStore:
        return _again(self.path, self.extent, store, self._stamps, self._cells)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.path, self.extent, self._store, self._stamps, self._cells)

    @property
    def inner(self) -> Store:
        """The store itself."""
        return self._store

    @property
    def root(self) -> Any:
        """Of a local one: its folder."""
        return self._store.root if isinstance(self._store, LocalStore) else self.path

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """A value, or a part of it.

        Raises
        ------
        ReadError
            A shard that was written is gone or another, or its bytes are not those written; so of the
            sealed cells.
        """
        found = await self._store.get(key, prototype, byte_range)
        shard = _SHARD.fullmatch(key)
        if shard is None:
            self._require_known_name(key)
            whole = byte_range is None
            self._cells.require(key, None if found is None else found.to_bytes(), whole=whole)
            return found
        data = b"" if found is None else found.to_bytes()
        cells = self.extent.grid.cells_per_block
        if found is not None and not _is_sound(data, cells, byte_range):
            raise ReadError(self._message(key, "is damaged: its bytes do not match their checksum"))
        size = _size_of(data, cells, byte_range)
        if size is not None and self._is_other(key, size, data if byte_range is None else None):
            told = await self._store.get(STAMPS_KEY, prototype)
            self._require_anew(key, size, None if told is None else told.to_bytes())
        return found

    # zarr asks in other ways too, which the wrapper hands to the store inside, past what is checked here

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Values, or parts of them, as `get` has them."""
        asked = list(key_ranges)
        found: list[Buffer | None] = []
        for start in range(0, len(asked), _AT_ONCE):
            now = asked[start : start + _AT_ONCE]
            found += await asyncio.gather(*(self.get(key, prototype, part) for key, part in now))
        return found

    async def get_ranges(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        **limits: Any,
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Parts of a value, each by itself: merged with what lies between it has no checksum."""
        found = await self.get_partial_values(prototype, [(key, part) for part in byte_ranges])
        yield list(enumerate(found))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, part in requests:
            yield key, await self.get(key, prototype, part)

    @property
    def _supports_sync_io(self) -> bool:
        return False

    def get_sync(self, key: str, **asked: Any) -> Buffer | None:
        """Refused: zarr asks for it only where a store supports it."""
        raise TypeError("a cube is read asynchronously")

    def _require_known_name(self, key: str) -> None:
        """Refuse names of shards that none ever had: zarr would find nothing there, and read it as black."""
        group, *names = key.split("/")
        other = len(names) > 1 and names[-1] != "zarr.json" and not names[-1].startswith(".")
        other = other and _SHARD.fullmatch(key) is None
        if group == "pixels" and other and names[0] in self._stamps:
            raise ReadError(
                f"{self.path}: the metadata of pixels/{names[0]} are damaged, they tell of {key}: "
                "`sesgrid verify --redo` writes them again"
            )

    def require_size(self, key: str, size: int) -> None:
        """See that a shard has as many bytes as were written of it; 0: it is not there.

        Shards that changed their places are whole, each for itself.

        Raises
        ------
        ReadError
            It has others.
        """
        self._require_known_name(key)
        if self._is_other(key, size):
            self._require_anew(key, size, get(self.path, STAMPS_KEY))

    def _is_other(self, key: str, size: int, whole: bytes | None = None) -> bool:
        """Whether another shard, or none, was written when this store was opened, as far as seen."""
        layer, at = _parsed(key)
        known = self._lists.get(layer)
        if known is None:
            return False
        expected, check = shard_at(known, at)
        return expected != size or bool(whole and not is_checked(whole, check))

    def _require_anew(self, key: str, size: int, told: bytes | None) -> None:
        """Refuse what is not as it is listed, unless its layer was made anew since, as the stamps tell."""
        layer, _ = _parsed(key)
        try:
            anew = stamps_in(json.loads(told or b"")).get(layer) != self._stamps[layer]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            anew = False  # nobody can tell
        if not anew:
            what = (
                "is another than was written there" if size else "is missing, though it was written"
            )
            raise ReadError(self._message(key, what))

    def _message(self, key: str, what: str) -> str:
        layer, (y, x) = _parsed(key)
        block = self.extent.block_row + y, self.extent.block_col + x
        return (
            f"{self.path}: the shard of block {block}, {layer} ({key}), {what}; a run makes it again: "
            "`sesgrid run` with the cube's configuration, or `sesgrid verify --redo`"
        )


def _again(
    path: str, extent: Extent, store: Store, stamps: dict[str, str], cells: SealedCells
) -> CheckedStore:
    return CheckedStore(path, extent, store=store, stamps=stamps, cells=cells)


def _parsed(key: str) -> tuple[str, tuple[int, int]]:
    shard = _SHARD.fullmatch(key)
    if shard is None:
        raise ValueError(f"{key!r} is no shard's key")
    layer, y, x = shard.groups()
    return layer, (int(y), int(x))


def _is_sound(data: bytes, cells: int, byte_range: ByteRequest | None) -> bool:
    """Whether a shard's index, one of its cells, or the whole shard is as it was written."""
    if byte_range is not None:
        return is_intact(data)
    index = data[-index_size(cells) :]
    try:
        table = decode_index(index, cells).reshape(-1, 2).tolist()
    except ReadError:
        return False
    return all(is_intact(data[start : start + n]) for start, n in table if start >= 0)


def _size_of(data: bytes, cells: int, byte_range: ByteRequest | None) -> int | None:
    """Bytes of a shard, 0 where there is none; None: a cell of it does not tell."""
    if byte_range is None or not data:
        return len(data)
    is_index = isinstance(byte_range, SuffixByteRequest) and len(data) == index_size(cells)
    return size_told(decode_index(data, cells)) if is_index else None
