"""The ``.md5`` that deliveries bring: a file, or a list, that says what each file's MD5 is."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sesgrid.errors import FormatError, ReadError
from sesgrid.foreign import reading
from sesgrid.sources.archive import safe_relative_path
from sesgrid.sources.volumes import volumes_of

__all__ = ["compare_checksums", "delivered_checksums"]

_LINE = re.compile(r"\\?(?P<md5>[0-9a-f]{32})(?:\s+\*?(?P<name>.+))?", re.IGNORECASE)
_BSD = re.compile(r"MD5\s*\((?P<name>.+)\)\s*=\s*(?P<md5>[0-9a-f]{32})", re.IGNORECASE)

_LARGEST_LIST = 2**26
"""Bytes of a list of checksums, at most."""


def delivered_checksums(paths: Sequence[Path]) -> dict[Path, tuple[str, Path]]:
    """Files of sources of which a ``.md5`` beside them tells the MD5.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are looked through.

    Returns
    -------
    dict
        File → MD5 in lower case, and which ``.md5`` says so.

    Raises
    ------
    FormatError
        A ``.md5`` beside a file that is no list of checksums.
    UnsafePathError
        A name in one leads out of its folder.
    """
    wanted: set[Path] = set()
    lists: set[Path] = set()
    for path in paths:
        if path.is_dir():
            for folder, _, names in os.walk(path, onerror=_unreadable, followlinks=False):
                wanted |= {Path(folder, n) for n in names}
                lists |= {Path(folder, n) for n in names if n.lower().endswith(".md5")}
        elif path.exists():
            parts = volumes_of(path)
            wanted |= set(parts)
            with reading(path.parent):
                lists |= {p for p in path.parent.iterdir() if p.suffix.lower() == ".md5"}
    found = {}
    for one in sorted(lists):
        for file, md5 in _listed(one):
            if file in wanted:
                found[file] = md5.lower(), one
    return found


def compare_checksums(delivered: dict[Path, tuple[str, Path]]) -> None:
    """Compare files with what `delivered_checksums` says of them.

    Raises
    ------
    ReadError
        A file is not what was delivered, or cannot be read.
    """
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        made = list(pool.map(_md5, delivered))
    wrong = [(f, is_) for f, is_ in zip(delivered, made, strict=True) if delivered[f][0] != is_]
    if wrong:
        file, is_ = wrong[0]
        said, by = delivered[file]
        raise ReadError(
            f"{len(wrong)} of {len(delivered)} files are not as delivered, first {file}: {by.name} says MD5 "
            f"{said}, it has {is_}; fetch it again"
        )


def _listed(path: Path) -> Iterator[tuple[Path, str]]:
    """Files beside a ``.md5`` and what it says of them; a lone checksum is of the file of its name."""
    with reading(path):
        text = path.read_bytes()[:_LARGEST_LIST].decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines()]
    known = [m for line in lines if (m := _LINE.fullmatch(line) or _BSD.fullmatch(line))]
    if not known:
        raise FormatError(
            f"{path} holds no MD5: expected lines of 32 hexadecimal digits and a name; fetch it again, or "
            "remove it"
        )
    for match in known:
        name = match["name"] or path.stem
        yield path.parent / safe_relative_path(name.strip(), str(path)), match["md5"]


def _md5(path: Path) -> str:
    with reading(path, ReadError), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unreadable(error: OSError) -> None:
    with reading(error.filename, ReadError):
        raise error
