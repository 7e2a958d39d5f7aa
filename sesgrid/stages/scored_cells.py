"""The cells that are scored: labelled, and predicted by a model that had not seen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse

from sesgrid.kernels.bootstrap import resampled_sums, sums_by_unit
from sesgrid.kernels.cell_statistics import cell_statistics, majority_elsewhere

__all__ = ["SCORED", "UNITS", "ScoredCells", "resample_folds", "scorable"]

UNITS = ("cells", "blocks")
"""What is drawn in a bootstrap: cells one by one, or whole blocks of neighbours."""

SCORED = ("labelled", "ses_true", "ses_predicted", "fold")
"""Columns without which nothing can be scored."""


def scorable(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of labelled cells with a fold, a true and a predicted class."""
    labelled = cells["labelled"].fillna(False).astype(bool)
    complete = cells[["ses_true", "ses_predicted", "fold"]].notna().all(axis=1)
    return cells.loc[labelled & complete]


@dataclass(frozen=True)
class ScoredCells:
    """What each scored cell adds to the scores of its fold, and the units that it is drawn with."""

    statistics: scipy.sparse.csr_array
    """float64 ``(cell, statistic)``; see `sesgrid.kernels.cell_statistics`."""
    fold: np.ndarray
    """int64 ``(cell,)``: the position of the cell's fold in ``folds``."""
    folds: np.ndarray
    """int64 ``(fold,)``: numbers of the folds that hold cells, ascending."""
    units: dict[str, np.ndarray]
    """For each of `UNITS`, int64 ``(cell,)``: the unit of the cell, from 0; no blocks where the table
    does not say where its cells lie."""

    @classmethod
    def of(cls, scored: pd.DataFrame, n_classes: int, cells_per_block: int) -> ScoredCells:
        """Statistics and units of the rows that `scorable` chose."""
        names = [f"probability_{k + 1}" for k in range(n_classes)]
        has_probabilities = set(names) <= set(scored.columns)
        folds, fold = np.unique(scored["fold"].to_numpy(np.int64), return_inverse=True)
        true = scored["ses_true"].to_numpy(np.int64)
        statistics = cell_statistics(
            true,
            scored["ses_predicted"].to_numpy(np.int64),
            n_classes,
            baseline=majority_elsewhere(true, fold),
            probabilities=_floats(scored[names]) if has_probabilities else None,
            income=_floats(scored["income"]) if "income" in scored else None,
        )
        units = {"cells": np.arange(len(scored))}
        if {"row", "col"} <= set(scored.columns):
            place = scored[["row", "col"]].to_numpy(np.int64) // cells_per_block
            units["blocks"] = np.unique(place, axis=0, return_inverse=True)[1].ravel()
        return cls(statistics, fold, folds, units)

    def n_units(self, kind: str) -> int:
        """How many units of a kind hold scored cells; 0 where they are not known."""
        return len(np.unique(self.units.get(kind, [])))

    def sums(self) -> np.ndarray:
        """float64 ``(fold, statistic)``: sums over the cells of each fold."""
        n, n_folds = len(self.fold), len(self.folds)
        of = scipy.sparse.csr_array((np.ones(n), (self.fold, np.arange(n))), shape=(n_folds, n))
        return np.asarray((of @ self.statistics).toarray())


def resample_folds(
    tables: list[ScoredCells], kind: str, *, n_bootstrap: int, seed: int
) -> list[np.ndarray]:
    """Sums of every fold in resamples of the units, the same resamples for all tables.

    Parameters
    ----------
    tables : list of ScoredCells
        Of the same cells in the same order.
    kind : {"cells", "blocks"}
        What is drawn.
    n_bootstrap : int
        Number of resamples.
    seed : int
        Of the draws.

    Returns
    -------
    list of np.ndarray
        For each table, float64 ``(resample, fold, statistic)``; no resamples of fewer than two units,
        which would not tell how far chance reaches.
    """
    if tables[0].n_units(kind) < 2:
        return [np.zeros((0, *t.sums().shape)) for t in tables]
    sums = resampled_sums(
        [sums_by_unit(t.statistics, t.fold, t.units[kind]) for t in tables],
        n_bootstrap=n_bootstrap,
        rng=np.random.default_rng([seed, UNITS.index(kind)]),
    )
    return [
        s.reshape(n_bootstrap, len(t.folds), t.statistics.shape[1])
        for t, s in zip(tables, sums, strict=True)
    ]


def _floats(values: pd.DataFrame | pd.Series) -> np.ndarray:
    """float64, NaN where missing."""
    return values.astype("Float64").to_numpy(np.float64, na_value=np.nan)
