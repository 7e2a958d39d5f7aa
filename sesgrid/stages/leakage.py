"""Random folds beside spatial ones: what neighbours give away.

With random folds the neighbours of a tested cell were learnt from. Incomes are smooth in space, so part
of the answer leaks; folds cut as blocks in space keep it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sesgrid.errors import FormatError
from sesgrid.kernels.scores import SCORES, mean_scores
from sesgrid.stages.folds import FOLD_KINDS
from sesgrid.stages.score import class_count, require_columns
from sesgrid.stages.score_sheet import interval, score_sheets
from sesgrid.stages.scored_cells import SCORED, scorable

__all__ = ["compare_folds", "kind_of_folds"]


def kind_of_folds(attributes: Mapping[Any, Any]) -> str:
    """How cells were dealt to folds: ``folds_kind`` of their table's attributes; without it "random".

    Raises
    ------
    FormatError
        No such kind.
    """
    kind = str(attributes.get("folds_kind", "random"))
    if kind not in FOLD_KINDS:
        raise FormatError(
            f"expected the table's attribute 'folds_kind' to be {' or '.join(FOLD_KINDS)}, received {kind!r}"
        )
    return kind


def compare_folds(
    tables: Mapping[str, pd.DataFrame],
    *,
    n_bootstrap: int = 2000,
    seed: int = 0,
    cells_per_block: int = 8,
) -> dict[str, Any]:
    """Random and spatial folds side by side: how much of a score leaks in from neighbours.

    Only cells that both tables score are compared.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        ``random`` and ``spatial``: the same cells, predicted by the models of that kind of fold; each as
        `metrics` takes it, indexed by ``cell_id``.
    n_bootstrap, seed, cells_per_block
        As for `metrics`.

    Returns
    -------
    dict
        ``random`` and ``spatial``: as of `metrics`; ``leakage_gap``: {score: {"value", "cells": [low, high],
        "blocks": [low, high]}}, the mean over random folds less the mean over spatial ones. A leak makes it
        positive, but negative for the errors ``mae`` and ``expected_calibration_error``. Both kinds see
        the same resamples, so what makes a cell hard for both does not widen the interval.

    Raises
    ------
    FormatError
        Not these two kinds; or the tables disagree on the classes: they are not of the same run.
    MissingInputError
        A column or attribute is missing.
    """
    rows = _shared_rows(tables)
    sheets, draws = score_sheets(
        rows, class_count(tables["random"]), cells_per_block, n_bootstrap=n_bootstrap, seed=seed
    )
    return dict(zip(FOLD_KINDS, sheets, strict=True)) | {"leakage_gap": _gaps(sheets, draws)}


def _shared_rows(tables: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """The scored rows that both tables have, in the order of `FOLD_KINDS`."""
    if set(tables) != set(FOLD_KINDS):
        raise FormatError(
            f"expected a table for each kind of fold, {' and '.join(FOLD_KINDS)}, received "
            f"{', '.join(map(str, tables)) or 'none'}"
        )
    for table in tables.values():
        require_columns(table, SCORED)
    random, spatial = (scorable(tables[kind]) for kind in FOLD_KINDS)
    if not random.index.equals(spatial.index):
        shared = random.index.intersection(spatial.index)
        random, spatial = random.loc[shared], spatial.loc[shared]
    n_classes = [class_count(tables[kind]) for kind in FOLD_KINDS]
    differ = int((random["ses_true"] != spatial["ses_true"]).sum())
    if differ or n_classes[0] != n_classes[1]:
        raise FormatError(
            f"the tables of random and spatial folds have {n_classes[0]} and {n_classes[1]} classes and "
            f"differ in the true class of {differ} of {len(random)} cells: expected the same cells "
            "with the same labels; train both kinds in one run"
        )
    return [random, spatial]


def _gaps(
    sheets: Sequence[dict[str, Any]], draws: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, Any]:
    """Random less spatial, of each mean over folds."""
    means = {unit: [mean_scores(sums) for sums in pair] for unit, pair in draws.items()}
    gaps: dict[str, Any] = {}
    for name in SCORES:
        random, spatial = (sheet[name] for sheet in sheets)
        value = None if random is None or spatial is None else random - spatial
        gaps[name] = {"value": value}
        for unit, (first, second) in means.items():
            gaps[name][unit] = interval(value, first[name] - second[name])
    return gaps
