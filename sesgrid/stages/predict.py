"""Predict: the class of every covered cell, by a model that did not see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.errors import ModelMismatchError
from sesgrid.foreign import reading
from sesgrid.grid import Extent, Grid
from sesgrid.kernels.backend import start_backend, to_numpy
from sesgrid.kernels.device import DEVICE_LOCK, batch_size_for
from sesgrid.kernels.method import PRESETS, Method
from sesgrid.stages.cells import usable
from sesgrid.stages.mosaic import OBSERVED
from sesgrid.stages.place import Groups, place, stack_cells
from sesgrid.store.georeference import BANDS
from sesgrid.store.models import NO_CARD, ModelRef, read_card

if TYPE_CHECKING:
    from sesgrid.kernels.saliency import Explainer

__all__ = [
    "GROUP",
    "CellTask",
    "Predict",
    "assign_models",
    "cell_tasks",
    "join_predictions",
    "place_cells",
    "predict",
    "require_models",
    "with_model",
    "with_shares",
]

GROUP = 64
"""Cells held at once: several blocks' worth, so that batches fill across blocks and models."""


@dataclass(frozen=True)
class CellTask:
    """One cell and the model that may look at it."""

    cell_id: str
    row: int
    col: int
    model: ModelRef


@lru_cache(maxsize=8)
def explainer_for(architecture: str, method: Method, precision: str) -> Explainer:
    """One compiled explainer per architecture, method and process."""
    import keras

    from sesgrid.kernels.saliency import Explainer

    return Explainer(keras.models.model_from_json(architecture), method, precision=precision)


def model_batches(
    ref: ModelRef,
    image: np.ndarray,
    passes: Literal["output", "factors"],
    method: Method = PRESETS["paper"],
    precision: str = "float32",
) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """Run one model over cells in fixed, padded batches, one after the other.

    Parameters
    ----------
    ref : ModelRef
    image : np.ndarray
        uint8 ``(cell, band, y, x)``.
    passes : {"output", "factors"}
        The forward pass alone, or all that an explanation takes; see
        `sesgrid.kernels.saliency.Explainer`.
    method : Method
    precision : {"float32", "bfloat16"}

    Yields
    ------
    part : slice
        Of the cells.
    results : tuple of np.ndarray
        Each ``(cell, …)``: the output; or the output, the evidence and the sensitivity.

    Raises
    ------
    ModelMismatchError
        The model's output is not a number.
    """
    explainer = ready_explainer(ref, method, precision)
    weights = explainer.weights_of(ref.load())
    yield from weighted_batches(explainer, weights, image, passes, ref)


def ready_explainer(ref: ModelRef, method: Method, precision: str = "float32") -> Explainer:
    """The process' explainer of a model's architecture, its backend started."""
    with DEVICE_LOCK:
        start_backend()
        return explainer_for(architecture_of(ref), method, precision)


def weighted_batches(
    explainer: Explainer,
    weights: tuple[list[Any], list[Any]],
    image: np.ndarray,
    passes: Literal["output", "factors"],
    ref: ModelRef,
) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """As `model_batches`, with any weights of the model's architecture."""
    size = batch_size_for(ref.pixels_per_cell)
    for start in range(0, len(image), size):
        part = slice(start, min(start + size, len(image)))
        # colours last, as the network takes them
        batch = np.moveaxis(image[part], 1, -1)
        padded = np.zeros((size, *batch.shape[1:]), dtype=np.uint8)
        padded[: len(batch)] = batch
        with DEVICE_LOCK:
            pending = explainer.start(passes, weights, padded)
        # off the lock: the device may work for another task while these come over and are summed
        out = tuple(to_numpy(a)[: len(batch)] for a in pending)
        if not np.isfinite(out[0]).all():
            raise ModelMismatchError(
                f"model {ref.model_id} ({ref.path}) gives an output that is not a number: its weights "
                "are damaged, or its training diverged; train again"
            )
        yield part, out


def run_model(
    ref: ModelRef, image: np.ndarray, passes: Literal["output", "factors"], *options: Any
) -> tuple[np.ndarray, ...]:
    """All of `model_batches` at once: for few cells, or small results."""
    parts = [out for _, out in model_batches(ref, image, passes, *options)]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def class_probabilities(ref: ModelRef, image: np.ndarray) -> np.ndarray:
    """Probabilities of every class, float64 ``(cell, class)``; image uint8 ``(cell, band, y, x)``."""
    from sesgrid.kernels.heads import class_log_probabilities

    (output,) = run_model(ref, image, "output")
    return np.exp(class_log_probabilities(ref.load(), output))


@lru_cache(maxsize=16)
def architecture_of(ref: ModelRef) -> str:
    """The architecture as JSON, without what differs between folds: the auto-numbered names stay."""
    config = json.loads(ref.load().to_json())
    config.pop("compile_config", None)
    return json.dumps(config, sort_keys=True)


@dataclass(frozen=True)
class Predict:
    """The stage: p, class and mean colour of cells."""

    layers: ClassVar = ("image", "coverage")

    def __call__(
        self, items: Sequence[CellTask], image: np.ndarray, coverage: np.ndarray
    ) -> list[dict[str, Any]]:
        """One row per cell; image uint8 ``(cell, band, y, x)``, coverage uint8 ``(cell, y, x)``."""
        rows: list[dict[str, Any]] = [{} for _ in items]
        for ref, members in by_model(items).items():
            probabilities = class_probabilities(ref, image[members])
            for k, i in enumerate(members):
                seen = coverage[i] == OBSERVED
                colour = image[i][:, seen].mean(axis=1) if seen.any() else np.full(3, np.nan)
                rows[i] = {
                    **prediction(items[i], probabilities[k]),
                    **{f"mean_{b}": float(v) for b, v in zip(BANDS, colour, strict=True)},
                }
        return rows


def prediction(task: CellTask, probabilities: np.ndarray) -> dict[str, Any]:
    """What a cell's row says of its class, from the probabilities ``(class,)``.

    ``p`` is the expected class, 0 for the lowest and 1 for the highest; with the binomial head it is the
    p of its trials.
    """
    return {
        "cell_id": task.cell_id,
        "model_id": task.model.model_id,
        "p": float(probabilities @ np.linspace(0, 1, len(probabilities))),
        "ses_predicted": int(np.argmax(probabilities)) + 1,
        **{f"probability_{c + 1}": float(v) for c, v in enumerate(probabilities)},
    }


def by_model(items: Sequence[CellTask]) -> dict[ModelRef, np.ndarray]:
    """Positions of the items of each model."""
    members: dict[ModelRef, list[int]] = {}
    for i, item in enumerate(items):
        members.setdefault(item.model, []).append(i)
    return {ref: np.array(where) for ref, where in members.items()}


def assign_models(
    cells: gpd.GeoDataFrame,
    models: Mapping[str, ModelRef],
    *,
    min_coverage: float,
    max_void: float | None = None,
) -> gpd.GeoDataFrame:
    """Name the model of every cell: the fold that did not see it.

    A labelled cell takes the model of its own test fold, an unlabelled one the fold of its block; a cell
    with too little imagery has no model (NA).

    Raises
    ------
    ModelMismatchError
        A fold has no model.
    """
    kind = cells.attrs.get("folds_kind", "random")
    ids = [f"{cells.attrs['city']}-{kind}{f}" for f in range(cells.attrs["n_folds"])]
    missing = [i for i in ids if i not in models]
    if missing:
        raise ModelMismatchError(
            f"expected a model for every fold of {cells.attrs['city']}, missing {', '.join(missing)}; "
            f"received {', '.join(models) or 'none'}: train first"
        )
    out = cells.copy()
    enough = usable(cells, min_coverage, max_void)
    named = [ids[int(f)] if ok else None for f, ok in zip(cells["fold"], enough, strict=True)]
    out["model_id"] = pd.Series(named, index=cells.index, dtype="string")
    return out


def place_cells(
    stage: Any,
    cells: gpd.GeoDataFrame,
    pixels: xr.Dataset,
    models: Mapping[str, ModelRef],
    layers: Sequence[str],
    name: str,
    dress: Callable[[list[CellTask]], Sequence[CellTask]] = list,
    group: Groups = GROUP,
) -> da.Array:
    """Lay a stage over the cells that have a model; ``dress`` gives the tasks what else they need."""
    extent = Extent.from_attributes(pixels.attrs)
    require_models(models, extent.grid, cells)
    inputs = stack_cells(pixels, layers, cells["row"].to_numpy(), cells["col"].to_numpy(), group)
    return place(stage, dress(cell_tasks(cells, models)), *inputs, group=group, name=name)


def require_models(models: Mapping[str, ModelRef], grid: Grid, cells: pd.DataFrame) -> None:
    """Refuse models that were made for other cells.

    Raises
    ------
    ModelMismatchError
    """
    for ref in models.values():
        ref.require(pixels_per_cell=grid.pixels_per_cell, n_classes=cells.attrs["n_classes"])


def cell_tasks(cells: pd.DataFrame, models: Mapping[str, ModelRef]) -> list[CellTask]:
    """Cells with ``row``, ``col`` and ``model_id`` as work items."""
    columns = (cells[name].tolist() for name in ("row", "col", "model_id"))
    return [
        CellTask(str(i), r, c, models[m])
        for i, r, c, m in zip(cells.index.tolist(), *columns, strict=True)
    ]


def predict(
    cells: gpd.GeoDataFrame,
    pixels: xr.Dataset,
    models: Mapping[str, ModelRef],
    *,
    min_coverage: float = 0.99,
    max_void: float | None = None,
) -> gpd.GeoDataFrame:
    """Predict every covered cell.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.cells`.
    pixels : xarray.Dataset
        From `sesgrid.mosaic` or a cube.
    models : mapping
        From `sesgrid.train`.
    min_coverage : float
        Cells with a smaller observed share get no prediction.
    max_void : float, optional
        Nor do cells with a larger share of subpixels that are zero; default: as the models were trained
        (0.01 with the study's protocol), 1 = no limit.

    Returns
    -------
    GeoDataFrame
        The cells, and ``coverage`` (0–1), ``model_id`` (NA = no model), ``p``, ``ses_predicted`` (1…K),
        ``probability_1`` … ``probability_K``, ``mean_red`` … (0–255 over observed pixels).
    """
    if max_void is None:
        max_void = min(
            (v for v in map(trained_void, models.values()) if v is not None), default=None
        )
    cells = with_shares(cells, pixels, voids=max_void is not None)
    named = assign_models(cells, models, min_coverage=min_coverage, max_void=max_void)
    grid = Extent.from_attributes(pixels.attrs).grid
    todo = with_model(named, grid.cells_per_block)
    stage = Predict()
    results = place_cells(stage, todo, pixels, models, stage.layers, "predict")
    return join_predictions(named, pd.DataFrame(list(results.compute())))


def trained_void(ref: ModelRef) -> float | None:
    """The void filter of the cells that a model was trained on, from its card."""
    card = read_card(ref.path)
    with reading(Path(ref.path).with_suffix(".json"), ModelMismatchError, NO_CARD):
        share = (card.get("protocol") or {}).get("max_void")
        return None if share is None else float(share)


def with_model(cells: gpd.GeoDataFrame, cells_per_block: int) -> gpd.GeoDataFrame:
    """The cells that have a model, block by block, so that a task reads few shards."""
    chosen = cells[cells["model_id"].notna()]
    row, col = chosen["row"].to_numpy(), chosen["col"].to_numpy()
    order = np.lexsort((col, row, col // cells_per_block, row // cells_per_block))
    out = chosen.iloc[order]
    out.attrs = dict(cells.attrs)
    return out


def join_predictions(cells: gpd.GeoDataFrame, rows: pd.DataFrame) -> gpd.GeoDataFrame:
    """Join predicted rows to the cells; cells without a row stay NA."""
    out = cells.copy()
    k = cells.attrs["n_classes"]
    columns = ["p", "ses_predicted", *(f"probability_{c + 1}" for c in range(k))]
    columns += [f"mean_{b}" for b in BANDS]
    indexed = rows.set_index("cell_id") if len(rows) else pd.DataFrame(columns=columns)
    columns = [c for c in columns if c in indexed]
    for column in columns:
        values = indexed[column].reindex(out.index)
        out[column] = values.astype("Int64" if column == "ses_predicted" else "float64")
    out.attrs = dict(cells.attrs)
    return out


def with_shares(
    cells: gpd.GeoDataFrame, pixels: xr.Dataset, *, voids: bool = False
) -> gpd.GeoDataFrame:
    """Add each cell's observed share (``coverage``, 0–1), unless it is there already.

    With ``voids`` also ``void_share``: the share of its subpixels, over bands, that are zero.
    """
    asked = {"coverage": ("coverage", OBSERVED), "void_share": ("image", 0)}
    missing = {k: v for k, v in asked.items() if k not in cells and (voids or k == "coverage")}
    if not missing:
        return cells
    extent, out = Extent.from_attributes(pixels.attrs), cells.copy()
    for column, (layer, value) in missing.items():
        variable, shares = pixels[layer].variable, []
        for row, col in zip(cells["row"], cells["col"], strict=True):
            y, x = extent.cell_slices(int(row), int(col))
            shares.append((da.asarray(variable[..., y, x].data) == value).mean())
        out[column] = np.array(dask.compute(*shares), dtype=np.float64)
    out.attrs = dict(cells.attrs)
    return out
