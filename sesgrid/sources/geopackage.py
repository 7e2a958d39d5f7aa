"""GeoPackages before GDAL opens them: one that would run foreign code, is damaged or is open elsewhere.

A GeoPackage is an SQLite database, and SQLite is a language: a view, a trigger or a virtual table in the file
may call GDAL's functions that open other files or the network. SQLite also recovers what a program left
unfinished, in the file itself; a source stays as it is, so that is done to a copy.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sesgrid.errors import FormatError, SesgridWarning, UnsafePathError
from sesgrid.foreign import DAMAGED
from sesgrid.sources.sql_calls import computes_columns, foreign_calls, module_of

__all__ = [
    "asked",
    "count_rows",
    "geometry_column",
    "lost_layers",
    "opened",
    "quoted",
    "refuse_foreign_code",
    "settle",
]

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
            module = module_of(sql)
            if module is not None and module not in _INSIDE:
                raise UnsafePathError(_foreign(label, kind, name, f"is made by {module!r}"))
            # of tables, what runs when they are read are their computed columns
            if kind == "view" or (module is None and computes_columns(sql)):
                called = foreign_calls(sql)
                if called:
                    what = f"calls {', '.join(sorted(called)[:5])}"
                    raise UnsafePathError(_foreign(label, kind, name, what))


def _foreign(label: str, kind: str, name: str, what: str) -> str:
    return (
        f"{label}: its {kind} {name!r} {what}, which may reach outside of the file; if you trust it, export "
        "the layer to a new file (ogr2ogr)"
    )


def lost_layers(path: Path) -> list[str]:
    """Layers that the file lists and does not hold: GDAL passes over them."""
    with opened(path) as database:
        if not asked(database, "SELECT count(*) FROM sqlite_master WHERE name = 'gpkg_contents'"):
            return []
        # SQLite compares names of tables so
        lost = database.execute(
            "SELECT table_name FROM gpkg_contents AS c WHERE data_type = 'features' AND NOT EXISTS"
            " (SELECT 1 FROM sqlite_master AS m WHERE m.name = c.table_name COLLATE NOCASE)"
        ).fetchall()
    return [str(name) for (name,) in lost]


def count_rows(path: Path, layer: str, label: str) -> tuple[int | None, int | None]:
    """Rows of a layer, and those with a geometry, once SQLite has found every page of the file to be sound.

    None stands for what a view does not tell, as it calls functions of GDAL's.

    Raises
    ------
    FormatError
        Pages are missing or damaged.

    Warns
    -----
    SesgridWarning
        Values are other than the tables' definitions allow.
    """
    real = path.resolve()
    state = real.stat()
    told = _soundness(real, state.st_size, state.st_mtime_ns)
    damages = [remark for remark in told if not _OF_VALUES.match(remark)]
    if damages:
        raise FormatError(f"{label}: the database is damaged ({damages[0]}); {DAMAGED}")
    if told:
        warnings.warn(
            f"{label}: values in the database break its own rules (SQLite: {told[0]}); they are read as they "
            "stand there",
            SesgridWarning,
            stacklevel=3,
        )
    name = quoted(layer)
    with opened(path) as database:
        column = geometry_column(database, layer)
        rows = asked(database, f"SELECT count(*) FROM {name}")
        drawn = asked(database, f"SELECT count({quoted(column)}) FROM {name}") if column else None
    return rows, drawn


_OF_VALUES = re.compile(r"(NULL|TEXT|NUMERIC|non-\w+) value in |CHECK constraint failed in ")
"""How SQLite's remarks begin on values that its tables' definitions do not allow, of pages that are sound."""


@lru_cache(maxsize=16)
def _soundness(real: Path, size: int, changed_ns: int) -> tuple[str, ...]:
    """What SQLite remarks of a file, of the pages first: read whole, so once."""
    with opened(real) as database:
        database.execute("PRAGMA cell_size_check = ON")
        told = [str(row[0]) for row in database.execute("PRAGMA quick_check(100)")]
    return tuple(remark for remark in told if remark != "ok")


def asked(database: sqlite3.Connection, question: str) -> Any:
    """The one value that answers; None where it takes a function that GDAL has and we have not."""
    try:
        return database.execute(question).fetchone()[0]
    except sqlite3.OperationalError as error:
        if "no such function" not in str(error):
            raise
    return None


def geometry_column(database: sqlite3.Connection, layer: str) -> str | None:
    """Name of the column that holds a layer's geometries; None if it has none."""
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
    with closing(sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True)) as database:
        database.execute("PRAGMA trusted_schema = OFF")
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        yield database
