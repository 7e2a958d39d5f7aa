"""The network of the study: EfficientNetB0, a head with one output, the binomial layer.

One flat functional model, so that any layer can be reached by name::

    image (y, x, band) → EfficientNetB0 → [max-pool] → global average → dense → logit → log P(k)

The image is float32 in 0…255, RGB; the backbone scales it itself.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import keras
from keras import layers, ops

from sesgrid.errors import ConfigError, ModelMismatchError, SesgridWarning
from sesgrid.kernels.binomial import log_binomials

__all__ = [
    "FEATURES_LAYER",
    "LOGIT_LAYER",
    "BinomialLayer",
    "NetworkSpec",
    "build_network",
    "obtainable_weights",
    "start_plain",
]

FEATURES_LAYER = "top_activation"
"""The last convolutional feature map of the backbone."""

LOGIT_LAYER = "logit"
"""The network's one scalar: the logit of p."""


MIN_PX = 32
"""Smallest side of an image that the network can halve five times."""


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


@dataclass(frozen=True)
class NetworkSpec:
    """What must agree before weights fit a network and a network fits a cube."""

    pixels_per_cell: int
    """Side of the input image, pixels."""
    n_classes: int
    """K."""
    max_pool: bool = True
    """The paper's max-pooling (2 × 2, stride 2, same padding) before the global average."""
    batch_norm_momentum: float | None = None
    """Momentum of every batch normalisation; None keeps the backbone's 0.99."""
    drop_connect_rate: float = 0.2
    """Stochastic depth during training."""


def build_network(spec: NetworkSpec, weights: str | None = "imagenet") -> keras.Model:
    """Build the network.

    Parameters
    ----------
    spec : NetworkSpec
    weights : {"imagenet", None} or str
        Initial weights of the backbone: downloaded by Keras, random, or a local ``.weights.h5`` file of
        EfficientNetB0 without top.

    Returns
    -------
    keras.Model
        float32 ``(batch, y, x, band)`` → log-probabilities ``(batch, class)``.

    Raises
    ------
    ConfigError
        Cells too small for the network.
    ModelMismatchError
        The file's weights do not fit.
    """
    if spec.pixels_per_cell < MIN_PX:
        raise ConfigError(
            f"the network needs cells of at least {MIN_PX} px, received {spec.pixels_per_cell}"
        )
    # fully convolutional: a protocol may train it on crops; it is run on whole cells
    image = keras.Input((None, None, 3), name="image")
    backbone = _backbone(image, weights, spec.drop_connect_rate)
    x = backbone.get_layer(FEATURES_LAYER).output
    if spec.max_pool:
        x = layers.MaxPooling2D(2, 2, padding="same", name="max_pool")(x)
    x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    logit = layers.Dense(1, name=LOGIT_LAYER, dtype="float32")(x)
    log_probabilities = BinomialLayer(spec.n_classes, name="binomial", dtype="float32")(logit)
    model = keras.Model(image, log_probabilities, name="sesgrid_efficientnetb0")
    if spec.batch_norm_momentum is not None:
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = spec.batch_norm_momentum
    return model


def start_plain(model: keras.Model) -> keras.Model:
    """Make a randomly initialised network trainable on a few hundred cells.

    The last batch normalisation of every residual branch starts at zero, so that the branches fade in
    (Goyal et al. 2017, "Accurate, large minibatch SGD", §5.1), and the head starts at p = ½.
    """
    for layer in model.layers:
        if layer.name.endswith("_add"):
            gamma = model.get_layer(layer.name.removesuffix("_add") + "_project_bn").gamma
            gamma.assign(ops.zeros_like(gamma))
    kernel = model.get_layer(LOGIT_LAYER).kernel
    kernel.assign(ops.zeros_like(kernel))
    return model


def obtainable_weights(weights: str | None) -> str | None:
    """The initial weights that can be had: None (random) where ImageNet's cannot be downloaded.

    Warns
    -----
    SesgridWarning
        ImageNet weights cannot be had.
    """
    if weights != "imagenet":
        return weights
    try:
        keras.applications.EfficientNetB0(
            include_top=False, weights="imagenet", input_shape=(MIN_PX, MIN_PX, 3)
        )
    except Exception as error:  # whatever a download may raise
        warnings.warn(
            "ImageNet weights could not be downloaded "
            f"({type(error).__name__}): the network starts from random weights, which needs "
            "protocol 'scratch'; or put Keras' efficientnetb0_notop.h5 into ~/.keras/models",
            SesgridWarning,
            stacklevel=2,
        )
        return None
    return weights


def _backbone(image, weights: str | None, drop_connect_rate: float) -> keras.Model:
    """EfficientNetB0 without top; Keras has no argument for the drop rate, so it is set after."""
    try:
        with warnings.catch_warnings():
            # Keras only warns when a file leaves layers at their random start
            warnings.filterwarnings("error", message="Skipping|.*freshly-initialized")
            backbone = keras.applications.EfficientNetB0(
                include_top=False, weights=weights, input_tensor=image, name="efficientnetb0"
            )
    except (ValueError, UserWarning) as error:
        raise ModelMismatchError(
            f"weights {weights!r} do not fit EfficientNetB0 without top: {error}"
        ) from error
    for layer in backbone.layers:
        if isinstance(layer, layers.Dropout) and drop_connect_rate != 0.2:
            layer.rate *= drop_connect_rate / 0.2
    return backbone
