"""Is a stage still fresh? A stage's facts, their hash, and what changed since it last ran."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.foreign import reading, writing
from sesgrid.sources.vrt import parts_of_vrt
from sesgrid.store.parts import write_atomically

__all__ = ["Folders", "StageRecord", "digest", "fingerprint", "key_of"]


class Folders:
    """What lies in folders, each listed once: thousands of tiles lie side by side."""

    def __init__(self) -> None:
        self._names: dict[Path, list[str]] = {}

    def beginning_with(self, folder: Path, stem: str) -> list[Path]:
        """Files and folders whose names begin so."""
        if folder not in self._names:
            self._names[folder] = sorted(os.listdir(folder)) if folder.is_dir() else []
        names = self._names[folder]
        first = last = bisect_left(names, stem)
        while last < len(names) and names[last].startswith(stem):
            last += 1
        return [folder / name for name in names[first:last]]


def fingerprint(path: Path, folders: Folders | None = None) -> str:
    """Size and time of change of a file and its companions, or of every file below a folder, hashed.

    Companions begin with the file's stem: the parts of a shapefile, a world file, a boundary beside
    a land cover, a ``.md5``. Links to folders are followed. Of a VRT, the files that it names count too. A
    folder that is moved with all that is in it stays what it was.

    Parameters
    ----------
    path : Path
    folders : Folders, optional
        Shared by many calls, so that a folder is listed once.
    """
    if path.is_dir():
        found = [Path(top) / f for top, _, files in os.walk(path, followlinks=True) for f in files]
    else:
        beside = (folders or Folders()).beginning_with(path.parent, path.stem)
        found = [p for p in beside if p.is_file()]
    named = {part for p in found if p.suffix.lower() == ".vrt" for part in parts_of_vrt(p)}
    files = sorted(p for p in named.union(found) if p.exists())
    above = path if path.is_dir() else path.parent
    states = ((p.relative_to(above), p.stat()) for p in files)
    lines = [f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def key_of(facts: Mapping[str, Any]) -> str:
    """Hash of a stage's facts.

    >>> key_of({"a": 1}) == key_of({"a": 1}), key_of({"a": 1}) == key_of({"a": 2})
    (True, False)
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _is_record(known: Any) -> bool:
    """Whether JSON is what `StageRecord.write` writes."""
    kinds = {"facts": dict, "summary": dict, "key": str, "result_id": str}
    if not isinstance(known, dict) or not all(
        isinstance(known.get(k), t) for k, t in kinds.items()
    ):
        return False
    seal = known.pop(_SEAL, None)  # sesgrid 0.1 wrote none
    return _are_sums(known.get("written", {})) and seal in (None, key_of(known))


def _are_sums(written: Any) -> bool:
    """Whether JSON tells of files by their names what `checksum_of` tells."""
    return isinstance(written, dict) and all(
        isinstance(sums, list) and len(sums) == 2 and all(type(n) is int for n in sums)
        for sums in written.values()
    )


_SEAL = "seal"
"""Hash of the rest of a record."""


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage left behind, as ``work/stages/<stage>.json``."""

    path: Path

    def read(self) -> dict[str, Any]:
        """The record; an empty one where there is none, or it is damaged and its stage to be done again.

        Raises
        ------
        ReadError
            It may not be read.
        """
        try:
            with reading(self.path):
                known = json.loads(self.path.read_bytes())
        except (MissingInputError, FormatError):
            return {}
        return known if _is_record(known) else {}

    def write(
        self,
        facts: Mapping[str, Any],
        summary: Mapping[str, Any],
        result_id: str | None = None,
        written: Mapping[str, Sequence[int]] | None = None,
    ) -> str:
        """Mark the stage as finished with these facts.

        Parameters
        ----------
        facts, summary : mapping
        result_id : str, optional
            Names the result where the facts alone do not (a cube that may be made anew, weights that
            no training repeats to the bit); later stages depend on it. Default: the facts' hash.
        written : mapping, optional
            Bytes and crc32c of every file that the stage wrote, by its name in the output folder.

        Returns
        -------
        str
            The ``result_id``.
        """
        key = key_of(facts)
        result_id = f"{key}-{result_id}" if result_id else key
        record = {"facts": dict(facts), "key": key, "result_id": result_id}
        record |= {"summary": dict(summary), "written": dict(written or {})}
        told = json.loads(json.dumps(record, default=str))
        write_atomically(self.path, json.dumps({**told, _SEAL: key_of(told)}, indent=1))
        return result_id

    def without_files(self) -> None:
        """The files that the stage wrote were removed: nobody need miss them."""
        known = self.read()
        if known.get("written"):
            suffix = known["result_id"].removeprefix(known["key"]).removeprefix("-")
            self.write(known["facts"], known["summary"], suffix or None)

    def forget(self) -> None:
        """Mark the stage as unfinished."""
        with writing(self.path):
            self.path.unlink(missing_ok=True)

    def reasons(self, facts: Mapping[str, Any], missing: Iterable[str]) -> list[str]:
        """Why the stage must run; empty when it is fresh.

        Parameters
        ----------
        facts : mapping
        missing : iterable of str
            Names of outputs that are not there.
        """
        known = self.read().get("facts")
        if known is None:
            return ["not done yet"]
        now = json.loads(json.dumps(dict(facts), default=str))
        out = []
        for name in sorted({*now, *known}):
            if now.get(name) != known.get(name):
                if name.startswith("input ") or name.startswith("stage "):
                    out.append(f"{name} changed")
                else:
                    out.append(f"{name} changed from {known.get(name)!r} to {now.get(name)!r}")
        return out + [f"output {name} is missing" for name in missing]


def digest(values: Iterable[Any]) -> str:
    """Hash of values by what they show of themselves (``repr``); the order counts.

    >>> digest([1, "a"]) == digest([1, "a"]), digest([1, "a"]) == digest(["a", 1])
    (True, False)
    """
    found = hashlib.sha256()
    for value in values:
        found.update(repr(value).encode())
        found.update(b"\0")
    return found.hexdigest()[:16]
