"""Archives in volumes, ``X.7z.001``, ``X.7z.002`` …: read as the one file that they are parts of."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.foreign import reading

__all__ = ["is_volume", "joined", "told_of_parts", "volumes_of"]

_VOLUME = re.compile(r"(?P<whole>.+\.(?:7z|zip))\.(?P<number>\d{3,})", re.IGNORECASE)


_SPLIT = re.compile(r"\.z\d\d+", re.IGNORECASE)
"""Of the parts of a split ``.zip``, but the last."""


def is_volume(path: Path) -> bool:
    """Whether the name is that of a part of an archive.

    >>> is_volume(Path("BDORTHO_D031_2025-01-01.7z.001")), is_volume(Path("city.7z"))
    (True, False)
    """
    return _VOLUME.fullmatch(path.name) is not None


def volumes_of(path: Path) -> list[Path]:
    """All volumes of the archive of which one is given; of any other file itself.

    Raises
    ------
    MissingInputError
        One between the first and the last is not there.
    FormatError
        One is shorter than those before it, and not the last.
    """
    match = _VOLUME.fullmatch(path.name)
    if match is None:
        return [path]
    with reading(path):
        found = {
            int(other["number"]): p
            for p in path.parent.iterdir()
            if (other := _VOLUME.fullmatch(p.name)) and other["whole"] == match["whole"]
        }
        sizes = {number: p.stat().st_size for number, p in found.items()}
    missing = [f"{n:03}" for n in range(1, max(found, default=1) + 1) if n not in found]
    if missing:
        raise MissingInputError(
            f"{path}: the volumes {', '.join(missing[:8])} are missing beside it: expected all of "
            f"{match['whole']}.001 to .{max(found, default=1):03}; fetch them, too"
        )
    order = [found[n] for n in sorted(found)]
    whole = sizes[1]
    for number in sorted(found)[:-1]:
        if sizes[number] != whole:
            raise FormatError(
                f"{found[number]} has {sizes[number]} bytes, the first volume {whole}: expected volumes of "
                "one size, but the last; it is truncated: fetch it again"
            )
    return order


def told_of_parts(path: Path) -> str:
    """What to tell of an archive that cannot be unpacked, if it is in parts; "" where it is whole.

    >>> told_of_parts(Path("no_such_city.7z"))
    ''
    """
    if is_volume(path):
        last = volumes_of(path)[-1].name
        return f"; the last of its volumes here is {last}: was there another behind it?"
    first = next((p.name for p in _siblings(path) if _SPLIT.fullmatch(p.suffix)), None)
    if path.suffix.lower() != ".zip" or first is None:
        return ""
    # not "zip -s 0", of which Info-ZIP 3.0 loses what lies between the first part and the last
    return f"; {first} beside it is a part of it: unpack both ('7z x {path.name}'), and give the folder"


def _siblings(path: Path) -> list[Path]:
    with reading(path.parent):
        inside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    return [p for p in inside if p.stem == path.stem]


@contextmanager
def joined(path: Path) -> Iterator[BinaryIO]:
    """The archive as one file to be read, whether it is in volumes or not; errors as `volumes_of`."""
    with ExitStack() as stack:
        parts = volumes_of(path)
        with reading(path):
            files = [stack.enter_context(part.open("rb")) for part in parts]
            sizes = [part.stat().st_size for part in parts]
        yield files[0] if len(files) == 1 else io.BufferedReader(_Joined(files, sizes))


class _Joined(io.RawIOBase):
    """Files read one after the other."""

    def __init__(self, files: Sequence[BinaryIO], sizes: Sequence[int]) -> None:
        self._files, self._ends = files, list(accumulate(sizes))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        k = bisect_right(self._ends, self._at)
        if k == len(self._files):
            return 0
        self._files[k].seek(self._at - (self._ends[k - 1] if k else 0))
        data = self._files[k].read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
