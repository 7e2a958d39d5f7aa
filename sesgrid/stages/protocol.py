"""Training protocols, by name: every choice is a field, and is named in the outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sesgrid.errors import ConfigError

__all__ = ["PROTOCOLS", "Protocol", "protocol_named"]


@dataclass(frozen=True)
class Protocol:
    """How a network is trained."""

    name: str
    weights: str | None
    """Initial weights of the backbone: "imagenet", a file, or None for random ones."""
    learning_rate: float
    schedule: str
    """"step": × 0.1 every 3 epochs; "cosine": down to zero over all epochs."""
    epochs: int
    """At most."""
    patience: int
    """Epochs without a better validation loss before stopping."""
    samples_per_epoch: int | None
    """None: every training cell once."""
    batch_size: int
    validation_share: float
    """Of the training part; decides when to stop."""
    labels: str
    """Default of ``cells.labels``."""
    max_pool: bool = True
    batch_norm_momentum: float | None = None
    drop_connect_rate: float = 0.2
    crop_share: float = 1.0
    """Side of the random training crops, as a share of the cell's; 1 = whole cells."""

    def learning_rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0.

        >>> PROTOCOLS["paper"].learning_rate_at(3) / PROTOCOLS["paper"].learning_rate_at(2)
        0.1
        """
        if self.schedule == "step":
            return self.learning_rate * 0.1 ** (epoch // 3)
        import math

        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


PROTOCOLS = {
    # Abitbol & Karsai (2020), Methods
    "paper": Protocol(
        name="paper",
        weights="imagenet",
        learning_rate=8e-5,
        schedule="step",
        epochs=30,
        patience=10,
        samples_per_epoch=2500,
        batch_size=10,
        validation_share=0.25,
        labels="all",
    ),
    # small synthetic cities without pretrained weights
    "scratch": Protocol(
        name="scratch",
        weights=None,
        learning_rate=1e-3,
        schedule="cosine",
        epochs=8,
        patience=8,
        samples_per_epoch=None,
        batch_size=8,
        validation_share=0.15,
        labels="observed",
        batch_norm_momentum=0.9,
        drop_connect_rate=0.0,
        crop_share=0.5,
    ),
}


def protocol_named(name: str, **changes: Any) -> Protocol:
    """A protocol with some fields changed (None leaves a field as it is).

    Raises
    ------
    ConfigError
        No such protocol.

    Examples
    --------
    >>> protocol_named("scratch", epochs=3).epochs
    3
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol must be one of {', '.join(PROTOCOLS)}, received {name!r}")
    return replace(PROTOCOLS[name], **{k: v for k, v in changes.items() if v is not None})
