"""The one placing function: every stage's graph is made here.

Why the graph has this shape
----------------------------
A national cube's bounding box holds 465,000 blocks, most of them sea, fields or abroad. A graph
over that dense array would cost more in scheduling than the work itself. So a stage never sees the
dense array: the caller lists the work (inhabited blocks, or inhabited cells) as frozen values, and
`place` makes an array of *results* along that list, one dask chunk per group of items. Inputs that
hold pixels are stacked along the same axis. Whatever needs pixels again (a lazy view, a write into
the cube) maps over the results, and dask fuses it into the same task, so a block's pixels never
leave the worker that made them.

The Python API and the run engine call this same function; only what they do with the results differs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import xarray as xr

from sesgrid.grid import Extent, Grid
from sesgrid.store.georeference import georeference

__all__ = [
    "BlockCells",
    "BlockResult",
    "Layer",
    "Stage",
    "group_blocks",
    "lazy_pixels",
    "place",
    "plan_blocks",
    "stack_cells",
]

_NO_RESULTS = np.empty(0, dtype=object)

GROUP_SIDE = 4
"""Blocks along the side of a group: 6.4 km with the default grid, about one aerial tile."""

Item = TypeVar("Item")

Groups = int | tuple[int, ...]
"""Items per task, or of each task."""


Stage = Callable[..., Sequence[Any]]
"""What a worker runs: a small picklable value, called as ``stage(items, *inputs)`` with a list of
work items and, per input, an array whose first axis runs along the items; one result per item."""


@dataclass(frozen=True)
class BlockCells:
    """A block with inhabited cells: the unit of work of the stages that make pixels."""

    block_row: int
    """Global block row."""
    block_col: int
    """Global block column."""
    cells: tuple[tuple[int, int], ...]
    """(row, col) of the inhabited cells, global, sorted."""

    @property
    def name(self) -> str:
        """How messages name the block."""
        return f"block ({self.block_row}, {self.block_col})"


@dataclass(frozen=True)
class BlockResult:
    """The pixels of one block, and what its record keeps."""

    block: BlockCells
    arrays: Mapping[str, np.ndarray]
    """``image`` (band, y, x), ``coverage`` (y, x), ``landcover`` (y, x), as the stage makes them."""
    rows: tuple[dict, ...] = ()
    """One row per cell."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """What went wrong without stopping the run: path of a tile → message."""
    seconds: float = 0.0


def plan_blocks(grid: Grid, rows: np.ndarray, cols: np.ndarray) -> list[BlockCells]:
    """Group cells into blocks, in a fixed order (by block row, then column).

    Parameters
    ----------
    grid : Grid
    rows, cols : np.ndarray
        int ``(cell,)``: global indices.

    Examples
    --------
    >>> [b.cells for b in plan_blocks(Grid(100, 8), [0, 9, 1], [0, 0, 3])]
    [((0, 0), (1, 3)), ((9, 0),)]
    """
    members: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, col in sorted(zip(map(int, rows), map(int, cols), strict=True)):
        members.setdefault(grid.block_of(row, col), []).append((row, col))
    return [BlockCells(*key, tuple(members[key])) for key in sorted(members)]


def group_blocks(work: Sequence[Item], side: int = GROUP_SIDE) -> list[tuple[Item, ...]]:
    """Group blocks into squares anchored to the grid's origin, each walked like a snake.

    What neighbours share (decoded source pixels) is then shared inside one task.

    Parameters
    ----------
    work : sequence
        Items with a ``block``, or blocks.
    side : int
        Blocks along the side of a square.

    Examples
    --------
    >>> blocks = [BlockCells(r, c, ()) for r in range(2) for c in range(3)]
    >>> [[(b.block_row, b.block_col) for b in g] for g in group_blocks(blocks, 2)]
    [[(0, 0), (0, 1), (1, 1), (1, 0)], [(0, 2), (1, 2)]]
    """

    def place_of(item: Item) -> tuple[int, int, int, int]:
        block: Any = getattr(item, "block", item)
        row, col = block.block_row, block.block_col
        return row // side, col // side, row, col if row % 2 == 0 else -col

    groups: dict[tuple[int, int], list[Item]] = {}
    for item in sorted(work, key=place_of):
        groups.setdefault(place_of(item)[:2], []).append(item)
    return [tuple(group) for group in groups.values()]


def place(
    stage: Stage,
    work: Sequence[Any],
    *inputs: da.Array,
    group: Groups = 1,
    name: str | None = None,
) -> da.Array:
    """Lay a stage over a list of work items.

    Parameters
    ----------
    stage : Stage
        Called once per group with the items (and the matching slices of the inputs).
    work : sequence
        Frozen values: `BlockCells`, or one value per cell.
    *inputs : dask.array.Array
        ``(item, …)``, chunked by ``group`` along the first axis and whole along the others.
    group : int or tuple of int
        Items per task, or of each task.
    name : str, optional
        Shown on the dashboard.

    Returns
    -------
    dask.array.Array
        object ``(item,)``: one result per item. Nothing is computed.
    """
    items = np.empty(len(work), dtype=object)
    items[:] = list(work)
    index = da.from_array(items, chunks=(group,), name=False)
    pairs: list[Any] = []
    for array in inputs:
        pairs += [array, (0, *range(1, array.ndim))]
    # contracted axes: each input's own, so they may differ in length between inputs
    offset = 1
    for k in range(1, len(pairs), 2):
        axes = pairs[k]
        pairs[k] = (0, *range(offset, offset + len(axes) - 1))
        offset += len(axes) - 1
    return da.blockwise(
        _run,
        (0,),
        index,
        (0,),
        *pairs,
        stage=stage,
        concatenate=True,
        dtype=object,
        meta=_NO_RESULTS,
        token=name or type(stage).__name__.lower(),
    )


def _run(items: np.ndarray, *inputs: np.ndarray, stage: Stage) -> np.ndarray:
    results = np.empty(len(items), dtype=object)
    if len(items):
        results[:] = stage(list(items), *inputs)
    return results


def lazy_pixels(
    results: da.Array, blocks: Sequence[BlockCells], extent: Extent, names: Mapping[str, int]
) -> xr.Dataset:
    """Unstack block results into an ordinary lazy dataset over the extent.

    Parameters
    ----------
    results : dask.array.Array
        object ``(block,)`` of `BlockResult`, one block a chunk.
    blocks : sequence of BlockCells
        The blocks, in the order of the results.
    extent : Extent
    names : mapping
        Variable → number of bands (0 for a plain ``(y, x)`` layer); all uint8.

    Returns
    -------
    xarray.Dataset
        uint8 ``(band, y, x)`` or ``(y, x)``, one chunk a block, zero where there is no block.
    """
    at = {extent.block_position(b.block_row, b.block_col): k for k, b in enumerate(blocks)}
    size = extent.grid.block_px
    data = {}
    for name, bands in names.items():
        lead = (bands,) if bands else ()
        stack = da.map_blocks(
            _take,
            results,
            name,
            dtype=np.uint8,
            new_axis=list(range(1, 3 + len(lead))),
            chunks=((1,) * len(blocks), *((n,) for n in (*lead, size, size))),
            meta=np.empty((0,) * (3 + len(lead)), dtype=np.uint8),
        )
        nothing = da.zeros((*lead, size, size), dtype=np.uint8, chunks=-1)
        rows = [
            [stack[at[i, j]] if (i, j) in at else nothing for j in range(extent.n_block_cols)]
            for i in range(extent.n_block_rows)
        ]
        data[name] = ((("band",) if bands else ()) + ("y", "x"), da.block(rows))
    return georeference(xr.Dataset(data), extent)


def _take(results: np.ndarray, name: str) -> np.ndarray:
    return np.stack([r.arrays[name] for r in results])


def stack_cells(
    pixels: xr.Dataset, names: Sequence[str], rows: np.ndarray, cols: np.ndarray, group: Groups
) -> list[da.Array]:
    """Stack cells: ``(cell, [band,] y, x)``, chunked by ``group`` cells.

    A dataset that holds no dask arrays (opened from the cube, or in memory) is read inside the
    tasks, so only the listed cells are ever touched. A lazy one is sliced.
    """
    extent = Extent.from_attributes(pixels.attrs)
    slices = [extent.cell_slices(int(r), int(c)) for r, c in zip(rows, cols, strict=True)]
    out = []
    for name in names:
        array = pixels[name].variable
        if array.chunks is not None:
            cells = [array.data[..., y, x] for y, x in slices]
            stacked = da.stack(cells).rechunk((group, *([-1] * array.ndim)))
        else:
            index = np.empty(len(slices), dtype=object)
            index[:] = slices
            p = extent.grid.pixels_per_cell
            shape = (*array.shape[:-2], p, p)
            index_chunks = da.from_array(index, chunks=(group,), name=False)
            stacked = index_chunks.map_blocks(
                _read_cells,
                layer=Layer(array),
                dtype=array.dtype,
                new_axis=list(range(1, 1 + len(shape))),
                chunks=(index_chunks.chunks[0], *((n,) for n in shape)),
                meta=np.empty((0,) * (1 + len(shape)), dtype=array.dtype),
                token=f"read-{name}",
            )
        out.append(stacked)
    return out


@dataclass(frozen=True, eq=False)
class Layer:
    """A pixel layer that is indexed where a task needs it.

    Dask hashes what it finds in a graph, and would read a lazy variable whole to do so: the layer
    answers with a name of its own instead.
    """

    variable: xr.Variable
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def cells(self, slices: Iterable[tuple[slice, slice]]) -> np.ndarray:
        """Pixels ``(cell, [band,] y, x)`` of some cells, each by its rows and columns."""
        return np.stack([np.asarray(self.variable[..., y, x]) for y, x in slices])

    def __dask_tokenize__(self) -> tuple[str, str]:
        return ("sesgrid-layer", self.token)


def _read_cells(index: np.ndarray, layer: Layer) -> np.ndarray:
    return layer.cells(index)
