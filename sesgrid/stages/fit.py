"""Fitting one network: its course, its logs, and a checkpoint after every epoch."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from keras.src.random import seed_generator

from sesgrid.errors import ModelMismatchError, SesgridError, SesgridWarning
from sesgrid.kernels.backbones import backbone_named, obtainable_weights
from sesgrid.kernels.backend import make_deterministic
from sesgrid.kernels.network import NetworkSpec, build_network, start_plain
from sesgrid.stages.cell_batches import CellBatches
from sesgrid.stages.course import Course
from sesgrid.stages.protocol import Protocol
from sesgrid.store.checkpoint import Checkpoint, fits
from sesgrid.store.csv_text import csv_text
from sesgrid.store.models import file_sha256
from sesgrid.store.parts import write_atomically

__all__ = ["Fitted", "fit", "network_spec"]

History = dict[str, list[float]]


@dataclass(frozen=True)
class Fitted:
    """A trained network."""

    model: keras.Model
    """With its best weights; valid until the next `fit` in this process."""
    history: History
    """Per epoch: loss, val_loss, accuracy, val_accuracy, learning_rate."""
    best_epoch: int
    """From 0."""
    restarts: int
    initial_weights: str
    """Of the backbone, as they were had: "imagenet", a file, or "random"."""
    resumed_at: int | None
    """The epoch that this call went on from; None: it began."""


def network_spec(protocol: Protocol, pixels: int, n_classes: int) -> NetworkSpec:
    """The network that a protocol trains on images of a size."""
    return NetworkSpec(
        pixels,
        n_classes,
        protocol.max_pool,
        protocol.batch_norm_momentum,
        protocol.drop_connect_rate,
        backbone_named(protocol.backbone).name,
        protocol.head,
        protocol.scaling,
    )


def fit(
    spec: NetworkSpec,
    protocol: Protocol,
    training: CellBatches,
    validation: CellBatches,
    *,
    seed: int,
    checkpoint: Path,
    facts: Mapping[str, Any],
    logs: Path | None = None,
    on_epoch: Callable[[int, Mapping[str, float]], None] = lambda epoch, logs: None,
) -> Fitted:
    """Train one network; go on from its checkpoint where there is one.

    Parameters
    ----------
    spec, protocol
    training, validation : CellBatches
    seed : int
        Of the initial weights; the batches carry their own.
    checkpoint : Path
        ``….npz``: the state after the last epoch. Stays when the training ends.
    facts : mapping
        JSON values that name the training beside spec, protocol and seed; a checkpoint that differs is
        another training's, and is put aside with a warning, until that training is asked for again.
    logs : Path, optional
        Without suffix: ``….csv`` gets a row an epoch, the folder ``…`` events for TensorBoard (of
        TensorFlow). What a training that begins anew finds there is removed.
    on_epoch : callable
        Called with the epoch (from 0) and its logs.

    Raises
    ------
    ModelMismatchError
        The checkpoint holds another network's variables, or weights do not fit.
    SesgridError
        The loss became NaN; the checkpoint started from ImageNet's weights, which cannot be had here.
    StoreError
        The checkpoint cannot be written; the one before stays.
    """
    if protocol.deterministic:
        make_deterministic()
    weights = obtainable_weights(protocol.weights, backbone_named(spec.backbone))
    compiled = trainer(spec, weights)
    model = compiled.reset(first_weights(spec, weights, seed))
    facts = {**facts, "network": asdict(spec), "protocol": asdict(protocol), "seed": seed}
    facts["initial_weights"] = weights or "random"
    follow = _Follow(protocol, compiled, training, validation, checkpoint, facts, logs, on_epoch)
    follow.take_up()
    started = follow.course.epoch
    if not started:
        follow.clear_logs()
    if not follow.course.finished:
        callbacks: list[keras.callbacks.Callback] = [follow]
        if logs is not None and keras.backend.backend() == "tensorflow":
            # first: an epoch that a checkpoint holds has its events, and at its own learning rate
            callbacks.insert(0, keras.callbacks.TensorBoard(logs, write_graph=False))
        try:
            model.fit(
                training,
                validation_data=validation,
                epochs=protocol.epochs,
                initial_epoch=started,
                callbacks=callbacks,
                verbose=0,
                shuffle=False,
            )
        except Exception:
            # TensorFlow wraps what a batch raises into an error of its own
            for data in (training, validation):
                if data.failure is not None:
                    raise data.failure from None
            raise
    _assign(model.variables, follow.best)
    course = follow.course
    best_epoch = -1 if course.best_epoch is None else course.best_epoch
    return Fitted(
        model, follow.history, best_epoch, course.restart, weights or "random", started or None
    )


@dataclass(eq=False)
class _Follow(keras.callbacks.Callback):
    """Sets the learning rate, keeps the best weights, and writes the checkpoint."""

    protocol: Protocol
    trainer: _Trainer
    training: CellBatches
    validation: CellBatches
    path: Path
    facts: dict[str, Any]
    logs: Path | None
    on_epoch: Callable[[int, Mapping[str, float]], None]
    best: list[np.ndarray] = field(default_factory=list)
    history: History = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.course = Course.begin(self.protocol)
        self.best = _values(self.trainer.model.variables)

    def take_up(self) -> None:
        """Go on from the checkpoint, if it is this training's."""
        saved = Checkpoint.load(self.path)
        if saved is None:
            return
        self._require_start(saved)
        changed = [k for k, v in self.facts.items() if saved.facts.get("training", {}).get(k) != v]
        if changed:
            saved = self._put_aside(saved, changed)
        if saved is None:
            return
        variables = self.trainer.variables
        if not (fits(saved.last, variables) and fits(saved.best, self.trainer.model.variables)):
            raise ModelMismatchError(
                f"{self.path}: the checkpoint holds the variables of another network than "
                f"{self.facts['network']}: delete it, or restore the settings that it was made with"
            )
        _assign(variables, saved.last)
        self.best, self.history = saved.best, saved.facts["history"]
        self.course = Course(**saved.facts["course"])

    def _require_start(self, saved: Checkpoint) -> None:
        """Do not throw away what began from ImageNet's weights because these cannot be had any more."""
        theirs = saved.facts.get("training", {})
        same = all(theirs.get(k) == v for k, v in self.facts.items() if k != "initial_weights")
        began, now = theirs.get("initial_weights"), self.facts["initial_weights"]
        if same and began == "imagenet" != now:
            raise SesgridError(
                f"{self.path}: the training began from ImageNet's weights, which cannot be had on this "
                "machine: put Keras' file into its ~/.keras/models, or go on where it is"
            )

    def _put_aside(self, saved: Checkpoint, changed: Sequence[str]) -> Checkpoint | None:
        """Put another training's checkpoint aside, and take up the own one where that was put aside."""
        aside = _aside(self.path, saved.facts.get("training", {}))
        warnings.warn(
            f"{self.path} is the checkpoint of another training ({', '.join(changed)} differ): it is kept "
            f"as {aside.name}, and the training begins anew",
            SesgridWarning,
            stacklevel=3,
        )
        self.path.replace(aside)
        own = _aside(self.path, self.facts)
        if not own.exists():
            return None
        own.replace(self.path)
        return Checkpoint.load(self.path)

    def clear_logs(self) -> None:
        """Remove the logs of another training."""
        if self.logs is not None:
            shutil.rmtree(self.logs, ignore_errors=True)
            self.logs.with_suffix(".csv").unlink(missing_ok=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the learning rate, and which epoch's batches come."""
        self.model.optimizer.learning_rate = self.course.learning_rate
        self.training.epoch = epoch

    def on_test_begin(self, logs: Any = None) -> None:
        """Set which epoch's batches come: Keras ends an epoch more than once an evaluation."""
        self.validation.epoch = self.course.epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge the epoch, and write down where the training stands."""
        figures = {k: float(v) for k, v in (logs or {}).items()}
        figures["learning_rate"] = self.course.learning_rate
        if not math.isfinite(figures["loss"]) or not math.isfinite(figures["val_loss"]):
            raise SesgridError(
                f"the loss became NaN in epoch {epoch + 1}: lower train.learning_rate "
                f"(now {self.course.learning_rate:g})"
            )
        for name, value in figures.items():
            self.history.setdefault(name, []).append(value)
        self.course = self.course.after(self.protocol, figures["loss"], figures["val_loss"])
        if self.course.improved:
            self.best = _values(self.trainer.model.variables)
        if self.course.restarts_now:
            self.trainer.reset(self.best)
        self._save()
        self.model.stop_training = self.course.finished
        self.on_epoch(epoch, figures)

    def _save(self) -> None:
        # the log first: an epoch that the checkpoint lacks is done again, and written again
        if self.logs is not None:
            table = pd.DataFrame(self.history).rename_axis("epoch")
            write_atomically(self.logs.with_suffix(".csv"), csv_text(table, index=True))
        told = {"training": self.facts, "course": asdict(self.course), "history": self.history}
        Checkpoint(told, _values(self.trainer.variables), self.best).save(self.path)


def _aside(path: Path, facts: Mapping[str, Any]) -> Path:
    """Where a checkpoint is kept while another training has its place."""
    told = json.dumps(facts, sort_keys=True, default=str)
    return path.with_name(f"{path.stem}-{hashlib.sha256(told.encode()).hexdigest()[:8]}.npz")


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
            # XLA makes TensorFlow slower on a CPU; JAX is nothing without it
            jit_compile=keras.backend.backend() == "jax",
        )
        model.optimizer.build(model.trainable_variables)
        # metrics make their variables when first used: within the first step, it would be traced twice
        nothing = np.zeros((1, spec.n_classes), np.float32)
        model.compute_metrics(None, nothing, nothing)
        model.reset_metrics()
        return cls(model, _values(model.optimizer.variables))

    @property
    def variables(self) -> list[Any]:
        """Of the network, then of the optimiser."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def reset(self, weights: list[np.ndarray]) -> keras.Model:
        """Weights as given, the optimiser as it began."""
        _assign(self.variables, [*weights, *self.optimizer_state])
        return self.model


def trainer(spec: NetworkSpec, weights: str | None) -> _Trainer:
    """The process' compiled network of an architecture; the last one is kept."""
    return _trainer(spec, weights, _content(weights))


@lru_cache(maxsize=1)
def _trainer(spec: NetworkSpec, weights: str | None, content: str | None) -> _Trainer:
    return _Trainer.build(spec, weights)


def first_weights(spec: NetworkSpec, weights: str | None, seed: int) -> list[np.ndarray]:
    """Of a network before its first epoch."""
    return _first_weights(spec, weights, seed, _content(weights))


@lru_cache(maxsize=1)
def _first_weights(
    spec: NetworkSpec, weights: str | None, seed: int, content: str | None
) -> list[np.ndarray]:
    with _undisturbed(seed):
        model = build_network(spec, weights)
    if weights is None:
        start_plain(model, spec.backbone)
    return _values(model.variables)


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Seeds that nobody else draws from.

    Keras takes the seeds of its initialisers from Python's own generator, and other threads of a worker
    draw from that as well, Dask's for one: the same seed then gives other weights now and then.
    """
    keras.utils.set_random_seed(seed)
    kept = seed_generator.python_random
    seed_generator.python_random = random.Random(seed)
    try:
        yield
    finally:
        seed_generator.python_random = kept


def _content(weights: str | None) -> str | None:
    """Hash of a file of weights, so that one that changes within a process is read anew."""
    return file_sha256(weights) if weights is not None and Path(weights).is_file() else None


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(v)) for v in variables]
