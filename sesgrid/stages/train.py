"""Train: one network per fold, each seeing only the other folds' cells.

Folds are independent, so each is one task that carries where the pixels lie and which cells it may
see, never pixels or weights. A worker runs one training at a time: a network uses all its cores.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr

from sesgrid.errors import TooFewCellsError
from sesgrid.grid import Extent
from sesgrid.kernels.backend import start_backend
from sesgrid.kernels.device import DEVICE_LOCK
from sesgrid.stages.protocol import Protocol, protocol_named
from sesgrid.store.models import ModelRef, save_model

__all__ = ["Fold", "plan_folds", "train", "train_fold"]

Progress = Callable[[str, int, dict[str, float]], None]


@dataclass(frozen=True, eq=False)
class Fold:
    """One training: what it may see and where its model goes."""

    model_id: str
    fold: int
    path: str
    """``….keras``."""
    cells: np.ndarray
    """int64 (cell, 2): global (row, col) of the labelled, covered cells of the other folds."""
    ses: np.ndarray
    """int64 (cell,): class 0 … K−1."""
    validation: np.ndarray
    """bool (cell,): the inner validation part."""
    n_classes: int
    protocol: Protocol
    seed: int
    card: dict[str, Any] = field(default_factory=dict)


def plan_folds(
    cells: gpd.GeoDataFrame,
    directory: str | Path,
    protocol: Protocol,
    *,
    seed: int = 0,
    min_coverage: float = 0.99,
) -> list[Fold]:
    """The trainings of a city.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.cells`, with ``coverage``.
    directory : str or Path
        Where models go.
    protocol : Protocol
    seed : int
        Of the inner validation part, the initial weights and the shuffles.
    min_coverage : float
        Cells with a smaller observed share are left out.

    Raises
    ------
    TooFewCellsError
        A fold's training part lacks a class, or its validation part would be empty.
    """
    attrs = cells.attrs
    usable = cells[cells["labelled"] & (cells["coverage"] >= min_coverage)]
    plans = []
    for fold in range(attrs["n_folds"]):
        part = usable[usable["fold"] != fold]
        ses = part["ses_true"].to_numpy(dtype=np.int64) - 1
        validation = _inner_validation(ses, protocol.validation_share, seed + fold)
        trained = set(ses[~validation].tolist())
        if len(trained) < attrs["n_classes"] or not validation.any():
            raise TooFewCellsError(
                f"fold {fold} of {attrs['city']}: {len(usable)} of {len(cells)} cells are labelled and "
                f"at least {min_coverage:.0%} covered by imagery; its training part holds {len(trained)} "
                f"of {attrs['n_classes']} classes and {int(validation.sum())} validation cells; add "
                "imagery, lower cells.min_coverage, or choose fewer folds or classes"
            )
        model_id = f"{attrs['city']}-fold{fold}"
        card = {
            key: attrs.get(key) for key in ("city", "vintage", "thresholds", "labels", "n_folds")
        }
        plans.append(
            Fold(
                model_id,
                fold,
                str(Path(directory) / f"fold-{fold}.keras"),
                part[["row", "col"]].to_numpy(dtype=np.int64),
                ses,
                validation,
                attrs["n_classes"],
                protocol,
                seed,
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
    """Train one fold and save its model with its card and its history.

    Parameters
    ----------
    fold : Fold
    image : xarray.DataArray
        uint8 ``(band, y, x)`` on the cells' grid; read cell by cell.
    progress : callable, optional
        Called with the model id, the epoch and its logs.
    """
    start_backend()
    from sesgrid.kernels.network import NetworkSpec
    from sesgrid.stages.cell_batches import CellBatches
    from sesgrid.stages.fit import fit
    from sesgrid.store.cell_reader import CellReader

    extent = Extent.from_attributes(image.attrs)
    reader = CellReader(image)

    def batches(members: np.ndarray, **options: Any) -> CellBatches:
        index = np.flatnonzero(members)
        return CellBatches(
            reader,
            fold.cells[index],
            fold.ses[index],
            fold.n_classes,
            fold.protocol.batch_size,
            seed=fold.seed + fold.fold,
            **options,
        )

    protocol = fold.protocol
    spec = NetworkSpec(
        extent.grid.pixels_per_cell,
        fold.n_classes,
        protocol.max_pool,
        protocol.batch_norm_momentum,
        protocol.drop_connect_rate,
    )
    checkpoint = Path(fold.path).with_suffix(".best.weights.h5")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with DEVICE_LOCK:
        model, history, start = fit(
            spec,
            protocol,
            batches(
                ~fold.validation,
                samples_per_epoch=protocol.samples_per_epoch,
                augment=True,
                crop_share=protocol.crop_share,
            ),
            batches(fold.validation),
            seed=fold.seed,
            checkpoint=checkpoint,
            on_epoch=lambda epoch, logs: progress and progress(fold.model_id, epoch, dict(logs)),
        )
        card = {**fold.card, **asdict(spec), "initial_weights": start, "history": history}
        ref = save_model(model, fold.path, model_id=fold.model_id, card=card)
    checkpoint.unlink(missing_ok=True)
    return ref


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
        "paper" (from ImageNet weights) or "scratch" (small synthetic cities).
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
    from sesgrid.stages.predict import with_coverage

    if isinstance(protocol, str):
        protocol = protocol_named(protocol)
    cells = with_coverage(cells, pixels)
    folds = plan_folds(cells, directory, protocol, seed=seed, min_coverage=min_coverage)
    image = pixels["image"].assign_attrs(pixels.attrs)
    refs = [train_fold(fold, image, progress) for fold in folds]
    return {ref.model_id: ref for ref in refs}


def history_of(ref: ModelRef) -> dict[str, list[float]]:
    """Losses and metrics per epoch, from the model's card."""
    return json.loads(Path(ref.path).with_suffix(".json").read_text())["history"]
