"""Explain: guided Grad-CAM of every covered cell, summed per land-cover class.

A task sums the factors of a batch over the class pixels before it asks for the next, and returns 2 × 20
numbers a cell, and, where the cells bring their polygons, statistics of each. Maps are kept where they are
asked for, as bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.errors import GridMismatchError, MissingInputError
from sesgrid.grid import Extent, cell_id_of, rowcol_of_ids
from sesgrid.kernels.attribution import attributed_sums, attribution_maps, quantised, restored
from sesgrid.kernels.class_sums import class_areas
from sesgrid.kernels.method import PRESETS, Method, method_named
from sesgrid.stages.activation import MAPS, activation_dataset
from sesgrid.stages.fragments import PolygonTask, fragments_of
from sesgrid.stages.mosaic import OBSERVED
from sesgrid.stages.predict import (
    CellTask,
    by_model,
    model_batches,
    place_cells,
    prediction,
    run_model,
    with_model,
)
from sesgrid.store.models import ModelRef

__all__ = [
    "Explain",
    "explain",
    "explain_maps",
    "kept_maps",
]


@dataclass(frozen=True)
class Explain:
    """The stage: the class sums of both maps, and what the network says of the cells on the way."""

    layers: ClassVar = ("image", "coverage", "landcover")
    n_values: int
    """Land-cover values, 0 (unclassified) included."""
    method: Method = PRESETS["paper"]
    precision: str = "float32"
    keep: Literal["none", "all"] | frozenset[str] = "none"
    """Cells whose maps the rows bring, as `sesgrid.kernels.attribution.quantised`."""

    def __call__(
        self,
        items: Sequence[CellTask],
        image: np.ndarray,
        coverage: np.ndarray,
        landcover: np.ndarray,
    ) -> list[dict[str, Any]]:
        """One row per cell; image ``(cell, band, y, x)``, the others ``(cell, y, x)``, uint8."""
        from sesgrid.kernels.heads import class_log_probabilities

        classes, areas = observed_classes(coverage, landcover, self.n_values)
        rows: list[dict[str, Any]] = [{} for _ in items]
        for ref, members in by_model(items).items():
            batches = model_batches(ref, image[members], "factors", self.method, self.precision)
            for part, (output, evidence, sensitivity) in batches:
                chosen, signed = members[part], is_signed(evidence)
                probabilities = np.exp(class_log_probabilities(ref.load(), output))
                sums = attributed_sums(
                    evidence, sensitivity, classes[chosen], self.n_values, self.method,
                    signed=signed, names=[items[i].cell_id for i in chosen],
                )  # fmt: skip
                for k, i in enumerate(chosen):
                    rows[i] = self._row(items[i], probabilities[k], sums[k], areas[i])
                    task, one = items[i], slice(k, k + 1)
                    kept = self.keeps(task.cell_id)
                    if not kept and not isinstance(task, PolygonTask):
                        continue
                    maps = attribution_maps(
                        evidence[one], sensitivity[one], self.method, signed=signed
                    )[0]
                    if isinstance(task, PolygonTask):
                        rows[i]["fragments"] = fragments_of(task, maps, coverage[i])
                    if kept:
                        values, peaks = quantised(maps)
                        rows[i] |= {"maps": values}
                        rows[i] |= {f"peak_{m}": float(v) for m, v in zip(MAPS, peaks, strict=True)}
        return rows

    def keeps(self, cell_id: str) -> bool:
        """Whether the maps of a cell are kept."""
        return self.keep == "all" or (self.keep != "none" and cell_id in self.keep)

    @property
    def predicts(self) -> bool:
        """Whether its forward pass is the one that `Predict` makes: colours as trained, in full precision."""
        return self.method.channels == "rgb" and self.precision == "float32"

    def _row(
        self, task: CellTask, probabilities: np.ndarray, sums: np.ndarray, area: np.ndarray
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"cell_id": task.cell_id, "model_id": task.model.model_id}
        if self.predicts:
            row = prediction(task, probabilities)
        for of_map, name in zip(sums, MAPS, strict=True):
            row |= {f"{name}_{c}": float(v) for c, v in enumerate(of_map)}
        return row | {f"area_{c}": int(v) for c, v in enumerate(area)}


def is_signed(evidence: np.ndarray) -> bool:
    """Whether one map serves both ends, as it does with one output; ``(batch, map, v, u)``."""
    return evidence.shape[1] == 1


def observed_classes(
    coverage: np.ndarray, landcover: np.ndarray, n_values: int
) -> tuple[np.ndarray, np.ndarray]:
    """Class pixels uint8 ``(cell, y, x)`` and their number int64 ``(cell, class)``.

    What the aircraft did not see belongs to no class.
    """
    classes = np.where(coverage == OBSERVED, landcover, 0).astype(np.uint8)
    n, _, size = classes.shape
    return classes, class_areas(classes.reshape(n * size, size), size, n_values)[:, 0]


def fragments_table(rows: pd.DataFrame, polygons: gpd.GeoDataFrame) -> pd.DataFrame:
    """Fragments of all cells: ``cell_id``, ``model_id``, the polygon's attributes, and its statistics.

    Parameters
    ----------
    rows : DataFrame
        Of the stage, with ``fragments``.
    polygons : GeoDataFrame
        The land cover that the tasks were given.
    """
    listed = rows[["cell_id", "model_id", "fragments"]].explode("fragments", ignore_index=True)
    listed = listed[listed["fragments"].notna()].reset_index(drop=True)
    found = pd.DataFrame(listed.pop("fragments").tolist(), index=listed.index)
    if found.empty:
        return listed
    what = polygons.drop(columns=polygons.geometry.name).reset_index(drop=True)
    what = what.iloc[found["polygon"]].reset_index(drop=True)
    return pd.concat([listed, what, found], axis=1)


def explain(
    cells: gpd.GeoDataFrame,
    pixels: xr.Dataset,
    models: Mapping[str, ModelRef],
    class_names: Sequence[str],
    *,
    preset: str = "paper",
    precision: str = "float32",
    **changes: Any,
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
    preset : {"paper", "reference"}
        Variant of guided Grad-CAM; named in the result's attributes.
    precision : {"float32", "bfloat16"}
        Of the network's passes.
    **changes
        Of the preset: ``layer``, ``gates``, ``cam``, ``clip_percentile``, ``channels``; see
        `sesgrid.kernels.method.Method`.

    Returns
    -------
    xarray.Dataset
        See `sesgrid.stages.activation.class_sums`.

    Raises
    ------
    GridMismatchError
        The pixels hold no ``landcover``, or one of another grid.
    ConfigError
        No such preset or choice.
    """
    require_landcover(pixels)
    method = method_named(preset, **changes)
    grid = Extent.from_attributes(pixels.attrs).grid
    todo = with_model(cells, grid.cells_per_block)
    stage = Explain(len(class_names) + 1, method, precision)
    results = place_cells(stage, todo, pixels, models, stage.layers, "explain")
    named = {"preset": method.name, "precision": precision}
    return activation_dataset(pd.DataFrame(list(results.compute())), class_names, named)


def require_landcover(pixels: xr.Dataset) -> None:
    """Refuse pixels without class pixels on their own grid.

    Raises
    ------
    GridMismatchError
        There are none, or xarray has moved them from another grid, with gaps for what it lacked.
    """
    if "landcover" not in pixels:
        raise GridMismatchError(
            "the pixels hold no 'landcover': add it with pixels['landcover'] = sesgrid.landcover(…)"
        )
    found = pixels["landcover"]
    if found.dtype != np.uint8 or found.dims != ("y", "x"):
        raise GridMismatchError(
            f"landcover: expected uint8 (y, x) on the grid of the pixels, received {found.dtype} "
            f"{found.dims}; a raster of another grid is brought onto it by sesgrid.classified"
        )


@dataclass(frozen=True)
class Maps:
    """The stage that keeps the maps: for a few cells to look at."""

    method: Method

    def __call__(self, items: Sequence[CellTask], image: np.ndarray) -> list[np.ndarray]:
        """float32 ``(map, y, x)`` per cell."""
        out: list[np.ndarray] = [np.empty(0)] * len(items)
        for ref, members in by_model(items).items():
            _, evidence, sensitivity = run_model(ref, image[members], "factors", self.method)
            maps = attribution_maps(evidence, sensitivity, self.method, signed=is_signed(evidence))
            for k, i in enumerate(members):
                out[i] = maps[k]
        return out


def _stack(maps: np.ndarray) -> np.ndarray:
    return np.stack(list(maps))


def explain_maps(
    cells: gpd.GeoDataFrame,
    pixels: xr.Dataset,
    models: Mapping[str, ModelRef],
    method: Method = PRESETS["paper"],
) -> xr.DataArray:
    """The activation maps themselves, lazily: ``(cell, map, y, x)`` float32, at least 0."""
    size = Extent.from_attributes(pixels.attrs).grid.pixels_per_cell
    results = place_cells(Maps(method), cells, pixels, models, ["image"], "maps")
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


def kept_maps(cube: xr.DataTree, cells: Sequence[str] | None = None) -> xr.DataArray:
    """Activation maps that a run kept in its cube (``explain.maps``).

    Parameters
    ----------
    cube : xarray.DataTree
        From `sesgrid.open_cube`.
    cells : sequence of str, optional
        Cell ids; by default every cell whose maps were kept.

    Returns
    -------
    xarray.DataArray
        float32 ``(cell, map, y, x)``, at least 0, lazy where the cube is.

    Raises
    ------
    MissingInputError
        The run kept no maps, or none of a cell.
    """
    pixels, known = (
        cube["pixels"].to_dataset(),
        cube["cells"].to_dataset() if "cells" in cube else {},
    )
    if "activation" not in pixels or "peak_low" not in known:
        raise MissingInputError('the cube holds no maps: run with explain.maps = "all"')
    extent = Extent.from_attributes(pixels.attrs)
    peaks = np.stack([known[f"peak_{m}"].values for m in MAPS])
    if cells is None:
        there = np.argwhere(np.isfinite(peaks[0])).tolist()
        cells = [cell_id_of(i + extent.row, j + extent.col) for i, j in there]
    if not cells:
        raise MissingInputError("the cube holds no maps of any cell: see explain.maps")
    maps = []
    for name, (row, col) in zip(cells, rowcol_of_ids(cells).tolist(), strict=True):
        i, j = row - extent.row, col - extent.col
        inside = 0 <= i < peaks.shape[1] and 0 <= j < peaks.shape[2]
        if not inside or not np.isfinite(peaks[:, i, j]).all():
            raise MissingInputError(f"the cube holds no maps of cell {name}: see explain.maps")
        y, x = extent.cell_slices(row, col)
        maps.append(restored(pixels["activation"].variable[:, y, x].data, peaks[:, i, j]))
    stack = da.stack(maps) if pixels["activation"].chunks else np.stack(maps)
    return xr.DataArray(
        stack, dims=("cell", "map", "y", "x"), coords={"cell": list(cells), "map": list(MAPS)}
    )
