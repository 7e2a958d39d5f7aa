"""Checksums of a TIFF's deflated blocks.

libtiff accepts a block that unpacks to more bytes than it should, for some writers pad the last strip, and
then neither compares the checksum nor always fills the last pixels. About one bit in thirty that flips in a
deflated block has that effect.
"""

from __future__ import annotations

import zlib
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

    Other rasters than deflated TIFFs pass: their formats have no checksums, or GDAL heeds them.

    Raises
    ------
    ReadError
        A block is not what was written, or unpacks to more than its pixels.
    """
    if raster.driver != "GTiff" or raster.compression != Compression.deflate:
        return
    path = Path(raster.name)
    height, width = raster.block_shapes[0]
    rows = range(window.row_off // height, -(-(window.row_off + window.height) // height))
    cols = range(window.col_off // width, -(-(window.col_off + window.width) // width))
    with reading(path, ReadError), open(path, "rb") as file:
        for row in rows:
            for col in cols:
                offset, size = (
                    raster.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)
                    for what in ("OFFSET", "SIZE")
                )
                if offset is None or size is None:  # a sparse file's block of zeros
                    continue
                file.seek(int(offset))
                try:
                    unpacked = zlib.decompress(file.read(int(size)))
                except zlib.error as cause:
                    raise ReadError(
                        f"{path} cannot be read (block {row}, {col}: {cause}); {DAMAGED}"
                    ) from cause
                if len(unpacked) > _full_size(raster, row):
                    raise ReadError(
                        f"{path}: block {row}, {col} unpacks to {len(unpacked)} bytes, more than its "
                        "pixels, of which GDAL may lose the last; write the file anew, without compression"
                    )


def _full_size(raster: rasterio.DatasetReader, row: int) -> int:
    """Bytes of a block in a row of blocks: a tile is whole also at the border, a strip is not."""
    height, width = raster.block_shapes[0]
    if height % 16 or width % 16:  # a strip: sides of tiles are multiples of 16
        height = min(height, raster.height - row * height)
    return height * width * np.dtype(raster.dtypes[0]).itemsize
