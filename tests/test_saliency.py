"""The explanation against the formulas written out class by class, for every preset and head."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import ConfigError, ModelMismatchError
from sesgrid.kernels.attribution import attributed_sums, attribution_maps, quantised, restored
from sesgrid.kernels.binomial import binomial_log_probabilities, binomial_slopes
from sesgrid.kernels.class_sums import class_sums
from sesgrid.kernels.heads import BinomialLayer
from sesgrid.kernels.method import PRESETS, Method, method_named
from sesgrid.kernels.saliency import Explainer

METHODS = [
    PRESETS["paper"],
    PRESETS["reference"],
    Method("mixed", "excited", "guided", "centred", 90.0, "bgr"),
    Method("plain", "top_activation", "none", "relu", 99.5, "rgb"),
]


def small_network(seed):
    """What matters of the study's network, small: swish, batch norm, squeeze-and-excite, one output."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-1)(image)
    x = layers.Conv2D(6, 3, 2, padding="same", use_bias=False)(x)
    x = layers.Activation("silu", name="stem_activation")(layers.BatchNormalization()(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(3, 1, activation="silu")(gate)
    gate = layers.Conv2D(6, 1, activation="sigmoid")(gate)
    x = layers.Multiply(name="excited")([x, gate])
    x = layers.Dropout(0.2)(layers.Conv2D(8, 3, 2, padding="same", name="top_conv")(x))
    x = layers.Activation("silu", name="top_activation")(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(2, 2, padding="same")(x)
    x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    logit = layers.Dense(1, name="logit")(x)
    model = keras.Model(image, BinomialLayer(5)(logit))
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma * 2, beta + rng.normal(0, 0.3, beta.shape), mean, variance])
    return model


@pytest.fixture(scope="module")
def small():
    """Two networks of one architecture."""
    one = small_network(1)
    keras.utils.set_random_seed(2)
    other = keras.models.clone_model(one)
    other.get_layer("top_conv").bias.assign([0.1, -0.3, 0.2, 0.4, -0.1, 0.0, 0.3, -0.2])
    return one, other


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def in_double(model, gated):
    """The network in float64, with gates at every swish or without."""

    @tf.custom_gradient
    def guided(x):
        y = x * tf.sigmoid(x)

        def grad(dy):
            slope = tf.sigmoid(x) * (1 + x * (1 - tf.sigmoid(x)))
            return dy * slope * tf.cast(dy > 0, x.dtype) * tf.cast(y > 0, x.dtype)

        return y, grad

    def clone(layer):
        swish = isinstance(layer, keras.layers.Activation) and "silu" in layer.activation.__name__
        if gated and swish:
            return keras.layers.Lambda(guided, name=layer.name, dtype="float64")
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    last = model.layers[-2] if isinstance(model.layers[-1], BinomialLayer) else model.layers[-1]
    bare = keras.Model(model.input, last.output)
    double = keras.models.clone_model(bare, clone_function=clone)
    for layer in bare.layers:
        if not isinstance(layer, keras.layers.Dropout):
            double.get_layer(layer.name).set_weights(layer.get_weights())
    return double


def probability_of(output, k):
    """P(k) of every image, from the logit as the study prints it (with K − 1 = 4 trials), or a softmax."""
    if output.shape[1] > 1:
        return tf.exp(output[:, k])
    p = tf.sigmoid(output[:, 0])
    return math.comb(4, k) * p**k * (1 - p) ** (4 - k)


def naive_maps(model, method, images, n_classes):
    """Guided Grad-CAM ``(image, class, y, x)`` from the formulas: two passes for every class."""
    gated = in_double(model, method.gates == "guided")
    plain = in_double(model, False)
    both = keras.Model(plain.input, [plain.get_layer(method.layer).output, plain.output])
    shown = images[..., ::-1] if method.channels == "bgr" else images
    x = tf.constant(shown.astype(np.float64))
    out = []
    for k in range(n_classes):
        with tf.GradientTape() as tape:
            tape.watch(x)
            probability = probability_of(gated(x), k)
        backprop = tf.reduce_sum(tf.abs(tape.gradient(probability, x)), -1).numpy()
        with tf.GradientTape() as tape:
            features, output = both(x)
            probability = probability_of(output, k)
        weights = tf.reduce_mean(tape.gradient(probability, features), (1, 2))
        cams = tf.reduce_sum(weights[:, None, None] * features, -1)
        out.append([finished(c, b, method) for c, b in zip(cams, backprop, strict=True)])
    return np.moveaxis(np.array(out), 0, 1)


def finished(cam, backprop, method):
    size = backprop.shape
    if method.cam == "relu":
        cam = tf.image.resize(tf.nn.relu(cam)[..., None], size)[..., 0].numpy()
    else:
        cam = (cam - tf.reduce_mean(cam)) / tf.norm(cam)
        cam = np.maximum(tf.image.resize(cam[..., None], size)[..., 0].numpy(), 0)
        cam = cam / cam.max() if cam.max() > 0 else cam
    product = cam * backprop
    if method.clip_percentile is not None:
        product = np.minimum(product, np.percentile(product, method.clip_percentile))
    return product


def assert_close(ours, naive):
    """A relative error of at most 1e-4, by the maps' norms."""
    assert np.linalg.norm(ours - naive) <= 1e-4 * np.linalg.norm(naive)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_one_pass_gives_every_class_its_map(small, images, method):
    assert_every_class(small, images, method)


@pytest.mark.long
@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_so_it_does_for_the_study_s_network(networks, images, preset):
    assert_every_class(networks[1], images, PRESETS[preset])


def assert_every_class(models, images, method):
    # one explainer serves every model of the architecture
    explainer, model = Explainer(models[0], method), models[1]
    weights = explainer.weights_of(model)
    logit, evidence, sensitivity = explainer.factors(weights, images)
    shown = images[..., ::-1] if method.channels == "bgr" else images
    said = model(shown.astype("float32"))
    np.testing.assert_allclose(binomial_log_probabilities(logit, 5), said, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(explainer.output(weights, images), logit, rtol=1e-4, atol=1e-5)
    maps = attribution_maps(evidence, sensitivity, method)
    assert (maps >= 0).all()
    slopes = binomial_slopes(logit, 5)
    naive = naive_maps(model, method, images, 5)
    for i, k in np.ndindex(2, 5):
        # what the class contributes: once by S, and once by a cam that is not normalised
        factor = abs(slopes[i, k]) ** (2 if method.cam == "relu" else 1)
        assert_close(maps[i, int(slopes[i, k] > 0)] * factor, naive[i, k])
    assert naive.any((2, 3)).sum() >= 5


def softmax_head(model):
    """The same backbone with three probabilities."""
    features = model.get_layer("top_activation").output
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    keras.utils.set_random_seed(3)
    output = keras.layers.Dense(3, activation="log_softmax", name="classes")(pooled)
    return keras.Model(model.input, output)


@pytest.mark.parametrize("method", [PRESETS["paper"], PRESETS["reference"]], ids=lambda m: m.name)
def test_any_head_goes_through_the_same_interface(small, images, method):
    model = softmax_head(small[0])
    explainer = Explainer(model, method, classes=(0, 1, 2))
    output, evidence, sensitivity = explainer.factors(explainer.weights_of(model), images)
    assert output.shape == (2, 3)
    maps = attribution_maps(evidence, sensitivity, method, signed=False)
    naive = naive_maps(model, method, images, 3)
    for i, k in np.ndindex(2, 3):
        # ours explains log P, whose gradient is that of P over P
        factor = np.exp(np.float64(output[i, k])) ** (2 if method.cam == "relu" else 1)
        assert_close(maps[i, k] * factor, naive[i, k])
    assert naive.any((2, 3)).sum() >= 4
    default = Explainer(model, method).factors(explainer.weights_of(model), images)
    np.testing.assert_array_equal(default.evidence, evidence[:, [0, 2]])


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_sums_are_those_of_the_maps(small, images, method):
    model = small[0]
    explainer = Explainer(model, method)
    _, evidence, sensitivity = explainer.factors(explainer.weights_of(model), images)
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 7, (2, 8, 8), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    sums = attributed_sums(evidence, sensitivity, classes, 7, method)
    maps = attribution_maps(evidence, sensitivity, method)
    for i in range(2):
        np.testing.assert_allclose(
            sums[i], class_sums(maps[i], classes[i], 64, 7)[:, 0, 0], rtol=1e-6
        )
    # a cell is alone: whatever else is in the batch
    np.testing.assert_array_equal(
        attributed_sums(evidence[1:], sensitivity[1:], classes[1:], 7, method)[0], sums[1]
    )


def test_bfloat16_is_near_float32(small, images):
    model = small[0]
    full, half = (
        Explainer(model, PRESETS["reference"], precision=p) for p in ("float32", "bfloat16")
    )
    a, b = (e.factors(e.weights_of(model), images) for e in (full, half))
    assert b.evidence.dtype == b.sensitivity.dtype == np.float32
    np.testing.assert_allclose(a.output, b.output, atol=0.2)
    for x, y in zip(a.sensitivity, b.sensitivity, strict=True):
        assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.95


def test_an_all_zero_map_has_no_sums_and_no_nan():
    evidence = np.zeros((1, 1, 2, 2), np.float32)
    sensitivity = np.ones((1, 1, 8, 8), np.float32)
    classes = np.ones((1, 8, 8), np.uint8)
    for method in METHODS:
        sums = attributed_sums(evidence, sensitivity, classes, 2, method)
        assert not sums.any()
        assert not attribution_maps(evidence, sensitivity, method).any()


def test_what_is_not_finite_or_does_not_fit_is_named():
    evidence = np.ones((2, 1, 2, 2), np.float32)
    sensitivity = np.ones((2, 1, 8, 8), np.float32)
    classes = np.ones((2, 8, 8), np.uint8)
    method = PRESETS["reference"]
    with pytest.raises(ValueError, match="n_classes = 1"):
        attributed_sums(evidence, sensitivity, classes, 1, method)
    with pytest.raises(ValueError, match=r"classes: expected \(cell, y, x\)"):
        attributed_sums(evidence, sensitivity, classes[:1], 2, method)
    with pytest.raises(ValueError, match="expected evidence float32"):
        attributed_sums(evidence, sensitivity[:1], classes, 2, method)
    for bad in (np.nan, np.inf):
        broken = sensitivity.copy()
        broken[1, 0, 3, 3] = bad
        with pytest.raises(ValueError, match="cell 1 hold values that are not finite"):
            attributed_sums(evidence, broken, classes, 2, PRESETS["paper"])


def test_another_architecture_is_refused(small):
    explainer = Explainer(small[0])
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ModelMismatchError, match="architecture"):
        explainer.weights_of(other)


def test_models_that_cannot_be_explained_are_named(small, images):
    model = small[0]
    with pytest.raises(ModelMismatchError, match=r"no layer 'conv_99' .*top_activation"):
        Explainer(model, Method(layer="conv_99"))
    with pytest.raises(ModelMismatchError, match=r"'average_pool' has the output .*convolutional"):
        Explainer(model, Method(layer="average_pool"))
    nested = keras.Sequential([keras.Input((64, 64, 3)), keras.Model(model.input, model.output)])
    with pytest.raises(ModelMismatchError, match="nests the models"):
        Explainer(nested)
    fixed = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(2, 3, name="top_activation"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="log_softmax"),
        ]
    )
    explainer = Explainer(fixed)
    with pytest.raises(ModelMismatchError, match="takes images of 32 × 32 px, received 64 × 64"):
        explainer.factors(explainer.weights_of(fixed), images)


def test_methods_by_name():
    assert method_named("reference") is PRESETS["reference"]
    assert method_named("paper", gates="guided") is PRESETS["paper"]
    changed = method_named("paper", gates="none", clip_percentile=99.0)
    assert (changed.gates, changed.layer) == ("none", "top_activation")
    assert changed.name == "paper, changed: gates=none, clip_percentile=99.0"
    for wrong in ({"gates": "half"}, {"cam": "abs"}, {"clip_percentile": 0.0}, {"channels": "xyz"}):
        with pytest.raises(ConfigError):
            method_named("paper", **wrong)
    with pytest.raises(ConfigError, match="paper, reference"):
        method_named("thesis")


def test_jax_gives_the_same(small, images, tmp_path):
    """In a process of its own: a process has one backend."""
    pytest.importorskip("jax")
    small[0].save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, keras, numpy as np; from pathlib import Path;"
        "from sesgrid.kernels import network; from sesgrid.kernels.method import PRESETS;"
        "from sesgrid.kernels.saliency import Explainer; folder = Path(sys.argv[1]);"
        "assert keras.backend.backend() == 'jax';"
        "model = keras.saving.load_model(folder / 'model.keras', compile=False, safe_mode=True);"
        "images = np.load(folder / 'images.npy');"
        "es = {n: Explainer(model, m) for n, m in PRESETS.items()};"
        "fs = {n: e.factors(e.weights_of(model), images) for n, e in es.items()};"
        "[np.savez(folder / f'{n}.npz', **f._asdict()) for n, f in fs.items()]"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}, check=True,
    )  # fmt: skip
    for name, method in PRESETS.items():
        explainer = Explainer(small[0], method)
        ours = explainer.factors(explainer.weights_of(small[0]), images)
        theirs = np.load(tmp_path / f"{name}.npz")
        for part, values in ours._asdict().items():
            scale = np.abs(values).max()
            np.testing.assert_allclose(theirs[part], values, atol=1e-3 * scale, err_msg=part)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-30, 1e-41, 1e30]))
def test_bytes_are_within_half_a_step_of_the_root(seed, scale):
    rng = np.random.default_rng(seed)
    maps = (rng.lognormal(0, 3, (2, 5, 5)) * scale * (rng.random((2, 5, 5)) < 0.7)).astype(
        np.float32
    )
    maps[1] = 0
    values, peaks = quantised(maps)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(peaks, maps.max((1, 2)))
    assert not restored(values, peaks)[1].any()
    if peaks[0] > 0:
        share = np.sqrt(maps[0].astype(np.float64) / np.float64(peaks[0]))
        assert np.abs(values[0] / 255 - share).max() <= 0.5001 / 255
        assert values[0].max() == 255
