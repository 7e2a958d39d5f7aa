from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sesgrid.errors import FormatError, GridMismatchError, MissingInputError, TooFewCellsError
from sesgrid.stages.analyse import (
    activation_table,
    analyse,
    colour_baseline,
    metrics,
    pair_table,
)
from tests.fake_city import CLASSES, GROUPS, fake_activation, fake_cells, fake_spatial_folds


@pytest.fixture(scope="module")
def cells():
    return fake_cells(20)


@pytest.fixture(scope="module")
def activation(cells):
    return fake_activation(cells)


# The paper's formulas, cell by cell -----------------------------------------------------------


def naive_ratios(cells, activation, name, side):
    """{cell: r_u} of the cells predicted on a side that hold the class."""
    ratios, wanted = {}, {"low": (1, 2), "high": (4, 5)}[side]
    u = CLASSES.index(name)
    for i, cell_id in enumerate(activation["cell"].values):
        predicted = cells.loc[cell_id, "ses_predicted"]
        areas = activation["area"].values[i]
        if pd.isna(predicted) or predicted not in wanted or areas[u] == 0:
            continue
        sums = activation["activation"].sel(map=side).values[i]
        share = areas[u] / sum(areas[1:])
        ratios[cell_id] = sums[u] / (share * sum(sums[1:]))
    return ratios


def naive_truth(cells, activation, names, classes):
    """Is the true class among ``classes``, for every cell that holds all the named classes."""
    columns = [CLASSES.index(name) for name in names]
    held = (activation["area"].values[:, columns] > 0).all(axis=1)
    true = cells.loc[activation["cell"].values[held], "ses_true"].dropna()
    return [int(t in classes) for t in true]


@pytest.mark.parametrize("side", ["low", "high"])
def test_table_is_the_papers_formulas(cells, activation, side):
    table = activation_table(cells, activation, groups=GROUPS, n_bootstrap=50)
    rows = table[table["prediction"] == side].set_index("landcover_class")
    assert list(rows.index) == list(CLASSES[1:])
    within, outermost = {"low": ((1, 2), (1,)), "high": ((4, 5), (5,))}[side]
    for name in CLASSES[1:]:
        ratios = list(naive_ratios(cells, activation, name, side).values())
        assert rows.loc[name, "n_cells"] == len(ratios)
        assert rows.loc[name, "activation_ratio"] == pytest.approx(np.mean(ratios))
        truth = naive_truth(cells, activation, [name], within)
        assert rows.loc[name, "n_cells_probability"] == len(truth)
        assert rows.loc[name, "probability"] == pytest.approx(np.mean(truth))
        extreme = naive_truth(cells, activation, [name], outermost)
        assert rows.loc[name, "probability_extreme"] == pytest.approx(np.mean(extreme))
        assert rows.loc[name, "group"] == GROUPS[name]


def test_an_imputed_income_is_no_truth(cells, activation):
    some = cells.copy()
    some.attrs = dict(cells.attrs)
    some.loc[some.index[::3], "labelled"] = False
    unknown = some.copy()
    unknown.attrs = dict(cells.attrs)
    unknown.loc[unknown.index[::3], "ses_true"] = pd.NA
    one, other = (activation_table(c, activation, n_bootstrap=5) for c in (some, unknown))
    pd.testing.assert_frame_equal(one, other)
    full = activation_table(cells, activation, n_bootstrap=5)
    assert (one["n_cells_probability"] < full["n_cells_probability"]).any()
    pd.testing.assert_series_equal(one["activation_ratio"], full["activation_ratio"])


def test_intervals_are_scipys(cells, activation):
    table = activation_table(cells, activation, n_bootstrap=4000)
    row = table[(table["prediction"] == "low") & (table["landcover_class"] == "railways")].iloc[0]
    ratios = list(naive_ratios(cells, activation, "railways", "low").values())
    truth = naive_truth(cells, activation, ["railways"], (1, 2))
    for values, low, high in (
        (ratios, row["ci_low"], row["ci_high"]),
        (truth, row["probability_ci_low"], row["probability_ci_high"]),
    ):
        oracle = stats.bootstrap(
            (values,), np.mean, n_resamples=4000, method="percentile", rng=1
        ).confidence_interval
        width = oracle.high - oracle.low
        assert low == pytest.approx(oracle.low, abs=0.12 * width)
        assert high == pytest.approx(oracle.high, abs=0.12 * width)


@pytest.mark.parametrize("side", ["low", "high"])
def test_pairs_are_the_papers_formulas(cells, activation, side):
    table = pair_table(cells, activation, groups=GROUPS, n_bootstrap=30)
    rows = table[table["prediction"] == side].set_index(["landcover_class", "neighbour"])
    residential = {name for name, group in GROUPS.items() if group == "residential"}
    assert set(rows.index.get_level_values(0)) == residential
    within = {"low": (1, 2), "high": (4, 5)}[side]
    ratios = {name: naive_ratios(cells, activation, name, side) for name in CLASSES[1:]}
    filled = 0
    for (u, v), row in rows.iterrows():
        both = [r for cell_id, r in ratios[u].items() if cell_id in ratios[v]]
        assert row["n_cells"] == len(both)
        if len(both) < 10:
            assert row[["coactivation", "ci_low", "ci_high"]].isna().all()
        else:
            filled += 1
            expected = np.mean(both) / np.mean(list(ratios[u].values()))
            assert row["coactivation"] == pytest.approx(expected)
            assert row["ci_low"] < row["ci_high"]
        truth = naive_truth(cells, activation, [u, v], within)
        assert row["n_cells_gain"] == len(truth)
        if len(truth) < 10:
            assert row[["gain", "gain_ci_low", "gain_ci_high"]].isna().all()
        else:
            alone = np.mean(naive_truth(cells, activation, [u], within))
            assert row["gain"] == pytest.approx(np.mean(truth) / alone)
    assert filled > 10


def test_unclassified_pixels_count_nowhere(cells, activation):
    changed = activation.copy(deep=True)
    changed["activation"].values[:, :, 0] = 1e9
    changed["area"].values[:, 0] = 12_345
    expected = activation_table(cells, activation, n_bootstrap=20)
    pd.testing.assert_frame_equal(activation_table(cells, changed, n_bootstrap=20), expected)


def test_order_of_cells_and_dimensions_does_not_matter(cells, activation):
    shuffled = activation.isel(cell=np.random.default_rng(0).permutation(len(cells)))
    shuffled = shuffled.transpose("landcover_class", "map", "cell")
    expected = activation_table(cells, activation, n_bootstrap=20)
    pd.testing.assert_frame_equal(activation_table(cells, shuffled, n_bootstrap=20), expected)


def test_cells_are_looked_at_some_at_a_time(cells, activation, monkeypatch):
    tables = [
        lambda: activation_table(cells, activation, n_bootstrap=20),
        lambda: pair_table(cells, activation, groups=GROUPS, n_bootstrap=20),
    ]
    whole = [table() for table in tables]
    monkeypatch.setattr("sesgrid.stages.evidence._AT_ONCE", 17)
    for table, expected in zip(tables, whole, strict=True):
        pd.testing.assert_frame_equal(table(), expected)
        assert table().attrs == expected.attrs


def test_both_tables_of_an_analysis_are_those_asked_for_alone(cells, activation):
    found = analyse(cells, activation, groups=GROUPS, n_bootstrap=20, seed=3)
    drawn = {"groups": GROUPS, "n_bootstrap": 20, "seed": 3}
    pd.testing.assert_frame_equal(found.activation, activation_table(cells, activation, **drawn))
    pd.testing.assert_frame_equal(found.pairs, pair_table(cells, activation, **drawn))


def test_same_seed_same_intervals_other_seed_others(cells, activation):
    first, again, other = (
        activation_table(cells, activation, n_bootstrap=50, seed=seed)["ci_low"]
        for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_uniform_activation_has_no_preference(cells, activation):
    uniform = activation.copy(deep=True)
    uniform["activation"].values[:] = activation["area"].values[:, None, :]
    table = activation_table(cells, uniform, n_bootstrap=20)
    np.testing.assert_allclose(table[["activation_ratio", "ci_low", "ci_high"]], 1.0)


def test_planted_preference_is_found(cells, activation):
    table = activation_table(cells, activation, groups=GROUPS, n_bootstrap=300)
    residential = table[(table["group"] == "residential") & (table["n_cells"] > 10)]
    others = table[(table["group"] != "residential") & (table["n_cells"] > 10)]
    assert (residential["ci_low"] > 1).all()
    assert (others["activation_ratio"] < residential["activation_ratio"].min()).all()


def test_dark_and_unexplained_cells_are_left_out_and_dark_ones_counted(cells, activation):
    low = cells.index[(cells["ses_predicted"] <= 2).fillna(False)]
    dark = activation.copy(deep=True)
    dark["activation"].loc[{"cell": low[:3].to_numpy(object)}] = 0.0
    dark = dark.drop_sel(cell=[low[5]])
    table = activation_table(cells, dark, n_bootstrap=10)
    assert table.attrs["cells_without_activation"] == {"low": 3, "high": 0}
    expected = naive_ratios(cells, activation.drop_sel(cell=low[[0, 1, 2, 5]]), "roads", "low")
    row = table[(table["prediction"] == "low") & (table["landcover_class"] == "roads")].iloc[0]
    assert row["n_cells"] == len(expected)
    assert row["activation_ratio"] == pytest.approx(np.mean(list(expected.values())))


def test_classes_in_no_cell_have_no_row_and_lonely_ones_no_interval(cells, activation):
    sparse = activation.copy(deep=True)
    port, water = CLASSES.index("port"), CLASSES.index("water")
    sparse["area"].values[:, [port, water]] = 0
    chosen = int(np.flatnonzero((cells["ses_predicted"] == 1).fillna(False))[0])
    sparse["area"].values[chosen, water] = 7
    table = activation_table(cells, sparse, n_bootstrap=10)
    assert "port" not in set(table["landcover_class"])
    low, high = (
        table[(table["landcover_class"] == "water") & (table["prediction"] == s)].iloc[0]
        for s in ("low", "high")
    )
    assert (low["n_cells"], high["n_cells"]) == (1, 0)
    assert np.isfinite(low["activation_ratio"])
    assert np.isnan([low["ci_low"], low["ci_high"], high["activation_ratio"]]).all()


@pytest.mark.parametrize(("n_classes", "chance"), [(2, 1 / 2), (3, 1 / 3), (4, 1 / 2), (5, 2 / 5)])
def test_ends_of_the_scale_never_overlap(n_classes, chance):
    cells = fake_cells(16, n_classes=n_classes)
    table = activation_table(cells, fake_activation(cells), n_bootstrap=5)
    assert table.attrs["chance"] == pytest.approx(chance)
    assert table.attrs["chance_extreme"] == pytest.approx(1 / n_classes)
    wide = table.pivot_table(index="landcover_class", columns="prediction", values="probability")
    assert (wide.sum(axis=1) <= 1 + 1e-12).all()


@pytest.mark.parametrize("empty", ["none", "no cells", "nothing classified"])
def test_no_land_cover_gives_empty_tables_with_their_columns(cells, activation, empty):
    given = {
        "none": None,
        "no cells": activation.isel(cell=slice(0, 0)),
        "nothing classified": activation * 0,
    }[empty]
    full = analyse(cells, activation, groups=GROUPS, n_bootstrap=5)
    findings = analyse(cells, given, groups=GROUPS, n_bootstrap=5)
    for table, like in ((findings.activation, full.activation), (findings.pairs, full.pairs)):
        assert len(table) == 0
        pd.testing.assert_series_equal(table.dtypes, like.dtypes)
    assert findings.metrics == full.metrics


def test_activation_csv_has_the_promised_columns(cells, activation):
    table = activation_table(cells, activation, n_bootstrap=5)
    promised = ["prediction", "landcover_class", "n_cells", "activation_ratio", "ci_low", "ci_high"]
    promised += ["probability", "probability_ci_low", "probability_ci_high"]
    assert set(promised) <= set(table.columns)


# Bad input ------------------------------------------------------------------------------------


def test_sums_of_another_run_are_refused(cells, activation):
    with pytest.raises(GridMismatchError, match="1 cells that the table of cells lacks"):
        activation_table(cells.iloc[1:], activation)
    twice = activation.isel(cell=[0, 0, 1])
    with pytest.raises(GridMismatchError, match="1 cells twice"):
        activation_table(cells, twice)


def test_sums_with_a_stranger_and_a_cell_twice_are_refused_for_both(cells, activation):
    both = activation.isel(cell=[0, 1, 1])
    with pytest.raises(GridMismatchError, match=r"name 1 cells that .* lacks .* 1 cells twice"):
        activation_table(cells.iloc[1:], both)


def test_a_cell_twice_in_the_table_is_refused(cells, activation):
    twice = cells.iloc[[0, *range(len(cells))]]
    twice.attrs = cells.attrs
    with pytest.raises(GridMismatchError, match="table of cells names 1 cells twice"):
        activation_table(twice, activation)


def test_negative_sums_are_refused(cells, activation):
    with pytest.raises(FormatError, match="must not be negative"):
        activation_table(cells, activation * -1)


def test_classes_must_start_with_unclassified(cells, activation):
    with pytest.raises(FormatError, match="unclassified"):
        activation_table(cells, activation.isel(landcover_class=slice(1, None)))


def test_tables_without_columns_or_attributes_are_refused(cells):
    with pytest.raises(MissingInputError, match="ses_predicted"):
        metrics(cells.drop(columns="ses_predicted"))
    bare = cells.copy()
    bare.attrs = {}
    with pytest.raises(MissingInputError, match="n_classes"):
        metrics(bare)
    bare.attrs = {"n_classes": 1}
    with pytest.raises(TooFewCellsError, match="at least 2"):
        metrics(bare)


# Scores ---------------------------------------------------------------------------------------


def test_scores_are_means_over_folds(cells):
    scores = metrics(cells)
    seen = cells[cells["ses_predicted"].notna()]
    expected = []
    for fold, rows in seen.groupby("fold"):
        true, predicted = (rows[c].to_numpy(int) for c in ("ses_true", "ses_predicted"))
        others = seen.loc[seen["fold"] != fold, "ses_true"].to_numpy(int)
        expected.append(
            {
                "fold": int(fold),
                "n": len(rows),
                "pearson_r": stats.pearsonr(true, predicted).statistic,
                "accuracy": accuracy_score(true, predicted),
                "accuracy_within_one": np.mean(abs(true - predicted) <= 1),
                "mae": mean_absolute_error(true, predicted),
                "majority_baseline_accuracy": np.mean(true == stats.mode(others).mode),
            }
        )
    assert len(scores["folds"]) == 3
    for fold, oracle in zip(scores["folds"], expected, strict=True):
        assert {k: fold[k] for k in oracle} == pytest.approx(oracle)
    for key in ("pearson_r", "accuracy", "accuracy_within_one", "mae"):
        assert scores[key] == pytest.approx(np.mean([f[key] for f in expected]))
    assert scores["n"] == len(seen) == np.sum(scores["confusion"])
    rows = np.array(scores["confusion"]).sum(axis=1)
    np.testing.assert_array_equal(rows, seen["ses_true"].value_counts().sort_index())


def test_only_labelled_predicted_cells_with_a_fold_are_scored(cells):
    changed = cells.copy()
    expected = int(changed["ses_predicted"].notna().sum()) - 30
    complete = changed.index[changed["ses_predicted"].notna()]
    changed.loc[complete[:10], "labelled"] = False
    changed.loc[complete[10:20], "fold"] = pd.NA
    changed.loc[complete[20:30], "ses_true"] = pd.NA
    assert metrics(changed)["n"] == expected


def test_constant_predictions_count_as_no_correlation(cells):
    changed = cells.copy()
    changed.loc[changed["fold"] == 1, "ses_predicted"] = 3
    scores = metrics(changed)
    folds = [f["pearson_r"] for f in scores["folds"]]
    assert folds[1] is None
    assert scores["pearson_r"] == pytest.approx((folds[0] + folds[2]) / 3)
    assert "fold 1" in scores["notes"][0]


def test_scores_of_nothing_are_null_and_valid_json(cells, activation):
    nothing = cells.assign(labelled=False)
    scores = analyse(nothing, activation, groups=GROUPS, n_bootstrap=5).metrics
    assert scores["n"] == 0
    assert scores["pearson_r"] is scores["accuracy"] is scores["pearson_r_colour_baseline"] is None
    assert "nothing to score" in scores["notes"][0]
    json.dumps(scores, allow_nan=False)


def test_scores_are_valid_json(cells, activation):
    colour = pd.DataFrame(
        np.random.default_rng(0).random((len(cells), 3)), index=cells.index, columns=list("rgb")
    )
    scores = analyse(
        cells, activation, groups=GROUPS, n_bootstrap=5, mean_colour=colour.iloc[::-1]
    ).metrics
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    expected = colour_baseline(
        colour.to_numpy(), cells["ses_true"].to_numpy(), cells["fold"].to_numpy(), n_classes=5
    )
    assert scores["pearson_r_colour_baseline"] == pytest.approx(expected)


def test_both_kinds_of_folds_are_compared_where_both_are_given(cells):
    alone = analyse(cells, None, groups={}, n_bootstrap=20).metrics
    assert (alone["folds_kind"], alone["by_folds"]) == ("random", None)
    other = fake_spatial_folds(cells)
    both = analyse(cells, None, groups={}, n_bootstrap=20, other_folds=other).metrics
    assert both | {"by_folds": None} == alone
    assert both["by_folds"]["random"] == metrics(cells, n_bootstrap=20)
    assert both["by_folds"]["leakage_gap"]["pearson_r"]["value"] > 0.05
    swapped = analyse(other, None, groups={}, n_bootstrap=20, other_folds=cells).metrics
    assert swapped["folds_kind"] == "spatial"
    assert swapped["by_folds"] == both["by_folds"]
    assert swapped["pearson_r"] == both["by_folds"]["spatial"]["pearson_r"]
    assert json.loads(json.dumps(both, allow_nan=False)) == both


def test_kinds_of_folds_must_be_two(cells):
    with pytest.raises(FormatError, match="random and spatial"):
        analyse(cells, None, groups={}, n_bootstrap=5, other_folds=cells)
    odd = cells.copy()
    odd.attrs = {**cells.attrs, "folds_kind": "diagonal"}
    with pytest.raises(FormatError, match="diagonal"):
        analyse(odd, None, groups={}, n_bootstrap=5)


def test_blocks_of_the_intervals_are_those_asked_for(cells):
    one, other = (
        analyse(cells, None, groups={}, n_bootstrap=20, cells_per_block=b).metrics for b in (1, 8)
    )
    assert one["n_blocks"] == one["n"] > other["n_blocks"]


@pytest.mark.parametrize("rounded", [False, True])
def test_colour_baseline_is_sklearns_ridge(cells, rounded):
    rng = np.random.default_rng(0)
    true, fold = cells["ses_true"], cells["fold"]
    colour = rng.normal(size=(len(cells), 3)) * [1, 5, 20] + true.to_numpy(float)[:, None]
    expected = []
    for f in range(3):
        held = (fold == f).to_numpy(bool)
        model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
        model.fit(colour[~held], true[~held].to_numpy(float))
        guess = model.predict(colour[held])
        guess = np.clip(np.rint(guess), 1, 5) if rounded else guess
        expected.append(stats.pearsonr(true[held].to_numpy(float), guess).statistic)
    r = colour_baseline(colour, true.to_numpy(), fold.to_numpy(), n_classes=5, rounded=rounded)
    assert r == pytest.approx(np.mean(expected))
    assert 0.3 < r < 0.95


def test_colour_baseline_leaves_out_what_is_missing(cells):
    colour = np.random.default_rng(0).normal(size=(len(cells), 3))
    true, fold = cells["ses_true"].copy(), cells["fold"].copy()
    keep = np.ones(len(cells), dtype=bool)
    keep[:15] = False
    expected = colour_baseline(colour[keep], true[keep], fold[keep], n_classes=5)
    colour[:5] = np.nan
    true.iloc[5:10] = pd.NA
    fold.iloc[10:15] = pd.NA
    got = colour_baseline(colour, true.to_numpy(), fold.to_numpy(), n_classes=5)
    assert got == pytest.approx(expected)


def test_colour_scores_are_null_without_colours(cells):
    for colour in (None, pd.DataFrame(index=cells.index)):
        scores = analyse(cells, None, groups={}, mean_colour=colour).metrics
        assert scores["pearson_r_colour_baseline"] is None


def test_colour_baseline_needs_two_folds():
    assert colour_baseline(np.ones((3, 3)), np.ones(3), np.zeros(3), n_classes=5) is None
    constant = colour_baseline(np.ones((4, 3)), [1, 2, 1, 2], [0, 0, 1, 1], n_classes=5)
    assert constant == 0
    assert not math.isnan(constant)
