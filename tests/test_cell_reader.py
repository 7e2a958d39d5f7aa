"""Random access to cells: the same pixels as zarr-python reads, whatever codec, store and size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import sesgrid
from sesgrid.errors import GridMismatchError, ReadError
from sesgrid.grid import Extent, Grid
from sesgrid.kernels.batch import average, place_cell
from sesgrid.store.cell_reader import CellReader
from sesgrid.store.codec import PixelCodec
from sesgrid.store.cube import Cube
from sesgrid.store.rooms import Rooms

PX = 24
EXTENT = Extent.of_cells(Grid(PX, 3), [-7, -1], [4, 11])  # blocks (-3…-1, 1…3)
CODECS = [PixelCodec(), PixelCodec("jpeg", 90), PixelCodec("jpegxl", 90), PixelCodec("jpegxl", 100)]


def make_cube(path, codec=CODECS[0]):
    """Two blocks of the nine are written; in them, cells on the diagonal are absent."""
    rng = np.random.default_rng(1)
    cube = Cube.create(path, EXTENT, {}, codec)
    for block in ((-3, 1), (-1, 3)):
        pixels = np.cumsum(rng.integers(-9, 10, (3, 3 * PX, 3 * PX)), axis=2).astype(np.uint8)
        for k in range(3):
            pixels[:, k * PX : (k + 1) * PX, k * PX : (k + 1) * PX] = 0
        cube.write_block(*block, {"image": pixels})
    return cube


def all_cells():
    rows, cols = (np.arange(n) for n in EXTENT.shape_cells)
    cells = np.stack(np.meshgrid(EXTENT.row + rows, EXTENT.col + cols, indexing="ij"), axis=-1)
    return np.random.default_rng(0).permutation(cells.reshape(-1, 2))


def through_zarr(cube, cells):
    """uint8 ``(cell, y, x, band)``, by zarr-python alone."""
    whole = zarr.open_array(f"{cube.path}/pixels/image", mode="r")[:]
    slices = [EXTENT.cell_slices(*cell) for cell in cells.tolist()]
    return np.stack([whole[:, y, x].transpose(1, 2, 0) for y, x in slices])


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    return make_cube(tmp_path_factory.mktemp("cube") / "city.zarr")


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{c.name} {c.quality}")
def test_cells_are_those_that_zarr_reads(tmp_path, codec):
    cube = make_cube(tmp_path / "city.zarr", codec)
    cells = all_cells()
    expected = through_zarr(cube, cells)
    reader = CellReader(cube.pixels()["image"])
    assert reader.from_shards
    assert reader.extent == EXTENT
    found = reader.read(cells)
    np.testing.assert_array_equal(found, expected)
    assert (found.any(axis=(1, 2, 3))).sum() == 12  # two blocks, less their diagonals
    with ThreadPoolExecutor(4) as pool:
        for part, other in zip(
            pool.map(reader.read, np.split(cells, 9)), np.split(expected, 9), strict=True
        ):
            np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_opened_cube_is_read_from_its_shards(cube, chunked):
    image = sesgrid.open_cube(cube.path, chunked=chunked)["pixels"]["image"]
    reader, cells = CellReader(image), all_cells()
    assert reader.from_shards
    np.testing.assert_array_equal(reader.read(cells), through_zarr(cube, cells))


def changed(image):
    """Images with the same encoding and extent, and other pixels."""
    yield "bands", image.isel(band=[2, 1, 0])
    yield "replaced", image.copy(data=255 - image.values)
    yield "computed", 255 - image
    yield "rolled", image.isel(x=np.roll(np.arange(image.sizes["x"]), 5))
    yield "reversed", image.isel(y=slice(None, None, -1))
    yield "loaded", image.compute()


@pytest.mark.parametrize("chunked", [False, True])
def test_any_other_image_is_read_as_it_is(cube, chunked):
    pixels = cube.pixels(chunked=chunked)
    cells = all_cells()[::5]
    for name, image in changed(pixels["image"]):
        reader = CellReader(image.assign_attrs(pixels.attrs))
        assert not reader.from_shards, name
        values = image.transpose("band", "y", "x").values
        for one, cell in zip(reader.read(cells), cells, strict=True):
            y, x = EXTENT.cell_slices(*cell)
            np.testing.assert_array_equal(one, values[:, y, x].transpose(1, 2, 0), err_msg=name)


@pytest.mark.parametrize("size", [24, 12, 8, 3, 1])
@pytest.mark.parametrize("codec", CODECS[:2], ids=lambda c: c.name)
def test_smaller_cells_are_means_of_squares(tmp_path, size, codec):
    cube = make_cube(tmp_path / "city.zarr", codec)
    cells, f = all_cells(), PX // size
    squares = through_zarr(cube, cells).astype(np.int64).reshape(-1, size, f, size, f, 3)
    expected = np.floor(squares.mean(axis=(2, 4)) + 0.5)
    found = CellReader(cube.pixels()["image"], size=size).read(cells)
    np.testing.assert_array_equal(found, expected)


def test_what_is_not_on_the_grid_is_refused(cube):
    image = cube.pixels()["image"]
    with pytest.raises(GridMismatchError, match="divisor of the 24 pixels per cell, received 5"):
        CellReader(image, size=5)
    with pytest.raises(GridMismatchError, match=r"'y', 'x', 'band'"):
        CellReader(image.transpose("y", "x", "band").assign_attrs(EXTENT.attributes()))
    with pytest.raises(GridMismatchError, match=r"'pixels_per_cell'.* is missing"):
        CellReader(xr.DataArray(np.zeros((3, 24, 24), np.uint8), dims=("band", "y", "x")))
    reader = CellReader(image)
    with pytest.raises(GridMismatchError, match="outside the extent"):
        reader.read(np.array([[EXTENT.row, EXTENT.col - 1]]))
    with pytest.raises(GridMismatchError, match="a side of 20 at corners from 0 to 5"):
        reader.read(all_cells()[:1], corners=np.array([[0, 5]]), side=20)
    assert reader.read(np.empty((0, 2), int)).shape == (0, 24, 24, 3)


def shard_of(cube, row=-3, col=1):
    i, j = EXTENT.block_position(row, col)
    return f"{cube.path}/pixels/image/c/0/{i}/{j}"


def break_at(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset, 0 if offset >= 0 else 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("offset", [10, -1, -40])
def test_damage_names_cube_block_and_cell(tmp_path, offset):
    cube = make_cube(tmp_path / "city.zarr")
    break_at(shard_of(cube), offset)
    first = np.array([[-9, 4]])  # block (-3, 1) begins with cell (-9, 3), which is absent
    with pytest.raises(ReadError) as caught:
        CellReader(cube.pixels()["image"]).read(first)
    message = str(caught.value)
    for part in (cube.path, "cell (-9, 4) of block (-3, 1)", "checksum", "pixels/image/c/0/0/0"):
        assert part in message
    assert ("index" in message) == (offset < 0)


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_a_shard_cut_short_is_an_error(tmp_path, keep):
    cube = make_cube(tmp_path / "city.zarr")
    with open(shard_of(cube), "r+b") as file:
        file.truncate(keep if keep >= 0 else file.seek(0, 2) + keep)
    with pytest.raises(ReadError, match="index is damaged: expected 148 bytes"):
        CellReader(cube.pixels()["image"]).read(np.array([[-9, 4]]))


def test_damage_stops_a_training_with_its_own_words(tmp_path):
    """Also from one of several threads, and without waiting for ever."""
    import keras

    from sesgrid.stages.cell_batches import CellBatches

    cube = make_cube(tmp_path / "city.zarr")
    break_at(shard_of(cube, -1, 3), 10)
    reader = CellReader(cube.pixels()["image"])
    cells = np.argwhere(np.ones((9, 9), bool)) + np.array([EXTENT.row, EXTENT.col])
    data = CellBatches(reader, cells, np.zeros(81, int), 2, 4, workers=2)
    model = keras.Sequential(
        [keras.Input((PX, PX, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    with pytest.raises(Exception, match=r"of block \(-1, 3\) cannot be read"):
        model.fit(data, verbose=0, shuffle=False)
    assert isinstance(data.failure, ReadError)


def test_an_object_store_gives_the_same_cells(s3, cube):
    from sesgrid.store.lazy import write_cube

    url, client = s3
    remote = write_cube(cube.pixels(), f"{url}/reader.zarr")
    reader, cells = CellReader(remote.pixels()["image"]), all_cells()
    assert reader.from_shards
    np.testing.assert_array_equal(reader.read(cells), through_zarr(cube, cells))
    for key in client.list_objects_v2(Bucket="maps", Prefix="reader.zarr/pixels/image/c/")[
        "Contents"
    ]:
        client.delete_object(Bucket="maps", Key=key["Key"])
    with pytest.raises(ReadError, match=r"cell \(-9, 4\) of block \(-3, 1\).* went away"):
        reader.read(np.array([[-9, 4]]))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    planar=st.booleans(),
    flips=st.tuples(st.booleans(), st.booleans()),
    data=st.data(),
)
def test_a_cell_is_placed_as_numpy_slices_it(height, width, planar, flips, data):
    rng = np.random.default_rng([height, width])
    shape = (3, height, width) if planar else (height, width, 3)
    cell = rng.integers(0, 256, shape).astype(np.uint8)
    cell = cell if planar else cell.transpose(2, 0, 1)
    ny, nx = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - ny)), data.draw(st.integers(0, width - nx))
    around = np.full((3, ny, nx, 3), 7, np.uint8)
    place_cell(cell, around[1], *flips, top, left)
    turned = cell.transpose(1, 2, 0)[:: 1 - 2 * flips[0], :: 1 - 2 * flips[1]]
    np.testing.assert_array_equal(around[1], turned[top : top + ny, left : left + nx])
    assert (around[[0, 2]] == 7).all()


@settings(max_examples=40, deadline=None)
@given(factor=st.integers(1, 9), n=st.integers(1, 6), level=st.sampled_from([0, 1, 128, 255]))
def test_means_are_exact(factor, n, level):
    rng = np.random.default_rng([factor, n])
    cell = rng.integers(0, level + 1, (2, n * factor, 2 * factor)).astype(np.uint8)
    squares = cell.astype(int).reshape(2, n, factor, 2, factor)
    # halves up, in whole numbers
    expected = (2 * squares.sum(axis=(2, 4)) + factor**2) // (2 * factor**2)
    np.testing.assert_array_equal(average(cell, factor), expected)


def test_a_batch_that_somebody_holds_is_not_filled_again():
    rooms = Rooms(most=2)
    held = rooms.take((2, 3))
    held[:] = 7
    views = [held[0], memoryview(held), held.T.reshape(-1)]
    for _ in range(5):
        rooms.take((2, 3))[:] = 0
        rooms.take((1, 3))[:] = 0
    assert (held == 7).all()
    del held
    rooms.take((2, 3))[:] = 0
    assert (views[0] == 7).all()
