"""What a network costs: parameters, and operations of one forward pass."""

from __future__ import annotations

import math

import keras
from keras import layers

__all__ = ["forward_flops", "parameters"]


def parameters(model: keras.Model) -> int:
    """Numbers that a network has learnt or keeps."""
    return int(model.count_params())


def forward_flops(model: keras.Model, pixels: int) -> int:
    """Floating-point operations of a forward pass over one image, multiplications and additions apart.

    Convolutions and dense layers are counted, which make more than 95 % of a network of
    keras.applications; normalisations, activations and pools are not.

    Parameters
    ----------
    model : keras.Model
        A flat functional model ``(batch, y, x, band)`` → ….
    pixels : int
        Side of the image.

    Examples
    --------
    >>> image = keras.Input((None, None, 3))
    >>> model = keras.Model(image, layers.Conv2D(8, 3, padding="same", use_bias=False)(image))
    >>> forward_flops(model, 10) == 2 * 10 * 10 * 8 * 3 * 3 * 3
    True
    """
    # shapes are known only once the image's are
    image = keras.Input((pixels, pixels, 3))
    alike = [image] if isinstance(model.input, list) else image
    sized = keras.models.clone_model(model, input_tensors=alike)
    return sum(_layer_flops(layer) for layer in sized.layers)


def _layer_flops(layer: layers.Layer) -> int:
    if isinstance(layer, layers.Dense):
        return 2 * math.prod(layer.output.shape[1:]) * int(layer.kernel.shape[0])
    if isinstance(layer, layers.DepthwiseConv2D):
        return 2 * math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)
    if isinstance(layer, layers.Conv2D):
        y, x, per_group, _ = layer.kernel.shape
        return 2 * math.prod(layer.output.shape[1:]) * y * x * per_group
    return 0
