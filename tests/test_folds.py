"""Folds: balance, buffers against brute force, and that the two kinds stand side by side."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

import sesgrid
from sesgrid.errors import ConfigError, SesgridWarning, TooFewCellsError
from sesgrid.grid import cell_id_of, rowcol_of_ids
from sesgrid.kernels.balance import balanced_groups
from sesgrid.stages.folds import near, other_kind, spatial_folds, training_cells
from tests.test_cells import census

ROW, COL = -12_003, 18_005
"""A corner that is not a block's."""


def town(side=40, *, seed=0, smooth=3.0, imputed=0.0) -> gpd.GeoDataFrame:
    """A square census with a smooth income; some cells are missing, some imputed."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(side, side)), smooth, mode="wrap")
    income = 24_000 + 5_000 * field / field.std() + 500 * rng.normal(size=(side, side))
    r, c = np.nonzero(rng.random((side, side)) > 0.1)
    return gpd.GeoDataFrame(
        {
            "individuals": rng.integers(1, 400, len(r)).astype(float),
            "households": pd.array([8.0] * len(r), dtype="Float64"),
            "income": income[r, c],
            "imputed": pd.array(rng.random(len(r)) < imputed, dtype="boolean"),
        },
        geometry=[None] * len(r),
        crs=3035,
        index=pd.Index(
            [cell_id_of(ROW + i, COL + j) for i, j in zip(r, c, strict=True)], name="cell_id"
        ),
    )


def places(table):
    return table[["row", "col"]].to_numpy(dtype=np.int64)


counts = st.lists(
    st.tuples(*[st.integers(0, 30)] * 3, st.integers(0, 20)), min_size=2, max_size=40
).map(lambda rows: np.array(rows, dtype=np.int64))


@settings(max_examples=100, deadline=None)
@given(counts=counts, groups=st.integers(2, 6), seed=st.integers(0, 9))
# classes alone would put one large block against all the others
@example(counts=np.array([[0, 0, 8, 0], [1, 0, 6, 0], [1, 25, 0, 0]]), groups=2, seed=0)
def test_groups_differ_by_at_most_the_fullest_block(counts, groups, seed):
    labelled = counts[:, :3].sum(axis=1)
    assume((labelled > 0).sum() >= groups)
    group = balanced_groups(counts[:, :3], counts[:, 3], groups, seed)
    sizes = np.bincount(group, weights=labelled, minlength=groups)
    assert len(sizes) == groups
    assert np.ptp(sizes) <= labelled.max()
    assert (group == balanced_groups(counts[:, :3], counts[:, 3], groups, seed)).all()


def imbalance(counts, group, groups):
    """What the assignment makes small, written naively."""
    columns = np.column_stack([counts[:, :3], counts[:, :3].sum(1), counts.sum(1)])
    loss = 0.0
    for column in columns.T:
        for g in range(groups):
            share = column[group == g].sum() / max(column.sum(), 1)
            loss += (share - 1 / groups) ** 2
    return loss


@settings(max_examples=30, deadline=None)
@given(counts=counts, seed=st.integers(0, 9))
def test_no_move_or_swap_would_make_groups_more_equal(counts, seed):
    groups = 3
    labelled = counts[:, :3].sum(axis=1)
    assume((labelled > 0).sum() >= groups)
    group = balanced_groups(counts[:, :3], counts[:, 3], groups, seed)
    now = imbalance(counts, group, groups)
    sizes = np.bincount(group, weights=labelled, minlength=groups)
    rng = np.random.default_rng(seed)
    for a, b in rng.integers(0, len(counts), (40, 2)):
        for moved in range(groups + 1):
            other = group.copy()
            if moved == groups:
                other[a], other[b] = group[b], group[a]
            else:
                other[a] = moved
            after = np.bincount(other, weights=labelled, minlength=groups)
            # well inside the interval that sizes must keep to
            if np.abs(after - sizes.mean()).max() < labelled.max() / 4:
                assert imbalance(counts, other, groups) > now - 1e-6


def test_spatial_folds_of_a_large_city_are_equal():
    rng = np.random.default_rng(0)
    side = 270
    field = gaussian_filter(rng.normal(size=(side, side)), 12)
    row, col = np.nonzero(gaussian_filter(rng.normal(size=(side, side)), 4) > -0.1)
    ses = np.searchsorted(np.quantile(field[row, col], [0.2, 0.4, 0.6, 0.8]), field[row, col]) + 1
    rowcol = np.stack([row - 12_000, col + 18_000], axis=1)
    labelled = rng.random(len(row)) < 0.25
    fold = spatial_folds(rowcol, ses, labelled, 5, block_cells=8, seed=0)
    sizes = np.bincount(fold[labelled])
    assert np.ptp(sizes) <= 8
    for k in range(1, 6):
        of_class = np.bincount(fold[labelled & (ses == k)], minlength=5)
        assert np.ptp(of_class) / of_class.mean() < 0.03
    assert np.ptp(np.bincount(fold)) / len(fold) < 0.01


@pytest.mark.parametrize(("side", "buffer"), [(8, 1), (5, 0), (6, 3), (4, 2)])
def test_what_trains_lies_farther_than_the_buffer_from_what_is_tested(side, buffer):
    table = sesgrid.cells(
        town(imputed=0.2),
        classes=3,
        folds=3,
        folds_kind="spatial",
        fold_block_cells=side,
        buffer_cells=buffer,
    )
    rowcol, fold = places(table), table["fold"].to_numpy(dtype=int)
    # a square of cells has one fold, wherever its corner lies
    blocks = table.groupby([rowcol[:, 0] // side, rowcol[:, 1] // side])["fold_spatial"]
    assert (blocks.nunique() == 1).all()
    apart = np.abs(rowcol[:, None] - rowcol[None]).max(axis=2)
    for f in range(3):
        tested, trained = fold == f, training_cells(table, f)
        assert tested.any()
        assert trained.any()
        nearest = apart[:, tested].min(axis=1)
        np.testing.assert_array_equal(trained, table["labelled"] & (nearest > buffer))
        # random folds of the same table: no buffer
        plain = training_cells(table, f, "random")
        np.testing.assert_array_equal(plain, table["labelled"] & (table["fold_random"] != f))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=30),
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=10),
    st.integers(0, 6),
)
def test_near_is_a_distance_along_the_larger_axis(cells, others, distance):
    cells, others = (np.array(v, dtype=np.int64).reshape(-1, 2) for v in (cells, others))
    expected = [any(max(abs(c - o)) <= distance for o in others) for c in cells]
    assert near(cells, others, distance).tolist() == expected


def test_both_kinds_stand_in_the_table_and_one_is_chosen():
    census = town(imputed=0.3)
    random = sesgrid.cells(census, classes=3, folds=3)
    spatial = sesgrid.cells(census, classes=3, folds=3, folds_kind="spatial")
    for kind, table in (("random", random), ("spatial", spatial)):
        assert table.attrs["folds_kind"] == kind
        assert table.attrs["buffer_cells"] == 1
        assert table.attrs["fold_block_cells"] == 8
        assert table.attrs["compare_folds"] is True
        pd.testing.assert_series_equal(table["fold"], table[f"fold_{kind}"], check_names=False)
        assert table["fold_spatial"].dtype == "Int64"
    for column in ("fold_random", "fold_spatial", "ses_true"):
        pd.testing.assert_series_equal(random[column], spatial[column])
    other = other_kind(random)
    pd.testing.assert_series_equal(other["fold"], spatial["fold"])
    assert other.attrs == spatial.attrs
    pd.testing.assert_series_equal(other_kind(other)["fold"], random["fold"])
    np.testing.assert_array_equal(training_cells(other, 1), training_cells(random, 1, "spatial"))
    # imputed cells of a group bear one income, and groups are as a rule five cells wide
    assert sesgrid.cells(census, classes=3, folds=3, labels="all").attrs["buffer_cells"] == 4


def test_the_same_seed_gives_the_same_folds_in_any_order():
    table = town()
    options = {"classes": 3, "folds": 3, "fold_block_cells": 5}
    a = sesgrid.cells(table, seed=1, **options)
    b = sesgrid.cells(table.sample(frac=1, random_state=3), seed=1, **options)
    assert a["fold_spatial"].equals(b["fold_spatial"])
    c = sesgrid.cells(table, seed=2, **options)
    assert not a["fold_spatial"].equals(c["fold_spatial"])


def test_too_few_blocks_leave_the_spatial_folds_out_or_are_refused():
    few = census(60)  # six by ten cells, in four blocks
    with pytest.warns(
        SesgridWarning, match=r"no spatial folds.*5 spatial folds .*received 4 of 8 × 8"
    ):
        table = sesgrid.cells(few)
    assert table["fold_spatial"].isna().all()
    assert table["fold_spatial"].dtype == "Int64"
    assert table["fold"].notna().all()
    assert other_kind(table) is None
    with pytest.raises(ConfigError, match="no 'spatial' folds"):
        training_cells(table, 0, "spatial")
    with pytest.raises(TooFewCellsError, match=r"received 4 of 8 × 8.*fold_block_cells"):
        sesgrid.cells(few, folds_kind="spatial")
    # nobody is told who does not ask
    assert sesgrid.cells(few, compare_folds=False)["fold_spatial"].isna().all()


def test_a_fold_without_a_class_is_refused_by_name():
    # the richest live in one block: no model that is tested there has ever seen them
    table = town()
    rich = (np.abs(rowcol_of_ids(table.index) - (-11_990, 18_030)) < 3).all(axis=1)
    table["income"] = np.where(rich, 90_000.0, table["income"])
    options = {"thresholds": [24_000, 80_000], "classes": 3, "folds": 3, "fold_block_cells": 20}
    with pytest.raises(
        TooFewCellsError, match=r"spatial fold \d of 3 has .*none of class 3.*blocks"
    ):
        sesgrid.cells(table, folds_kind="spatial", **options)
    with pytest.warns(SesgridWarning, match="none of class 3"):
        assert sesgrid.cells(table, **options)["fold_spatial"].isna().all()


@pytest.mark.parametrize(
    "wrong", [{"folds_kind": "blocks"}, {"fold_block_cells": 0}, {"buffer_cells": -1}, {"folds": 1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        sesgrid.cells(town(), **wrong)
