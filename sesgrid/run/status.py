"""How far a run is: from its parts and journals alone, while it runs and after."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sesgrid.batches.journal import plan_starts, read_journals, read_plan
from sesgrid.run.workspace import Workspace
from sesgrid.store.parts import Parts

__all__ = ["StageStatus", "lines", "status_of"]

STAGES = ("mosaic", "landcover", "predict", "predict-other", "explain")
"""Those that go by batches."""

_WINDOW = timedelta(minutes=20)
"""The rate is that of so much time before the last batch, and of the time back to the batch before that."""

_SLOWEST = 5

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass
class StageStatus:
    """How far one stage is; blocks and cells."""

    stage: str
    blocks: int
    cells: int
    done_blocks: int = 0
    done_cells: int = 0
    failed_blocks: int = 0
    """Given up, and not done since."""
    blocks_per_s: float | None = None
    """Of all drivers that are at it, each over twenty minutes or more before its last batch; None: no batch
    has ended yet."""
    seconds_left: float | None = None
    slowest: list[tuple[float, tuple[int, int]]] = field(default_factory=list)
    """(seconds, (block_row, block_col))."""
    failures: dict[str, int] = field(default_factory=dict)
    """Cause → blocks that it failed, over all attempts of all runs."""

    @property
    def left_blocks(self) -> int:
        """Neither done nor given up."""
        return self.blocks - self.done_blocks - self.failed_blocks


@dataclass
class _Told:
    """What the journals tell of a stage."""

    last: dict[tuple[str, tuple[int, int]], tuple[str, str]] = field(default_factory=dict)
    """(batch, block) → (time, state), of the latest."""
    ended: dict[str, dict[str, tuple[datetime, int]]] = field(default_factory=dict)
    """Driver → batch → when it ended, by the driver's clock, and how many of its blocks were done."""
    slowest: list[tuple[float, tuple[int, int]]] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)


def status_of(files: Workspace) -> list[StageStatus]:
    """How far every stage is that was begun.

    Parameters
    ----------
    files : Workspace

    Returns
    -------
    list of StageStatus
        In the order of the stages.
    """
    told = _read(files.journals)
    starts = {stage: plan_starts(files.journals, stage) for stage in STAGES}
    at_work = _at_work(files.journals, starts)
    found = []
    for stage in STAGES:
        plan = read_plan(files.journals, stage)
        if not plan:
            continue
        of = told.get(stage, _Told())
        status = _stage_status(stage, plan, Parts(files.parts(stage)), of)
        rate = sum(
            _rate(ends.values(), starts[stage][driver])
            for driver, ends in of.ended.items()
            if at_work.get(driver) == stage
        )
        if rate > 0:
            status.blocks_per_s, status.seconds_left = rate, status.left_blocks / rate
        found.append(status)
    return found


def _stage_status(
    stage: str, plan: Mapping[str, Mapping[str, Any]], parts: Parts, told: _Told
) -> StageStatus:
    left = {name for name, b in plan.items() if not parts.has(name, b["key"])}
    done = [b for name, b in plan.items() if name not in left]
    return StageStatus(
        stage,
        sum(b["blocks"] for b in plan.values()),
        sum(b["cells"] for b in plan.values()),
        sum(b["blocks"] for b in done),
        sum(b["cells"] for b in done),
        sum(state == "failed" and of[0] in left for of, (_, state) in told.last.items()),
        slowest=sorted(told.slowest, reverse=True),
        failures=dict(told.causes.most_common()),
    )


def _at_work(directory: Path, starts: Mapping[str, Mapping[str, datetime]]) -> dict[str, str]:
    """Drivers who wrote last, by the file server's clock, and the stage each planned last, by its own."""
    wrote = {path.stem: path.stat().st_mtime for path in directory.glob("*.jsonl")}
    newest = max(wrote.values(), default=0.0)
    at: dict[str, str] = {}
    for driver, when in wrote.items():
        planned = {stage: begun[driver] for stage, begun in starts.items() if driver in begun}
        if planned and newest - when <= _WINDOW.total_seconds():
            at[driver] = max(planned, key=planned.__getitem__)
    return at


def _rate(ends: Iterable[tuple[datetime, int]], begun: datetime) -> float:
    """Blocks a second of one driver, 0 while none has ended: a batch's are told together, when it ends."""
    listed = [(at, n) for at, n in ends if at >= begun]
    last = max((at for at, _ in listed), default=begun)
    # from the end of a batch, or the start, to that of another: batches may be slow, and end by bursts
    since = max((at for at, _ in listed if at <= last - _WINDOW), default=begun)
    seconds = (last - since).total_seconds()
    return sum(n for at, n in listed if at > since) / seconds if seconds > 0 else 0.0


def _read(directory: Path) -> dict[str, _Told]:
    found: dict[str, _Told] = {}
    for line in read_journals(directory):
        told, block = found.setdefault(line["stage"], _Told()), tuple(line["block"])
        of, state = (line["batch"], block), (line["time"], line["state"])
        told.last[of] = max(told.last.get(of, state), state)
        if line["state"] == "done":
            ends = told.ended.setdefault(line["driver"], {})
            at, n = ends.get(line["batch"], (_LONG_AGO, 0))
            ends[line["batch"]] = max(at, datetime.fromisoformat(line["time"])), n + 1
            entry = (float(line["seconds"]), block)
            push = heapq.heappush if len(told.slowest) < _SLOWEST else heapq.heappushpop
            push(told.slowest, entry)
        else:
            told.causes[line["cause"]] += 1
    return found


def lines(found: list[StageStatus]) -> Iterator[str]:
    """The status as text.

    Examples
    --------
    >>> for line in lines([StageStatus("mosaic", 100, 900, 60, 500, 1, 2.0, 19.5, [(3.5, (4, 5))])]):
    ...     print(line)
    mosaic: 60 of 100 blocks done, 1 failed, 39 left; 2.0 blocks/s, 0:00:20 left
      slowest: 3.5 s block (4, 5)
    """
    for s in found:
        rate = "" if s.blocks_per_s is None else f"; {s.blocks_per_s:.1f} blocks/s"
        if s.seconds_left is not None and s.left_blocks:
            rate += f", {timedelta(seconds=round(s.seconds_left))} left"
        yield (
            f"{s.stage}: {s.done_blocks} of {s.blocks} blocks done, {s.failed_blocks} failed, "
            f"{s.left_blocks} left{rate}"
        )
        if s.slowest:
            yield "  slowest: " + ", ".join(f"{sec:.1f} s block {b}" for sec, b in s.slowest)
        for cause, blocks in s.failures.items():
            yield f"  failures: {cause}, {blocks} blocks"
