"""Open data that may be plain or inside ``.zip`` / ``.7z`` (also a ``.7z`` inside a ``.zip``).

Archives come from the internet, so every member name is checked before a byte
is written, wanted or not. Members are unpacked to a temporary folder rather than
read through GDAL's virtual file systems: GDAL reads neither ``.7z`` nor an archive in an archive.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import py7zr

from sesgrid.errors import FormatError, MissingInputError, SesgridError, UnsafePathError

__all__ = ["ARCHIVE_SUFFIXES", "is_archive", "safe_relative_path", "unpacked"]

ARCHIVE_SUFFIXES = frozenset({".zip", ".7z"})
MAX_BYTES = 64 * 2**30
"""Largest declared size that is unpacked: 64 GiB, a few times the largest INSEE release."""

_MAX_DEPTH = 3
_SHAPEFILE_PARTS = frozenset({".shp", ".shx", ".dbf", ".prj", ".cpg"})
_GEODATABASE_PARTS = frozenset(
    {".gdbtable", ".gdbtablx", ".gdbindexes", ".atx", ".spx", ".freelist"}
)
_GEODATABASE_FILES = frozenset({"gdb", "timestamps"})


@dataclass(frozen=True)
class _Member:
    """One entry of an archive, as its index declares it."""

    name: str
    size_bytes: int
    is_folder: bool
    is_link: bool


def is_archive(path: Path) -> bool:
    """Whether the file's name says that it is a ``.zip`` or ``.7z``.

    >>> is_archive(Path("city.gdb.zip")), is_archive(Path("city.gpkg"))
    (True, False)
    """
    return path.suffix.lower() in ARCHIVE_SUFFIXES


@contextmanager
def unpacked(
    path: str | Path, suffixes: Collection[str], *, max_bytes: int = MAX_BYTES
) -> Iterator[Path]:
    """Yield the file or folder to read: `path` itself, or a folder with an archive's content.

    Parameters
    ----------
    path : str or Path
        A file, a folder, or a ``.zip`` / ``.7z`` archive.
    suffixes : collection of str
        Lower-case suffixes of the members to unpack, with the dot. ``.shp`` brings its side
        files, ``.gdb`` every file of a geodatabase, whether its entries lie in an ``X.gdb``
        folder or at the top of ``X.gdb.zip``. Archives inside are unpacked too.
    max_bytes : int
        Most bytes the wanted members may declare.

    Yields
    ------
    Path
        Removed on leaving the context when it is a temporary folder.

    Raises
    ------
    MissingInputError
        `path` does not exist.
    UnsafePathError
        A member name is absolute, holds ``..`` or a drive letter, or is a link.
    FormatError
        The archive is damaged, encrypted, too large, or nested too deep.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     archive = Path(folder) / "cells.zip"
    ...     with zipfile.ZipFile(archive, "w") as z:
    ...         z.writestr("a/cells.csv", "x")
    ...         z.writestr("readme.pdf", "y")
    ...     with unpacked(archive, {".csv"}) as content:
    ...         print([p.name for p in content.rglob("*.*")])
    ['cells.csv']
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"no such file or folder: {path}; check the path")
    if path.is_dir() or not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sesgrid-") as temporary:
        content = Path(temporary) / "content"
        _unpack(path, content, frozenset(suffixes), max_bytes, depth=1, label=path.name)
        _name_geodatabases(content, path)
        yield content


def _unpack(
    archive: Path, target: Path, suffixes: frozenset[str], budget: int, *, depth: int, label: str
) -> int:
    """Unpack the wanted members, and archives among them; return what is left of the budget."""
    if depth > _MAX_DEPTH:
        raise FormatError(
            f"{label}: archives nested more than {_MAX_DEPTH} deep; unpack it by hand"
        )
    target.mkdir(parents=True)
    try:
        extract = _extract_7z if archive.suffix.lower() == ".7z" else _extract_zip
        budget = extract(archive, target, suffixes, budget, label)
    except (SesgridError, OSError):
        raise
    except Exception as error:  # on damaged bytes the two libraries raise a dozen kinds
        raise FormatError(
            f"{label} cannot be unpacked ({type(error).__name__}: {error}): it is truncated, "
            "damaged, encrypted or no archive; download it again"
        ) from error
    for inner in sorted(p for p in target.rglob("*") if p.is_file() and is_archive(p)):
        folder = inner.with_name(inner.name + ".d")
        budget = _unpack(
            inner, folder, suffixes, budget, depth=depth + 1, label=f"{label} → {inner.name}"
        )
        inner.unlink()
        _name_geodatabases(folder, inner)
    return budget


def _extract_zip(
    archive: Path, target: Path, suffixes: frozenset[str], budget: int, label: str
) -> int:
    with zipfile.ZipFile(archive) as z:
        members = [
            _Member(i.filename, i.file_size, i.is_dir(), stat.S_ISLNK(i.external_attr >> 16))
            for i in z.infolist()
        ]
        wanted, budget = _choose(members, suffixes, budget, label)
        for name in wanted:
            out = target / safe_relative_path(name, label)
            out.parent.mkdir(parents=True, exist_ok=True)
            with z.open(name) as source, out.open("wb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
    return budget


def _extract_7z(
    archive: Path, target: Path, suffixes: frozenset[str], budget: int, label: str
) -> int:
    with py7zr.SevenZipFile(archive) as z:
        members = [
            _Member(f.filename, f.uncompressed, f.is_directory, f.is_symlink or f.is_junction)
            for f in z.files
        ]
        wanted, budget = _choose(members, suffixes, budget, label)
        if wanted:
            z.extract(path=target, targets=wanted)
    return budget


def _choose(
    members: list[_Member], suffixes: frozenset[str], budget: int, label: str
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
    left = budget - sum(m.size_bytes for m in wanted)
    if left < 0:
        raise FormatError(
            f"{label} declares {(budget - left) / 2**30:.1f} GiB to unpack, beyond the limit of "
            f"{budget / 2**30:.1f} GiB; unpack it by hand and give the folder"
        )
    return [m.name for m in wanted], left


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
        suffix in _GEODATABASE_PARTS
        or name.name in _GEODATABASE_FILES
        or any(part.lower().endswith(".gdb") for part in name.parts[:-1])
    )


def _name_geodatabases(content: Path, archive: Path) -> None:
    """Move loose geodatabase files into a folder named ``*.gdb``, by which GDAL knows one."""
    loose = [p for p in content.iterdir() if p.suffix.lower() in _GEODATABASE_PARTS]
    if not loose or content.suffix.lower() == ".gdb":
        return
    stem = archive.stem if archive.stem.lower().endswith(".gdb") else archive.stem + ".gdb"
    folder = content / stem
    folder.mkdir()
    for part in [*loose, *(content / name for name in _GEODATABASE_FILES)]:
        if part.is_file():
            part.rename(folder / part.name)
