"""The network, the binomial layer, and guided Grad-CAM against the formulas written naively."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from sesgrid.errors import ConfigError, ModelMismatchError, SesgridWarning
from sesgrid.kernels.backbones import BACKBONES, obtainable_weights
from sesgrid.kernels.binomial import (
    binomial_log_probabilities,
    binomial_probabilities,
    log_binomials,
)
from sesgrid.kernels.heads import BinomialLayer
from sesgrid.kernels.network import NetworkSpec, build_network, start_plain


@given(logit=st.floats(-30, 30), k=st.integers(2, 9))
def test_binomial_is_scipys(logit, k):
    p = 1 / (1 + np.exp(-logit))
    ours = binomial_probabilities(np.array(logit), k)
    np.testing.assert_allclose(ours, binom.pmf(np.arange(k), k - 1, p), rtol=1e-6, atol=1e-12)
    assert ours.sum() == pytest.approx(1, abs=1e-12)


def test_the_layer_is_the_kernel_and_never_saturates():
    logit = np.array([[-200.0], [-3.0], [0.0], [2.5], [300.0]], dtype=np.float32)
    layer = BinomialLayer(5)
    ours = layer(logit).numpy()
    np.testing.assert_allclose(
        ours, binomial_log_probabilities(logit[:, 0], 5), rtol=1e-5, atol=1e-9
    )
    x = tf.constant(logit)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = -layer(x)[:, 0]
    assert np.isfinite(tape.gradient(loss, x).numpy()).all()
    again = BinomialLayer.from_config(layer.get_config())
    np.testing.assert_array_equal(again(logit).numpy(), ours)


def test_one_class_is_no_classification():
    with pytest.raises(ConfigError, match="at least 2"):
        log_binomials(1)


def test_network_is_the_studys(networks):
    spec, (model, _) = networks
    assert model.input_shape == (None, None, None, 3)
    assert model.output_shape == (None, 5)
    names = [layer.name for layer in model.layers]
    assert names.index("top_activation") < names.index("max_pool") < names.index("average_pool")
    assert model.get_layer("max_pool").padding == "same"
    momenta = {x.momentum for x in model.layers if isinstance(x, keras.layers.BatchNormalization)}
    assert momenta == {0.5}
    assert spec.n_classes == 5
    with pytest.raises(ConfigError, match="at least 32 px"):
        build_network(NetworkSpec(16, 5))


def test_missing_imagenet_weights_are_said_plainly(monkeypatch):
    real = keras.applications.EfficientNetB0

    def offline(*args, weights=None, **kwargs):
        if weights == "imagenet":
            raise OSError("no route to host")
        return real(*args, weights=weights, **kwargs)

    monkeypatch.setattr(keras.applications, "EfficientNetB0", offline)
    for _ in range(2):  # every training says it, not only the first of a process
        with pytest.warns(SesgridWarning, match="random weights"):
            assert obtainable_weights("imagenet", BACKBONES["efficientnetb0"]) is None
    assert obtainable_weights("file.h5", BACKBONES["efficientnetb0"]) == "file.h5"


def test_a_weight_file_is_loaded_and_a_wrong_one_refused(tmp_path):
    source = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    file = tmp_path / "backbone.weights.h5"
    source.save_weights(file)
    model = build_network(NetworkSpec(32, 3), str(file))
    np.testing.assert_array_equal(
        model.get_layer("top_conv").kernel.numpy(), source.get_layer("top_conv").kernel.numpy()
    )
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(file)
    with pytest.raises(ModelMismatchError, match=r"backbone\.weights\.h5"):
        build_network(NetworkSpec(32, 3), str(file))


def test_a_plain_start_says_one_half_and_every_branch_is_silent(networks):
    spec, _ = networks
    model = start_plain(build_network(spec, None))
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(np.exp(model(image)), [[1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16]] * 2)
    branches = [layer for layer in model.layers if layer.name.endswith("_add")]
    assert len(branches) == 9
    for branch in branches:
        around = keras.Model(model.input, [*branch.input, branch.output])
        shortcut, residual, out = around(image)
        ends = [np.abs(np.asarray(t)).max() for t in (shortcut, residual)]
        assert min(ends) == 0
        assert np.isfinite(out).all()
