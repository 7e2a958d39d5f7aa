"""Inputs one by one in children forked from one warmed parent, with a limit of time and memory each.

The parent has imported everything and has no threads, so that a child begins at once; it tells its verdict
through a pipe, and whatever an input does to the process (a crash of a C library, memory, GDAL's state)
ends with it.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz.hostile import Listener
from benchmarks.fuzz.judge import Verdict, judge, state_of
from benchmarks.fuzz.trial import Input, Trial

__all__ = ["Limits", "run_all"]


@dataclass(frozen=True)
class Limits:
    """Of a child."""

    patience: float = 1.0
    """Times what the family may take from when the input is written."""
    write_seconds: float = 60.0
    """For writing the input."""
    memory_bytes: int = 3 << 30
    """Beyond what the parent has mapped."""
    output_bytes: int = 1 << 30
    """Of a file that it writes."""


@dataclass
class _Child:
    tried: Input
    pid: int
    pipe: int
    folder: Path
    deadline: float
    text: bytes = b""
    begun: bool = False


def run_all(
    inputs: Iterable[Input], *, beside: int, limits: Limits, keep: Path | None = None,
    listener: Listener | None = None,
) -> Iterator[tuple[Input, Verdict]]:  # fmt: skip
    """Try inputs, some beside each other.

    Parameters
    ----------
    inputs : iterable of Input
    beside : int
        How many at once.
    limits : Limits
    keep : Path, optional
        Where the inputs that end in a fault are kept.
    listener : Listener, optional
        The canary on the network.

    Yields
    ------
    (Input, Verdict)
    """
    left, running, called = iter(inputs), list[_Child](), set[str]()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        while True:
            while len(running) < beside and (tried := next(left, None)) is not None:
                running.append(_start(tried, Path(top), limits))
            if not running:
                return
            waited = [c.pipe for c in running]
            waited += [] if listener is None else [listener.socket.fileno()]
            ready, _, _ = select.select(waited, [], [], 0.2)
            called |= set() if listener is None else set(listener.callers())
            for child in list(running):
                verdict = _look_at(child, child.pipe in ready, limits)
                if verdict is None:
                    continue
                running.remove(child)
                if f"by-{child.folder.name}" in called:
                    verdict = Verdict(
                        "executed", f"a connection was made; {verdict.told}", verdict.wrong
                    )
                if keep is not None and verdict.outcome not in _FINE:
                    target = keep / child.tried.name.replace(":", "-")
                    shutil.rmtree(target, ignore_errors=True)
                    with suppress(shutil.Error):  # of a pipe, which is left out
                        shutil.copytree(child.folder, target, symlinks=True)
                shutil.rmtree(child.folder, ignore_errors=True)
                yield child.tried, verdict


_FINE = ("right", "clear", "warned", "undetectable")


def _start(tried: Input, top: Path, limits: Limits) -> _Child:
    folder = Path(tempfile.mkdtemp(prefix=f"{tried.name.replace(':', '-')}-", dir=top))
    for name in ("in", "tmp"):
        (folder / name).mkdir()
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            os.setsid()  # what it starts ends with it
            _work(tried, folder, writer, limits)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return _Child(tried, pid, reader, folder, time.monotonic() + limits.write_seconds)


def _work(tried: Input, folder: Path, pipe: int, limits: Limits) -> None:
    """In the child: write the input, try it, tell the verdict."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    try:
        trial = tried.prepare(folder / "in")
    except BaseException as error:  # of the harness, not of what is tried
        verdict = Verdict("unmade", f"{type(error).__name__}: {error}")
        os.write(pipe, b"\n" + json.dumps(verdict.as_dict()).encode())
        return
    before = state_of(folder / "in")
    shutil.rmtree(folder / "tmp")
    (folder / "tmp").mkdir()
    os.write(pipe, b"\n")
    _limit(limits)
    verdict = judge(tried, trial)
    after = state_of(folder / "in")
    changed = [
        p for p in sorted({*before, *after})
        if before.get(p) != after.get(p) and not _may_change(Path(p), trial)
    ]  # fmt: skip
    if changed:
        what = {True: "changed", False: "created"}[changed[0] in before]
        what = "removed" if changed[0] not in after else what
        verdict = Verdict("lost_files", f"{what} {changed[0]}; {verdict.told}", verdict.wrong)
    left = list((folder / "tmp").iterdir())
    if left and verdict.outcome in _FINE and not trial.leaves:
        verdict = Verdict(
            "lost_files", f"left behind {left[0].name}; {verdict.told}", verdict.wrong
        )
    os.write(pipe, json.dumps(verdict.as_dict()).encode())


def _may_change(path: Path, trial: Trial) -> bool:
    below = trial.may_change
    return below is not None and path.is_relative_to(below) and path not in trial.mine


def _limit(limits: Limits) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    most = mapped + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.output_bytes, limits.output_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _look_at(child: _Child, ready: bool, limits: Limits) -> Verdict | None:
    """The verdict of a child that has ended; None: it is at work."""
    if ready:
        piece = os.read(child.pipe, 1 << 20)
        if piece:
            child.text += piece
            if not child.begun and child.text.startswith(b"\n"):
                child.begun, child.deadline = (
                    True,
                    time.monotonic() + limits.patience * child.tried.family.seconds,
                )
            return None
        _, status = os.waitpid(child.pid, 0)
        os.close(child.pipe)
        return _told(child, status)
    if time.monotonic() < child.deadline:
        return None
    os.killpg(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    os.close(child.pipe)
    if not child.begun:
        return Verdict("unmade", "not in time")
    return Verdict(
        "hang", f"no answer in {child.tried.family.seconds} s", child.tried.damage is not None
    )


def _told(child: _Child, status: int) -> Verdict:
    wrong = child.tried.damage is not None
    try:
        return Verdict(**json.loads(child.text))
    except ValueError:
        code = os.waitstatus_to_exitcode(status)
        return Verdict("traceback", f"the process ended with {code}, without a word", wrong)
