"""A trial: train one fold of one variant, and say what its model tells of the cells that it did not see.

The unit of work of every comparison. It is one task: it finds its pixels by the cube's place, goes on
from its checkpoint, and gives rows, never weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sesgrid.grid import Extent
from sesgrid.kernels.device import batch_size_for
from sesgrid.stages.explain import Explain
from sesgrid.stages.predict import CellTask, class_probabilities, prediction
from sesgrid.stages.train import Fold, Progress, card_of, train_fold
from sesgrid.store.cell_reader import CellReader
from sesgrid.store.models import ModelRef

__all__ = ["Trial", "predicted_rows", "run_trial"]

_GROUP = 64
"""Cells held at once."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One fold of one variant."""

    variant: str
    fold: Fold
    held_out: tuple[tuple[str, int, int], ...]
    """(cell id, row, col) of the labelled cells of the fold."""
    explain: Explain | None = None
    """Whether they are explained as well, and how."""


def run_trial(
    trial: Trial, pixels: xr.Dataset, progress: Progress | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train unless that is done, then predict the cells that were held out.

    Parameters
    ----------
    trial : Trial
    pixels : xarray.Dataset
        Of the cube: ``image``, and where it explains ``coverage`` and ``landcover``.
    progress : callable, optional
        As for `sesgrid.stages.train.train_fold`.

    Returns
    -------
    rows : list of dict
        As of `sesgrid.stages.predict.Predict` without colours, and of `sesgrid.stages.explain.Explain`.
    facts : dict
        ``parameters``, ``flops`` (of one forward pass), ``cells_per_s`` (predicted, from the cube, after
        compilation; None where the fold holds out nothing), ``training_s`` (None where the training was
        interrupted), ``epochs``, ``best_epoch``, ``initial_weights``, ``model_sha256``.

    Raises
    ------
    ModelMismatchError
        It is to explain at another resolution than the cube's, which holds the land cover.
    """
    from sesgrid.kernels.cost import forward_flops, parameters

    image = pixels["image"].assign_attrs(pixels.attrs)
    ref = train_fold(trial.fold, image, progress)
    reader = CellReader(image, size=trial.fold.pixels)
    predicted_rows(ref, reader, trial.held_out[: batch_size_for(reader.size)])  # compiles
    begun = time.perf_counter()
    rows = predicted_rows(ref, reader, trial.held_out)
    seconds = time.perf_counter() - begun
    if trial.explain is not None:
        looked = _explained(trial.explain, ref, pixels, trial.held_out)
        rows = [{**look, **row} for look, row in zip(looked, rows, strict=True)]
    card, model = card_of(trial.fold), ref.load()
    return rows, {
        "parameters": parameters(model),
        "flops": forward_flops(model, reader.size),
        "cells_per_s": len(rows) / seconds if rows else None,
        "training_s": card.get("training_s"),
        "epochs": len(card["history"]["loss"]),
        "best_epoch": card["best_epoch"],
        "initial_weights": card["initial_weights"],
        "model_sha256": ref.sha256,
    }


def predicted_rows(
    ref: ModelRef, reader: CellReader, cells: Sequence[tuple[str, int, int]]
) -> list[dict[str, Any]]:
    """What a model says of cells, at the resolution of the reader; one row a cell, in order."""
    rows: list[dict[str, Any]] = []
    for start in range(0, len(cells), _GROUP):
        group = cells[start : start + _GROUP]
        image = reader.read(np.array([[row, col] for _, row, col in group]))
        probabilities = class_probabilities(ref, np.moveaxis(image, -1, 1))
        rows += [
            prediction(CellTask(*cell, ref), p)
            for cell, p in zip(group, probabilities, strict=True)
        ]
    return rows


def _explained(
    stage: Explain, ref: ModelRef, pixels: xr.Dataset, cells: Sequence[tuple[str, int, int]]
) -> Iterator[dict[str, Any]]:
    extent = Extent.from_attributes(pixels.attrs)
    ref.require(pixels_per_cell=extent.grid.pixels_per_cell, n_classes=ref.n_classes)
    for start in range(0, len(cells), _GROUP):
        tasks = [CellTask(*cell, ref) for cell in cells[start : start + _GROUP]]
        slices = [extent.cell_slices(t.row, t.col) for t in tasks]
        inputs = [
            np.stack([np.asarray(pixels[layer].variable[..., y, x]) for y, x in slices])
            for layer in stage.layers
        ]
        yield from stage(tasks, *inputs)
