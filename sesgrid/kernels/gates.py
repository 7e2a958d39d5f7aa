"""Copies of a network's layers for the explaining passes: gated activations, no dropout.

Guided backpropagation (Springenberg et al. 2015) lets through what is positive in both directions: the
activation and the gradient that reaches it. Squeeze-and-excite, whose maps are 1 × 1, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from sesgrid.kernels.heads import LOGIT_LAYER, BinomialLayer, LogSoftmaxLayer, OrdinalLayer

__all__ = ["GivenNormalization", "GuidedActivation", "GuidedSwish", "copied", "is_gated"]

_GATED = (
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.hard_silu,
    keras.activations.gelu,
)
"""Beside swish, which has a gradient of its own here."""


class GuidedSwish(layers.Layer):
    """Swish whose gradient is gated: by its own sign, and by the sign of the activation."""

    def call(self, x):
        """Apply swish; float ``(…)`` → ``(…)``."""

        @ops.custom_gradient
        def swish(x):
            s = ops.sigmoid(x)
            y = x * s

            def grad(*args, upstream=None):
                dy = args[0] if upstream is None else upstream
                open_gate = ops.cast(ops.logical_and(dy > 0, y > 0), dy.dtype)
                return dy * open_gate * (s + y * (1 - s))

            return y, grad

        return swish(x)


class GuidedActivation(layers.Activation):
    """Any activation, gated as `GuidedSwish` is."""

    def call(self, x):
        """Apply the activation; float ``(…)`` → ``(…)``."""

        @ops.custom_gradient
        def gate(y):
            def grad(*args, upstream=None):
                dy = args[0] if upstream is None else upstream
                return dy * ops.cast(ops.logical_and(dy > 0, y > 0), dy.dtype)

            return ops.copy(y), grad

        return gate(self.activation(x))


class GivenNormalization(layers.Normalization):
    """Normalization over the last axis by its variables, which the passes are given.

    Keras' own keeps constants, made when a file was loaded: a copy would know nothing of them.
    """

    def call(self, x):
        """Apply the layer; float ``(…, band)`` → the same."""
        if self.input_mean is not None:
            return super().call(x)
        mean, variance = (ops.cast(v, x.dtype) for v in (self.adapt_mean, self.adapt_variance))
        return (x - mean) / ops.maximum(ops.sqrt(variance), keras.config.epsilon())


def copied(gated: bool, precision: str) -> Callable[[layers.Layer], layers.Layer]:
    """How a layer is copied: activations gated if asked for, no dropout, the passes' own precision."""

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        kept = isinstance(layer, layers.InputLayer | BinomialLayer | OrdinalLayer | LogSoftmaxLayer)
        # sums and products of maps are in the graph too, but are no layers, and take what comes
        kept |= layer.name == LOGIT_LAYER or not isinstance(layer, layers.Layer)
        if precision != "float32" and not kept:
            config["dtype"] = f"mixed_{precision}"
        if isinstance(layer, layers.Dropout):
            return layers.Identity(name=layer.name)
        if isinstance(layer, layers.Normalization):
            return GivenNormalization.from_config(config)
        activation = _activation_of(layer) if gated else None
        if activation is keras.activations.silu and isinstance(layer, layers.Activation):
            return GuidedSwish(name=layer.name, dtype=config["dtype"])
        if activation not in _GATED:
            return type(layer).from_config(config)
        if not isinstance(layer, layers.Conv2D):
            return GuidedActivation(activation, name=layer.name, dtype=config["dtype"])
        copy = type(layer).from_config(config)
        copy.activation = GuidedActivation(activation, dtype=config["dtype"])
        return copy

    return clone


def is_gated(layer: layers.Layer) -> bool:
    """Whether a copy has a gate, of its own or within a convolution."""
    gates = GuidedSwish | GuidedActivation
    return isinstance(layer, gates) or isinstance(getattr(layer, "activation", None), gates)


def _activation_of(layer: layers.Layer) -> Any:
    """What a layer applies to a map, of activations and convolutions; None in squeeze-and-excite."""
    if tuple(layer.output.shape[1:3]) == (1, 1):
        return None
    if isinstance(layer, layers.ReLU):
        plain = layer.negative_slope == 0 and layer.threshold == 0
        limits = {None: keras.activations.relu, 6: keras.activations.relu6}
        return limits.get(layer.max_value) if plain else None
    return layer.activation if isinstance(layer, layers.Activation | layers.Conv2D) else None
