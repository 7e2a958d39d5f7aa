"""Labels: quantiles with weights, thresholds of elsewhere, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sesgrid
from sesgrid.errors import (
    ConfigError,
    FormatError,
    MissingInputError,
    SesgridWarning,
    TooFewCellsError,
)
from sesgrid.run.config import load_config
from sesgrid.run.engine import facts_of
from sesgrid.run.job import Job
from sesgrid.run.pixel_stages import run_cells
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.stages.cells import usable
from sesgrid.stages.labels import Thresholds, quantile_thresholds
from tests.test_cells import census, label


@settings(max_examples=100, deadline=None)
@given(
    sample=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 9)), min_size=8, max_size=60
    ).filter(lambda s: len({v for v, w in s if w}) >= 6),
    k=st.integers(2, 4),
)
def test_whole_weights_repeat_each_cell_as_often_as_it_has_people(sample, k):
    income, weight = np.array(sample, dtype=np.float64).T
    repeated = np.repeat(income, weight.astype(int))
    expected = np.quantile(repeated, np.arange(1, k) / k)
    assume(np.all(np.diff(expected) > 1e-5))
    np.testing.assert_allclose(quantile_thresholds(income, k, weight), expected, atol=1e-6, rtol=0)


@settings(max_examples=50, deadline=None)
@given(
    weight=st.lists(st.floats(0.5, 400), min_size=30, max_size=30),
    seed=st.integers(0, 99),
)
def test_any_weights_put_the_same_weight_into_every_class(weight, seed):
    weight = np.array(weight)
    income = np.random.default_rng(seed).permutation(30) * 100.0 + 12_000
    assume(weight.max() < weight.sum() / 3 - 1)
    thresholds = quantile_thresholds(income, 3, weight)
    for share, threshold in zip((1 / 3, 2 / 3), thresholds, strict=True):
        below, upto = (weight[side].sum() for side in (income < threshold, income <= threshold))
        # to a person, the unit between whose ranks quantiles are interpolated
        assert below - 1.001 <= share * weight.sum() <= upto + 1.001


def test_equal_weights_change_nothing():
    income = np.random.default_rng(0).uniform(1e4, 4e4, 101)
    np.testing.assert_array_equal(
        quantile_thresholds(income, 5, np.ones(101)), quantile_thresholds(income, 5)
    )


@pytest.mark.parametrize("weight", [[-1.0, 1.0, 1.0], [np.nan, 1.0, 1.0], [0.0, 0.0, 0.0]])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(FormatError, match="individuals"):
        quantile_thresholds(np.array([1.0, 2.0, 3.0]), 2, np.array(weight))


def national():
    """A nation whose cells are richer and emptier one by one."""
    table = census(120, imputed=40, seed=1)
    table["income"] = np.linspace(10_000, 60_000, 120)
    table["individuals"] = np.arange(120.0, 0, -1)
    return table


def test_thresholds_of_the_nation_label_a_city_alike_in_every_run():
    table = national()
    nation = sesgrid.income_thresholds(table, of="nation", classes=3)
    observed = table.loc[~table["imputed"].astype(bool), "income"]
    np.testing.assert_allclose(nation.incomes, np.quantile(observed, [1 / 3, 2 / 3]), atol=1e-6)
    city = label(table.iloc[:100], thresholds=nation, classes=3, folds=2)
    assert city.attrs["thresholds"] == list(nation.incomes)
    assert (city.attrs["thresholds_of"], city.attrs["quantile_weight"]) == ("nation", "cells")
    np.testing.assert_array_equal(
        city["ses_true"].astype(int),
        1 + (city["income"].to_numpy()[:, None] > np.array(nation.incomes)).sum(axis=1),
    )
    # which cells enter is a choice, and so is what is counted
    both = sesgrid.income_thresholds(table, of="nation", classes=3, labels="all")
    np.testing.assert_allclose(both.incomes, np.quantile(table["income"], [1 / 3, 2 / 3]))
    people = sesgrid.income_thresholds(
        table, of="nation", classes=3, labels="weighted", weight="individuals"
    )
    repeated = np.repeat(table["income"], table["individuals"].astype(int))
    np.testing.assert_allclose(people.incomes, np.quantile(repeated, [1 / 3, 2 / 3]), atol=1e-6)
    assert people.weight == "individuals"


def test_cells_of_overlapping_cities_count_once():
    table = national()
    cities = sesgrid.income_thresholds(table.iloc[:70], table.iloc[50:], of="cities: A, B")
    assert cities.incomes == sesgrid.income_thresholds(table, of="nation").incomes
    assert cities.of == "cities: A, B"
    with pytest.raises(ConfigError, match="at least one table"):
        sesgrid.income_thresholds(of="cities")
    with pytest.raises(ConfigError, match="'cells', 'individuals', received 'people'"):
        sesgrid.income_thresholds(table, of="nation", weight="people")


def test_thresholds_of_ones_own():
    table = label(census(), thresholds=[20_000, 30_000], classes=3)
    assert table.attrs["thresholds"] == [20_000.0, 30_000.0]
    assert (table.attrs["thresholds_of"], table.attrs["quantile_weight"]) == ("given", None)
    assert (table.loc[table["income"] <= 20_000, "ses_true"] == 1).all()
    assert (table.loc[table["income"] > 30_000, "ses_true"] == 3).all()
    with pytest.raises(ConfigError, match=r"5 classes need 4 thresholds, received 2.*classes to 3"):
        label(census(), thresholds=[20_000, 30_000])
    for wrong in ([30_000, 20_000], [20_000, 20_000], [20_000, np.nan], []):
        with pytest.raises(ConfigError, match="each above the one before"):
            label(census(), thresholds=wrong, classes=3)


def test_a_class_without_cells_is_named_with_its_incomes():
    with pytest.raises(
        TooFewCellsError,
        match=r"class 1 \(up to 5,000.00 €\), class 4 \(above 90,000.00 €\): .*'given'.*60 labelled",
    ):
        label(census(), thresholds=[5_000, 25_000, 90_000], classes=4)
    middle = census()
    middle["income"] = np.where(np.arange(60) < 30, 11_000.0, 31_000.0) + np.arange(60)
    with pytest.raises(
        TooFewCellsError, match=r"class 2 \(above 15,000.00 and up to 25,000.00 €\)"
    ):
        label(middle, thresholds=Thresholds((15_000, 25_000)), classes=3)
    # a class of one cell is missing wherever that cell is tested
    single = census()
    single["income"] = np.where(np.arange(60) == 7, 90_000.0, single["income"])
    with pytest.raises(TooFewCellsError, match=r"random fold \d of 5 has .*none of class 3"):
        label(single, thresholds=[25_000, 80_000], classes=3)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, None])
def test_cells_without_an_income_are_named(wrong):
    table = census()
    table.loc[table.index[[3, 5]], "income"] = wrong
    with pytest.raises(FormatError, match=rf"2 of 60 cells .*first: .*{table.index[3]}"):
        label(table)
    with pytest.raises(FormatError, match="2 of 60 cells"):
        sesgrid.income_thresholds(table, of="nation")
    with pytest.raises(MissingInputError, match="no column 'income'"):
        label(table.drop(columns="income"))


def test_alike_incomes_are_refused_and_constant_ones_said_plainly():
    table = census()
    table["income"] = 20_000.0
    with pytest.raises(FormatError, match=r"all 60 .* the same income, 20000\.00"):
        label(table)
    table.loc[table.index[:2], "income"] = 30_000.0
    with pytest.raises(FormatError, match="too alike for 5 classes"):
        label(table)
    table["imputed"] = True
    with pytest.raises(FormatError, match="no cell is labelled"):
        sesgrid.income_thresholds(table, of="nation")


def test_imputed_cells_weigh_less_where_asked():
    table = label(census(imputed=20), labels="weighted", imputed_weight=0.1, folds=3)
    assert table["labelled"].all()
    np.testing.assert_array_equal(table["weight"], np.where(table["imputed"], 0.1, 1.0))
    assert table.attrs["imputed_weight"] == 0.1
    for labels in ("observed", "all"):
        plain = label(census(imputed=20), labels=labels, folds=3)
        assert (plain["weight"] == 1.0).all()
        assert plain.attrs["imputed_weight"] is None
    for wrong in (0.0, 1.0, -1.0, np.nan):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            label(census(), labels="weighted", imputed_weight=wrong)
    unflagged = census()
    unflagged["imputed"] = pd.array([pd.NA] * len(unflagged), dtype="boolean")
    with pytest.warns(SesgridWarning, match="no flag of imputed cells, so all weigh the same"):
        assert (label(unflagged, labels="weighted")["weight"] == 1.0).all()


def test_usable_cells_are_covered_and_not_void():
    table = pd.DataFrame(
        {"coverage": [1.0, 0.98, np.nan, 1.0, 0.995], "void_share": [0.01, 0.0, 0.0, np.nan, 0.011]}
    )
    assert usable(table).tolist() == [True, False, False, True, True]
    assert usable(table, 0.5).tolist() == [True, True, False, True, True]
    assert usable(table, 0.99, 0.01).tolist() == [True, False, False, False, False]
    with pytest.raises(MissingInputError, match="no void_share"):
        usable(table[["coverage"]], 0.99, 0.01)


SETTINGS = """
name = "West"
output = "out"
[sources]
census = "census_2019.csv"
ortho = "ortho"
boundary = "west.gpkg"
{sources}
[cells]
classes = 3
folds = 2
fold_block_cells = 3
{cells}
[train]
protocol = "scratch"
"""


@pytest.fixture
def west(tmp_path):
    """A census of two towns, the richer one in the east, and a run of the western."""
    table = national()
    pd.DataFrame(
        {
            "idcar_200m": table.index,
            "ind": table["individuals"],
            "ind_snv": table["income"] * table["individuals"],
            "i_est_200": table["imputed"].astype(int),
        }
    ).to_csv(tmp_path / "census_2019.csv", index=False)
    (tmp_path / "ortho").mkdir()
    for name, part in (("west", table.iloc[:90]), ("east", table.iloc[60:])):
        part[["geometry"]].dissolve().to_file(tmp_path / f"{name}.gpkg")

    def run(cells="", sources=""):
        path = tmp_path / "west.toml"
        path.write_text(SETTINGS.format(cells=cells, sources=sources))
        config = load_config(path)
        files = Workspace.of(config)
        summary = run_cells(Job(config, files, None, "key"))
        return load_table(files.table("cells")), summary, facts_of("cells", config, {})

    return table, run


def test_a_run_takes_its_thresholds_from_where_it_is_told(west):
    table, run = west
    observed = table[~table["imputed"].astype(bool)]
    everything = observed["income"]
    cells, summary, plain = run()
    own = cells.loc[cells["labelled"], "income"]
    assert set(own.index) < set(everything.index)
    assert summary["thresholds of"] == "city"
    np.testing.assert_allclose(cells.attrs["thresholds"], np.quantile(own, [1 / 3, 2 / 3]))
    cells, summary, facts = run('quantiles = "nation"')
    assert summary["thresholds of"] == "nation"
    np.testing.assert_allclose(summary["thresholds"], np.quantile(everything, [1 / 3, 2 / 3]))
    assert facts != plain
    cells, summary, facts = run(
        'quantiles = "cities"\nquantile_weight = "individuals"\nlabels = "weighted"\nbuffer_cells = 0',
        'cities = ["west.gpkg", "east.gpkg"]',
    )
    assert cells.attrs["thresholds_of"] == "cities: west.gpkg, east.gpkg"
    assert summary["quantiles count"] == "individuals"
    people = np.repeat(table["income"], table["individuals"].astype(int))
    np.testing.assert_allclose(summary["thresholds"], np.quantile(people, [1 / 3, 2 / 3]))
    assert set(cells["weight"]) == {0.25, 1.0}
    assert len(facts["input cities"]) == 2
    cells, summary, _ = run('thresholds = [20000, 30000]\nfolds_kind = "spatial"\nbuffer_cells = 0')
    assert summary["thresholds"] == [20_000.0, 30_000.0]
    assert summary["folds"] == "spatial"
    assert sum(summary["labelled cells per class"]) == summary["labelled"]
    for kind in ("random", "spatial"):
        assert sum(summary[f"labelled cells per {kind} fold"]) == summary["labelled"]
    pd.testing.assert_series_equal(cells["fold"], cells["fold_spatial"], check_names=False)


@pytest.mark.parametrize(
    ("cells", "sources", "message"),
    [
        ('quantiles = "nation"\nthresholds = [1, 2]', "", "no quantiles to take"),
        ('quantiles = "cities"', "", r"belong together: received 'cities' and 0"),
        ("", 'cities = "west.gpkg"', r"belong together: received 'city' and 1"),
        ("imputed_weight = 1.0", "", "cells.imputed_weight"),
        ('labels = "some"', "", "cells.labels"),
        ('quantiles = "cities"', 'cities = ["gone.gpkg"]', "sources.cities: .*gone.gpkg"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(west, cells, sources, message):
    with pytest.raises((ConfigError, MissingInputError), match=message):
        west[1](cells, sources)
