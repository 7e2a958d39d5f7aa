"""The ``.md5`` that deliveries bring: a file, or a list, that says what each file's MD5 is."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from sesgrid.errors import FormatError, ReadError
from sesgrid.foreign import reading, refuse_unreadable
from sesgrid.sources.archive import safe_relative_path
from sesgrid.sources.volumes import volumes_of

__all__ = ["Delivered", "compare_checksums", "delivered_checksums"]

_HEX = r"(?P<md5>[0-9a-f]{32})"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"\\?{_HEX}(?:\s+\*?(?P<name>.+))?",  # md5sum
        rf"MD5\s*\((?P<name>.+)\)\s*=\s*{_HEX}",  # BSD
        rf"(?P<name>.+?)\s*[\s:=]\s*{_HEX}",
    )
)

_LARGEST_LIST = 2**26
"""Bytes of a list of checksums, at most."""


@dataclass
class Delivered:
    """What the ``.md5`` beside sources say, and what of it cannot be used."""

    files: dict[Path, tuple[str, Path]] = field(default_factory=dict)
    """File → MD5 in lower case, and which ``.md5`` says so."""

    unmatched: list[tuple[str, Path]] = field(default_factory=list)
    """Names that no file of the sources has, and the ``.md5`` of each."""

    unread: list[tuple[str, Path]] = field(default_factory=list)
    """Lines that are no checksum, and the ``.md5`` of each."""


def delivered_checksums(paths: Sequence[Path]) -> Delivered:
    """Files of sources of which a ``.md5`` beside them tells the MD5.

    A name is looked for where the ``.md5`` lies, and below; of an absolute path, of which another machine
    knows, the last part alone, and so of any path in ``X.md5`` that lies beside the file ``X``.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders that are looked through. Of the lists beside a file, those count that name it.

    Raises
    ------
    FormatError
        A ``.md5`` that is no list of checksums.
    UnsafePathError
        A name in one leads out of its folder.
    """
    wanted: set[Path] = set()
    within: set[Path] = set()
    beside: dict[Path, set[Path]] = defaultdict(set)
    for path in paths:
        with reading(path):
            folder, there = path.is_dir(), path.exists()
        if folder:
            for at, _, names in os.walk(path, onerror=refuse_unreadable, followlinks=False):
                wanted |= {Path(at, n) for n in names}
                within |= {Path(at, n) for n in names if n.lower().endswith(".md5")}
        elif there:
            parts = volumes_of(path)
            wanted |= set(parts)
            with reading(path.parent):
                for p in path.parent.iterdir():
                    if p.suffix.lower() == ".md5":
                        beside[p] |= set(parts)
    found = Delivered()
    by_name = _grouped(wanted, lambda p: p.name)
    by_stem = _grouped(wanted, lambda p: p.stem)
    for one in sorted(within | set(beside)):
        own = _named_after(one, by_name, by_stem)
        lines, unread = _lines(one)
        if one not in within and own is None and not _name_any(lines, beside[one]):
            continue
        if not lines:
            raise FormatError(
                f"{one} holds no MD5: expected lines of 32 hexadecimal digits and a name; fetch it again, or "
                "remove it"
            )
        found.unread += [(line, one) for line in unread]
        for name, md5 in lines:
            file = own if name is None else _file_of(name, one, own, by_name)
            if file is not None:
                found.files[file] = md5, one
            elif one in within or own is not None:
                found.unmatched.append((name or one.stem, one))
    return found


def compare_checksums(delivered: Delivered) -> None:
    """Compare files with what `delivered_checksums` says of them.

    Raises
    ------
    ReadError
        A file is not what was delivered, or cannot be read.
    """
    said_of = delivered.files
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        made = list(pool.map(_md5, said_of))
    wrong = [(f, is_) for f, is_ in zip(said_of, made, strict=True) if said_of[f][0] != is_]
    if wrong:
        file, is_ = wrong[0]
        said, by = said_of[file]
        raise ReadError(
            f"{len(wrong)} of {len(said_of)} files are not as delivered, first {file}: {by.name} says MD5 "
            f"{said}, it has {is_}; fetch it again"
        )


def _lines(path: Path) -> tuple[list[tuple[str | None, str]], list[str]]:
    """Names and MD5 of a list, None where there is no name, and lines that are neither that nor remarks."""
    with reading(path):
        if not path.is_file():  # a pipe would be waited for
            return [], []
        with path.open("rb") as file:
            data = file.read(_LARGEST_LIST)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    known: list[tuple[str | None, str]] = []
    unread = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = next((m for form in _FORMS if (m := form.fullmatch(line))), None)
        if match:
            known.append((match["name"] and match["name"].strip(), match["md5"].lower()))
        elif not line.startswith(("#", ";")):
            unread.append(line)
    return known, unread


def _last(name: str) -> str:
    """The last part of a path of any system, whatever its case."""
    return PureWindowsPath(name).name.casefold()


def _grouped(files: Iterable[Path], of: Callable[[Path], str]) -> dict[str, list[Path]]:
    """Files by a part of their paths, whatever its case; no lists of checksums."""
    grouped: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if file.suffix.lower() != ".md5":
            grouped[of(file).casefold()].append(file)
    return grouped


def _named_after(path: Path, *groups: dict[str, list[Path]]) -> Path | None:
    """The file that a ``.md5`` goes by: ``X.gpkg`` of ``X.gpkg.md5``, or of ``X.md5`` if there is but one."""
    for group in groups:
        hits = [p for p in group.get(path.stem.casefold(), []) if p.parent == path.parent]
        if len(hits) == 1:
            return hits[0]
    return None


def _name_any(lines: Sequence[tuple[str | None, str]], files: set[Path]) -> bool:
    names = {_last(name) for name, _ in lines if name is not None}
    return any(file.name.casefold() in names for file in files)


def _file_of(name: str, by: Path, own: Path | None, by_name: dict[str, list[Path]]) -> Path | None:
    """The one file that a name in a list means, if there is one; no other is ever opened."""
    if own is not None and _last(name) == own.name.casefold():
        return own
    below = [p for p in by_name.get(_last(name), []) if p.is_relative_to(by.parent)]
    if not PureWindowsPath(name).anchor:
        at = by.parent / safe_relative_path(name, str(by))
        below = [p for p in below if str(p).casefold() == str(at).casefold()]
        below = [p for p in below if p == at] or below
    return below[0] if len(below) == 1 else None


def _md5(path: Path) -> str:
    with reading(path, ReadError), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
