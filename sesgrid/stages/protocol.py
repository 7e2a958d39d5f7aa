"""Training protocols, by name: every choice is a field, and is named in the outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sesgrid.errors import ConfigError

__all__ = ["PROTOCOLS", "Protocol", "Schedule", "protocol_named"]

Schedule = Literal["constant", "step", "plateau", "cosine"]


@dataclass(frozen=True)
class Protocol:
    """How a network is trained."""

    name: str
    learning_rate: float
    """Of the first epoch; Adam's."""
    schedule: Schedule
    """"step": × ``schedule_factor`` every ``schedule_epochs`` epochs; "plateau": the same after as many
    epochs without a better training loss; "cosine": down to zero over all epochs; "constant"."""
    epochs: int
    """At most, restarts included."""
    patience: int
    """Epochs without a better validation loss before it stops, or restarts."""
    batch_size: int
    validation_share: float
    """Of the training part; decides when to stop."""
    labels: str
    """Default of ``cells.labels``."""
    backbone: str = "efficientnetb0"
    """Of `sesgrid.kernels.backbones.BACKBONES`."""
    head: str = "binomial"
    """"binomial", "softmax" or "ordinal"."""
    max_pool: bool = True
    """2 × 2 max-pooling before the global average."""
    scaling: str = "backbone"
    """"backbone": its own; "minmax": every image to [0, 1], fed to a backbone without its own scaling."""
    weights: str | None = "imagenet"
    """Initial weights of the backbone: "imagenet", a file, or None for random ones."""
    weights_sha256: str | None = None
    """What the file of weights must hash to; None: whatever it does."""
    batch_norm_momentum: float | None = None
    """None keeps the backbone's own."""
    drop_connect_rate: float = 0.2
    """Stochastic depth, where the backbone has it."""
    schedule_factor: float = 0.1
    schedule_epochs: int = 3
    min_learning_rate: float = 0.0
    """Floor of "plateau"."""
    restarts: int = 0
    """Warm restarts once patience is over: from the best weights, at ``learning_rate / 2^r``."""
    samples_per_epoch: int | None = None
    """None: every training cell once."""
    flips: bool = True
    """Training images are mirrored at random, in both directions."""
    flip_validation: bool = False
    """Validation images too."""
    crop_share: float = 1.0
    """Side of the random training crops, as a share of the cell's; 1 = whole cells."""
    shuffle: Literal["full", "blocks"] = "full"
    """"blocks": cells that are near each other come near each other, for stores that are far away."""
    max_void: float | None = None
    """Cells with a larger share of subpixels that are zero are left out; None: black is a colour."""
    data_parallel: bool = False
    """All devices of the process share every batch (JAX); else one device trains."""
    deterministic: bool = False
    """Same seed, same weights to the last digit, on the same kind of machine."""

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "step", "plateau", "cosine"):
            raise ConfigError(
                "schedule must be one of constant, step, plateau, cosine, received "
                f"{self.schedule!r}"
            )
        if self.weights_sha256 is not None and self.weights in (None, "imagenet", "random"):
            raise ConfigError(
                f"weights_sha256 is of a file, received weights = {self.weights!r}: name the file in "
                "train.weights, or leave weights_sha256 out"
            )
        for name in ("epochs", "patience", "batch_size", "schedule_epochs", "samples_per_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, received {value}")
        for name in ("validation_share", "crop_share", "schedule_factor"):
            value = getattr(self, name)
            if not 0 < value <= 1 or (name == "validation_share" and value == 1):
                raise ConfigError(f"{name} must lie above 0 and below 1, received {value}")


PROTOCOLS = {
    # Abitbol & Karsai (2020), Methods
    "paper": Protocol(
        name="paper",
        learning_rate=8e-5,
        schedule="step",
        epochs=30,
        patience=10,
        samples_per_epoch=2500,
        batch_size=10,
        validation_share=0.25,
        labels="all",
        max_void=0.01,
    ),
    # their released code (doi 10.5281/zenodo.3906063); what it runs for at most is not on record here
    "reference": Protocol(
        name="reference",
        max_pool=False,
        scaling="minmax",
        learning_rate=8e-5,
        schedule="plateau",
        schedule_factor=0.25,
        schedule_epochs=2,
        min_learning_rate=1e-8,
        epochs=200,
        patience=25,
        restarts=4,
        samples_per_epoch=2500,
        batch_size=10,
        validation_share=0.25,
        flip_validation=True,
        labels="all",
        max_void=0.01,
    ),
    # small synthetic cities without pretrained weights
    "scratch": Protocol(
        name="scratch",
        weights=None,
        learning_rate=1e-3,
        schedule="cosine",
        epochs=8,
        patience=8,
        batch_size=8,
        validation_share=0.15,
        labels="observed",
        batch_norm_momentum=0.9,
        drop_connect_rate=0.0,
        crop_share=0.5,
    ),
}


_WORDS = {"weights": "random", "samples_per_epoch": "all", "batch_norm_momentum": "own"}
"""How a change asks for a field's None."""


def _told(name: str, value: Any) -> str:
    if value is None:
        return _WORDS[name]
    return Path(value).name if name == "weights" else str(value)


def protocol_named(name: str, **changes: Any) -> Protocol:
    """A protocol with some fields changed; a changed one is named ``name, changed: …``.

    None leaves a field as it is; what None means in a field is asked for by ``weights="random"``,
    ``samples_per_epoch="all"`` (every training cell once) and ``batch_norm_momentum="own"`` (the backbone's).

    Raises
    ------
    ConfigError
        No such protocol, or a value out of its range.

    Examples
    --------
    >>> protocol_named("scratch", epochs=3).name
    'scratch, changed: epochs=3'
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol must be one of {', '.join(PROTOCOLS)}, received {name!r}")
    base = PROTOCOLS[name]
    given = {k: None if v == _WORDS.get(k) else v for k, v in changes.items() if v is not None}
    real: dict[str, Any] = {k: v for k, v in given.items() if v != getattr(base, k)}
    if not real:
        return base
    told = ", ".join(f"{k}={_told(k, v)}" for k, v in real.items())
    return replace(base, name=f"{name}, changed: {told}", **real)
