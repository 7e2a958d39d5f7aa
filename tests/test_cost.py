"""Operations of a network against TensorFlow's own profile of its graph."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from sesgrid.kernels.backbones import BACKBONES
from sesgrid.kernels.cost import forward_flops, parameters
from sesgrid.kernels.network import NetworkSpec, build_network

COUNTED = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2")
"""TensorFlow's names of what convolutions and dense layers do."""


def profiled(model, pixels):
    """Operations that TensorFlow counts in all, and in convolutions and products; nothing is run."""
    shape = tf.TensorSpec((1, pixels, pixels, 3))
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(shape).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    counted = options(options.float_operation()).with_empty_output().build()
    node = tf.compat.v1.profiler.profile(graph, cmd="op", options=counted)
    total, named = node.total_float_ops, 0
    while node.children:
        node = node.children[0]
        named += node.float_ops if node.name in COUNTED else 0
    return total, named


@pytest.mark.long
@pytest.mark.parametrize("name", BACKBONES)
def test_operations_are_tensorflows(name):
    model = build_network(NetworkSpec(64, 5, backbone=name), None)
    for px in (64, 800):
        ours, (total, named) = forward_flops(model, px), profiled(model, px)
        # Keras hides grouped convolutions in a function of its own, where TensorFlow does not count
        assert ours == pytest.approx(named, rel=0.03 if name == "convnexttiny" else 1e-9)
        # the rest is what is not counted
        assert 0.95 * total < ours < total * (1.03 if name == "convnexttiny" else 1)
    numbers = sum(int(tf.size(v.value)) for v in model.weights)
    assert parameters(model) == numbers


@pytest.mark.slow
def test_published_figures():
    """Multiply-adds at 224 px, as He et al. (2016) count them: VGG-16 15.3e9, ResNet-50 3.8e9."""
    for name, expected in (("vgg16", 15.3e9), ("resnet50", 3.8e9)):
        counted = forward_flops(BACKBONES[name].build(None), 224)
        # theirs have dense layers, VGG's of 25,088, 4,096 and 4,096 numbers
        dense = 25088 * 4096 + 4096 * 4096 + 4096 * 1000 if name == "vgg16" else 2048 * 1000
        assert counted / 2 + dense == pytest.approx(expected, rel=0.03)


def test_every_kind_of_layer_by_hand():
    layers = keras.layers
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)  # 5 × 5 × 8 of 3 × 3 × 3
    x = layers.Conv2D(8, 3, padding="valid", groups=4)(x)  # 3 × 3 × 8 of 3 × 3 × 2
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)  # 3 × 3 × 16 of 3 × 3
    x = layers.Dense(4)(x)  # 3 × 3 × 4 of 16
    x = layers.Dense(7)(layers.GlobalAveragePooling2D()(x))  # 7 of 4
    by_hand = 25 * 8 * 27 + 9 * 8 * 18 + 9 * 16 * 9 + 9 * 4 * 16 + 7 * 4
    assert forward_flops(keras.Model(image, x), 10) == 2 * by_hand
