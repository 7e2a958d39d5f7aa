"""Numbers and truth values in the table of a shapefile that are none: GDAL reads as much of them as it can.

It reads ``12,5`` as 12 and ``x`` as 0, in columns of whole numbers without a word, and a truth value ``1`` as
false.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from sesgrid.errors import FormatError

__all__ = ["refuse_odd_numbers"]

_ROWS = 2**17
"""Rows looked at in one go."""
_NOTHING = r"[\x00 ]*|[\x00 ]*\*+[\x00 ]*"
"""Blanks, or stars where a number did not fit."""
_WHOLE = r"[+-]?\d+(?:\.0*)?"
_ANY = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[nN][aA][nN]"
_TRUTH = "[tTyYfFnN?]"
_CALLED = {
    _WHOLE: "a whole number",
    _ANY: "a number with a decimal point",
    _TRUTH: "a truth value, T or F",
}


def refuse_odd_numbers(
    header: bytes, rows: np.ndarray, kept: np.ndarray, types: Sequence[str | None], label: str
) -> None:
    """Raise where a column of numbers, or of truth values, holds anything else.

    Parameters
    ----------
    header : bytes
        Of the ``.dbf``, with the descriptions of its columns.
    rows : np.ndarray
        uint8 ``(row, byte)``.
    kept : np.ndarray
        bool ``(row,)``: not marked as deleted.
    types : sequence of str or None
        Of each column numpy's name of the type that GDAL reads it as; None if it is not read.
    label : str
        How messages call the file.

    Raises
    ------
    FormatError
        Naming column and row.

    References
    ----------
    dBASE III file structure: 32 bytes a column, its name, kind and width in the bytes 0, 11 and 16.
    """
    start, column = 1, 0
    for at in range(32, len(header) - 31, 32):
        if header[at] == 0x0D:
            break
        name = header[at : at + 11].split(b"\0")[0].decode("cp1252", "replace")
        kind, end = chr(header[at + 11]), start + header[at + 16]
        read_as = types[column] if column < len(types) else None
        if read_as and kind in "NFL" and start < end <= rows.shape[1]:
            number = _WHOLE if read_as.startswith("int") else _ANY
            number = _TRUTH if kind == "L" else number
            where = f"{label}, column {name!r}"
            _refuse(rows[:, start:end], kept, number, where)
        start, column = end, column + 1


def _refuse(fields: np.ndarray, kept: np.ndarray, number: str, where: str) -> None:
    pattern = rf"^(?:{_NOTHING}|[\x00 ]*(?:{number})[\x00 ]*)$"
    odd, first = 0, None
    for begin in range(0, len(fields), _ROWS):
        part = np.ascontiguousarray(fields[begin : begin + _ROWS])
        texts = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(part.shape[1]), len(part), [None, pa.py_buffer(part)]
        )
        good = pc.match_substring_regex(texts.cast(pa.binary()), pattern)
        wrong = ~good.to_numpy(zero_copy_only=False) & kept[begin : begin + _ROWS]
        odd += int(wrong.sum())
        if first is None and wrong.any():
            row = int(wrong.argmax())
            text = re.sub(r"[\x00 ]+", " ", part[row].tobytes().decode("cp1252", "replace")).strip()
            first = (begin + row + 1, text)
    if first is not None:
        raise FormatError(
            f"{where}, row {first[0]}: expected {_CALLED[number]}, received {first[1]!r} ({odd} such rows); "
            "correct these rows, or declare the column as text"
        )
