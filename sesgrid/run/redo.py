"""Blocks of a cube whose shards are not as they were written are made again, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from distributed import Client

from sesgrid.batches.blocks import BlockBatch, plan_batches
from sesgrid.batches.failures import Failure, may_pass, require_hope, wait_before
from sesgrid.batches.flight import Flight
from sesgrid.batches.leases import Leases
from sesgrid.batches.running import Task
from sesgrid.errors import ClusterError
from sesgrid.run.config import Config
from sesgrid.run.job import Job
from sesgrid.run.mark import lies_within
from sesgrid.run.pixel_blocks import PixelWork, made_again, place_written
from sesgrid.run.pixel_stages import landcover_work, mosaic_work, result_of
from sesgrid.run.verify import KEPT, PIXEL_STAGES, Fault, Shards, faults_of_batch
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store.cube import Cube
from sesgrid.store.parts import Parts
from sesgrid.store.written import Shard

__all__ = ["make_again", "redo"]

_WORK: dict[str, Callable[[Job, pd.DataFrame, Sequence[BlockBatch]], PixelWork | None]] = {
    "mosaic": mosaic_work,
    "landcover": landcover_work,
}
"""Stages that make pixels, and what their blocks are made from."""


def redo(
    config: Config, client: Client, faults: Sequence[Fault], tell: Callable[[str], None]
) -> list[Fault]:
    """Make the blocks with faults again, and no others; the rest of their batches stays.

    Whatever read such a block may have read other pixels, and is made again by the next run: the trainings
    that saw it, and the batches that it belongs to. A block that cannot be made now leaves its part as it is.
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
        busy = leases.holder([*PIXEL_STAGES, "train", "predict", "predict-other", KEPT])
        if busy is not None:
            raise ClusterError(f"blocks cannot be made again while {busy}: wait for it")
        return make_again(config, client, _still(config, files, faults, tell), tell)


def _still(
    config: Config, files: Workspace, faults: Sequence[Fault], tell: Callable[[str], None]
) -> list[Fault]:
    """The faults of their batches as they are now: a run may have been at them meanwhile."""
    shards = Shards(Cube.open(files.cube))
    now: list[Fault] = []
    for stage, batch in dict.fromkeys((f.stage, f.batch) for f in faults):
        now += faults_of_batch(shards, Parts(files.parts(stage)), stage, batch)
    for fault in faults:
        if fault not in now:
            tell(f"{fault}: no more")
    return now


def make_again(
    config: Config, client: Client, faults: Sequence[Fault], tell: Callable[[str], None]
) -> list[Fault]:
    """As `redo`, by a driver that holds the leases."""
    files = Workspace.of(config)
    cells = load_table(files.table("cells"))
    whole = [f for f in faults if f.block is None or f.stage not in PIXEL_STAGES]
    for_a_run = [f for f in whole if not f.unread]
    # kept maps are made by explaining, not here
    stay = [f for f in whole if f.unread]
    for stage in PIXEL_STAGES:
        broken = [(f, f.block) for f in faults if f.stage == stage and f.block is not None]
        if not broken:
            continue
        job = Job(config, files, client, "")
        plan = plan_batches(job.grid, cells)
        work = _WORK[stage](job, cells, plan)
        again, failed = _made_again(job, stage, plan, work, {block for _, block in broken})
        parts, same = job.parts(stage), dict[str, set[tuple[int, int]]]()
        for batch in dict.fromkeys(f.batch for f, _ in broken):
            recorded = {(r, c): s for r, c, s in (parts.record(batch) or {"shards": []})["shards"]}
            for fault, block in (pair for pair in broken if pair[0].batch == batch):
                made, then = again.get(block), recorded.get(block, {})
                if block in failed:
                    tell(f"{fault}: {failed[block]}; left as it is, try again")
                    stay.append(fault)
                elif made and all(list(shard) == then.get(layer) for layer, shard in made.items()):
                    tell(f"{fault}: made again")
                    same.setdefault(batch, set()).add(block)
                else:
                    tell(
                        f"{fault}: {'came out otherwise' if work else 'there is no land cover now'}"
                    )
                    for_a_run.append(fault)
        for batch, blocks in same.items():
            made_again(parts, batch, sorted(blocks))
        if same:
            _rename(files, stage, [b.name for b in plan])
    away = [f for f in for_a_run if not _lies_here(files, f)]
    for fault in away:
        tell(f"{fault}; it lies behind a link out of {files.output}: left as it is")
    stay += away
    for_a_run = [f for f in for_a_run if f not in away]
    for fault in for_a_run:
        Parts(files.parts(fault.stage)).remove(fault.batch)
        files.record(fault.stage).forget()
    for stage, batch in dict.fromkeys((f.stage, f.batch) for f in for_a_run):
        tell(f"run again to make the whole batch {batch} of {stage}")
    return [*for_a_run, *stay]


def _lies_here(files: Workspace, fault: Fault) -> bool:
    """Whether a part, and the record of its stage, lie in the run's folder and not behind a link."""
    paths = Parts(files.parts(fault.stage)).path(fault.batch), files.record(fault.stage).path
    return all(lies_within(path, files.output) for path in paths)


def _rename(files: Workspace, stage: str, batches: Sequence[str]) -> None:
    """Give what a stage made the name that its parts have now: what rests on it is told by that name."""
    record, parts = files.record(stage), Parts(files.parts(stage))
    known = record.read()
    if known and all(parts.sound(batch) for batch in batches):
        result = result_of(stage, parts, batches, Cube.open(files.cube))
        record.write(known["facts"], known["summary"], result)


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
