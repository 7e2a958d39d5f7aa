"""Tables of codes: which class each code of a land cover belongs to, as data.

A table is a CSV with ``landcover_class``, ``group`` where wanted, and columns of codes named as in the land
cover: ``code``, or ``code_cs`` and ``code_us``. Two nomenclatures come with sesgrid, and go by name.
"""

from __future__ import annotations

import difflib
import re
import warnings
from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

from sesgrid.errors import FormatError, MissingInputError, SesgridWarning
from sesgrid.foreign import reading
from sesgrid.sources.csv_rows import read_rows
from sesgrid.sources.csv_table import EMPTY

__all__ = ["CLASS_TABLES", "MAX_CODE_COLUMNS", "normal_codes", "read_class_table"]

CLASS_TABLES = {"ocsge": "ocsge_classes.csv", "cosia": "cosia_classes.csv"}
"""Tables that come with sesgrid, by name: IGN's OCS GE and CoSIA."""

MAX_CODE_COLUMNS = 4
"""Columns of codes of a table, at most: every further one doubles the rows that are looked for."""

_MEANING = ("landcover_class", "group", "name", "value", "comment")
"""Columns that are no codes."""

_RESERVED = "unclassified"
_MAX_CLASSES = 255


def read_class_table(path: str | Path) -> pd.DataFrame:
    """Read the table that gives meaning to the codes of a land cover.

    Parameters
    ----------
    path : str or Path
        ``"ocsge"`` or ``"cosia"``, or a CSV with the columns ``landcover_class`` (a name, several
        codes may share it; empty, or NA, nan, null, None = belongs to no class) and, if wanted, ``group``
        (residential, functional, infrastructure, nature, …). A column ``code`` holds the codes, each once;
        without it every column but these two, ``name``, ``value`` and ``comment`` does, under the name that
        the land cover has for it. Of several, an empty one means any code, and the row with the fewest empty
        ones counts.

    Returns
    -------
    DataFrame
        Indexed by the codes (int64 where all are whole numbers, else text; a MultiIndex of text where there
        are several columns, "" = any), with ``landcover_class`` and ``group`` (string) and ``value`` (uint8),
        which counts the classes 1, 2, … as they appear; 0 = no class. ``.attrs["source"]``: what to call it.

    Raises
    ------
    MissingInputError
        No such file.
    FormatError
        Columns are missing or repeated, a row has no code or more cells than columns, codes come twice, a
        class is in two groups, or there are more than 255 classes.

    Warns
    -----
    SesgridWarning
        The file is not in UTF-8, or may have been cut off; a column is called almost as one that is read; a
        class is spelt in several ways.

    Examples
    --------
    >>> table = read_class_table("ocsge")
    >>> table.index.names, table.loc[("CS1.1.1.1", "US5"), "landcover_class"]
    (FrozenList(['code_cs', 'code_us']), 'homes')
    """
    shipped = CLASS_TABLES.get(path) if isinstance(path, str) else None
    if shipped is not None:
        with as_file(files("sesgrid.sources").joinpath(shipped)) as own:
            return _parse(own, str(path))
    path = Path(path)
    with reading(path):
        there = path.is_file()
    if not there:
        raise MissingInputError(
            f"no table of classes at {path}; expected a CSV, or one of the names "
            f"{', '.join(map(repr, CLASS_TABLES))}"
        )
    return _parse(path, str(path))


def _parse(path: Path, label: str) -> pd.DataFrame:
    header, rows = _cells(path, label)
    columns = _code_columns(header, label)
    lines = pd.Index(rows)
    frame = pd.DataFrame(list(rows.values()), columns=header, index=lines, dtype="string")
    codes = frame[columns]
    _check_codes(codes, label)
    # R writes what is missing as NA, Python as nan
    for told in ("landcover_class", "group"):
        if told in frame:
            frame[told] = frame[told].mask(frame[told].isin(EMPTY), "")
    name = _spelt_once(frame["landcover_class"].replace("", pd.NA), label)
    kinds = {c: k for k, c in enumerate(dict.fromkeys(name.dropna()), start=1)}
    if not 1 <= len(kinds) <= _MAX_CLASSES:
        raise FormatError(f"{label}: expected 1 to {_MAX_CLASSES} classes, received {len(kinds)}")
    if _RESERVED in kinds:
        raise FormatError(
            f"{label}: a landcover_class is called {_RESERVED!r}, as what belongs to no class is; leave it "
            "empty where a code belongs to none, or give it another name"
        )
    out = pd.DataFrame(
        {
            "landcover_class": name.astype("string"),
            "group": _groups(frame, name, label),
            "value": name.map(kinds).fillna(0).astype("uint8"),
        }
    )
    out.index = _index_of(codes)
    out.attrs["source"] = Path(label).name
    return out


def _spelt_once(name: pd.Series, label: str) -> pd.Series:
    """Names that differ in case, spaces or forms of accents are one class, as its first row spells it."""
    plain = name.str.normalize("NFC").str.casefold().str.split().str.join(" ")
    first = name.groupby(plain).transform("first")
    other = (first != name).fillna(False)
    if other.any():
        line = other[other].index[0]
        warnings.warn(
            f"{label}: {int(other.sum())} rows spell a class otherwise than the first one that names it, "
            f"and are taken for the same (line {line}: {name[line]!r} for {first[line]!r}); give it another "
            "name if it is another class",
            SesgridWarning,
            stacklevel=4,
        )
    return first


def _groups(frame: pd.DataFrame, name: pd.Series, label: str) -> pd.Series:
    """The group of each row's class, told in one of its rows at least; "other" where it is in none."""
    told = frame["group"] if "group" in frame else pd.Series("", index=frame.index, dtype="string")
    group: dict[str, str] = {}
    for line, of, own in zip(frame.index, name, told, strict=True):
        if own and not pd.isna(of) and group.setdefault(of, own) != own:
            raise FormatError(
                f"{label}: the class {of!r} is in two groups, {group[of]!r} and, in line {line}, {own!r}: "
                "expected one; give the classes names of their own, or the same group"
            )
    own = told.mask(told == "")
    return name.map(group).astype("string").fillna(own).fillna("other")


def _cells(path: Path, label: str) -> tuple[list[str], dict[int, list[str]]]:
    """Header, and line number → cells of every row that holds anything."""
    names, found = read_rows(path, label)
    plain = [re.sub(r"[\s-]+", "_", name.lower()) for name in names]
    header = [
        low if low in (*_MEANING, "code") else name for low, name in zip(plain, names, strict=True)
    ]
    if len(set(plain)) != len(plain) or "" in plain:
        raise FormatError(f"{label}: column names repeat, or are empty: {', '.join(header)}")
    width = len(header)
    for line, row in found.items():
        if any(row[width:]):
            raise FormatError(
                f"{label}, line {line}: {len(row)} cells, and {width} columns; put quotes around a text "
                "that holds the separator"
            )
    return header, {line: (row + [""] * width)[:width] for line, row in found.items()}


def _code_columns(header: list[str], label: str) -> list[str]:
    other = [name for name in header if name not in (*_MEANING, "code")]
    columns = ["code"] if "code" in header else other
    for name in other if columns != other else []:
        near = difflib.get_close_matches(name.lower(), _MEANING, n=1, cutoff=0.75)
        if near and near[0] not in header:
            warnings.warn(
                f"{label}: the column {name!r} is not read; call it {near[0]!r} if it is that",
                SesgridWarning,
                stacklevel=4,
            )
    missing = [name for name in ("landcover_class",) if name not in header]
    missing += [] if columns else ["code"]
    if missing:
        raise FormatError(
            f"{label}: expected the columns code, landcover_class (and group), missing "
            f"{', '.join(sorted(missing))}; received {', '.join(header)}"
        )
    if len(columns) > MAX_CODE_COLUMNS:
        raise FormatError(
            f"{label}: {len(columns)} columns of codes ({', '.join(columns)}), expected {MAX_CODE_COLUMNS} "
            "at most; a column that holds no codes is to be called comment"
        )
    return columns


def _check_codes(codes: pd.DataFrame, label: str) -> None:
    """Refuse rows without any code, and codes that come twice."""
    normal = codes.apply(normal_codes).fillna("")
    empty = (normal == "").all(axis=1)
    wrong = empty | normal.duplicated()
    if wrong.any():
        line = wrong[wrong].index[0]
        shown = " / ".join(codes.loc[line])
        raise FormatError(
            f"{label}: expected every code once, and at least one a row; received {shown!r} in line {line}"
        )


def _index_of(codes: pd.DataFrame) -> pd.Index:
    if codes.shape[1] > 1:
        return pd.MultiIndex.from_frame(codes.astype(object))
    column = codes.iloc[:, 0]
    numbers = normal_codes(column)
    if numbers.str.fullmatch(r"\d{1,18}").all():
        return pd.Index(numbers.astype("int64"), name=column.name)
    return pd.Index(column.astype(object), name=column.name)


def normal_codes(column: pd.Series) -> pd.Series:
    """Codes as they are compared: text without its case and outer spaces, whole numbers without zeros before.

    Numbers come as text, text as numbers, and spreadsheets eat zeros: 07, "7" and 7.0 are one code.

    Returns
    -------
    Series
        string; NA where there is no code.

    Examples
    --------
    >>> normal_codes(pd.Series([" CS1.1 ", "07", 7.0, None])).tolist()
    ['cs1.1', '7', '7', <NA>]
    """
    text = column.astype("string").str.strip().str.normalize("NFC").str.casefold()
    text = text.str.replace(r"^0*(\d+)(?:\.0+)?$", r"\1", regex=True)
    return text.mask(text.isin(["", "nan"]))
