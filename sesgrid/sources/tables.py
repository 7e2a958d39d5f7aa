"""The tables of a file or folder: one row source a file, or one a layer where it has several.

The readers choose among the tables by name and columns, then read only what they need. Each format has a
file of its own: `csv_table`, `parquet_table`, `geojson`, `gdal_vector`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.foreign import reading
from sesgrid.sources.archive import packed_inside
from sesgrid.sources.csv_table import list_csv, read_csv
from sesgrid.sources.gdal_vector import GDAL_SUFFIXES, list_vector, read_vector
from sesgrid.sources.geojson import list_geojson, read_geojson
from sesgrid.sources.parquet_table import (
    PARQUET_SUFFIXES,
    list_parquet,
    read_parquet,
    tables_of_parts,
)
from sesgrid.sources.spatial_filter import Bounds
from sesgrid.sources.table import Table
from sesgrid.sources.volumes import told_of_parts

__all__ = [
    "POLYGON_SUFFIXES",
    "Table",
    "list_tables",
    "match_columns",
    "pick_by_name",
    "read_table",
    "wanted_tables",
]


POLYGON_SUFFIXES = GDAL_SUFFIXES | PARQUET_SUFFIXES | {".geojson"}
"""Of files whose rows may have a geometry."""


class _Format(NamedTuple):
    list_tables: Callable[[Path], list[Table]]
    read: Callable[..., pd.DataFrame]


_PARQUET = _Format(list_parquet, read_parquet)
_FORMATS = {
    ".csv": _Format(list_csv, read_csv),
    ".geojson": _Format(list_geojson, read_geojson),
    **dict.fromkeys(PARQUET_SUFFIXES, _PARQUET),
    **dict.fromkeys(GDAL_SUFFIXES, _Format(list_vector, read_vector)),
}


def list_tables(path: Path, suffixes: frozenset[str]) -> list[Table]:
    """List the tables of a file, or of the files of a folder that have one of `suffixes`.

    Raises
    ------
    FormatError
        A file cannot be opened.
    """
    with reading(path):
        one = path.is_file() or path.suffix.lower() == ".gdb"
    if one:
        return _format_of(path).list_tables(path)
    with reading(path):
        files = [
            p
            for p in sorted(_below(path))
            if p.suffix.lower() in suffixes
            and (p.is_file() or p.suffix.lower() == ".gdb")
            and not any(part.startswith(".") for part in p.relative_to(path).parts)
        ]
    parts = {p for p in files if p.suffix.lower() in PARQUET_SUFFIXES}
    sources = [p for p in files if p not in parts] + tables_of_parts(sorted(parts), path)
    return [table for p in sorted(sources) for table in _format_of(p).list_tables(p)]


def _below(top: Path) -> Iterator[Path]:
    """All that a folder holds; unlike `Path.rglob`, raises where a folder may not be read."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(top, onerror=refuse) if top.is_dir() else ():
        yield from (Path(folder, name) for name in (*folders, *names))


def match_columns(table: Table, wanted: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Find columns by any of their known names, whatever the case, and spaces for underscores.

    Parameters
    ----------
    table : Table
    wanted : dict
        Our name → the lower-case names that files use; a name cut to ten characters, as in
        shapefiles, matches too.

    Returns
    -------
    dict
        Our name → the file's name, for the columns that are there.

    Examples
    --------
    >>> table = Table(Path("a.csv"), None, ("IdINSPIRE", "Ind", "Men"))
    >>> match_columns(table, {"cell_id": ("idcar_200m", "idinspire"), "snv": ("ind_snv",)})
    {'cell_id': 'IdINSPIRE'}
    """
    found = {}
    for ours, names in wanted.items():
        accepted = {*names, *(name[:10] for name in names)}
        hits = [column for column in table.columns if _plain(column) in accepted]
        if len(hits) > 1:
            raise FormatError(
                f"{table}: columns {hits} could all be {ours!r}; expected one; remove the others"
            )
        if hits:
            found[ours] = hits[0]
    return found


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def pick_by_name(tables: Sequence[Table], layer: str, source: Path) -> Table:
    """Return the table whose layer or file stem is `layer` (exact, else whatever the case).

    Raises
    ------
    MissingInputError
        No table has that name.
    """
    for same in (lambda t: t.name == layer, lambda t: t.name.lower() == layer.lower()):
        hits = [t for t in tables if same(t)]
        if len(hits) == 1:
            return hits[0]
    names = ", ".join(repr(t.name) for t in tables) or "none"
    raise MissingInputError(f"{source}: no layer {layer!r}; its layers are {names}")


def wanted_tables(
    folder: Path, suffixes: frozenset[str], layer: str | None, source: Path
) -> list[Table]:
    """The tables to choose from: all that are there, or the one named `layer`.

    Raises
    ------
    MissingInputError
        None is there, or none has that name; `source` is how the message calls the input.
    FormatError
        A file cannot be opened.
    """
    tables = list_tables(folder, suffixes)
    if not tables:
        raise MissingInputError(
            f"{source}: nothing to read in it; expected a file ending in "
            f"{', '.join(sorted(suffixes))}, plain or in a .zip, .7z or .gz{packed_inside(source)}"
        )
    return tables if layer is None else [pick_by_name(tables, layer, source)]


def read_table(
    table: Table, columns: Sequence[str], *, geometry: bool, within: Bounds | None = None
) -> pd.DataFrame:
    """Read some columns; a GeoDataFrame when `geometry` is asked for and there is one.

    Columns of a CSV come as text: the caller knows which are numbers. With bounds `within`, of files that
    can be searched by place, rows that lie elsewhere are left out.

    Raises
    ------
    FormatError
        The file is damaged or not of the kind its suffix says.
    """
    if within is not None and table.path.suffix.lower() in GDAL_SUFFIXES:
        return read_vector(table, columns, geometry=geometry, within=within)
    return _format_of(table.path).read(table, columns, geometry=geometry)


def _format_of(path: Path) -> _Format:
    suffix = path.suffix.lower()
    if suffix not in _FORMATS and path.is_dir():
        return _PARQUET  # parts of one table
    if suffix not in _FORMATS:
        whole = path.with_suffix(".zip")
        if told := told_of_parts(whole):
            raise FormatError(f"{path} is a part of {whole.name}{told}")
        known = ", ".join(sorted({*_FORMATS, ".zip", ".7z", ".gz"}))
        raise FormatError(f"{path}: unknown kind of file {suffix!r}; expected one of {known}")
    return _FORMATS[suffix]
