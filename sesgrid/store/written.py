"""Which shards a cube holds, as the cube itself tells: bytes and crc32 of every block's shard.

Zarr reads a shard that is gone without a word, as fill, which would be black imagery. So once a layer is
made, what was written of it is listed in the cube, in ``shards/<layer>``, and whoever reads the cube is
refused what is listed and not there.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

import google_crc32c
import numpy as np
import zarr

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.foreign import reading
from sesgrid.grid import Extent
from sesgrid.store.cube_layout import LISTS, LISTS_SHARDS
from sesgrid.store.location import open_group, writing
from sesgrid.store.replaceable import require_own

__all__ = [
    "STAMPS_KEY",
    "Shard",
    "forget_written",
    "is_listed",
    "list_written",
    "listed",
    "require_stamps",
    "shard_at",
    "stamps_in",
    "stamps_of",
]

Shard = tuple[int, int]
"""Bytes of a shard and their crc32; (0, 0): there is none, as the block is zero throughout."""

_GROUP, _STAMPS = LISTS, "stamps"


def list_written(
    path: str, extent: Extent, layer: str, shards: Iterable[tuple[tuple[int, int], Shard]]
) -> None:
    """List what was written of a layer, in the place of what was listed of it before.

    Parameters
    ----------
    path : str
        Of the cube.
    extent : Extent
    layer : str
        A variable of ``pixels``.
    shards : iterable of ((block_row, block_col), (bytes, crc32))
        Global blocks.

    Raises
    ------
    StoreError
        The store is read-only, full or gone.
    FormatError
        Files of others lie in the list that was written before.
    """
    table = _tabled(extent, shards)
    require_own(path, f"{_GROUP}/{layer}")
    with writing(path, "the list of shards"):
        forget_written(path, layer)
        group = open_group(path, "r+").require_group(_GROUP)
        group.create_array(
            layer,
            data=table,
            chunks=(2, *(min(n, 1024) for n in table.shape[1:])),
            dimension_names=("of", "block_y", "block_x"),
            attributes={"of": ["bytes", "crc32"]},
            overwrite=True,
        )
        # last: what is half written is not believed
        stamp = f"{uuid.uuid4().hex}-{_checksum(table)}"
        group.update_attributes({_STAMPS: {**_stamps(group), layer: stamp}})


def _tabled(extent: Extent, shards: Iterable[tuple[tuple[int, int], Shard]]) -> np.ndarray:
    """Bytes and crc32, uint32 ``(of, block_y, block_x)``."""
    table = np.zeros((2, extent.n_block_rows, extent.n_block_cols), np.uint32)
    for block, shard in shards:
        table[(slice(None), *extent.block_position(*block))] = shard
    return table


def _checksum(table: np.ndarray) -> str:
    return f"{google_crc32c.value(np.ascontiguousarray(table).tobytes()):08x}"


def is_listed(
    path: str, extent: Extent, layer: str, shards: Iterable[tuple[tuple[int, int], Shard]]
) -> bool:
    """Whether the cube lists these very shards of a layer."""
    stamp = stamps_of(path).get(layer)
    try:
        # as it lies there now: what was read before is no answer
        found = None if stamp is None else _read(path, layer, stamp)
    except (FormatError, MissingInputError):
        return False
    return found is not None and np.array_equal(found, _tabled(extent, shards))


def forget_written(path: str, layer: str) -> None:
    """Before a layer's blocks are made anew: nothing is expected of it until it is listed again."""
    known = stamps_of(path)
    if layer in known:
        with writing(path, "the list of shards"):
            group = cast(zarr.Group, open_group(path, "r+")[_GROUP])
            group.update_attributes({_STAMPS: {k: v for k, v in known.items() if k != layer}})


def stamps_of(path: str) -> dict[str, str]:
    """Layers whose shards are listed, and what names each list; of a damaged one nothing."""
    try:
        with reading(path):
            root = open_group(path, "r")
            return _stamps(cast(zarr.Group, root[_GROUP])) if _GROUP in root else {}
    except (FormatError, MissingInputError):
        return {}


STAMPS_KEY = f"{_GROUP}/zarr.json"
"""Of the metadata that tell the stamps."""


def stamps_in(metadata: dict[str, Any]) -> dict[str, str]:
    """What the document at `STAMPS_KEY` tells."""
    return {str(k): str(v) for k, v in metadata["attributes"][_STAMPS].items()}


def _stamps(group: zarr.Group) -> dict[str, str]:
    return {str(k): str(v) for k, v in cast(dict, group.attrs.get(_STAMPS, {})).items()}


def require_stamps(path: str) -> dict[str, str]:
    """As `stamps_of`, of a cube whose lists must be there if it ever had some.

    Raises
    ------
    FormatError
        They are gone or damaged: nobody could tell a shard that is lost from one that never was.
    """
    with reading(f"{path}: the lists of its shards", advice=_REMAKE):
        root = open_group(path, "r")
        if _GROUP in root:
            return _stamps(cast(zarr.Group, root[_GROUP]))
        if root.attrs.get(LISTS_SHARDS):
            raise FormatError(f"{path}: the lists of its shards are gone; {_REMAKE}")
        return {}


_REMAKE = "a run writes them again, or `sesgrid verify --redo`"


@lru_cache(maxsize=64)
def listed(path: str, layer: str, stamp: str) -> np.ndarray | None:
    """The list that a stamp names, uint32 ``(of, block_y, block_x)``: bytes and crc32 of shards.

    None: the layer was made anew since, and no stamp comes twice.

    Raises
    ------
    FormatError
        The list is gone or damaged.
    """
    return _read(path, layer, stamp) if require_stamps(path).get(layer) == stamp else None


def _read(path: str, layer: str, stamp: str) -> np.ndarray:
    with reading(f"{path}: the list of the shards of {layer}", advice=_REMAKE):
        array = cast(zarr.Array, open_group(path, "r")[f"{_GROUP}/{layer}"])
        found = np.asarray(array[:], np.uint32)
    # zarr reads a chunk that is gone as zeros
    if _checksum(found) != stamp.rpartition("-")[2]:
        raise FormatError(f"{path}: the list of the shards of {layer} is damaged; {_REMAKE}")
    return found


def shard_at(table: np.ndarray | None, at: tuple[int, int]) -> Shard:
    """What is listed of the block at a position ``(block_y, block_x)`` of a cube; (0, 0): no shard."""
    if table is None or not all(0 <= k < n for k, n in zip(at, table.shape[1:], strict=True)):
        return 0, 0
    size, check = table[(slice(None), *at)].tolist()
    return size, check
