"""Train: one network per fold, each seeing only the other folds' cells.

Folds are independent, so each is one task that carries where the pixels lie and which cells it may
see, never pixels or weights. A worker runs one training at a time: a network uses all its cores.
"""

from __future__ import annotations

import glob
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import xarray as xr

from sesgrid.errors import MissingInputError, ModelMismatchError, TooFewCellsError
from sesgrid.kernels.backend import share_batches, start_backend
from sesgrid.kernels.device import DEVICE_LOCK
from sesgrid.stages.card import INTENDED_USE, LIMITS, OPEN_WITH
from sesgrid.stages.cells import usable
from sesgrid.stages.folds import training_cells
from sesgrid.stages.protocol import Protocol, protocol_named
from sesgrid.store.models import ModelRef, file_sha256, history_of, read_card, save_model

if TYPE_CHECKING:
    from sesgrid.store.cell_reader import CellReader

__all__ = ["Fold", "Progress", "card_of", "finished", "plan_folds", "train", "train_fold"]

Progress = Callable[[str, int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Fold:
    """One training: what it may see and where its model goes."""

    model_id: str
    fold: int
    path: str
    """``….keras``."""
    cells: np.ndarray
    """int64 (cell, 2): global (row, col) of the labelled, covered cells that it may see."""
    ses: np.ndarray
    """int64 (cell,): class 0 … K−1."""
    weight: np.ndarray
    """float32 (cell,): of the loss."""
    validation: np.ndarray
    """bool (cell,): the inner validation part."""
    n_classes: int
    protocol: Protocol
    seed: int
    pixels: int | None = None
    """Side of the image that the network is shown; None: as the cube holds it."""
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What names the training beside its protocol and seed."""
        seen = hashlib.sha256()
        for array in (self.cells, self.ses, self.weight, self.validation):
            seen.update(np.ascontiguousarray(array).tobytes())
        return {"model_id": self.model_id, "cells": seen.hexdigest()}


def plan_folds(
    cells: gpd.GeoDataFrame,
    directory: str | Path,
    protocol: Protocol,
    *,
    seed: int = 0,
    min_coverage: float = 0.99,
    pixels: int | None = None,
) -> list[Fold]:
    """The trainings of a city, for the kind of folds of its table.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.cells`, with ``coverage`` and, where the protocol filters voids, ``void_share``.
    directory : str or Path
        Where models go: ``random-0.keras`` …, or ``spatial-0.keras`` ….
    protocol : Protocol
    seed : int
        Of the inner validation part, the initial weights and the shuffles.
    min_coverage : float
        Cells with a smaller observed share are left out.
    pixels : int, optional
        Side of the image that the networks are shown; divides that of the cube's cells.

    Raises
    ------
    TooFewCellsError
        A fold's training part lacks a class, or its validation part would be empty.
    """
    attrs = cells.attrs
    kind = attrs.get("folds_kind", "random")
    enough = usable(cells, min_coverage, protocol.max_void)
    plans = []
    for fold in range(attrs["n_folds"]):
        part = cells[training_cells(cells, fold) & enough]
        ses = part["ses_true"].to_numpy(dtype=np.int64) - 1
        validation = _inner_validation(ses, protocol.validation_share, seed + fold)
        trained = set(ses[~validation].tolist())
        if len(trained) < attrs["n_classes"] or not validation.any():
            raise TooFewCellsError(
                f"{kind} fold {fold} of {attrs['city']}: {int((cells['labelled'] & enough).sum())} of "
                f"{len(cells)} cells are labelled and at least {min_coverage:.0%} covered by imagery; its "
                f"training part holds {len(trained)} of {attrs['n_classes']} classes and "
                f"{int(validation.sum())} validation cells; add imagery, lower cells.min_coverage, or "
                "choose fewer folds or classes"
            )
        named = (
            "city",
            "vintage",
            "thresholds",
            "thresholds_of",
            "labels",
            "n_folds",
            "folds_kind",
        )
        card = {key: attrs.get(key) for key in named}
        if kind == "spatial":
            card |= {key: attrs.get(key) for key in ("buffer_cells", "fold_block_cells")}
        weight = part["weight"] if "weight" in part else np.ones(len(part))
        plans.append(
            Fold(
                f"{attrs['city']}-{kind}{fold}",
                fold,
                str(Path(directory) / f"{kind}-{fold}.keras"),
                part[["row", "col"]].to_numpy(dtype=np.int64),
                ses,
                np.asarray(weight, dtype=np.float32),
                validation,
                attrs["n_classes"],
                protocol,
                seed,
                pixels,
                {**card, "fold": fold, "protocol": asdict(protocol), "seed": seed},
            )
        )
    return plans


def _inner_validation(ses: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of every class, at least one cell of each class that has two."""
    rng = np.random.default_rng([seed, 2])
    chosen = np.zeros(len(ses), dtype=bool)
    for k in np.unique(ses):
        members = rng.permutation(np.flatnonzero(ses == k))
        n = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[members[:n]] = True
    return chosen


def train_fold(fold: Fold, image: xr.DataArray, progress: Progress | None = None) -> ModelRef:
    """Train one fold and save its model with its card.

    A checkpoint lies beside the model after every epoch, and the logs in ``logs``: a call that was cut
    short goes on from the last epoch, and ends as it would have.

    Parameters
    ----------
    fold : Fold
    image : xarray.DataArray
        uint8 ``(band, y, x)`` on the cells' grid; read cell by cell.
    progress : callable, optional
        Called with the model id, the epoch and its logs.

    Raises
    ------
    MissingInputError
        There is no file of initial weights where one was named.
    ModelMismatchError
        The file of initial weights is not the one that was asked for, or does not fit; or the
        checkpoint holds another network.
    StoreError
        The disk is full; the last checkpoint stays.
    """
    done = finished(fold)
    if done is not None:
        return done  # a worker that died with others' results had this one done as well
    start_backend()
    from sesgrid.stages.cell_batches import CellBatches
    from sesgrid.stages.fit import fit, network_spec
    from sesgrid.store.cell_reader import CellReader

    protocol, path = fold.protocol, Path(fold.path)
    devices = share_batches() if protocol.data_parallel else 1
    reader = CellReader(image, size=fold.pixels)

    def batches(members: np.ndarray, **options: Any) -> CellBatches:
        index = np.flatnonzero(members)
        even = bool((fold.weight == 1).all())
        return CellBatches(
            reader,
            fold.cells[index],
            fold.ses[index],
            fold.n_classes,
            protocol.batch_size,
            sample_weight=None if even else fold.weight[index],
            seed=fold.seed + fold.fold,
            multiple=devices,
            **options,
        )

    spec = network_spec(protocol, reader.size, fold.n_classes)
    facts = {**fold.facts, "key": fold.card.get("key"), "pixels": _sample_of(reader, fold.cells)}
    facts["initial_weights_sha256"] = _checked_weights(protocol)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".checkpoint.npz")
    with DEVICE_LOCK:
        started = time.perf_counter()
        fitted = fit(
            spec,
            protocol,
            batches(
                ~fold.validation,
                samples_per_epoch=protocol.samples_per_epoch,
                augment=True,
                flips=protocol.flips,
                crop_share=protocol.crop_share,
                shuffle=protocol.shuffle,
            ),
            batches(fold.validation, flips=protocol.flip_validation),
            seed=fold.seed,
            checkpoint=checkpoint,
            facts=facts,
            logs=path.parent / "logs" / path.stem,
            on_epoch=lambda epoch, logs: progress and progress(fold.model_id, epoch, logs),
        )
        card = {
            **fold.card,
            **asdict(spec),
            "initial_weights": fitted.initial_weights,
            "initial_weights_sha256": facts["initial_weights_sha256"],
            "training_cells_sha256": facts["cells"],
            "training_cells": int((~fold.validation).sum()),
            "history": fitted.history,
            "best_epoch": fitted.best_epoch,
            "restarts": fitted.restarts,
            "resumed_at": fitted.resumed_at,
            # what the epochs before took is not known
            "training_s": None if fitted.resumed_at else time.perf_counter() - started,
            "intended_use": INTENDED_USE,
            "limits": LIMITS,
            "open_with": OPEN_WITH,
            "software": f"sesgrid {version('sesgrid')}",
        }
        ref = save_model(fitted.model, path, model_id=fold.model_id, card=card)
    # also those put aside, and what a killed process left half written
    name = glob.escape(checkpoint.name)
    aside = path.parent.glob(f"{glob.escape(checkpoint.stem)}-{'[0-9a-f]' * 8}.npz")
    for spent in (checkpoint, *aside, *path.parent.glob(f".{name}.*.partial")):
        spent.unlink(missing_ok=True)
    return ref


def _sample_of(reader: CellReader, cells: np.ndarray) -> str:
    """Hash of a few of the cells' pixels: a training must not go on with other imagery."""
    few = cells[np.linspace(0, len(cells) - 1, min(8, len(cells))).astype(np.int64)]
    return hashlib.sha256(np.ascontiguousarray(reader.read(few)).tobytes()).hexdigest()


def card_of(fold: Fold) -> dict[str, Any]:
    """The card of a fold's model."""
    return read_card(fold.path)


def finished(fold: Fold) -> ModelRef | None:
    """The fold's model, where it was trained to the end with the key that the fold's card has.

    A model that started from random weights for want of ImageNet's is none once these are at hand.
    """
    key = fold.card.get("key")
    if key is None:
        return None
    try:
        ref = ModelRef.open(fold.path)
        card = card_of(fold)
        history_of(ref)  # what a run tells of its trainings: without it, it is trained again
    except (MissingInputError, ModelMismatchError):
        return None
    if card.get("key") != key or _could_start_better(fold, card):
        return None
    return ref


def _could_start_better(fold: Fold, card: Mapping[str, Any]) -> bool:
    """Whether it had to start from random weights, and ImageNet's have been put in place since."""
    if fold.protocol.weights != "imagenet" or card.get("initial_weights") != "random":
        return False
    from sesgrid.kernels.backbones import backbone_named, imagenet_at_hand

    return imagenet_at_hand(backbone_named(fold.protocol.backbone))


def _checked_weights(protocol: Protocol) -> str | None:
    """Hash of the file of initial weights; None where there is no file."""
    if protocol.weights in (None, "imagenet"):
        return None
    if not Path(str(protocol.weights)).is_file():
        raise MissingInputError(
            f"{protocol.weights}: expected a file of {protocol.backbone}'s weights, found none: correct "
            "train.weights"
        )
    received = file_sha256(str(protocol.weights))
    expected = protocol.weights_sha256 and protocol.weights_sha256.lower()
    if expected not in (None, received):
        raise ModelMismatchError(
            f"{protocol.weights}: expected sha256 {protocol.weights_sha256}, the file has {received}: get "
            "the file anew, or correct train.weights_sha256"
        )
    return received


def train(
    cells: gpd.GeoDataFrame,
    pixels: xr.Dataset,
    directory: str | Path,
    *,
    protocol: str | Protocol = "paper",
    seed: int = 0,
    min_coverage: float = 0.99,
    progress: Progress | None = None,
) -> dict[str, ModelRef]:
    """Train one model per fold, here and now.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.cells`.
    pixels : xarray.Dataset
        From `sesgrid.mosaic` or a cube; every epoch reads it anew, so write a lazy mosaic to a cube or
        ``.load()`` it first.
    directory : str or Path
        Model files go here.
    protocol : str or Protocol
        "paper", "reference" (both from ImageNet weights) or "scratch" (small synthetic cities).
    seed : int
    min_coverage : float
        Cells with a smaller observed share are left out.
    progress : callable, optional
        Called with the model id, the epoch and its logs.

    Returns
    -------
    dict of str to ModelRef
        By ``model_id``.
    """
    from sesgrid.stages.predict import with_shares

    if isinstance(protocol, str):
        protocol = protocol_named(protocol)
    cells = with_shares(cells, pixels, voids=protocol.max_void is not None)
    folds = plan_folds(cells, directory, protocol, seed=seed, min_coverage=min_coverage)
    image = pixels["image"].assign_attrs(pixels.attrs)
    refs = [train_fold(fold, image, progress) for fold in folds]
    return {ref.model_id: ref for ref in refs}
