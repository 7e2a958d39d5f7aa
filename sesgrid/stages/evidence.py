"""The two ends of the income scale, and what the cells say about them.

A side is **low** or **high**: the two outermost classes (fewer where the ends
would overlap). Its cells are those *predicted* there, read on the map of the
outermost class; its truth is about all cells whose *true* class is known.

All that is told of a side are means over cells, so cells are looked at some at a
time: a nation's class sums, which fill gigabytes, are never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import xarray as xr

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.kernels.statistics import ColumnSums, Means, activation_ratios
from sesgrid.stages.score import class_count, require_columns

__all__ = ["UNCLASSIFIED", "Side", "class_names", "n_extreme_classes", "sides"]

UNCLASSIFIED = "unclassified"
"""Name of index 0 of ``landcover_class``: pixels outside the land-cover map."""

_AT_ONCE = 32_768
"""Cells that are looked at at once."""


@dataclass(frozen=True)
class Side:
    """The evidence for one end of the income scale; class axes leave out "unclassified"."""

    prediction: str
    """``low`` or ``high``."""
    present: np.ndarray
    """bool ``(class,)``: lies in at least one cell."""
    n_dark: int
    """Cells of this side with land cover and a map of zeros (or none): they have no ratios."""
    ratio: Means
    """Of r_u, ``(class,)``, over the cells predicted on this side that hold the class."""
    truth: Means
    """Of whether the true class is on this side, ``(class,)``, over the cells that hold the landcover class
    and whose true class is known."""
    truth_extreme: Means
    """The same for the outermost class alone."""
    pairs: np.ndarray
    """int64 ``(pair, 2)``: u and v ≠ u, for each u that was asked for."""
    pair_ratio: Means
    """Of r_u, ``(pair,)``, over the cells that have r_v too."""
    pair_truth: Means
    """As ``truth``, ``(pair,)``, over the cells that hold both."""


def n_extreme_classes(n_classes: int) -> int:
    """Classes at each end: two as in the paper, fewer where the ends would overlap.

    >>> [n_extreme_classes(k) for k in (2, 3, 4, 5, 10)]
    [1, 1, 2, 2, 2]
    """
    return min(2, n_classes // 2)


def sides(
    cells: pd.DataFrame,
    activation: xr.Dataset | None,
    *,
    beside: Sequence[int] = (),
    n_bootstrap: int,
    seed: int,
) -> Iterator[Side]:
    """The low side, then the high one; nothing without land cover.

    Parameters
    ----------
    cells, activation, n_bootstrap, seed
        As for `sesgrid.stages.analyse.analyse`.
    beside : sequence of int
        Classes, from 0 without "unclassified", that are looked at beside every other.

    Raises
    ------
    MissingInputError, GridMismatchError, FormatError
        The tables lack something, or do not belong together.
    """
    require_columns(cells, ("ses_true", "ses_predicted"))
    n_classes = class_count(cells)
    if activation is None:
        return
    class_names(activation)
    at = _positions(cells.index, activation["cell"].to_index())
    true, predicted = (
        cells[c].to_numpy(np.float64, na_value=np.nan) for c in ("ses_true", "ses_predicted")
    )
    if "labelled" in cells:  # an imputed income is no truth unless the protocol takes it for one
        true = np.where(cells["labelled"].fillna(False).to_numpy(bool), true, np.nan)
    for stream, name in enumerate(("low", "high")):
        # ranks count from the side's own end: 1 is the lowest (highest) class
        true_rank, predicted_rank = (
            r if name == "low" else n_classes + 1 - r for r in (true, predicted)
        )
        yield _side(
            name,
            true_rank,
            predicted_rank,
            at,
            activation[["area"]].assign(sums=activation["activation"].sel(map=name)),
            n_extreme=n_extreme_classes(n_classes),
            beside=beside,
            n_bootstrap=n_bootstrap,
            seeds=([seed, stream, 0], [seed, stream, 1]),
        )


def _side(
    name: str,
    true: np.ndarray,
    predicted: np.ndarray,
    at: np.ndarray,
    found: xr.Dataset,
    *,
    n_extreme: int,
    beside: Sequence[int],
    n_bootstrap: int,
    seeds: Sequence[Sequence[int]],
) -> Side:
    """One side; ranks ``(cell,)`` of the table, and what was found in its cells ``at``."""
    n = found.sizes["landcover_class"] - 1
    pairs = np.array([(u, v) for u in beside for v in range(n) if v != u], np.int64).reshape(-1, 2)
    first, second = pairs.T

    def with_pairs(values: np.ndarray) -> list[np.ndarray]:
        return [values, np.where(np.isfinite(values[:, second]), values[:, first], np.nan)]

    ratios, truths = (
        ColumnSums(len(true), width + len(pairs), np.random.default_rng(of))
        for width, of in zip((n, 2 * n), seeds, strict=True)
    )
    present, dark = np.zeros(n, dtype=bool), 0
    for start in range(0, len(at), _AT_ONCE):
        some, here = slice(start, start + _AT_ONCE), at[start : start + _AT_ONCE]
        area, sums = (_classified(found[k].isel(cell=some).compute()) for k in ("area", "sums"))
        if (sums < 0).any():
            raise FormatError(
                "activation sums must not be negative (ratios of signed sums have no bounds); take "
                "the sum over bands of |activation| before summing by class"
            )
        present |= (area > 0).any(axis=0)
        chosen = predicted[here] <= n_extreme
        r = activation_ratios(sums[chosen], area[chosen])
        dark += int(((area[chosen] > 0).any(axis=1) & ~np.isfinite(r).any(axis=1)).sum())
        ratios.add(here[chosen], np.concatenate(with_pairs(r), axis=1))
        unknown = np.isnan(true[here])[:, None] | (area == 0)
        within, outermost = (
            np.where(unknown, np.nan, (true[here] <= k)[:, None]) for k in (n_extreme, 1)
        )
        truths.add(here, np.concatenate([outermost, *with_pairs(within)], axis=1))
    ratio, truth = ratios.means(n_bootstrap), truths.means(n_bootstrap)
    return Side(
        name,
        present,
        dark,
        ratio=ratio.columns(slice(0, n)),
        truth=truth.columns(slice(n, 2 * n)),
        truth_extreme=truth.columns(slice(0, n)),
        pairs=pairs,
        pair_ratio=ratio.columns(slice(n, None)),
        pair_truth=truth.columns(slice(2 * n, None)),
    )


def class_names(activation: xr.Dataset) -> list[str]:
    """Names of ``landcover_class``; the index is the value in the class raster.

    Raises
    ------
    FormatError
        Index 0 is not "unclassified".
    """
    names = [str(name) for name in activation["landcover_class"].values]
    if not names or names[0] != UNCLASSIFIED:
        raise FormatError(
            f"landcover_class must start with {UNCLASSIFIED!r} (value 0 of the class raster), "
            f"received {names[:3]}"
        )
    return names


def _positions(cells: pd.Index, explained: pd.Index) -> np.ndarray:
    """Where the explained cells stand in the table, int64 ``(explained cell,)``."""
    # in Arrow's memory: pandas would make an object of every id; of a type, for pandas 2 tells none of no ids
    table, ids = (
        pa.array(pd.Series(i).astype("str"), pa.large_string()) for i in (cells, explained)
    )
    first = _found(table, table)
    if table.null_count or (first != np.arange(len(first))).any():
        raise GridMismatchError(
            f"the table of cells names {int(cells.duplicated().sum())} cells twice, and {table.null_count} "
            "have no id: expected a row a cell; run the stage `cells` again"
        )
    at = first if ids.equals(table) else _found(ids, table)
    strangers = explained[at < 0]
    if len(strangers) or len(np.unique(at)) < len(at):
        raise GridMismatchError(
            f"the activation sums name {len(strangers)} cells that the table of cells lacks "
            f"(first: {list(strangers[:1])}), and {int(explained.duplicated().sum())} cells twice: they "
            "come from another run; run the stage `explain` again"
        )
    return at


def _found(ids: pa.Array, table: pa.Array) -> np.ndarray:
    """Where each id first stands in a table, int64 ``(id,)``; −1: nowhere."""
    found = pc.index_in(ids, table).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def _classified(found: xr.DataArray) -> np.ndarray:
    """``(cell, class)``, without the unclassified."""
    return found.transpose("cell", "landcover_class").values[:, 1:]
