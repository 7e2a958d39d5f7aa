"""Batches of placed work: a few tasks in flight, tried again, recorded as parts, resumed as plan minus parts.

A batch is at most 256 neighbouring blocks and a task some 16 of them, so that a nation's 215,000 blocks are
some 13,000 tasks. Only a few tasks a worker are in flight: the scheduler stays small, a slow store slows the
run down instead of filling memory, and what a dead worker takes along is little. Progress is never counted
from futures, which move back when a worker is lost, but from parts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import pandas as pd
from distributed import Client
from tqdm import tqdm

from sesgrid.batches.failures import ATTEMPTS, Failure, may_pass, require_hope, wait_before
from sesgrid.batches.flight import Flight, Note, Packed
from sesgrid.batches.journal import Journal
from sesgrid.batches.leases import Leases
from sesgrid.errors import ClusterError
from sesgrid.store.parts import Parts, concatenated

__all__ = ["Batch", "Outcome", "Task", "progress_bar", "run_batches"]


@dataclass(frozen=True)
class Task:
    """What a worker does in one go."""

    items: Any
    """Work items: a sequence, or rows of a table."""
    blocks: tuple[tuple[int, int], ...]
    """(block_row, block_col) of the blocks that they belong to, global."""
    cells: int

    @classmethod
    def of_cells(cls, cells: pd.DataFrame, cells_per_block: int) -> Task:
        """A task whose items are rows of a table with ``row`` and ``col``."""
        rows, cols = (cells[name] // cells_per_block for name in ("row", "col"))
        blocks = dict.fromkeys(zip(map(int, rows), map(int, cols), strict=True))
        return cls(cells, tuple(blocks), len(cells))


@dataclass(frozen=True)
class Batch:
    """What one part vouches for."""

    name: str
    key: str
    """Hash of all that its rows and pixels are made from."""
    blocks: int
    cells: int
    tasks: Callable[[], Sequence[Task]]
    """Made when the batch is begun: a nation's tasks would fill the driver's memory."""

    @classmethod
    def of(cls, name: str, key: str, tasks: Sequence[Task]) -> Batch:
        """A batch whose tasks are at hand."""
        blocks, cells = sum(len(t.blocks) for t in tasks), sum(t.cells for t in tasks)
        return cls(name, key, blocks, cells, lambda: tasks)


@dataclass
class Outcome:
    """How a stage's batches ended."""

    done: list[str] = field(default_factory=list)
    """Names of the batches that have a part, in the plan's order."""
    asked: int = 0
    """Batches that were to be done or to be there."""
    resumed: int = 0
    """Batches that were recorded before."""
    failures: list[Failure] = field(default_factory=list)

    def told(self) -> list[str]:
        """The failures, a line each, by batch."""
        return [str(f) for f in sorted(self.failures, key=lambda f: (f.batch, f.blocks))]

    def require_whole(self, stage: str) -> None:
        """Refuse to go on with a part of the results.

        Raises
        ------
        ClusterError
            Names what failed.
        """
        if self.failures:
            lines = "\n".join(f"  {failure}" for failure in self.told())
            raise ClusterError(
                f"{stage}: {len(self.failures)} tasks failed, all others are done and kept; run again, and "
                f"these are tried again:\n{lines}"
            )


@dataclass
class _Open:
    """A batch of which tasks are in flight."""

    batch: Batch
    tasks: Sequence[Task]
    packed: list[Packed | None]
    notes: list[Note | None]
    left: int
    started: float
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def begin(cls, batch: Batch) -> _Open:
        """Nothing of it has ended."""
        tasks = batch.tasks()
        n = len(tasks)
        return cls(batch, tasks, [None] * n, [None] * n, n, time.perf_counter())


def progress_bar(label: str, total: int, unit: str) -> tqdm:
    """The one look of a progress bar."""
    return tqdm(total=total, desc=f"  {label}", unit=unit, leave=False, dynamic_ncols=True)


def run_batches(
    client: Client,
    parts: Parts,
    stage: str,
    batches: Sequence[Batch],
    make: Callable[[Sequence[Task]], da.Array],
    sum_up: Callable[[list[Any]], dict[str, Any]] = lambda _: {},
    *,
    journal: Journal | None = None,
    leases: Leases | None = None,
    whole: bool = True,
    keep: Sequence[str] | None = None,
    again: Sequence[str] = (),
    resources: Mapping[str, float] | None = None,
    attempts: int = ATTEMPTS,
) -> Outcome:
    """Compute the batches that have no part of their key.

    Parameters
    ----------
    client : Client
    parts : Parts
    stage : str
        Name, for the progress bar and the journal.
    batches : sequence of Batch
        The plan.
    make : callable
        Some tasks of a batch → the placed graph, object ``(item,)``, one chunk a task; its stage wrapped
        in `sesgrid.batches.flight.Noted`.
    sum_up : callable
        What the batch's tasks brought beside their rows, in order → what its record keeps of that.
    journal : Journal, optional
        Receives a line per block.
    leases : Leases, optional
        Taken on all batches that are to be done, each given back when it is.
    whole : bool
        Whether the batches are all that the stage has, or other drivers do more of them.
    keep : sequence of str, optional
        All batches of the stage: parts of others are removed.
    again : sequence of str
        Batches that are done again although they have a part.
    resources : mapping, optional
        What a worker must have for a task; see `sesgrid.run.cluster.on_gpus`.
    attempts : int
        Of a task whose failures may pass by themselves.

    Returns
    -------
    Outcome
        A batch of which a task failed has no part: the next run makes it.

    Raises
    ------
    SesgridError
        No batch can be done: the run is broken as a whole; the cluster is gone; or another driver does one
        of the batches.
    """
    left = {b.name for b in batches if b.name in again or not parts.has(b.name, b.key)}
    if leases is not None:
        leases.take(stage, sorted(left))
    # only now that nobody else is at them is anything changed
    for name in again:
        parts.remove(name)
    if keep is not None:
        parts.keep_only(keep)
    if journal is not None:
        told = {b.name: {"key": b.key, "blocks": b.blocks, "cells": b.cells} for b in batches}
        journal.plan(stage, told, whole)
    # another driver may have done some just before its leases were ours
    todo = deque(b for b in batches if b.name in left and not parts.has(b.name, b.key))
    outcome = Outcome(asked=len(batches), resumed=len(batches) - len(todo))
    flight = Flight(client, make, resources)
    opened: dict[str, _Open] = {}
    succeeded = 0
    cells = sum(b.cells for b in batches)
    with progress_bar(stage, cells, "cell") as bar, flight:
        bar.update(cells - sum(b.cells for b in todo))
        while todo or opened:
            while todo and flight.has_room():
                batch = todo.popleft()
                # its pixels are about to change: from now on an older part would vouch for what is gone
                parts.remove(batch.name)
                opened[batch.name] = _Open.begin(batch)
                flight.send(batch.name, opened[batch.name].tasks)
            for end in flight.ended():
                of = opened[end.batch]
                task = of.tasks[end.index]
                if end.error is None:
                    of.packed[end.index], of.notes[end.index] = end.packed, end.note
                    bar.update(task.cells)
                    succeeded += 1
                elif may_pass(end.error, end.attempt, attempts):
                    flight.again(end, task, wait_before(end.attempt + 1))
                    continue
                else:
                    failure = Failure.of(end.error, end.batch, task.blocks, end.attempt)
                    of.failures.append(failure)
                    require_hope(stage, [*outcome.failures, failure], succeeded)
                    outcome.failures.append(failure)
                of.left -= 1
                if of.left == 0:
                    del opened[end.batch]
                    _record(parts, stage, of, sum_up, journal)
                    if leases is not None:
                        leases.release(stage, end.batch)
    failed = {f.batch for f in outcome.failures}
    outcome.done = [b.name for b in batches if b.name not in failed]
    if not outcome.done:
        outcome.require_whole(stage)  # there is nothing to go on with
    return outcome


def _record(
    parts: Parts,
    stage: str,
    of: _Open,
    sum_up: Callable[[list[Any]], dict[str, Any]],
    journal: Journal | None,
) -> None:
    """Write the part of a batch whose tasks all ended well, and tell of every block."""
    batch = of.batch
    if not of.failures:
        packed = [p for p in of.packed if p is not None]
        rows = concatenated([p.rows for p in packed])
        record = sum_up([extra for p in packed for extra in p.extra])
        seconds = round(time.perf_counter() - of.started, 3)
        notes = [n.as_dict() for n in of.notes if n is not None]
        kept = {"cells": batch.cells, "seconds": seconds, "tasks": notes, **record}
        parts.write(batch.name, batch.key, rows, kept)
    if journal is None:
        return
    for task, note in zip(of.tasks, of.notes, strict=True):
        if note is not None:
            journal.blocks(stage, batch.name, task.blocks, task.cells, note)
    for failure in of.failures:
        journal.failure(stage, failure)
