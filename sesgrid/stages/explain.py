"""Explain: guided Grad-CAM of every covered cell, summed per land-cover class.

No map is ever kept: a task makes the maps of a batch, sums them over the class pixels at once and
returns 2 × 20 numbers a cell. No vector geometry is touched here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.errors import ConfigError, GridMismatchError
from sesgrid.grid import Extent
from sesgrid.kernels.class_sums import class_areas, class_sums
from sesgrid.kernels.device import batch_size_for
from sesgrid.stages.evidence import UNCLASSIFIED
from sesgrid.stages.mosaic import OBSERVED
from sesgrid.stages.predict import CellTask, by_model, place_cells, run_model, with_model
from sesgrid.store.models import ModelRef

__all__ = ["MAPS", "UNCLASSIFIED", "Explain", "activation_dataset", "explain", "explain_maps"]

MAPS = ("low", "high")
"""Maps of the lowest and the highest class, in this order."""

PRESETS = ("paper",)
"""Named variants of guided Grad-CAM; see `sesgrid.kernels.saliency`."""


@dataclass(frozen=True)
class Explain:
    """The stage: class sums of both maps."""

    layers: ClassVar = ("image", "coverage", "landcover")
    batch_size: int
    n_values: int
    """Land-cover values, 0 (unclassified) included."""

    def __call__(
        self,
        items: Sequence[CellTask],
        image: np.ndarray,
        coverage: np.ndarray,
        landcover: np.ndarray,
    ) -> list[dict[str, Any]]:
        """One row per cell; image ``(cell, band, y, x)``, the others ``(cell, y, x)``, uint8."""
        # what the aircraft did not see belongs to no class
        classes = np.where(coverage == OBSERVED, landcover, 0).astype(np.uint8)
        n, _, size = classes.shape
        rows: list[dict[str, Any]] = [{} for _ in items]
        areas = class_areas(classes.reshape(n * size, size), size, self.n_values)[:, 0]
        for ref, members in by_model(items).items():
            _, maps = run_model(ref, image[members], "explain", self.batch_size)
            tall = np.moveaxis(maps, 1, 0).reshape(len(MAPS), len(members) * size, size)
            flat = classes[members].reshape(len(members) * size, size)
            sums = class_sums(np.ascontiguousarray(tall), flat, size, self.n_values)[:, :, 0]
            for k, i in enumerate(members):
                rows[i] = {"cell_id": items[i].cell_id, "model_id": ref.model_id}
                for m, name in enumerate(MAPS):
                    rows[i] |= {f"{name}_{c}": float(v) for c, v in enumerate(sums[m, k])}
                rows[i] |= {f"area_{c}": int(v) for c, v in enumerate(areas[i])}
        return rows


def activation_dataset(
    rows: pd.DataFrame, class_names: Sequence[str], attributes: Mapping[str, Any]
) -> xr.Dataset:
    """Rows of the stage as a dataset.

    Returns
    -------
    xarray.Dataset
        ``activation`` float64 ``(cell, map, landcover_class)``: sum of the map over the class' pixels;
        ``area`` int64 ``(cell, landcover_class)``: pixels. Class 0 is "unclassified".
    """
    names = [UNCLASSIFIED, *class_names]
    n = len(names)

    def columns(prefix: str, dtype: type) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, n), dtype=dtype)
        return rows[[f"{prefix}_{c}" for c in range(n)]].to_numpy(dtype=dtype)

    activation = np.stack([columns(m, np.float64) for m in MAPS], axis=1)
    return xr.Dataset(
        {
            "activation": (("cell", "map", "landcover_class"), activation),
            "area": (("cell", "landcover_class"), columns("area", np.int64)),
        },
        coords={
            "cell": rows["cell_id"].to_numpy(dtype=object) if len(rows) else np.empty(0, object),
            "map": list(MAPS),
            "landcover_class": names,
        },
        attrs=dict(attributes),
    )


def explain(
    cells: gpd.GeoDataFrame,
    pixels: xr.Dataset,
    models: Mapping[str, ModelRef],
    class_names: Sequence[str],
    *,
    preset: str = "paper",
) -> xr.Dataset:
    """Explain every predicted cell.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.predict`: cells whose ``model_id`` is NA are left out.
    pixels : xarray.Dataset
        With ``image``, ``coverage`` and ``landcover``.
    models : mapping
        From `sesgrid.train`.
    class_names : sequence of str
        Names of the land-cover values 1, 2, …
    preset : {"paper"}
        Variant of guided Grad-CAM; named in the result's attributes.

    Returns
    -------
    xarray.Dataset
        See `activation_dataset`.

    Raises
    ------
    GridMismatchError
        The pixels hold no ``landcover``.
    """
    if "landcover" not in pixels:
        raise GridMismatchError(
            "the pixels hold no 'landcover': add it with pixels['landcover'] = sesgrid.landcover(…)"
        )
    if preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, received {preset!r}")
    grid = Extent.from_attributes(pixels.attrs).grid
    todo = with_model(cells, grid.cells_per_block)
    stage = Explain(batch_size_for(grid.pixels_per_cell), len(class_names) + 1)
    results = place_cells(stage, todo, pixels, models, stage.layers, "explain")
    return activation_dataset(
        pd.DataFrame(list(results.compute())), class_names, {"preset": preset}
    )


@dataclass(frozen=True)
class Maps:
    """The stage that keeps the maps: for a few cells to look at."""

    batch_size: int

    def __call__(self, items: Sequence[CellTask], image: np.ndarray) -> list[np.ndarray]:
        """float32 ``(map, y, x)`` per cell."""
        out: list[np.ndarray] = [np.empty(0)] * len(items)
        for ref, members in by_model(items).items():
            _, maps = run_model(ref, image[members], "explain", self.batch_size)
            for k, i in enumerate(members):
                out[i] = maps[k]
        return out


def _stack(maps: np.ndarray) -> np.ndarray:
    return np.stack(list(maps))


def explain_maps(
    cells: gpd.GeoDataFrame, pixels: xr.Dataset, models: Mapping[str, ModelRef]
) -> xr.DataArray:
    """The activation maps themselves, lazily: ``(cell, map, y, x)`` float32, at least 0."""
    size = Extent.from_attributes(pixels.attrs).grid.pixels_per_cell
    results = place_cells(Maps(batch_size_for(size)), cells, pixels, models, ["image"], "maps")
    data = da.map_blocks(
        _stack,
        results,
        dtype=np.float32,
        new_axis=[1, 2, 3],
        chunks=(results.chunks[0], (len(MAPS),), (size,), (size,)),
        meta=np.empty((0, 0, 0, 0), dtype=np.float32),
    )
    return xr.DataArray(
        data, dims=("cell", "map", "y", "x"), coords={"cell": list(cells.index), "map": list(MAPS)}
    )
