"""Fitting one network: schedule, early stopping, checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from sesgrid.errors import SesgridError
from sesgrid.kernels.network import (
    NetworkSpec,
    build_network,
    obtainable_weights,
    start_plain,
)
from sesgrid.stages.cell_batches import CellBatches
from sesgrid.stages.protocol import Protocol

__all__ = ["fit"]


def negative_log_likelihood(y_true, log_probabilities):
    """Categorical cross-entropy on log-probabilities."""
    return -ops.sum(y_true * log_probabilities, axis=-1)


@dataclass
class _Trainer:
    """A compiled network that is set to its first state before each use.

    Compiling costs as much as several epochs of a small city; all trainings of one architecture in a
    process share it.
    """

    model: keras.Model
    optimizer_state: list[np.ndarray]

    @classmethod
    def build(cls, spec: NetworkSpec, weights: str | None) -> _Trainer:
        # Keras scales colours in one layer more for its own weights
        model = build_network(spec, weights)
        model.compile(
            optimizer=keras.optimizers.Adam(),
            loss=negative_log_likelihood,
            metrics=["accuracy"],
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
        # metrics make their variables when first used: within the first step, it would be traced twice
        nothing = np.zeros((1, spec.n_classes), np.float32)
        model.compute_metrics(None, nothing, nothing)
        model.reset_metrics()
        return cls(model, _values(model.optimizer.variables))

    def reset(self, weights: list[np.ndarray]) -> keras.Model:
        variables = [*self.model.variables, *self.model.optimizer.variables]
        for variable, value in zip(variables, [*weights, *self.optimizer_state], strict=True):
            variable.assign(value)
        return self.model


_trainer = lru_cache(maxsize=1)(_Trainer.build)


@lru_cache(maxsize=1)
def _first_weights(spec: NetworkSpec, weights: str | None, seed: int) -> list[np.ndarray]:
    keras.utils.set_random_seed(seed)
    model = build_network(spec, weights)
    if weights is None:
        start_plain(model)
    return _values(model.variables)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [ops.convert_to_numpy(v) for v in variables]


def fit(
    spec: NetworkSpec,
    protocol: Protocol,
    training: CellBatches,
    validation: CellBatches,
    *,
    seed: int,
    checkpoint: Path,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> tuple[keras.Model, dict[str, list[float]], str]:
    """Train one network; the weights of the best validation loss are kept.

    Parameters
    ----------
    spec, protocol
    training, validation : CellBatches
    seed : int
        Of the initial weights; the batches carry their own.
    checkpoint : Path
        ``….weights.h5``: the best weights so far.
    on_epoch : callable
        Called with the epoch (from 0) and its logs.

    Returns
    -------
    model : keras.Model
        Valid until the next call in this process.
    history : dict
        Per epoch: loss, val_loss, accuracy, val_accuracy, learning_rate.
    initial_weights : str
        Of the backbone, as they were had: "imagenet", a file, or "random".

    Raises
    ------
    SesgridError
        The loss became NaN.
    """
    weights = obtainable_weights(protocol.weights)
    model = _trainer(spec, weights).reset(_first_weights(spec, weights, seed))
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, _: protocol.learning_rate_at(epoch)),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=protocol.patience, restore_best_weights=True
        ),
        keras.callbacks.ModelCheckpoint(
            checkpoint, monitor="val_loss", save_best_only=True, save_weights_only=True
        ),
        keras.callbacks.LambdaCallback(on_epoch_end=on_epoch),
    ]
    history = model.fit(
        training,
        validation_data=validation,
        epochs=protocol.epochs,
        callbacks=callbacks,
        verbose=0,
        shuffle=False,
    ).history
    if not np.all(np.isfinite(history["loss"])):
        raise SesgridError(
            f"the loss became NaN in epoch {len(history['loss'])}: lower train.learning_rate "
            f"(now {protocol.learning_rate:g})"
        )
    figures = {k: [float(v) for v in values] for k, values in history.items()}
    return model, figures, weights or "random"
