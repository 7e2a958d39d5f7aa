"""A CSV of a few rows, each with the number of its line, for tables that people write by hand."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.foreign import reading
from sesgrid.sources.csv_layout import in_single_bytes, layout_of

__all__ = ["read_rows"]


def read_rows(path: Path, label: str) -> tuple[list[str], dict[int, list[str]]]:
    """The names of the columns, and by line number the cells of every row that holds anything.

    Written as `sesgrid.sources.csv_table.read_csv` has it; white space around cells is left out.

    Raises
    ------
    FormatError
        There is no text, a null character, a quote that is never closed, text in two encodings.
    MissingInputError, ReadError
        The file is not there, or may not be read.

    Warns
    -----
    SesgridWarning
        A row runs over several lines; the last line has no end; text is not UTF-8.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.csv"
    ...     _ = path.write_bytes("code;nom;\\r\\r7; forêt;\\r".encode("utf-16"))
    ...     read_rows(path, "a.csv")
    (['code', 'nom'], {3: ['7', 'forêt', '']})
    """
    with in_single_bytes(path, label) as plain:
        layout = layout_of(plain, label)
        with reading(label):
            content = plain.read_bytes()
    text = _decoded(content, label)
    if "\0" in text:
        line = len(text.partition("\0")[0].splitlines())
        raise FormatError(
            f"{label}, line {line}: a null character; expected text: the file is damaged"
        )
    if text[-1] not in "\r\n":
        _warn(
            f"{label}: its last line has no line end, so it may have been cut off there: look at it"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=layout.separator, strict=True)
    rows: dict[int, list[str]] = {}
    last = 0
    try:
        for row in reader:
            if reader.line_num - last > 1 and last:
                _warn(
                    f"{label}: lines {last + 1} to {reader.line_num} are one row, by the quotes in them"
                )
            last = reader.line_num
            rows[last] = [cell.strip() for cell in row]
    except csv.Error as error:
        raise FormatError(
            f"{label}, line {last + 1}: {error}; correct or remove this line"
        ) from error
    header = len(content[: layout.body].splitlines())
    names = list(layout.names)
    while names and not names[-1]:  # of a spreadsheet that was wider once
        names.pop()
    return names, {line: row for line, row in rows.items() if line > header and any(row)}


def _decoded(content: bytes, label: str) -> str:
    """UTF-8, else Windows-1252, which holds Latin-1; what has some of both is damaged."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    lines = [line for line in enumerate(content.splitlines(), start=1) if not line[1].isascii()]
    western = [number for number, line in lines if not _is_utf8(line)]
    if len(western) < len(lines):
        raise FormatError(
            f"{label}, line {western[0]}: it is not in UTF-8, other lines are; expected one encoding: the "
            "file is damaged or was put together of several"
        )
    with reading(label, advice="save it as UTF-8"):
        text = content.decode("cp1252")
    _warn(
        f"{label} is not in UTF-8 and was read as Windows-1252 (first in line {western[0]}); save it as UTF-8"
    )
    return text


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _warn(message: str) -> None:
    warnings.warn(message, SesgridWarning, stacklevel=4)
