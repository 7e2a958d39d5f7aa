"""Guided Grad-CAM of the lowest and the highest class, in one forward pass.

The network has one scalar output p, so every class probability is a function of p and
``dP(k)/d(anything) = P'(k)(p) · dp/d(anything)``. P'(0) is always negative, P'(K−1) always positive; the
factor cancels in everything computed from a cell's map, only its sign matters. Hence (Abitbol & Karsai
2020, preset ``paper``), with z the logit, A_c the features of the last convolution and ± the class' sign::

    cam_±    = ReLU( Σ_c mean_yx(± dz/dA_c) · A_c ), resized bilinearly
    guided_± = Σ_band | d(± z)/d image |, gated at every activation: only positive gradients pass,
               and only through positive activations; squeeze-and-excite is not gated
    map_±    = cam_± · guided_±  ≥ 0
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from sesgrid.errors import ModelMismatchError
from sesgrid.kernels.gradient import compiled, vjp
from sesgrid.kernels.network import FEATURES_LAYER, LOGIT_LAYER

__all__ = ["Explainer", "GuidedSwish"]


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


class Explainer:
    """Forward and explaining passes for every model of one architecture.

    The functions are compiled once and take the weights as arguments, so the fold models of a city
    share one compilation.

    Parameters
    ----------
    model : keras.Model
        From `sesgrid.kernels.network.build_network`; only its architecture is used.
    """

    def __init__(self, model: keras.Model) -> None:
        guided = keras.models.clone_model(model, clone_function=_guided_clone)
        features = guided.get_layer(FEATURES_LAYER).output
        self._trunk = keras.Model(guided.inputs, features)
        self._head = keras.Model(features, guided.get_layer(LOGIT_LAYER).output)
        self._shapes = {k: tuple(v.shape) for k, v in _variables(guided).items()}
        keys = {id(v): k for k, v in _variables(guided).items()}
        self._keys = [[keys[id(v)] for v in m.variables] for m in (self._trunk, self._head)]
        self._forward = compiled(self._forward_pass)
        self._factors = compiled(self._factors_pass)
        self._explain = compiled(self._explain_pass)

    def weights_of(self, model: keras.Model) -> tuple[list[Any], list[Any]]:
        """The weights of a model of this architecture, as the passes take them.

        Raises
        ------
        ModelMismatchError
            The model has another architecture.
        """
        variables = _variables(model)
        if {k: tuple(v.shape) for k, v in variables.items()} != self._shapes:
            raise ModelMismatchError(
                f"the weights of {model.name} do not fit: expected the architecture that this "
                "explainer was made for; make one explainer per architecture"
            )
        trunk, head = ([variables[k].value for k in keys] for keys in self._keys)
        return trunk, head

    def logit(self, weights: tuple[list[Any], list[Any]], image: np.ndarray) -> np.ndarray:
        """Logit of p.

        Parameters
        ----------
        weights : from `weights_of`
        image : np.ndarray
            float32 ``(batch, y, x, band)``, 0…255.

        Returns
        -------
        np.ndarray
            float32 ``(batch,)``.
        """
        return ops.convert_to_numpy(self._forward(*weights, ops.convert_to_tensor(image)))

    def explain(
        self, weights: tuple[list[Any], list[Any]], image: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logit of p, and the guided Grad-CAM maps.

        Returns
        -------
        logit : np.ndarray
            float32 ``(batch,)``.
        maps : np.ndarray
            float32 ``(batch, map, y, x)``, map = low, high; at least 0.
        """
        logit, maps = self._explain(*weights, ops.convert_to_tensor(image))
        return ops.convert_to_numpy(logit), ops.convert_to_numpy(maps)

    def factors(
        self, weights: tuple[list[Any], list[Any]], image: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logit of p, and the two factors of the maps by themselves.

        Returns
        -------
        logit : np.ndarray
            float32 ``(batch,)``.
        cams : np.ndarray
            Grad-CAM, float32 ``(batch, map, v, u)`` on the last feature map; at least 0.
        guided : np.ndarray
            Guided gradient, summed over the bands, float32 ``(batch, map, y, x)``; at least 0.
        """
        factors = self._factors(*weights, ops.convert_to_tensor(image))
        logit, cams, guided = map(ops.convert_to_numpy, factors)
        return logit, cams, guided

    def _features(self, weights, image):
        return _stateless(self._trunk, weights, image)

    def _logit_of(self, weights, features):
        return _stateless(self._head, weights, features)[:, 0]

    def _forward_pass(self, trunk, head, image):
        return self._logit_of(head, self._features(trunk, image))

    def _factors_pass(self, trunk, head, image):
        features, to_image = vjp(lambda x: self._features(trunk, x), image)
        logit, to_features = vjp(lambda a: self._logit_of(head, a), features)
        gradient = to_features(ops.ones_like(logit))
        weights = ops.mean(gradient, axis=(1, 2), keepdims=True)
        evidence = ops.sum(weights * features, axis=-1)
        signs = (-1.0, 1.0)
        cams = ops.stack([ops.relu(sign * evidence) for sign in signs], axis=1)
        guided = [ops.sum(ops.abs(to_image(sign * gradient)), axis=-1) for sign in signs]
        return logit, cams, ops.stack(guided, axis=1)

    def _explain_pass(self, trunk, head, image):
        logit, cams, guided = self._factors_pass(trunk, head, image)
        size = tuple(image.shape[1:3])
        cams = ops.image.resize(ops.moveaxis(cams, 1, -1), size, interpolation="bilinear")
        return logit, ops.moveaxis(cams, -1, 1) * guided


def _variables(model: keras.Model) -> dict[tuple[str, int], Any]:
    """Variables by layer and place: Keras numbers the one unnamed layer that has weights anew."""
    return {
        ("normalization" if isinstance(layer, layers.Normalization) else layer.name, k): variable
        for layer in model.layers
        if not isinstance(layer, layers.Dropout)  # its seed is no weight
        for k, variable in enumerate(layer.variables)
    }


def _stateless(model: keras.Model, weights: list[Any], x: Any) -> Any:
    at = {id(v): k for k, v in enumerate(model.variables)}
    trainable = [weights[at[id(v)]] for v in model.trainable_variables]
    fixed = [weights[at[id(v)]] for v in model.non_trainable_variables]
    return model.stateless_call(trainable, fixed, x, training=False)[0]


def _guided_clone(layer: layers.Layer) -> layers.Layer:
    if isinstance(layer, layers.Activation) and layer.activation is keras.activations.silu:
        return GuidedSwish(name=layer.name)
    if isinstance(layer, layers.Dropout):
        return layers.Identity(name=layer.name)
    return type(layer).from_config(layer.get_config())
