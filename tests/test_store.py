"""Where pixels are kept: shards that any zarr reads, codecs with their loss, S3, stores that fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid import mosaic, open_cube, write_cube
from sesgrid.errors import CodecError, ConfigError, FormatError, MissingInputError, StoreError
from sesgrid.grid import Extent, Grid
from sesgrid.store.codec import LOSSLESS, PixelCodec
from sesgrid.store.cube import Cube
from sesgrid.store.location import put
from sesgrid.store.shard import encode_shard
from tests.conftest import fill
from tests.test_mosaic import FakeReader, around, cells, tiles

EXTENT = Extent.of_cells(Grid(10, 4), [0, 9], [0, 9])


def photograph(side=40, seed=0):
    """uint8 (band, y, x), smooth as a photograph is."""
    y, x = np.mgrid[:side, :side]
    waves = [127 + 100 * np.sin((x + k * y + seed) / 9.0) for k in (1, 2, 3)]
    return np.stack(waves).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_plain_zarr_reads_a_shard_and_empty_cells_take_no_bytes(tmp_path_factory, data):
    n, side = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    bands = data.draw(st.sampled_from([(), (3,)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    block = rng.integers(0, 256, (*bands, n * side, n * side), dtype=np.uint8)
    inhabited = np.array(data.draw(st.lists(st.booleans(), min_size=n * n, max_size=n * n)))
    block *= np.kron(inhabited.reshape(n, n), np.ones((side, side), np.uint8)).astype(np.uint8)
    folder = tmp_path_factory.mktemp("shard")
    array = zarr.create_array(
        folder, shape=(*bands, 2 * n * side, n * side), dtype="uint8", fill_value=0,
        chunks=(*bands, side, side), shards=(*bands, n * side, n * side),
        **LOSSLESS.for_zarr(len(bands) and 3),
    )  # fmt: skip
    key = "c/0/1/0" if bands else "c/1/0"
    pieces = list(encode_shard(block, side, LOSSLESS.encode))
    put(str(folder), key, iter(pieces))
    np.testing.assert_array_equal(array[..., n * side :, :], block)
    assert not array[..., : n * side, :].any()
    kept = sum(
        block[..., i : i + side, j : j + side].any()
        for i in range(0, n * side, side)
        for j in range(0, n * side, side)
    )
    assert len(pieces) == (kept + 1 if kept else 0)
    assert (folder / key).exists() == bool(kept)


def test_a_flipped_bit_is_never_read_as_pixels(tmp_path):
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {})
    cube.write_block(0, 0, {"image": photograph()})
    shard = tmp_path / "cube.zarr/pixels/image/c/0/0/0"
    good = shard.read_bytes()
    for at in (10, len(good) - 50):
        bad = bytearray(good)
        bad[at] ^= 1
        shard.write_bytes(bad)
        with pytest.raises(ValueError, match="checksum"):
            zarr.open_group(cube.path, mode="r")["pixels/image"][:]


def test_a_block_that_became_empty_is_removed(tmp_path):
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {})
    cube.write_block(1, 1, {"image": photograph()})
    cube.write_block(1, 1, {"image": np.zeros((3, 40, 40), np.uint8)})
    assert not (tmp_path / "cube.zarr/pixels/image/c/0/1/1").exists()
    assert not open_cube(cube.path)["pixels"]["image"].values.any()


# codecs


@pytest.mark.parametrize(
    ("name", "quality", "most", "mean"),
    [("zstd", 90, 0, 0), ("jpegxl", 100, 0, 0), ("jpegxl", 90, 80, 8), ("jpeg", 90, 80, 8)],
)
def test_what_a_codec_loses_is_what_it_says(tmp_path, name, quality, most, mean):
    codec = PixelCodec(name, quality)
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {}, codec)
    image, codes = photograph(), np.full((40, 40), 200, np.uint8)
    image[:, 10:20, :10] = 0
    cube.write_block(0, 1, {"image": image, "coverage": codes, "landcover": codes // 2})
    plain = zarr.open_group(cube.path, mode="r")["pixels"]
    apart = np.abs(plain["image"][:, :40, 40:80].astype(int) - image)
    assert apart.max() <= most
    assert apart.mean() <= mean
    assert (apart.max() == 0) == codec.lossless
    assert not apart[:, 10:20, :10].any()
    # codes are never lossy
    np.testing.assert_array_equal(plain["coverage"][:40, 40:80], codes)
    np.testing.assert_array_equal(plain["landcover"][:40, 40:80], codes // 2)
    said = open_cube(cube.path).attrs
    assert (said["image_codec"], said["image_quality"]) == (name, quality)
    assert (said["image_loss"] == "none") == codec.lossless
    assert Cube.open(cube.path).codec == codec
    one = open_cube(cube.path, chunked=False)["pixels"]["image"][:, 3, 45].values
    assert np.abs(one.astype(int) - image[:, 3, 5]).max() <= most


def test_image_codecs_make_real_pixels_smaller_by_as_much_as_is_said(tmp_path, realdata):
    with rasterio.open(realdata / "ortho" / "ortho_L93_648900_6868700_300x200m.jp2") as tile:
        image = np.ascontiguousarray(tile.read([1, 2, 3])[:, :960, :960])
    extent = Extent.of_cells(Grid(240, 4), [0, 3], [0, 3])

    def size_and_error(name, quality):
        path = tmp_path / f"{name}{quality}.zarr"
        cube = Cube.create(path, extent, {}, PixelCodec(name, quality))
        cube.write_block(0, 0, {"image": image})
        read = zarr.open_group(path, mode="r")["pixels/image"][:]
        error = np.sqrt(np.mean((read.astype(float) - image) ** 2))
        return (path / "pixels/image/c/0/0/0").stat().st_size, error

    raw = image.nbytes
    for name, quality, smaller, rmse in (
        ("jpeg", 90, 8, 3), ("jpegxl", 90, 10, 3), ("jpegxl", 100, 2, 0), ("zstd", 90, 1.1, 0),
    ):  # fmt: skip
        size, error = size_and_error(name, quality)
        assert raw / size >= smaller, name
        assert error <= rmse, name


def test_plain_zarr_reads_image_codecs_with_their_package_alone(tmp_path):
    try:
        import imagecodecs.zarr  # noqa: F401
    except ImportError:
        pytest.skip("imagecodecs-zarr (Python 3.12 or newer) is not installed")
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {}, PixelCodec("jpegxl", 100))
    cube.write_block(0, 0, {"image": photograph()})
    code = (
        "import sys, zarr; a = zarr.open_group(sys.argv[1], mode='r')['pixels/image'][:];"
        "assert 'sesgrid' not in sys.modules; print(int(a.sum()))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, cube.path], capture_output=True, text=True, check=True
    )
    assert int(said.stdout) == photograph().sum(dtype=int)


def test_image_codecs_are_known_without_their_package(tmp_path):
    code = (
        "import importlib.metadata as m, sys; m.entry_points = lambda **_: m.EntryPoints(());"
        "from sesgrid.store import image_codec as ours; from zarr.registry import get_codec_class;"
        "assert get_codec_class('imagecodecs_jpegxl') is ours.JpegXl;"
        "assert get_codec_class('imagecodecs_jpeg') is ours.Jpeg;"
        "import zarr; print(int(zarr.open_group(sys.argv[1], mode='r')['pixels/image'][:].sum()))"
    )
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {}, PixelCodec("jpegxl", 100))
    cube.write_block(0, 0, {"image": photograph()})
    said = subprocess.run(
        [sys.executable, "-c", code, cube.path], capture_output=True, text=True, check=True
    )
    assert int(said.stdout) == photograph().sum(dtype=int)


def test_a_codec_that_is_not_installed_is_named(tmp_path, monkeypatch):
    there = Cube.create(tmp_path / "there.zarr", EXTENT, {}, PixelCodec("jpeg"))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(CodecError, match=r"'jpegxl' needs the package imagecodecs: pip install"):
        Cube.create(tmp_path / "cube.zarr", EXTENT, {}, PixelCodec("jpegxl"))
    assert not (tmp_path / "cube.zarr").exists()
    for opening in (Cube.open, open_cube):
        with pytest.raises(CodecError, match="'jpeg' needs the package imagecodecs"):
            opening(there.path)


@pytest.mark.parametrize(("name", "quality"), [("png", 90), ("jpeg", 0), ("jpeg", 101)])
def test_unknown_codecs_are_refused(name, quality):
    with pytest.raises(ConfigError, match="expected one of zstd, jpeg, jpegxl"):
        PixelCodec(name, quality)


# stores that fail


def refused(cube):
    """A second block cannot be written; the first is as it was, and nothing half-written is left."""
    with pytest.raises(
        StoreError, match=r"block \(0, 1\) cannot be written .*stays valid"
    ) as caught:
        cube.write_block(0, 1, {"image": photograph(seed=1)})
    image = open_cube(cube.path)["pixels"]["image"].values
    np.testing.assert_array_equal(image[:, :40, :40], photograph())
    assert not image[:, :40, 40:80].any()
    assert not list(Path(cube.path).rglob("*.partial"))
    return str(caught.value)


def test_a_full_or_read_only_store_keeps_what_was_finished(small_disk):
    cube = Cube.create(small_disk / "cube.zarr", EXTENT, {})
    cube.write_block(0, 0, {"image": photograph()})
    fill(small_disk)
    assert "No space left on device" in refused(cube)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "Read-only file system" in refused(cube)
    with pytest.raises(StoreError, match=r"cannot be opened: .*Read-only"):
        Cube.create(cube.path, EXTENT, {})


def test_an_empty_folder_in_the_place_of_a_shard_gives_way(tmp_path):
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {})
    place = tmp_path / "cube.zarr" / "pixels" / "coverage" / "c" / "0" / "0"
    place.mkdir(parents=True)
    block = np.ones((EXTENT.grid.block_px,) * 2, np.uint8)
    at = EXTENT.block_row, EXTENT.block_col
    written = cube.write_block(*at, {"coverage": block})["coverage"]
    assert cube.shard_fault("coverage", *at, written) is None
    place.unlink()
    place.mkdir()
    (place / "mine").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        cube.write_block(*at, {"coverage": block})
    assert [p.name for p in place.parent.iterdir()] == ["0"]


def test_a_write_that_fails_half_way_leaves_the_old_shard(tmp_path, monkeypatch):
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {})
    cube.write_block(0, 0, {"image": photograph()})
    whole = (tmp_path / "cube.zarr/pixels/image/c/0/0/0").read_bytes()
    encode, calls = PixelCodec.encode, []

    def failing(self, cell):
        calls.append(1)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        return encode(self, cell)

    monkeypatch.setattr(PixelCodec, "encode", failing)
    with pytest.raises(StoreError, match=r"block \(0, 0\) .*No space left"):
        cube.write_block(0, 0, {"image": photograph(seed=5)})
    assert (tmp_path / "cube.zarr/pixels/image/c/0/0/0").read_bytes() == whole
    assert not list(tmp_path.rglob("*.partial"))


# object stores


def test_a_cube_on_s3_is_as_one_on_disk(s3, tmp_path):
    url = f"{s3[0]}/city.zarr"
    with pytest.raises(MissingInputError, match=r"no cube at s3://maps/city\.zarr"):
        Cube.open(url)
    both = [Cube.create(place, EXTENT, {"title": "x"}) for place in (url, tmp_path / "city.zarr")]
    table = cells(2).assign(p=[0.1, 0.2, 0.3, None])
    table["row"] -= table["row"].min()
    table["col"] -= table["col"].min()
    for cube in both:
        cube.write_block(0, 1, {"image": photograph()})
        cube.write_block(1, 1, {"image": photograph()})
        cube.write_block(1, 1, {"image": np.zeros((3, 40, 40), np.uint8)})
        cube.seal(table.__getitem__, ["p"], {"sealed": "yes"})
    one, other = (open_cube(cube.path) for cube in both)
    for name in ("pixels", "cells"):
        assert one[name].to_dataset().drop_attrs().identical(other[name].to_dataset().drop_attrs())
    np.testing.assert_array_equal(one["pixels"]["image"].values[:, :40, 40:80], photograph())
    assert one["pixels"].to_dataset().rio.transform() == EXTENT.transform
    keys = {o["Key"] for o in s3[1].list_objects_v2(Bucket="maps", Prefix="city.zarr")["Contents"]}
    files = {
        str(p.relative_to(tmp_path)) for p in (tmp_path / "city.zarr").rglob("*") if p.is_file()
    }
    assert keys == files
    again = Cube.create(url, EXTENT, {})
    assert again.token != both[0].token
    assert not open_cube(url)["pixels"]["image"].values.any()


def test_a_lazy_mosaic_goes_to_s3(s3, tmp_path):
    url = f"{s3[0]}/lazy.zarr"
    table = cells(3)
    pixels = mosaic(table, tiles(around(6)), FakeReader(), pixels_per_cell=20, cells_per_block=2)
    write_cube(pixels, url, codec="jpegxl", quality=100)
    with pytest.raises(FormatError, match=r"s3://maps/lazy.zarr is not empty: remove"):
        write_cube(pixels, url)
    stored = open_cube(url)["pixels"].to_dataset()
    xr.testing.assert_equal(stored[["image", "coverage"]], pixels.compute())


def test_what_is_no_cube_is_never_removed_from_a_bucket(s3):
    url, client = s3
    client.put_object(Bucket="maps", Key="thesis/chapter.txt", Body=b"precious")
    for make in (
        lambda: Cube.create(f"{url}/thesis", EXTENT, {}),
        lambda: Cube.create(url, EXTENT, {}),
    ):
        with pytest.raises(FormatError, match="holds something that is no sesgrid cube"):
            make()
    kept = client.get_object(Bucket="maps", Key="thesis/chapter.txt")
    assert kept["Body"].read() == b"precious"


def test_a_cube_that_was_never_finished_is_none_and_can_be_replaced(s3, tmp_path):
    for place in (f"{s3[0]}/half.zarr", tmp_path / "half.zarr"):
        half = Cube.create(place, EXTENT, {}, ready=False)
        half.write_block(0, 0, {"image": photograph()})
        with pytest.raises(FormatError, match="version None"):
            Cube.open(place)
        whole = Cube.create(place, EXTENT, {})
        assert not open_cube(place)["pixels"]["image"].values.any()
        # a task of the run that was given up finds another cube in the place of its own
        with pytest.raises(StoreError, match=r"another cube has taken the place .*block \(0, 0\)"):
            half.write_block(0, 0, {"image": photograph()})
        assert Cube.open(place) == whole


def test_a_lazy_mosaic_that_fails_leaves_no_cube(s3):
    class Failing(FakeReader):
        def read(self, path, window, level=0):
            raise MissingInputError("the disk is gone")

    table, url = cells(3), f"{s3[0]}/broken.zarr"
    pixels = mosaic(table, tiles(around(6)), Failing(), pixels_per_cell=20, cells_per_block=2)
    with pytest.raises(MissingInputError):
        write_cube(pixels, url)
    with pytest.raises(FormatError, match="version None"):
        open_cube(url)


def test_a_bucket_that_is_not_there_is_named(s3):
    with pytest.raises(StoreError, match=r"s3://nowhere/city.zarr"):
        Cube.create("s3://nowhere/city.zarr", EXTENT, {})


@pytest.mark.parametrize("url", ["ftp://maps/city.zarr", "://", "s3://", "s3:// /a", "memory://a"])
def test_what_is_no_url_of_a_store_is_named(url):
    with pytest.raises(StoreError, match="expected a folder or a URL"):
        Cube.create(url, EXTENT, {})


def test_object_stores_need_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(CodecError, match="needs the package obstore: pip install"):
        Cube.open("s3://maps/city.zarr")


# GDAL


def test_gdal_reads_the_cube(tmp_path):
    version = tuple(int(v) for v in rasterio.__gdal_version__.split(".")[:2])
    if version < (3, 13):
        pytest.skip(f"GDAL {rasterio.__gdal_version__} cannot read sharded Zarr v3; 3.13 can")
    cube = Cube.create(tmp_path / "cube.zarr", EXTENT, {})
    cube.write_block(0, 0, {"image": photograph()})
    with rasterio.open(f'ZARR:"{cube.path}":/pixels/image') as raster:
        assert raster.crs.to_epsg() == 3035
        assert raster.transform == EXTENT.transform
        np.testing.assert_array_equal(raster.read()[:, :40, :40], photograph())


@pytest.mark.parametrize("codec", ["zstd", "jpeg", "jpegxl"])
def test_kept_maps_are_lossless_whatever_the_image_is(tmp_path, codec):
    if codec != "zstd":
        pytest.importorskip("imagecodecs")
    extent = Extent.of_cells(Grid(32, 2), [0, 1], [0, 1])
    cube = Cube.create(tmp_path / "c.zarr", extent, {}, PixelCodec(codec))
    room = cube.keep_activation("key")
    assert room
    maps = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    cube.write_block(0, 0, {"activation": maps})
    np.testing.assert_array_equal(cube.pixels()["activation"].values, maps)
    # the same explanation finds its room again; another one, or none, empties it
    assert cube.keep_activation("key") == room
    assert cube.pixels()["activation"].values.any()
    assert cube.keep_activation("other") not in ("", room)
    assert not cube.pixels()["activation"].values.any()
    assert cube.keep_activation(None) == ""
    assert not cube.has_activation
    # back to the first: a new room, so that parts of the old one are not taken for its maps
    assert cube.keep_activation("key") != room


def test_a_removal_that_was_cut_short_is_no_room(tmp_path, monkeypatch):
    extent = Extent.of_cells(Grid(32, 2), [0], [0])
    cube = Cube.create(tmp_path / "c.zarr", extent, {})
    room = cube.keep_activation("key")

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("zarr.Group.__delitem__", cut)
        with pytest.raises(KeyboardInterrupt):
            cube.keep_activation(None)
    assert cube.has_activation
    assert cube.keep_activation("key") not in ("", room)
    assert cube.keep_activation(None) == ""
    assert not cube.has_activation
