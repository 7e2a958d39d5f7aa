"""Text of tables as UTF-8, whatever wrote it: old shapefiles tell no encoding, or a wrong one."""

from __future__ import annotations

import warnings

import pyarrow as pa

from sesgrid.errors import SesgridWarning

__all__ = ["with_text_decoded"]

_OTHERWISE = "cp1252"
"""What Windows wrote in Western Europe, Latin-1 included."""


def with_text_decoded(table: pa.Table, label: str) -> pa.Table:
    """Replace columns whose text is not UTF-8; Arrow and pandas take it in and fail when it is looked at.

    Bytes of no declared meaning are text too: older writers of Parquet did not say so.

    Warns
    -----
    SesgridWarning
        Once for each such column, with the number of its values.

    Examples
    --------
    >>> with_text_decoded(pa.table({"name": ["Forêt"]}), "a.shp")["name"].to_pylist()
    ['Forêt']
    """
    for at, name in enumerate(table.column_names):
        kind = table.schema.field(at).type
        bytes_only = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if not (bytes_only or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            continue
        if bytes_only or not _is_utf8(table[at]):
            raw = table[at].cast(pa.large_binary()).to_pylist()
            texts = [_decoded(value) for value in raw]
            table = table.set_column(at, name, pa.array([text for text, _ in texts], pa.string()))
            other = sum(not plain for _, plain in texts)
            if other:
                warnings.warn(
                    f"{label}: {other} of {len(raw)} texts in its column {name!r} are not UTF-8 and are read "
                    "as Windows-1252",
                    SesgridWarning,
                    stacklevel=4,
                )
    return table


def _is_utf8(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _decoded(value: bytes | None) -> tuple[str | None, bool]:
    """The text, and whether it was UTF-8."""
    if value is None:
        return None, True
    try:
        return value.decode("utf-8"), True
    except UnicodeDecodeError:
        return value.decode(_OTHERWISE, "replace"), False
