"""The blocks of a run in batches: the same ones for every stage, so that a batch rests on its namesakes.

Blocks with inhabited cells, grouped into squares of 4 × 4 (about an aerial tile, and a task of the stages
that make pixels), 16 groups of one département a batch, by fixed index: a run that is taken up forms the same
batches, and jobs of several départements never share one. A batch's part is keyed by all that it is made
from, so a tile that changes redoes the batches that show it, and after them only what rests on pixels that
came out otherwise.

A nation's 2.3 million cells stay two columns of integers here; blocks are made of them where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from sesgrid.grid import Grid, place_codes
from sesgrid.stages.place import GROUP_SIDE, BlockCells

__all__ = [
    "BATCH_BLOCKS",
    "PLACES",
    "BlockBatch",
    "PlaceIndex",
    "departements_of",
    "fullest_group",
    "members_of",
    "plan_batches",
]

BATCH_BLOCKS = 256
"""Blocks in one batch, at most."""

PLACES = ("row", "col", "departement")
"""Columns of cells that decide in which batch they are."""


@dataclass(frozen=True, eq=False)
class BlockBatch:
    """Neighbouring blocks whose results one part holds."""

    name: str
    """Of its département, and its index there: ``75-0003``; ``none-0003`` where the census tells none."""
    departement: str
    cells: np.ndarray
    """int64 ``(cell, 2)``: (row, col), global, by group, block and place."""
    members: np.ndarray
    """int64 ``(cell,)``: where the cells stand in the table."""
    starts: np.ndarray
    """int64 ``(block,)``: the first cell of each block."""
    group_starts: np.ndarray
    """int64 ``(group,)``: the first block of each group."""
    grid: Grid

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.starts)

    @property
    def groups(self) -> list[tuple[BlockCells, ...]]:
        """The blocks of each group; each group is walked like a snake."""
        blocks = []
        for a, b in pairwise([*self.starts, len(self.cells)]):
            cells = tuple((row, col) for row, col in self.cells[a:b].tolist())
            blocks.append(BlockCells(*self.grid.block_of(*cells[0]), cells))
        marks = [*self.group_starts, len(blocks)]
        return [tuple(blocks[a:b]) for a, b in pairwise(marks)]

    @property
    def blocks(self) -> list[BlockCells]:
        """In the order of the groups."""
        return [block for group in self.groups for block in group]


def plan_batches(grid: Grid, cells: pd.DataFrame) -> list[BlockBatch]:
    """Batches of all blocks with cells.

    Parameters
    ----------
    grid : Grid
    cells : DataFrame
        With ``row`` and ``col`` (global) and ``departement`` (code, or NA). A group that several départements
        share belongs to the one with most of its cells, of equals the first.

    Examples
    --------
    >>> cells = pd.DataFrame({"row": [0, 1, 900], "col": [0, 9, 900], "departement": ["75", "75", None]})
    >>> [(b.name, [len(g) for g in b.groups]) for b in plan_batches(Grid(100, 8), cells)]
    [('75-0000', [2]), ('none-0000', [1])]
    """
    at = cells[["row", "col"]].to_numpy(np.int64)
    codes, named = pd.factorize(departements_of(cells), sort=True)
    block = at // grid.cells_per_block
    group = block // GROUP_SIDE
    of_group = _commonest(group, codes)
    snake = np.where(block[:, 0] % 2 == 0, block[:, 1], -block[:, 1])
    # the last key counts first
    keys = (at[:, 1], at[:, 0], snake, block[:, 0], group[:, 1], group[:, 0], of_group)
    order = np.lexsort(keys)
    at, block, group, of_group = at[order], block[order], group[order], of_group[order]
    starts = _changes(block)
    group_of_block = _changes(group[starts])
    of_group = of_group[starts][group_of_block]
    marks = [*group_of_block, len(starts)]
    batches = []
    for code in np.unique(of_group):
        mine = np.flatnonzero(of_group == code)
        for k, a in enumerate(range(mine[0], mine[-1] + 1, BATCH_BLOCKS // GROUP_SIDE**2)):
            b = min(a + BATCH_BLOCKS // GROUP_SIDE**2, mine[-1] + 1)
            begin, end = marks[a], marks[b]
            first, last = starts[begin], starts[end] if end < len(starts) else len(at)
            batches.append(
                BlockBatch(
                    f"{named[code]}-{k:04d}", str(named[code]), at[first:last], order[first:last],
                    starts[begin:end] - first, group_of_block[a:b] - begin, grid,
                )
            )  # fmt: skip
    return batches


def departements_of(cells: pd.DataFrame) -> pd.Series:
    """The code of each cell's département; "none" where the census tells none."""
    return cells["departement"].fillna("none")


def _commonest(groups: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Per row the code that most rows of its group ``(row, 2)`` have, of equals the lowest: ``(row,)``."""
    _, of = np.unique(place_codes(*groups.T), return_inverse=True)
    pairs, counts = np.unique((of << 32) + codes, return_counts=True)
    order = np.lexsort((pairs, -counts, pairs >> 32))
    first = _changes((pairs[order] >> 32)[:, None])
    return (pairs[order][first] & 0xFFFFFFFF)[of]


def members_of(plan: Sequence[BlockBatch], cells: pd.DataFrame) -> Iterator[np.ndarray]:
    """Positions in a table of the cells of each batch, in the batch's order.

    Parameters
    ----------
    plan : sequence of BlockBatch
    cells : DataFrame
        Some of the plan's cells, with ``row`` and ``col``, in any order.

    Examples
    --------
    >>> cells = pd.DataFrame({"row": [5, 0, 1], "col": [0, 7, 0], "departement": "75"})
    >>> plan = plan_batches(Grid(100, 8), cells)
    >>> [at.tolist() for at in members_of(plan, cells.iloc[:2])]
    [[1, 0]]
    """
    index = PlaceIndex(cells[["row", "col"]].to_numpy(np.int64))
    for batch in plan:
        found = index.find(batch.cells)
        yield found[found >= 0]


class PlaceIndex:
    """Where places stand in a list of them.

    Parameters
    ----------
    places : np.ndarray
        int64 ``(place, 2)``: row and column, see `sesgrid.grid.place_codes`; each place once.

    Examples
    --------
    >>> PlaceIndex(np.array([[5, 0], [0, 7]])).find(np.array([[0, 7], [0, 8]])).tolist()
    [1, -1]
    """

    def __init__(self, places: np.ndarray) -> None:
        codes = place_codes(*places.T)
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    def find(self, places: np.ndarray) -> np.ndarray:
        """int64 ``(asked,)``: the position of each of ``(asked, 2)``; −1 where it is not there."""
        wanted = place_codes(*places.T)
        at = np.searchsorted(self._codes, wanted)
        there = at < len(self._codes)
        there[there] = self._codes[at[there]] == wanted[there]
        found = np.full(len(wanted), -1, dtype=np.int64)
        found[there] = self._order[at[there]]
        return found


def fullest_group(plan: Sequence[BlockBatch]) -> tuple[BlockCells, ...]:
    """The group with the most cells, of equal ones the first; it stands for all where memory is asked for."""

    def sizes(batch: BlockBatch) -> np.ndarray:
        return np.diff([*batch.starts[batch.group_starts], len(batch.cells)])

    if not plan:
        return ()
    batch = max(plan, key=lambda b: sizes(b).max())
    return batch.groups[int(sizes(batch).argmax())]


def _changes(rows: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before, the first among them."""
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]).any(axis=1)])
