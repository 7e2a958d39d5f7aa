"""The cells that are scored: labelled, and predicted by a model that had not seen them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse

from sesgrid.grid import place_codes
from sesgrid.kernels.bootstrap import group_units, resampled_sums, sums_by_unit
from sesgrid.kernels.cell_statistics import CellStatistics, majority_elsewhere

__all__ = ["SCORED", "TOLD", "UNITS", "ScoredCells", "resample_folds", "scorable"]

UNITS = ("cells", "blocks")
"""What is drawn in a bootstrap: cells one by one, or whole blocks of neighbours."""

SCORED = ("labelled", "ses_true", "ses_predicted", "fold")
"""Columns without which nothing can be scored."""

TOLD = (*SCORED, "income", "imputed", "row", "col")
"""Columns that scores come from, beside probabilities."""

_AT_ONCE = 65_536
"""Cells whose statistics are made at once: a nation's take a gigabyte."""


def scorable(cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of labelled cells with a fold, a true and a predicted class; of the columns, those of scores."""
    told = [n for n in cells if n in TOLD or str(n).startswith("probability_")]
    labelled = cells["labelled"].fillna(False).to_numpy(bool)
    # as an array: looked up by a series, pandas makes an object of every id
    scored = labelled & cells[["ses_true", "ses_predicted", "fold"]].notna().all(axis=1).to_numpy()
    return cells[told] if scored.all() else cells.loc[scored, told]


@dataclass(frozen=True)
class ScoredCells:
    """What each scored cell adds to the scores of its fold, and the units that it is drawn with."""

    statistics: CellStatistics
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
        told = set(names) <= set(scored.columns)
        folds, fold = np.unique(scored["fold"].to_numpy(np.int64), return_inverse=True)
        true = scored["ses_true"].to_numpy(np.int64)
        statistics = CellStatistics.of(
            true,
            scored["ses_predicted"].to_numpy(np.int64),
            n_classes,
            baseline=majority_elsewhere(true, fold),
            probabilities=[_floats(scored[name]) for name in names] if told else None,
            income=_floats(scored["income"]) if "income" in scored else None,
        )
        units = {"cells": np.arange(len(scored))}
        if {"row", "col"} <= set(scored.columns):
            row, col = (scored[n].to_numpy(np.int64) // cells_per_block for n in ("row", "col"))
            units["blocks"] = np.unique(place_codes(row, col), return_inverse=True)[1]
        return cls(statistics, fold, folds, units)

    def __len__(self) -> int:
        return len(self.fold)

    def n_units(self, kind: str) -> int:
        """How many units of a kind hold scored cells; 0 where they are not known."""
        return int(self.units[kind].max(initial=-1)) + 1 if kind in self.units else 0

    @cached_property
    def sums(self) -> np.ndarray:
        """float64 ``(fold, statistic)``: sums over the cells of each fold."""
        together = self.sums_by(np.zeros(len(self), np.int64), 1)
        return together.toarray().reshape(len(self.folds), self.statistics.width)

    def sums_by(self, unit: np.ndarray, n_units: int) -> scipy.sparse.csr_array:
        """Sums over the cells that are drawn together, ``(unit, fold × statistic)``; unit int ``(cell,)``."""
        shape = (n_units, len(self.folds) * self.statistics.width)
        total = scipy.sparse.csr_array(shape, dtype=np.float64)
        for start in range(0, len(self), _AT_ONCE):
            at = slice(start, start + _AT_ONCE)
            rows = self.statistics.rows(at)
            total += sums_by_unit(
                rows, self.fold[at], unit[at], n_groups=len(self.folds), n_units=n_units
            )
        return total


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
    n_units = tables[0].n_units(kind)
    if n_units < 2:
        return [np.zeros((0, *t.sums.shape)) for t in tables]
    rng = np.random.default_rng([seed, UNITS.index(kind)])
    group = group_units(n_units, rng)
    drawn, n_groups = group[tables[0].units[kind]], int(group.max()) + 1
    sums = resampled_sums(
        [t.sums_by(drawn, n_groups) for t in tables], n_bootstrap=n_bootstrap, rng=rng
    )
    return [s.reshape(n_bootstrap, *t.sums.shape) for t, s in zip(tables, sums, strict=True)]


def _floats(values: pd.Series) -> np.ndarray:
    """float64, NaN where missing."""
    return values.to_numpy(np.float64, na_value=np.nan)
