"""The network: a backbone, a head, and between them what the study does.

One flat functional model, so that any layer can be reached by name::

    image (y, x, band) → backbone → [max-pool] → global average → dense → head → log P(k)

The image is 0…255, RGB. The study's: EfficientNetB0 and a binomial head.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers, ops

from sesgrid.errors import ConfigError
from sesgrid.kernels.backbones import MIN_PX, backbone_named
from sesgrid.kernels.heads import LOGIT_LAYER, add_head

__all__ = ["SCALINGS", "NetworkSpec", "build_network", "start_plain"]

SCALINGS = ("backbone", "minmax")
"""How the colours are scaled: as the backbone does, or every image to [0, 1] by its own extremes."""


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
    """Momentum of every batch normalisation; None keeps the backbone's own."""
    drop_connect_rate: float = 0.2
    """Stochastic depth during training, where the backbone has it."""
    backbone: str = "efficientnetb0"
    """Of `sesgrid.kernels.backbones.BACKBONES`."""
    head: str = "binomial"
    """Of `sesgrid.kernels.heads.HEADS`."""
    scaling: str = "backbone"
    """Of `SCALINGS`."""


def build_network(spec: NetworkSpec, weights: str | None = "imagenet") -> keras.Model:
    """Build the network.

    Parameters
    ----------
    spec : NetworkSpec
    weights : {"imagenet", None} or str
        Initial weights of the backbone: downloaded by Keras, random, or a local file of the backbone
        without top (``….weights.h5``).

    Returns
    -------
    keras.Model
        float32 ``(batch, y, x, band)`` → log-probabilities ``(batch, class)``.

    Raises
    ------
    ConfigError
        Cells too small for the network; no such backbone, head or scaling.
    ModelMismatchError
        The file's weights do not fit.
    """
    if spec.pixels_per_cell < MIN_PX:
        raise ConfigError(
            f"the network needs cells of at least {MIN_PX} px, received {spec.pixels_per_cell}"
        )
    if spec.scaling not in SCALINGS:
        raise ConfigError(
            f"scaling must be one of {', '.join(SCALINGS)}, received {spec.scaling!r}"
        )
    # fully convolutional: a protocol may train it on crops; it is run on whole cells
    backbone = backbone_named(spec.backbone).build(weights, spec.scaling, spec.drop_connect_rate)
    x = backbone.outputs[0]
    if spec.max_pool:
        x = layers.MaxPooling2D(2, 2, padding="same", name="max_pool")(x)
    x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    log_probabilities = add_head(x, spec.head, spec.n_classes)
    model = keras.Model(backbone.inputs[0], log_probabilities, name=f"sesgrid_{spec.backbone}")
    if spec.batch_norm_momentum is not None:
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = spec.batch_norm_momentum
    return model


def start_plain(model: keras.Model, backbone: str = "efficientnetb0") -> keras.Model:
    """Make a randomly initialised network trainable on a few hundred cells.

    Residual branches fade in (see `sesgrid.kernels.backbones.Backbone.fade_in`), and the head starts
    without an opinion.
    """
    backbone_named(backbone).fade_in(model)
    kernel = model.get_layer(LOGIT_LAYER).kernel
    kernel.assign(ops.zeros(kernel.shape))
    return model
