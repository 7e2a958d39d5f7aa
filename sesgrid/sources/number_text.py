"""Numbers as people write them: decimal points and commas, thousands set apart.

``1.234,5`` and ``1 234,5`` can be read in one way only. ``1,234`` can be read in two, which the other numbers
of the same file may tell apart; where they do not, it is for the reader to refuse it rather than to guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute as pc

__all__ = ["Numbers", "is_number_to_c", "read_numbers"]

_SPACES = "[ \u00a0\u202f\u2009'\u2019]"
_FORMS = {
    "15": r"\d+(?:[eE][+-]?\d+)?",
    # ambiguous: groups of three digits are what sets thousands apart, and may be decimals
    "1,234": r"[1-9]\d{0,2},\d{3}",
    "1.234": r"[1-9]\d{0,2}\.\d{3}",
    # the only mark can only be decimal
    "1,5": r"(?:\d+,\d*|,\d+)(?:[eE][+-]?\d+)?",
    "1.5": r"(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?",
    # these marks can only set thousands apart
    "1.234.567": r"[1-9]\d{0,2}(?:\.\d{3}){2,}",
    "1,234,567": r"[1-9]\d{0,2}(?:,\d{3}){2,}",
    "1.234,5": r"[1-9]\d{0,2}(?:\.\d{3})+,\d+",
    "1,234.5": r"[1-9]\d{0,2}(?:,\d{3})+\.\d+",
    "1 234": rf"\d{{1,3}}(?:{_SPACES}\d{{3}})+",
    "1 234,5": rf"\d{{1,3}}(?:{_SPACES}\d{{3}})+,\d+",
    "1 234.5": rf"\d{{1,3}}(?:{_SPACES}\d{{3}})+\.\d+",
}
_POINTS_APART = ("1.234.567", "1.234,5")
_COMMAS_APART = ("1,234,567", "1,234.5")
_COMMA_DECIMAL = ("1,5", "1.234,5", "1 234,5")
_POINT_DECIMAL = ("1.5", "1,234.5", "1 234.5")


_TO_C = re.compile(
    r"[ \t\r\n]*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?)[ \t\r\n]*",
    re.ASCII | re.IGNORECASE,
)


def is_number_to_c(text: str) -> bool:
    """Whether programs in C, as GDAL, read all of a text as one number; Python takes more for one.

    >>> [is_number_to_c(text) for text in (" -6.5e5", "NaN", "650_000", "650 000", "\u00a01", "")]
    [True, True, False, False, False, False]
    """
    return _TO_C.fullmatch(text) is not None


@dataclass(frozen=True)
class Numbers:
    """A column read as numbers."""

    values: np.ndarray
    """float64 ``(row,)``; NaN where the column is empty or tells no number."""

    odd: np.ndarray
    """bool ``(row,)``: what stands there is no finite number."""

    ambiguous: np.ndarray
    """bool ``(row,)``: what stands there may be a thousand times as much."""


def read_numbers(columns: Mapping[str, pd.Series]) -> dict[str, Numbers]:
    """Read columns of one file as numbers; what one of them tells of marks holds for all.

    Parameters
    ----------
    columns : mapping of Series
        Numbers, or text without white space around; NA where there is nothing.

    Examples
    --------
    >>> told = {"a": pd.Series(["1,234", None]), "b": pd.Series(["0,5", "1 234,5"])}
    >>> [n.values.tolist() for n in read_numbers(told).values()]
    [[1.234, nan], [0.5, 1234.5]]
    >>> read_numbers({"a": pd.Series(["1,234", "2"])})["a"].ambiguous.tolist()
    [True, False]
    """
    texts = {k: _as_text(c) for k, c in columns.items() if not pd.api.types.is_numeric_dtype(c)}
    plain = {k: _as_plain(text) for k, text in texts.items()}
    if any(values is None for values in plain.values()):
        read = _read_forms(texts)
    else:
        read = {k: _finite(v, texts[k]) for k, v in plain.items() if v is not None}
    for name in columns.keys() - texts.keys():
        values = columns[name].to_numpy(np.float64, na_value=np.nan)
        odd = np.isinf(values)
        read[name] = Numbers(np.where(odd, np.nan, values), odd, np.zeros(len(values), bool))
    return {name: read[name] for name in columns}


def _as_text(column: pd.Series) -> pa.Array:
    return pa.array(column.astype("string"), type=pa.large_string(), from_pandas=True)


def _as_plain(text: pa.Array) -> pa.Array | None:
    """As numbers if all are written as programs do."""
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _finite(values: pa.Array, text: pa.Array, ambiguous: np.ndarray | None = None) -> Numbers:
    found = values.to_numpy(zero_copy_only=False)
    given = pc.is_valid(text).to_numpy(zero_copy_only=False)
    none = np.zeros(len(text), bool) if ambiguous is None else ambiguous
    odd = given & ~np.isfinite(found) & ~none
    return Numbers(np.where(odd, np.nan, found), odd, none)


def _read_forms(texts: Mapping[str, pa.Array]) -> dict[str, Numbers]:
    forms = {name: _forms(text) for name, text in texts.items()}
    seen = {form for found in forms.values() for form in found}
    points_apart, commas_apart = seen & {*_POINTS_APART}, seen & {*_COMMAS_APART}
    comma_decimal, point_decimal = seen & {*_COMMA_DECIMAL}, seen & {*_POINT_DECIMAL}
    apart, unclear = set(), set()
    if commas_apart and not comma_decimal:
        apart.add("1,234")
    elif commas_apart or point_decimal or not comma_decimal:
        unclear.add("1,234")
    if points_apart and not point_decimal:
        apart.add("1.234")
    elif points_apart or comma_decimal:
        unclear.add("1.234")
    return {name: _read_column(text, forms[name], apart, unclear) for name, text in texts.items()}


def _forms(text: pa.Array) -> dict[str, np.ndarray]:
    """Form → which texts have it, of the forms that occur; each text has the first that fits."""
    found, left = {}, pc.is_valid(text).to_numpy(zero_copy_only=False)
    for form, pattern in _FORMS.items():
        if not left.any():
            break
        hits = pc.match_substring_regex(text, rf"^[+-]?(?:{pattern})$")
        mask = left & pc.fill_null(hits, False).to_numpy(zero_copy_only=False)
        if mask.any():
            found[form] = mask
            left &= ~mask
    return found


def _read_column(
    text: pa.Array, forms: Mapping[str, np.ndarray], apart: set[str], unclear: set[str]
) -> Numbers:
    def having(*wanted: str) -> np.ndarray:
        return np.logical_or.reduce([forms[f] for f in wanted if f in forms] or [nothing])

    nothing = np.zeros(len(text), bool)
    ambiguous = having(*unclear)
    bare = pc.replace_substring_regex(text, _SPACES, "")
    for mark, of in ((".", (*_POINTS_APART, "1.234")), (",", (*_COMMAS_APART, "1,234"))):
        group = having(*(f for f in of if f in apart or f not in ("1.234", "1,234")))
        bare = pc.if_else(pa.array(group), pc.replace_substring(bare, mark, ""), bare)
    bare = pc.replace_substring(bare, ",", ".")
    readable = having(*_FORMS) & ~ambiguous
    values = pc.if_else(pa.array(readable), bare, pa.scalar(None, pa.large_string()))
    return _finite(pc.fill_null(values.cast(pa.float64()), np.nan), text, ambiguous)
