from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    mean_absolute_error,
    r2_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.kernels.bootstrap import (
    group_units,
    percentile_interval,
    resampled_sums,
    sums_by_unit,
)
from sesgrid.kernels.cell_statistics import N_BINS, CellStatistics, majority_elsewhere
from sesgrid.kernels.scores import (
    SCORES,
    bin_means,
    confusion_matrix,
    fold_scores,
    mean_scores,
    row_shares,
)
from sesgrid.stages.leakage import compare_folds
from sesgrid.stages.score import metrics
from sesgrid.stages.scored_cells import ScoredCells

quick = settings(max_examples=60, deadline=None)


def cell_statistics(*columns, probabilities=None, **more):
    told = None if probabilities is None else list(probabilities.T)
    return CellStatistics.of(*columns, probabilities=told, **more).rows()


def made_up(n=300, k=5, n_folds=3, seed=0, side=20, with_p=True):
    """A table of cells with probabilities that know something of the income."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(side * side)[:n]
    income = np.round(rng.lognormal(10, 0.3, n), -2)  # ties
    true = np.searchsorted(np.quantile(income, np.arange(1, k) / k), income) + 1
    logit = 2 * (stats.rankdata(income) / n - 0.5) + rng.normal(0, 0.8, n)
    p = stats.binom.pmf(np.arange(k), k - 1, 1 / (1 + np.exp(-logit[:, None])))
    cells = pd.DataFrame(
        {
            "labelled": True,
            "fold": pd.array(rng.integers(0, n_folds, n), dtype="Int64"),
            "ses_true": pd.array(true, dtype="Int64"),
            "ses_predicted": pd.array(p.argmax(axis=1) + 1, dtype="Int64"),
            "income": income,
            "row": place // side - 7,  # blocks are cut at 0, also left of it
            "col": place % side,
            "imputed": pd.array(rng.random(n) < 0.3, dtype="boolean"),
            **({f"probability_{c + 1}": p[:, c] for c in range(k)} if with_p else {}),
        },
        index=pd.Index([f"cell-{i}" for i in range(n)], name="cell_id"),
    )
    cells.attrs = {"n_classes": k}
    return cells


def worse(cells, seed=1):
    """The same cells in other folds, half of them with the prediction of another cell."""
    rng, other = np.random.default_rng(seed), cells.copy()
    other["fold"] = pd.array((cells["row"] // 4 + cells["col"] // 4) % 3, dtype="Int64")
    mixed = np.flatnonzero(rng.random(len(cells)) < 0.5)
    names = [n for n in cells if n == "ses_predicted" or n.startswith("probability")]
    shuffled = cells.iloc[rng.permutation(mixed)]
    for name in names:
        other.iloc[mixed, other.columns.get_loc(name)] = shuffled[name].array
    return other


@st.composite
def class_pairs(draw):
    """(K, true, predicted): few cells and few classes, so that constants and gaps are common."""
    k = draw(st.integers(2, 6))
    pairs = draw(st.lists(st.tuples(st.integers(1, k), st.integers(1, k)), min_size=1, max_size=50))
    return k, *np.array(pairs).T


@st.composite
def forecasts(draw):
    """(true, predicted, probabilities, income, missing) of some cells; ties and gaps included."""
    k, n = draw(st.integers(2, 5)), draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = rng.dirichlet(np.ones(k) * 0.5, n)
    if draw(st.booleans()):  # on the borders of bins
        p = np.round(p, 1)
    income = rng.integers(0, draw(st.integers(1, 30)), n).astype(float)
    true = np.searchsorted(np.quantile(income, np.arange(1, k) / k), income) + 1
    p[rng.random(n) < 0.1] = np.nan
    income[rng.random(n) < 0.1] = np.nan
    return true, rng.integers(1, k + 1, n), p, income


# Scores ---------------------------------------------------------------------------------------


@quick
@given(class_pairs())
def test_scores_of_classes_are_sklearns_and_scipys(drawn):
    k, true, predicted = drawn
    rows = cell_statistics(true, predicted, k)
    counts = sklearn_confusion(true, predicted, labels=np.arange(1, k + 1))
    np.testing.assert_array_equal(confusion_matrix(rows.sum(axis=0)), counts)
    scores = {name: value[0] for name, value in fold_scores(rows.sum(axis=0)[None]).items()}
    assert set(scores) == set(SCORES)
    assert scores["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert scores["mae"] == pytest.approx(mean_absolute_error(true, predicted))
    assert scores["accuracy_within_one"] == pytest.approx(np.mean(np.abs(true - predicted) <= 1))
    constant = np.ptp(true) == 0 or np.ptp(predicted) == 0
    for name, oracle in (("pearson_r", stats.pearsonr), ("spearman_r", stats.spearmanr)):
        if constant or len(true) < 2:
            assert np.isnan(scores[name])
        else:
            assert scores[name] == pytest.approx(oracle(true, predicted).statistic, abs=1e-12)
    if constant and true[0] == predicted[0] and np.ptp(true) == np.ptp(predicted) == 0:
        assert np.isnan(scores["quadratic_weighted_kappa"])
    else:
        kappa = cohen_kappa_score(true, predicted, weights="quadratic", labels=np.arange(1, k + 1))
        assert scores["quadratic_weighted_kappa"] == pytest.approx(kappa, abs=1e-12)
    for name in ("r2_income_rank", "expected_calibration_error", "majority_baseline_accuracy"):
        assert np.isnan(scores[name])


@quick
@given(forecasts())
def test_r2_on_income_ranks_is_sklearns(drawn):
    true, predicted, p, income = drawn
    k = p.shape[1]
    rows = cell_statistics(true, predicted, k, probabilities=p, income=income)
    score = fold_scores(rows.sum(axis=0)[None])["r2_income_rank"][0]
    ranked = np.isfinite(income)
    rank = np.full(len(true), np.nan)
    if ranked.any():
        rank[ranked] = (stats.rankdata(income[ranked]) - 0.5) / ranked.sum()
    shares = [sum(true[ranked] == c + 1) / max(ranked.sum(), 1) for c in range(k)]
    middles = [sum(shares[:c]) + shares[c] / 2 for c in range(k)]
    expected = np.array([sum(a * b for a, b in zip(row, middles, strict=True)) for row in p])
    known = ranked & np.isfinite(expected)
    if known.sum() < 2 or np.ptp(rank[known]) == 0:
        assert np.isnan(score)
    else:
        assert score == pytest.approx(r2_score(rank[known], expected[known]), abs=1e-9)


@pytest.mark.parametrize("n", range(2, 40))
def test_r2_of_incomes_that_are_all_alike_is_undefined(n):
    income = np.r_[np.full(n, 7.0), np.arange(10, 25)]
    p = np.random.default_rng(n).dirichlet([1, 1], n + 15)
    rows = cell_statistics(
        np.full(n + 15, 1), np.full(n + 15, 1), 2, probabilities=p, income=income
    )
    assert np.isnan(fold_scores(rows[:n].sum(axis=0)[None])["r2_income_rank"][0])
    assert np.isfinite(fold_scores(rows[n - 1 :].sum(axis=0)[None])["r2_income_rank"][0])


@quick
@given(forecasts())
def test_calibration_is_sklearns_curve_and_the_printed_formula(drawn):
    true, predicted, p, _ = drawn
    sums = cell_statistics(true, predicted, p.shape[1], probabilities=p).sum(axis=0)
    n, confidence, accuracy = bin_means(sums)
    known = np.isfinite(p).all(axis=1)
    sure = p[np.arange(len(p)), predicted - 1][known]
    right = (true == predicted)[known]
    if not known.any():
        assert not n.any()
        assert np.isnan(fold_scores(sums[None])["expected_calibration_error"][0])
        return
    curve, means = calibration_curve(right, sure, n_bins=N_BINS)
    np.testing.assert_allclose(accuracy[n > 0], curve)
    np.testing.assert_allclose(confidence[n > 0], means)
    error = 0.0
    for b in range(N_BINS):
        inside = (sure > np.linspace(0, 1, 11)[b]) & (sure <= np.linspace(0, 1, 11)[b + 1])
        inside |= (b == 0) & (sure == 0)
        assert n[b] == inside.sum()
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert fold_scores(sums[None])["expected_calibration_error"][0] == pytest.approx(error)


@quick
@given(class_pairs(), st.integers(1, 3), st.integers(0, 99))
def test_baseline_is_the_commonest_class_of_the_other_folds(drawn, n_folds, seed):
    k, true, predicted = drawn
    fold = np.unique(
        np.random.default_rng(seed).integers(0, n_folds, len(true)), return_inverse=True
    )[1]
    said = majority_elsewhere(true, fold)
    for f in np.unique(fold):
        others = true[fold != f] if (fold != f).any() else true
        assert set(said[fold == f]) == {stats.mode(others).mode}
    rows = cell_statistics(true, predicted, k, baseline=said)
    score = fold_scores(rows.sum(axis=0)[None])["majority_baseline_accuracy"][0]
    assert score == pytest.approx(np.mean(true == said))


def test_scores_take_any_leading_axes():
    rows = cell_statistics(np.array([1, 2, 3, 3]), np.array([1, 3, 3, 2]), 3)
    sums = rows.toarray().reshape(2, 2, -1)  # (resample, fold, statistic)
    for name, values in fold_scores(sums).items():
        assert values.shape == (2, 2)
        for i in range(2):
            np.testing.assert_array_equal(values[i], fold_scores(sums[i])[name])
        np.testing.assert_array_equal(mean_scores(sums)[name].shape, (2,))


def test_undefined_correlations_count_as_zero_and_empty_folds_not_at_all():
    good = cell_statistics(np.array([1, 2, 3]), np.array([1, 2, 3]), 3).sum(axis=0)
    constant = cell_statistics(np.array([1, 2, 3]), np.array([2, 2, 2]), 3).sum(axis=0)
    same = cell_statistics(np.array([2, 2]), np.array([2, 2]), 3).sum(axis=0)
    means = mean_scores(np.stack([good, constant, same, np.zeros_like(good)]))
    assert means["pearson_r"] == means["spearman_r"] == pytest.approx(1 / 3)
    assert means["quadratic_weighted_kappa"] == pytest.approx(1 / 3)
    assert means["accuracy"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert np.isnan(means["r2_income_rank"])


def test_row_shares_are_sklearns():
    true, predicted = np.array([1, 1, 2, 4, 4]), np.array([1, 2, 2, 4, 1])
    shares = row_shares(cell_statistics(true, predicted, 4).sum(axis=0))
    expected = sklearn_confusion(true, predicted, labels=[1, 2, 3, 4], normalize="true")
    np.testing.assert_allclose(shares[[0, 1, 3]], expected[[0, 1, 3]])
    assert np.isnan(shares[2]).all()


@pytest.mark.parametrize(("true", "predicted"), [([0, 1], [1, 1]), ([1, 1], [1, 4])])
def test_classes_off_the_scale_are_refused(true, predicted):
    with pytest.raises(FormatError, match="from 1 to 3"):
        cell_statistics(np.array(true), np.array(predicted), 3)


# Bootstrap ------------------------------------------------------------------------------------


def naive_scores(rows, k):
    """The means over folds of a resample's rows, by scikit-learn and scipy, as the design says."""
    folds = []
    for _, cells in rows.groupby("fold"):
        true, predicted = (cells[c].to_numpy(int) for c in ("ses_true", "ses_predicted"))
        defined = np.ptp(true) > 0 and np.ptp(predicted) > 0
        p = cells[[f"probability_{c + 1}" for c in range(k)]].to_numpy()
        sure = p[np.arange(len(p)), predicted - 1]
        bins = pd.DataFrame({"b": np.ceil(sure * 10), "off": (true == predicted) - sure})
        folds.append(
            {
                "pearson_r": stats.pearsonr(true, predicted).statistic if defined else 0.0,
                "spearman_r": stats.spearmanr(true, predicted).statistic if defined else 0.0,
                "quadratic_weighted_kappa": cohen_kappa_score(
                    true, predicted, weights="quadratic", labels=np.arange(1, k + 1)
                ),
                "accuracy": accuracy_score(true, predicted),
                "accuracy_within_one": np.mean(abs(true - predicted) <= 1),
                "mae": mean_absolute_error(true, predicted),
                "r2_income_rank": r2_score(cells["rank"], cells["expected"]),
                "expected_calibration_error": bins.groupby("b")["off"].sum().abs().sum() / len(p),
                "majority_baseline_accuracy": np.mean(true == cells["baseline"]),
            }
        )
    return pd.DataFrame(folds).mean()


@pytest.mark.parametrize("unit", ["cells", "blocks"])
def test_intervals_are_those_of_a_naive_loop_over_the_same_draws(unit):
    cells, k, b = made_up(120, 4, 2), 4, 30
    scores = metrics(cells, n_bootstrap=b, seed=5, cells_per_block=4)
    cells["rank"] = (stats.rankdata(cells["income"]) - 0.5) / len(cells)
    shares = cells["ses_true"].value_counts(normalize=True).sort_index().to_numpy(float)
    middles = np.cumsum(shares) - shares / 2
    cells["expected"] = cells[[f"probability_{c + 1}" for c in range(k)]].to_numpy() @ middles
    cells["baseline"] = [
        stats.mode(cells.loc[cells["fold"] != f, "ses_true"].to_numpy(int)).mode
        for f in cells["fold"]
    ]
    blocks = cells.groupby([np.floor(cells["row"] / 4), np.floor(cells["col"] / 4)]).indices
    members = list(blocks.values()) if unit == "blocks" else [[i] for i in range(len(cells))]
    rng = np.random.default_rng([5, ["cells", "blocks"].index(unit)])
    draws = rng.integers(0, len(members), (b, len(members)))
    loop = pd.DataFrame(
        [naive_scores(cells.iloc[np.concatenate([members[u] for u in d])], k) for d in draws]
    )
    assert scores["n_blocks"] == len(blocks)
    for name in SCORES:
        expected = np.percentile(loop[name], [2.5, 97.5])
        np.testing.assert_allclose(scores["intervals"][name][unit], expected, rtol=1e-9)
        assert scores["intervals"][name]["cells"] != scores["intervals"][name]["blocks"]


def test_intervals_of_a_fold_are_those_of_its_own_cells():
    cells = made_up(120)
    cells.loc[cells["fold"] == 1, "ses_predicted"] = 1
    scores = metrics(cells, n_bootstrap=40)
    off = (cells["ses_true"] - cells["ses_predicted"]).abs().to_numpy(float)
    draws = np.random.default_rng([0, 0]).integers(0, 120, (40, 120))
    for fold in scores["folds"]:
        inside = (cells["fold"] == fold["fold"]).to_numpy(bool)
        loop = [off[d][inside[d]].mean() for d in draws]
        expected = np.percentile(loop, [2.5, 97.5])
        np.testing.assert_allclose(fold["intervals"]["mae"]["cells"], expected, rtol=1e-12)


def test_sums_by_unit_are_pandas():
    rng = np.random.default_rng(0)
    statistics = rng.integers(0, 3, (50, 4)) * rng.random((50, 4))
    fold, unit = rng.integers(0, 3, 50), rng.integers(0, 6, 50)
    table = sums_by_unit(statistics, fold, unit, n_groups=3, n_units=6).toarray().reshape(6, 3, 4)
    oracle = pd.DataFrame(statistics).groupby([unit, fold]).sum()
    for (u, f), sums in oracle.iterrows():
        np.testing.assert_allclose(table[u, f], sums)
    assert table.sum() == pytest.approx(statistics.sum())


def test_resampled_sums_do_not_depend_on_the_batch(monkeypatch):
    table = scipy.sparse.csr_array(np.random.default_rng(0).random((30, 3)))
    whole = resampled_sums([table, table * 2], n_bootstrap=40, rng=np.random.default_rng(1))
    monkeypatch.setattr("sesgrid.kernels.bootstrap._BATCH_COUNTS", 30 * 7)
    pieces = resampled_sums([table, table * 2], n_bootstrap=40, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_array_equal(2 * whole[0], whole[1])


def test_groups_of_units_are_as_large_as_each_other_and_formed_at_random(monkeypatch):
    monkeypatch.setattr("sesgrid.kernels.bootstrap.MOST_UNITS", 70)
    groups = group_units(1000, np.random.default_rng(1))
    assert set(np.bincount(groups)) == {14, 15}
    assert len(np.bincount(groups)) == 70
    # neighbours must not stay together: they are alike
    for of_square in groups[:980].reshape(70, 14):
        assert np.bincount(of_square).max() < 7
    np.testing.assert_array_equal(group_units(70, np.random.default_rng(1)), np.arange(70))


def test_sums_taken_some_cells_at_a_time_are_pandas(monkeypatch):
    monkeypatch.setattr("sesgrid.stages.scored_cells._AT_ONCE", 17)
    scored = ScoredCells.of(made_up(100), 5, 8)
    unit = np.random.default_rng(0).integers(0, 6, 100)
    sums = scored.sums_by(unit, 7).toarray().reshape(7, len(scored.folds), -1)
    oracle = pd.DataFrame(scored.statistics.rows().toarray()).groupby([unit, scored.fold]).sum()
    for (u, f), expected in oracle.iterrows():
        np.testing.assert_allclose(sums[u, f], expected)
    assert sums.sum() == pytest.approx(oracle.to_numpy().sum())
    np.testing.assert_allclose(scored.sums, sums.sum(axis=0))


@pytest.mark.parametrize("unit", ["cells", "blocks"])
def test_scores_of_very_many_cells_are_those_of_all_with_intervals_as_wide(monkeypatch, unit):
    """Groups are drawn instead of cells, and statistics are made of some cells at a time."""
    cells = made_up(4000, side=80)
    one = metrics(cells, n_bootstrap=4000, cells_per_block=2)
    monkeypatch.setattr("sesgrid.kernels.bootstrap.MOST_UNITS", 600)
    monkeypatch.setattr("sesgrid.stages.scored_cells._AT_ONCE", 777)
    drawn = []

    def counted(tables, **more):
        drawn.extend(t.shape[0] for t in tables)
        return resampled_sums(tables, **more)

    monkeypatch.setattr("sesgrid.stages.scored_cells.resampled_sums", counted)
    other = metrics(cells, n_bootstrap=4000, cells_per_block=2, seed=1)
    assert drawn == [600, 600]
    for name in SCORES:
        assert other[name] == pytest.approx(one[name], rel=1e-12)
        bounds, expected = (np.array(s["intervals"][name][unit]) for s in (other, one))
        np.testing.assert_allclose(bounds, expected, atol=0.1 * np.ptp(expected))
    assert other["confusion"] == one["confusion"]


def test_ratios_of_resampled_groups_are_paired(monkeypatch):
    """Also where some groups have two members and some have one."""
    n, rng = 1600, np.random.default_rng(0)
    monkeypatch.setattr("sesgrid.kernels.bootstrap.MOST_UNITS", 1000)
    group, rows = group_units(n, rng), np.stack([rng.lognormal(size=n), np.ones(n)], axis=1)
    zeros = np.zeros(n, np.int64)
    table = sums_by_unit(rows, zeros, group, n_groups=1, n_units=1000)
    tables = [table, table.multiply([[3.0, 1.0]]).tocsr()]
    one, other = (s[:, 0] / s[:, 1] for s in resampled_sums(tables, n_bootstrap=400, rng=rng))
    np.testing.assert_allclose(other, 3 * one, rtol=1e-12)


def test_percentiles_are_numpys_along_the_resamples():
    draws = np.random.default_rng(0).random((50, 2, 3))
    low, high = percentile_interval(draws, 0.9)
    np.testing.assert_allclose(low, np.percentile(draws, 5, axis=0))
    np.testing.assert_allclose(high, np.percentile(draws, 95, axis=0))
    assert np.isnan(percentile_interval(draws[:0])).all()


def test_interval_covers_the_true_accuracy_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for i in range(150):
        true = rng.integers(1, 3, 80)
        predicted = np.where(rng.random(80) < 0.7, true, 3 - true)
        cells = pd.DataFrame(
            {"labelled": True, "fold": 0, "ses_true": true, "ses_predicted": predicted}
        )
        cells.attrs["n_classes"] = 2
        low, high = metrics(cells, n_bootstrap=200, seed=i)["intervals"]["accuracy"]["cells"]
        inside += low <= 0.7 <= high
    assert 0.88 <= inside / 150 <= 0.99


def test_blocks_are_wider_where_neighbours_err_together():
    cells = made_up(400)
    together = (cells["row"] // 4 * 31 + cells["col"] // 4) % 3 == 0
    true = cells["ses_true"].to_numpy(int)
    cells["ses_predicted"] = np.where(together, 6 - true, true)
    intervals = metrics(cells, n_bootstrap=400, cells_per_block=4)["intervals"]
    for name in ("pearson_r", "accuracy", "mae", "quadratic_weighted_kappa"):
        over_cells, over_blocks = (
            np.diff(intervals[name][unit])[0] for unit in ("cells", "blocks")
        )
        assert over_blocks > 2 * over_cells, name


# Tables ---------------------------------------------------------------------------------------


def test_result_is_json_with_every_score_in_every_place():
    scores = metrics(made_up(), n_bootstrap=50)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    for name in SCORES:
        low, high = scores["intervals"][name]["cells"]
        assert low <= high
        assert scores["folds"][1]["intervals"][name]["cells"][0] <= scores["folds"][1][name]
        assert isinstance(scores["observed_only"][name], float)
    for name in ("pearson_r", "accuracy", "mae", "r2_income_rank", "quadratic_weighted_kappa"):
        assert scores[name] == pytest.approx(np.mean([f[name] for f in scores["folds"]]))
        for unit in ("cells", "blocks"):
            low, high = scores["intervals"][name][unit]
            assert low < scores[name] < high
    assert [b["n"] for b in scores["reliability"]] == pytest.approx(
        np.histogram(made_up().filter(like="probability").max(axis=1), bins=np.linspace(0, 1, 11))[
            0
        ]
    )
    shares = scores["confusion_share_intervals"]["blocks"]
    assert np.shape(shares["low"]) == np.shape(shares["high"]) == (5, 5)
    counts = np.array(scores["confusion"])
    inside = (shares["low"] <= counts / counts.sum(axis=1, keepdims=True) + 1e-12).mean()
    assert inside > 0.9


def test_same_seed_same_intervals_other_seed_others():
    first, again, other = (
        metrics(made_up(), n_bootstrap=50, seed=s)["intervals"] for s in (1, 1, 2)
    )
    assert first == again
    assert first["pearson_r"] != other["pearson_r"]


def test_missing_cells_and_weights_change_nothing():
    cells = made_up()
    extra = made_up(30, seed=9)
    extra.index = [f"extra-{i}" for i in range(30)]
    extra.loc[extra.index[:10], "ses_predicted"] = pd.NA
    extra.loc[extra.index[10:20], "fold"] = pd.NA
    extra.loc[extra.index[20:], "labelled"] = False
    both = pd.concat([cells, extra]).assign(weight=np.random.default_rng(0).random(330))
    both.attrs = cells.attrs
    assert metrics(both, n_bootstrap=50) == metrics(cells, n_bootstrap=50)


def test_tables_without_probabilities_or_places_have_fewer_scores():
    cells = made_up(with_p=False).drop(columns=["row", "col", "income", "imputed"])
    scores = metrics(cells, n_bootstrap=50)
    full = metrics(made_up(), n_bootstrap=50)
    for name in ("r2_income_rank", "expected_calibration_error"):
        assert scores[name] is None
        assert scores["intervals"][name] == {"cells": None, "blocks": None}
    assert scores["reliability"] is scores["observed_only"] is scores["n_blocks"] is None
    assert scores["confusion_share_intervals"]["blocks"] is None
    assert scores["pearson_r"] == full["pearson_r"]
    assert scores["intervals"]["mae"]["cells"] == full["intervals"]["mae"]["cells"]
    assert scores["intervals"]["mae"]["blocks"] is None
    json.dumps(scores, allow_nan=False)


def test_lost_probabilities_and_incomes_leave_the_other_scores_alone():
    cells, full = made_up(), metrics(made_up(), n_bootstrap=0)
    cells.loc[cells.index[:20], "probability_2"] = np.nan
    cells.loc[cells.index[20:50], "income"] = np.nan
    scores = metrics(cells, n_bootstrap=0)
    assert scores["accuracy"] == full["accuracy"]
    assert sum(b["n"] for b in scores["reliability"]) == 280
    assert scores["r2_income_rank"] != full["r2_income_rank"]
    assert scores["intervals"]["mae"] == {"cells": None, "blocks": None}


def test_observed_only_is_the_score_of_the_observed_cells():
    cells = made_up()
    cells.loc[cells.index[:5], "imputed"] = pd.NA
    observed = cells[(cells["imputed"] == False).fillna(False).astype(bool)]  # noqa: E712
    observed.attrs = cells.attrs
    alone, beside = metrics(observed, n_bootstrap=0), metrics(cells, n_bootstrap=0)["observed_only"]
    assert alone["observed_only"] is None
    assert beside == {name: alone[name] for name in (*SCORES, "n")}


def test_fold_of_one_class_is_scored_as_far_as_it_goes():
    cells = made_up()
    cells.loc[cells["fold"] == 2, ["ses_true", "ses_predicted"]] = 3
    scores = metrics(cells, n_bootstrap=50)
    fold = scores["folds"][2]
    assert fold["pearson_r"] is fold["spearman_r"] is fold["quadratic_weighted_kappa"] is None
    assert fold["intervals"]["pearson_r"] == {"cells": None}
    assert fold["accuracy"] == 1
    assert scores["pearson_r"] == pytest.approx(
        sum(f["pearson_r"] for f in scores["folds"][:2]) / 3
    )
    assert "fold 2" in scores["notes"][0]


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_cells(n):
    scores = metrics(made_up().iloc[:n].assign(fold=0), n_bootstrap=20)
    assert scores["n"] == n
    assert (scores["intervals"]["accuracy"]["cells"] is None) == (n == 1)
    json.dumps(scores, allow_nan=False)


def test_two_classes():
    scores = metrics(made_up(k=2), n_bootstrap=50)
    assert np.shape(scores["confusion"]) == (2, 2)
    assert scores["accuracy_within_one"] == 1
    assert scores["pearson_r"] == pytest.approx(scores["spearman_r"])
    assert scores["mae"] == pytest.approx(1 - scores["accuracy"])


# Kinds of folds -------------------------------------------------------------------------------


def test_a_table_beside_itself_has_no_gap():
    cells = made_up()
    gap = compare_folds({"random": cells, "spatial": cells}, n_bootstrap=100)["leakage_gap"]
    assert set(gap) == set(SCORES)
    for name in SCORES:
        assert gap[name] == {"value": 0.0, "cells": [0.0, 0.0], "blocks": [0.0, 0.0]}


def test_both_kinds_are_scored_as_alone_and_the_gap_lies_between():
    cells, other = made_up(), worse(made_up())
    both = compare_folds({"spatial": other, "random": cells}, n_bootstrap=100, seed=3)
    assert both["random"] == metrics(cells, n_bootstrap=100, seed=3)
    assert both["spatial"] == metrics(other, n_bootstrap=100, seed=3)
    for name in SCORES:
        gap = both["leakage_gap"][name]
        assert gap["value"] == both["random"][name] - both["spatial"][name]
    assert both["leakage_gap"]["pearson_r"]["blocks"][0] > 0
    assert both["leakage_gap"]["mae"]["blocks"][1] < 0
    json.dumps(both, allow_nan=False)


def test_the_gap_is_paired():
    cells = made_up()
    other = cells.copy()
    changed = other.index[:10]
    other.loc[changed, "ses_predicted"] = 6 - cells.loc[changed, "ses_predicted"]
    both = compare_folds({"random": cells, "spatial": other}, n_bootstrap=200)
    alone = np.diff(both["random"]["intervals"]["mae"]["cells"])[0]
    paired = np.diff(both["leakage_gap"]["mae"]["cells"])[0]
    assert 0 < paired < alone


def test_order_of_the_other_table_does_not_matter():
    cells, other = made_up(), worse(made_up())
    shuffled = other.sample(frac=1, random_state=0)
    one, two = (
        compare_folds({"random": cells, "spatial": o}, n_bootstrap=50) for o in (other, shuffled)
    )
    assert one == two


def test_only_cells_that_both_score_are_compared():
    cells, other = made_up(), worse(made_up())
    other.loc[other.index[:40], "ses_predicted"] = pd.NA
    both = compare_folds({"random": cells, "spatial": other}, n_bootstrap=20)
    assert both["random"]["n"] == both["spatial"]["n"] == 260
    fewer = cells.iloc[40:]
    fewer.attrs = cells.attrs
    assert both["random"] == metrics(fewer, n_bootstrap=20)


def test_tables_with_nothing_in_common_have_no_gap():
    cells = made_up()
    other = cells.rename(index=lambda i: f"other-{i}")
    other.attrs = cells.attrs
    both = compare_folds({"random": cells, "spatial": other}, n_bootstrap=20)
    assert both["random"]["n"] == 0
    assert both["leakage_gap"]["pearson_r"] == {"value": None, "cells": None, "blocks": None}


def test_tables_that_do_not_belong_together_are_refused():
    cells, other = made_up(), made_up()
    with pytest.raises(FormatError, match="received random"):
        compare_folds({"random": cells})
    other["ses_true"] = 6 - other["ses_true"]
    with pytest.raises(FormatError, match="with the same labels"):
        compare_folds({"random": cells, "spatial": other})
    with pytest.raises(MissingInputError, match="ses_predicted"):
        compare_folds({"random": cells, "spatial": cells.drop(columns="ses_predicted")})


def test_a_run_compares_the_other_folds_only_where_they_belong_to_it(tmp_path):
    from types import SimpleNamespace

    from sesgrid.run.results import _LEARNT, _cells, _other_folds
    from sesgrid.run.tables import CellTable
    from sesgrid.run.workspace import Workspace
    from tests.fake_city import fake_cells, fake_spatial_folds
    from tests.small_run import write_cells

    cells = fake_cells(8)
    job = SimpleNamespace(files=Workspace(tmp_path))
    assert _other_folds(job, cells) is None
    other = fake_spatial_folds(cells)
    write_cells(job.files, "predict-other", other)
    read = _other_folds(job, cells)
    bare = pd.DataFrame(other.drop(columns="geometry")).reindex(read.index)
    # what scores need, and no more: a nation's columns of text fill most of its table
    assert set(read.columns) < set(bare.columns)
    assert "model_id" not in read
    same = other.loc[read.index]
    same.attrs = other.attrs
    assert metrics(read, n_bootstrap=5) == metrics(same, n_bootstrap=5)
    bare = bare[list(read.columns)]
    pd.testing.assert_frame_equal(read, bare, check_dtype=False)
    # nor less: the baselines are scored with what they read
    learnt = _cells(CellTable(job.files.table("predict-other")), *_LEARNT)
    assert {"weight", "coverage", "void_share"} <= {*_LEARNT}
    scored = learnt.join(read.filter(regex="ses_predicted|probability_"))
    scored.attrs = other.attrs
    assert metrics(scored, n_bootstrap=5) == metrics(same, n_bootstrap=5)
    assert _other_folds(job, other) is None
    elsewhere = cells.copy()
    elsewhere.attrs = {**cells.attrs, "thresholds": [1.0, 2.0, 3.0, 4.0]}
    assert _other_folds(job, elsewhere) is None
