"""Open data that may be plain or inside ``.zip`` / ``.7z`` / ``.gz`` (also a ``.7z`` inside a ``.zip``).

Archives come from the internet, so every member name is checked before a byte
is written, wanted or not. Members are unpacked to a temporary folder rather than
read through GDAL's virtual file systems: GDAL reads neither ``.7z`` nor an archive in an archive.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sesgrid.errors import FormatError, MissingInputError, SesgridError, StoreError
from sesgrid.foreign import NO_ROOM, cause_of, reading, scratch
from sesgrid.sources.archive_entries import (
    ARCHIVE_SUFFIXES,
    GEODATABASE_FILES,
    GEODATABASE_PARTS,
    extract_7z,
    extract_gz,
    extract_zip,
    is_7z,
    is_archive,
    safe_relative_path,
)
from sesgrid.sources.volumes import joined, told_of_parts

__all__ = ["ARCHIVE_SUFFIXES", "is_archive", "packed_inside", "safe_relative_path", "unpacked"]

MAX_BYTES = 64 * 2**30
"""Largest declared size that is unpacked: 64 GiB, a few times the largest INSEE release."""

_MAX_DEPTH = 3
_FULL = (*NO_ROOM, errno.EACCES, errno.EPERM)


@contextmanager
def unpacked(
    path: str | Path, suffixes: Collection[str], *, max_bytes: int = MAX_BYTES
) -> Iterator[Path]:
    """Yield the file or folder to read: `path` itself, or a folder with an archive's content.

    Parameters
    ----------
    path : str or Path
        A file, a folder, or a ``.zip`` / ``.7z`` / ``.gz`` archive, whole or the first of its volumes.
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
        The archive is damaged, encrypted, too large, or nested too deep; two entries, or an entry and a
        folder, would become one file.
    ReadError
        It may not be read.
    StoreError
        There is no room for what is in it.

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
    with reading(path):
        # a pipe or a device is neither, and would be waited for
        there = path.is_file() or path.is_dir()
        plain = path.is_dir() or not is_archive(path)
    if not there:
        raise MissingInputError(f"no such file or folder: {path}; check the path")
    if plain:
        yield path
        return
    with scratch() as folder:
        content = folder / "content"
        _unpack(path, content, frozenset(suffixes), max_bytes, depth=1, label=path.name)
        _name_geodatabases(content, path)
        yield content


def packed_inside(path: Path) -> str:
    """What to tell of a folder in which nothing to read was found; "" where it holds no archive.

    A folder may hold many deliveries, so archives are read where they are given themselves.
    """
    with reading(path):
        inside = sorted(path.rglob("*")) if path.is_dir() else []
    first = next((p for p in inside if is_archive(p) and not p.name.startswith(".")), None)
    return "" if first is None else f"; it holds {first.name}: give the path of that archive"


def _unpack(
    archive: Path, target: Path, suffixes: frozenset[str], budget: int, *, depth: int, label: str
) -> int:
    """Unpack the wanted members, and archives among them; return what is left of the budget."""
    if depth > _MAX_DEPTH:
        raise FormatError(
            f"{label}: archives nested more than {_MAX_DEPTH} deep; unpack it by hand"
        )
    extract = extract_7z if is_7z(archive) else extract_zip
    if archive.suffix.lower() == ".gz":
        extract = partial(extract_gz, name=archive.stem)
    try:
        # whether it may be read is asked apart from what goes wrong when writing
        with joined(archive) as file:
            target.mkdir(parents=True)
            budget = extract(file, target, suffixes, budget, label)
    except SesgridError:
        raise
    except Exception as error:  # on damaged bytes the two libraries raise a dozen kinds
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StoreError(
                f"{label} cannot be unpacked to {tempfile.gettempdir()} ({cause_of(error)}): make room "
                "there, or name another folder in TMPDIR"
            ) from error
        raise FormatError(
            f"{label} cannot be unpacked ({cause_of(error)}): it is truncated, damaged, encrypted, of an "
            f"unknown method, or no archive{told_of_parts(archive)}; download it again, or unpack it by hand"
        ) from error
    for inner in sorted(p for p in target.rglob("*") if p.is_file() and is_archive(p)):
        folder = _free(inner.with_name(inner.name + ".d"))
        budget = _unpack(
            inner, folder, suffixes, budget, depth=depth + 1, label=f"{label} → {inner.name}"
        )
        inner.unlink()
        _name_geodatabases(folder, inner)
    return budget


def _name_geodatabases(content: Path, archive: Path) -> None:
    """Move loose geodatabase files into a folder named ``*.gdb``, by which GDAL knows one."""
    loose = [p for p in content.iterdir() if p.suffix.lower() in GEODATABASE_PARTS]
    if not loose or content.suffix.lower() == ".gdb":
        return
    stem = archive.stem if archive.stem.lower().endswith(".gdb") else archive.stem + ".gdb"
    folder = _free(content / stem)
    folder.mkdir()
    for part in [*loose, *(content / name for name in GEODATABASE_FILES)]:
        if part.is_file():
            part.rename(folder / part.name)


def _free(path: Path) -> Path:
    """The path, or one like it that nothing has."""
    wanted, k = path, 1
    while path.exists():
        path = wanted.with_name(f"{k}-{wanted.name}")
        k += 1
    return path
