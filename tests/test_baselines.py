"""Baselines and the leakage gap: plain features against naive formulas, and what random folds hide."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

import sesgrid
from sesgrid.errors import FormatError, GridMismatchError, MissingInputError, TooFewCellsError
from sesgrid.grid import Extent, Grid, rowcol_of_ids
from sesgrid.kernels.features import cell_features
from sesgrid.kernels.statistics import pearson_r
from sesgrid.run import baselines as running
from sesgrid.run.config import Config
from sesgrid.stages.analyse import metrics
from sesgrid.stages.baselines import baselines, features
from sesgrid.stages.folds import training_cells
from sesgrid.store.georeference import georeference
from tests.test_folds import town


@pytest.fixture(autouse=True)
def one_thread():
    """Trees of a few hundred cells spend more on waiting for threads than on growing."""
    with threadpool_limits(1):
        yield


def naive_features(image, observed, landcover, n):
    """The definition, pixel by pixel."""
    out = {}
    for band, name in enumerate(("red", "green", "blue")):
        values = [float(v) for v, o in zip(image[band].ravel(), observed.ravel(), strict=True) if o]
        out[f"mean_{name}"] = np.mean(values) if values else np.nan
        out[f"std_{name}"] = np.std(values) if values else np.nan
    grey, seen = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2], observed
    for scale in (1, 2, 4, 8):
        h, w = grey.shape
        slopes, spreads = [], []
        for y, x in np.ndindex(max(h - 1, 0), max(w - 1, 0)):
            down, right = grey[y + 1, x] - grey[y, x], grey[y, x + 1] - grey[y, x]
            if seen[y, x] and seen[y + 1, x] and seen[y, x + 1]:
                slopes.append((down**2 + right**2) ** 0.5)
        coarse = np.zeros((h // 2, w // 2))
        whole = np.zeros((h // 2, w // 2), bool)
        for y in range(h // 2):
            for x in range(w // 2):
                square = grey[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                coarse[y, x] = square.mean()
                whole[y, x] = seen[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].all()
                if whole[y, x]:
                    spreads.append(square.var())
        out[f"gradient_{scale}px"] = np.mean(slopes) if slopes else np.nan
        out[f"variance_{scale}px"] = np.mean(spreads) if spreads else np.nan
        grey, seen = coarse, whole
    return out | {f"share_{k}": (landcover == k).mean() for k in range(1, n + 1)}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    h=st.integers(4, 40),
    w=st.integers(4, 40),
    hidden=st.sampled_from([0.0, 0.05, 1.0]),
)
def test_features_follow_their_definition(seed, h, w, hidden):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, h, w), dtype=np.uint8)
    observed = rng.random((h, w)) >= hidden
    image[:, ~observed] = 0
    landcover = rng.integers(0, 4, (h, w), dtype=np.uint8)
    ours = cell_features(image, observed, landcover, "123")
    theirs = naive_features(image, observed, landcover, 3)
    assert list(ours) == list(theirs)
    assert all(type(v) is float for v in ours.values())
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4, atol=1e-4)


def test_what_is_not_observed_does_not_count():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 32, 32), dtype=np.uint8)
    observed = np.ones((32, 32), bool)
    observed[5:9, 20:] = False
    other = image.copy()
    other[:, ~observed] = 255 - other[:, ~observed]
    assert cell_features(image, observed) == cell_features(other, observed)
    assert cell_features(image, observed) != cell_features(image, np.ones((32, 32), bool))


def test_features_of_other_pixels_are_refused():
    image, observed = np.zeros((3, 8, 8), np.uint8), np.ones((8, 8), bool)
    with pytest.raises(GridMismatchError, match=r"\(3, 8, 9\)"):
        cell_features(image, np.ones((8, 9), bool))
    with pytest.raises(GridMismatchError, match="land cover"):
        cell_features(image, observed, np.zeros((4, 4), np.uint8))
    with pytest.raises(FormatError, match="holds class 3, and 2 classes"):
        cell_features(image, observed, np.full((8, 8), 3, np.uint8), ("a", "b"))


@pytest.mark.parametrize("lazy", [False, True])
def test_features_of_cells_are_read_from_their_place(lazy):
    table = sesgrid.cells(town(10), classes=3, folds=2, compare_folds=False).iloc[::3]
    extent = Extent.of_cells(Grid(32, 4), table["row"], table["col"])
    rng = np.random.default_rng(1)
    layers = {
        "image": (("band", "y", "x"), rng.integers(0, 256, (3, *extent.shape_px), dtype=np.uint8)),
        "coverage": (
            ("y", "x"),
            rng.choice([1, 2], extent.shape_px, p=[0.99, 0.01]).astype(np.uint8),
        ),
        "landcover": (("y", "x"), rng.integers(0, 3, extent.shape_px, dtype=np.uint8)),
    }
    pixels = georeference(xr.Dataset(layers), extent)
    if lazy:
        pixels = pixels.chunk({"y": extent.grid.block_px, "x": extent.grid.block_px})
    found = features(table, pixels, ("water", "wood"))
    assert found.index.equals(table.index)
    for name, row, col in zip(table.index, table["row"], table["col"], strict=True):
        y, x = extent.cell_slices(row, col)
        image, coverage, land = (layers[n][1][..., y, x] for n in layers)
        expected = cell_features(image, coverage == 1, land, ("water", "wood"))
        np.testing.assert_equal(found.loc[name].to_dict(), expected)
    without = features(table, pixels)
    pd.testing.assert_frame_equal(without, found[without.columns])
    assert not [c for c in without if c.startswith("share_")]


def smooth(rng, index, sigma, count):
    """Smooth random fields at cells, standardised, ``(cell, count)``."""
    rowcol = rowcol_of_ids(index)
    at = tuple((rowcol - rowcol.min(axis=0)).T)
    size = np.max(at) + 1
    fields = [
        gaussian_filter(rng.normal(size=(size, size)), sigma, mode="wrap")[at] for _ in range(count)
    ]
    return np.stack([(f - f.mean()) / f.std() for f in fields], axis=1)


def cells_with_features(rng, income, values, **options):
    table = town()
    table["income"] = 24_000 + 4_000 * income
    cells = sesgrid.cells(
        table, **{"classes": 2, "folds": 3, "buffer_cells": 4, "labels": "all"} | options
    )
    cells["coverage"] = 1.0
    return cells, pd.DataFrame(values, index=table.index)


def gap_interval(cells, by_kind):
    """Gap of Pearson r between random and spatial folds, and its bootstrap over blocks of cells."""
    true = cells["ses_true"].to_numpy(float)
    p = {kind: out["gradient_boosting"]["p"].to_numpy(float) for kind, out in by_kind.items()}
    _, block = np.unique(cells[["row", "col"]].to_numpy() // 8, axis=0, return_inverse=True)
    members = [np.flatnonzero(block.ravel() == b) for b in range(block.max() + 1)]
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(400):
        drawn = np.concatenate([members[b] for b in rng.integers(0, len(members), len(members))])
        gaps.append(
            pearson_r(true[drawn], p["random"][drawn]) - pearson_r(true[drawn], p["spatial"][drawn])
        )
    r = {kind: pearson_r(true, values) for kind, values in p.items()}
    return r, np.percentile(gaps, [2.5, 97.5])


def test_random_folds_look_better_than_they_are_where_a_model_can_only_know_the_place():
    """Income is smooth, and so are features that have nothing to do with it."""
    rng, index = np.random.default_rng(4), town().index
    income = smooth(rng, index, 2, 1)[:, 0] + 0.3 * rng.normal(size=len(index))
    cells, values = cells_with_features(rng, income, smooth(rng, index, 3, 12))
    r, (low, high) = gap_interval(
        cells, {kind: baselines(values, cells, kind=kind) for kind in ("random", "spatial")}
    )
    assert r["random"] > 0.6
    assert abs(r["spatial"]) < 0.2
    assert 0.3 < low < high


def test_there_is_no_gap_where_features_tell_the_income_and_nothing_is_smooth():
    rng, index = np.random.default_rng(5), town().index
    income = rng.normal(size=len(index))
    told = income[:, None] + 0.5 * rng.normal(size=(len(index), 3))
    cells, values = cells_with_features(rng, income, told)
    r, (low, high) = gap_interval(
        cells, {kind: baselines(values, cells, kind=kind) for kind in ("random", "spatial")}
    )
    assert min(r.values()) > 0.75
    # not quite nothing: behind their buffer, spatial folds learn from fewer cells
    assert abs(r["random"] - r["spatial"]) < 0.03
    assert -0.06 < low < 0.01
    assert high < 0.06


@pytest.fixture(scope="module")
def small():
    rng, index = np.random.default_rng(6), town(18).index
    table = town(18, imputed=0.3)
    cells = sesgrid.cells(
        table, classes=3, folds=2, labels="weighted", fold_block_cells=3, buffer_cells=1
    )
    cells["coverage"] = np.where(rng.random(len(cells)) < 0.1, 0.5, 1.0)
    values = np.stack([cells["income"], rng.normal(size=len(cells))], axis=1)
    values[rng.random(values.shape) < 0.05] = np.nan
    return cells, pd.DataFrame(values, index=cells.index).reindex(index)


@pytest.mark.parametrize("kind", [None, "spatial"])
def test_every_cell_is_predicted_by_what_did_not_see_it_as_scikit_learn_would(small, kind):
    cells, values = small
    out = baselines(values, cells, kind=kind, seed=3)
    assert list(out) == ["majority", "gradient_boosting"]
    x, fold = values.reindex(cells.index).to_numpy(), cells[f"fold_{kind or 'random'}"]
    covered = (cells["coverage"] >= 0.99).to_numpy()
    probabilities = [f"probability_{k}" for k in (1, 2, 3)]
    models = {
        "majority": DummyClassifier(strategy="prior"),
        "gradient_boosting": HistGradientBoostingClassifier(early_stopping=False, random_state=3),
    }
    for name, model in models.items():
        table = out[name]
        assert table.index.equals(cells.index)
        for f in range(2):
            trained = training_cells(cells, f, kind) & covered
            tested = (fold == f).to_numpy(dtype=bool) & covered
            assert not (trained & tested).any()
            y = cells["ses_true"].to_numpy(dtype=int)
            model.fit(x[trained], y[trained], sample_weight=cells["weight"].to_numpy()[trained])
            theirs = model.predict_proba(x[tested])
            np.testing.assert_allclose(table.loc[tested, probabilities], theirs, rtol=1e-9)
            np.testing.assert_array_equal(
                table.loc[tested, "ses_predicted"].astype(int), model.predict(x[tested])
            )
            np.testing.assert_allclose(table.loc[tested, "p"], theirs @ [0, 0.5, 1])
        assert table.loc[~covered, ["p", "ses_predicted", *probabilities]].isna().all(axis=None)
    # the form is that of `sesgrid.predict`, so the same figures can be taken
    assert metrics(out["gradient_boosting"])["accuracy"] > 0.6
    again = baselines(values, cells, kind=kind, seed=3)
    for name, table in out.items():
        pd.testing.assert_frame_equal(
            pd.DataFrame(table[probabilities]), pd.DataFrame(again[name][probabilities])
        )


def test_of_very_many_cells_some_are_drawn(small, monkeypatch, tmp_path):
    """Always the same; only their pixels are looked at, and only they are scored."""
    cells, values = small[0].assign(void_share=0.0), small[1]
    looked = []

    def read(_config, _client, some):
        looked.append(list(some.index))
        return values.loc[some.index]

    monkeypatch.setattr(running, "_features", read)
    paths = {"census": tmp_path / "c", "ortho": [tmp_path / "o"]}
    config = Config(name="Ville", output=tmp_path, sources=paths)
    whole = running.run_baselines(config, None, cells)
    monkeypatch.setattr(running, "MOST_CELLS", 150)
    some, same = (running.run_baselines(config, None, cells) for _ in range(2))
    assert looked[0] == list(cells.index[cells["labelled"]])
    assert len(set(looked[1])) == len(looked[1]) == 150 < len(looked[0])
    assert set(looked[1]) <= set(looked[0])
    assert looked[1] == looked[2]
    assert some == same
    covered = (cells["coverage"] >= 0.99)[looked[1]].sum()
    assert some["gradient_boosting"]["n"] == covered < whole["gradient_boosting"]["n"]
    config = config.model_copy(update={"analyse": config.analyse.model_copy(update={"seed": 5})})
    running.run_baselines(config, None, cells)
    assert set(looked[3]) != set(looked[1])


def test_baselines_say_what_they_lack(small):
    cells, values = small
    with pytest.raises(GridMismatchError, match="covered cells have no features"):
        baselines(values.iloc[:50], cells)
    with pytest.raises(MissingInputError, match="no coverage"):
        baselines(values, cells.drop(columns="coverage"))
    with pytest.raises(MissingInputError, match="no void_share"):
        baselines(values, cells, max_void=0.01)
    poor = cells.copy()
    poor.loc[poor["ses_true"] != 1, "coverage"] = 0.0
    with pytest.raises(TooFewCellsError, match="fewer than two classes"):
        baselines(values, poor)


def test_a_feature_that_no_training_cell_has_tells_nothing(small):
    cells, values = small
    out = baselines(values.assign(gone=np.nan), cells, seed=3)["gradient_boosting"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(out), pd.DataFrame(baselines(values, cells, seed=3)["gradient_boosting"])
    )
    nothing = baselines(values * np.nan, cells, seed=3)
    np.testing.assert_array_equal(nothing["gradient_boosting"]["p"], nothing["majority"]["p"])
