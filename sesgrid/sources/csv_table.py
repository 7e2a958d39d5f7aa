"""CSV as people deliver it: any line ends, separator and encoding; read fast, refused by line number.

A nation's census has millions of lines, so Arrow reads it and converts only the columns that are asked for.
What Arrow would take without a word is looked for first: null characters, a quote that swallows the lines
after it, a last line that was cut off.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
from pyarrow import compute as pc

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.foreign import reading
from sesgrid.sources.csv_layout import SAMPLE_BYTES, Layout, in_single_bytes, layout_of
from sesgrid.sources.table import Table

__all__ = ["EMPTY", "list_csv", "read_csv"]

EMPTY = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>")
"""What programs write where a table has nothing."""


_PART_BYTES = 2**24


def list_csv(path: Path) -> list[Table]:
    """The one table of a CSV; its columns are those that have a name.

    Raises
    ------
    FormatError
        There is no header, or it is no text.
    MissingInputError, ReadError
        The file is not there, or may not be read.
    """
    with in_single_bytes(path, path.name) as plain:
        names = layout_of(plain, path.name).names
    return [Table(path, None, tuple(name for name in names if name))]


def read_csv(
    table: Table,
    columns: Sequence[str],
    *,
    geometry: bool = False,
    empty: Sequence[str] = EMPTY,
) -> pd.DataFrame:
    """Some columns of a CSV as text, without white space around; NA where there is none.

    Parameters
    ----------
    table : Table
        Of a file in UTF-8, UTF-16, UTF-32 or Windows-1252, whose lines end in LF, CR or both, and whose
        fields are separated by ``;``, ``,``, a tab or ``|``.
    columns : sequence of str
        Of the table; the first of that name is read.
    geometry : bool
        It has none, whatever is asked for.
    empty : sequence of str
        What stands for nothing.

    Raises
    ------
    FormatError
        A row with more or fewer fields than the header, a quote that is never closed, null characters, by
        line number; bytes that are no text.
    MissingInputError, ReadError
        The file is not there, or may not be read.

    Warns
    -----
    SesgridWarning
        Rows empty in all of these columns were left out, counted; a quoted field runs over several lines;
        the last line has no end; text is not UTF-8.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.csv"
    ...     _ = path.write_bytes("code;nom;;\\r1;forêt;;\\r".encode("utf-16"))
    ...     [table] = list_csv(path)
    ...     print(table.columns, read_csv(table, ["nom"])["nom"].tolist())
    ('code', 'nom') ['forêt']
    """
    path, label = table.path, str(table)
    with in_single_bytes(path, label) as plain, reading(label):
        layout = layout_of(plain, label)
        lines = _check_bytes(plain, layout, label)
        found, blank = _parse(plain, layout, columns, label, quoted=lines is not None)
        inside = 0 if lines is None else lines - blank - found.num_rows
        if inside > 0:
            _check_quotes(plain, layout, label, inside)
    found = _as_text(found, label, empty)
    filled = _any_valid(found)
    left = found.num_rows - pc.sum(filled).as_py() if found.num_rows else 0
    if left:
        _warn(f"{label}: {left} rows are empty in {', '.join(columns)} and were left out")
        found = found.filter(filled)
    return found.to_pandas()


def _check_bytes(path: Path, layout: Layout, label: str) -> int | None:
    """Refuse null characters, tell of a cut last line; the number of lines with text if there are quotes."""
    quoted, last = False, b"\n"
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            if b"\0" in part:
                at = file.tell() - len(part) + part.index(b"\0")
                file.seek(0)
                raise FormatError(
                    f"{label}, line {_line_ends(file.read(at)) + 1}: a null character; expected text: the "
                    "file is damaged or of another kind, fetch it again"
                )
            quoted |= b'"' in part
            last = part[-1:]
    if last not in (b"\r", b"\n"):
        _warn(
            f"{label}: its last line has no line end, so the file may have been cut off there: look at that "
            "line, or fetch the file again"
        )
    if not quoted:
        return None
    with _lines(path, layout) as lines:
        return sum(1 for line in lines if line.strip(" \r\n"))


@contextmanager
def _lines(path: Path, layout: Layout) -> Iterator[io.TextIOWrapper]:
    """The lines after the header; separators and quotes are ASCII, whatever the rest is."""
    with path.open("rb") as file:
        file.seek(layout.body)
        yield io.TextIOWrapper(file, encoding="latin-1", newline="")


def _parse(
    path: Path, layout: Layout, columns: Sequence[str], label: str, *, quoted: bool
) -> tuple[pa.Table, int]:
    """The columns as bytes, and how many lines of white space and separators were left out."""
    blank: list[object] = []
    places = [str(layout.names.index(name)) for name in columns]
    with pa.OSFile(os.fsencode(path)) as file:
        rest = file.size() - layout.body
        file.seek(layout.body)
        if not rest or (rest < SAMPLE_BYTES and not file.read().strip()):
            return pa.table({name: pa.array([], pa.binary()) for name in columns}), 0
    try:
        table = _read_rows(path, layout, places, quoted, None)
    except pa.ArrowInvalid as error:
        why = _why_refused(path, layout, label)
        if why is not None:
            raise FormatError(why) from error

        def skip(row: object) -> str:
            blank.append(row)
            return "skip"

        # but for lines of white space all is well
        table = _read_rows(path, layout, places, quoted, skip)
    return table.rename_columns(list(columns)), len(blank)


def _read_rows(
    path: Path,
    layout: Layout,
    places: list[str],
    quoted: bool,
    odd: Callable[[Any], str] | None,
) -> pa.Table:
    with pa.OSFile(os.fsencode(path)) as file:
        file.seek(layout.body)
        return pa.csv.read_csv(
            file,
            read_options=pa.csv.ReadOptions(
                column_names=[str(k) for k in range(len(layout.names))]
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=layout.separator, newlines_in_values=quoted, invalid_row_handler=odd
            ),
            # only what is read is decoded, and that is ASCII as a rule, whatever the other columns are
            convert_options=pa.csv.ConvertOptions(
                include_columns=places,
                column_types=dict.fromkeys(places, pa.binary()),
                strings_can_be_null=False,
            ),
        )


def _why_refused(path: Path, layout: Layout, label: str) -> str | None:
    """Which line has too few or too many fields: Arrow does not tell when it reads in parallel."""
    expected, header = len(layout.names), _lines_before(path, layout)
    with _lines(path, layout) as lines:
        rows = csv.reader(lines, delimiter=layout.separator)
        try:
            for row in rows:
                if len(row) != expected and "".join(row).strip():
                    return (
                        f"{label}, line {header + rows.line_num}: expected {expected} fields separated by "
                        f"{layout.separator!r}, received {len(row)}; correct or remove this line"
                    )
        except csv.Error as wrong:
            return f"{label}, line {header + rows.line_num}: {wrong}; correct or remove this line"
    return None


def _lines_before(path: Path, layout: Layout) -> int:
    """How many line ends stand before the rows; the header's own is the first that `_lines` meets."""
    with path.open("rb") as file:
        return _line_ends(file.read(layout.body))


def _line_ends(content: bytes) -> int:
    return content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")


def _check_quotes(path: Path, layout: Layout, label: str, missing: int) -> None:
    """Rows are fewer than lines: quoted fields run over several, or a quote was never closed."""
    header, first = _lines_before(path, layout), 0
    with _lines(path, layout) as lines:
        rows = csv.reader(lines, delimiter=layout.separator, strict=True)
        last = 0
        try:
            for row in rows:
                if row and not first and rows.line_num - last > 1:
                    first = last + 1
                last = rows.line_num
        except csv.Error as error:
            raise FormatError(
                f"{label}, line {header + last + 1}: a quote begins there that is not closed as CSV asks "
                f"({error}); correct or remove this line"
            ) from error
    _warn(
        f"{label}: {missing} lines lie inside quoted fields of other rows, the first after line "
        f"{header + first}; if these are rows of their own, remove the stray quotes"
    )


def _as_text(table: pa.Table, label: str, empty: Sequence[str]) -> pa.Table:
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            text = column.cast(pa.string())
        except pa.ArrowInvalid:
            text = _as_western(column, f"{label}, column {name!r}")
        text = pc.utf8_trim_whitespace(text)
        nothing = pc.is_in(text, value_set=pa.array(empty, pa.string()))
        columns[name] = pc.if_else(nothing, pa.scalar(None, pa.string()), text)
    return pa.table(columns)


def _as_western(column: pa.ChunkedArray, label: str) -> pa.ChunkedArray:
    """Bytes that are no UTF-8 as Windows-1252, which holds Latin-1; one that has some of both is damaged."""
    texts, first = [], None
    for row, value in enumerate(column.to_pylist(), start=1):
        try:
            if not value.isascii():
                value.decode()
                raise FormatError(
                    f"{label}: row {row} is UTF-8, others are not; expected one encoding: the file is "
                    "damaged or was put together of several, fetch it again"
                )
            texts.append(value.decode())
        except UnicodeDecodeError:
            with reading(f"{label}, row {row}"):
                texts.append(value.decode("cp1252"))
            first = first or (row, texts[-1])
    assert first is not None
    _warn(
        f"{label} is not in UTF-8 and was read as Windows-1252 (first in row {first[0]}: {first[1]!r}); "
        "save it as UTF-8 if that is wrong"
    )
    return pa.chunked_array([pa.array(texts, pa.string())])


def _any_valid(table: pa.Table) -> pa.ChunkedArray:
    valid = [pc.is_valid(column) for column in table.columns]
    found = valid[0]
    for column in valid[1:]:
        found = pc.or_(found, column)
    return found


def _warn(message: str) -> None:
    warnings.warn(message, SesgridWarning, stacklevel=4)
