"""Start the Keras backend once, without its start-up chatter."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

from sesgrid.errors import ConfigError

__all__ = ["gpu_bytes", "make_deterministic", "share_batches", "start_backend", "to_numpy"]


@lru_cache(maxsize=1)
def start_backend() -> str:
    """Import Keras and open its device; the backend's name.

    TensorFlow's C++ side writes to the file descriptor of standard error before any logging level
    applies; a failure still raises.
    """
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            for gpu in tf.config.list_physical_devices("GPU"):
                # a worker shares the device: take memory as it is needed
                tf.config.experimental.set_memory_growth(gpu, True)
            tf.zeros(1)
        return str(keras.backend.backend())
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


@lru_cache(maxsize=1)
def make_deterministic() -> None:
    """From now on, in this process, the same operations on the same values give the same bits.

    TensorFlow is told so; JAX does so by itself on a CPU (on a GPU with
    ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``, set before it starts).
    """
    if start_backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


@lru_cache(maxsize=1)
def share_batches() -> int:
    """From now on, in this process, every batch is shared by all devices; their number.

    Data parallel through keras.distribution, which JAX has.

    Raises
    ------
    ConfigError
        The backend has no data parallelism.
    """
    if start_backend() != "jax":
        raise ConfigError(
            "train.data_parallel needs the JAX backend (KERAS_BACKEND=jax): keras.distribution knows no other"
        )
    import keras

    devices = keras.distribution.list_devices()
    if len(devices) > 1:
        sharing = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
        keras.distribution.set_distribution(sharing)
    return len(devices)


@lru_cache(maxsize=1)
def gpu_bytes() -> int:
    """Memory of the first GPU that the backend sees; 0 without one."""
    if start_backend() == "jax":
        import jax

        device = jax.devices()[0]
        return (
            int((device.memory_stats() or {}).get("bytes_limit", 0))
            if device.platform == "gpu"
            else 0
        )
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return 0
    # TensorFlow does not tell; what a card of a cluster has at least
    return 16 << 30


def to_numpy(array: Any) -> np.ndarray:
    """An array of the backend's, once it is computed."""
    import keras

    return keras.ops.convert_to_numpy(array)
