"""Heads: from the pooled features of a cell to log-probabilities of K ordered classes.

``binomial`` (the study's) and ``ordinal`` have one output, the logit z; every class probability is a
function of it. ``softmax`` has one output a class, and knows nothing of their order.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from sesgrid.errors import ConfigError
from sesgrid.kernels.binomial import binomial_log_probabilities, log_binomials
from sesgrid.kernels.ordinal import even_thresholds, ordinal_log_probabilities

__all__ = [
    "HEADS",
    "LOGIT_LAYER",
    "BinomialLayer",
    "LogSoftmaxLayer",
    "OrdinalLayer",
    "add_head",
    "class_log_probabilities",
    "has_one_output",
]

LOGIT_LAYER = "logit"
"""The network's one scalar, z; with a softmax head, one score a class."""


@keras.saving.register_keras_serializable(package="sesgrid")
class BinomialLayer(layers.Layer):
    """Log-probabilities of K ordered classes from one logit, in log space.

    float ``(batch, 1)`` → float ``(batch, class)``. See `sesgrid.kernels.binomial`.
    """

    def __init__(self, n_classes: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.n_classes = int(n_classes)
        self._log_binomials = log_binomials(self.n_classes).astype("float32")

    def call(self, logit):
        """Apply the layer."""
        k = ops.arange(self.n_classes, dtype="float32")
        log_p, log_q = ops.log_sigmoid(logit), ops.log_sigmoid(-logit)
        return self._log_binomials + k * log_p + (self.n_classes - 1 - k) * log_q

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """``(batch, 1)`` → ``(batch, class)``."""
        return (*input_shape[:-1], self.n_classes)

    def get_config(self) -> dict:
        """Configuration for saving."""
        return {**super().get_config(), "n_classes": self.n_classes}


@keras.saving.register_keras_serializable(package="sesgrid")
class OrdinalLayer(layers.Layer):
    """Log-probabilities of K ordered classes from one logit and K − 1 learnt thresholds.

    float ``(batch, 1)`` → float ``(batch, class)``. See `sesgrid.kernels.ordinal`. The thresholds are kept
    in order by what is learnt: the first, and the logarithms of the steps between them.
    """

    def __init__(self, n_classes: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.n_classes = int(n_classes)

    def build(self, _: tuple) -> None:
        """Start with classes of equal size where z is logistic."""
        start = even_thresholds(self.n_classes)
        self.first = self.add_weight(
            name="first",
            shape=(1,),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(start[:1], dtype=dtype),
        )
        self.log_steps = self.add_weight(
            name="log_steps",
            shape=(self.n_classes - 2,),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(
                np.log(np.diff(start)), dtype=dtype
            ),
        )

    def thresholds(self) -> Any:
        """Of z, between the classes, increasing; float ``(class − 1,)``."""
        return ops.concatenate([self.first, self.first + ops.cumsum(ops.exp(self.log_steps))])

    def call(self, logit):
        """Apply the layer."""
        above = logit - self.thresholds()  # of z over each threshold
        least, most = ops.log_sigmoid(-above[:, :1]), ops.log_sigmoid(above[:, -1:])
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)): no difference of numbers close to one
        steps = ops.exp(self.log_steps)
        between = (
            ops.log_sigmoid(above[:, :-1])
            + ops.log_sigmoid(-above[:, 1:])
            + ops.log(-ops.expm1(-steps))
        )
        return ops.concatenate([least, between, most], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """``(batch, 1)`` → ``(batch, class)``."""
        return (*input_shape[:-1], self.n_classes)

    def get_config(self) -> dict:
        """Configuration for saving."""
        return {**super().get_config(), "n_classes": self.n_classes}


@keras.saving.register_keras_serializable(package="sesgrid")
class LogSoftmaxLayer(layers.Layer):
    """Log-probabilities from one score a class; float ``(batch, class)`` → the same."""

    def call(self, scores):
        """Apply the layer."""
        return ops.log_softmax(scores, axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The same."""
        return input_shape


HEADS = ("binomial", "softmax", "ordinal")


def add_head(features: Any, name: str, n_classes: int) -> Any:
    """Log-probabilities ``(batch, class)`` from pooled features ``(batch, channel)``.

    Raises
    ------
    ConfigError
        No such head, or fewer than two classes.
    """
    if name not in HEADS:
        raise ConfigError(f"head must be one of {', '.join(HEADS)}, received {name!r}")
    if n_classes < 2:
        raise ConfigError(f"a head needs at least 2 classes, received {n_classes}")
    if name == "softmax":
        scores = layers.Dense(n_classes, name=LOGIT_LAYER, dtype="float32")(features)
        return LogSoftmaxLayer(name="softmax", dtype="float32")(scores)
    logit = layers.Dense(1, name=LOGIT_LAYER, dtype="float32")(features)
    kind = BinomialLayer if name == "binomial" else OrdinalLayer
    return kind(n_classes, name=name, dtype="float32")(logit)


def has_one_output(model: keras.Model) -> bool:
    """Whether every class probability is a function of one logit."""
    return isinstance(model.layers[-1], BinomialLayer | OrdinalLayer)


def class_log_probabilities(model: keras.Model, output: np.ndarray) -> np.ndarray:
    """Log-probabilities from what an `sesgrid.kernels.saliency.Explainer` gives for a model.

    Parameters
    ----------
    model : keras.Model
    output : np.ndarray
        float ``(batch,)``, the logit, of a model with one output; else ``(batch, class)``.

    Returns
    -------
    np.ndarray
        float64 ``(batch, class)``.
    """
    last = model.layers[-1]
    if isinstance(last, BinomialLayer):
        return binomial_log_probabilities(output, last.n_classes)
    if isinstance(last, OrdinalLayer):
        return ordinal_log_probabilities(output, ops.convert_to_numpy(last.thresholds()))
    return np.asarray(output, np.float64)
