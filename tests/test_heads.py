"""The heads against scipy's functions and the models' definitions written naively in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax

from sesgrid.errors import ConfigError
from sesgrid.kernels.heads import (
    HEADS,
    LOGIT_LAYER,
    BinomialLayer,
    LogSoftmaxLayer,
    OrdinalLayer,
    add_head,
    class_log_probabilities,
    has_one_output,
)
from sesgrid.kernels.ordinal import even_thresholds, ordinal_log_probabilities

LOGITS = np.linspace(-60, 60, 241, dtype=np.float32)[:, np.newaxis]


def cumulative(logit, thresholds):
    """P of every class, as McCullagh writes it: differences of P(class > k)."""
    over = expit(logit[:, np.newaxis] - thresholds)
    ends = np.ones((len(logit), 1))
    return -np.diff(np.hstack([ends, over, 0 * ends]), axis=1)


def ordinal(n_classes, first, steps):
    """An ordinal layer with thresholds of its own."""
    layer = OrdinalLayer(n_classes)
    layer.build((None, 1))
    layer.set_weights([np.array([first], np.float32), np.log(steps).astype(np.float32)])
    return layer


def head(name, n_classes, seed=0):
    """A network that is nothing but a head, on four features."""
    keras.utils.set_random_seed(seed)
    features = keras.Input((4,))
    return keras.Model(features, add_head(features, name, n_classes))


thresholds = st.tuples(st.floats(-5, 5), st.lists(st.floats(0.01, 6), min_size=1, max_size=6))


@given(thresholds, st.lists(st.floats(-12, 12), min_size=1, max_size=8))
def test_ordinal_is_the_difference_of_cumulative_logits(drawn, logit):
    first, steps = drawn
    at = np.cumsum([first, *steps])
    ours = np.exp(ordinal_log_probabilities(np.array(logit), at))
    np.testing.assert_allclose(ours, cumulative(np.array(logit), at), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(thresholds)
def test_the_ordinal_layer_is_the_kernel(drawn):
    first, steps = drawn
    layer = ordinal(len(steps) + 2, first, steps)
    at = layer.thresholds().numpy()
    np.testing.assert_allclose(at, np.cumsum([first, *steps]), rtol=1e-5, atol=1e-5)
    assert (np.diff(at) > 0).all()
    ours = layer(LOGITS).numpy()
    kernel = ordinal_log_probabilities(LOGITS[:, 0], np.cumsum([first, *np.float32(steps)]))
    np.testing.assert_allclose(ours, kernel, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 9])
@pytest.mark.parametrize("name", ["binomial", "ordinal"])
def test_one_output_is_a_distribution_that_moves_with_it(name, n_classes):
    model = head(name, n_classes)
    layer = model.layers[-1]
    assert has_one_output(model)
    assert model.get_layer(LOGIT_LAYER).output.shape == (None, 1)
    log_p = layer(LOGITS).numpy()
    assert log_p.shape == (len(LOGITS), n_classes)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, atol=2e-6)
    assert (np.diff(log_p[:, 0]) <= 0).all()
    assert (np.diff(log_p[:, -1]) >= 0).all()
    assert log_p[0].argmax() == 0
    assert log_p[-1].argmax() == n_classes - 1


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("name", HEADS)
def test_no_gradient_is_nan(name, n_classes):
    """Of the loss of any class, by the logit and by what the head learns, wherever the logit is."""
    layer = head(name, n_classes).layers[-1]
    spread = np.linspace(-1, 1, n_classes, dtype=np.float32)
    x = tf.constant(LOGITS if has_one_output(head(name, n_classes)) else LOGITS * spread)
    for k in range(n_classes):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = -tf.reduce_sum(layer(x)[:, k])
        for gradient in tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)]):
            assert np.isfinite(gradient.numpy()).all()


def test_two_classes_are_a_logistic_regression():
    """K = 2: no step to learn, P(1) = σ(z − θ), and with both heads of one output the same."""
    start = even_thresholds(2)
    np.testing.assert_array_equal(start, [0])
    expected = np.stack([expit(-LOGITS[:, 0]), expit(LOGITS[:, 0])], axis=1)
    for layer in (head("ordinal", 2).layers[-1], BinomialLayer(2)):
        np.testing.assert_allclose(np.exp(layer(LOGITS)), expected, rtol=1e-5, atol=1e-30)


def test_even_thresholds_make_classes_of_equal_size():
    """Of a logistic z: its distribution function, which is expit, rises by 1/K between two."""
    for n_classes in (2, 3, 5, 8):
        shares = np.diff([0, *expit(even_thresholds(n_classes)), 1])
        np.testing.assert_allclose(shares, 1 / n_classes)
        layer = head("ordinal", n_classes).layers[-1]
        np.testing.assert_allclose(layer.thresholds(), even_thresholds(n_classes), atol=1e-6)


@pytest.mark.parametrize("rate", [0.01, 1.0])
def test_thresholds_stay_in_order_whatever_is_learnt(rate):
    model = head("ordinal", 5)
    layer, optimizer = model.layers[-1], keras.optimizers.Adam(rate)
    rng = np.random.default_rng(0)
    x, k = rng.normal(0, 3, (32, 4)).astype(np.float32), rng.integers(0, 5, 32)
    before = layer.thresholds().numpy()
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.gather(model(x), k, batch_dims=1))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        at = layer.thresholds().numpy()
        assert np.isfinite(at).all()
        assert (np.diff(at) > 0).all()
    # the first threshold and every step are learnt
    assert (np.abs(at[0] - before[0]) > 0).all()
    assert (np.diff(at) != np.diff(before)).all()


def test_thresholds_learn_how_large_the_classes_are():
    """With nothing to see, the likeliest thresholds are those of the classes' shares."""
    layer, optimizer = head("ordinal", 3).layers[-1], keras.optimizers.Adam(0.3)
    shares = np.array([0.6, 0.1, 0.3])
    nothing = tf.zeros((1, 1))
    for _ in range(80):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_sum(layer(nothing) * shares)
        values = [v.value for v in layer.trainable_variables]
        optimizer.apply(tape.gradient(loss, values), layer.trainable_variables)
    np.testing.assert_allclose(np.exp(layer(nothing))[0], shares, atol=5e-3)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_softmax_is_scipys(n_classes):
    scores = np.random.default_rng(0).uniform(-60, 60, (50, n_classes)).astype(np.float32)
    ours = LogSoftmaxLayer()(scores).numpy()
    np.testing.assert_allclose(ours, log_softmax(scores.astype(float), -1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(ours).sum(-1), 1, atol=1e-6)
    assert not has_one_output(head("softmax", n_classes))


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", HEADS)
def test_what_an_explainer_gives_becomes_what_the_model_says(name, n_classes, tmp_path):
    """And a head comes back from its file, in safe mode, with what it has learnt."""
    model = head(name, n_classes)
    for variable in model.trainable_variables:
        variable.assign_add(0.3 * np.ones(variable.shape))
    x = np.random.default_rng(1).normal(0, 2, (7, 4)).astype(np.float32)
    said = model(x).numpy()
    output = keras.Model(model.input, model.get_layer(LOGIT_LAYER).output)(x).numpy()
    given = output[:, 0] if has_one_output(model) else said
    ours = class_log_probabilities(model, given)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, said, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "head.keras")
    again = keras.saving.load_model(tmp_path / "head.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(again(x).numpy(), said)
    assert type(again.layers[-1]) is type(model.layers[-1])


def test_a_head_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="head must be one of binomial, softmax, ordinal"):
        head("poisson", 5)
    for name in HEADS:
        with pytest.raises(ConfigError, match="at least 2 classes, received 1"):
            head(name, 1)
