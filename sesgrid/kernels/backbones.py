"""The convolutional part of the network, by name, from keras.applications.

Every backbone takes an image in 0…255, RGB, and gives a feature map at 1/32 of its resolution. Each is laid
out flat, so that any of its layers can be reached by name.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from sesgrid.errors import ConfigError, ModelMismatchError, SesgridWarning

__all__ = [
    "BACKBONES",
    "MIN_PX",
    "Backbone",
    "CaffeScaling",
    "MinMaxScaling",
    "backbone_named",
    "imagenet_at_hand",
    "obtainable_weights",
]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)

MIN_PX = 32
"""Smallest side of an image that a backbone can halve five times."""


@keras.saving.register_keras_serializable(package="sesgrid")
class CaffeScaling(layers.Layer):
    """RGB in 0…255 → BGR less ImageNet's mean, as VGG and ResNet were trained (Keras' mode "caffe")."""

    def call(self, image):
        """Apply the layer; float ``(batch, y, x, band)`` → the same."""
        mean = ops.convert_to_tensor([103.939, 116.779, 123.68], dtype=image.dtype)
        return ops.flip(image, axis=-1) - mean

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The same."""
        return input_shape


@keras.saving.register_keras_serializable(package="sesgrid")
class MinMaxScaling(layers.Layer):
    """Every image to [0, 1] by its own least and largest value; a flat image becomes zero."""

    def call(self, image):
        """Apply the layer; float ``(batch, y, x, band)`` → the same."""
        low = ops.min(image, axis=(1, 2, 3), keepdims=True)
        span = ops.max(image, axis=(1, 2, 3), keepdims=True) - low
        return (image - low) / ops.where(span > 0, span, ops.ones_like(span))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The same."""
        return input_shape


@dataclass(frozen=True)
class Backbone:
    """A network of keras.applications without its top."""

    name: str
    application: str
    """Its function in keras.applications."""
    caffe: bool = False
    """Whether it takes what `CaffeScaling` gives, instead of scaling by itself."""
    branch_end: str | None = None
    """How the names of the batch normalisations end that close a residual branch, in place of ``_add``."""
    stochastic_depth: float | None = None
    """Its own rate at the last block; None: it has none."""

    def build(
        self, weights: str | None, scaling: str = "backbone", drop_connect_rate: float = 0.2
    ) -> keras.Model:
        """The backbone as one flat functional model.

        Parameters
        ----------
        weights : {"imagenet", None} or str
            Downloaded by Keras, random, or a local file of the backbone without top.
        scaling : {"backbone", "minmax"}
            Its own, or `MinMaxScaling` in the place of its own.
        drop_connect_rate : float
            Of the last block, where the backbone has stochastic depth.

        Returns
        -------
        keras.Model
            float32 ``(batch, y, x, band)``, 0…255, RGB → feature map ``(batch, v, u, channel)``.

        Raises
        ------
        ModelMismatchError
            The file's weights do not fit, or it is damaged.
        """
        x = image = keras.Input((None, None, 3), name="image")
        if scaling == "minmax":
            x = MinMaxScaling(name="min_max")(image)
        elif self.caffe:
            x = CaffeScaling(name="caffe_scaling")(image)
        try:
            with warnings.catch_warnings():
                # Keras only warns when a file leaves layers at their random start
                warnings.filterwarnings("error", message="Skipping|.*freshly-initialized")
                # the size that weights were trained at is no matter to layers that know none
                warnings.filterwarnings("ignore", message=".*[Ww]eights for input shape")
                model = getattr(keras.applications, self.application)(
                    include_top=False, weights=weights, input_tensor=x
                )
        except (ValueError, OSError, KeyError, UserWarning) as error:
            raise ModelMismatchError(
                f"weights {weights!r} do not fit {self.application} without top, or cannot be read: {error}"
            ) from error
        by_path = weights not in (None, "imagenet")
        if by_path and scaling == "backbone" and self.application == "EfficientNetB0":
            _require_own_scaling(model, str(weights))
        _set_stochastic_depth(model, self.stochastic_depth, drop_connect_rate)
        skipped = (layers.Rescaling, layers.Normalization) if scaling == "minmax" else ()
        if any(isinstance(layer, (keras.Model, *skipped)) for layer in model.layers):
            model = _laid_flat(model, skipped)
        return model

    def fade_in(self, model: keras.Model) -> None:
        """The last batch normalisation of every residual branch starts at zero (Goyal et al. 2017, §5.1)."""
        if self.branch_end is None:
            return
        for layer in model.layers:
            if isinstance(layer, layers.Add) and layer.name.endswith("_add"):
                end = model.get_layer(layer.name.removesuffix("_add") + self.branch_end)
                end.gamma.assign(ops.zeros(end.gamma.shape))


BACKBONES = {
    b.name: b
    for b in (
        Backbone("efficientnetb0", "EfficientNetB0", False, "_project_bn", 0.2),
        Backbone("efficientnetv2b0", "EfficientNetV2B0", False, "_project_bn", 0.2),
        Backbone("vgg16", "VGG16", caffe=True),
        Backbone("resnet50", "ResNet50", True, "_3_bn"),
        Backbone("mobilenetv3", "MobileNetV3Large", False, "_project_bn"),
        # its branches start at a millionth by themselves (layer scale)
        Backbone("convnexttiny", "ConvNeXtTiny"),
    )
}
"""EfficientNetB0 is the study's."""


def backbone_named(name: str) -> Backbone:
    """A backbone; case, hyphens and underscores do not matter.

    Raises
    ------
    ConfigError
        No such backbone.

    Examples
    --------
    >>> backbone_named("EfficientNetV2-B0").application, backbone_named("ConvNeXt-Tiny").name
    ('EfficientNetV2B0', 'convnexttiny')
    """
    plain = re.sub(r"[-_ ]", "", name.lower())
    if plain not in BACKBONES:
        raise ConfigError(f"backbone must be one of {', '.join(BACKBONES)}, received {name!r}")
    return BACKBONES[plain]


def obtainable_weights(weights: str | None, backbone: Backbone) -> str | None:
    """The initial weights that can be had: None (random) where ImageNet's cannot be downloaded.

    Warns
    -----
    SesgridWarning
        ImageNet weights cannot be had.
    """
    if weights != "imagenet":
        return weights
    try:
        getattr(keras.applications, backbone.application)(
            include_top=False, weights="imagenet", input_tensor=keras.Input((None, None, 3))
        )
    except Exception as error:  # whatever a download may raise
        warnings.warn(
            "ImageNet weights could not be downloaded "
            f"({type(error).__name__}): the network starts from random weights, which needs "
            f"protocol 'scratch'; or put Keras' file of {backbone.application} without top into "
            "~/.keras/models",
            SesgridWarning,
            stacklevel=2,
        )
        return None
    return weights


def _require_own_scaling(model: keras.Model, weights: str) -> None:
    """Refuse a file that holds ImageNet's statistics of colours: with these, Keras scales once more.

    It does so for ``weights="imagenet"`` alone (keras.applications.efficientnet), so that the same file by
    its path would be shown colours twice too faint.
    """
    (layer,) = (x for x in model.layers if isinstance(x, layers.Normalization))
    if np.allclose(np.ravel(ops.convert_to_numpy(layer.mean)), _IMAGENET_MEAN, atol=1e-3):
        raise ModelMismatchError(
            f"{weights} holds Keras' ImageNet weights of EfficientNetB0, which Keras scales rightly only by "
            'name: put the file into ~/.keras/models and set train.weights = "imagenet"'
        )


def imagenet_at_hand(backbone: Backbone) -> bool:
    """Whether Keras has the ImageNet weights of a backbone on this machine, so that no download is needed."""
    home = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    names = (p.name.lower() for p in (home / "models").glob("*.h5"))
    plain = (name.replace("_", "").replace("-", "") for name in names)
    return any(backbone.application.lower() in name and "notop" in name for name in plain)


def _set_stochastic_depth(model: keras.Model, own: float | None, rate: float) -> None:
    """Keras has no argument for the rate, so the layers' own are scaled."""
    if own is None or rate == own:
        return
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate *= rate / own


def _laid_flat(model: keras.Model, skipped: tuple[type, ...]) -> keras.Model:
    """A copy with the layers of nested models one by one, and without layers of some types."""
    known = {
        layer.name: layer
        for outer in model.layers
        for layer in (outer.layers if isinstance(outer, keras.Sequential) else [outer])
    }
    made: dict[str, layers.Layer] = {}

    def copy(layer: layers.Layer) -> layers.Layer:
        made[layer.name] = type(layer).from_config(layer.get_config())
        return made[layer.name]

    def call(layer: layers.Layer, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Sequential):
            for inner in layer.layers:
                x = copy(inner)(x)
            return x
        return x if isinstance(layer, skipped) else layer(x, *args, **kwargs)

    flat = keras.models.clone_model(
        model,
        clone_function=lambda layer: layer if isinstance(layer, keras.Sequential) else copy(layer),
        call_function=call,
    )
    for layer in flat.layers:
        if layer.name in made:
            layer.set_weights(known[layer.name].get_weights())
    return flat
