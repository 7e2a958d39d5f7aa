"""Blocks of pixels, each written into the cube by the task that made it, and recorded with its checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import dask.array as da

from sesgrid.batches.blocks import BlockBatch
from sesgrid.batches.flight import Noted, Packed, pack_rows, slots
from sesgrid.batches.running import Batch, Outcome, Task, run_batches
from sesgrid.batches.turns import groups_per_task
from sesgrid.run.freshness import digest
from sesgrid.run.job import Job
from sesgrid.run.verify import find_lost
from sesgrid.run.workspace import Workspace
from sesgrid.stages.classified import Classified
from sesgrid.stages.landcover import Landcover
from sesgrid.stages.mosaic import Mosaic
from sesgrid.stages.place import BlockCells, BlockResult, Groups, place
from sesgrid.store.cube import Cube, Shard
from sesgrid.store.cube_layout import ACTIVATION
from sesgrid.store.parts import Parts
from sesgrid.store.written import list_written

__all__ = [
    "LAYERS_OF",
    "PixelWork",
    "Written",
    "WrittenBlock",
    "list_layers",
    "made_again",
    "pixels_of",
    "place_written",
    "read_failures",
    "run_blocks",
    "shards_of",
    "written_layers",
]


@dataclass(frozen=True)
class WrittenBlock:
    """What is left of a block once its pixels are in the cube."""

    block: BlockCells
    rows: tuple[dict[str, Any], ...]
    errors: Mapping[str, str]
    seconds: float
    shards: Mapping[str, Shard]
    """Bytes and crc32 of each layer's shard."""


@dataclass(frozen=True)
class Written:
    """A stage whose blocks go into the cube one by one as they are made; their records are left."""

    stage: Mosaic | Landcover | Classified
    cube: Cube

    def __call__(self, items: Sequence[Any]) -> list[tuple[WrittenBlock, ...]]:
        """Groups of blocks → per group, the results without their pixels."""
        return [tuple(self._write(r) for r in self.stage.each(group)) for group in items]

    def _write(self, result: BlockResult) -> WrittenBlock:
        block = result.block
        shards = self.cube.write_block(block.block_row, block.block_col, result.arrays)
        return WrittenBlock(block, result.rows, result.errors, result.seconds, shards)


def _pack(groups: Sequence[tuple[WrittenBlock, ...]]) -> Packed:
    """Rows of the cells, and what of each block is not a row."""
    results = [result for group in groups for result in group]
    rows = [
        row | {"block_row": r.block.block_row, "block_col": r.block.block_col}
        for r in results
        for row in (r.rows or ({},))
    ]
    return Packed(
        pack_rows(rows).rows,
        tuple(
            (r.block.block_row, r.block.block_col, dict(r.shards), dict(r.errors), r.seconds)
            for r in results
        ),
    )


def _sum_up(
    tidy: Callable[[str], str],
    blocks: list[tuple[int, int, dict[str, Shard], dict[str, str], float]],
) -> dict:
    """What a batch's record keeps of its blocks."""
    shards = [[row, col, found] for row, col, found, _, _ in blocks]
    return {
        "errors": {
            tidy(path): tidy(message)
            for *_, errors, _ in blocks
            for path, message in errors.items()
        },
        "block_seconds": [round(seconds, 3) for *_, seconds in blocks],
        "shards": shards,
        "pixels": digest(shards),
    }


@dataclass(frozen=True)
class PixelWork:
    """What a stage that makes pixels has to do."""

    stage: Any
    """`Mosaic`, `Landcover` or `Classified`."""
    items: Callable[[Sequence[BlockCells]], Sequence[Any]]
    """What each of some blocks is made from."""
    read: Callable[[Any], Any]
    """What an item reads beside its block, as values that change when a file does."""
    counted: Mapping[str, int]
    """For the stage's summary."""


def run_blocks(
    job: Job, name: str, work: PixelWork, plan: Sequence[BlockBatch], cube: Cube
) -> Outcome:
    """Run a stage that makes pixels, each block written by the task that made it.

    A batch is done again when what it reads has changed, where a tile could not be read, and where shards are
    gone. Of a job for some départements only theirs are looked at.
    """
    parts, batches = job.parts(name), []
    lost = {fault.batch for fault in find_lost(job.files, name)}
    chosen = [b for b in plan if job.only is None or b.departement in job.only]
    size = groups_per_task(sum(len(b.group_starts) for b in chosen), slots(job.client, None))
    for batch in chosen:
        blocks = batch.blocks
        read = [
            (b.cells, work.read(item)) for b, item in zip(blocks, work.items(blocks), strict=True)
        ]
        key = digest([job.key, cube.token, *read])
        tasks = partial(_tasks, batch, work, size)
        batches.append(Batch(batch.name, key, batch.n_blocks, len(batch.cells), tasks))
    return run_batches(
        job.client,
        parts,
        name,
        batches,
        lambda tasks: place_written(
            work,
            cube,
            [i for t in tasks for i in t.items],
            name,
            tuple(len(t.items) for t in tasks),
        ),
        partial(_sum_up, job.tidy),
        journal=job.journal,
        leases=job.leases,
        whole=job.only is None,
        keep=[b.name for b in plan],
        again=[b.name for b in batches if b.name in lost or read_failures(parts, [b.name])],
    )


def place_written(
    work: PixelWork, cube: Cube, groups: Sequence[Any], name: str, size: Groups = 1
) -> da.Array:
    """Lay a stage over groups of items whose pixels go into the cube: object ``(group,)``."""
    return place(Noted(Written(work.stage, cube), _pack), groups, group=size, name=name)


def _tasks(batch: BlockBatch, work: PixelWork, size: int) -> list[Task]:
    """Tasks of so many groups each."""
    grouped = batch.groups
    tasks, items = [], iter(work.items([b for group in grouped for b in group]))
    for k in range(0, len(grouped), size):
        groups = grouped[k : k + size]
        blocks = [b for group in groups for b in group]
        at = tuple((b.block_row, b.block_col) for b in blocks)
        made = [tuple(islice(items, len(group))) for group in groups]
        tasks.append(Task(made, at, sum(len(b.cells) for b in blocks)))
    return tasks


def read_failures(parts: Parts, batches: Sequence[str]) -> list[str]:
    """What could not be read, once per tile; such parts are made again by the next run."""
    records = (parts.sound(batch) or {} for batch in batches)
    return list({p: e for r in records for p, e in r.get("errors", {}).items()}.values())


LAYERS_OF = {
    "mosaic": ("image", "coverage"), "landcover": ("landcover",), "explain": (ACTIVATION,),
}  # fmt: skip
"""Layers that the stages which make pixels, or keep maps, write."""


def written_layers(
    stage: str, records: Iterable[Mapping[str, Any] | None]
) -> dict[str, dict[tuple[int, int], Shard]]:
    """What records of a stage's parts tell of its shards: layer → global block → bytes and crc32."""
    found: dict[str, dict[tuple[int, int], Shard]] = {layer: {} for layer in LAYERS_OF[stage]}
    for record in records:
        for row, col, shards in (record or {}).get("shards", ()):
            for layer, (size, check) in shards.items():
                found[layer][row, col] = (size, check)
    return found


def list_layers(parts: Parts, stage: str, cube: Cube, done: Sequence[str]) -> None:
    """List in the cube what a stage wrote of its layers, once all of it is written."""
    for layer, shards in written_layers(stage, map(parts.record, done)).items():
        list_written(cube.path, cube.extent, layer, shards.items())


def made_again(parts: Parts, batch: str, blocks: Iterable[tuple[int, int]]) -> None:
    """Enter into a batch's part that blocks were made again, to the same bytes.

    What read them meanwhile may have read others, so from now on the batch's pixels have another name.
    """
    record = parts.record(batch) or {}
    times: dict[str, int] = dict(record.get("made_again", {}))
    for row, col in blocks:
        times[f"{row},{col}"] = times.get(f"{row},{col}", 0) + 1
    record |= {"made_again": times, "pixels": digest([record["shards"], sorted(times.items())])}
    parts.write(batch, record["key"], parts.table(batch), record)


def pixels_of(parts: Parts, batches: Sequence[str]) -> str:
    """Names what a stage wrote: equal shards, equal name."""
    return digest((parts.record(batch) or {})["pixels"] for batch in batches)


def shards_of(files: Workspace, stages: Sequence[str]) -> dict[tuple[int, int], list[Any]]:
    """What the stages that make pixels wrote of each block: (block_row, block_col) → layers and checksums."""
    found: dict[tuple[int, int], list[Any]] = {}
    for stage in stages:
        parts = Parts(files.parts(stage))
        for name in parts.names():
            record = parts.sound(name) or {}
            times = record.get("made_again", {})
            for row, col, shards in record.get("shards", ()):
                again = times.get(f"{row},{col}", 0)
                told = [*sorted(shards.items()), *([again] if again else [])]
                found.setdefault((row, col), []).append(told)
    return found
