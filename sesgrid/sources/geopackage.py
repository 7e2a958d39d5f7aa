"""GeoPackages before GDAL opens them: one that would run foreign code, is damaged or is open elsewhere.

A GeoPackage is an SQLite database, and SQLite is a language: a view, a trigger or a virtual table in the file
may call GDAL's functions that open other files or the network. SQLite also recovers what a program left
unfinished, in the file itself; a source stays as it is, so that is done to a copy.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sesgrid.errors import FormatError, UnsafePathError
from sesgrid.foreign import DAMAGED
from sesgrid.sources.sql_calls import foreign_calls

__all__ = [
    "asked",
    "count_rows",
    "listed_within",
    "opened",
    "quoted",
    "refuse_foreign_code",
    "settle",
]

_VIRTUAL = re.compile(r"(?is)^\s*create\s+virtual\s+table\b.*?\busing\s+[\"'`\[]?(\w+)")
_INSIDE = frozenset({"rtree", "rtree_i32", "fts3", "fts4", "fts5"})
"""Virtual tables that hold their rows themselves: the spatial index, and text indexes."""

_WAL = b"\x02"


def settle(link: Path, source: Path) -> None:
    """Replace a link to a GeoPackage by a copy, brought up to date, where another program left it unfinished.

    Parameters
    ----------
    link : Path
        Symbolic link to the file, in a folder of ours.
    source : Path
        The file itself.
    """
    with source.open("rb") as file:
        in_log = file.read(20)[18:19] == _WAL
    beside = [source.with_name(source.name + end) for end in ("-wal", "-journal")]
    left = [p for p in beside if p.exists() and p.stat().st_size]
    if not (in_log or left):
        return
    link.unlink()
    shutil.copyfile(source, link)
    for path in left:
        shutil.copyfile(path, link.with_name(link.name + path.name[len(source.name) :]))
    with closing(sqlite3.connect(link)) as database:
        database.execute("PRAGMA journal_mode = DELETE").fetchall()


def refuse_foreign_code(path: Path, label: str) -> None:
    """Raise where something in the database would reach outside of it.

    Raises
    ------
    UnsafePathError
        Naming the view, trigger or table.
    """
    with opened(path) as database:
        rows = database.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'view') AND sql IS NOT NULL"
        ).fetchall()
        for kind, name, sql in rows:
            virtual = _VIRTUAL.match(sql)
            if virtual and virtual[1].lower() not in _INSIDE:
                raise UnsafePathError(_foreign(label, kind, name, f"is made by {virtual[1]!r}"))
            # of tables, what runs when they are read are their computed columns
            if kind == "view" or (not virtual and re.search(r"(?i)\bas\s*\(", sql)):
                called = foreign_calls(sql) - {name.lower()}
                if called:
                    what = f"calls {', '.join(sorted(called)[:5])}"
                    raise UnsafePathError(_foreign(label, kind, name, what))


_SINGLE = 4e-7
"""The index rounds to four bytes: by how much, as a share of a coordinate, its boxes are wider at most."""


def _foreign(label: str, kind: str, name: str, what: str) -> str:
    return (
        f"{label}: its {kind} {name!r} {what}, which may reach outside of the file; if you trust it, export "
        "the layer to a new file (ogr2ogr)"
    )


def count_rows(path: Path, layer: str, label: str) -> tuple[int | None, int | None]:
    """Rows of a layer, and those with a geometry, once SQLite has found every page of the file to be sound.

    None stands for what a view does not tell, as it calls functions of GDAL's.

    Raises
    ------
    FormatError
        Pages are missing or damaged.
    """
    real = path.resolve()
    state = real.stat()
    told = _soundness(real, state.st_size, state.st_mtime_ns)
    if told != "ok":
        raise FormatError(f"{label}: the database is damaged ({told}); {DAMAGED}")
    name = quoted(layer)
    with opened(path) as database:
        column = _geometry_column(database, layer)
        rows = asked(database, f"SELECT count(*) FROM {name}")
        drawn = asked(database, f"SELECT count({quoted(column)}) FROM {name}") if column else None
    return rows, drawn


@lru_cache(maxsize=16)
def _soundness(real: Path, size: int, changed_ns: int) -> str:
    """What SQLite says of the pages of a file: read whole, so once."""
    with opened(real) as database:
        database.execute("PRAGMA cell_size_check = ON")
        return asked(database, "PRAGMA quick_check(1)") or "ok"


def asked(database: sqlite3.Connection, question: str) -> Any:
    """The one value that answers; None where it takes a function that GDAL has and we have not."""
    try:
        return database.execute(question).fetchone()[0]
    except sqlite3.OperationalError as error:
        if "no such function" not in str(error):
            raise
    return None


def listed_within(
    path: Path, layer: str, bounds: tuple[float, float, float, float]
) -> set[int] | None:
    """Rows that the layer's spatial index lists inside of bounds; None: it has none, or one with gaps."""
    with opened(path) as database:
        column = _geometry_column(database, layer)
        index = f"rtree_{layer}_{column}"
        known = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        if column is None or database.execute(known, (index,)).fetchone() == (0,):
            return None
        drawn = asked(database, f"SELECT count({quoted(column)}) FROM {quoted(layer)}")
        if drawn != asked(database, f"SELECT count(*) FROM {quoted(index + '_rowid')}"):
            return None
        west, south, east, north = bounds
        off = _SINGLE * max(map(abs, bounds))
        inside = (
            f"SELECT id FROM {quoted(index)} WHERE minx > ? AND miny > ? AND maxx < ? AND maxy < ?"
        )
        box = (west + off, south + off, east - off, north - off)
        try:
            return {int(row) for (row,) in database.execute(inside, box)}
        except sqlite3.OperationalError as error:
            if "no such module" not in str(error):
                raise
    return None  # of a Python whose SQLite has no spatial index


def _geometry_column(database: sqlite3.Connection, layer: str) -> str | None:
    found = database.execute(
        "SELECT column_name FROM gpkg_geometry_columns WHERE lower(table_name) = lower(?)", (layer,)
    ).fetchone()
    return found and str(found[0])


def quoted(name: str) -> str:
    """A name as SQL has it.

    >>> print(quoted('a"b'))
    "a""b"
    """
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, to be read only; nothing in it is trusted."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
        database.execute("PRAGMA trusted_schema = OFF")
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        yield database
