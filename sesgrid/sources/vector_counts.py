"""How many rows a file says it has, so that one cut short does not lose half of them in silence.

GDAL reads what is there of a broken download and says nothing; each format tells its length at its beginning.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sesgrid.errors import FormatError
from sesgrid.foreign import DAMAGED
from sesgrid.sources.dbf_numbers import refuse_odd_numbers

__all__ = ["check_geodatabase", "check_shapefile"]

_HEADER = 100
_RECORD = np.dtype([("offset", ">i4"), ("words", ">i4")])
_POINTS, _LINES = (1, 8, 11, 18, 21, 28), (3, 5, 13, 15, 23, 25, 31)
"""Kinds of shapes; polygons are lines here."""
_NO_PARTS = 76
"""Bytes of a polygon of no ring, at most: its box and counts, and the ranges of height and measure."""
_GDB_HEADER = 40
_DELETED, _KEPT = ord("*"), ord(" ")


def check_shapefile(shp: Path, label: str, types: Sequence[str | None] = ()) -> tuple[int, int]:
    """Compare the lengths that a shapefile's three files declare with what is there.

    Parameters
    ----------
    shp : Path
        The others lie beside it, in small letters.
    label : str
        File and layer, for messages.
    types : sequence of str or None
        Of each column numpy's name of its type, whose numbers are looked at; None for those not read.

    Returns
    -------
    rows, drawn : int
        Rows that are not marked as deleted, and those of them that have a shape.

    Raises
    ------
    FormatError
        One is shorter than its header says, they have not the same number of rows, or numbers are none.

    References
    ----------
    ESRI Shapefile Technical Description, 1998; dBASE III file structure.
    """
    drawn = _check_shapes(shp, label)
    shapes = len(drawn)
    dbf = shp.with_suffix(".dbf")
    if not dbf.exists():
        return shapes, int(drawn.sum())
    with dbf.open("rb") as file:
        header = file.read(32)
        if len(header) < 32:
            raise FormatError(f"{label}: its .dbf has no header; {DAMAGED}")
        rows, first, width = struct.unpack_from("<IHH", header, 4)
        length = dbf.stat().st_size
        there = max(length - first, 0) // max(width, 1)
        if not width or there < rows:
            raise FormatError(
                f"{label}: its .dbf holds {there} of the {rows} rows that its header tells; {DAMAGED}"
            )
        if rows != shapes:
            raise FormatError(
                f"{label}: its .dbf has {rows} rows, its .shx {shapes}: expected as many; fetch all of the "
                "shapefile's files again, from one place"
            )
    if not rows:
        return 0, 0
    table = np.memmap(dbf, np.uint8, "r", offset=first, shape=(rows, width))
    marks = np.asarray(table[:, 0])
    odd = np.flatnonzero((marks != _KEPT) & (marks != _DELETED))
    if odd.size:
        raise FormatError(
            f"{label}: {odd.size} of {rows} rows of its .dbf begin with neither a space nor a star, first "
            f"row {int(odd[0]) + 1}; {DAMAGED}"
        )
    kept = marks == _KEPT
    with dbf.open("rb") as file:
        refuse_odd_numbers(file.read(first), table, kept, types, label)
    return int(kept.sum()), int((kept & drawn).sum())


def _check_shapes(shp: Path, label: str) -> np.ndarray:
    """Whether each row has a shape, bool ``(row,)``, once all lie where index and file say."""
    shx = shp.with_suffix(".shx")
    for path in (shp, shx):
        declared = _declared_bytes(path, label)
        there = path.stat().st_size
        if there < declared:
            raise FormatError(
                f"{label}: its {path.suffix} holds {there} of the {declared} bytes that its header tells; "
                f"{DAMAGED}"
            )
    count = (_declared_bytes(shx, label) - _HEADER) // _RECORD.itemsize
    if not count:
        return np.zeros(0, bool)
    index = np.memmap(shx, _RECORD, "r", offset=_HEADER, shape=(count,))
    shapes = np.memmap(shp, np.uint8, "r")
    start = index["offset"].astype(np.int64) * 2
    length = index["words"].astype(np.int64) * 2
    outside = (start < _HEADER) | (length < 4) | (start + 8 + length > len(shapes))
    if not outside.any():
        told = shapes[start[:, None] + np.arange(4, 8)].copy().view(">i4")[:, 0]
        kind = shapes[start[:, None] + np.arange(8, 12)].copy().view("<i4")[:, 0]
        outside = (told.astype(np.int64) * 2 != length) | ~np.isin(kind, (0, *_POINTS, *_LINES))
    if outside.any():
        raise FormatError(
            f"{label}: {int(outside.sum())} of {count} shapes do not lie where its .shx says, first that of "
            f"row {int(outside.argmax()) + 1}; {DAMAGED}"
        )
    return np.isin(kind, _POINTS) | (np.isin(kind, _LINES) & (length > _NO_PARTS))


def _declared_bytes(path: Path, label: str) -> int:
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER:
        raise FormatError(f"{label}: its {path.suffix} has no header; {DAMAGED}")
    return 2 * struct.unpack_from(">i", header, 24)[0]


def check_geodatabase(folder: Path, label: str) -> None:
    """Compare the lengths of a file geodatabase's row indexes with what their headers declare.

    GDAL takes a table whose index is cut for an empty one.

    Raises
    ------
    FormatError
        An index is shorter than its header says, or its table is missing.

    References
    ----------
    github.com/rouault/dump_gdbtable/wiki/FGDB-Spec
    """
    for index in sorted(folder.glob("*.gdbtablx")):
        if not index.with_suffix(".gdbtable").exists():
            raise FormatError(f"{label}: {index.stem}.gdbtable is missing; {DAMAGED}")
        with index.open("rb") as file:
            header = file.read(16)
        if len(header) < 16:
            raise FormatError(f"{label}: {index.name} has no header; {DAMAGED}")
        _, blocks, rows, width = struct.unpack("<IIII", header)
        there, declared = index.stat().st_size, 16 + 1024 * blocks * width
        if there < declared:
            raise FormatError(
                f"{label}: {index.name}, which tells where {rows} rows lie, holds {there} of {declared} "
                f"bytes; {DAMAGED}"
            )
    for table in sorted(folder.glob("*.gdbtable")):
        if not table.with_suffix(".gdbtablx").exists():
            raise FormatError(f"{label}: {table.stem}.gdbtablx is missing; {DAMAGED}")
        if table.stat().st_size < _GDB_HEADER:
            raise FormatError(f"{label}: {table.name} has no header; {DAMAGED}")
