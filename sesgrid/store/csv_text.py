"""Tables as CSV for spreadsheets: text from somebody's files never becomes a formula there.

A spreadsheet computes whatever begins with one of ``= + - @``, also in a file that was only opened to be
looked at, and a formula can send cells away. Names of cities and of land-cover classes come from files that
were downloaded. See OWASP, CSV Injection.
"""

from __future__ import annotations

import re

import pandas as pd

__all__ = ["csv_text"]

# a semicolon, too, begins a cell: in half of Europe it is what parts them
_FORMULA = re.compile(r"^(?=[\t\n])|(^|[;\n])(?=\s*[=+\-@＝＋－＠])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def csv_text(table: pd.DataFrame, *, index: bool = False) -> str:
    r"""A table as CSV, the one place where it is written for spreadsheets.

    Parameters
    ----------
    table : DataFrame
    index : bool
        Whether the index is written, too.

    Returns
    -------
    str
        An apostrophe stands before what a spreadsheet would compute, in text, headers and index; numbers are
        as they are.

    Examples
    --------
    >>> print(csv_text(pd.DataFrame({"name": ["=1+1", "plain", "-2"], "r": [-0.5, 1.0, 2.0]})), end="")
    name,r
    '=1+1,-0.5
    plain,1.0
    -2,2.0
    """
    out = table if index else table.reset_index(drop=True)
    out = out.set_axis([_harmless(name) for name in out.columns], axis=1)
    for at, kind in enumerate(out.dtypes):
        if isinstance(kind, pd.CategoricalDtype) or kind in ("object", "string"):
            # by position: names may be there twice
            column = out.iloc[:, at].astype(object).map(_harmless, na_action="ignore")
            out.isetitem(at, column.to_numpy())
    if index:
        out.index = out.index.map(_harmless)
        out.index.names = [_harmless(name) for name in table.index.names]
    return out.to_csv(index=index)


def _harmless(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_harmless, value))
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    # a carriage return alone is a line's end to some, and is not quoted
    return _FORMULA.sub(r"\1'", value.replace("\r\n", "\n").replace("\r", "\n"))
