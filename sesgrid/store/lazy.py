"""A lazy dataset of pixels → a cube, block by block."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import xarray as xr

from sesgrid.errors import FormatError
from sesgrid.grid import Extent
from sesgrid.store.codec import CodecName, PixelCodec
from sesgrid.store.cube import Cube, replacing
from sesgrid.store.location import is_empty, is_remote
from sesgrid.store.written import Shard, list_written

__all__ = ["write_cube"]


def write_cube(
    pixels: xr.Dataset, path: str | Path, *, codec: CodecName = "zstd", quality: int = 90
) -> Cube:
    """Compute a lazy dataset (`sesgrid.mosaic`, `sesgrid.landcover`) into a new cube, block by block.

    Parameters
    ----------
    pixels : xarray.Dataset
        Variables among ``image``, ``coverage`` and ``landcover``, one dask chunk a block.
    path : str or Path
        A folder, replaced if it is a cube; or a URL such as ``s3://bucket/city.zarr``, where nothing
        may be yet.
    codec : {"zstd", "jpeg", "jpegxl"}
        Of the image; see `sesgrid.store.codec.PixelCodec`.
    quality : int
        Of the image codecs.

    Raises
    ------
    FormatError
        There is something else at the path, or anything at the URL.
    StoreError, CodecError
        See `Cube.create`.
    """
    path, remote = str(path), is_remote(path)
    if remote and not is_empty(path):
        raise FormatError(f"{path} is not empty: remove what is there, or choose another place")
    extent = Extent.from_attributes(pixels.attrs)
    if remote:
        _write(path, extent, pixels, PixelCodec(codec, quality))
        return Cube.open(path)
    # beside its place first: the pixels may come from the very cube that is replaced
    with replacing(path) as beside:
        _write(beside, extent, pixels, PixelCodec(codec, quality))
    return Cube.open(path)


def _write(path: str, extent: Extent, pixels: xr.Dataset, codec: PixelCodec) -> None:
    n = extent.grid.block_px
    pixels = pixels.chunk({d: -1 if d == "band" else n for d in pixels.dims})
    cube = Cube.create(path, extent, {}, codec, ready=False)
    writes = []
    for name, array in pixels.data_vars.items():
        blocks = array.data.to_delayed().reshape(extent.n_block_rows, extent.n_block_cols)
        for (i, j), block in np.ndenumerate(blocks):
            at = (extent.block_row + i, extent.block_col + j)
            writes.append(dask.delayed(_write_if_any)(cube, *at, str(name), block))
    written: dict[str, dict[tuple[int, int], Shard]] = {}
    for name, block, shard in dask.compute(*writes):
        written.setdefault(name, {})[block] = shard
    for name in pixels.data_vars:
        list_written(path, extent, str(name), written.get(str(name), {}).items())
    cube.mark_ready()


def _write_if_any(
    cube: Cube, row: int, col: int, name: str, block: np.ndarray
) -> tuple[str, tuple[int, int], Shard]:
    """Write a block's array, unless it is zero throughout; its name, block and shard."""
    shards = cube.write_block(row, col, {name: block}) if block.any() else {name: (0, 0)}
    return name, (row, col), shards[name]
