from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sesgrid.kernels.bootstrap import percentile_interval, resample_counts
from sesgrid.kernels.statistics import ColumnSums, activation_ratios, pearson_r, ridge_predict

quick = settings(max_examples=40, deadline=None)


@st.composite
def cells_of_classes(draw):
    """Activation sums and areas of a few cells; zeros of both kinds included."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 5)))
    area = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 50)))
    sums = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 100, width=32)))
    return np.where(sums < 1e-3, 0.0, sums), area


def naive_ratio(sums, area, u):
    """r_u of one cell, as printed: A_u / (F_u · Σ_k A_k)."""
    if area[u] == 0:
        return np.nan
    total = sum(a for a, n in zip(sums, area, strict=True) if n > 0)
    if total == 0:
        return np.nan
    return sums[u] / (area[u] / sum(area) * total)


@quick
@given(cells_of_classes())
def test_ratios_are_the_papers_formula(drawn):
    sums, area = drawn
    expected = [
        [naive_ratio(a, n, u) for u in range(len(a))] for a, n in zip(sums, area, strict=True)
    ]
    np.testing.assert_allclose(activation_ratios(sums, area), expected, rtol=1e-12)


@quick
@given(cells_of_classes(), st.floats(1e-6, 1e6))
def test_ratios_do_not_depend_on_the_scale_of_a_cell(drawn, factor):
    sums, area = drawn
    factors = factor * np.arange(1, len(sums) + 1)[:, None]
    np.testing.assert_allclose(
        activation_ratios(sums * factors, area), activation_ratios(sums, area), rtol=1e-9
    )


@quick
@given(cells_of_classes())
def test_ratios_weighted_by_area_share_sum_to_one(drawn):
    sums, area = drawn
    ratios = activation_ratios(sums, area)
    defined = np.isfinite(ratios).any(axis=1)
    share = area / np.maximum(area.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(np.nansum(ratios * share, axis=1)[defined], 1.0)


@quick
@given(hnp.arrays(np.int64, (4, 3), elements=st.integers(0, 1000)))
def test_uniform_activation_gives_exactly_one(area):
    ratios = activation_ratios(area.astype(float), area)
    assert (ratios[area > 0] == 1.0).all()
    assert np.isnan(ratios[area == 0]).all()


def test_sums_of_absent_classes_and_broken_cells_count_nowhere():
    area = np.array([[10, 0, 10], [10, 0, 10], [10, 0, 10]])
    sums = np.array([[1.0, 99.0, 3.0], [np.nan, 0.0, 1.0], [0.0, 5.0, 0.0]])
    ratios = activation_ratios(sums, area)
    assert ratios[0, 0] == 0.5
    assert ratios[0, 2] == 1.5
    assert np.isnan(ratios[1:]).all()


def resampled(values, n_bootstrap, seed=1):
    """Means of columns of a table whose cells all come at once."""
    sums = ColumnSums(*values.shape, np.random.default_rng(seed))
    sums.add(np.arange(len(values)), values)
    return sums.means(n_bootstrap)


def test_bootstrap_interval_is_scipys():
    values = np.random.default_rng(0).lognormal(size=(150, 1))
    low, high = resampled(values, 8000).interval()
    oracle = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=8000, method="percentile", rng=2
    ).confidence_interval
    width = oracle.high - oracle.low
    assert low[0] == pytest.approx(oracle.low, abs=0.04 * width)
    assert high[0] == pytest.approx(oracle.high, abs=0.04 * width)


def test_bootstrap_of_missing_values_is_the_interval_of_those_there():
    values = np.random.default_rng(0).normal(3, 1, (400, 2))
    values[100:, 1] = np.nan
    low, high = resampled(values, 6000).interval()
    oracle = stats.bootstrap(
        (values[:100, 1],), np.mean, n_resamples=6000, method="percentile", rng=2
    ).confidence_interval
    width = oracle.high - oracle.low
    assert low[1] == pytest.approx(oracle.low, abs=0.08 * width)
    assert high[1] == pytest.approx(oracle.high, abs=0.08 * width)


def test_resamples_are_those_of_a_naive_loop_over_the_same_draws():
    """Cells come in any order, some at a time; those that have nothing are not drawn."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random((40, 3)) < 0.5, np.nan, rng.normal(size=(40, 3)))
    values[[3, 17]] = np.nan
    sums = ColumnSums(60, 3, np.random.default_rng(1))
    order = rng.permutation(40)
    for some in np.array_split(order, 7):
        sums.add(some + 20, values[some])  # the first 20 of the table never come
    means = sums.means(30)
    there = values[np.isfinite(values).any(axis=1)]
    draws = np.random.default_rng(1).integers(0, len(there), (30, len(there)))
    np.testing.assert_allclose(means.resamples, [np.nanmean(there[d], axis=0) for d in draws])
    np.testing.assert_allclose(means.mean, np.nanmean(values, axis=0))
    np.testing.assert_array_equal(means.count, np.isfinite(values).sum(axis=0))
    some = means.columns(np.array([2, 0]))
    np.testing.assert_array_equal(some.resamples, means.resamples[:, [2, 0]])
    np.testing.assert_array_equal(
        [some.count, some.mean], [means.count[[2, 0]], means.mean[[2, 0]]]
    )


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    inside = 0
    for seed in range(200):
        low, high = resampled(rng.normal(size=(40, 1)), 300, seed).interval()
        inside += low[0] <= 0 <= high[0]
    assert 0.87 <= inside / 200 <= 0.99


def test_bootstrap_resamples_columns_together():
    x = np.random.default_rng(0).lognormal(size=(60, 1))
    means = resampled(np.concatenate([x, 2 * x], axis=1), 200).resamples
    np.testing.assert_allclose(means[:, 1] / means[:, 0], 2.0)


def test_bootstrap_does_not_depend_on_the_batch(monkeypatch):
    values = np.random.default_rng(0).normal(size=(30, 2))
    whole = resampled(values, 100).resamples
    monkeypatch.setattr("sesgrid.kernels.bootstrap._BATCH_COUNTS", 30 * 7)
    np.testing.assert_allclose(resampled(values, 100).resamples, whole, rtol=1e-12)


def test_bootstrap_of_very_many_cells_draws_groups_of_them(monkeypatch):
    """The intervals are those of drawing cells, also of a column that few cells have, and of a ratio."""
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=(20_000, 2))
    values[rng.random(20_000) < 0.95, 1] = np.nan

    def bounds(seed):
        m = resampled(values, 4000, seed).resamples
        return np.array(percentile_interval(np.concatenate([m, m[:, 1:] / m[:, :1]], axis=1)))

    exact = bounds(1)
    monkeypatch.setattr("sesgrid.kernels.bootstrap.MOST_UNITS", 3_000)
    drawn = []

    def counted(n_units, *args):
        drawn.append(n_units)
        return resample_counts(n_units, *args)

    monkeypatch.setattr("sesgrid.kernels.bootstrap.resample_counts", counted)
    off = np.abs(bounds(2) - exact).max(axis=0)
    np.testing.assert_array_less(off, 0.08 * np.ptp(exact, axis=0))
    assert drawn == [3_000]


@pytest.mark.parametrize("values", [np.empty((0, 2)), np.full((5, 2), np.nan)])
def test_bootstrap_of_nothing_is_nan(values):
    means = resampled(values, 10)
    assert np.isnan(means.interval()).all()
    assert np.isnan(means.mean).all()
    assert means.count.tolist() == [0, 0]
    assert np.shape(means.interval()) == (2, 2)


def test_a_mean_of_one_cell_has_no_interval():
    low, high = resampled(np.array([[1.0, np.nan], [2.0, 5.0]]), 50).interval()
    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([low[1], high[1]]).all()


pairs_of_classes = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=60
).map(np.array)


@quick
@given(pairs_of_classes)
def test_pearson_is_scipys_or_undefined(pairs):
    true, predicted = pairs.T
    if len(pairs) < 2 or np.ptp(true) == 0 or np.ptp(predicted) == 0:
        assert np.isnan(pearson_r(true, predicted))
    else:
        expected = stats.pearsonr(true, predicted).statistic
        assert pearson_r(true, predicted) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 100.0])
def test_ridge_is_sklearns(alpha):
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(5, 3, (40, 3)), rng.normal(2, 1, 40), rng.normal(5, 3, (10, 3))
    model = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(x, y)
    np.testing.assert_allclose(ridge_predict(x, y, new, alpha=alpha), model.predict(new))


def test_ridge_bears_a_constant_feature():
    x = np.c_[np.full(5, 7.0), np.arange(5.0)]
    np.testing.assert_allclose(ridge_predict(x, np.arange(5.0), x, alpha=0.0), np.arange(5.0))
