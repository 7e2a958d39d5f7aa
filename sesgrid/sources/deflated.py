"""Checksums of a TIFF's deflated blocks.

libtiff accepts a block that unpacks to more bytes than it should, for some writers pad the last strip, and
then neither compares the checksum nor always fills the last pixels. About one bit in thirty that flips in a
deflated block has that effect.
"""

from __future__ import annotations

import os
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Compression
from rasterio.windows import Window

from sesgrid.errors import ReadError
from sesgrid.foreign import DAMAGED, reading

__all__ = ["refuse_damaged_blocks"]


def refuse_damaged_blocks(raster: rasterio.DatasetReader, window: Window) -> None:
    """Compare the blocks below a window with their checksums (Adler-32, RFC 1950); of one band, (y, x).

    Other rasters than deflated TIFFs pass, the parts of a VRT too: their blocks cannot be told from here.

    Raises
    ------
    ReadError
        A block is not what was written, or unpacks to more than its pixels.
    """
    if raster.driver != "GTiff" or raster.compression != Compression.deflate:
        return
    path = Path(raster.name)
    with reading(path, ReadError):
        state = os.stat(path)
    height, width = raster.block_shapes[0]
    if _is_one_strip(raster):
        height = raster.height
    rows = range(window.row_off // height, -(-(window.row_off + window.height) // height))
    cols = range(window.col_off // width, -(-(window.col_off + window.width) // width))
    for row in rows:
        for col in cols:
            offset, size = (_told(raster, what, row, col) for what in ("OFFSET", "SIZE"))
            if offset is None or size is None:  # a sparse file's block of zeros
                continue
            full = _full_size(raster, height, width, row)
            _require_block(
                path, (state.st_mtime_ns, state.st_size), (row, col), int(offset), int(size), full
            )


def _told(raster: rasterio.DatasetReader, what: str, row: int, col: int) -> str | None:
    return raster.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)


def _is_one_strip(raster: rasterio.DatasetReader) -> bool:
    """Whether GDAL shows a single strip, of more than 2,000 rows, as blocks of a row each."""
    split = raster.height > 2000 and raster.block_shapes[0] == (1, raster.width)
    return split and _told(raster, "OFFSET", 1, 0) is None


def _full_size(raster: rasterio.DatasetReader, height: int, width: int, row: int) -> int:
    """Bytes of a block in a row of blocks: a tile is whole also at the border, a strip is not."""
    if height % 16 or width % 16:  # a strip: sides of tiles are multiples of 16
        height = min(height, raster.height - row * height)
    return height * width * np.dtype(raster.dtypes[0]).itemsize


# windows share blocks, and GDAL keeps what it unpacked too
@lru_cache(maxsize=1 << 14)
def _require_block(
    path: Path, state: tuple[int, int], at: tuple[int, int], offset: int, size: int, full: int
) -> None:
    """Refuse a block that is damaged; the file's state is only a key of the cache."""
    label = f"{path} cannot be read (block {at[0]}, {at[1]}"
    inflate = zlib.decompressobj()
    with reading(path, ReadError), open(path, "rb") as file:
        file.seek(offset)
        packed = file.read(size)
    try:
        # no more than tells: what is packed may be made to fill the memory
        unpacked = inflate.decompress(packed, full + 1)
    except zlib.error as cause:
        raise ReadError(f"{label}: {cause}); {DAMAGED}") from cause
    if len(unpacked) > full:
        # damaged, or padded by its writer: GDAL may lose the last pixels then
        raise ReadError(
            f"{label} unpacks to more than its pixels): fetch it again; if it was made so, write it anew "
            "without compression"
        )
    if not inflate.eof:
        raise ReadError(f"{label} is cut); {DAMAGED}")
