"""A block as one shard of Zarr v3: its cells encoded one by one, and an index at the end.

The layout is the specification's (sharding-indexed, version 1.0): the encoded inner chunks, then for
every chunk of the shard, in C order, its offset and length as little-endian uint64 (both 2⁶⁴ − 1 where
there is none), then the crc32c of that index. Any reader of Zarr v3 reads it. zarr-python writes the same
and takes half as long again (``python -m benchmarks.codec``): here each cell goes from the block straight
into the compressor and from there into the file, and no second copy of the block is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import google_crc32c
import numpy as np

__all__ = ["checksum", "encode_shard"]

_ABSENT = np.uint64(2**64 - 1)


def checksum(data: bytes) -> bytes:
    """crc32c, four bytes, little-endian.

    >>> checksum(b"123456789").hex()
    '839206e3'
    """
    return int(google_crc32c.value(data)).to_bytes(4, "little")


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
