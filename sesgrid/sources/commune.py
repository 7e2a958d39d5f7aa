"""The département of a commune's code, also of a code that a spreadsheet took for a number."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from sesgrid.errors import SesgridWarning

__all__ = ["departement_of", "read_departements", "whole_codes"]

_DEPARTEMENT = (
    r"^(97[0-9]|2[AB]|0[1-9]|1[0-9]|2[1-9]|[3-9][0-9])[0-9]{2,3}"  # of a length that five divides
    r"(?:(?:2[AB]|[0-9][0-9])[0-9]{3})*$"
)
_WHOLE = r"^([0-9]+)(?:[.,]0*)?$"
_ROUNDED = r"^([0-9])[.,]?([0-9]*)[eE]\+?([0-9]+)$"
_CODE = 5
"""Characters of a code."""
_SHORTEST = (4, 5, 8, 9)
"""Lengths below 10 that are made of codes of four or five characters."""


def departement_of(communes: pd.Series) -> pd.Series:
    """The département of commune codes, of which INSEE runs several together where a cell has several.

    A code is five characters. Digits of any other length have lost the zero of the départements 01 to 09,
    which come first.

    Parameters
    ----------
    communes : Series
        Text, or the numbers that codes were taken for.

    Returns
    -------
    Series
        string; NA where there is no code, or none that can be.

    Examples
    --------
    >>> departement_of(pd.Series(["7505675112", "2A004", "97411", "", None])).tolist()
    ['75', '2A', '974', <NA>, <NA>]
    >>> departement_of(pd.Series([1004, 75056.0, 100401007, 9.30109306493077e14])).tolist()
    ['01', '75', '01', '93']
    """
    # of each that occurs once only: a nation's millions of texts would be taken apart one by one
    at, distinct = pd.factorize(communes.astype("string"))
    codes = whole_codes(pd.Series(distinct))
    found = codes.str.extract(_DEPARTEMENT, expand=False).astype("string")
    return pd.Series(found.array.take(at, allow_fill=True), index=communes.index)


def read_departements(communes: pd.Series, label: str) -> pd.Series:
    """As `departement_of`, and tell of codes that were mended or are none.

    Warns
    -----
    SesgridWarning
        Codes got back the zero that they had lost, or are no codes of communes; counted, the first named.
    """
    texts = communes.astype("string").str.strip()
    texts = texts.mask(texts == "")
    found = departement_of(texts)
    at, distinct = pd.factorize(texts)
    codes = pd.Series(distinct, dtype="string")
    padded = (whole_codes(codes).str[0] == "0") & (codes.str[0] != "0")
    mended = np.append(padded.fillna(False).to_numpy(bool), False)[at]
    for wrong, told in (
        (
            (found.isna() & texts.notna()).to_numpy(bool),
            "are no codes of communes, so their cells have no département",
        ),
        (mended, "have lost their first zero, which was put back"),
    ):
        if wrong.any():
            first = texts[wrong].iloc[0]
            warnings.warn(
                f"{label}, column {communes.name!r}: {int(wrong.sum())} values {told} (first: {first!r} in "
                f"row {int(wrong.argmax()) + 1}); expected five characters a commune, as text",
                SesgridWarning,
                stacklevel=2,
            )
    return found


def whole_codes(communes: pd.Series) -> pd.Series:
    """Codes as INSEE writes them, with the zero that a number has lost; NA where they are none.

    >>> whole_codes(pd.Series(["75056", "1004", "10041007", 1004.0, "1,0041E+08", "75", "2a004"])).tolist()
    ['75056', '01004', '010041007', '01004', '0100410000', <NA>, '2A004']
    """
    texts = communes.astype("string").str.strip().str.upper()
    digits = texts.str.extract(_WHOLE, expand=False).fillna(_unrounded(texts))
    texts = digits.fillna(texts)
    n = texts.str.len().fillna(0).astype("int64")
    whole = (n > 0) & (n % _CODE == 0)
    lost = (
        ~whole & texts.str.fullmatch(r"[1-9][0-9]+").fillna(False) & ((n >= 12) | n.isin(_SHORTEST))
    )
    return texts.where(whole, ("0" + texts).where(lost))


def _unrounded(texts: pd.Series) -> pd.Series:
    """Numbers that a spreadsheet rounded to ``1,00401E+08``, with zeros for the digits that are gone."""
    parts = texts.str.extract(_ROUNDED)
    power = pd.to_numeric(parts[2]).fillna(0).astype("int64")
    digits = [
        None if pd.isna(a) or p > 99 or len(b) > p else a + b + "0" * (p - len(b))
        for a, b, p in zip(parts[0], parts[1], power, strict=True)
    ]
    return pd.Series(digits, index=texts.index, dtype="string")
