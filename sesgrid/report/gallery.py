"""A few cells shown as the model saw them: photo, activation for low and high, land cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sesgrid.report.images import activation_overlay, class_image, photo
from sesgrid.report.palette import landcover_colours, ses_colours, text_on

__all__ = ["CellThumbnail", "gallery"]

MAX_CELLS = 12
"""More would make the file large and nobody looks at them."""

_PX = 320


@dataclass(frozen=True)
class CellThumbnail:
    """One cell for the gallery; all pictures cover the whole cell, north up."""

    cell_id: str
    ses_true: int | None
    """1…K, None = unknown."""
    ses_predicted: int | None
    """1…K, None = not predicted."""
    p: float
    """The model's single output, 0–1; NaN = not predicted."""
    image: np.ndarray
    """uint8 (y, x, 3)."""
    low: np.ndarray
    """float (y, x): activation map of the lowest class."""
    high: np.ndarray
    """float (y, x): activation map of the highest class."""
    classes: np.ndarray | None = None
    """uint8 (y, x): values of the class raster, 0 = unclassified; None = no land cover."""


def gallery(
    thumbnails: Iterable[CellThumbnail],
    landcover_classes: Sequence[str],
    groups: Mapping[str, str],
    n_classes: int,
) -> dict[str, Any]:
    """What the template shows of the cells.

    Parameters
    ----------
    thumbnails : iterable of CellThumbnail
        The first 12 are shown.
    landcover_classes : sequence of str
        Names; the index is the value in ``classes``.
    groups : mapping of str to str
        Class → group, for colours.
    n_classes : int
        K.

    Returns
    -------
    dict
        ``cells``: a list with texts, colours and pictures; ``legend``: (name, colour) of the
        land-cover classes that can be seen.
    """
    shown = list(thumbnails)[:MAX_CELLS]
    names = dict(enumerate(landcover_classes))
    colours = landcover_colours([name for value, name in names.items() if value > 0], groups)
    by_value = {value: colours[name] for value, name in names.items() if value > 0}
    seen = {int(v) for t in shown if t.classes is not None for v in np.unique(t.classes)}
    return {
        "cells": [_card(t, by_value, names, n_classes) for t in shown],
        "legend": [(names[v], by_value[v]) for v in sorted(seen) if v in by_value],
    }


def _card(
    thumbnail: CellThumbnail, colours: Mapping[int, str], names: Mapping[int, str], n_classes: int
) -> dict[str, Any]:
    pictures = [
        ("Orthophoto", photo(thumbnail.image, _PX), f"Orthophoto of cell {thumbnail.cell_id}"),
    ]
    for side in ("low", "high"):
        activation = getattr(thumbnail, side)
        lit = bool(np.any(np.nan_to_num(activation) > 0))
        pictures.append(
            (
                f"Activation, {side}" if lit else f"Activation, {side}: none",
                activation_overlay(thumbnail.image, activation, side, _PX),
                f"Activation map of the {side}est class over the same cell",
            )
        )
    if thumbnail.classes is not None:
        values, counts = np.unique(thumbnail.classes, return_counts=True)
        held = [names[int(v)] for v in values[np.argsort(-counts)] if int(v) in colours]
        said = f"Land cover of the same cell: {', '.join(held) or 'unclassified'}"
        pictures.append(("Land cover", class_image(thumbnail.classes, colours, _PX), said))
    return {
        "cell_id": thumbnail.cell_id,
        "p": thumbnail.p if np.isfinite(thumbnail.p) else None,
        "true": _chip(thumbnail.ses_true, n_classes),
        "predicted": _chip(thumbnail.ses_predicted, n_classes),
        "pictures": pictures,
    }


def _chip(ses: int | None, n_classes: int) -> dict[str, str] | None:
    """Text and colours of a class's little label; None for no class."""
    if ses is None or pd.isna(ses):
        return None
    fill = ses_colours(n_classes)[int(ses) - 1]
    return {"text": str(int(ses)), "fill": fill, "ink": text_on(fill)}
