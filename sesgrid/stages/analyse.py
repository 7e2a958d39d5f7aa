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

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.kernels.statistics import bootstrap_interval, column_means
from sesgrid.stages.evidence import class_names, n_extreme_classes, sides
from sesgrid.stages.leakage import compare_folds, folds_kind
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
        tables = {folds_kind(table): table for table in (cells, other_folds)}
        by_folds = compare_folds(tables, **drawing)
    scores = {
        **metrics(cells, **drawing),
        **_colour_scores(cells, mean_colour),
        "folds_kind": folds_kind(cells),
        "by_folds": by_folds,
    }
    return Findings(
        metrics=scores,
        activation=activation_table(cells, activation, groups=groups, **drawn),
        pairs=pair_table(cells, activation, groups=groups, pair_minimum=pair_minimum, **drawn),
        landcover_classes=() if activation is None else tuple(class_names(activation)),
        groups=dict(groups),
    )


def _colour_scores(
    cells: pd.DataFrame, mean_colour: pd.DataFrame | None
) -> dict[str, float | None]:
    """The colour baseline on the labelled cells, as it is and rounded to classes."""
    keys = {"pearson_r_colour_baseline": False, "pearson_r_colour_baseline_rounded": True}
    if mean_colour is None or mean_colour.shape[1] == 0:
        return dict.fromkeys(keys)
    labelled = cells[cells["labelled"].fillna(False).astype(bool)]
    colour = mean_colour.reindex(labelled.index).to_numpy(np.float64)
    true, fold = labelled["ses_true"].to_numpy(), labelled["fold"].to_numpy()
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
    names = [] if activation is None else class_names(activation)[1:]
    parts, dark = [], {"low": 0, "high": 0}
    for stream, side in enumerate(sides(cells, activation)):
        present = np.flatnonzero(side.present)
        rows: dict[str, Any] = {
            "prediction": side.prediction,
            "landcover_class": [names[u] for u in present],
            "group": [(groups or {}).get(names[u], "") for u in present],
        }
        rng = np.random.default_rng([seed, stream])
        ratio = _mean_interval(side.ratios[:, present], n_bootstrap, rng)
        # one resampling for both probabilities: drawing cells is what takes the time
        truths = np.concatenate([side.truth[:, present], side.truth_extreme[:, present]], axis=1)
        within, outermost = np.split(np.array(_mean_interval(truths, n_bootstrap, rng)), 2, axis=1)
        for name, n_cells, prefix, (count, mean, low, high) in (
            ("activation_ratio", "n_cells", "", ratio),
            ("probability", "n_cells_probability", "probability_", within),
            ("probability_extreme", "n_cells_probability", "probability_extreme_", outermost),
        ):
            rows |= {n_cells: count, name: mean, f"{prefix}ci_low": low, f"{prefix}ci_high": high}
        parts.append(pd.DataFrame(rows))
        dark[side.prediction] = side.n_dark
    table = _table(parts, _ACTIVATION_COLUMNS)
    n_classes = class_count(cells)
    n_extreme = n_extreme_classes(n_classes)
    table.attrs.update(
        chance=n_extreme / n_classes,
        chance_extreme=1 / n_classes,
        n_extreme=n_extreme,
        cells_without_activation=dark,
    )
    return table


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
    names = [] if activation is None else class_names(activation)[1:]
    residential = [u for u, name in enumerate(names) if groups.get(name) == RESIDENTIAL]
    parts = []
    for stream, side in enumerate(sides(cells, activation)):
        present = np.flatnonzero(side.present).tolist()
        for u in (u for u in residential if u in present):
            others = [v for v in present if v != u]
            rows: dict[str, Any] = {
                "prediction": side.prediction,
                "landcover_class": names[u],
                "neighbour": [names[v] for v in others],
            }
            for name, n_cells, prefix, values in (
                ("coactivation", "n_cells", "", side.ratios),
                ("gain", "n_cells_gain", "gain_", side.truth),
            ):
                rng = np.random.default_rng([seed, stream, len(rows), u])
                count, ratio, low, high = _gain_interval(
                    values, u, others, pair_minimum, n_bootstrap, rng
                )
                rows |= {
                    n_cells: count,
                    name: ratio,
                    f"{prefix}ci_low": low,
                    f"{prefix}ci_high": high,
                }
            part = pd.DataFrame(rows)
            parts.append(part[(part["n_cells"] > 0) | (part["n_cells_gain"] > 0)])
    return _table(parts, _PAIR_COLUMNS)


def _mean_interval(
    values: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(count, mean, low, high) of each column of ``(cell, column)`` with NaN for missing."""
    count = np.isfinite(values).sum(axis=0)
    mean = column_means(_sums(values), count)
    low, high = bootstrap_interval(values, n_bootstrap=n_bootstrap, rng=rng)
    few = count < 2
    return count, mean, np.where(few, np.nan, low), np.where(few, np.nan, high)


def _sums(values: np.ndarray) -> np.ndarray:
    """Of the columns, without what is missing: float64 ``(column,)``."""
    return np.asarray(np.nansum(values, axis=0, dtype=np.float64))


def _gain_interval(
    values: np.ndarray,
    u: int,
    others: list[int],
    pair_minimum: int,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(count, ratio, low, high): mean of column u where v is present too ÷ mean of column u."""
    alone = values[:, [u]]
    both = np.where(np.isfinite(values[:, others]), alone, np.nan)
    count = np.isfinite(both).sum(axis=0)
    columns = np.concatenate([alone, both], axis=1)

    def ratio_of(means: np.ndarray) -> np.ndarray:
        base = np.where(means[:, :1] > 0, means[:, :1], np.nan)
        return means[:, 1:] / base

    full = np.isfinite(columns)
    ratio = ratio_of(column_means(_sums(columns), full.sum(axis=0))[None])[0]
    low, high = bootstrap_interval(columns, n_bootstrap=n_bootstrap, rng=rng, statistic=ratio_of)
    few = count < max(pair_minimum, 1)
    ratio, low, high = (np.where(few, np.nan, a) for a in (ratio, low, high))
    return count, ratio, low, high


def _table(parts: list[pd.DataFrame], columns: dict[str, str]) -> pd.DataFrame:
    """The parts under each other with exactly these columns, also when there are none."""
    if not any(len(part) for part in parts):
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return table[list(columns)].astype(columns)
