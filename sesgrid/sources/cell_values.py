"""What a row of the census says: people, incomes, households and flags, checked cell by cell."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.sources.commune import read_departements
from sesgrid.sources.number_text import Numbers, read_numbers

__all__ = ["cell_values"]

_PLAUSIBLE_INCOME = (1_000.0, 1_000_000.0)
"""Euros a year. INSEE's are means of living standards whose extremes were cut: 6,000 to 120,000 or so."""
_PLAUSIBLE_PEOPLE = (0.0, 20_000.0)
"""In 4 hectares; the densest cells of Paris have about 2,500."""
_NUMBERS = ("individuals", "living_standard_sum", "households", "imputed")
_TRUE, _FALSE = ("true", "vrai"), ("false", "faux")


def cell_values(
    frame: pd.DataFrame, names: Mapping[str, str], ids: pd.Series, label: str
) -> pd.DataFrame:
    """The columns of `sesgrid.sources.read_census` from those of a file.

    Parameters
    ----------
    frame : DataFrame
        As the file has it.
    names : mapping
        Our name → the file's, for the columns that are there.
    ids : Series of str
        Of the cells, in the order of the rows.
    label : str
        How messages call the file.

    Raises
    ------
    FormatError
        Naming column, row and cell: no finite number, a number that can be read in two ways, people not above
        zero, a sum or households below zero, a flag that is none.

    Warns
    -----
    SesgridWarning
        Incomes or people that cannot be, commune codes that are none; counted, the first named.
    """
    read = read_numbers({key: _bare(frame[names[key]], key) for key in _NUMBERS if key in names})
    for key, numbers in read.items():
        _require_numbers(frame[names[key]], numbers, ids, label)
    nothing = np.full(len(ids), np.nan)
    people, total, households, flags = (
        read[key].values if key in read else nothing for key in _NUMBERS
    )
    for key, wrong, expected in (
        ("individuals", ~(people > 0), "a number of people above 0"),
        ("living_standard_sum", ~(total >= 0), "a sum of euros, not negative"),
        ("households", households < 0, "a number of households, not negative"),
        ("imputed", ~(np.isnan(flags) | (flags == 0) | (flags == 1)), "a flag 0 or 1"),
    ):
        if wrong.any():
            _refuse(frame[names[key]], wrong, ids, expected, label)
    with np.errstate(over="ignore"):
        income = total / people
    if np.isinf(income).any():
        expected = "a sum of euros that is finite for each of the people"
        _refuse(frame[names["living_standard_sum"]], np.isinf(income), ids, expected, label)
    _warn_of_implausible("incomes in euros a year", income, _PLAUSIBLE_INCOME, ids, label)
    _warn_of_implausible("numbers of people", people, _PLAUSIBLE_PEOPLE, ids, label)
    index = pd.Index(ids.astype(str), name="cell_id")
    departement = (
        read_departements(frame[names["commune"]], label)
        if "commune" in names
        else pd.Series(pd.NA, index=frame.index, dtype="string")
    )
    columns = {
        "individuals": people,
        "households": pd.Series(households, index=index).astype("Float64"),
        "income": income,
        "imputed": pd.Series(flags, index=index).astype("boolean"),
        "departement": departement.set_axis(index),
    }
    return pd.DataFrame(columns, index=index)


def _bare(column: pd.Series, key: str) -> pd.Series:
    """Text without white space around; truth values are 0 and 1 where a flag is meant, else no numbers."""
    if pd.api.types.is_bool_dtype(column):
        return column.astype("Float64" if key == "imputed" else "string")
    if pd.api.types.is_numeric_dtype(column):
        return column
    text = column.astype("string").str.strip()
    text = text.mask(text == "")
    if key == "imputed":
        lower = text.str.lower()
        text = text.mask(lower.isin(_TRUE), "1").mask(lower.isin(_FALSE), "0")
    return text


def _require_numbers(column: pd.Series, numbers: Numbers, ids: pd.Series, label: str) -> None:
    if numbers.odd.any():
        _refuse(column, numbers.odd, ids, "a finite number", label)
    if numbers.ambiguous.any():
        expected = (
            "a number that can be read in one way only: nothing in the file tells whether the mark before "
            "the last three digits is decimal"
        )
        _refuse(column, numbers.ambiguous, ids, expected, label, "write decimal points only")


def _refuse(
    column: pd.Series,
    wrong: np.ndarray,
    ids: pd.Series,
    expected: str,
    label: str,
    advice: str = "correct or remove these rows",
) -> None:
    row = int(np.flatnonzero(wrong)[0])
    value = column.iloc[row]
    told = value.item() if isinstance(value, np.generic) else value
    raise FormatError(
        f"{label}, column {column.name!r}, row {row + 1} (cell {ids.iloc[row]}): expected {expected}, "
        f"received {told!r} ({int(wrong.sum())} such rows); {advice}"
    )


def _warn_of_implausible(
    what: str, values: np.ndarray, bounds: tuple[float, float], ids: pd.Series, label: str
) -> None:
    low, high = bounds
    wrong = (values < low) | (values > high)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        warnings.warn(
            f"{label}: {int(wrong.sum())} of {len(ids)} cells have {what} that can hardly be (expected "
            f"{low:,.0f} to {high:,.0f}; first: {values[row]:.6g} in row {row + 1}, cell {ids.iloc[row]}): "
            "the columns hold the number of people and the sum of their living standards; correct or remove "
            "such rows",
            SesgridWarning,
            stacklevel=3,
        )
