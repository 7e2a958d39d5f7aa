"""From activation sums to findings: which land-cover classes the model looked at.

Two hypotheses of the paper, each a table:

- H0, every class contributes its share of the area: `activation_table`, the
  activation ratio of each class and, beside it, how often a cell that holds the
  class truly is of low (high) status;
- H1, the activation of a class does not depend on its neighbours: `pair_table`.

Cells predicted **low** (the two lowest classes) are read on the map of the
lowest class, cells predicted **high** on the map of the highest. A class that is
absent from a cell is missing there, never zero; pixels without a class count nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.kernels.bootstrap import percentile_interval
from sesgrid.stages.evidence import Side, class_names, n_extreme_classes, sides
from sesgrid.stages.leakage import compare_folds, kind_of_folds
from sesgrid.stages.score import class_count, colour_baseline, metrics

__all__ = [
    "Findings",
    "activation_table",
    "analyse",
    "colour_baseline",
    "compare_folds",
    "metrics",
    "pair_table",
]

RESIDENTIAL = "residential"
"""The group whose classes are looked at beside their neighbours."""

_ACTIVATION_COLUMNS = {
    "prediction": "object",
    "landcover_class": "object",
    "group": "object",
    "n_cells": "int64",
    "activation_ratio": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n_cells_probability": "int64",
    "probability": "float64",
    "probability_ci_low": "float64",
    "probability_ci_high": "float64",
    "probability_extreme": "float64",
    "probability_extreme_ci_low": "float64",
    "probability_extreme_ci_high": "float64",
}
_PAIR_COLUMNS = {
    "prediction": "object",
    "landcover_class": "object",
    "neighbour": "object",
    "n_cells": "int64",
    "coactivation": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n_cells_gain": "int64",
    "gain": "float64",
    "gain_ci_low": "float64",
    "gain_ci_high": "float64",
}


@dataclass(frozen=True)
class Findings:
    """What the analysis of a city found."""

    metrics: dict[str, Any]
    """Scores on unseen cells, ready for JSON: those of `metrics`, ``folds_kind``, ``by_folds`` (of
    `compare_folds`, or None) and the colour baseline."""
    activation: pd.DataFrame
    """Activation ratios and probabilities; see `activation_table`. Empty without land cover."""
    pairs: pd.DataFrame
    """Coactivations and co-appearance gains; see `pair_table`."""
    landcover_classes: tuple[str, ...] = ()
    """Names of the classes; the index is the value in the class raster (0 = unclassified)."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Class → group, for figures."""


def analyse(
    cells: pd.DataFrame,
    activation: xr.Dataset | None,
    *,
    groups: Mapping[str, str],
    n_bootstrap: int = 2000,
    seed: int = 0,
    pair_minimum: int = 10,
    mean_colour: pd.DataFrame | None = None,
    other_folds: pd.DataFrame | None = None,
    cells_per_block: int = 8,
) -> Findings:
    """Score the predictions and tell what they drew on.

    Parameters
    ----------
    cells : GeoDataFrame
        One row a cell, as made by the stages `cells` and `predict`; ``attrs["folds_kind"]`` is "random" (also
        where it is missing) or "spatial".
    activation : xr.Dataset or None
        Class sums of the stage `explain`: ``activation`` float64 ``(cell, map, landcover_class)``
        and ``area`` int64 ``(cell, landcover_class)``, pixels. None = no land cover.
    groups : mapping of str to str
        Land-cover class → group.
    n_bootstrap : int
        Resamples for the 95 % intervals.
    seed : int
        Of the bootstrap.
    pair_minimum : int
        Pairs of classes in fewer cells than this stay empty.
    mean_colour : DataFrame, optional
        float, index ``cell_id``, a column per band: adds ``pearson_r_colour_baseline`` (and
        ``…_rounded``) to the metrics; None there without it.
    other_folds : GeoDataFrame, optional
        The same cells as predicted by the models of the other kind of fold, which its
        ``attrs["folds_kind"]`` names.
    cells_per_block : int
        Side of the blocks that intervals of the scores are drawn over, in cells.

    Raises
    ------
    MissingInputError, GridMismatchError, FormatError
        The tables lack something, or do not belong together.
    """
    drawn: dict[str, Any] = {"n_bootstrap": n_bootstrap, "seed": seed}
    drawing = drawn | {"cells_per_block": cells_per_block}
    by_folds = None
    if other_folds is not None:
        tables = {kind_of_folds(table.attrs): table for table in (cells, other_folds)}
        by_folds = compare_folds(tables, **drawing)
    scores = {
        **metrics(cells, **drawing),
        **_colour_scores(cells, mean_colour),
        "folds_kind": kind_of_folds(cells.attrs),
        "by_folds": by_folds,
    }
    names = () if activation is None else tuple(class_names(activation))
    found = list(sides(cells, activation, beside=_residential(names[1:], groups), **drawn))
    return Findings(
        metrics=scores,
        activation=_activation_table(found, names[1:], groups, class_count(cells)),
        pairs=_pair_table(found, names[1:], pair_minimum),
        landcover_classes=names,
        groups=dict(groups),
    )


def _colour_scores(
    cells: pd.DataFrame, mean_colour: pd.DataFrame | None
) -> dict[str, float | None]:
    """The colour baseline on the labelled cells, as it is and rounded to classes."""
    keys = {"pearson_r_colour_baseline": False, "pearson_r_colour_baseline_rounded": True}
    if mean_colour is None or mean_colour.shape[1] == 0:
        return dict.fromkeys(keys)
    labelled = cells["labelled"].fillna(False).to_numpy(bool)
    colour = mean_colour.reindex(cells.index).to_numpy(np.float64)[labelled]
    true, fold = (cells[name].to_numpy()[labelled] for name in ("ses_true", "fold"))
    n_classes = class_count(cells)
    return {
        key: colour_baseline(colour, true, fold, n_classes=n_classes, rounded=rounded)
        for key, rounded in keys.items()
    }


def activation_table(
    cells: pd.DataFrame,
    activation: xr.Dataset | None,
    *,
    groups: Mapping[str, str] | None = None,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Activation ratio of each class in low and high predictions, and the class's true odds.

    Parameters
    ----------
    cells, activation, groups, n_bootstrap, seed
        As for `analyse`.

    Returns
    -------
    DataFrame
        A row per ``prediction`` (low, high) and ``landcover_class`` that lies in at least one cell:
        ``activation_ratio`` x_u, the mean of r_u over the ``n_cells`` cells of that prediction
        which hold the class, H0 = 1, with ``ci_low``, ``ci_high``; ``probability`` p̂_u, the share
        of cells holding the class whose *true* class is low (high), over all
        ``n_cells_probability`` cells with a true class; ``probability_extreme`` the same for the
        outermost class alone. 95 % percentile bootstrap over cells; NaN below 2 cells.
        ``attrs``: ``chance`` and ``chance_extreme`` of the two probabilities, ``n_extreme``
        classes counted as low (high), ``cells_without_activation`` (predicted, with land cover, but
        a map of zeros).

    Raises
    ------
    MissingInputError, GridMismatchError, FormatError
        As for `analyse`.
    """
    found = list(sides(cells, activation, n_bootstrap=n_bootstrap, seed=seed))
    names = () if activation is None else class_names(activation)[1:]
    return _activation_table(found, names, groups or {}, class_count(cells))


def pair_table(
    cells: pd.DataFrame,
    activation: xr.Dataset | None,
    *,
    groups: Mapping[str, str],
    n_bootstrap: int = 2000,
    seed: int = 0,
    pair_minimum: int = 10,
) -> pd.DataFrame:
    """Coactivation and co-appearance gain of residential classes beside other classes.

    Parameters
    ----------
    cells, activation, groups, n_bootstrap, seed, pair_minimum
        As for `analyse`.

    Returns
    -------
    DataFrame
        A row per ``prediction``, residential ``landcover_class`` u and ``neighbour`` v ≠ u that lie
        in at least one cell together: ``coactivation`` c_uv = mean r_u over the ``n_cells`` cells
        holding both ÷ mean r_u over all cells holding u (H1 = 1); ``gain`` g_uv = p̂_uv / p̂_u, over
        ``n_cells_gain`` cells. Not symmetric. NaN where fewer than ``pair_minimum`` cells hold
        both.

    Raises
    ------
    MissingInputError, GridMismatchError, FormatError
        As for `analyse`.
    """
    names = () if activation is None else class_names(activation)[1:]
    beside = _residential(names, groups)
    found = sides(cells, activation, beside=beside, n_bootstrap=n_bootstrap, seed=seed)
    return _pair_table(list(found), names, pair_minimum)


def _residential(names: Sequence[str], groups: Mapping[str, str]) -> list[int]:
    return [u for u, name in enumerate(names) if groups.get(name) == RESIDENTIAL]


def _activation_table(
    found: Sequence[Side], names: Sequence[str], groups: Mapping[str, str], n_classes: int
) -> pd.DataFrame:
    """The table of `activation_table`, from the evidence."""
    parts = []
    for side in found:
        present = np.flatnonzero(side.present)
        shown = [names[u] for u in present.tolist()]
        rows: dict[str, Any] = {
            "prediction": side.prediction,
            "landcover_class": shown,
            "group": [groups.get(name, "") for name in shown],
        }
        for name, n_cells, prefix, means in (
            ("activation_ratio", "n_cells", "", side.ratio),
            ("probability", "n_cells_probability", "probability_", side.truth),
            (
                "probability_extreme",
                "n_cells_probability",
                "probability_extreme_",
                side.truth_extreme,
            ),
        ):
            means = means.columns(present)
            low, high = means.interval()
            rows |= {
                n_cells: means.count,
                name: means.mean,
                f"{prefix}ci_low": low,
                f"{prefix}ci_high": high,
            }
        parts.append(pd.DataFrame(rows))
    table = _table(parts, _ACTIVATION_COLUMNS)
    n_extreme = n_extreme_classes(n_classes)
    table.attrs.update(
        chance=n_extreme / n_classes,
        chance_extreme=1 / n_classes,
        n_extreme=n_extreme,
        cells_without_activation={"low": 0, "high": 0} | {s.prediction: s.n_dark for s in found},
    )
    return table


def _pair_table(found: Sequence[Side], names: Sequence[str], pair_minimum: int) -> pd.DataFrame:
    """The table of `pair_table`, from the evidence."""
    parts = []
    for side in found:
        u, v = side.pairs.T.tolist()
        rows: dict[str, Any] = {
            "prediction": side.prediction,
            "landcover_class": [names[k] for k in u],
            "neighbour": [names[k] for k in v],
        }
        for name, n_cells, prefix, both, alone in (
            ("coactivation", "n_cells", "", side.pair_ratio, side.ratio.columns(u)),
            ("gain", "n_cells_gain", "gain_", side.pair_truth, side.truth.columns(u)),
        ):
            low, high = percentile_interval(_over(both.resamples, alone.resamples))
            values = {
                name: _over(both.mean, alone.mean),
                f"{prefix}ci_low": low,
                f"{prefix}ci_high": high,
            }
            few = both.count < max(pair_minimum, 1)
            rows[n_cells] = both.count
            rows |= {k: np.where(few, np.nan, value) for k, value in values.items()}
        part = pd.DataFrame(rows)
        parts.append(part[(part["n_cells"] > 0) | (part["n_cells_gain"] > 0)])
    return _table(parts, _PAIR_COLUMNS)


def _over(both: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """The mean beside a neighbour ÷ the mean anywhere; NaN where that is not above 0."""
    return both / np.where(alone > 0, alone, np.nan)


def _table(parts: list[pd.DataFrame], columns: dict[str, str]) -> pd.DataFrame:
    """The parts under each other with exactly these columns, also when there are none."""
    if not any(len(part) for part in parts):
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return table[list(columns)].astype(columns)
