"""What a cube lost is refused by whoever reads it, and never read as black or as no value."""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import WrapperStore

from sesgrid.errors import FormatError, ReadError, SesgridError
from sesgrid.grid import Extent, Grid
from sesgrid.run.export import export
from sesgrid.store.cell_reader import CellReader
from sesgrid.store.checked import CheckedStore
from sesgrid.store.cube import Cube, open_cube
from sesgrid.store.shard import decode_index, index_size
from sesgrid.store.written import list_written

GRID = Grid(8, 2)
PROTOTYPE = default_buffer_prototype()
ROWS, COLS = np.array([0, 1, 2, 5]), np.array([0, 1, 3, 5])


@pytest.fixture
def cube(tmp_path) -> Cube:
    """Three by three blocks, of which those of the diagonal have pixels, and sealed cells."""
    extent = Extent.of_cells(GRID, ROWS, COLS)
    made, n = Cube.create(tmp_path / "c.zarr", extent, {"title": "T"}), GRID.block_px
    shards: dict[str, list] = {"image": [], "coverage": [], "landcover": []}
    for k in range(extent.n_block_rows):
        at = extent.block_row + k, extent.block_col + k
        arrays = {
            "image": np.full((3, n, n), 50 + k, np.uint8),
            "coverage": np.ones((n, n), np.uint8),
            "landcover": np.full((n, n), 3, np.uint8),
        }
        for layer, shard in made.write_block(*at, arrays).items():
            shards[layer].append((at, shard))
    for layer, found in shards.items():
        list_written(made.path, extent, layer, found)
    table = pd.DataFrame({"row": ROWS, "col": COLS, "income": [1.5, 2.0, 3.0, 4.0]})
    made.seal(lambda names: table[names], ["income"], {"sealed": "key"})
    return made


def shard(cube: Cube, layer: str) -> Path:
    lead = "c/0" if layer == "image" else "c"
    return Path(cube.path) / "pixels" / layer / lead / "1" / "1"


def readers(cube: Cube, layer: str, tmp_path: Path):
    yield lambda: open_cube(cube.path)["pixels"][layer].to_numpy()
    yield lambda: open_cube(cube.path, chunked=False)["pixels"][layer].to_numpy()
    travelled = pickle.loads(pickle.dumps(open_cube(cube.path)["pixels"][layer]))  # noqa: S301
    yield lambda: travelled.to_numpy()
    yield lambda: export(cube.path, tmp_path / "x.tif", layer)
    if layer == "image":
        # last: what others looked at before must not be what it believes
        cells = np.array([[2, 2], [2, 3], [3, 2], [3, 3]])
        yield lambda: CellReader(cube.pixels()["image"]).read(cells)
        yield lambda: CellReader(cube.pixels(chunked=True)["image"]).read(cells)


@pytest.mark.parametrize("layer", ["image", "landcover"])
def test_a_shard_that_is_gone_or_damaged_is_refused_by_every_reader(cube, layer, tmp_path):
    whole = open_cube(cube.path, chunked=False)["pixels"][layer].to_numpy()
    # a block that never had a shard is black, before and after
    assert whole[..., :16, -16:].max() == 0
    assert [read() is not None for read in readers(cube, layer, tmp_path)]
    data = shard(cube, layer).read_bytes()
    for damaged in (None, data[:-3], data[:9] + b"\x00\xff" + data[11:]):
        shard(cube, layer).unlink() if damaged is None else shard(cube, layer).write_bytes(damaged)
        for read in readers(cube, layer, tmp_path):
            with pytest.raises(ReadError, match=r"block \(1, 1\)"):
                read()
        assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]
    corner = open_cube(cube.path, chunked=False)["pixels"][layer][..., :16, -16:]
    assert corner.to_numpy().max() == 0


@pytest.mark.parametrize("layer", ["image", "landcover"])
@pytest.mark.parametrize("stray", [False, True], ids=["in another's place", "where none was"])
def test_a_shard_of_another_block_is_refused_by_every_reader(cube, layer, stray, tmp_path):
    n, rng = GRID.block_px, np.random.default_rng(1)
    noise = rng.integers(1, 255, (3, n, n)).astype(np.uint8)
    # whole, and of this very cube's grid, codec and cells
    other = Cube.create(tmp_path / "other.zarr", cube.extent, {})
    at = cube.extent.block_row + 1, cube.extent.block_col + 1
    other.write_block(*at, {layer: noise if layer == "image" else noise[0]})
    place = shard(cube, layer)
    if stray:
        data = {k: (place.parent.with_name(str(1 + k)) / str(1 + k)).read_bytes() for k in (-1, 1)}
        known = [((at[0] + k, at[1] + k), (len(d), zlib.crc32(d))) for k, d in data.items()]
        list_written(cube.path, cube.extent, layer, known)
    place.write_bytes(shard(other, layer).read_bytes())
    for read in readers(cube, layer, tmp_path):
        with pytest.raises(ReadError, match=r"block \(1, 1\).* another than was written"):
            read()


@pytest.mark.parametrize("layer", ["image", "coverage"])
def test_shards_of_one_size_that_were_swapped_are_found(cube, layer):
    n, at = GRID.block_px, (cube.extent.block_row, cube.extent.block_col)
    shape = (3, n, n) if layer == "image" else (n, n)
    written = {
        k: cube.write_block(at[0] + k, at[1] + k, {layer: np.full(shape, 60 + k, np.uint8)})[layer]
        for k in range(3)
    }
    blocks = [((at[0] + k, at[1] + k), of) for k, of in written.items()]
    list_written(cube.path, cube.extent, layer, blocks)
    assert not any(cube.shard_fault(layer, *block, of) for block, of in blocks)
    first = shard(cube, layer)
    second = first.parent.with_name("2") / "2"
    assert first.stat().st_size == second.stat().st_size
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    faults = [cube.shard_fault(layer, *block, of) for block, of in blocks]
    assert [fault is not None for fault in faults] == [False, True, True]
    with pytest.raises(ReadError, match=r"block \([12], [12]\).* another than was written"):
        open_cube(cube.path)["pixels"][layer].to_numpy()


def test_whatever_zarr_asks_a_store_for_is_checked():
    """Its wrapper hands on what is not overridden here."""
    reading = {name for name in vars(WrapperStore) if "get" in name}
    assert reading <= set(vars(CheckedStore))
    assert "get" in reading


async def _parts(store, key: str, parts: list) -> list:
    return [
        found
        async for group in store.get_ranges(key, parts, prototype=PROTOTYPE)
        for found in group
    ]


def test_parts_of_a_shard_are_checked_however_zarr_asks_for_them(cube):
    path, key = shard(cube, "image"), "pixels/image/c/0/1/1"
    data = path.read_bytes()
    index = decode_index(data[-index_size(2) :], 2).reshape(-1, 2).tolist()
    parts = [RangeByteRequest(start, start + n) for start, n in index]
    store = CheckedStore(cube.path, cube.extent)
    whole = [data[p.start : p.end] for p in parts]
    asked = [(key, p) for p in parts]
    assert [b.to_bytes() for _, b in asyncio.run(_parts(store, key, parts))] == whole
    found = asyncio.run(store.get_partial_values(PROTOTYPE, asked))
    assert [b.to_bytes() for b in found] == whole
    path.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
    for ask in (
        lambda: _parts(store, key, parts),
        lambda: store.get_partial_values(PROTOTYPE, asked),
    ):
        with pytest.raises(ReadError, match=r"block \(1, 1\), image .*, is damaged"):
            asyncio.run(ask())
    with pytest.raises(TypeError, match="asynchronously"):
        store.get_sync(key)


@pytest.mark.parametrize("layer", ["image", "landcover"])
@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}}},
        {"data_type": "int8"},
        {"attributes": {"scale_factor": 2.0}},
        {"attributes": {"_FillValue": 51}},
        {"dimension_names": ["x", "y"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_metadata_that_have_a_layer_read_otherwise_are_refused(cube, layer, changes, tmp_path):
    path = Path(cube.path) / "pixels" / layer / "zarr.json"
    told = json.loads(path.read_text())
    if "dimension_names" in changes:
        changes = {"dimension_names": [*told["dimension_names"][:-2], "x", "y"]}
    changes = {k: told[k] | v if k == "attributes" else v for k, v in changes.items()}
    path.write_text(json.dumps(told | changes))
    for read in (
        lambda: open_cube(cube.path)["pixels"][layer].to_numpy(),
        lambda: export(cube.path, tmp_path / "x.tif", layer),
        lambda: CellReader(cube.pixels()["image"]).read(np.array([[2, 2], [3, 3]])),
    )[: 3 if layer == "image" else 2]:
        with pytest.raises(SesgridError, match=layer):
            read()


def test_an_extent_of_another_size_is_refused(cube, tmp_path):
    root = Path(cube.path) / "zarr.json"
    told = json.loads(root.read_text())
    changed = {
        k: v + 10**15 for k, v in told["attributes"].items() if k.endswith(("_rows", "_cols"))
    }
    assert changed
    root.write_text(json.dumps(told | {"attributes": told["attributes"] | changed}))
    for target in ("x.tif", "x.parquet"):
        with pytest.raises(FormatError, match="metadata of a layer"):
            export(cube.path, tmp_path / target, "image")


@pytest.mark.parametrize(
    "lose",
    [
        lambda lists: shutil.rmtree(lists),
        lambda lists: (lists / "zarr.json").write_text("{"),
        lambda lists: shutil.rmtree(lists / "image"),
        lambda lists: shutil.rmtree(lists / "image" / "c"),
        lambda lists: (lists / "image" / "zarr.json").write_bytes(b"\xff" * 40),
    ],
)
def test_without_its_list_nobody_believes_that_a_shard_never_was(cube, lose):
    lose(Path(cube.path) / "shards")
    shard(cube, "image").unlink()
    with pytest.raises(SesgridError, match=r"shards?\b"):
        open_cube(cube.path, chunked=False)["pixels"]["image"].to_numpy()


@pytest.mark.parametrize(
    "lose",
    [
        lambda cells: (cells / "income" / "c" / "0" / "0").unlink(),
        lambda cells: (cells / "income" / "c" / "0" / "0").write_bytes(b"garbage"),
        lambda cells: shutil.rmtree(cells / "income"),
        lambda cells: (cells / "income" / "zarr.json").unlink(),
        lambda cells: shutil.rmtree(cells / "x" / "c"),
        lambda cells: shutil.rmtree(cells),
        lambda cells: (cells / "zarr.json").write_text("{"),
    ],
)
def test_sealed_cells_are_what_they_were_sealed_with(cube, lose, tmp_path):
    table = pd.read_parquet(export(cube.path, tmp_path / "healthy.parquet"))
    assert sorted(table["income"].dropna()) == [1.5, 2.0, 3.0, 4.0]
    lose(Path(cube.path) / "cells")
    with pytest.raises(SesgridError):
        export(cube.path, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_metadata_of_another_version_are_not_opened(cube):
    """They may name any codec, also one that runs what it decodes."""
    pixels = Path(cube.path) / "pixels"
    shutil.rmtree(pixels)
    image = pixels / "image"
    image.mkdir(parents=True)
    (pixels / ".zgroup").write_text('{"zarr_format": 2}')
    array = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C",
        "filters": None, "compressor": {"id": "pickle"},
    }  # fmt: skip
    (image / ".zarray").write_text(json.dumps(array))
    (image / "0").write_bytes(pickle.dumps("x"))
    with pytest.raises(SesgridError, match="zarr"):
        open_cube(cube.path)


def test_only_a_cubes_own_files_are_removed_with_it(cube, tmp_path):
    notes = Path(cube.path) / "my-notes.txt"
    notes.write_text("mine")
    beside = tmp_path / ".c.zarr.new"
    beside.mkdir()
    (beside / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match=r"my-notes\.txt.*move it away"):
        Cube.create(cube.path, cube.extent, {})
    notes.rename(tmp_path / "my-notes.txt")
    assert Cube.create(cube.path, cube.extent, {}).token != cube.token
    assert (beside / "mine.txt").read_text() == "mine"
    names = {"c.zarr", ".c.zarr.new", "my-notes.txt"}
    assert {p.name for p in tmp_path.iterdir()} == names
