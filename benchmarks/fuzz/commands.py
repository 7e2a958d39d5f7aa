"""The command line in a child: what a command says, and its status, as a reader's result or error."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from sesgrid.errors import SesgridError

__all__ = ["Said", "command"]


@dataclass(frozen=True)
class Said:
    """What a command said."""

    status: int
    out: str
    err: str


class Told(SesgridError):
    """A command ended with status 1 or 2 and told why."""


def command(*words: str | Path) -> Said:
    """Run ``sesgrid WORDS``.

    Raises
    ------
    Told
        It ended with 1 or 2: its one line of error, or what it found.
    RuntimeError
        It ended with a traceback, another status, or without a word.
    """
    from sesgrid.commands.cli import main

    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(w) for w in words], standalone_mode=False)
        except SystemExit as end:
            status = int(end.code or 0)
    said = Said(status, out.getvalue(), err.getvalue())
    if status == 0 and "Traceback (most" not in said.err:
        return said
    if status not in (1, 2) or "Traceback (most" in said.err:
        lines = said.err.strip().splitlines() or ["without a word"]
        ours = [
            line.strip()
            for line in lines
            if "/sesgrid/" in line and line.strip().startswith("File")
        ]
        raise RuntimeError(f"status {status}: {_error(lines)} | {ours[-1] if ours else ''}")
    lines = [line for line in said.err.splitlines() if line.strip()]
    if status == 2:
        if len(lines) != 1 or not lines[0].startswith("error: "):
            raise RuntimeError(f"status 2 and {len(lines)} lines: {said.err[-300:]}")
        raise Told(lines[0])
    raise Told(" ".join(said.out.split())[-300:] or " ".join(lines)[-300:])


def _error(lines: list[str]) -> str:
    found = [
        line for line in lines if re.match(r"[\w.]+(Error|Exception|Warning|Interrupt)?:", line)
    ]
    return found[-1] if found else lines[-1]


assert sys
