"""Every backbone against keras.applications' own model and its documented preprocessing."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from sesgrid.errors import ConfigError, ModelMismatchError
from sesgrid.kernels.backbones import BACKBONES, CaffeScaling, MinMaxScaling, backbone_named
from sesgrid.kernels.network import NetworkSpec, build_network, start_plain

APPLICATIONS = {
    # name: (the function, the module that documents its preprocessing)
    "efficientnetb0": ("EfficientNetB0", "efficientnet"),
    "efficientnetv2b0": ("EfficientNetV2B0", "efficientnet_v2"),
    "vgg16": ("VGG16", "vgg16"),
    "resnet50": ("ResNet50", "resnet"),
    "mobilenetv3": ("MobileNetV3Large", "mobilenet_v3"),
    "convnexttiny": ("ConvNeXtTiny", "convnext"),
}
ALL = pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("efficientnetb0", "vgg16") else pytest.mark.long)
        for n in APPLICATIONS
    ],
)
"""The study's and a plain one always; the others with the longest tests."""


def application(name, **options):
    function = getattr(keras.applications, APPLICATIONS[name][0])
    return function(include_top=False, weights=None, **options)


def test_keras_own_file_of_efficientnetb0_is_refused_by_path(tmp_path):
    """With ImageNet's statistics of colours Keras scales twice, but only for ``weights="imagenet"``."""
    model, file = application("efficientnetb0"), tmp_path / "efficientnetb0.weights.h5"
    (layer,) = (x for x in model.layers if isinstance(x, keras.layers.Normalization))
    model.save_weights(file)
    backbone = backbone_named("efficientnetb0")
    backbone.build(str(file))
    layer.set_weights(
        [
            np.float32([0.485, 0.456, 0.406]),
            np.float32([0.229, 0.224, 0.225]),
            *layer.get_weights()[2:],
        ]
    )
    model.save_weights(file)
    with pytest.raises(ModelMismatchError, match=r"ImageNet weights of EfficientNetB0.*by name"):
        backbone.build(str(file))
    backbone.build(str(file), scaling="minmax")


@pytest.fixture(scope="module")
def applied():
    """keras.applications' model of a name, none of whose parts is silent, and its file of weights."""
    with tempfile.TemporaryDirectory() as folder:

        @functools.cache
        def get(name):
            keras.utils.set_random_seed(1)
            model = application(name, input_shape=(None, None, 3))
            rng = np.random.default_rng(1)
            for layer in model.layers:
                for variable in layer.weights:
                    vary(variable, rng)
                if isinstance(layer, keras.layers.Normalization):
                    layer.finalize_state()
            file = Path(folder) / f"{name}.weights.h5"
            model.save_weights(file)
            return model, file

        yield get


def vary(variable, rng):
    """Offsets that are not nought, scales that are not one, branches that are not a millionth."""
    kind = variable.path.rsplit("/", 1)[-1]
    noise = rng.uniform(0.5, 1.5, variable.shape)
    if kind in ("bias", "beta", "moving_mean", "mean"):
        variable.assign(noise - 1)
    elif kind in ("gamma", "moving_variance", "variance"):
        variable.assign(noise)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype(np.float32)


def assert_same_map(ours, theirs):
    assert ours.shape == theirs.shape == (2, 2, 3, theirs.shape[-1])
    scale = np.abs(theirs).max()
    assert scale > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * scale)
    assert np.std(theirs, axis=(1, 2)).max() > 2e-3 * scale


def run(model, images):
    """Keras warns where a model with one input by name is given a bare array."""
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.Model(inputs, model.outputs[0])(tf.constant(images)).numpy()


@pytest.mark.slow
@ALL
def test_it_is_the_applications_with_its_own_preprocessing(applied, images, name):
    theirs, file = applied(name)
    module = getattr(keras.applications, APPLICATIONS[name][1])
    expected = run(theirs, module.preprocess_input(images.copy()))
    ours = backbone_named(name).build(str(file))
    assert not [x.name for x in ours.layers if isinstance(x, keras.Model)]
    assert_same_map(run(ours, images), expected)


@pytest.mark.slow
@ALL
def test_minmax_takes_the_place_of_its_own_scaling(applied, images, name):
    theirs, file = applied(name)
    if name in ("efficientnetv2b0", "mobilenetv3", "convnexttiny"):
        bare = application(name, input_shape=(None, None, 3), include_preprocessing=False)
        bare.set_weights(theirs.get_weights())
    elif name == "efficientnetb0":
        bare = keras.Model(theirs.get_layer("stem_conv_pad").input, theirs.output)
    else:
        bare = theirs  # its scaling is outside
    low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
    expected = run(bare, (images - low) / (high - low))
    ours = backbone_named(name).build(str(file), scaling="minmax")
    kinds = {type(x).__name__ for x in ours.layers}
    assert kinds.isdisjoint({"Rescaling", "Normalization", "CaffeScaling", "Functional"})
    assert_same_map(run(ours, images), expected)
    # whatever its brightness and contrast
    np.testing.assert_allclose(
        run(ours, 0.5 * images + 20), run(ours, images), atol=1e-3 * np.abs(expected).max()
    )


@pytest.mark.long
@pytest.mark.parametrize("scaling", ["backbone", "minmax"])
@ALL
def test_saved_and_loaded_in_safe_mode_it_is_the_same(images, tmp_path, name, scaling):
    spec = NetworkSpec(64, 3, backbone=name, head="softmax", scaling=scaling)
    model = build_network(spec, None)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert not [x.name for x in again.layers if isinstance(x, keras.Model)]
    image = tf.constant(images)
    np.testing.assert_array_equal(again(image).numpy(), model(image).numpy())


def test_every_backbone_is_tested():
    assert set(BACKBONES) == set(APPLICATIONS)
    for name, (function, _) in APPLICATIONS.items():
        assert backbone_named(function.replace("Large", "")).name == name
    with pytest.raises(ConfigError, match=r"efficientnetb0, .*, convnexttiny, received 'alexnet'"):
        backbone_named("alexnet")


@pytest.mark.slow
@pytest.mark.parametrize("other", ["efficientnetv2b0", "resnet50", "mobilenetv3"])
def test_the_file_of_another_backbone_is_refused(applied, other):
    names = ["efficientnetb0", "efficientnetv2b0", "resnet50", "mobilenetv3"]
    name = names[names.index(other) - 1]
    _, file = applied(other)
    with pytest.raises(
        ModelMismatchError, match=rf"{other}\.weights\.h5.* do not fit .* without top"
    ):
        backbone_named(name).build(str(file))


@pytest.mark.slow
def test_files_of_every_kind_are_read_and_broken_ones_named(applied, images, tmp_path):
    theirs, file = applied("mobilenetv3")
    expected = run(theirs, images)
    build = backbone_named("mobilenetv3").build
    legacy, whole = tmp_path / "legacy.h5", tmp_path / "whole.keras"
    write_legacy(theirs, legacy)
    theirs.save(whole)
    for kind in (legacy, whole):
        assert_same_map(run(build(str(kind)), images), expected)
    truncated = tmp_path / "truncated.weights.h5"
    truncated.write_bytes(file.read_bytes()[:50_000])
    (tmp_path / "text.h5").write_text("not found")
    (tmp_path / "unknown.bin").write_bytes(file.read_bytes())
    for bad in (truncated, tmp_path / "text.h5", tmp_path / "absent.h5", tmp_path / "unknown.bin"):
        with pytest.raises(ModelMismatchError, match=bad.name):
            build(str(bad))


def write_legacy(model, path):
    """The kind of file that Keras' downloads have: the weights of each layer, in order."""
    import h5py

    layers = [x for x in model.layers if isinstance(x, keras.layers.Layer)]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [x.name.encode() for x in layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.4.0"
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{k}:0".encode() for k in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for at, value in zip(names, layer.get_weights(), strict=True):
                group[at.decode()] = value


def test_scalings_by_hand():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (3, 4, 5, 3)).astype(np.float32)
    image[2] = 7
    theirs = keras.applications.vgg16.preprocess_input(image.copy())
    np.testing.assert_allclose(CaffeScaling()(image), theirs, atol=1e-4)
    ours = MinMaxScaling()(image).numpy()
    for k in range(2):
        np.testing.assert_allclose(ours[k].min(), 0)
        np.testing.assert_allclose(ours[k].max(), 1)
        slope, offset = np.polyfit(image[k].ravel(), ours[k].ravel(), 1)
        np.testing.assert_allclose(ours[k], slope * image[k] + offset, atol=1e-5)
    # an image of one colour has no contrast
    np.testing.assert_array_equal(ours[2], 0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "blocks"), [("efficientnetb0", 16), ("efficientnetv2b0", 21)])
def test_stochastic_depth_grows_to_its_rate(name, blocks):
    for rate in (0.0, 0.2, 0.35):
        model = backbone_named(name).build(None, drop_connect_rate=rate)
        dropouts = {x.name: x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)}
        order = [x.name.split("_")[0] for x in model.layers if x.name.startswith("block")]
        order = list(dict.fromkeys(order))
        assert len(order) == blocks
        for layer, received in dropouts.items():
            block = order.index(layer.split("_")[0])
            assert received == pytest.approx(rate * block / blocks), layer
        assert len(dropouts) >= 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "branches"), [("efficientnetv2b0", 15), ("resnet50", 16), ("mobilenetv3", 10)]
)
def test_residual_branches_start_silent(images, name, branches):
    """As tests/test_network.py has it for EfficientNetB0."""
    model = start_plain(build_network(NetworkSpec(64, 3, backbone=name), None), name)
    adds = [x for x in model.layers if isinstance(x, keras.layers.Add) and "_add" in x.name]
    assert len(adds) == branches
    around = keras.Model(model.input, [t for x in adds for t in x.input])
    outputs = [np.abs(np.asarray(t)).max() for t in around(tf.constant(images))]
    for one, other in zip(outputs[::2], outputs[1::2], strict=True):
        assert min(one, other) == 0 < max(one, other)
