"""The cube: opened by plain xarray and zarr, one writer a shard, other grids and versions refused."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr

from sesgrid import mosaic, open_cube, write_cube
from sesgrid.errors import FormatError, GridMismatchError, MissingInputError
from sesgrid.grid import Extent, Grid
from sesgrid.store.cube import Cube
from sesgrid.store.sealed_cells import fault_of_cells
from sesgrid.store.written import list_written
from tests.test_mosaic import FakeReader, around, cells, tiles

EXTENT = Extent.of_cells(Grid(10, 4), [0, 9], [0, 9])


def block_arrays(value=7):
    layer = np.full((40, 40), value, dtype=np.uint8)
    return {"image": np.stack([layer] * 3), "coverage": layer}


@pytest.fixture
def cube(tmp_path):
    return Cube.create(tmp_path / "cube.zarr", EXTENT, {"title": "test"})


def test_plain_xarray_finds_crs_transform_and_pixels(cube):
    cube.write_block(1, 2, block_arrays())
    plain = xr.open_datatree(cube.path, engine="zarr", consolidated=False, decode_coords="all")
    pixels = plain["pixels"].to_dataset()
    assert pixels.rio.crs.to_epsg() == 3035
    assert pixels.rio.transform() == EXTENT.transform
    assert pixels["image"].rio.bounds() == pytest.approx(EXTENT.bounds)
    y, x = EXTENT.block_slices(1, 2)
    assert (pixels["image"].values[:, y, x] == 7).all()
    assert pixels["image"].values.sum() == 7 * 3 * 1600
    centre = pixels["coverage"].sel(x=2 * 800 + 10, y=-800 - 10)
    assert int(centre) == 7


def test_our_opening_is_lazy_with_a_chunk_a_block(cube):
    tree = open_cube(cube.path)
    assert tree["pixels"]["image"].chunks == ((3,), (40,) * 3, (40,) * 3)
    assert tree.attrs["title"] == "test"
    assert tree["pixels"].attrs["pixels_per_cell"] == 10


def test_a_block_is_a_shard_and_a_cell_an_inner_chunk(cube):
    array = zarr.open_group(cube.path)["pixels/image"]
    assert array.shards == (3, 40, 40)
    assert array.chunks == (3, 10, 10)


def test_cells_where_nobody_lives_cost_no_bytes(cube, tmp_path):
    def size():
        files = (tmp_path / "cube.zarr/pixels/image").rglob("*")
        return sum(p.stat().st_size for p in files if p.is_file() and p.name != "zarr.json")

    rng = np.random.default_rng(0)
    image = np.zeros((3, 40, 40), dtype=np.uint8)
    image[:, :10, :10] = rng.integers(1, 255, (3, 10, 10))
    cube.write_block(0, 0, {"image": image})
    one = size()
    assert 300 < one < 900
    cube.write_block(0, 0, {"image": image})
    assert size() == one


def test_a_block_rewritten_is_identical(cube, tmp_path):
    cube.write_block(0, 1, block_arrays(3))
    shard = next(p for p in (tmp_path / "cube.zarr/pixels/image").rglob("c/**/*") if p.is_file())
    before = shard.read_bytes()
    cube.write_block(0, 1, block_arrays(3))
    assert shard.read_bytes() == before


def write_every_other(path, first, barrier, told):
    """A job: its blocks again and again while the other one writes those beside them."""
    cube, rng = Cube.open(path), np.random.default_rng(first)
    blocks = [(row, col) for row in range(3) for col in range(3)][first::2]
    drawn = {at: rng.integers(0, 255, (40, 40), dtype=np.uint8) for at in blocks}
    barrier.wait(60)
    begun = time.monotonic()
    for _ in range(20):
        for at, layer in drawn.items():
            cube.write_block(*at, {"image": np.stack([layer] * 3), "coverage": layer})
    told.put((begun, time.monotonic(), drawn))


@pytest.mark.slow
def test_disjoint_blocks_are_written_at_the_same_time(cube):
    spawn = multiprocessing.get_context("spawn")
    barrier, told = spawn.Barrier(2), spawn.Queue()
    jobs = [
        spawn.Process(target=write_every_other, args=(str(cube.path), k, barrier, told))
        for k in range(2)
    ]
    for job in jobs:
        job.start()
    ends = [told.get(timeout=120) for _ in jobs]
    for job in jobs:
        job.join()
    assert max(begun for begun, *_ in ends) < min(ended for _, ended, _ in ends)
    drawn = ends[0][2] | ends[1][2]
    assert len(drawn) == 9
    written = open_cube(cube.path)["pixels"].load()
    for at, layer in drawn.items():
        y, x = EXTENT.block_slices(*at)
        np.testing.assert_array_equal(written["coverage"].values[y, x], layer)
        np.testing.assert_array_equal(written["image"].values[:, y, x], np.stack([layer] * 3))


@pytest.mark.parametrize(
    ("arrays", "at"),
    [
        ({"image": np.zeros((3, 40, 39), np.uint8)}, (0, 0)),
        ({"image": np.zeros((40, 40), np.uint8)}, (0, 0)),
        ({"coverage": np.zeros((40, 40), np.int64)}, (0, 0)),
        ({"depth": np.zeros((40, 40), np.uint8)}, (0, 0)),
        (block_arrays(), (3, 0)),
    ],
)
def test_what_is_not_a_whole_block_is_refused_before_a_byte(cube, arrays, at):
    with pytest.raises(GridMismatchError, match="block"):
        cube.write_block(*at, {"coverage": block_arrays()["coverage"], **arrays})
    assert not open_cube(cube.path)["pixels"]["coverage"].values.any()


def test_other_things_are_not_cubes(cube, tmp_path):
    with pytest.raises(MissingInputError, match="no cube at"):
        Cube.open(tmp_path / "nothing.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(FormatError, match="version None"):
        Cube.open(tmp_path / "other.zarr")
    zarr.open_group(cube.path, mode="r+").attrs["sesgrid_cube_version"] = 99
    with pytest.raises(FormatError, match="version 99"):
        open_cube(cube.path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("precious")
    with pytest.raises(FormatError, match="move it away"):
        Cube.create(tmp_path / "folder", EXTENT, {})
    assert (tmp_path / "folder" / "thesis.txt").exists()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "cells/notes.txt",
        "pixels/image/c/0/1.csv",
        "shards/image/mine",
        "pixels/a/zarr",
    ],
)
def test_a_cube_with_files_of_others_in_it_stays(cube, name):
    mine = Path(cube.path) / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(FormatError, match=f"{mine.name}'.* no part of a cube: move it away"):
        Cube.create(cube.path, EXTENT, {})
    assert mine.read_text() == "mine"


def test_sealing_again_removes_nothing_of_others(cube):
    at = pd.DataFrame({"row": [EXTENT.row], "col": [EXTENT.col], "income": [1.0]})
    cube.seal(lambda names: at[names], ["income"], {})
    mine = Path(cube.path) / "cells" / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(FormatError, match=r"'notes\.txt'.* no part of a cube: move it away"):
        cube.seal(lambda names: at[names], ["income"], {})
    assert mine.read_text() == "mine"
    mine.unlink()
    assert float(np.nansum(open_cube(cube.path)["cells"]["income"])) == 1
    cube.seal(lambda names: at[names], ["income"], {})


def test_a_list_of_shards_is_written_over_nothing_of_others(cube):
    list_written(cube.path, EXTENT, "image", [])
    mine = Path(cube.path) / "shards" / "image" / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(FormatError, match=r"'notes\.txt'.* no part of a cube"):
        list_written(cube.path, EXTENT, "image", [])
    assert mine.read_text() == "mine"


def test_no_cube_is_made_inside_another(cube):
    with pytest.raises(FormatError, match=r"lies in the zarr store cube\.zarr"):
        Cube.create(Path(cube.path) / "pixels" / "mine.zarr", EXTENT, {})
    assert not (Path(cube.path) / "pixels" / "mine.zarr").exists()


def test_a_cube_with_a_link_of_others_in_it_stays(cube, tmp_path):
    (tmp_path / "mine").mkdir()
    (Path(cube.path) / "pixels" / "mine").symlink_to(tmp_path / "mine")
    with pytest.raises(FormatError, match="no part of a cube"):
        Cube.create(cube.path, EXTENT, {})


def test_an_empty_folder_is_a_place_for_a_cube(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    made = Cube.create(tmp_path / "empty.zarr", EXTENT, {})
    made.write_block(0, 0, block_arrays())
    table = cells(2).assign(row=[0, 1, 2, 3], col=0, p=0.5)
    made.seal(table.__getitem__, ["p"], {})
    # and so is that of a cube with all that a run writes into it
    assert Cube.create(made.path, EXTENT, {}).token != made.token


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "[]", "null", '{"zarr_format": 3}', "9" * 5000]
)
def test_metadata_of_a_layer_that_no_reader_takes_are_damaged(cube, text):
    (Path(cube.path) / "pixels" / "image" / "zarr.json").write_text(text)
    with pytest.raises(FormatError, match="metadata of pixels/image are gone or damaged"):
        cube.shard_fault("image", 0, 0, (0, 0))
    with pytest.raises(FormatError, match="metadata of a layer"):
        open_cube(cube.path)


def test_another_grid_is_refused(cube):
    Cube.open(cube.path).require(EXTENT)
    with pytest.raises(GridMismatchError, match="another grid"):
        Cube.open(cube.path).require(Extent.of_cells(Grid(20, 4), [0], [0]))


def test_sealed_cells_lie_on_the_200_m_grid(cube):
    table = cells(2).assign(p=[0.1, 0.2, 0.3, None])
    table["row"] -= table["row"].min() - 3
    table["col"] -= table["col"].min() - 5
    cube.seal(table.__getitem__, ["p"], {"sealed": "yes"})
    tree = open_cube(cube.path)
    p = tree["cells"]["p"]
    assert p.shape == (12, 12)
    np.testing.assert_array_equal(p.values[3:5, 5:7], [[0.1, 0.2], [0.3, np.nan]])
    assert np.isfinite(p.values).sum() == 3
    assert tree["cells"].to_dataset().rio.transform().a == 200
    assert tree.attrs["sealed"] == "yes"
    np.testing.assert_array_equal(tree["cells"]["x"].values[5], 5 * 200 + 100)


@pytest.mark.parametrize("key", ["cells/zarr.json", "cells/x/zarr.json", "cells/p/c/0/0"])
@pytest.mark.parametrize("how", ["gone", "garbage", "a folder"])
def test_lost_cells_keep_nobody_from_the_pixels_and_are_sealed_again(tmp_path, key, how):
    made, table = Cube.create(tmp_path / "cube.zarr", EXTENT, {}), cells(2).assign(p=0.5)
    table["row"] -= table["row"].min() - 3
    table["col"] -= table["col"].min() - 5
    made.seal(table.__getitem__, ["p"], {"sealed": "yes"})
    assert fault_of_cells(made.path) is None
    (tmp_path / "cube.zarr" / key).unlink()
    if how == "garbage":
        (tmp_path / "cube.zarr" / key).write_bytes(b"{\0")
    if how == "a folder":
        (tmp_path / "cube.zarr" / key).mkdir()
    assert fault_of_cells(made.path) is not None
    pixels = Cube.open(made.path).pixels()
    assert set(pixels.data_vars) >= {"image", "coverage", "landcover"}
    made.seal(table.__getitem__, ["p"], {"sealed": "yes"})
    assert fault_of_cells(made.path) is None
    assert np.isfinite(open_cube(made.path)["cells"]["p"].values).sum() == len(table)


def test_a_lazy_mosaic_is_written_as_it_computes(tmp_path):
    table = cells(3)
    pixels = mosaic(table, tiles(around(6)), FakeReader(), pixels_per_cell=20, cells_per_block=2)
    cube = write_cube(pixels, tmp_path / "cube.zarr")
    stored = open_cube(cube.path)["pixels"].to_dataset()
    loaded = pixels.compute()
    for name in ("image", "coverage"):
        np.testing.assert_array_equal(stored[name].values, loaded[name].values)
    assert not stored["landcover"].values.any()
    assert stored.rio.transform() == loaded.rio.transform()
    # a cube may be rewritten from its own pixels, and from pixels in memory
    again = write_cube(stored.assign(landcover=stored["coverage"]), cube.path)
    both = open_cube(again.path)["pixels"].to_dataset()
    np.testing.assert_array_equal(both["image"].values, loaded["image"].values)
    np.testing.assert_array_equal(both["landcover"].values, loaded["coverage"].values)
    held = open_cube(write_cube(loaded, tmp_path / "held.zarr").path)["pixels"]
    np.testing.assert_array_equal(held["image"].values, loaded["image"].values)


def test_a_cube_made_anew_is_another_cube(tmp_path):
    path = tmp_path / "cube.zarr"
    old = Cube.create(path, EXTENT, {})
    old.write_block(0, 0, block_arrays(3))
    new = Cube.create(path, Extent.of_cells(Grid(20, 4), [0, 9], [0, 9]), {})
    assert new.token != old.token
    layer = np.full((80, 80), 9, dtype=np.uint8)
    new.write_block(0, 0, {"coverage": layer})
    coverage = open_cube(path)["pixels"]["coverage"].values
    assert (coverage[:80, :80] == 9).all()
    assert coverage.sum() == 9 * 6400


def test_building_a_graph_over_a_cube_reads_no_pixel(cube, monkeypatch):
    import cloudpickle
    import xarray.backends.zarr as backend

    from sesgrid.stages.place import stack_cells

    cube.write_block(1, 2, block_arrays())
    pixels = cube.pixels()
    reads = []
    real = backend.ZarrArrayWrapper._getitem
    monkeypatch.setattr(
        backend.ZarrArrayWrapper,
        "_getitem",
        lambda self, key: reads.append(key) or real(self, key),
    )
    image, _ = stack_cells(pixels, ["image", "coverage"], np.r_[4, 5], np.r_[8, 9], 1)
    graph = cloudpickle.dumps(dict(image.__dask_graph__()))
    assert not reads
    assert len(graph) < 20_000
    np.testing.assert_array_equal(image.compute(scheduler="threads"), 7)
    assert len(reads) == 2
