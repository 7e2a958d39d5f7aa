"""Model files: ``.keras`` weights plus a JSON card; loaded once per process, in safe mode."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesgrid.errors import MissingInputError, ModelMismatchError, StoreError
from sesgrid.foreign import reading, refuse_pipe
from sesgrid.store.parts import write_atomically

if TYPE_CHECKING:
    import keras

__all__ = [
    "NO_CARD",
    "ModelRef",
    "file_sha256",
    "history_of",
    "read_card",
    "record_metrics",
    "save_model",
]

NO_CARD = "it is not a model's card: train again, or bring the card that was saved with the model"


@dataclass(frozen=True)
class ModelRef:
    """A trained model by path and hash: what travels in a graph instead of the weights."""

    model_id: str
    path: str
    sha256: str
    pixels_per_cell: int
    n_classes: int

    @classmethod
    def open(cls, path: str | Path) -> ModelRef:
        """Read a model's card.

        Raises
        ------
        MissingInputError
            The file or its card is missing.
        ModelMismatchError
            The card does not match the weights.
        """
        path = Path(path)
        card_path = path.with_suffix(".json")
        for p in (path, card_path):
            if not p.exists():
                raise MissingInputError(
                    f"model file {p} is missing: train again, or check the path"
                )
        card = read_card(path)
        with reading(card_path, ModelMismatchError, NO_CARD):
            ref = cls(
                _text(card, "model_id"),
                str(path),
                _text(card, "sha256"),
                int(card["pixels_per_cell"]),
                int(card["n_classes"]),
            )
        ref.verify()
        return ref

    def verify(self) -> None:
        """Refuse a file that is not the one that the card describes."""
        received = file_sha256(self.path)
        if received != self.sha256:
            raise ModelMismatchError(
                f"{self.path}: the card says sha256 {self.sha256[:12]}…, the file has {received[:12]}…; "
                "the model and its card do not belong together"
            )

    def require(self, *, pixels_per_cell: int, n_classes: int) -> None:
        """Refuse a model that was made for another cell size or number of classes."""
        for name, expected in (("pixels_per_cell", pixels_per_cell), ("n_classes", n_classes)):
            received = getattr(self, name)
            if received != expected:
                raise ModelMismatchError(
                    f"model {self.model_id} ({self.path}) was made for {name} = {received}, "
                    f"expected {expected}: train again, or change the setting"
                )

    def load(self) -> keras.Model:
        """The model; from this process's memory after the first call."""
        return _load(self)


def _text(card: Mapping[str, Any], name: str) -> str:
    value = card[name]
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, received {type(value).__name__}")
    return value


@lru_cache(maxsize=16)
def _load(ref: ModelRef) -> keras.Model:
    import keras

    from sesgrid.kernels import network  # noqa: F401  (registers the layers)

    ref.verify()
    # Keras raises whatever its layers do; in safe mode a ValueError tells of code
    advice = "it is no model, was made by another Keras, or holds code: train again"
    try:
        with reading(ref.path, ModelMismatchError, advice):
            model = keras.saving.load_model(ref.path, compile=False, safe_mode=True)
    except ModelMismatchError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None  # of this worker, and it may pass
        raise
    if model.output_shape[-1] != ref.n_classes:
        raise ModelMismatchError(
            f"{ref.path}: the card says {ref.n_classes} classes, the network tells {model.output_shape[-1]}; "
            "the model and its card do not belong together"
        )
    return model


def save_model(
    model: keras.Model, path: str | Path, *, model_id: str, card: Mapping[str, Any]
) -> ModelRef:
    """Save a model and its card.

    Parameters
    ----------
    model : keras.Model
    path : str or Path
        ``….keras``; the card lies beside it as ``….json``.
    model_id : str
    card : mapping
        JSON values; must hold ``pixels_per_cell`` and ``n_classes``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = uuid.uuid4().hex
    temporary, card_beside = (
        path.with_name(f".{path.name}.{drawn}.partial.{s}") for s in ("keras", "json")
    )
    try:
        _bare(model).save(temporary)
        ref = ModelRef(
            model_id,
            str(path),
            file_sha256(temporary),
            int(card["pixels_per_cell"]),
            int(card["n_classes"]),
        )
        facts = {k: v for k, v in asdict(ref).items() if k != "path"}
        write_atomically(card_beside, json.dumps({**card, **facts}, indent=1))
        # both are whole: until here the model before is untouched
        temporary.replace(path)
        card_beside.replace(path.with_suffix(".json"))
    except OSError as error:
        temporary.unlink(missing_ok=True)
        card_beside.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: the model cannot be written ({error.strerror or error}); the one before stays: "
            "make room or give write access, then run again; its training goes on from its checkpoint"
        ) from error
    return ref


def record_metrics(ref: ModelRef, metrics: Mapping[str, Any]) -> None:
    """Write into a model's card how well it did; JSON values."""
    card = read_card(ref.path)
    path = Path(ref.path).with_suffix(".json")
    write_atomically(path, json.dumps({**card, "metrics": dict(metrics)}, indent=1))


def _bare(model: keras.Model) -> keras.Model:
    """The same layers without the optimiser's state, which is twice as large as the weights."""
    import keras

    # `inputs` would make a list of the one image, and Keras warn whenever an array is given
    return keras.Model(model.input, model.output, name=model.name)


def history_of(ref: ModelRef) -> dict[str, list[float]]:
    """Losses and metrics per epoch, from the model's card."""
    card = read_card(ref.path)
    with reading(Path(ref.path).with_suffix(".json"), ModelMismatchError, NO_CARD):
        history = {str(k): [float(v) for v in values] for k, values in card["history"].items()}
        if not (history["loss"] and history["val_loss"]):
            raise ValueError("no epochs")
        return history


def read_card(path: str | Path) -> dict[str, Any]:
    """The card of the model at a path.

    Raises
    ------
    MissingInputError
        There is none.
    ModelMismatchError
        It is damaged.
    """
    card_path = Path(path).with_suffix(".json")
    with reading(card_path, ModelMismatchError, NO_CARD):
        return dict(json.loads(card_path.read_text(encoding="utf-8")))


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    refuse_pipe(Path(path))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
