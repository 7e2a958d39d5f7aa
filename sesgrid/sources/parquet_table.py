"""Tables in Parquet and GeoParquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from sesgrid.errors import FormatError
from sesgrid.sources.table import Table

__all__ = ["list_parquet", "read_parquet"]


def list_parquet(path: Path) -> list[Table]:
    """The one table of a Parquet file."""
    try:
        schema = pa.parquet.read_schema(path)
    except pa.ArrowException as error:
        raise FormatError(f"cannot open {path.name}: {error}; it is no parquet file") from error
    is_geo = b"geo" in (schema.metadata or {}) and "geometry" in schema.names
    return [Table(path, None, tuple(n for n in schema.names if n != "geometry"), is_geo)]


def read_parquet(table: Table, columns: Sequence[str], *, geometry: bool) -> pd.DataFrame:
    """Some columns; a GeoDataFrame when `geometry` is asked for and there is one."""
    try:
        if geometry and table.has_geometry:
            return gpd.read_parquet(table.path, columns=[*columns, "geometry"])
        return pa.parquet.read_table(table.path, columns=list(columns)).to_pandas()
    except pa.ArrowException as e:
        raise FormatError(f"cannot read {table}: {e}; the file is damaged or no parquet") from e
