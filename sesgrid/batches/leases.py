"""Leases: two drivers never do the same batch of the same stage at the same time.

A batch's lease is a file that its holder makes with ``O_EXCL`` and removes when the part is written. The
lease under a stage's own name is that of the stage as a whole, held from before its first batch until it is
recorded; one under a département's name says that somebody looks for what there is to do in it. A lease names
its holder, a driver, whose heartbeat is the time of change of a file of its own. A holder is gone when its
process is (on the same machine, where its processes are seen), or when its heart has not beaten for a minute.
All times are the file server's: what a machine's own clock says does not matter.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sesgrid.errors import ClusterError, StoreError
from sesgrid.foreign import refuse_pipe
from sesgrid.store.location import writing

__all__ = ["EXPIRES_S", "Leases"]

EXPIRES_S = 60.0
"""A holder whose heart has not beaten for so long is gone."""

_BEATS_S = 10.0

_WAITS_S = 1.0
"""Between two looks at a lease that is waited for."""

_TAKING_S, _TRIES = 10.0, 1000
"""How long the removal of a lease may take; how often one is tried to be had, 20 ms apart."""


@dataclass(frozen=True)
class _Holder:
    """A driver."""

    name: str
    """Host, process and a random part: file name of its heartbeat."""
    host: str
    pid: int
    machine: str = ""
    """Names the system that counts its processes; empty where none is named."""
    born: str = ""
    """When the process started, as the system counts: a number may be given to another process."""

    @classmethod
    def here(cls) -> _Holder:
        host, pid = socket.gethostname(), os.getpid()
        return cls(f"{host}-{pid}-{uuid.uuid4().hex[:8]}", host, pid, _machine(), _born(pid))

    @classmethod
    def named(cls, told: Mapping[str, Any]) -> _Holder:
        """As a lease names it, which an older or a newer version may have written.

        Raises
        ------
        ValueError, TypeError
            It names none.
        """
        found = cls(**{f.name: told[f.name] for f in fields(cls) if f.name in told})
        texts = (found.name, found.host, found.machine, found.born)
        if type(found.pid) is not int or not all(isinstance(text, str) for text in texts):
            raise TypeError("expected texts and a number, received something else")
        # its heartbeat is a file of that name
        plain = not {"/", "\0"}.intersection(found.name) and found.name not in ("", ".", "..")
        if not plain or len(os.fsencode(found.name)) > _LONGEST:
            raise ValueError("expected the name of a file, received something else")
        return found

    def told(self) -> str:
        """For a message."""
        return f"process {self.pid} on {self.host}"


_LONGEST = 255
"""Bytes of a file's name."""

_GONE = _Holder("", "", 0)
"""Of a lease that is not there."""


class Leases:
    """The leases of one driver.

    Parameters
    ----------
    directory : Path
        Shared by all drivers of a run.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Leases(folder) as ours, Leases(folder) as theirs:
    ...     ours.take("mosaic", ["000001", "000002"])
    ...     try:
    ...         theirs.take("mosaic", ["000002", "000003"])
    ...     except ClusterError as error:
    ...         print(str(error).split(":")[0])
    ...     theirs.take("mosaic", ["000003"])
    mosaic is being done by another driver
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.me = directory, _Holder.here()
        self._held: set[Path] = set()
        self._stop = threading.Event()

    def __enter__(self) -> Leases:
        with writing(str(self.directory), "a lease"):
            self._hearts.mkdir(parents=True, exist_ok=True)
            self._heart(self.me.name).touch()
        self._beating = threading.Thread(target=self._beat, daemon=True, name="lease-heartbeat")
        self._beating.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._beating.join()
        self.release_all()
        self._heart(self.me.name).unlink(missing_ok=True)

    def take(self, stage: str, batches: Iterable[str]) -> None:
        """Take the leases of some batches, all or none.

        Raises
        ------
        ClusterError
            A driver that lives holds one of them; it is named.
        """
        taken: list[Path] = []
        for batch in batches:
            path = self.directory / stage / f"{batch}.lease"
            with writing(str(path), "a lease"):
                path.parent.mkdir(parents=True, exist_ok=True)
                holder = self._try(path)
            if holder is not None:
                for mine in taken:
                    self._drop(mine)
                raise ClusterError(
                    f"{stage} is being done by another driver: {holder.told()} does {_what(stage, batch)}; "
                    "wait for it, or choose other batches. Its lease expires a minute after it is gone"
                )
            taken.append(path)

    def wait(self, stage: str, batch: str) -> None:
        """Take one lease as soon as its holder gives it back or is gone."""
        while True:
            try:
                self.take(stage, [batch])
            except ClusterError:
                time.sleep(_WAITS_S)
            else:
                return

    def holder(self, stages: Iterable[str], *, whole: bool = False) -> str | None:
        """Another driver that lives and holds a lease of one of the stages; None: there is none.

        Parameters
        ----------
        stages : iterable of str
        whole : bool
            Look at no leases but those of stages as a whole.
        """
        for stage in stages:
            for path in (self.directory / stage).glob(f"{stage if whole else '*'}.lease"):
                found = _read(path)
                if found is None or found in (_GONE, self.me) or not self._lives(found):
                    continue
                return f"{found.told()} does {_what(stage, path.stem)}"
        return None

    def release(self, stage: str, batch: str) -> None:
        """Give a lease back."""
        self._drop(self.directory / stage / f"{batch}.lease")

    def release_all(self) -> None:
        """Give all leases back."""
        for path in list(self._held):
            self._drop(path)

    @property
    def _hearts(self) -> Path:
        return self.directory / "drivers"

    def _heart(self, name: str) -> Path:
        return self._hearts / name

    def _try(self, path: Path) -> _Holder | None:
        """Take a lease; the living holder where that cannot be."""
        for _ in range(_TRIES):
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                holder = _read(path)
                if holder == _GONE:
                    continue  # given back just now: whoever makes it first has it
                if holder is not None and self._lives(holder):
                    return holder
                self._remove(path, holder)
                continue
            try:
                with writing(str(path), "a lease"), os.fdopen(descriptor, "w") as file:
                    json.dump(vars(self.me), file)
            except StoreError:
                path.unlink(missing_ok=True)
                raise
            self._held.add(path)
            return None
        holder = _read(path)
        return self.me if holder is None or holder == _GONE else holder

    def _remove(self, path: Path, stale: _Holder | None) -> None:
        """Remove the lease of a holder that is gone, and no other that has come in its place meanwhile.

        One driver at a time looks and removes; whoever else wanted to looks again.
        """
        taking = path.with_suffix(".taking")
        try:
            os.close(os.open(taking, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            with suppress(FileNotFoundError):
                if self._now() - taking.stat().st_mtime > _TAKING_S:
                    taking.unlink()  # whoever was at it died
            time.sleep(0.02)
            return
        try:
            # never what is not there now: it may be there the moment after, and be another's
            if _read(path) == stale:
                path.unlink(missing_ok=True)
        finally:
            taking.unlink(missing_ok=True)

    def _now(self) -> float:
        """The file server's clock."""
        mine = self._heart(self.me.name)
        mine.touch()
        return mine.stat().st_mtime

    def _lives(self, holder: _Holder) -> bool:
        if holder.name == self.me.name:
            return True
        if holder.machine and holder.machine == self.me.machine:
            return _born(holder.pid) == holder.born != ""
        try:
            beat = self._heart(holder.name).stat().st_mtime
        except FileNotFoundError:
            return False
        return self._now() - beat < EXPIRES_S

    def _drop(self, path: Path) -> None:
        if path in self._held and _read(path) == self.me:
            path.unlink(missing_ok=True)
        self._held.discard(path)

    def _beat(self) -> None:
        while not self._stop.wait(_BEATS_S):
            with suppress(OSError):  # a file server that is away for a moment must not end it
                self._heart(self.me.name).touch()


def _what(stage: str, batch: str) -> str:
    return f"all of {stage}" if batch == stage else f"batch {batch} of {stage}"


def _machine() -> str:
    """This start of the system, and the space in which it numbers processes: containers have their own.

    A host's name would not do: containers may share their machine's, and many are called localhost.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When a process of this host started; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # the name in brackets may hold anything
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _read(path: Path) -> _Holder | None:
    """The holder that a lease names; `_GONE` where there is no lease, None where it stays half written."""
    refuse_pipe(path)
    for _ in range(20):
        try:
            return _Holder.named(json.loads(path.read_text()))
        except FileNotFoundError:
            return _GONE
        except IsADirectoryError:
            return None
        except (ValueError, TypeError, AttributeError, RecursionError):
            time.sleep(0.05)  # its holder is writing it
    return None
