"""The tables of a file or folder: one row source a file, or one a layer where it has several.

The readers choose among the tables by name and columns, then read only what they need.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pyogrio

from sesgrid.errors import FormatError, MissingInputError

__all__ = ["Table", "list_tables", "match_columns", "pick_by_name", "read_table", "wanted_tables"]

TABLE_SUFFIXES = frozenset({".csv", ".parquet", ".geoparquet"})
VECTOR_SUFFIXES = frozenset({".gpkg", ".shp", ".gdb", ".geojson", ".fgb"})


@dataclass(frozen=True)
class Table:
    """A readable table."""

    path: Path
    """The file, or the ``.gdb`` folder."""

    layer: str | None
    """Layer name; None where the format holds one table only."""

    columns: tuple[str, ...]
    """Column names as the file spells them, without the geometry."""

    has_geometry: bool = False
    """Whether rows carry a geometry."""

    @property
    def name(self) -> str:
        """The layer's name, else the file's stem."""
        return self.layer or self.path.stem

    def __str__(self) -> str:
        if self.layer and self.layer != self.path.stem:
            return f"{self.path.name}, layer {self.layer!r}"
        return self.path.name


def list_tables(path: Path, suffixes: frozenset[str]) -> list[Table]:
    """List the tables of a file, or of the files of a folder that have one of `suffixes`.

    Raises
    ------
    FormatError
        A file cannot be opened.
    """
    if path.is_file() or path.suffix.lower() == ".gdb":
        return _tables_of_file(path)
    files = [
        p
        for p in sorted(path.rglob("*"))
        if p.suffix.lower() in suffixes
        and (p.is_file() or p.suffix.lower() == ".gdb")
        and not any(part.startswith(".") for part in p.relative_to(path).parts)
    ]
    return [table for file in files for table in _tables_of_file(file)]


def match_columns(table: Table, wanted: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Find columns by any of their known names, whatever the case.

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
        hits = [column for column in table.columns if column.lower() in accepted]
        if len(hits) > 1:
            raise FormatError(
                f"{table}: columns {hits} could all be {ours!r}; expected one; remove the others"
            )
        if hits:
            found[ours] = hits[0]
    return found


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
            f"{', '.join(sorted(suffixes))}, plain or in a .zip or .7z"
        )
    return tables if layer is None else [pick_by_name(tables, layer, source)]


def read_table(table: Table, columns: Sequence[str], *, geometry: bool) -> pd.DataFrame:
    """Read some columns; a GeoDataFrame when `geometry` is asked for and there is one.

    Columns of a CSV come as text: the caller knows which are numbers.

    Raises
    ------
    FormatError
        The file is damaged or not of the kind its suffix says.
    """
    suffix = table.path.suffix.lower()
    try:
        if suffix == ".csv":
            return _read_csv(table, columns)
        if suffix in TABLE_SUFFIXES:
            if geometry and table.has_geometry:
                return gpd.read_parquet(table.path, columns=[*columns, "geometry"])
            return pa.parquet.read_table(table.path, columns=list(columns)).to_pandas()
        with _quiet_gdal():
            return pyogrio.read_dataframe(
                table.path,
                layer=table.layer,
                columns=list(columns),
                read_geometry=geometry and table.has_geometry,
                use_arrow=True,
            )
    except (pa.ArrowException, pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as e:
        raise FormatError(f"cannot read {table}: {e}; the file is damaged or no {suffix}") from e


def _tables_of_file(path: Path) -> list[Table]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return [Table(path, None, tuple(_csv_header(path)[0]))]
    if suffix in TABLE_SUFFIXES:
        return [_parquet_table(path)]
    if suffix not in VECTOR_SUFFIXES:
        known = ", ".join(sorted(TABLE_SUFFIXES | VECTOR_SUFFIXES | {".zip", ".7z"}))
        raise FormatError(f"{path}: unknown kind of file {suffix!r}; expected one of {known}")
    try:
        with _quiet_gdal():
            names = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
            infos = [pyogrio.read_info(path, layer=name) for name in names]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise FormatError(
            f"cannot open {path.name}: {error}; the file is damaged, incomplete or no {suffix}"
        ) from error
    return [
        Table(path, name, tuple(map(str, info["fields"])), info["geometry_type"] is not None)
        for name, info in zip(names, infos, strict=True)
    ]


def _parquet_table(path: Path) -> Table:
    try:
        schema = pa.parquet.read_schema(path)
    except pa.ArrowException as error:
        raise FormatError(f"cannot open {path.name}: {error}; it is no parquet file") from error
    is_geo = b"geo" in (schema.metadata or {}) and "geometry" in schema.names
    return Table(path, None, tuple(n for n in schema.names if n != "geometry"), is_geo)


def _csv_header(path: Path) -> tuple[list[str], str]:
    """Column names and separator of a CSV. Data columns we need are ASCII, whatever the rest is."""
    with path.open("rb") as file:
        line = file.readline(2**16)
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace").strip("\r\n")
    if not text.strip():
        raise FormatError(f"{path.name} is empty: expected a header line with column names")
    separator = ";" if text.count(";") > text.count(",") else ","
    return [name.strip() for name in next(csv.reader([text], delimiter=separator))], separator


def _read_csv(table: Table, columns: Sequence[str]) -> pd.DataFrame:
    names, separator = _csv_header(table.path)
    if len(set(names)) != len(names):
        raise FormatError(f"{table}: column names repeat: {names}")
    content = pa.csv.read_csv(
        table.path,
        read_options=pa.csv.ReadOptions(column_names=names, skip_rows=1),
        parse_options=pa.csv.ParseOptions(delimiter=separator),
        # other columns may be latin-1: only those read are decoded, and ours are ASCII
        convert_options=pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: pa.string() for name in columns},
            strings_can_be_null=True,
            null_values=["", "NA", "NaN", "nan", "null"],
        ),
    )
    if separator == ";":  # French spreadsheets write the decimal comma with it
        content = pa.table(
            {n: pa.compute.replace_substring(content[n], ",", ".") for n in content.column_names}
        )
    return content.to_pandas()


class _quiet_gdal(warnings.catch_warnings):
    """GDAL's remarks on odd but readable files (undefined CRS, measured types) are not news."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="pyogrio")
