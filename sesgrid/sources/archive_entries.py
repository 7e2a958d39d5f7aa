"""The entries of an archive: each name is checked before a byte is written, wanted or not."""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import unicodedata
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import py7zr

from sesgrid.errors import FormatError, UnsafePathError
from sesgrid.sources.volumes import is_volume

__all__ = [
    "ARCHIVE_SUFFIXES",
    "GEODATABASE_FILES",
    "GEODATABASE_PARTS",
    "extract_7z",
    "extract_gz",
    "extract_zip",
    "is_7z",
    "is_archive",
    "safe_relative_path",
]

ARCHIVE_SUFFIXES = frozenset({".zip", ".7z", ".gz"})
GEODATABASE_PARTS = frozenset(
    {".gdbtable", ".gdbtablx", ".gdbindexes", ".atx", ".spx", ".freelist"}
)
GEODATABASE_FILES = frozenset({"gdb", "timestamps"})

_SHAPEFILE_PARTS = frozenset({".shp", ".shx", ".dbf", ".prj", ".cpg"})
_MAX_ENTRIES = 100_000
"""Wanted files of one archive: some hundred times those of the largest delivery."""

_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 2000
"""Of a file's name, and of its path in the archive: what file systems take, the folder above left room."""


@dataclass(frozen=True)
class _Entry:
    """One entry of an archive, as its index declares it."""

    name: str
    size_bytes: int
    is_folder: bool
    is_link: bool
    is_encrypted: bool = False


def is_archive(path: Path) -> bool:
    """Whether the file's name says that it is a ``.zip``, ``.7z`` or ``.gz``, or a volume of one.

    >>> is_archive(Path("city.gdb.zip")), is_archive(Path("city.gpkg"))
    (True, False)
    """
    return path.suffix.lower() in ARCHIVE_SUFFIXES or is_volume(path)


def is_7z(path: Path) -> bool:
    """Whether the file's name says that it is a ``.7z``, or a volume of one."""
    name = path.with_suffix("") if is_volume(path) else path
    return name.suffix.lower() == ".7z"


def extract_zip(
    archive: BinaryIO, target: Path, suffixes: frozenset[str], budget: int, label: str
) -> int:
    """Unpack the wanted entries; return what is left of the budget of bytes."""
    with zipfile.ZipFile(archive) as z:
        members = [
            _Entry(
                i.filename,
                i.file_size,
                i.is_dir(),
                stat.S_ISLNK(i.external_attr >> 16),
                bool(i.flag_bits & 1),
            )
            for i in z.infolist()
        ]
        wanted, budget = _choose(members, suffixes, budget, label)
        for name in wanted:
            out = target / safe_relative_path(name, label)
            out.parent.mkdir(parents=True, exist_ok=True)
            with z.open(name) as source, out.open("wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
    return budget


def extract_7z(
    archive: BinaryIO, target: Path, suffixes: frozenset[str], budget: int, label: str
) -> int:
    """Unpack the wanted entries; return what is left of the budget of bytes."""
    try:
        z = py7zr.SevenZipFile(archive)
    except py7zr.PasswordRequired as error:  # of an archive that hides its names, too
        raise FormatError(_encrypted(label)) from error
    with z:
        members = [
            _Entry(
                f.filename,
                f.uncompressed,
                f.is_directory,
                f.is_symlink or f.is_junction,
                z.password_protected,
            )
            for f in z.files
        ]
        wanted, budget = _choose(members, suffixes, budget, label)
        if wanted:
            z.extract(path=target, targets=wanted)
    return budget


def extract_gz(
    archive: BinaryIO,
    target: Path,
    suffixes: frozenset[str],
    budget: int,
    label: str,
    *,
    name: str,
) -> int:
    """Unpack the one file of a ``.gz``, called `name`, if it is wanted; return what is left of the budget."""
    _, left = _choose([_Entry(name, 0, False, False)], suffixes, budget, label)
    if not _is_wanted(PurePosixPath(name), suffixes):
        return left
    with gzip.open(archive) as source, (target / name).open("wb") as sink:
        # its index tells no size that could be relied on
        while part := source.read(2**20):
            left -= len(part)
            if left < 0:
                raise FormatError(
                    f"{label} holds more than the limit of {budget / 2**30:.1f} GiB; unpack it by hand and "
                    "give the file"
                )
            sink.write(part)
    return left


def _choose(
    members: list[_Entry], suffixes: frozenset[str], budget: int, label: str
) -> tuple[list[str], int]:
    """Check every member; return the wanted names and what their size leaves of the budget."""
    wanted = []
    for member in members:
        name = safe_relative_path(member.name, label)
        if member.is_link:
            raise UnsafePathError(
                f"{label}: entry {member.name!r} is a link, which may lead out of the folder; "
                "expected plain files; unpack it by hand if you trust it"
            )
        if not member.is_folder and _is_wanted(name, suffixes):
            wanted.append(member)
    _refuse_unusable(wanted, label)
    left = budget - sum(m.size_bytes for m in wanted)
    if left < 0:
        raise FormatError(
            f"{label} declares {(budget - left) / 2**30:.1f} GiB to unpack, beyond the limit of "
            f"{budget / 2**30:.1f} GiB; unpack it by hand and give the folder"
        )
    return [m.name for m in wanted], left


def _refuse_unusable(wanted: list[_Entry], label: str) -> None:
    """Raise where an entry cannot become a file of its own."""
    if len(wanted) > _MAX_ENTRIES:
        raise FormatError(
            f"{label} holds {len(wanted)} files to unpack: expected {_MAX_ENTRIES} at most; unpack it by "
            "hand and give the folder"
        )
    taken: Counter[str] = Counter()
    folders: set[str] = set()
    for entry in wanted:
        path = safe_relative_path(entry.name, label)
        if entry.is_encrypted:
            raise FormatError(_encrypted(label))
        encoded = [len(part.encode("utf-8", "surrogatepass")) for part in path.parts]
        if max(encoded) > _MAX_NAME_BYTES or sum(encoded) + len(encoded) > _MAX_PATH_BYTES:
            raise FormatError(
                f"{label}: the name of an entry is too long ({sum(encoded)} bytes, {entry.name[:60]!r} …); "
                "unpack it by hand under a shorter one"
            )
        # what some file systems hold to be one name
        taken[_folded(path)] += 1
        folders.update(_folded(parent) for parent in path.parents)
    twice = [name for name, count in taken.items() if count > 1 or name in folders]
    if twice:
        raise FormatError(
            f"{label}: {len(twice)} entries have the name of another, or of a folder, but for capitals "
            f"(first {twice[0]!r}); expected each once; unpack it by hand and give the folder"
        )


def _encrypted(label: str) -> str:
    return f"{label} is encrypted; unpack it by hand and give the folder"


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def safe_relative_path(name: str, label: str) -> PurePosixPath:
    """Read an untrusted name, of an archive's entry or an index's field, as a relative path.

    Raises
    ------
    UnsafePathError
        The name is absolute, or holds ``..``, a drive letter or a null character.

    Examples
    --------
    >>> str(safe_relative_path("./a/tile.jp2", "dalles.shp"))
    'a/tile.jp2'
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise UnsafePathError(
            f"{label}: the name {name!r} leads out of its folder; expected relative names without "
            "'..'; nothing of it was read or unpacked"
        )
    return path


def _is_wanted(name: PurePosixPath, suffixes: frozenset[str]) -> bool:
    suffix = name.suffix.lower()
    if suffix in suffixes or suffix in ARCHIVE_SUFFIXES:
        return True
    if ".shp" in suffixes and suffix in _SHAPEFILE_PARTS:
        return True
    return ".gdb" in suffixes and (
        suffix in GEODATABASE_PARTS
        or name.name in GEODATABASE_FILES
        or any(part.lower().endswith(".gdb") for part in name.parts[:-1])
    )
