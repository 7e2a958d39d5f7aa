"""What others raise, told as ours: the one place that maps exceptions of dependencies and of the system.

A damaged file makes GDAL, GEOS, Arrow, Zarr, zlib and their Python sides raise dozens of classes, from
``OSError`` without a number to ``UnicodeDecodeError`` and ``MemoryError``. So each call into one of them that
meets bytes from outside stands in `reading`, and each that writes in `writing`; nothing else of ours does,
or our own mistakes would be told as faults of files.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sesgrid.errors import (
    FormatError,
    MissingInputError,
    ReadError,
    SesgridError,
    StoreError,
    one_line,
)

__all__ = ["DAMAGED", "cause_of", "reading", "writing"]

DAMAGED = "it is truncated, damaged or of another kind: fetch it again"
"""What is most often the matter with a file that cannot be read."""

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
        It may not be read, or the system fails to.
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
        raise error(f"{what} cannot be read ({cause_of(cause)}); {advice}") from cause


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Whatever the system raises inside becomes a `StoreError` that names what was being written.

    >>> with writing("out.csv"):
    ...     raise PermissionError(13, "Permission denied", "out.csv")
    Traceback (most recent call last):
    sesgrid.errors.StoreError: out.csv cannot be written (Permission denied): make room or give write \
access, then run again
    """
    try:
        yield
    except SesgridError:
        raise
    except OSError as cause:
        raise StoreError(
            f"{what} cannot be written ({cause_of(cause)}): make room or give write access, then run again"
        ) from cause


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
