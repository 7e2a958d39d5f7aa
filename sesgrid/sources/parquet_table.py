"""Tables in Parquet: a file, or a folder of parts as Hive, Spark, DuckDB and dask write one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sesgrid.errors import FormatError
from sesgrid.foreign import DAMAGED, reading
from sesgrid.sources.geoparquet import GeoColumn, geo_column, geometry_columns, series_of
from sesgrid.sources.table import Table
from sesgrid.sources.text_columns import with_text_decoded

__all__ = ["PARQUET_SUFFIXES", "list_parquet", "read_parquet", "tables_of_parts"]

PARQUET_SUFFIXES = frozenset({".parquet", ".geoparquet"})

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def list_parquet(path: Path) -> list[Table]:
    """The one table of a Parquet file, or of a folder of parts.

    Raises
    ------
    FormatError
        It is damaged, or none.
    """
    parts = _parts(path)
    if not parts:
        raise FormatError(f"{path.name}: a folder without a part ending in .parquet; {DAMAGED}")
    names: dict[str, None] = {}
    geometries: set[str] = set()
    for part in parts:  # all of them: a column that the first one lacks would be passed over
        label = _label(path, part)
        with reading(label), part.open("rb") as file:
            schema = pq.ParquetFile(file).schema_arrow
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise FormatError(f"{label}: column names repeat: {', '.join(twice[:5])}; rename them")
        geometries |= geometry_columns(schema, label)
        names |= dict.fromkeys([*schema.names, *_hive_values(path, part)])
    columns = tuple(name for name in names if name not in geometries)
    return [Table(path, None, columns, bool(geometries))]


def read_parquet(table: Table, columns: Sequence[str], *, geometry: bool) -> pd.DataFrame:
    """Some columns; a GeoDataFrame when `geometry` is asked for and there is one.

    Raises
    ------
    FormatError
        A part is damaged, or parts do not fit together.
    """
    contents, geo = [], []
    for part in _parts(table.path):
        content, column = _read_part(table.path, part, columns, geometry and table.has_geometry)
        contents.append(content)
        geo.append(column)
    with reading(table, advice="its parts are to have columns of the same types: write them again"):
        whole = pa.concat_tables(contents, promote_options="permissive")
    with reading(table):
        # without metadata: pandas would make an index of columns that it once wrote as one
        chosen = whole.select(list(columns)).replace_schema_metadata(None)
        frame = with_text_decoded(chosen, str(table)).to_pandas()
    first = geo[0]
    if first is None:
        return frame
    if any(other != first for other in geo):
        raise FormatError(
            f"{table}: its parts differ in the name, encoding or CRS of their geometry; expected one table"
        )
    return gpd.GeoDataFrame(frame, geometry=series_of(whole, first, str(table)))


def tables_of_parts(files: Iterable[Path], top: Path) -> list[Path]:
    """Replace files that are parts of one table by the folder of that table.

    Parameters
    ----------
    files : iterable of Path
        Parquet files, below `top`.

    Examples
    --------
    >>> names = ["a/dep=01/x.parquet", "a/dep=02/x.parquet", "b.parquet", "c.parquet/part-0.parquet"]
    >>> [str(p) for p in tables_of_parts(map(Path, names), Path())]
    ['a', 'b.parquet', 'c.parquet']
    """
    tables = dict.fromkeys(_table_of(file, top) for file in files)
    return [t for t in tables if not any(parent in tables for parent in t.parents)]


def _table_of(file: Path, top: Path) -> Path:
    found = file
    for folder in file.parents:
        if folder.suffix.lower() in PARQUET_SUFFIXES:
            found = folder
        if folder == top:
            break
        if "=" in folder.name:
            found = folder.parent
    return found


def _parts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    with reading(path.name):
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in PARQUET_SUFFIXES)
    hidden = (".", "_")  # marks and metadata of those who write parts
    return [p for p in found if p.is_file() and not p.name.startswith(hidden)]


def _hive_values(top: Path, part: Path) -> dict[str, str | None]:
    """Columns that the names of a part's folders give, as text: 01 stays 01."""
    if part == top:
        return {}
    pairs = [n.split("=", 1) for n in part.relative_to(top).parts[:-1] if "=" in n]
    return {key: None if value == _HIVE_NULL else unquote(value) for key, value in pairs}


def _read_part(
    top: Path, part: Path, columns: Sequence[str], geometry: bool
) -> tuple[pa.Table, GeoColumn | None]:
    label = _label(top, part)
    with reading(label), part.open("rb") as file:
        content = pq.ParquetFile(file, page_checksum_verification=True)
        schema = content.schema_arrow
        column = geo_column(schema, label) if geometry else None
        wanted = [*columns, *([column.name] if column else [])]
        inside = [name for name in wanted if name in schema.names]
        rows: Any = content.read(columns=inside)
        if rows.num_rows != content.metadata.num_rows:
            raise FormatError(
                f"{label} holds {rows.num_rows} of the {content.metadata.num_rows} rows that it tells; "
                f"{DAMAGED}"
            )
    for name, value in _hive_values(top, part).items():
        if name in columns and name not in inside:
            rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.string()))
    missing = set(wanted) - set(rows.column_names)
    if missing:
        raise FormatError(
            f"{label} lacks the column {', '.join(map(repr, sorted(missing)))} of the other parts; expected "
            "one table"
        )
    return _decoded(rows).replace_schema_metadata(None), column


def _decoded(rows: pa.Table) -> pa.Table:
    """Text laid out in one way, for parts of one table may differ in whether they number their texts."""
    for at, field in enumerate(rows.schema):
        kind = field.type
        if pa.types.is_dictionary(kind):
            rows = rows.set_column(at, field.name, rows[at].cast(kind.value_type))
        elif str(kind) == "string_view":
            rows = rows.set_column(at, field.name, rows[at].cast(pa.large_string()))
    return rows


def _label(top: Path, part: Path) -> str:
    return part.name if part == top else f"{top.name}/{part.relative_to(top)}"
