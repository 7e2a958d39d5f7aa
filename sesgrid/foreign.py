"""What others raise, told as ours: the one place that maps exceptions of dependencies and of the system.

A damaged file makes GDAL, GEOS, Arrow, Zarr, zlib and their Python sides raise dozens of classes, from
``OSError`` without a number to ``UnicodeDecodeError`` and ``MemoryError``. So each call into one of them that
meets bytes from outside stands in `reading`, and each that writes in `writing`; nothing else of ours does,
or our own mistakes would be told as faults of files.
"""

from __future__ import annotations

import errno
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sesgrid.errors import (
    FormatError,
    MissingInputError,
    ReadError,
    SesgridError,
    StoreError,
    one_line,
)

__all__ = [
    "DAMAGED",
    "NO_ROOM",
    "cause_of",
    "copying",
    "reading",
    "refuse_pipe",
    "refuse_special",
    "refuse_unreadable",
    "scratch",
    "writing",
]

DAMAGED = "it is truncated, damaged or of another kind: fetch it again"
"""What is most often the matter with a file that cannot be read."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Numbers of errors that only writing makes."""

_IN_USE = "another program is writing to it: close it there, and try again"

_NO_TEXT = "a name in its path is not in UTF-8, which not every reader takes: rename it"

_MISSING = (errno.ENOENT, errno.ENOTDIR)
_REFUSED = (errno.EACCES, errno.EPERM)


@contextmanager
def reading(
    what: object, error: type[SesgridError] = FormatError, advice: str = DAMAGED
) -> Iterator[None]:
    """Whatever is raised inside becomes an error of ours, of one line, that names what was being read.

    Parameters
    ----------
    what : object
        The file, as the message calls it.
    error : type
        Of what its content is at fault for.
    advice : str
        What to do about that.

    Raises
    ------
    MissingInputError
        There is no such file.
    ReadError
        It may not be read, or the system fails to; or, of a path, it is a pipe or a device.
    SesgridError
        ``error``, for everything else; those of ours pass as they are.

    Examples
    --------
    >>> with reading("a.parquet"):
    ...     raise UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte")
    Traceback (most recent call last):
    sesgrid.errors.FormatError: a.parquet cannot be read (UnicodeDecodeError: 'utf-8' codec can't decode \
byte 0x78 in position 0: invalid start byte); it is truncated, damaged or of another kind: fetch it again
    """
    if isinstance(what, Path):
        refuse_pipe(what)
    try:
        yield
    except SesgridError:
        raise
    except OSError as cause:
        if cause.errno in _MISSING:
            raise MissingInputError(f"{what}: no such file or folder: check the path") from cause
        if cause.errno in _REFUSED:
            raise ReadError(
                f"{what} may not be read ({cause.strerror}): give read access to it and the folders above"
            ) from cause
        if cause.errno is not None:
            raise ReadError(f"{what} cannot be read: {cause_of(cause)}") from cause
        raise error(f"{what} cannot be read ({cause_of(cause)}); {advice}") from cause
    except Exception as cause:
        told = _IN_USE if _is_in_use(cause) else _NO_TEXT if _is_of_a_name(cause) else advice
        raise error(f"{what} cannot be read ({cause_of(cause)}); {told}") from cause


def _is_in_use(error: Exception) -> bool:
    """Whether a database is held by another program; the lowest byte of SQLite's numbers tells the kind."""
    number = getattr(error, "sqlite_errorcode", None)
    return number is not None and number & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_of_a_name(error: Exception) -> bool:
    """Whether a path holds bytes that are no text, for which Python puts surrogates."""
    return isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason


def refuse_unreadable(error: OSError) -> None:
    """For `os.walk`, which else passes over a folder that cannot be listed, as if it were empty."""
    with reading(error.filename, ReadError):
        raise error


def refuse_pipe(path: Path) -> None:
    """Raise a `ReadError` where a pipe or a device lies, which would be waited for or never ends."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # which opening it tells
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ReadError(f"{path} is a pipe or a device: expected a file or a folder; move it away")


def refuse_special(path: Path, expected: str, advice: str = "leave it out") -> None:
    """Raise a `FormatError` where something lies that is no file: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        raise FormatError(f"{path} is a folder, a pipe or a device: expected {expected}; {advice}")


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Whatever the system raises inside becomes a `StoreError` that names what was being written.

    >>> with writing("out.csv"):
    ...     raise PermissionError(13, "Permission denied", "out.csv")
    Traceback (most recent call last):
    sesgrid.errors.StoreError: out.csv cannot be written (Permission denied): make room or give write \
access, then run again
    """
    if isinstance(what, Path):
        refuse_pipe(what)
    try:
        yield
    except SesgridError:
        raise
    except OSError as cause:
        raise StoreError(
            f"{what} cannot be written ({cause_of(cause)}): make room or give write access, then run again"
        ) from cause


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, gone at the end; a `StoreError` tells where none can be made."""
    with writing("a temporary folder"):
        place = tempfile.gettempdir()  # raises where there is no room in any
    with writing(place):
        temporary = tempfile.TemporaryDirectory(prefix="sesgrid-")
    with temporary as folder:
        yield Path(folder)


@contextmanager
def copying(what: object) -> Iterator[None]:
    """Where a file is read and copied to the temporary folder: want of room there becomes a `StoreError`.

    Everything else is the file's, and passes.

    >>> with copying("a.csv"):
    ...     raise OSError(27, "File too large")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sesgrid.errors.StoreError: a.csv cannot be copied to ... (File too large): make room there, or name \
another folder in TMPDIR
    """
    try:
        yield
    except (OSError, sqlite3.Error) as cause:
        number = getattr(cause, "sqlite_errorcode", None)
        if number == sqlite3.SQLITE_FULL or getattr(cause, "errno", None) in NO_ROOM:
            raise StoreError(
                f"{what} cannot be copied to {tempfile.gettempdir()} ({cause_of(cause)}): make room there, "
                "or name another folder in TMPDIR"
            ) from cause
        raise


def cause_of(error: BaseException) -> str:
    """An error in a few words: what the system says, else its class and its first line.

    >>> cause_of(PermissionError(13, "Permission denied", "a")), cause_of(ValueError("no\\nmore"))
    ('Permission denied', 'ValueError: no')
    """
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = one_line(lines[0], 200) if lines else ""
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
