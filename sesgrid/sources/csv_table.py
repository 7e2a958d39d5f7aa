"""Tables in CSV: the header with its separator, and columns as text."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from sesgrid.errors import FormatError
from sesgrid.sources.table import Table

__all__ = ["list_csv", "read_csv"]


def list_csv(path: Path) -> list[Table]:
    """The one table of a CSV."""
    return [Table(path, None, tuple(csv_header(path)[0]))]


def csv_header(path: Path) -> tuple[list[str], str]:
    """Column names and separator of a CSV. Data columns we need are ASCII, whatever the rest is."""
    with path.open("rb") as file:
        line = file.readline(2**16)
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace").strip("\r\n")
    if not text.strip():
        raise FormatError(f"{path.name} is empty: expected a header line with column names")
    separator = ";" if text.count(";") > text.count(",") else ","
    return [name.strip() for name in next(csv.reader([text], delimiter=separator))], separator


def read_csv(table: Table, columns: Sequence[str], *, geometry: bool = False) -> pd.DataFrame:
    """Some columns of a CSV, as text; it has no geometry, whatever `geometry` asks."""
    names, separator = csv_header(table.path)
    if len(set(names)) != len(names):
        raise FormatError(f"{table}: column names repeat: {names}")
    try:
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
    except pa.ArrowException as e:
        raise FormatError(f"cannot read {table}: {e}; the file is damaged or no .csv") from e
    if separator == ";":  # French spreadsheets write the decimal comma with it
        content = pa.table(
            {n: pa.compute.replace_substring(content[n], ",", ".") for n in content.column_names}
        )
    return content.to_pandas()
