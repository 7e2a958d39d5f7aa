"""Many cells in one task, some at a time.

A task costs scheduler, driver and worker some milliseconds each, whatever it does: of a nation's 2.3 million
cells, 64 a task would be 36,000 tasks a stage. What a worker holds is still that of 64 cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import xarray as xr

from sesgrid.grid import Extent
from sesgrid.stages.place import Layer
from sesgrid.stages.predict import GROUP, CellTask
from sesgrid.store.models import ModelRef

__all__ = ["CellColumns", "InTurns", "cells_per_task", "groups_per_task"]

_TASKS_A_SLOT = 16
"""At least so many, so that the last ones do not keep a few slots busy while the others are done."""

_MOST_TURNS, _MOST_GROUPS = 8, 4


@dataclass(frozen=True)
class CellColumns:
    """The cells of a task, to be sent: a nation's are too many for the driver to make and pack one by one."""

    cell_ids: tuple[str, ...]
    rowcol: np.ndarray
    """int64 ``(cell, 2)``."""
    model: np.ndarray
    """int ``(cell,)``: which of ``models``."""
    models: tuple[ModelRef, ...]

    @classmethod
    def of(
        cls,
        cell_ids: Sequence[str],
        rowcol: np.ndarray,
        codes: np.ndarray,
        models: Sequence[ModelRef],
    ) -> CellColumns:
        """Only the models that the cells name travel with them."""
        named, model = np.unique(codes, return_inverse=True)
        return cls(tuple(cell_ids), rowcol, model, tuple(models[k] for k in named))

    def __iter__(self) -> Iterator[CellTask]:
        for cell, (row, col), k in zip(
            self.cell_ids, self.rowcol.tolist(), self.model.tolist(), strict=True
        ):
            yield CellTask(cell, row, col, self.models[k])


@dataclass(frozen=True)
class InTurns:
    """A stage over cells of a cube, whose pixels it reads itself."""

    stage: Any
    layers: tuple[Layer, ...]
    extent: Extent
    whole_blocks: bool
    """Whether the cells of a block must come together, as the stage writes them into the cube."""

    @classmethod
    def of(
        cls, stage: Any, pixels: xr.Dataset, names: Sequence[str], whole_blocks: bool
    ) -> InTurns:
        """A stage over the cells of an opened cube."""
        layers = tuple(Layer(pixels[name].variable) for name in names)
        return cls(stage, layers, Extent.from_attributes(pixels.attrs), whole_blocks)

    def __call__(self, items: Sequence[Iterable[CellTask]]) -> list[Any]:
        """One result per cell; an item is some cells: `CellColumns`, or tasks as they are."""
        cells = chain.from_iterable(items)
        return [result for turn in self._turns(cells) for result in self._look(turn)]

    def _look(self, turn: Sequence[CellTask]) -> Sequence[Any]:
        slices = [self.extent.cell_slices(task.row, task.col) for task in turn]
        results: Sequence[Any] = self.stage(turn, *(layer.cells(slices) for layer in self.layers))
        return results

    def _turns(self, cells: Iterable[CellTask]) -> Iterator[Sequence[CellTask]]:
        grid, turn, block = self.extent.grid, list[CellTask](), None
        for task in cells:
            here = grid.block_of(task.row, task.col) if self.whole_blocks else task
            if len(turn) >= GROUP and here != block:
                yield turn
                turn = []
            turn.append(task)
            block = here
        if turn:
            yield turn


def cells_per_task(cells: int, slots: int) -> int:
    """How many cells a task takes, a multiple of what it holds at once.

    >>> [cells_per_task(n, slots) for n, slots in ((500, 2), (20_000, 2), (2_300_000, 96))]
    [64, 512, 512]
    """
    turns = cells // (GROUP * _TASKS_A_SLOT * max(slots, 1))
    return GROUP * min(max(turns, 1), _MOST_TURNS)


def groups_per_task(groups: int, slots: int) -> int:
    """How many squares of 4 × 4 blocks a task takes.

    >>> [groups_per_task(n, slots) for n, slots in ((50, 2), (13_000, 2), (13_000, 1000))]
    [1, 4, 1]
    """
    return min(max(groups // (_TASKS_A_SLOT * max(slots, 1)), 1), _MOST_GROUPS)
