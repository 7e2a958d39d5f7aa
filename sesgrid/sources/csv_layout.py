"""How a CSV is written: its encoding, its separator and the names of its columns."""

from __future__ import annotations

import codecs
import csv
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sesgrid.errors import FormatError
from sesgrid.foreign import copying, reading, scratch

__all__ = ["SAMPLE_BYTES", "Layout", "in_single_bytes", "layout_of"]

_SEPARATORS = ";,\t|"
_INVISIBLE = "\ufeff\u200b\u00a0 "
SAMPLE_BYTES = 2**18
"""Bytes in which the header and the first row are expected."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16 does: asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE = re.compile(rb"[^\r\n]+")
_HINT = re.compile(r"sep=(.)", re.IGNORECASE)
"""A first line by which spreadsheets are told the separator."""


@dataclass(frozen=True)
class Layout:
    """How a CSV is written."""

    names: tuple[str, ...]
    """Of the fields of a row, without white space around; "" where the header names none."""

    separator: str
    body: int
    """Byte at which the header ends."""


@contextmanager
def in_single_bytes(path: Path, label: str) -> Iterator[Path]:
    """The file itself, or a copy in UTF-8 of one whose characters take two or four bytes."""
    with reading(label), path.open("rb") as file:
        encoding = _wide_encoding(file.read(4096))
    if encoding is None:
        yield path
        return
    with scratch() as folder:
        plain = folder / "utf-8.csv"
        with (
            reading(f"{label}, as {encoding.upper()},"),
            copying(label),
            path.open(encoding=encoding, newline="") as source,
            plain.open("w", encoding="utf-8", newline="") as copy,
        ):
            shutil.copyfileobj(source, copy, 2**20)
        yield plain


def _wide_encoding(sample: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return None if encoding == "utf-8" else encoding
    # without a mark: every other byte of what Europe's alphabets write is null
    pairs = len(sample) // 2
    even, odd = sample[0 : 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)
    if pairs and max(even, odd) > 0.8 * pairs and min(even, odd) < 0.1 * pairs:
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def layout_of(path: Path, label: str) -> Layout:
    """How a CSV in single bytes is written, told by its first two lines with text.

    Empty names at the end of the header count as fields only where the first row has them as well.

    Raises
    ------
    FormatError
        There is no line with text, or none that ends.
    """
    with reading(label), path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    separators = _SEPARATORS
    found: list[tuple[str, int]] = []
    first = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    for line in _LINE.finditer(sample, first):
        text = _header_text(line[0])
        hint = None if found else _HINT.fullmatch(text.strip().strip('"'))
        if hint:
            separators = hint[1]
        elif text.strip():
            found.append((text, line.end()))
        if len(found) == 2:
            break
    if not found:
        raise FormatError(f"{label} is empty: expected a header line with column names")
    (header, body), row = found[0], found[1][0] if len(found) > 1 else None
    if body == len(sample) == SAMPLE_BYTES:
        raise FormatError(
            f"{label}: no line ends in its first {SAMPLE_BYTES} bytes; expected the text of a CSV"
        )
    with reading(label):
        separator, names, n = _split(header, row, separators)
    return Layout(tuple([*names, *[""] * n][:n]), separator, body)


def _header_text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace")


def _split(header: str, row: str | None, separators: str) -> tuple[str, list[str], int]:
    """The separator that makes most of the header and as many of a row; the names; fields of a row."""

    def fields(text: str, separator: str) -> list[str]:
        return [
            field.strip().strip(_INVISIBLE)
            for field in next(csv.reader([text], delimiter=separator))
        ]

    best: tuple[tuple[bool, int], str, list[str], int] | None = None
    for separator in separators:
        names = fields(header, separator)
        n, named = len(names), len(_trimmed(names))
        values = names if row is None else fields(row, separator)
        if len(_trimmed(values)) <= n < len(values) or named <= len(values) < n:
            n = len(values)
        rank = (n == len(values) and n > 1, named)
        if best is None or rank > best[0]:
            best = rank, separator, names, n
    assert best is not None
    return best[1:]


def _trimmed(fields: list[str]) -> list[str]:
    """The fields up to the last that is not empty."""
    n = max((k for k, field in enumerate(fields, start=1) if field), default=0)
    return fields[:n]
