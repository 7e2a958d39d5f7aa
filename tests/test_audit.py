"""The audit on networks whose answer is known, and its numbers against scipy and plain loops."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.kernels.faithfulness import (
    area_under,
    blurred,
    rank_correlation,
    ranks_of,
    revealed,
    square_means,
)
from sesgrid.kernels.heads import BinomialLayer
from sesgrid.kernels.method import PRESETS, Method, method_named
from sesgrid.kernels.randomise import cascade, reinitialised
from sesgrid.kernels.saliency import Explainer
from sesgrid.report.audit import audit_tests
from sesgrid.stages.audit import Audit, audit_sample
from sesgrid.stages.audit_figures import summarise
from sesgrid.stages.predict import CellTask
from sesgrid.store.models import save_model
from tests.fake_city import fake_cells
from tests.test_saliency import adapt, small_network

SIZE = 64
NAMES = ("houses", "roads", "woods")


@settings(max_examples=30, deadline=None)
@given(size=st.integers(5, 40), n=st.integers(1, 5), seed=st.integers(0, 9))
def test_squares_cover_the_map(size, n, seed):
    one = np.random.default_rng(seed).random((2, size, size)).astype(np.float32)
    means = square_means(one, n)
    edges = [k * size // n for k in range(n + 1)]
    for i, j in np.ndindex(n, n):
        part = one[:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
        np.testing.assert_allclose(means[:, i, j], part.mean((1, 2), dtype=float), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(4, 30), n=st.integers(1, 4), steps=st.integers(1, 9))
def test_squares_are_shown_in_their_order(size, n, steps):
    rng = np.random.default_rng(size)
    values = rng.random((n, n))
    ranks = ranks_of(values, rng)
    assert sorted(ranks.ravel().tolist()) == list(range(n * n))
    assert values.ravel()[np.argsort(ranks.ravel())].tolist() == sorted(
        values.ravel(), reverse=True
    )
    below, above = np.zeros((3, size, size), np.uint8), np.full((3, size, size), 9, np.uint8)
    shown = revealed(below, above, ranks, steps)
    np.testing.assert_array_equal(shown[0], below)
    np.testing.assert_array_equal(shown[-1], above)
    assert shown.dtype == np.uint8
    for k, image in enumerate(shown):
        squares = square_means(image[0].astype(float), n)
        np.testing.assert_array_equal(squares, np.where(ranks < round(k / steps * n * n), 9.0, 0.0))


def test_ties_are_broken_by_lot():
    flat = np.zeros((8, 8))
    a, b = (ranks_of(flat, np.random.default_rng(s)) for s in (0, 1))
    assert not np.array_equal(a, b)
    assert abs(rank_correlation(a, np.arange(64).reshape(8, 8))) < 0.5


def test_numbers_as_scipys():
    rng = np.random.default_rng(0)
    a = np.maximum(rng.normal(size=(20, 20)), 0)  # many ties, as maps have
    b = a + rng.normal(size=a.shape)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic)
    assert np.isnan(rank_correlation(a, np.ones_like(a)))
    curves = rng.random((3, 11))
    from scipy.integrate import trapezoid

    np.testing.assert_allclose(area_under(curves), trapezoid(curves, dx=0.1, axis=-1))


def test_a_blurred_image_keeps_its_mean_and_loses_its_detail():
    image = np.random.default_rng(0).integers(0, 256, (3, 224, 224), dtype=np.uint8)
    soft = blurred(image)
    assert soft.dtype == np.uint8
    np.testing.assert_allclose(soft.mean((1, 2)), image.mean((1, 2)), atol=1)
    # white noise through a Gaussian of 5 px loses all but 1 / (2 √π 5) of its deviation
    expected = image.std() / (2 * np.sqrt(np.pi) * 5)
    assert soft.std() == pytest.approx(expected, rel=0.15)


def test_layers_are_drawn_anew_from_the_top():
    model, method = small_network(1), PRESETS["paper"]
    explainer = Explainer(model, method)
    before = [w.copy() for w in model.get_weights()]
    fresh = reinitialised(model, 7)
    for a, b in zip(fresh.get_weights(), reinitialised(model, 7).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    adapt(fresh, [0.9, 1.0, 1.1], [0.7, 0.9, 1.2])  # set, not learnt: it is not drawn anew
    trained = explainer.weights_of(model)
    steps = list(cascade(explainer, model, fresh, 4))
    assert steps[0][:2] == ("logit", 1)
    assert [n for _, n, _ in steps] == [1, 3, 5, 7]
    assert len(explainer.weights_of(model)[0]) == len(trained[0])
    kernels = []
    for _, _, weights in steps:
        changed = [
            not np.array_equal(a, b)
            for mine, theirs in zip(trained, weights, strict=True)
            for a, b in zip(mine, theirs, strict=True)
        ]
        kernels.append(sum(changed))
    assert kernels == sorted(kernels)
    assert kernels[0] == 1  # the bias of the last layer starts at zero, where it is
    assert len(set(kernels)) == 4
    np.testing.assert_array_equal(
        explainer.output(steps[-1][2], np.full((1, SIZE, SIZE, 3), 90, np.uint8)),
        explainer.output(explainer.weights_of(fresh), np.full((1, SIZE, SIZE, 3), 90, np.uint8)),
    )
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def patch_network(gain):
    """Bright pixels speak for the highest class, dark ones for the lowest; grey ones say nothing."""
    layers = keras.layers
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.Conv2D(2, 1, name="contrast")(x)
    x = layers.Activation("silu", name="top_activation")(x)
    x = layers.AveragePooling2D(4)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, BinomialLayer(5)(layers.Dense(1, name="logit")(x)))
    kernel = np.stack([np.full(3, gain), np.full(3, -gain)], axis=-1)[None, None]
    model.get_layer("contrast").set_weights([kernel, np.full(2, -4.0)])
    model.get_layer("logit").set_weights([np.array([[8.0], [-8.0]]), np.zeros(1)])
    return model


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The stage, its rows for eight cells with a patch on houses, and what they were made from."""
    folder = tmp_path_factory.mktemp("models")
    card = {"pixels_per_cell": SIZE, "n_classes": 5}
    refs = [
        save_model(patch_network(gain), folder / f"{gain}.keras", model_id=f"m{gain}", card=card)
        for gain in (4.0, 5.0)
    ]
    rng = np.random.default_rng(0)
    image = rng.integers(118, 138, (8, 3, SIZE, SIZE)).astype(np.uint8)
    landcover = np.full((8, SIZE, SIZE), 2, np.uint8)
    landcover[:, :, SIZE // 2 :] = 3
    for k in range(8):
        y, x = 4 + 6 * k, 10 + 30 * (k // 2 % 2)
        landcover[k, y : y + 12, x : x + 12] = 1
        image[k, :, y : y + 12, x : x + 12] = 250 if k % 2 else 5
    items = [CellTask(f"cell{k}", k, k, refs[k // 4]) for k in range(8)]
    stage = Audit(tuple(refs), len(NAMES) + 1, PRESETS["paper"], steps=8, cascade=3)
    inputs = (image, np.ones_like(landcover), landcover)
    return stage, items, inputs, stage(items, *inputs)


def test_maps_that_are_right_pass(planted):
    stage, _, _, rows = planted
    assert [row["side"] for row in rows] == [0, 1] * 4
    activation = pd.DataFrame(
        [("low", "houses", 20, 2.0), ("low", "roads", 20, 0.5), ("low", "woods", 3, 9.0),
         ("high", "houses", 20, 0.8), ("high", "roads", 20, 0.9), ("high", "woods", 20, 0.1)],
        columns=["prediction", "landcover_class", "n_cells", "activation_ratio"],
    )  # fmt: skip
    result = summarise(rows, stage.settings, NAMES, truth=["houses"], activation=activation)
    json.dumps(result, allow_nan=False)
    truth = result["planted_truth"]
    assert truth["pointing_game"]["mean"] == 1.0
    assert truth["chance"] == pytest.approx(144 / SIZE**2)
    assert truth["pointing_game"]["gain"]["mean"] == pytest.approx(1 - 144 / SIZE**2)
    assert truth["energy"]["mean"] > 0.9
    # classes in few cells take no part; of the pairs on the high side, one of two is won
    assert truth["ranking"]["low"]["auc"] == 1.0
    assert truth["ranking"]["high"]["auc"] == 0.5
    assert truth["ranking"]["high"]["classes"][0]["landcover_class"] == "roads"
    for test in ("deletion", "insertion"):
        assert result[test]["gain"]["ci"][0] > 0.05
        assert result[test]["better"] == 1.0
    # with the patch hidden nothing speaks for either end
    assert result["deletion"]["curves"]["high"]["map"][-1] < 0.3
    assert result["deletion"]["curves"]["high"]["map"][0] > 0.6
    assert result["randomisation"]["steps"][0]["layer"] == "logit"
    folds = result["folds"]
    assert folds["models"] == 2
    assert folds["similarity"]["mean"] > 0.9 > folds["unrelated"]["mean"] + 0.3
    ratios = {(c["side"], c["landcover_class"]): c["ratios"] for c in folds["classes"]}
    assert min(ratios["high", "houses"]) > 5 > 1 > max(ratios["high", "roads"])


def test_maps_that_are_wrong_do_not(planted):
    stage, _, _, rows = planted
    worse = [row | {"curves": row["curves"][:, [1, 0, 0]]} for row in rows]
    result = summarise(worse, stage.settings, NAMES, truth=["woods"])
    assert result["planted_truth"]["pointing_game"]["mean"] == 0.0
    assert result["planted_truth"]["ranking"] == {}
    for test in ("deletion", "insertion"):
        assert result[test]["gain"]["ci"][1] < 0
        assert result[test]["better"] == 0.0
    with pytest.raises(ConfigError, match="called harbour"):
        summarise(rows, stage.settings, NAMES, truth=["harbour"])
    assert summarise(rows, stage.settings, NAMES)["planted_truth"] is None


def test_a_cell_s_curves_do_not_depend_on_its_neighbours(planted):
    stage, items, inputs, rows = planted
    for part in (slice(0, 3), slice(3, 8)):
        alone = stage(items[part], *(a[part] for a in inputs))
        for one, row in zip(alone, rows[part], strict=True):
            np.testing.assert_allclose(one["curves"], row["curves"], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one["sums"], row["sums"], rtol=1e-4)
            np.testing.assert_array_equal(one["peak"], row["peak"])
    # a lone cell has none to be compared with, and a lone model no other
    (lone,) = stage(items[:1], *(a[:1] for a in inputs))
    assert np.isnan(lone["unrelated"])
    single = Audit(stage.models[:1], len(NAMES) + 1, steps=4, draws=1, cascade=2)
    result = summarise(single(items[:2], *(a[:2] for a in inputs)), single.settings, NAMES)
    assert result["folds"] is None
    assert result["randomisation"]["unrelated"]["mean"] is None


def test_the_sample_is_of_both_ends_and_repeats():
    cells = fake_cells()
    cells["model_id"] = "m"
    cells.attrs["n_classes"] = 5
    chosen = audit_sample(cells, 20, seed=1)
    assert (chosen["ses_predicted"] <= 2).sum() == (chosen["ses_predicted"] >= 4).sum() == 10
    again = audit_sample(cells.sample(frac=1, random_state=0), 20, seed=1)
    assert list(again.index) == list(chosen.index)
    assert list(audit_sample(cells, 20, seed=2).index) != list(chosen.index)
    # too few at one end: the surest of that side are taken
    few = cells[cells["ses_predicted"] < 5].copy()
    few.loc[few["ses_predicted"] == 4, "p"] = 0.45
    few.loc[few.index[:3], ["p", "ses_predicted"]] = [0.55, 3]
    few.loc[few.index[1], "p"] = 0.7
    few.attrs = cells.attrs
    high = audit_sample(few, 4, seed=1).query("p >= 0.5")
    assert len(high) == 2
    assert few.index[1] in high.index
    cells["model_id"] = None
    with pytest.raises(MissingInputError, match="nothing to audit"):
        audit_sample(cells, 20, seed=1)


def test_the_report_says_what_was_found(planted):
    stage, _, _, rows = planted
    result = json.loads(json.dumps(summarise(rows, stage.settings, NAMES, truth=["houses"])))
    tests = audit_tests(result)
    assert [t.title for t in tests] == [
        "The planted truth", "Deletion and insertion", "Taking away what was learnt",
        "Agreement between folds",
    ]  # fmt: skip
    # eight cells: no verdict; twice as many: one
    assert "too few cells" in tests[0].sentences[0]
    assert "too few cells" in tests[1].sentences[0]
    twice = audit_tests(summarise([*rows, *rows], stage.settings, NAMES, truth=["houses"]))
    assert "above the 4" in twice[0].sentences[0]
    assert "the class falls faster" in twice[1].sentences[0]
    assert "the class rises faster" in twice[1].sentences[1]
    assert "above the" in twice[3].sentences[0]
    assert "polyline" in tests[1].figure
    assert "logit" in tests[2].figure
    worse = [row | {"curves": row["curves"][:, [1, 0, 0]]} for row in rows]
    said = audit_tests(summarise([*worse, *worse], stage.settings, NAMES))[0].sentences
    assert "falls slower" in said[0]
    assert "rises slower" in said[1]
    assert audit_tests(None) == []


def test_the_brightest_pixels_of_a_clipped_map_are_many(planted, tmp_path):
    """The reference's clipping makes a plateau of its peak: no corner of it stands for the whole."""
    stage, items, inputs, _ = planted
    clipped = Audit(
        stage.models, len(NAMES) + 1, method_named("paper", clip_percentile=99.0), steps=2
    )
    rows = clipped(items[:4], *(a[:4] for a in inputs))
    for row in rows:
        assert row["peak"].sum() == pytest.approx(1)
        # 41 of the 144 pixels of the patch are the largest hundredth
        assert row["peak"][1] > 0.95
    # shown with swapped colours, a cell is still asked about the end that it is predicted at
    method = Method("swapped", "top_activation", "none", "relu", None, "bgr")
    image, *rest = (a[:2].copy() for a in inputs)
    image[:, 0], image[:, 2] = 255, 0
    network = patch_network(4.0)
    kernel, bias = network.get_layer("contrast").get_weights()
    kernel[:, :, 1:] = 0  # red alone speaks
    network.get_layer("contrast").set_weights([kernel, bias])
    card = {"pixels_per_cell": SIZE, "n_classes": 5}
    red = save_model(network, tmp_path / "red.keras", model_id="red", card=card)
    swapped = Audit((red,), len(NAMES) + 1, method, steps=2, cascade=1)
    seen = swapped([replace(item, model=red) for item in items[:2]], image, *rest)
    assert [row["side"] for row in seen] == [1, 1]


def test_differences_from_chance_are_taken_cell_by_cell(planted):
    """Chance varies by cell, and what is compared with it varies likewise."""
    stage, _, _, rows = planted
    rng = np.random.default_rng(0)
    varied = []
    for k in range(24):
        share = 0.1 + 0.8 * k / 24
        area = np.array([0, 1000 * share, 1000 * (1 - share), 0])
        energy = min(share + 0.06 + rng.normal(0, 0.03), 1)
        sums = np.array([0, energy, 1 - energy, 0])
        varied.append(rows[k % 8] | {"area": area, "sums": sums})
    truth = summarise(varied, stage.settings, NAMES, truth=["houses"])["planted_truth"]
    assert truth["energy"]["ci"][0] < truth["chance"] < truth["energy"]["ci"][1]
    assert truth["energy"]["gain"]["ci"][0] > 0.03
    assert truth["energy"]["gain"]["mean"] == pytest.approx(0.06, abs=0.03)
