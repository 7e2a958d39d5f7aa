"""Which codec a cube's pixels are written with: time and size of a block, codec by codec.

``python -m benchmarks.codec [PATH]``: an aerial image (JP2, TIFF) whose pixels are repeated over the
block; without it the benchmarks' own texture, which compresses better than a photograph.
One thread. Lossless codecs only.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from benchmarks.rounds import describe_machine, interleave
from benchmarks.scene import aerial_texture

CODECS: dict[str, Any] = {
    "none": None,
    "zstd, level 1": ZstdCodec(level=1),
    "zstd, level 3": ZstdCodec(level=3),
    "zstd, level -3": ZstdCodec(level=-3),
    "blosc, zstd 1, bit shuffle": BloscCodec(
        cname="zstd", clevel=1, shuffle="bitshuffle", typesize=1
    ),
    "blosc, lz4 5, bit shuffle": BloscCodec(
        cname="lz4", clevel=5, shuffle="bitshuffle", typesize=1
    ),
}


def pixels(path: Path | None, cell: int, side: int) -> np.ndarray:
    """uint8 ``(band, y, x)``: ``side`` × ``side`` cells."""
    if path is None:
        image = aerial_texture(cell, cell, np.random.default_rng(0))
    else:
        with rasterio.open(path) as raster:
            image = raster.read([1, 2, 3])
    reach = side * cell
    tiles = -(-reach // image.shape[1]), -(-reach // image.shape[2])
    return np.ascontiguousarray(np.tile(image, (1, *tiles))[:, :reach, :reach])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny inputs, to see that it runs")
    options = parser.parse_args(argv)
    cell, side = (50, 2) if options.quick else (800, 4)
    block = pixels(options.path, cell, side)
    with (
        tempfile.TemporaryDirectory() as name,
        zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1}),
    ):
        arrays = {
            key: zarr.create_array(
                Path(name) / str(k), shape=block.shape, dtype="uint8", shards=block.shape,
                chunks=(3, cell, cell), fill_value=0,
                compressors=[c for c in (codec, Crc32cCodec()) if c is not None],
            )
            for k, (key, codec) in enumerate(CODECS.items())
        }  # fmt: skip
        write = interleave({k: _writer(a, block) for k, a in arrays.items()}, 5, repeats=1)
        read = interleave({k: _reader(a, cell) for k, a in arrays.items()}, 5, repeats=1)
        print(f"{side * side} cells of {cell} × {cell} pixels; {describe_machine()}")
        for k, key in enumerate(CODECS):
            files = (Path(name) / str(k)).rglob("*")
            size = sum(f.stat().st_size for f in files if f.is_file())
            per_cell = np.median(write[key]) / side**2
            print(
                f"  {key:<28} write {per_cell * 1e3:6.2f} ms a cell, "
                f"read {np.median(read[key]) * 1e3:6.2f}, {block.nbytes / size:.3f} × smaller"
            )


def _writer(array: zarr.Array, block: np.ndarray) -> Callable[[], None]:
    return lambda: array.__setitem__(Ellipsis, block)


def _reader(array: zarr.Array, cell: int) -> Callable[[], Any]:
    return lambda: array[:, cell : 2 * cell, cell : 2 * cell]


if __name__ == "__main__":
    main()
