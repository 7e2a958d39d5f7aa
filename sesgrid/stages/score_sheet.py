"""The scores of one table of cells as plain values, ready for JSON: None where something is undefined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sesgrid.kernels.bootstrap import percentile_interval
from sesgrid.kernels.cell_statistics import N_BINS
from sesgrid.kernels.scores import (
    CHANCE_CORRECTED,
    bin_means,
    confusion_matrix,
    fold_scores,
    mean_scores,
    row_shares,
)
from sesgrid.stages.scored_cells import UNITS, ScoredCells, resample_folds

__all__ = ["interval", "plain", "score_sheets"]


def score_sheets(
    tables: Sequence[pd.DataFrame],
    n_classes: int,
    cells_per_block: int,
    *,
    n_bootstrap: int,
    seed: int,
) -> tuple[list[dict[str, Any]], dict[str, list[np.ndarray]]]:
    """Score tables of the same cells, all with the same resamples.

    Parameters
    ----------
    tables : sequence of DataFrame
        Rows that `scorable` chose, in the same order in all tables.
    n_classes, cells_per_block, n_bootstrap, seed
        As for `sesgrid.stages.score.metrics`.

    Returns
    -------
    sheets : list of dict
        As of `sesgrid.stages.score.metrics`.
    draws : dict
        For each of `UNITS`, as of `resample_folds`: the sums that the intervals come from.
    """
    scored = [ScoredCells.of(rows, n_classes, cells_per_block) for rows in tables]
    draws = {
        unit: resample_folds(scored, unit, n_bootstrap=n_bootstrap, seed=seed) for unit in UNITS
    }
    sheets = []
    for i, (rows, one) in enumerate(zip(tables, scored, strict=True)):
        sheet = _sheet(one, {unit: d[i] for unit, d in draws.items()})
        observed = _observed_only(rows, n_classes, cells_per_block)
        sheets.append(
            {"n_classes": n_classes, **sheet, "observed_only": observed, "notes": _notes(sheet)}
        )
    return sheets, draws


def plain(values: Any) -> Any:
    """Numbers as (nested lists of) floats; None for NaN.

    >>> plain(np.array([1.5, np.nan])), plain(np.float64("nan"))
    ([1.5, None], None)
    """
    array = np.array(values, dtype=np.float64)
    values = array.astype(object)
    values[~np.isfinite(array)] = None
    return values.tolist()


def interval(value: float | None, draws: np.ndarray, n: float = 2) -> list[float] | None:
    """[low, high], 95 %, of a score's resamples.

    None where the score itself is None, without resamples, and on fewer than two cells: all resamples
    are the same there.

    >>> interval(0.5, np.array([0.4, 0.5, 0.6])), interval(None, np.array([0.4, 0.5, 0.6]))
    ([0.405, 0.595], None)
    """
    if value is None or n < 2 or not np.isfinite(draws).any():
        return None
    return plain(percentile_interval(draws))


def _sheet(scored: ScoredCells, draws: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Scores and intervals of one table; draws ``(resample, fold, statistic)``."""
    sums = scored.sums
    means = _means(scored)
    drawn = {unit: mean_scores(sums) for unit, sums in draws.items()}
    return {
        **means,
        "n": len(scored),
        "n_blocks": scored.n_units("blocks") or None,
        "intervals": {
            name: {unit: interval(mean, d[name]) for unit, d in drawn.items()}
            for name, mean in means.items()
        },
        "confusion": _counts(sums.sum(axis=0)),
        "confusion_share_intervals": _share_intervals(draws),
        "reliability": _reliability(sums, draws),
        "folds": _folds(scored, draws["cells"]),
    }


def _means(scored: ScoredCells) -> dict[str, float | None]:
    """Each score's mean over the folds."""
    return {name: plain(mean) for name, mean in mean_scores(scored.sums).items()}


def _counts(sums: np.ndarray) -> list[list[int]]:
    return confusion_matrix(sums).astype(np.int64).tolist()


def _folds(scored: ScoredCells, draws: np.ndarray) -> list[dict[str, Any]]:
    """The scores of each fold; their intervals are over cells."""
    sums = scored.sums
    scores, drawn = fold_scores(sums), fold_scores(draws)
    out = []
    for f, number in enumerate(scored.folds):
        n = int((scored.fold == f).sum())
        values = {name: plain(score[f]) for name, score in scores.items()}
        bounds = {
            name: {"cells": interval(value, drawn[name][:, f], n)} for name, value in values.items()
        }
        out.append(
            {
                "fold": int(number),
                "n": n,
                **values,
                "intervals": bounds,
                "confusion": _counts(sums[f]),
            }
        )
    return out


def _share_intervals(draws: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Bounds of the share of each true class that was predicted as each class, all folds together."""
    out: dict[str, Any] = {}
    for unit, sums in draws.items():
        low, high = percentile_interval(row_shares(sums.sum(axis=1)))
        out[unit] = {"low": plain(low), "high": plain(high)} if len(sums) else None
    return out


def _reliability(sums: np.ndarray, draws: Mapping[str, np.ndarray]) -> list[dict[str, Any]] | None:
    """A row per bin of confidence, all folds together; None without probabilities."""
    n, confidence, accuracy = bin_means(sums.sum(axis=0))
    if not n.any():
        return None
    drawn = {u: bin_means(d.sum(axis=1))[2] for u, d in draws.items()}
    return [
        {
            "from": b / N_BINS,
            "to": (b + 1) / N_BINS,
            "n": int(n[b]),
            "confidence": plain(confidence[b]),
            "accuracy": plain(accuracy[b]),
            "intervals": {
                unit: interval(plain(accuracy[b]), d[:, b], n[b]) for unit, d in drawn.items()
            },
        }
        for b in range(N_BINS)
    ]


def _observed_only(
    rows: pd.DataFrame, n_classes: int, cells_per_block: int
) -> dict[str, Any] | None:
    """The means on cells whose income was observed; None where no other cell is scored."""
    if "imputed" not in rows or not rows["imputed"].fillna(False).any():
        return None
    observed = rows.loc[~rows["imputed"].fillna(True).to_numpy(bool)]
    return {**_means(ScoredCells.of(observed, n_classes, cells_per_block)), "n": len(observed)}


def _notes(sheet: Mapping[str, Any]) -> list[str]:
    """What a reader of the means has to know."""
    if not sheet["folds"]:
        return ["no labelled cell was predicted by a model that had not seen it: nothing to score"]
    undefined = [
        str(f["fold"]) for f in sheet["folds"] if any(f[name] is None for name in CHANCE_CORRECTED)
    ]
    if not undefined:
        return []
    return [
        f"Pearson and Spearman correlation are undefined in fold {', '.join(undefined)} (constant "
        "predictions or true classes) and count as 0 in the mean over folds; so does kappa where both are "
        "constant"
    ]
