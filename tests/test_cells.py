"""Cells: classes, folds and flags, against scikit-learn and pandas."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import box
from sklearn.model_selection import StratifiedKFold

import sesgrid
from sesgrid.errors import ConfigError, FormatError, SesgridWarning, TooFewCellsError
from sesgrid.grid import Grid, cell_id_of
from sesgrid.stages.folds import fold_of_block, stratified_folds
from sesgrid.stages.labels import classify, quantile_thresholds
from sesgrid.stages.mosaic import Mosaic, plan_mosaic
from tests.test_mosaic import FakeReader, around, tiles
from tests.test_mosaic import cells as cells_of_mosaic

label = partial(sesgrid.cells, fold_block_cells=2, buffer_cells=0)
"""Folds of squares that fit into a handful of cells."""


def census(n=60, *, imputed=0, seed=0) -> gpd.GeoDataFrame:
    rng = np.random.default_rng(seed)
    rowcol = [(-12_000 - k // 10, 18_000 + k % 10) for k in range(n)]
    flags = np.zeros(n, dtype=bool)
    flags[rng.permutation(n)[:imputed]] = True
    table = gpd.GeoDataFrame(
        {
            "individuals": np.full(n, 20.0),
            "households": pd.array([8.0] * n, dtype="Float64"),
            "income": rng.uniform(12_000, 40_000, n),
            "imputed": pd.array(flags, dtype="boolean"),
            "departement": "75",
        },
        geometry=[box(c * 200, -(r + 1) * 200, (c + 1) * 200, -r * 200) for r, c in rowcol],
        crs=3035,
        index=pd.Index([cell_id_of(r, c) for r, c in rowcol], name="cell_id"),
    )
    table.attrs = {"vintage": "2019"}
    return table


@settings(max_examples=30, deadline=None)
@given(
    income=st.lists(st.integers(0, 10**6), min_size=20, max_size=200, unique=True),
    k=st.integers(2, 6),
)
def test_classes_are_exact_quantile_classes(income, k):
    values = np.array(income, dtype=np.float64)
    ours = classify(values, quantile_thresholds(values, k))
    ordered = [Fraction(v) for v in sorted(income)]
    edges = []
    for j in range(1, k):
        place = Fraction(j * (len(income) - 1), k)
        low, part = int(place), place - int(place)
        high = min(low + 1, len(income) - 1)
        edges.append(ordered[low] + part * (ordered[high] - ordered[low]))
    assert ours.tolist() == [1 + sum(v > e for e in edges) for v in income]
    away = ~np.isin(values, [float(e) for e in edges])  # pandas is inexact on ties
    theirs = pd.qcut(values, k, labels=False) + 1
    assert ours[away].tolist() == theirs[away].tolist()


@settings(max_examples=30, deadline=None)
@given(
    ses=st.lists(st.integers(1, 5), min_size=1, max_size=100),
    folds=st.integers(2, 5),
    seed=st.integers(0, 5),
)
def test_folds_are_balanced_as_scikit_learns(ses, folds, seed):
    ses = np.array(ses)
    fold = stratified_folds(ses, folds, seed)
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 1
    for k in np.unique(ses):
        counts = np.bincount(fold[ses == k], minlength=folds)
        assert np.ptp(counts) <= 1
        if (np.bincount(ses)[np.unique(ses)] >= folds).all():
            theirs = StratifiedKFold(folds).split(ses, ses)
            assert sorted(counts) == pytest.approx(
                sorted((ses[test] == k).sum() for _, test in theirs), abs=1
            )


def test_only_observed_cells_are_labelled_by_default():
    table = label(census(imputed=20), folds=3)
    assert table["labelled"].sum() == 40
    assert not table.loc[table["imputed"], "labelled"].any()
    # classes are balanced over the labelled cells, and every cell has a true class and a fold
    assert table.loc[table["labelled"], "ses_true"].value_counts().tolist() == [8] * 5
    assert table["ses_true"].notna().all()
    assert table["fold"].notna().all()
    assert table.attrs["vintage"] == "2019"
    assert len(table.attrs["thresholds"]) == 4
    assert label(census(imputed=20), labels="all")["labelled"].all()
    unflagged = census()
    unflagged["imputed"] = pd.array([pd.NA] * len(unflagged), dtype="boolean")
    with pytest.warns(SesgridWarning, match="no flag of imputed cells"):
        assert label(unflagged)["labelled"].all()


def test_unlabelled_neighbours_share_a_fold_and_the_rest_spread():
    rowcol = np.array([(r, c) for r in range(64) for c in range(64)])
    fold = fold_of_block(rowcol, 8, 4).reshape(8, 8, 8, 8)
    assert (fold == fold[:, :1, :, :1]).all()
    assert set(fold[:, 0, :, 0].ravel()) == {0, 1, 2, 3}


def test_the_same_seed_gives_the_same_folds_in_any_order():
    table = census()
    a, b = (
        label(table, folds=3, seed=1),
        label(table.sample(frac=1, random_state=3), folds=3, seed=1),
    )
    assert a["fold"].equals(b["fold"])
    assert not a["fold"].equals(label(table, folds=3, seed=2)["fold"])


def test_too_few_cells_are_refused_with_the_numbers():
    with pytest.raises(
        TooFewCellsError, match=r"5 folds × 5 classes need at least 25.*received 20 of 60"
    ):
        label(census(imputed=40))
    with pytest.raises(TooFewCellsError, match="'all'"):
        label(census(imputed=40))


def test_unknown_labels_and_alike_incomes_are_refused():
    with pytest.raises(ConfigError, match="observed"):
        label(census(), labels="some")
    with pytest.raises(ConfigError, match="at least 2"):
        label(census(), folds=1)
    same = census()
    same["income"] = 20_000.0
    with pytest.raises(FormatError, match=r"all 60 .* the same income, 20000\.00"):
        label(same)


def test_the_void_share_of_a_cell_counts_its_zeros_in_every_band():
    table, names = cells_of_mosaic(3), around(6)
    grid = Grid(50, 8)
    reader = FakeReader(hole=(names[14],))
    results = Mosaic(grid, reader)(plan_mosaic(grid, table, tiles(names)))
    voids = []
    for result in results:
        shares = {row["cell_id"]: row["void_share"] for row in result.rows}
        assert len(shares) == len(result.block.cells)
        for row, col in result.block.cells:
            y, x = grid.cell_slices(*grid.cell_in_block(row, col))
            zeros = int((result.arrays["image"][:, y, x] == 0).sum())
            assert shares[cell_id_of(row, col)] == zeros / (3 * 50 * 50)
            voids.append(zeros)
    # the scene is black in places, in one band only
    assert 0 < np.mean(voids) < 3 * 50 * 50
