"""The placing function: results in order, inputs matched, the same for any grouping."""

from __future__ import annotations

from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sesgrid.errors import GridMismatchError
from sesgrid.grid import Extent, Grid
from sesgrid.stages.place import (
    BlockCells,
    BlockResult,
    group_blocks,
    lazy_pixels,
    place,
    plan_blocks,
    stack_cells,
)
from sesgrid.store.georeference import georeference

GRID = Grid(4, 2)


@dataclass(frozen=True)
class AddSums:
    """Item + sum of its part of every input."""

    def __call__(self, items, *inputs):
        return [i + sum(float(a[k].sum()) for a in inputs) for k, i in enumerate(items)]


@dataclass(frozen=True)
class Paint:
    def __call__(self, items):
        out = []
        for block in items:
            value = (block.block_row * 7 + block.block_col) % 250 + 1
            layer = np.full((8, 8), value, dtype=np.uint8)
            out.append(BlockResult(block, {"coverage": layer, "image": np.stack([layer] * 3)}))
        return out


def no_compute(dsk, keys, **kwargs):
    raise AssertionError("computed while building the graph")


@pytest.mark.parametrize("group", [1, 3, 100])
def test_each_item_gets_its_own_slice_of_every_input(group):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (7, 2, 3)), rng.integers(0, 9, (7, 5))
    with dask.config.set(scheduler=no_compute):
        inputs = [da.from_array(a, (group, 2, 3)), da.from_array(b, (group, 5))]
        placed = place(AddSums(), list(range(0, 700, 100)), *inputs, group=group)
    expected = np.arange(0, 700, 100) + a.sum((1, 2)) + b.sum(1)
    assert placed.compute().tolist() == expected.tolist()
    assert placed.chunks[0][0] == min(group, 7)


def test_plan_blocks_lists_each_block_once_in_order():
    rng = np.random.default_rng(1)
    rows, cols = rng.integers(-9, 9, 50), rng.integers(-9, 9, 50)
    blocks = plan_blocks(GRID, rows, cols)
    keys = [(b.block_row, b.block_col) for b in blocks]
    assert keys == sorted(set(keys))
    cells = [c for b in blocks for c in b.cells]
    assert sorted(cells) == sorted(zip(rows.tolist(), cols.tolist(), strict=True))
    assert all(GRID.block_of(*c) == (b.block_row, b.block_col) for b in blocks for c in b.cells)


def test_unstacked_blocks_lie_where_the_grid_puts_them():
    blocks = plan_blocks(GRID, [0, 3, 5], [0, 4, 1])
    extent = Extent.of_cells(GRID, [0, 3, 5], [0, 4, 1])
    with dask.config.set(scheduler=no_compute):
        results = place(Paint(), blocks)
        pixels = lazy_pixels(results, blocks, extent, {"image": 3, "coverage": 0})
    assert pixels.rio.crs.to_epsg() == 3035
    assert pixels.rio.transform() == extent.transform
    loaded = pixels.compute()
    for block in blocks:
        at = extent.block_slices(block.block_row, block.block_col)
        value = (block.block_row * 7 + block.block_col) % 250 + 1
        assert (loaded["coverage"].values[at] == value).all()
        assert (loaded["image"].values[(slice(None), *at)] == value).all()
    assert (loaded["coverage"].values > 0).sum() == len(blocks) * 64


@given(
    places=st.sets(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=60),
    side=st.integers(1, 5),
)
def test_groups_hold_every_block_once_and_near_each_other(places, side):
    blocks = [BlockCells(r, c, ()) for r, c in places]
    groups = group_blocks(blocks, side)
    assert sorted(b.name for g in groups for b in g) == sorted(b.name for b in blocks)
    for group in groups:
        assert len({(b.block_row // side, b.block_col // side) for b in group}) == 1
    assert len(groups) == len({(r // side, c // side) for r, c in places})
    assert groups == group_blocks(blocks[::-1], side)


@pytest.mark.parametrize("lazy", [False, True])
def test_stacked_cells_are_the_cells(lazy):
    extent = Extent.of_cells(GRID, [0, 5], [0, 5])
    rng = np.random.default_rng(2)
    image = rng.integers(0, 255, (3, *extent.shape_px), dtype=np.uint8)
    pixels = georeference(xr.Dataset({"image": (("band", "y", "x"), image)}), extent)
    if lazy:
        pixels = pixels.chunk({"y": 8, "x": 8})
    rows, cols = np.array([0, 5, 2]), np.array([3, 1, 2])
    (stack,) = stack_cells(pixels, ["image"], rows, cols, 2)
    assert stack.chunks == ((2, 1), (3,), (4,), (4,))
    for k, loaded in enumerate(stack.compute()):
        y, x = extent.cell_slices(int(rows[k]), int(cols[k]))
        np.testing.assert_array_equal(loaded, image[:, y, x])


def test_pixels_of_unknown_origin_are_refused():
    with pytest.raises(GridMismatchError, match="missing"):
        stack_cells(xr.Dataset(), [], np.array([]), np.array([]), 1)
