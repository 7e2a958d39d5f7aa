"""Whose an output folder is, and which of its files its run wrote: nothing else there is replaced or removed.

A run takes a folder that is absent or empty, and leaves its mark in it, ``work/run.json``. From then on
everything below ``work`` is the run's. Results lie where the user's own files may lie too, so each of them is
entered into ``work/written`` before it is written for the first time, and only what is entered there is ever
written over or removed.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sesgrid import __version__
from sesgrid.errors import ConfigError, MissingInputError, StoreError
from sesgrid.foreign import reading, writing

__all__ = ["Mark", "lies_within"]

_HARMLESS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".directory"})
"""What desktops and git put into folders that are empty to their users."""


@dataclass(frozen=True)
class Mark:
    """The mark of a run in its output folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> mark = Mark(folder / "nice")
    >>> mark.take("Nice") == mark.take("Nice") == mark.run_id()
    True
    >>> _ = (folder / "nice" / "pairs.csv").write_text("mine")
    >>> try:
    ...     mark.enter(folder / "nice" / "pairs.csv")
    ... except StoreError as error:
    ...     print(str(error).split("nice/")[1])
    pairs.csv was not written by this run: move it away, then run again
    """

    output: Path

    @property
    def path(self) -> Path:
        """Of the mark."""
        return self.output / "work" / "run.json"

    @property
    def _entries(self) -> Path:
        return self.output / "work" / "written"

    def run_id(self) -> str | None:
        """Drawn when the folder was taken; None: it bears no mark.

        Raises
        ------
        FormatError
            The mark is damaged.
        """
        told = self._read()
        return None if told is None else told["run"]

    def name(self) -> str | None:
        """Of the run; None: the folder bears no mark."""
        told = self._read()
        return None if told is None else told["name"]

    def _read(self) -> dict[str, str] | None:
        try:
            with reading(
                self.path,
                advice="it is the run's mark: `sesgrid verify CUBE --redo`, with its configuration, "
                "writes it again",
            ):
                told = json.loads(self.path.read_text(encoding="utf-8"))
                known = {name: told[name] for name in ("run", "name")}
                if not all(isinstance(value, str) for value in known.values()):
                    raise TypeError("expected names, received something else")
                return known
        except MissingInputError:
            return None

    def take(self, name: str, sources: Iterable[Path] = ()) -> str:
        """Take the folder for a run, or see that it is that run's.

        Parameters
        ----------
        name : str
            Of the run.
        sources : iterable of Path
            What the run reads, none of which may lie in the folder, nor the folder in one of them.

        Returns
        -------
        str
            The run's id.

        Raises
        ------
        ConfigError
            The folder holds files and no mark, is another run's, is no folder, or holds a source or lies in
            one.
        StoreError
            It cannot be written.
        FormatError
            The mark is damaged.
        """
        here = self.output.resolve()
        for source in (s.resolve() for s in sources):
            if source.is_relative_to(here):
                raise ConfigError(
                    f"output: {self.output} holds {source.name}, which the run reads: expected a folder for "
                    "results alone; name another one, or move the source out of it"
                )
            if here.is_relative_to(source):
                raise ConfigError(
                    f"output: {self.output} lies in {source}, all of which the run reads, so results would "
                    "count as sources: name another folder, or the source's own files"
                )
        told = self._read()
        if told is None:
            self._require_empty()
            told = self._leave(name, uuid.uuid4().hex)
        if told["name"] != name:
            raise ConfigError(
                f"output: {self.output} belongs to the run of {told['name']!r}, and this one is of {name!r}: "
                "give it a folder of its own, or the name that it had"
            )
        return told["run"]

    def restore(self, name: str, run_id: str) -> None:
        """Write a damaged mark again."""
        with writing(self.path):
            self.path.unlink(missing_ok=True)
        self._leave(name, run_id)

    def _leave(self, name: str, run_id: str) -> dict[str, str]:
        """Make the mark, unless another driver was quicker."""
        told = {"run": run_id, "name": name, "software": f"sesgrid {__version__}"}
        beside = self.path.with_name(f".run.{uuid.uuid4().hex}.partial")
        with writing(self.output):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                beside.write_text(json.dumps(told), encoding="utf-8")
                # whole when it appears, and never in the place of another
                self._appear(beside)
            except FileExistsError:
                pass
            finally:
                beside.unlink(missing_ok=True)
        return self._read() or told

    def _appear(self, beside: Path) -> None:
        try:
            os.link(beside, self.path)
        except FileExistsError:
            raise
        except OSError:
            # exFAT, SMB and others know no hard links: there it is damaged until it is whole
            with open(self.path, "x", encoding="utf-8") as file:
                try:
                    file.write(beside.read_text(encoding="utf-8"))
                    file.flush()
                except OSError:
                    self.path.unlink(missing_ok=True)
                    raise

    def _require_empty(self) -> None:
        """Refuse a folder with files of others."""
        with reading(self.output, StoreError):
            if not self.output.exists():
                return
            if not self.output.is_dir():
                raise ConfigError(f"output: {self.output} is no folder: name another one")
            there = {p.name for p in self.output.iterdir()} - _HARMLESS
            # another driver may just have begun to take it
            if there == {"work"} and all(p.name.startswith(".run.") for p in self._below_work()):
                return
        if not there or self._read() is not None:
            return
        older = (self.output / "work" / "stages").is_dir()
        what = "results of sesgrid 0.1" if older else f"files of others ({sorted(there)[0]!r} …)"
        raise ConfigError(
            f"output: {self.output} holds {what} and no mark of a run: a run takes only a folder that is "
            "empty or does not exist yet, so that nothing in it is lost; name another one, or move these "
            "files away"
        )

    def _below_work(self) -> Iterator[Path]:
        return (self.output / "work").iterdir()

    def enter(self, *paths: Path) -> None:
        """Before results are written: see that what lies there, if anything, is the run's own.

        Parameters
        ----------
        *paths : Path
            Files or folders in the output folder. What is written below a folder is the run's too.

        Raises
        ------
        StoreError
            Something lies there that the run did not write.
        """
        known = self._entered()
        new = [p for p in paths if not self._covers(known, p)]
        for path in new:
            if os.path.lexists(path):
                raise StoreError(
                    f"{path} was not written by this run: move it away, then run again"
                )
        self._add(new)

    def _add(self, paths: Iterable[Path]) -> None:
        # a line of its own, also after one that was cut
        lines = "".join(f"\n{json.dumps(self._name(p))}\n" for p in paths)
        if lines:
            with writing(self._entries):
                self._entries.parent.mkdir(parents=True, exist_ok=True)
                with open(self._entries, "a", encoding="utf-8") as file:
                    file.write(lines)

    def covers(self, path: Path) -> bool:
        """Whether the run wrote what lies there, or meant to."""
        return self._covers(self._entered(), path)

    def enter_again(self, *paths: Path) -> None:
        """Enter what a damaged list lost, and of which something else tells that the run wrote it."""
        self._add(p for p in paths if not self.covers(p))

    def remove(self, *paths: Path) -> None:
        """Remove files, and of folders the files, that the run wrote; whatever else lies there stays."""
        known = self._entered()
        for path in paths:
            if not lies_within(path, self.output):
                continue  # behind a link
            linked = path.is_symlink()
            below = sorted(path.rglob("*"), reverse=True) if path.is_dir() and not linked else ()
            for found in [*below, path]:
                with writing(found):
                    if found.is_dir() and not found.is_symlink():
                        if not any(found.iterdir()) and found != self.output:
                            found.rmdir()
                    elif self._covers(known, found):
                        found.unlink(missing_ok=True)

    def entered(self, folder: Path) -> list[Path]:
        """What the run wrote directly below a folder of its output, or meant to."""
        found = (self.output / name for name in self._entered())
        return sorted(p for p in found if p.parent == folder)

    def _entered(self) -> set[str]:
        if self._entries.is_dir():
            return set()  # as damaged as can be
        try:
            with reading(self._entries):
                text = self._entries.read_text(encoding="utf-8", errors="replace")
        except MissingInputError:
            return set()
        names = set()
        for line in text.splitlines():
            try:
                told = json.loads(line)
            except (ValueError, RecursionError):
                continue  # damaged: what it named counts as a file of others
            if _is_name(told):
                names.add(told)
        return names

    def _covers(self, known: set[str], path: Path) -> bool:
        name = self._name(path)
        # what was entered with a suffix was a file: a folder of that name is somebody's
        above = (str(p) for p in Path(name).parents if not p.suffix)
        return not known.isdisjoint([name, *above])

    def _name(self, path: Path) -> str:
        return path.relative_to(self.output).as_posix()


def _is_name(told: Any) -> bool:
    """Whether it names something in the output folder, and not the folder itself."""
    if not isinstance(told, str) or "\0" in told:
        return False
    try:
        os.fsencode(told)
    except UnicodeEncodeError:
        return False
    at = PurePosixPath(told)
    return bool(at.parts) and not at.is_absolute() and ".." not in at.parts


def lies_within(path: Path, folder: Path) -> bool:
    """Whether what a path names lies in a folder, and not behind a link that leads out of it."""
    return path.parent.resolve().is_relative_to(folder.resolve())
