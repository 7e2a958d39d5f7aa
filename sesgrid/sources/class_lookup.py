"""The class of each polygon's codes: the most specific row of a table of classes that they match."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.sources.class_table import normal_codes

__all__ = ["ClassLookup", "Found"]

_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """What a table says of some polygons' codes."""

    value: np.ndarray
    """uint8 ``(polygon,)``: the class's pixel value, 0 = no class."""
    name: np.ndarray
    """object ``(polygon,)``: the class, or NA."""
    known: np.ndarray
    """bool ``(polygon,)``: whether a row matches; one may say "no class"."""
    doubtful: np.ndarray
    """bool ``(polygon,)``: whether rows of other classes match as well, with as many codes."""


class ClassLookup:
    """Finds the rows of a table of classes that codes match.

    A row matches where each of its codes equals the polygon's; an empty one matches any, a missing one too.
    Of several the row with the most codes counts; among rows with as many, the one whose codes stand
    further to the left in the table.

    Parameters
    ----------
    table : DataFrame
        From `sesgrid.read_class_table`.

    Examples
    --------
    >>> from sesgrid.sources.class_table import read_class_table
    >>> codes = pd.DataFrame({"code_cs": ["CS1.1.1.1", "CS1.1.1.1"], "code_us": ["US5", "US3"]})
    >>> ClassLookup(read_class_table("ocsge")).of(codes).name.tolist()
    ['homes', 'other buildings']
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.columns = [str(name) for name in table.index.names]
        rows = table.index.to_frame(index=False).apply(normal_codes).fillna("")
        self._rows = {key: row for row, key in enumerate(rows.itertuples(index=False, name=None))}
        self._values = table["value"].to_numpy(np.uint8)
        self._names = table["landcover_class"].astype(object).to_numpy()
        self._source = str(table.attrs.get("source", "the table"))

    def of(self, codes: pd.DataFrame) -> Found:
        """The classes of polygons.

        Parameters
        ----------
        codes : DataFrame
            A row per polygon, with some or all of the table's columns of codes; one that is not there
            counts as missing everywhere.
        """
        keys = pd.DataFrame(
            {c: normal_codes(codes[c]) if c in codes else "" for c in self.columns},
            index=codes.index,
        ).fillna("")
        at, uniques = pd.MultiIndex.from_frame(keys).factorize()
        found = [self._row(key) for key in uniques]
        row = np.array([r for r, _ in found], dtype=np.int64)[at]
        doubtful = np.array([d for _, d in found], dtype=bool)[at]
        known = row >= 0
        value = np.where(known, self._values[row], 0).astype(np.uint8)
        name = self._names[row]
        name[~known] = pd.NA
        return Found(value, name, known, doubtful)

    def _row(self, key: tuple[str, ...]) -> tuple[int, bool]:
        """The row that counts (-1: none), and whether another class has as good a claim."""
        tried = itertools.product(*((code, "") if code else ("",) for code in key))
        by_gaps = itertools.groupby(sorted(tried, key=_gaps), key=_gaps)
        for _, equally in by_gaps:
            rows = [self._rows[k] for k in equally if k in self._rows]
            if rows:
                return rows[0], len(set(self._values[rows].tolist())) > 1
        return -1, False

    def tell(self, codes: pd.DataFrame, found: Found, label: str, *, stacklevel: int = 3) -> None:
        """Count what the table does not know, and what it is not clear about.

        Raises
        ------
        FormatError
            It knows none of the codes.

        Warns
        -----
        SesgridWarning
            Once for each kind.
        """
        n = len(codes)
        if n and not found.known.any():
            raise FormatError(
                f"{label}: {self._source} knows the codes of none of its {n} polygons, in "
                f"{', '.join(codes.columns)}: {self._listed(codes)}; is it the table of this land cover?"
            )
        for which, what in (
            (~found.known, f"have codes that {self._source} does not know, and belong to no class"),
            (
                found.doubtful,
                f"match rows of several classes in {self._source}, of which the codes further to the left "
                "count (add a row for both)",
            ),
        ):
            if which.any():
                text = f"{label}: {int(which.sum())} of {n} polygons {what}: {self._listed(codes[which])}"
                warnings.warn(text, SesgridWarning, stacklevel=stacklevel)

    def _listed(self, codes: pd.DataFrame) -> str:
        """The most frequent codes, with their counts."""
        seen = codes.astype("string").fillna("missing").value_counts().reset_index()
        shown = seen[list(codes)].agg(" / ".join, axis=1)
        counts = pd.Series(seen["count"].to_numpy(), index=shown).sort_index()
        counts = counts.sort_values(ascending=False, kind="stable")
        listed = [f"{code} ({number})" for code, number in counts.head(_SHOWN).items()]
        more = len(counts) - len(listed)
        return ", ".join(listed) + (f" and {more} more" if more else "")


def _gaps(key: tuple[str, ...]) -> int:
    return key.count("")
