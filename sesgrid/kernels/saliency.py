"""What the network says of a cell, and where it looked: one forward pass, one or two backward.

The study's network has one scalar output, the logit z of p, so every class probability is a function of z and
``dP(k)/d(anything) = P'(k)(z) · dz/d(anything)``. A class only contributes a factor that cancels in
whatever is computed from a cell's map, and a **sign**. So one backward pass serves all classes where the
gradient is plain, and two where gates ask for its sign. With E = Σ_c mean_yx(dz/dA_c) · A_c, what speaks
for classes whose probability grows with z lies where E > 0, for the others where E < 0.

A head with several outputs is explained through the same interface, class by class.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from sesgrid.errors import ModelMismatchError
from sesgrid.kernels.backend import to_numpy
from sesgrid.kernels.gates import copied, is_gated
from sesgrid.kernels.gradient import compiled, vjp
from sesgrid.kernels.heads import LOGIT_LAYER, has_one_output
from sesgrid.kernels.method import PRESETS, Method

__all__ = ["Explainer", "Factors"]

_AUTO_NAME = re.compile(r"^(normalization|layer_normalization)_\d+$")
"""Of layers that keras.applications leaves unnamed: Keras numbers them anew in every network."""

_POOLS = ("max_pool", "average_pool")
"""Layers of ours that take the last feature map; the first that a network has."""


class Factors(NamedTuple):
    """What a map is made of; see `sesgrid.kernels.attribution`."""

    output: np.ndarray
    """float32 ``(batch,)``: the logit of p; or ``(batch, class)``: log-probabilities."""
    evidence: np.ndarray
    """float32 ``(batch, map, v, u)`` on the layer's grid. One signed map with one output: negative
    for the lowest class, positive for the highest. Otherwise a map per explained class."""
    sensitivity: np.ndarray
    """float32 ``(batch, 1 or 2 or map, y, x)``, at least 0: one for both signs where the gradient is
    plain; for the lowest and the highest class where it is gated; or per explained class."""


class Explainer:
    """Forward and explaining passes for every model of one architecture.

    The functions are compiled once and take the weights as arguments, so the fold models of a city
    share one compilation.

    Parameters
    ----------
    model : keras.Model
        A flat functional model; only its architecture is used. Its output is a
        `BinomialLayer` or an `OrdinalLayer` over one logit, or log-probabilities or probabilities
        ``(batch, class)``.
    method : Method
    classes : sequence of int, optional
        What is explained of a head with several outputs; the lowest and the highest by default. One output
        serves all classes at once.
    precision : {"float32", "bfloat16"}
        Of the passes; weights and results stay float32.

    Raises
    ------
    ModelMismatchError
        The model nests others, lacks the method's layer, has paths around it, or no class output.
    """

    def __init__(
        self,
        model: keras.Model,
        method: Method = PRESETS["paper"],
        classes: tuple[int, ...] | None = None,
        precision: str = "float32",
    ) -> None:
        self.method = method
        self.one_output = has_one_output(model)
        plain = keras.models.clone_model(model, clone_function=copied(False, precision))
        features = _layer_output(plain, method.layer)
        if len(features.shape) != 4:
            raise ModelMismatchError(
                f"layer {method.layer!r} has the output {features.shape}: expected (batch, y, x, "
                "channel); choose a convolutional layer"
            )
        output = _output(plain, self.one_output)
        if len(output.shape) != 2:
            raise ModelMismatchError(
                f"{model.name} has the output {output.shape}: expected (batch, class)"
            )
        self._classes = classes or (0, int(output.shape[1]) - 1)
        self._size = plain.inputs[0].shape[1:3]
        self._trunk = keras.Model(plain.inputs, features)
        self._head = self._gated_head = _between(features, output, method.layer)
        parts = [self._trunk, self._head]
        known = {id(v): k for k, v in _variables(plain).items()}
        if method.gates == "guided":
            gated = keras.models.clone_model(model, clone_function=copied(True, precision))
            features = _layer_output(gated, method.layer)
            self._trunk = parts[0] = keras.Model(gated.inputs, features)
            known |= {id(v): k for k, v in _variables(gated).items()}
            head = _between(features, _output(gated, self.one_output), method.layer)
            if any(is_gated(x) for x in head.layers):
                self._gated_head = head
        self._shapes = {k: tuple(v.shape) for k, v in _variables(plain).items()}
        self._keys = [[known[id(v)] for v in m.variables] for m in parts]
        self._forward = compiled(self._forward_pass)
        self._factors = compiled(self._factors_pass)

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

    def mixed(
        self,
        weights: tuple[list[Any], list[Any]],
        others: tuple[list[Any], list[Any]],
        names: Container[str],
    ) -> tuple[list[Any], list[Any]]:
        """Weights, but for the named layers, which take the others'."""
        trunk, head = (
            [b if key[0] in names else a for key, a, b in zip(keys, mine, theirs, strict=True)]
            for keys, mine, theirs in zip(self._keys, weights, others, strict=True)
        )
        return trunk, head

    def output(self, weights: tuple[list[Any], list[Any]], image: np.ndarray) -> np.ndarray:
        """What the network says, by the forward pass alone.

        Parameters
        ----------
        weights : from `weights_of`
        image : np.ndarray
            uint8 or float32 ``(batch, y, x, band)``, 0…255, RGB.

        Returns
        -------
        np.ndarray
            float32 ``(batch,)``, the logit of p; or ``(batch, class)``.

        Raises
        ------
        ModelMismatchError
            The network takes images of another size.
        """
        return to_numpy(*self.start("output", weights, image))

    def factors(self, weights: tuple[list[Any], list[Any]], image: np.ndarray) -> Factors:
        """What the network says, and where it looked.

        Parameters and errors as in `output`.
        """
        return Factors(*map(to_numpy, self.start("factors", weights, image)))

    def start(
        self,
        passes: Literal["output", "factors"],
        weights: tuple[list[Any], list[Any]],
        image: np.ndarray,
    ) -> tuple[Any, ...]:
        """Begin `output` or `factors`: the backend's own arrays, on a GPU perhaps not yet computed."""
        call = self._forward if passes == "output" else self._factors
        return call(*weights, self._checked(image))

    def _checked(self, image: np.ndarray) -> Any:
        for expected, received in zip(self._size, image.shape[1:3], strict=True):
            if expected is not None and expected != received:
                raise ModelMismatchError(
                    f"the model takes images of {self._size[0]} × {self._size[1]} px, received "
                    f"{image.shape[1]} × {image.shape[2]}: use a cube of its cell size"
                )
        return ops.convert_to_tensor(image)

    def _shown(self, image):
        image = ops.cast(image, "float32")
        return ops.flip(image, axis=-1) if self.method.channels == "bgr" else image

    def _features(self, weights, image):
        return _stateless(self._trunk, weights, image)

    def _output_of(self, head, weights, features):
        output = ops.cast(_stateless(head, weights, features), "float32")
        return output[:, 0] if self.one_output else output

    def _forward_pass(self, trunk, head, image):
        return (self._output_of(self._head, head, self._features(trunk, self._shown(image))),)

    def _factors_pass(self, trunk, head, image):
        features, to_image = vjp(lambda x: self._features(trunk, x), self._shown(image))
        output, to_features = vjp(lambda a: self._output_of(self._head, head, a), features)
        seeds = self._seeds(output)
        gradients = [to_features(seed) for seed in seeds]
        evidence = [_evidence(g, features) for g in gradients]
        if self.one_output and self.method.gates == "guided":
            seeds = [-seeds[0], seeds[0]]
            gradients = [-gradients[0], gradients[0]]
        if self._gated_head is not self._head:
            _, to_features = vjp(lambda a: self._output_of(self._gated_head, head, a), features)
            gradients = [to_features(seed) for seed in seeds]
        sensitivity = [_strength(to_image(g)) for g in gradients]
        return output, ops.stack(evidence, axis=1), ops.stack(sensitivity, axis=1)

    def _seeds(self, output):
        if self.one_output:
            return [ops.ones_like(output)]
        index = ops.arange(output.shape[1])
        return [ops.zeros_like(output) + ops.cast(index == k, "float32") for k in self._classes]


def _evidence(gradient, features):
    gradient, features = ops.cast(gradient, "float32"), ops.cast(features, "float32")
    return ops.sum(ops.mean(gradient, axis=(1, 2), keepdims=True) * features, axis=-1)


def _strength(gradient):
    return ops.sum(ops.abs(ops.cast(gradient, "float32")), axis=-1)


def _output(model: keras.Model, one_output: bool) -> Any:
    return model.get_layer(LOGIT_LAYER).output if one_output else model.outputs[0]


def _between(features: Any, output: Any, name: str) -> keras.Model:
    """The part of a network after a layer."""
    try:
        return keras.Model(features, output)
    except ValueError as error:
        raise ModelMismatchError(
            f"layer {name!r} cannot be explained: other paths lead around it to the output; choose one "
            'that all of them pass, such as "top_activation" (explain.layer)'
        ) from error


def _layer_output(model: keras.Model, name: str) -> Any:
    """The output of a layer of a flat model, by name.

    ``top_activation`` and ``top_conv``, which EfficientNet has, name the same places of other backbones: the
    last feature map, and the last convolution.
    """
    nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    if nested:
        raise ModelMismatchError(
            f"{model.name} nests the models {', '.join(nested)}, whose layers cannot be reached: "
            "build it flat, on the nested model's own inputs and outputs"
        )
    by_name = {layer.name: layer for layer in model.layers}
    pool = next((by_name[p] for p in _POOLS if p in by_name), None)
    if name in by_name:
        return by_name[name].output
    if pool is not None and name == "top_activation":
        return pool.input
    convolutions = [x for x in model.layers if isinstance(x, layers.Conv2D)]
    if pool is not None and name == "top_conv" and convolutions:
        return convolutions[-1].output
    spatial = [x.name for x in model.layers if len(getattr(x.output, "shape", ())) == 4]
    raise ModelMismatchError(
        f"{model.name} has no layer {name!r} to explain; its last layers with spatial axes are "
        f"{', '.join(spatial[-4:]) or 'none'}: name one of them (explain.layer)"
    )


def _variables(model: keras.Model) -> dict[tuple[str, int], Any]:
    """Variables by layer and place."""
    return {
        (_AUTO_NAME.sub(r"\1", layer.name), k): variable
        for layer in model.layers
        if not isinstance(layer, layers.Dropout)  # its seed is no weight
        for k, variable in enumerate(layer.variables)
    }


def _stateless(model: keras.Model, weights: list[Any], x: Any) -> Any:
    at = {id(v): k for k, v in enumerate(model.variables)}
    trainable = [weights[at[id(v)]] for v in model.trainable_variables]
    fixed = [weights[at[id(v)]] for v in model.non_trainable_variables]
    return model.stateless_call(trainable, fixed, x, training=False)[0]
