"""The run's journal: one JSON line per block, in the order they are recorded.

A line has ``time`` (UTC), ``stage``, ``batch``, ``block`` (row, column), ``state`` ("done" or "failed") and,
if done, ``seconds`` (its share of the task's), ``worker``, ``peak_mb`` and ``attempt``; if failed, ``cause``,
``message`` and ``attempts``. Every driver writes a file of its own.
"""

from __future__ import annotations

import json
import math
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sesgrid.batches.failures import Failure
from sesgrid.batches.flight import Note
from sesgrid.errors import FormatError, MissingInputError
from sesgrid.foreign import reading
from sesgrid.store.location import writing
from sesgrid.store.parts import write_atomically

__all__ = [
    "Journal",
    "damaged_lines",
    "is_plan",
    "mend",
    "plan_path",
    "plan_starts",
    "plans_of",
    "read_journals",
    "read_plan",
]

_PROCESS = uuid.uuid4().hex[:8]
"""Tells this process from one of the same number elsewhere."""


@dataclass(frozen=True)
class Journal:
    """A file of JSON lines."""

    path: Path
    tidy: Callable[[str], str] = str
    """What of a message is told."""

    @classmethod
    def of_driver(cls, directory: Path, tidy: Callable[[str], str] = str) -> Journal:
        """The journal of this process, and of no other: containers may have one name and one number."""
        return cls(directory / f"{socket.gethostname()}-{os.getpid()}-{_PROCESS}.jsonl", tidy)

    def plan(
        self, stage: str, batches: Mapping[str, Mapping[str, Any]], whole: bool = True
    ) -> None:
        """Say what a stage has to do, for whoever asks how far it is.

        Parameters
        ----------
        stage : str
        batches : mapping
            Name of every batch, also of those that are done → ``key``, ``blocks`` and ``cells``.
        whole : bool
            Whether the stage has no others.
        """
        folder = self.path.parent
        told = {"time": _now(), "driver": self.path.stem, "batches": {**batches}}
        path = plan_path(folder, stage, None if whole else self.path.stem)
        write_atomically(path, json.dumps(told))
        for other in plans_of(folder, stage) if whole else ():
            if other != path:
                other.unlink(missing_ok=True)

    def blocks(
        self, stage: str, batch: str, blocks: Sequence[tuple[int, int]], cells: int, note: Note
    ) -> None:
        """A task's blocks are done."""
        share = round(note.seconds / max(len(blocks), 1), 4)
        self._write(
            {
                "stage": stage, "batch": batch, "block": block, "state": "done", "seconds": share,
                "worker": note.worker, "peak_mb": note.peak_mb, "attempt": note.attempt,
            }
            for block in blocks
        )  # fmt: skip

    def failure(self, stage: str, failure: Failure) -> None:
        """A task's blocks failed for good."""
        self._write(
            {
                "stage": stage, "batch": failure.batch, "block": block, "state": "failed",
                "cause": failure.cause, "message": self.tidy(failure.message), "attempts": failure.attempts,
            }
            for block in failure.blocks
        )  # fmt: skip

    def _write(self, lines: Iterator[dict[str, Any]]) -> None:
        text = "".join(json.dumps({"time": _now(), **line}) + "\n" for line in lines)
        with writing(str(self.path), "the journal"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def plan_path(directory: Path, stage: str, driver: str | None = None) -> Path:
    """Where a stage's plan lies among the journals, or a driver's part of it."""
    return directory / f"{stage}{'' if driver is None else f'.{driver}'}.plan.json"


def plans_of(directory: Path, stage: str) -> list[Path]:
    """The plans of a stage and of its parts."""
    return [*directory.glob(f"{stage}.plan.json"), *directory.glob(f"{stage}.*.plan.json")]


def _told(directory: Path, stage: str) -> list[dict[str, Any]]:
    """What these plans say, the last word last."""
    told = [plan for path in plans_of(directory, stage) if (plan := _plan(path)) is not None]
    return sorted(told, key=lambda plan: str(plan["time"]))


def _plan(path: Path) -> dict[str, Any] | None:
    """What a plan says; None where it is damaged: its stage makes it anew."""
    try:
        with reading(path):
            plan = json.loads(path.read_bytes())
            _moment(plan["time"])
            named = [plan["driver"], *(b["key"] for b in plan["batches"].values())]
            sizes = [b[size] for b in plan["batches"].values() for size in ("blocks", "cells")]
            whole = all(type(n) is int and n >= 0 for n in sizes)
            return plan if whole and plan["driver"] and _are_text(named) else None
    except (FormatError, MissingInputError):
        return None


def _moment(told: Any) -> datetime:
    """A time as this package writes them: with its zone, or it could not be compared with others.

    Raises
    ------
    ValueError, TypeError
    """
    moment = datetime.fromisoformat(told)
    if moment.tzinfo is None or not 1970 <= moment.year < 9000:
        raise ValueError(f"expected a time of ours, received {told!r}")
    return moment


def _are_text(told: Sequence[Any]) -> bool:
    return all(isinstance(text, str) for text in told)


def read_plan(directory: Path, stage: str) -> dict[str, dict[str, Any]]:
    """The batches of a stage, all drivers' together, the last word on each; empty: it was not begun."""
    found: dict[str, dict[str, Any]] = {}
    for plan in _told(directory, stage):
        found |= plan["batches"]
    return found


def plan_starts(directory: Path, stage: str) -> dict[str, datetime]:
    """When drivers planned a stage, by their own clocks; not those whose batches others planned all again."""
    found: dict[str, datetime] = {}
    known: set[str] = set()
    for plan in reversed(_told(directory, stage)):
        if not known.issuperset(plan["batches"]):
            found[plan["driver"]] = datetime.fromisoformat(plan["time"])
            known |= set(plan["batches"])
    return found


def read_journals(directory: Path) -> Iterator[dict[str, Any]]:
    """Lines of all journals, each with its ``driver``; what is half written or damaged is skipped."""
    for path in sorted(directory.glob("*.jsonl")):
        with reading(path), open(path, "rb") as file:
            lines = (_line(raw) for raw in file)
            yield from ({"driver": path.stem, **line} for line in lines if line is not None)


def _line(raw: bytes) -> dict[str, Any] | None:
    """A line of a journal; None where it is damaged."""
    try:
        line = json.loads(raw)
        _moment(line["time"])
        row, col = line["block"]
        done = line["state"] == "done"
        whole = type(row) is int and type(col) is int
        named = [line["stage"], line["batch"], line["state"], *([] if done else [line["cause"]])]
        timed = not done or 0 <= float(line["seconds"]) < math.inf
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return line if whole and timed and _are_text(named) else None


def is_plan(path: Path) -> bool:
    """Whether a file is a plan, and whole."""
    return _plan(path) is not None


def damaged_lines(path: Path) -> int:
    """Lines of a journal that are half written or damaged."""
    with reading(path), open(path, "rb") as file:
        return sum(_line(raw) is None for raw in file)


def mend(path: Path) -> None:
    """Leave the damaged lines of a journal out; by whoever knows that no driver writes it."""
    with reading(path):
        raw = path.read_bytes().splitlines(keepends=True)
    write_atomically(path, b"".join(line for line in raw if _line(line) is not None))
