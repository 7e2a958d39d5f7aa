"""Sums of activation maps over land-cover classes, cell by cell, as a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.errors import FormatError
from sesgrid.stages.evidence import UNCLASSIFIED

__all__ = ["MAPS", "activation_dataset", "class_sums", "sum_columns"]

MAPS = ("low", "high")
"""Maps of the lowest and the highest class, in this order."""


def activation_dataset(
    rows: pd.DataFrame, class_names: Sequence[str], attributes: Mapping[str, Any]
) -> xr.Dataset:
    """Rows of the stage as a dataset.

    Parameters
    ----------
    rows : DataFrame
    class_names : sequence of str
        Names of the land-cover values 1, 2, …
    attributes : mapping
        Of the dataset.

    Returns
    -------
    xarray.Dataset
        As of `class_sums`.

    Raises
    ------
    FormatError
        A row lacks an area.
    """
    sums, areas = sum_columns(1 + len(class_names))
    activation = np.zeros((len(rows), *sums.shape))
    area = np.zeros((len(rows), *areas.shape), np.int64)
    ids: Any = np.empty(0, object)
    if len(rows):  # without rows there are no columns
        ids = rows["cell_id"].to_numpy(object)
        for at, name in np.ndenumerate(sums):
            activation[(slice(None), *at)] = rows[name].to_numpy(np.float64, na_value=np.nan)
        for c, name in enumerate(areas):
            pixels = rows[name]
            if pixels.isna().any() or not pd.api.types.is_integer_dtype(pixels):
                raise FormatError(
                    f"{name}: expected whole pixels in every row, received {pixels.dtype}, "
                    f"{int(pixels.isna().sum())} missing: run the stage explain again"
                )
            area[:, c] = pixels
    return class_sums(ids, activation, area, class_names, attributes)


def sum_columns(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the stage's rows: of sums ``(map, landcover_class)``, of areas ``(landcover_class,)``."""
    classes = range(n_classes)
    sums = np.array([[f"{m}_{c}" for c in classes] for m in MAPS])
    return sums, np.array([f"area_{c}" for c in classes])


def class_sums(
    cell_ids: Any,
    activation: Any,
    area: Any,
    class_names: Sequence[str],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Sums and areas of cells, in memory or lazy, as a dataset.

    Parameters
    ----------
    cell_ids : array or pandas.Index
        str ``(cell,)``.
    activation : array
        float64 ``(cell, map, landcover_class)``: sum of the map over the class' pixels.
    area : array
        int64 ``(cell, landcover_class)``: pixels.
    class_names : sequence of str
        Names of the land-cover values 1, 2, …
    attributes : mapping
        Of the dataset.

    Returns
    -------
    xarray.Dataset
        ``activation`` and ``area``; class 0 is "unclassified".

    Raises
    ------
    FormatError
        Areas are not whole numbers: a row lacks one.
    """
    if area.dtype.kind not in "iu":
        raise FormatError(
            f"area: expected whole pixels, received {area.dtype}: a row lacks one; run the stage explain "
            "again"
        )
    return xr.Dataset(
        {
            "activation": (("cell", "map", "landcover_class"), activation),
            "area": (("cell", "landcover_class"), area),
        },
        coords={
            "cell": pd.Index(cell_ids, name="cell"),
            "map": list(MAPS),
            "landcover_class": [UNCLASSIFIED, *class_names],
        },
        attrs=dict(attributes),
    )
