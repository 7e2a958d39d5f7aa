"""Columns of a GeoPackage that GDAL reads otherwise than they are written, read as text instead.

SQLite allows text in columns of numbers, which GDAL turns into numbers in silence: ``'63,5'`` into 63,
``'secret'`` into 0, and 1.5 in a column of whole numbers into 1. And it allows any name of a type, where GDAL
leaves out columns of those that GeoPackage does not list, ``VARCHAR(40)`` or ``BIGINT``. Both are read as
text, as a CSV is, so that whoever reads numbers sees what stands there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sesgrid.sources.geopackage import asked, geometry_column, opened, quoted

__all__ = ["left_out_columns", "stray_columns", "with_stray_text"]

_GEOMETRIC = re.compile(
    "geom|point|linestring|circularstring|polygon|curve|surface|tin$|triangle", re.IGNORECASE
)
"""Types of columns that hold geometries, of which a row has one here."""


def left_out_columns(path: Path, layer: str, known: Collection[str]) -> list[str]:
    """Columns of a table that GDAL leaves out, as it does not know their types; none of a view.

    Parameters
    ----------
    path : Path
        The GeoPackage.
    layer : str
    known : collection of str
        The columns that it does not leave out, with that of the rows' numbers.
    """
    with opened(path) as database:
        tables = (
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        )
        if not database.execute(tables, (layer,)).fetchone()[0]:
            return []
        geometry = geometry_column(database, layer)
        columns = database.execute(f"PRAGMA table_info({quoted(layer)})").fetchall()
    taken = {name.lower() for name in (*known, geometry or "")}
    return [
        name
        for _, name, kind, *_ in columns
        if name.lower() not in taken and not _GEOMETRIC.search(kind)
    ]


def stray_columns(path: Path, layer: str, types: Mapping[str, str]) -> list[str]:
    """Columns in which something stands that their type cannot hold.

    Parameters
    ----------
    path : Path
        The GeoPackage.
    layer : str
    types : mapping
        Column → numpy's name of the type that GDAL reads it as.
    """
    odd = {name: told for name, kind in types.items() if (told := _odd(quoted(name), kind))}
    found = []
    with opened(path) as database:
        for name, condition in odd.items():
            # of a view that calls GDAL's functions it cannot be known
            if asked(database, f"SELECT EXISTS (SELECT 1 FROM {quoted(layer)} WHERE {condition})"):
                found.append(name)
    return found


def _odd(column: str, kind: str) -> str | None:
    """What is true of the values that a type cannot hold; None of types that are no numbers."""
    if kind.startswith("float"):
        return f"typeof({column}) NOT IN ('integer', 'real', 'null')"
    whole = f"typeof({column}) NOT IN ('integer', 'null')"
    if kind == "bool":
        return f"{whole} OR {column} NOT IN (0, 1)"
    if kind.startswith("int"):
        limits = np.iinfo(kind)
        least = f"({limits.min + 1} - 1)"  # the least of all cannot be written as a number
        return f"{whole} OR {column} NOT BETWEEN {least} AND {limits.max}"
    return None


def with_stray_text(
    table: pa.Table, path: Path, layer: str, columns: Sequence[str], key: str
) -> pa.Table:
    """Replace columns of a table, or add them, by what stands in the database, as text.

    Parameters
    ----------
    table : pa.Table
        As GDAL reads it.
    path, layer
        Of the GeoPackage.
    columns : sequence of str
        Those to be replaced or added.
    key : str
        The column of `table` that holds the numbers of the rows.

    Raises
    ------
    sqlite3.OperationalError
        Rows have no numbers, as those of a view.
    """
    rows = table[key].to_pylist()
    with opened(path) as database:
        for name in columns:
            question = f"SELECT rowid, {quoted(name)} FROM {quoted(layer)}"
            told = dict(database.execute(question))
            texts = pa.array([_written(told[row]) for row in rows], pa.string())
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, texts)
            else:
                table = table.append_column(name, texts)
    return table


def _written(value: object) -> str | None:
    """A value as text; a fraction with an exponent, as 1.234 might be taken for thousands.

    >>> [_written(value) for value in (None, 3, 4.0, 1.234, "1,5", b"12")]
    [None, '3', '4', '1.234e0', '1,5', '12']
    """
    if isinstance(value, float) and math.isfinite(value):
        text = str(int(value)) if value.is_integer() else repr(value)
        return text if value.is_integer() or "e" in text else text + "e0"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)
