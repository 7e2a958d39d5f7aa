"""Which failures of a task may pass by themselves, and how long to wait before it is tried again."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass

from distributed import KilledWorker
from distributed.comm.core import CommClosedError

from sesgrid.errors import ClusterError, SesgridError, StoreError
from sesgrid.store.location import store_failures

__all__ = ["ATTEMPTS", "Failure", "is_transient", "may_pass", "require_hope", "wait_before"]

ATTEMPTS = 4
"""Of a task whose failures may pass by themselves."""

_MOST = 20
"""Tasks that may fail before one has succeeded."""

_LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


@dataclass(frozen=True)
class Failure:
    """What could not be done of a batch, after all attempts."""

    batch: str
    blocks: tuple[tuple[int, int], ...]
    """(block_row, block_col), global."""
    cause: str
    """The class of the error."""
    message: str
    attempts: int
    defect: bool
    """Whether the error is none that the data or the machines explain."""

    @classmethod
    def of(
        cls, error: BaseException, batch: str, blocks: Sequence[tuple[int, int]], attempts: int
    ) -> Failure:
        """What an error means."""
        expected = isinstance(error, SesgridError) or is_transient(error)
        message = (str(error).splitlines() or [""])[0]
        return cls(batch, tuple(blocks), type(error).__name__, message, attempts, not expected)

    def __str__(self) -> str:
        """One line, naming the blocks."""
        named = ", ".join(map(str, self.blocks[:3])) + (", …" if len(self.blocks) > 3 else "")
        return (
            f"batch {self.batch}, {len(self.blocks)} blocks ({named}): {self.cause}: {self.message} "
            f"(after {self.attempts} attempts)"
        )


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: a store, a disk, a network or a worker that was away.

    A worker that dies at its memory limit says no more than one that was switched off, so that counts
    too; the number of attempts ends it.

    >>> is_transient(ConnectionResetError("gone")), is_transient(FileNotFoundError("no tile"))
    (True, False)
    """
    if isinstance(error, StoreError):
        cause = error.__cause__
        return not isinstance(cause, _LASTING) and getattr(cause, "errno", None) != errno.ENOTEMPTY
    if isinstance(error, SesgridError):
        return False
    # cancelled: the scheduler forgot the task, as it does when it is started anew
    passing = (KilledWorker, CommClosedError, CancelledError, TimeoutError, MemoryError)
    return isinstance(error, (*store_failures(), *passing)) and not isinstance(error, _LASTING)


def may_pass(error: BaseException, attempt: int, attempts: int = ATTEMPTS) -> bool:
    """Whether a task that failed so, at its so many-th attempt, is to be tried again."""
    return is_transient(error) and attempt < attempts


def require_hope(stage: str, failures: Sequence[Failure], succeeded: int) -> None:
    """Stop a stage of which everything fails: going on would only list every block of it.

    Raises
    ------
    ClusterError
    """
    if succeeded == 0 and len(failures) > _MOST:
        raise ClusterError(
            f"{stage}: the first {len(failures)} tasks failed and none succeeded; the last: {failures[-1]}"
        )


def wait_before(attempt: int) -> float:
    """Seconds before an attempt, the second being 2; four attempts outlast a store that is away a minute.

    >>> [wait_before(n) for n in (2, 3, 4, 5)]
    [2.0, 16.0, 60.0, 60.0]
    """
    return min(60.0, 2.0 * 8 ** (attempt - 2))
