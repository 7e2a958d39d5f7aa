"""Flipped bits of deflated pixels: refused, also where GDAL reads on."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin

from sesgrid import ClassReader
from sesgrid.errors import ReadError

READER = ClassReader(tuple(range(12)), tuple(range(12)))


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 12, (48, 70)).astype(np.uint8)


@pytest.fixture
def raster(tmp_path, codes):
    path = tmp_path / "oso.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=70, height=48, count=1, dtype="uint8", compress="deflate",
        crs="EPSG:2154", transform=from_origin(650_000, 6_800_000, 10, 10), blockysize=16,
    ) as file:  # fmt: skip
        file.write(codes, 1)
    return path


def told(file: rasterio.DatasetReader, what: str, strip: int) -> int:
    return int(file.get_tag_item(f"BLOCK_{what}_0_{strip}", "TIFF", bidx=1))


def by_gdal(path) -> np.ndarray | None:
    try:
        with rasterio.open(path) as file:
            return file.read(1)
    except rasterio.errors.RasterioIOError:
        return None


def test_a_bit_that_gdal_does_not_miss_is_refused(raster, codes):
    whole = raster.read_bytes()
    with rasterio.open(raster) as file:
        start, size = (told(file, what, 1) for what in ("OFFSET", "SIZE"))
    passed = 0
    for bit in np.random.default_rng(1).permutation(8 * size)[:150]:
        flipped = bytearray(whole)
        flipped[start + bit // 8] ^= 1 << (bit % 8)
        raster.write_bytes(flipped)
        read = by_gdal(raster)
        if read is None or (read == codes).all():
            continue
        passed += 1
        with pytest.raises(ReadError, match=r"block 1, 0.*fetch it again"):
            READER.read(str(raster), (10, 40, 5, 60))
        # a window of other blocks is what it was
        values, _ = READER.read(str(raster), (32, 48, 0, 70))
        np.testing.assert_array_equal(values[0], codes[32:])
    assert passed


def with_last_strip(raster, packed: bytes) -> None:
    """Put other bytes in the place of a raster's third strip."""
    with rasterio.open(raster) as file:
        offsets, sizes = ([told(file, what, k) for k in range(3)] for what in ("OFFSET", "SIZE"))
    content = raster.read_bytes()
    for kind, numbers, last in (("<3I", offsets, len(content)), ("<3H", sizes, len(packed))):
        assert content.count(struct.pack(kind, *numbers)) == 1
        moved = struct.pack(kind, *numbers[:2], last)
        content = content.replace(struct.pack(kind, *numbers), moved)
    raster.write_bytes(content + packed)


def test_a_strip_that_unpacks_to_more_than_its_rows_is_refused(raster, codes):
    """Some writers pad the last strip, and GDAL 3.10 loses a pixel of it."""
    with_last_strip(raster, zlib.compress(np.vstack([codes[32:], codes[:16]]).tobytes()))
    with pytest.raises(ReadError, match=r"oso\.tif .*block 2, 0 unpacks to more than its pixels"):
        READER.read(str(raster), (0, 48, 0, 70))


def test_a_bomb_is_not_unpacked(raster):
    bomb = zlib.compress(bytes(1 << 26))[:60_000]
    assert len(zlib.decompressobj().decompress(bomb)) > 10**7
    with_last_strip(raster, bomb)
    tracemalloc.start()
    with pytest.raises(ReadError, match="block 2, 0 unpacks to more"):
        READER.read(str(raster), (0, 48, 0, 70))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_one_tall_strip_is_checked_from_every_row(tmp_path):
    """GDAL shows it as blocks of a row each."""
    path = tmp_path / "tall.tif"
    codes = np.random.default_rng(2).integers(0, 12, (2100, 32)).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=32, height=2100, count=1, dtype="uint8", compress="deflate",
        crs="EPSG:2154", transform=from_origin(650_000, 6_800_000, 10, 10), blockysize=2100,
    ) as file:  # fmt: skip
        file.write(codes, 1)
    values, _ = READER.read(str(path), (2000, 2100, 0, 32))
    np.testing.assert_array_equal(values[0], codes[2000:])
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        start, size = (told(file, what, 0) for what in ("OFFSET", "SIZE"))
    # the checksum itself: nothing else tells of it
    path.write_bytes(
        whole[: start + size - 1] + bytes([whole[start + size - 1] ^ 1]) + whole[start + size :]
    )
    for rows in ((0, 100), (2000, 2100)):
        with pytest.raises(ReadError):
            READER.read(str(path), (*rows, 0, 32))


def test_blocks_that_were_never_written_are_zeros(tmp_path):
    path = tmp_path / "sparse.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=512, height=512, count=1, dtype="uint8", compress="deflate",
        crs="EPSG:2154", transform=from_origin(650_000, 6_800_000, 10, 10), tiled=True, sparse_ok=True,
    ) as file:  # fmt: skip
        file.write(np.full((1, 256, 256), 7, np.uint8), window=((256, 512), (0, 256)))
    values, _ = READER.read(str(path), (0, 512, 0, 512))
    assert pd.Series(values.ravel()).value_counts().to_dict() == {0: 3 * 256**2, 7: 256**2}
