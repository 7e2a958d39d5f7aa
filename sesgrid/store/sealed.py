"""Files with their crc32c beside them: a table that was cut or changed since it was written is told.

Parquet has checksums of its pages only; a flipped byte of the footer would pass, or end in whatever Arrow
makes of it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import google_crc32c

from sesgrid.errors import FormatError
from sesgrid.foreign import reading, writing

__all__ = ["check_path", "checksum_of", "is_sound", "replace_sealed", "require_sound"]


def check_path(path: Path) -> Path:
    """Where the checksum of a file lies.

    >>> check_path(Path("work/cells.parquet")).as_posix()
    'work/cells.parquet.crc32c'
    """
    return path.with_name(f"{path.name}.crc32c")


def replace_sealed(partial: Path, path: Path) -> None:
    """Put a finished file in its place, and its checksum beside it.

    Raises
    ------
    StoreError
        The disk is full or read-only.
    """
    with writing(path):
        # the checksum first: a file without its own is taken for damaged, and made again
        beside = check_path(partial)
        beside.write_text(_checksum(partial))
        beside.replace(check_path(path))
        partial.replace(path)


def require_sound(path: Path) -> None:
    """Refuse a file that is not as it was written; one without a checksum is taken as it is.

    Raises
    ------
    MissingInputError
        There is no such file.
    FormatError
        It is damaged.
    ReadError
        It may not be read.
    """
    with reading(path):
        state, check = path.stat(), check_path(path)
        if not check.exists():
            return
        # what is no file there is no checksum
        written = check.read_bytes().decode("ascii", "replace") if check.is_file() else ""
        received = _known_checksum(path, state.st_mtime_ns, state.st_size)
    if received != written:
        raise FormatError(f"{path} is damaged: run the stage that writes it again")


def is_sound(path: Path) -> bool:
    """Whether there is a file, and it is as it was written."""
    try:
        require_sound(path)
    except (FormatError, FileNotFoundError):
        return False
    return True


@lru_cache(maxsize=64)
def _known_checksum(path: Path, mtime_ns: int, size: int) -> str:
    """Of a file as it is now: a nation's tables are opened again and again."""
    return _checksum(path)


def checksum_of(path: Path) -> tuple[int, int]:
    """Bytes of a file and their crc32c."""
    return path.stat().st_size, int(_checksum(path), 16)


def _checksum(path: Path) -> str:
    found = google_crc32c.Checksum()
    with open(path, "rb") as file:
        while piece := file.read(1 << 24):
            found.update(piece)
    return found.digest().hex()
