"""The one backend-specific piece: a compiled function, and a pullback that may run several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = ["compiled", "vjp"]


def vjp(function: Callable[[Any], Any], x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Outputs of ``function(x)`` and the pullback: output gradients → gradient of ``x``.

    The pullback may be called more than once; the forward pass runs once.
    """
    if keras.backend.backend() == "jax":
        import jax

        outputs, pull = jax.vjp(function, x)
        return outputs, lambda gradient: pull(gradient)[0]
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = function(x)
    return outputs, lambda gradient: tape.gradient(outputs, x, output_gradients=gradient)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with the backend's own compiler (TensorFlow: without XLA, which is slower on a CPU)."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)
