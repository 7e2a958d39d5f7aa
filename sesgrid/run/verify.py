"""Does a cube hold the very bytes that its run wrote? And: make exactly those blocks again that do not.

Zarr reads a shard that is gone or empty without a word, as fill. A part's record has the size and the crc32c
of every shard that its tasks wrote, and the parts' own pages have checksums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from distributed import Client

from sesgrid.batches.blocks import BlockBatch, plan_batches
from sesgrid.batches.failures import Failure, may_pass, require_hope, wait_before
from sesgrid.batches.flight import Flight
from sesgrid.batches.journal import read_plan
from sesgrid.batches.leases import Leases
from sesgrid.batches.running import Task
from sesgrid.errors import ClusterError, FormatError, GridMismatchError, SesgridError, StoreError
from sesgrid.run.config import Config
from sesgrid.run.job import Job
from sesgrid.run.pixel_blocks import PixelWork, place_written
from sesgrid.run.pixel_stages import landcover_work, mosaic_work
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store.cube import Cube, Shard
from sesgrid.store.location import cause_of, store_failures
from sesgrid.store.parts import Parts

__all__ = ["Fault", "find_faults", "redo"]

_WORK: dict[str, Callable[[Job, pd.DataFrame, Sequence[BlockBatch]], PixelWork | None]] = {
    "mosaic": mosaic_work,
    "landcover": landcover_work,
}
"""Stages that make pixels, and what their blocks are made from."""

_STAGES = tuple(_WORK)

_KEPT = "explain"
"""Its maps are pixels too, where they are kept."""


@dataclass(frozen=True)
class Fault:
    """A shard, or a part, that is not as it was written."""

    stage: str
    batch: str
    block: tuple[int, int] | None
    """(block_row, block_col), global; None: the part itself."""
    layer: str | None
    what: str
    unread: bool = False
    """Whether its bytes could not be looked at."""

    def __str__(self) -> str:
        """One line."""
        if self.block is None:
            return f"{self.stage}: part {self.batch}: {self.what}"
        return f"{self.stage}: block {self.block}, {self.layer}: {self.what}"


def find_faults(files: Workspace) -> Iterator[Fault]:
    """Compare the cube with what its run recorded, shard by shard.

    Parameters
    ----------
    files : Workspace
        Of the run; its stage ``cells`` is done.

    Yields
    ------
    Fault
        In the order of the stages and batches. A stage that was not begun has none.

    Raises
    ------
    FormatError
        The metadata of a layer other than the kept maps are gone or damaged: none of its shards can be
        looked at.
    StoreError
        The store is away.
    """
    cube, cells = Cube.open(files.cube), load_table(files.table("cells"))
    planned, shards = [batch.name for batch in plan_batches(cube.extent.grid, cells)], _Shards(cube)
    for stage in _STAGES:
        parts = Parts(files.parts(stage))
        known, record = set(parts.names()), files.record(stage).read()
        # a stage that was done says of what; of one that was begun there is a plan
        begun = record["summary"].get("batches") if record else read_plan(files.journals, stage)
        if not known and not begun:
            continue
        for batch in sorted(known.union(planned)):
            yield from _faults_of_batch(shards, parts, stage, batch)
    if cube.keeps_activation and files.record(_KEPT).read():
        parts = Parts(files.parts(_KEPT))
        for batch in parts.names():
            yield from _faults_of_batch(shards, parts, _KEPT, batch)


@dataclass
class _Shards:
    """Looks at shards, until the store is away."""

    cube: Cube
    unread: int = 0

    def fault(self, layer: str, row: int, col: int, written: Shard) -> tuple[str | None, bool]:
        """What is wrong with a shard, if anything, and whether its bytes could not be looked at."""
        try:
            what = self.cube.shard_fault(layer, row, col, written)
        except GridMismatchError as error:
            return str(error), False
        except store_failures() as error:
            self._require_store(error)
            return f"cannot be read ({cause_of(error)})", True
        self.unread = 0
        return what, False

    def _require_store(self, error: Exception) -> None:
        """After some shards in a row, see whether it is the store that is away."""
        self.unread = (self.unread + 1) % _AWAY
        if self.unread:
            return
        away: tuple[type[Exception], ...] = (SesgridError, *store_failures())
        try:
            self.cube.attribute("title")
        except away:
            raise StoreError(
                f"{self.cube.path}: neither {_AWAY} shards in a row can be read nor anything else "
                f"({cause_of(error)}): see that the store answers, and verify again"
            ) from error


_AWAY = 10


def _faults_of_batch(shards: _Shards, parts: Parts, stage: str, batch: str) -> Iterator[Fault]:
    try:
        record = parts.record(batch)
        if record is None:
            yield Fault(stage, batch, None, None, "missing")
            return
        parts.rows(batch)
    except (FormatError, KeyError, ValueError) as error:
        yield Fault(stage, batch, None, None, f"damaged ({error})")
        return
    for row, col, written in record.get("shards", ()):
        for layer, (size, check) in written.items():
            try:
                what, unread = shards.fault(layer, row, col, (size, check))
            except FormatError as error:
                if stage != _KEPT:
                    raise
                yield Fault(stage, batch, None, None, f"damaged ({error})")
                return
            if what is not None:
                yield Fault(stage, batch, (row, col), layer, what, unread)


def redo(
    config: Config, client: Client, faults: Sequence[Fault], tell: Callable[[str], None]
) -> list[Fault]:
    """Make the blocks with faults again, and no others; the rest of their batches stays.

    A block that comes out as it was recorded leaves its part as it is; so does one that cannot be made now.
    Where it comes out otherwise (its imagery has changed), where a part itself is damaged, and for maps of an
    explanation, the part is removed: the next run makes the batch again, and what rests on it.

    Returns
    -------
    list of Fault
        Those that are left; what each needs was told.

    Raises
    ------
    ClusterError
        Another driver is at the cube; or the first twenty blocks failed and none succeeded.
    """
    files = Workspace.of(config)
    with Leases(files.leases) as leases:
        # taken first, looked after: of two who come at once none overlooks the other
        for stage in dict.fromkeys(f.stage for f in faults):
            leases.take(stage, [stage])
        busy = leases.holder([*_STAGES, "train", "predict", "predict-other", _KEPT])
        if busy is not None:
            raise ClusterError(f"blocks cannot be made again while {busy}: wait for it")
        return _redo(config, client, _still(config, files, faults, tell), tell, files)


def _still(
    config: Config, files: Workspace, faults: Sequence[Fault], tell: Callable[[str], None]
) -> list[Fault]:
    """The faults of their batches as they are now: a run may have been at them meanwhile."""
    shards = _Shards(Cube.open(files.cube))
    now: list[Fault] = []
    for stage, batch in dict.fromkeys((f.stage, f.batch) for f in faults):
        now += _faults_of_batch(shards, Parts(files.parts(stage)), stage, batch)
    for fault in faults:
        if fault not in now:
            tell(f"{fault}: no more")
    return now


def _redo(
    config: Config,
    client: Client,
    faults: Sequence[Fault],
    tell: Callable[[str], None],
    files: Workspace,
) -> list[Fault]:
    cells = load_table(files.table("cells"))
    whole = [f for f in faults if f.block is None or f.stage not in _STAGES]
    for_a_run = [f for f in whole if not f.unread]
    # kept maps are made by explaining, not here
    stay = [f for f in whole if f.unread]
    for stage in _STAGES:
        broken = [(f, f.block) for f in faults if f.stage == stage and f.block is not None]
        if not broken:
            continue
        job = Job(config, files, client, "")
        plan = plan_batches(job.grid, cells)
        work = _WORK[stage](job, cells, plan)
        again, failed = _made_again(job, stage, plan, work, {block for _, block in broken})
        parts = job.parts(stage)
        for batch in dict.fromkeys(f.batch for f, _ in broken):
            recorded = {(r, c): s for r, c, s in (parts.record(batch) or {"shards": []})["shards"]}
            for fault, block in (pair for pair in broken if pair[0].batch == batch):
                made, then = again.get(block), recorded.get(block, {})
                if block in failed:
                    tell(f"{fault}: {failed[block]}; left as it is, try again")
                    stay.append(fault)
                elif made and all(list(shard) == then.get(layer) for layer, shard in made.items()):
                    tell(f"{fault}: made again")
                else:
                    tell(
                        f"{fault}: {'came out otherwise' if work else 'there is no land cover now'}"
                    )
                    for_a_run.append(fault)
    for fault in for_a_run:
        Parts(files.parts(fault.stage)).remove(fault.batch)
        files.record(fault.stage).forget()
    for stage, batch in dict.fromkeys((f.stage, f.batch) for f in for_a_run):
        tell(f"run again to make the whole batch {batch} of {stage}")
    return [*for_a_run, *stay]


def _made_again(
    job: Job,
    stage: str,
    plan: Sequence[BlockBatch],
    work: PixelWork | None,
    blocks: set[tuple[int, int]],
) -> tuple[dict[tuple[int, int], dict[str, Shard]], dict[tuple[int, int], str]]:
    """The shards of blocks that are drawn and written once more; and why some could not be."""
    if work is None:
        return {}, {}
    cube = Cube.open(job.files.cube)
    known = (b for batch in plan for b in batch.blocks)
    faulty = [b for b in known if (b.block_row, b.block_col) in blocks]
    tasks = [
        Task([(item,)], ((block.block_row, block.block_col),), len(block.cells))
        for block, item in zip(faulty, work.items(faulty), strict=True)
    ]

    def make(some: Sequence[Task]) -> Any:
        return place_written(work, cube, [i for t in some for i in t.items], f"verify-{stage}")

    made: dict[tuple[int, int], dict[str, Shard]] = {}
    failures: list[Failure] = []
    with Flight(job.client, make, None) as flight:
        flight.send(stage, tasks)
        left = len(tasks)
        while left:
            for end in flight.ended():
                task = tasks[end.index]
                if end.error is not None and may_pass(end.error, end.attempt):
                    flight.again(end, task, wait_before(end.attempt + 1))
                    continue
                left -= 1
                if end.packed is not None:
                    made |= {(row, col): shards for row, col, shards, *_ in end.packed.extra}
                elif end.error is not None:
                    failures.append(Failure.of(end.error, end.batch, task.blocks, end.attempt))
                    require_hope(stage, failures, len(made))
    return made, {block: f"{f.cause}: {f.message}" for f in failures for block in f.blocks}
