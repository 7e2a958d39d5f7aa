"""The course of a training: learning rate, best epoch, stopping and restarts, from the losses alone.

A plain value that each epoch turns into the next, so that a training that was stopped goes on exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sesgrid.stages.protocol import Protocol

__all__ = ["Course"]

_PLATEAU_DELTA = 1e-4
"""A training loss is better from this on, as in keras.callbacks.ReduceLROnPlateau."""


@dataclass(frozen=True)
class Course:
    """Where a training stands after some epochs."""

    learning_rate: float
    """Of the next epoch."""
    epoch: int = 0
    """Epochs done."""
    best: float = math.inf
    """Validation loss."""
    best_epoch: int | None = None
    """From 0."""
    waited: int = 0
    """Epochs since the best one, or since the restart."""
    plateau_best: float = math.inf
    """Training loss."""
    plateau_waited: int = 0
    restart: int = 0
    """r: warm restarts so far."""
    leg_start: int = 0
    """The epoch that the last restart began with."""
    finished: bool = False

    @classmethod
    def begin(cls, protocol: Protocol) -> Course:
        """Before the first epoch."""
        return cls(protocol.learning_rate)

    def after(self, protocol: Protocol, loss: float, val_loss: float) -> Course:
        """After one epoch more.

        Parameters
        ----------
        protocol : Protocol
        loss, val_loss : float
            Means over the epoch, and over the validation part after it.

        Examples
        --------
        >>> from sesgrid.stages.protocol import PROTOCOLS
        >>> course = Course.begin(PROTOCOLS["paper"])
        >>> for loss in (1.5, 1.4, 1.45):
        ...     course = course.after(PROTOCOLS["paper"], loss, loss)
        >>> course.best_epoch, course.waited, round(course.learning_rate / 8e-5, 9)
        (1, 1, 0.1)
        """
        better = val_loss < self.best
        now = replace(
            self,
            epoch=self.epoch + 1,
            best=val_loss if better else self.best,
            best_epoch=self.epoch if better else self.best_epoch,
            waited=0 if better else self.waited + 1,
        )
        now = now._with_rate(protocol, loss)
        if now.epoch >= protocol.epochs:
            return replace(now, finished=True)
        if now.waited < protocol.patience:
            return now
        if now.restart == protocol.restarts:
            return replace(now, finished=True)
        r = now.restart + 1
        rate = protocol.learning_rate / 2**r
        return replace(
            now, restart=r, leg_start=now.epoch, waited=0, learning_rate=rate,
            plateau_best=math.inf, plateau_waited=0,
        )  # fmt: skip

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best."""
        return self.best_epoch == self.epoch - 1

    @property
    def restarts_now(self) -> bool:
        """Whether the next epoch is the first after a restart."""
        return self.restart > 0 and self.leg_start == self.epoch and not self.finished

    def _with_rate(self, protocol: Protocol, loss: float) -> Course:
        """The next epoch's learning rate."""
        first = protocol.learning_rate / 2**self.restart
        done = self.epoch - self.leg_start
        if protocol.schedule == "step":
            factor = protocol.schedule_factor ** (done // protocol.schedule_epochs)
            return replace(self, learning_rate=first * factor)
        if protocol.schedule == "cosine":
            share = self.epoch / protocol.epochs
            return replace(self, learning_rate=first * 0.5 * (1 + math.cos(math.pi * share)))
        if protocol.schedule == "constant":
            return self
        if loss < self.plateau_best - _PLATEAU_DELTA:
            return replace(self, plateau_best=loss, plateau_waited=0)
        waited = self.plateau_waited + 1
        if waited < protocol.schedule_epochs:
            return replace(self, plateau_waited=waited)
        rate = max(self.learning_rate * protocol.schedule_factor, protocol.min_learning_rate)
        return replace(self, learning_rate=rate, plateau_waited=0)
