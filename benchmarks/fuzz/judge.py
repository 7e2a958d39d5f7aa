"""What came of an input: the classes that a campaign counts."""

from __future__ import annotations

import os
import traceback
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzz.trial import Input, Trial
from sesgrid.errors import MAX_MESSAGE, SesgridError, SesgridWarning

__all__ = ["FAULTS", "Verdict", "judge", "state_of"]

FAULTS = ("traceback", "hang", "silent", "lost_files", "executed", "wrongly_refused")


@dataclass
class Verdict:
    """What came of one input."""

    outcome: str
    """right, clear, warned, undetectable, one of `FAULTS`, or unmade: the harness' own failure."""
    told: str = ""
    """The message, or what differs."""
    wrong: bool = False
    """Whether the input was damaged."""
    causes: list[str] = field(default_factory=list)
    """Classes of what others raised."""
    where: str = ""
    """Innermost line of ours in a traceback."""

    def as_dict(self) -> dict[str, Any]:
        """For a pipe."""
        return asdict(self)


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and checksum of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = (-1, zlib.crc32(os.readlink(path).encode()))
        elif path.is_file():
            found[str(path)] = (path.stat().st_size, zlib.crc32(path.read_bytes()))
        else:
            found[str(path)] = (-2, 0)
    return found


def judge(tried: Input, trial: Trial) -> Verdict:
    """Do what is to be done with an input, and say what came of it."""
    wrong = tried.damage is not None
    detectable = tried.damage is None or tried.damage.detectable
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = trial.act()
    except SesgridError as error:
        told, causes = str(error), list(_causes(error))
        if not told or "\n" in told or len(told) > MAX_MESSAGE:
            return Verdict(
                "traceback", f"a message of {len(told)} characters: {told}", wrong, causes
            )
        return Verdict("clear" if wrong else "wrongly_refused", told, wrong, causes, _ours(error))
    except BaseException as error:
        told = f"{type(error).__name__}: {str(error)[:300]}"
        return Verdict("traceback", told, wrong, list(_causes(error)), _ours(error))
    notes = [str(w.message) for w in caught if issubclass(w.category, SesgridWarning)]
    told = " | ".join(notes)
    difference = _difference(trial, value, False)
    if not difference:
        return Verdict("warned" if notes else "right", told, wrong)
    if tried.damage is not None and tried.damage.hostile:
        return Verdict("executed", difference, wrong)
    if notes and not _difference(trial, value, True):
        return Verdict("warned", told, wrong)
    if not detectable:
        return Verdict("undetectable", difference, wrong)
    return Verdict("silent", f"{difference}{f' (told: {told})' if told else ''}", wrong)


def _difference(trial: Trial, value: object, partly: bool) -> str:
    try:
        return trial.difference(value, partly)
    except Exception as error:  # what was made cannot even be opened
        return f"cannot be compared: {type(error).__name__}: {str(error)[:200]}"


def _causes(error: BaseException) -> Iterator[str]:
    cause: BaseException | None = error
    while cause is not None:
        if not isinstance(cause, SesgridError):
            yield f"{type(cause).__module__}.{type(cause).__qualname__}"
        cause = cause.__cause__ or cause.__context__


def _ours(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/sesgrid/" in f.filename]
    return f"{frames[-1].filename.split('/sesgrid/')[-1]}:{frames[-1].lineno}" if frames else ""
