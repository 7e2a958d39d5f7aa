"""Which codec a cube's pixels are written with: time, size and error of a block, codec by codec.

``python -m benchmarks.codec [PATH]``: an aerial image (JP2, TIFF) whose pixels are repeated over the
block; without it the benchmarks' own texture, which compresses better than a photograph.
One thread. The rows marked "zarr" are written by zarr-python, the others by the cube's own shards; all are
read by zarr-python. The error is the root mean square over the pixels, of 255.
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
from sesgrid.store.codec import PixelCodec
from sesgrid.store.location import put
from sesgrid.store.shard import encode_shard

CODECS: dict[str, Any] = {
    "zarr, none": None,
    "zarr, zstd 1": ZstdCodec(level=1),
    "zarr, zstd 3": ZstdCodec(level=3),
    "zarr, zstd -3": ZstdCodec(level=-3),
    "zarr, blosc zstd 1, bits": BloscCodec(
        cname="zstd", clevel=1, shuffle="bitshuffle", typesize=1
    ),
    "zarr, blosc lz4 5, bits": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=1),
    "zstd": PixelCodec("zstd"),
    "jpegxl 100 (lossless)": PixelCodec("jpegxl", 100),
    "jpegxl 90": PixelCodec("jpegxl", 90),
    "jpeg 90": PixelCodec("jpeg", 90),
}
"""What zarr compresses with, or what the cube offers."""


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
    cell, side = (50, 2) if options.quick else (800, 8)
    block = pixels(options.path, cell, side)
    with (
        tempfile.TemporaryDirectory() as name,
        zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1}),
    ):
        arrays = {
            key: zarr.create_array(
                Path(name) / str(k), shape=block.shape, dtype="uint8", shards=block.shape,
                chunks=(3, cell, cell), fill_value=0, **_codecs(codec),
            )
            for k, (key, codec) in enumerate(CODECS.items())
        }  # fmt: skip
        writers = {key: _writer(array, block, CODECS[key]) for key, array in arrays.items()}
        write = interleave(writers, 5, repeats=1)
        read = interleave({k: _reader(a, cell) for k, a in arrays.items()}, 5, repeats=1)
        print(f"{side * side} cells of {cell} × {cell} pixels; {describe_machine()}")
        for k, (key, array) in enumerate(arrays.items()):
            files = (Path(name) / str(k)).rglob("*")
            size = sum(f.stat().st_size for f in files if f.is_file())
            per_cell = np.median(write[key]) / side**2
            error = np.sqrt(np.mean((np.asarray(array[:], np.float32) - block) ** 2))
            print(
                f"  {key:<26} write {per_cell * 1e3:6.2f} ms a cell, "
                f"read {np.median(read[key]) * 1e3:6.2f}, {block.nbytes / size:6.3f} × smaller, "
                f"error {error:.2f}"
            )


def _codecs(codec: Any) -> dict[str, Any]:
    if isinstance(codec, PixelCodec):
        return codec.for_zarr(3)
    return {"compressors": [c for c in (codec, Crc32cCodec()) if c is not None]}


def _writer(array: zarr.Array, block: np.ndarray, codec: Any) -> Callable[[], object]:
    if isinstance(codec, PixelCodec):
        folder, side = str(array.store_path).removeprefix("file://"), array.chunks[-1]
        return lambda: put(folder, "c/0/0/0", encode_shard(block, side, codec.encode))
    return lambda: array.__setitem__(Ellipsis, block)


def _reader(array: zarr.Array, cell: int) -> Callable[[], Any]:
    return lambda: array[:, cell : 2 * cell, cell : 2 * cell]


if __name__ == "__main__":
    main()
