"""The two ends of the income scale, and what each cell says about them.

A side is **low** or **high**: the two outermost classes (fewer where the ends
would overlap). Its cells are those *predicted* there, read on the map of the
outermost class; its truth is about all cells whose *true* class is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.kernels.statistics import activation_ratios
from sesgrid.stages.score import class_count, require_columns

__all__ = ["UNCLASSIFIED", "Side", "class_names", "n_extreme_classes", "sides"]

_NAN = np.float32(np.nan)

UNCLASSIFIED = "unclassified"
"""Name of index 0 of ``landcover_class``: pixels outside the land-cover map."""


@dataclass(frozen=True)
class Side:
    """The evidence for one end of the income scale; class axes leave out "unclassified"."""

    prediction: str
    """``low`` or ``high``."""
    ratios: np.ndarray
    """float64 ``(cell predicted on this side, class)``: r_u; NaN where absent."""
    truth: np.ndarray
    """float32 ``(cell, class)``: 1 where the true class is on this side, else 0; NaN where the
    landcover class is absent or the true class unknown."""
    truth_extreme: np.ndarray
    """The same for the outermost class alone."""
    present: np.ndarray
    """bool ``(class,)``: lies in at least one cell."""
    n_dark: int
    """Cells of this side with land cover and a map of zeros (or none): they have no ratios."""


def n_extreme_classes(n_classes: int) -> int:
    """Classes at each end: two as in the paper, fewer where the ends would overlap.

    >>> [n_extreme_classes(k) for k in (2, 3, 4, 5, 10)]
    [1, 1, 2, 2, 2]
    """
    return min(2, n_classes // 2)


def sides(cells: pd.DataFrame, activation: xr.Dataset | None) -> Iterator[Side]:
    """The low side, then the high one; nothing without land cover.

    Raises
    ------
    MissingInputError, GridMismatchError, FormatError
        The tables lack something, or do not belong together.
    """
    require_columns(cells, ("ses_true", "ses_predicted"))
    n_classes = class_count(cells)
    if activation is None:
        return
    at, maps, area = _evidence(cells, activation)
    order = np.argsort(at)  # the table's; the sums are not copied into it: a nation's are gigabytes
    at, absent = at[order], (area == 0)[order]
    present = ~absent.all(axis=0)
    true, predicted = (
        cells[c].to_numpy(np.float64, na_value=np.nan)[at] for c in ("ses_true", "ses_predicted")
    )
    if "labelled" in cells:  # an imputed income is no truth unless the protocol takes it for one
        labelled = cells["labelled"].fillna(False).to_numpy(bool)
        true = np.where(labelled[at], true, np.nan)
    unknown = np.isnan(true)[:, None] | absent
    n_extreme = n_extreme_classes(n_classes)
    for name in ("low", "high"):
        # ranks count from the side's own end: 1 is the lowest (highest) class
        true_rank, predicted_rank = (
            r if name == "low" else n_classes + 1 - r for r in (true, predicted)
        )
        chosen = order[predicted_rank <= n_extreme]
        ratios = activation_ratios(maps[name][chosen], area[chosen])
        dark = (area[chosen] > 0).any(axis=1) & ~np.isfinite(ratios).any(axis=1)
        within, outermost = (
            np.where(unknown, _NAN, (true_rank <= n).astype(np.float32)[:, None])
            for n in (n_extreme, 1)
        )
        yield Side(name, ratios, within, outermost, present, int(dark.sum()))


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


def _evidence(
    cells: pd.DataFrame, activation: xr.Dataset
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Where the explained cells stand in the table; sums by map, and areas, ``(explained cell, class)``.

    In the order of the sums. Cells that were not explained have no evidence; "unclassified" is left out.
    """
    class_names(activation)
    ids = pd.Index(activation["cell"].values)
    at = cells.index.get_indexer(ids)
    strangers = ids[at < 0]
    if len(strangers) or not ids.is_unique:
        raise GridMismatchError(
            f"the activation sums name {len(strangers)} cells that the table of cells lacks "
            f"(first: {list(strangers[:1])}), and {int(ids.duplicated().sum())} cells twice: they "
            "come from another run; run the stage `explain` again"
        )

    def classified(array: xr.DataArray) -> np.ndarray:
        return array.transpose("cell", "landcover_class").values[:, 1:]

    maps = {name: classified(activation["activation"].sel(map=name)) for name in ("low", "high")}
    if any((sums < 0).any() for sums in maps.values()):
        raise FormatError(
            "activation sums must not be negative (ratios of signed sums have no bounds); take "
            "the sum over bands of |activation| before summing by class"
        )
    return at, maps, classified(activation["area"])
