"""Do the findings hold? Activation ratios of models that differ in fold, seed or backbone.

The study cautions that other networks might look elsewhere. A finding is worth as much as it is found again:
by a model that saw other cells, that began with other weights, or that is built otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["Finding", "stability_of_pairs", "stability_table"]

_FEW_CELLS = 5
"""A ratio of fewer cells says nothing of a class."""

_COLUMNS = [
    *("prediction", "landcover_class", "models", "mean", "lowest", "highest", "spread"),
    *("share_above_1", "holds"),
]
_NONE = pd.DataFrame(columns=["prediction", "landcover_class", "activation_ratio", "n_cells"])


@dataclass(frozen=True, eq=False)
class Finding:
    """What one model was found to look at, in cells that it had not seen."""

    backbone: str
    seed: int
    fold: int
    ratios: pd.DataFrame
    """``prediction`` ("low", "high"), ``landcover_class``, ``activation_ratio``, ``n_cells``."""


def stability_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """How each class' activation ratio varies over models.

    Parameters
    ----------
    findings : sequence of Finding

    Returns
    -------
    DataFrame
        A row per ``prediction`` and ``landcover_class``: ``models`` that have it in at least 5 cells;
        ``mean``, ``lowest`` and ``highest`` ratio; ``spread``, the standard deviation over models;
        ``share_above_1``; ``holds``: whether all models, two at least, put it on the same side of 1.

    Examples
    --------
    >>> ratios = pd.DataFrame({"prediction": ["low"], "landcover_class": ["roads"],
    ...                        "activation_ratio": [1.2], "n_cells": [9]})
    >>> both = [Finding("a", 0, 0, ratios), Finding("a", 0, 1, ratios.assign(activation_ratio=0.8))]
    >>> stability_table(both)[["models", "mean", "holds"]].values.tolist()
    [[2, 1.0, False]]
    """
    known = pd.concat([_enough(f) for f in findings], ignore_index=True) if findings else _NONE
    rows = []
    for (side, name), group in known.groupby(["prediction", "landcover_class"], sort=False):
        ratio = group["activation_ratio"].to_numpy(np.float64)
        above = float((ratio > 1).mean())
        rows.append(
            {
                "prediction": side,
                "landcover_class": name,
                "models": len(ratio),
                "mean": ratio.mean(),
                "lowest": ratio.min(),
                "highest": ratio.max(),
                "spread": ratio.std(ddof=1) if len(ratio) > 1 else np.nan,
                "share_above_1": above,
                "holds": len(ratio) > 1 and above in (0.0, 1.0),
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def stability_of_pairs(findings: Sequence[Finding]) -> pd.DataFrame:
    """How alike two models rank the classes, by what the two differ in.

    Returns
    -------
    DataFrame
        Rows ``fold`` (same seed and backbone), ``seed`` (same fold and backbone), ``backbone`` (same
        fold and seed); per ``prediction``: ``pairs``, and mean, lowest and highest Spearman correlation of
        the activation ratios of the classes that both have, at least four.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for a, b in combinations(findings, 2):
        differs = [n for n in ("backbone", "seed", "fold") if getattr(a, n) != getattr(b, n)]
        if len(differs) != 1:
            continue
        for side in ("low", "high"):
            r = _rank_correlation(a, b, side)
            if np.isfinite(r):
                found.setdefault((differs[0], side), []).append(r)
    rows = [
        {
            "differ_in": what,
            "prediction": side,
            "pairs": len(values),
            "rank_correlation": float(np.mean(values)),
            "lowest": min(values),
            "highest": max(values),
        }
        for (what, side), values in sorted(found.items())
    ]
    return pd.DataFrame(
        rows,
        columns=["differ_in", "prediction", "pairs", "rank_correlation", "lowest", "highest"],
    )


def _enough(finding: Finding) -> pd.DataFrame:
    ratios = finding.ratios
    return ratios[(ratios["n_cells"] >= _FEW_CELLS) & ratios["activation_ratio"].notna()]


def _rank_correlation(a: Finding, b: Finding, side: str) -> float:
    of_each = [
        f[f["prediction"] == side].set_index("landcover_class")["activation_ratio"]
        for f in (_enough(a), _enough(b))
    ]
    both = pd.concat(of_each, axis=1, join="inner").to_numpy(np.float64)
    if len(both) < 4 or (np.ptp(both, axis=0) == 0).any():
        return float("nan")
    return float(stats.spearmanr(both[:, 0], both[:, 1]).statistic)
