"""The explanation against the formulas written out class by class, for every preset and head."""

from __future__ import annotations

import dataclasses
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
from sesgrid.kernels.backbones import BACKBONES
from sesgrid.kernels.binomial import binomial_log_probabilities, binomial_slopes
from sesgrid.kernels.class_sums import class_sums
from sesgrid.kernels.gates import copied, is_gated
from sesgrid.kernels.heads import BinomialLayer, OrdinalLayer, add_head, class_log_probabilities
from sesgrid.kernels.method import PRESETS, Method, method_named
from sesgrid.kernels.network import NetworkSpec, build_network
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
    # adapted by a file, as EfficientNet's is by ImageNet's
    x = layers.Normalization(name="normalization")(layers.Rescaling(1 / 128)(image))
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
    adapt(model, [0.9, 1.0, 1.1], [0.7, 0.9, 1.2])
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma * 2, beta + rng.normal(0, 0.3, beta.shape), mean, variance])
    return model


def adapt(model, mean, variance):
    """Set what a network takes from its colours, and divides them by."""
    layer = model.get_layer("normalization")
    layer.set_weights([np.array(mean), np.array(variance), np.array(0)])
    layer.finalize_state()


@pytest.fixture(scope="module")
def small():
    """Two networks of one architecture."""
    one = small_network(1)
    keras.utils.set_random_seed(2)
    other = keras.models.clone_model(one)
    adapt(other, [1.2, 0.8, 1.0], [1.0, 0.6, 0.8])
    other.get_layer("top_conv").bias.assign([0.1, -0.3, 0.2, 0.4, -0.1, 0.0, 0.3, -0.2])
    return one, other


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


SLOPES = {
    # of activations: the function, and its derivative
    "silu": (
        lambda x: x * tf.sigmoid(x),
        lambda x: tf.sigmoid(x) * (1 + x * (1 - tf.sigmoid(x))),
    ),
    "relu": (tf.nn.relu, lambda x: tf.cast(x > 0, x.dtype)),
    "hard_silu": (
        lambda x: x * tf.clip_by_value(x + 3, 0, 6) / 6,
        lambda x: tf.where(x <= -3, 0 * x, tf.where(x >= 3, 0 * x + 1, (2 * x + 3) / 6)),
    ),
}


def guided(name):
    """An activation whose gradient is gated by its own sign and the activation's."""
    function, slope = SLOPES[name]

    @tf.custom_gradient
    def activation(x):
        y = function(x)

        def grad(dy):
            return dy * slope(x) * tf.cast(dy > 0, x.dtype) * tf.cast(y > 0, x.dtype)

        return y, grad

    return activation


def activation_of(layer):
    """The name of what a layer applies to a map, as keras.applications writes its networks; or None."""
    if "squeeze_excite" in layer.name or getattr(layer, "max_value", None) is not None:
        return None  # MobileNetV3 clips nothing but its gates of channels
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    spatial = isinstance(layer, keras.layers.Activation | keras.layers.Conv2D)
    pooled = tuple(layer.output.shape[1:3]) == (1, 1)
    return name if spatial and not pooled and name in SLOPES else None


def in_double(model, gated):
    """The network in float64, with gates at every activation of a map or without."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Layer):  # not a sum or product of maps
            config["dtype"] = "float64"
        copy = type(layer).from_config(config)
        name = activation_of(layer) if gated else None
        if name is None:
            return copy
        if not isinstance(layer, keras.layers.Conv2D):
            return keras.layers.Lambda(guided(name), name=layer.name, dtype="float64")
        copy.activation = guided(name)
        return copy

    one_output = isinstance(model.layers[-1], BinomialLayer | OrdinalLayer)
    last = model.layers[-2] if one_output else model.layers[-1]
    bare = keras.Model(model.input, last.output)
    double = keras.models.clone_model(bare, clone_function=clone)
    for layer in bare.layers:
        if not isinstance(layer, keras.layers.Dropout):
            copy = double.get_layer(layer.name)
            copy.set_weights(layer.get_weights())
            if isinstance(layer, keras.layers.Normalization):
                copy.finalize_state()
    return double


def probabilities(model):
    """P(k) of every image from what a network in double gives: the logit, or log-probabilities."""
    last = model.layers[-1]
    if isinstance(last, BinomialLayer):
        # as the study prints it, with K − 1 trials
        return lambda out, k: binomial_mass(tf.sigmoid(out[:, 0]), k, last.n_classes - 1)
    if isinstance(last, OrdinalLayer):
        at = np.array([-np.inf, *last.thresholds().numpy().astype(float), np.inf])
        return lambda out, k: tf.sigmoid(out[:, 0] - at[k]) - tf.sigmoid(out[:, 0] - at[k + 1])
    return lambda out, k: tf.exp(out[:, k])


def binomial_mass(p, k, n):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def naive_maps(model, method, images, n_classes):
    """Guided Grad-CAM ``(image, class, y, x)`` from the formulas: two passes for every class."""
    gated = in_double(model, method.gates == "guided")
    plain = in_double(model, False)
    both = keras.Model(plain.input, [explained(plain, method.layer), plain.output])
    probability_of = probabilities(model)
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


def explained(model, name):
    """The output of a layer; of the last feature map where a backbone has no such name."""
    if name == "top_activation" and all(layer.name != name for layer in model.layers):
        return model.get_layer("max_pool").input
    return model.get_layer(name).output


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


@pytest.fixture(scope="module")
def backbones():
    """Networks of other backbones, small and with random weights, by backbone and head."""
    made = {}

    def get(name, head):
        if (name, head) not in made:
            keras.utils.set_random_seed(4)
            model = build_network(NetworkSpec(64, 3, backbone=name, head=head), None)
            batch = np.random.default_rng(4).uniform(0, 255, (8, 64, 64, 3)).astype("float32")
            for _ in range(8 if name == "mobilenetv3" else 0):
                model(batch, training=True)
            rng = np.random.default_rng(5)
            for layer in model.layers:
                if isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
                    layer.bias.assign(rng.normal(0, 0.05, layer.bias.shape))
            made[name, head] = model
        return made[name, head]

    return get


GUIDED = Method("guided", "top_activation", "guided", "relu", None, "rgb")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "head", "method"),
    [
        ("vgg16", "ordinal", GUIDED),
        # the gates between the explained layer and the head are within convolutions
        ("vgg16", "softmax", Method("deep", "block4_conv2", "guided", "centred", 95.0, "bgr")),
        pytest.param("mobilenetv3", "ordinal", GUIDED, marks=pytest.mark.long),
        pytest.param(
            "mobilenetv3", "softmax", Method("middle", "activation_3", "guided", "relu", None, "rgb"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            "mobilenetv3", "binomial", Method("plain", "top_conv", "none", "relu", None, "rgb"),
            marks=pytest.mark.long,
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else x.name,
)  # fmt: skip
def test_other_backbones_and_heads_are_explained_by_the_formulas(
    backbones, images, name, head, method
):
    model, images = backbones(name, head), images[:, :48, :48]
    if method.layer.startswith("activation_"):
        # Keras numbers activations anew in every network
        swishes = [x.name for x in model.layers if isinstance(x, keras.layers.Activation)]
        residual = {x.name for x in model.layers if "squeeze_excite" in x.name}
        method = method_named_layer(method, [n for n in swishes if n not in residual][-1])
    if method.layer == "top_conv":
        convolutions = [x.name for x in model.layers if isinstance(x, keras.layers.Conv2D)]
        naive_method = method_named_layer(method, convolutions[-1])
    else:
        naive_method = method
    explainer = Explainer(model, method, classes=(0, 1, 2))
    output, evidence, sensitivity = explainer.factors(explainer.weights_of(model), images)
    log_p = class_log_probabilities(model, output)
    np.testing.assert_allclose(log_p, model(tf_images(images, method)), rtol=1e-3, atol=1e-4)
    one_output = head != "softmax"
    maps = attribution_maps(evidence, sensitivity, method, signed=one_output)
    naive = naive_maps(model, naive_method, images, 3)
    slopes = slopes_of(model, images, method) if one_output else None
    for i, k in np.ndindex(2, 3):
        slope = np.exp(log_p[i, k]) if slopes is None else slopes[i, k]
        ours = maps[i, k if slopes is None else int(slope > 0)]
        assert_close(ours * abs(slope) ** (2 if method.cam == "relu" else 1), naive[i, k])
    assert naive.any((2, 3)).sum() >= 2


def method_named_layer(method, layer):
    return dataclasses.replace(method, layer=layer)


def tf_images(images, method):
    return tf.constant((images[..., ::-1] if method.channels == "bgr" else images).astype("f4"))


def slopes_of(model, images, method):
    """dP(k)/dz, ``(image, class)``, by TensorFlow."""
    z = tf.cast(in_double(model, False)(tf_images(images, method)), tf.float64)
    out = []
    for k in range(model.output_shape[1]):
        with tf.GradientTape() as tape:
            tape.watch(z)
            probability = probabilities(model)(z, k)
        out.append(tape.gradient(probability, z).numpy()[:, 0])
    return np.stack(out, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gates"),
    [
        # stem, expansion and depthwise of 16 blocks (the first expands nothing), top
        ("efficientnetb0", 1 + 15 + 16 + 1),
        # stem, first block, 4 fused blocks, expansion and depthwise of 16 blocks, top
        ("efficientnetv2b0", 1 + 1 + 4 + 2 * 16 + 1),
        ("vgg16", 13),
        ("resnet50", 1 + 3 * 16),
        # stem, expansion and depthwise of 15 blocks (the first expands nothing), top
        ("mobilenetv3", 1 + 14 + 15 + 1),
        ("convnexttiny", 3 + 3 + 9 + 3),
    ],
)
def test_gates_are_at_every_activation_of_a_map(name, gates):
    model = BACKBONES[name].build(None)
    gated = keras.models.clone_model(model, clone_function=copied(True, "float32"))
    found = [layer.name for layer in gated.layers if is_gated(layer)]
    assert len(found) == gates
    assert not [n for n in found if "_se_" in n or "squeeze" in n]
    plain = keras.models.clone_model(model, clone_function=copied(False, "bfloat16"))
    assert plain.outputs[0].dtype == "bfloat16"
    assert not [layer.name for layer in plain.layers if is_gated(layer)]


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


def test_bfloat16_leaves_the_head_in_float32(small, images):
    """Log-probabilities that were rounded to eight bits would not sum to one."""
    features = small[0].get_layer("average_pool").output
    keras.utils.set_random_seed(6)
    model = keras.Model(small[0].input, add_head(features, "softmax", 5))
    explainer = Explainer(model, PRESETS["paper"], precision="bfloat16")
    output = explainer.output(explainer.weights_of(model), images)
    np.testing.assert_allclose(np.exp(output.astype(float)).sum(-1), 1, atol=1e-5)


@pytest.mark.slow
def test_colours_are_scaled_as_the_model_scales_them(tmp_path, images):
    """What a file of EfficientNetB0 says of its colours is part of the weights."""
    source = keras.applications.EfficientNetB0(include_top=False, weights=None)
    layer = next(x for x in source.layers if isinstance(x, keras.layers.Normalization))
    values = [0.45, 0.5, 0.4], [0.229, 0.224, 0.225], 0
    layer.set_weights([np.array(v) for v in values])
    source.save_weights(tmp_path / "b0.weights.h5")
    spec = NetworkSpec(64, 3, head="softmax")
    keras.utils.set_random_seed(7)
    model = build_network(spec, str(tmp_path / "b0.weights.h5"))
    model(images.astype("float32"), training=True)
    said = model(images.astype("float32")).numpy()
    for made_for in (model, build_network(spec, None)):
        explainer = Explainer(made_for, PRESETS["paper"])
        output = explainer.output(explainer.weights_of(model), images)
        np.testing.assert_allclose(output, said, rtol=1e-4, atol=1e-6)


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


@pytest.mark.long
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
