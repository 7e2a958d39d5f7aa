"""A block as one shard of Zarr v3: its cells encoded one by one, and an index at the end.

The layout is the specification's (sharding-indexed, version 1.0): the encoded inner chunks, then for
every chunk of the shard, in C order, its offset and length as little-endian uint64 (both 2⁶⁴ − 1 where
there is none), then the crc32c of that index. Any reader of Zarr v3 reads it. zarr-python writes the same
and takes half as long again (``python -m benchmarks.codec``): here each cell goes from the block straight
into the compressor and from there into the file, and no second copy of the block is held.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import google_crc32c
import numpy as np

from sesgrid.errors import ReadError

__all__ = [
    "checksum",
    "decode_index",
    "encode_shard",
    "index_size",
    "is_checked",
    "is_intact",
    "size_told",
]

_ABSENT = np.uint64(2**64 - 1)
_RESIDUE = 0x48674BC7
"""crc32c of any data followed by their own: the residue of CRC-32/ISCSI, 0xB798B438, inverted."""


def checksum(data: bytes) -> bytes:
    """crc32c, four bytes, little-endian.

    >>> checksum(b"123456789").hex()
    '839206e3'
    """
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def is_intact(data: bytes | np.ndarray) -> bool:
    """Whether data, bytes or a read-only array of them, end with the crc32c of what goes before.

    >>> is_intact(b"roof" + checksum(b"roof")), is_intact(b"roof" + checksum(b"road")), is_intact(b"")
    (True, False, False)
    """
    return bool(google_crc32c.value(data) == _RESIDUE)


def is_checked(data: bytes, check: int) -> bool:
    """Whether a whole shard is the one that was written, by the crc32 that was recorded of it.

    Not by its crc32c: of pieces that end with their own it depends on nothing but their lengths. That was
    recorded before, and tells what was cut or changed.

    >>> def sealed(cell: np.ndarray) -> bytes:
    ...     return cell.tobytes() + checksum(cell.tobytes())
    >>> a, b = (b"".join(encode_shard(np.full((2, 2), k, "u1"), 2, sealed)) for k in (1, 2))
    >>> google_crc32c.value(a) == google_crc32c.value(b), is_checked(b, zlib.crc32(a))
    (True, False)
    """
    return check == zlib.crc32(data) or check == google_crc32c.value(data)


def index_size(n: int) -> int:
    """Bytes of the index of a shard of ``n`` × ``n`` cells, checksum included.

    >>> index_size(8)
    1028
    """
    return 16 * n * n + 4


def decode_index(data: bytes | np.ndarray, n: int) -> np.ndarray:
    """Where the cells of a shard lie.

    Parameters
    ----------
    data : bytes
        The last `index_size` bytes of the shard.
    n : int
        Cells along its side.

    Returns
    -------
    np.ndarray
        int64 ``(cell_y, cell_x, 2)``: offset and length in bytes; both −1 where there is no cell.

    Raises
    ------
    ReadError
        Too short, or not what was written.

    Examples
    --------
    >>> *_, index = encode_shard(np.eye(4, dtype=np.uint8), 2, bytes)
    >>> decode_index(index, 2)[0].tolist()
    [[0, 4], [-1, -1]]
    """
    if len(data) != index_size(n) or not is_intact(data):
        raise ReadError(
            f"the shard's index is damaged: expected {index_size(n)} bytes with their checksum, received "
            f"{len(data)} bytes"
        )
    # absent, 2**64 - 1, is −1 in two's complement
    return np.frombuffer(data, "<u8", 2 * n * n).astype(np.uint64).view(np.int64).reshape(n, n, 2)


def size_told(index: np.ndarray) -> int:
    """Bytes of the shard that an index is of: cells lie one after the other, and it after the last.

    >>> pieces = list(encode_shard(np.eye(4, dtype=np.uint8), 2, bytes))
    >>> size_told(decode_index(pieces[-1], 2)) == sum(map(len, pieces))
    True
    """
    return max(int(index.sum(axis=-1).max()), 0) + index_size(len(index))


def encode_shard(
    block: np.ndarray, side: int, encode: Callable[[np.ndarray], bytes]
) -> Iterator[bytes]:
    """Encode a block, piece by piece: while one cell is being written the next is not yet encoded.

    Parameters
    ----------
    block : np.ndarray
        uint8 ``([band,] y, x)``, square, its side a multiple of `side`.
    side : int
        Pixels along an inner chunk, that is a cell.
    encode : callable
        Contiguous pixels of a cell ``([band,] y, x)`` → bytes.

    Yields
    ------
    bytes
        The shard's bytes in order: the cells that are not zero throughout, then the index. Nothing at all
        where the whole block is zero: then there is no shard.

    Examples
    --------
    >>> block = np.zeros((4, 4), np.uint8)
    >>> list(encode_shard(block, 2, bytes))
    []
    >>> block[2, 0] = 7
    >>> cell, index = encode_shard(block, 2, bytes)
    >>> cell.hex(), len(index)
    ('07000000', 68)
    """
    n = block.shape[-1] // side
    index = np.full((n, n, 2), _ABSENT, dtype="<u8")
    offset = 0
    for i in range(n):
        for j in range(n):
            cell = block[..., i * side : (i + 1) * side, j * side : (j + 1) * side]
            if not cell.any():
                continue
            encoded = encode(np.ascontiguousarray(cell))
            index[i, j] = offset, len(encoded)
            offset += len(encoded)
            yield encoded
    if offset:
        table = index.tobytes()
        yield table + checksum(table)
