"""Audit: do the maps show what the models look at?

Four tests on a sample of cells, each on the map of the end of the scale that the cell's own model sees it
at (the lowest class or the highest). What a model says is asked as it was trained, with its colours in their
order; what it looks at, as the method has it.

- **planted truth** (synthetic cities): the pointing game (Zhang et al. 2018, *Top-down neural attention by
  excitation backprop*, IJCV) without tolerance, its variant on the whole map (Wang et al. 2020, *Score-CAM*),
  and whether the activation ratios rank the classes that bear the truth above the others;
- **deletion and insertion** (`sesgrid.kernels.faithfulness`): squares of the image are hidden, or shown on a
  blurred image, in the order of the map, against orders drawn by lot;
- **randomisation** (`sesgrid.kernels.randomise`): weights drawn anew from the top must change the map;
- **agreement between folds**: the same cell explained by every model of the city.

Two maps of the same method resemble each other anyway (activation falls towards the border of every cell):
both similarities stand beside that of the cell's map and another cell's, their chance level. What is compared
with chance is compared cell by cell: ``gain`` is the mean of the differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from sesgrid.errors import MissingInputError
from sesgrid.grid import Extent
from sesgrid.kernels.attribution import attribution_maps
from sesgrid.kernels.class_sums import class_sums
from sesgrid.kernels.device import DEVICE_LOCK
from sesgrid.kernels.faithfulness import (
    blurred,
    rank_correlation,
    ranks_of,
    revealed,
    square_means,
)
from sesgrid.kernels.method import PRESETS, Method, method_named
from sesgrid.stages.audit_figures import require_known, summarise
from sesgrid.stages.evidence import n_extreme_classes
from sesgrid.stages.explain import is_signed, observed_classes, require_landcover
from sesgrid.stages.predict import (
    CellTask,
    architecture_of,
    by_model,
    class_probabilities,
    place_cells,
    ready_explainer,
    weighted_batches,
    with_model,
)
from sesgrid.store.models import ModelRef

__all__ = ["Audit", "audit", "audit_sample", "audit_stage", "place_audit"]

GROUP = 16
"""Cells per task: each takes hundreds of passes."""
SQUARES = 16
"""Squares along a cell's side that are hidden or shown at once (12.5 m)."""
COMPARED = 64
"""Squares along a cell's side on which maps are compared (3.1 m)."""


class Look(NamedTuple):
    """What is kept of one cell's map under one model."""

    squares: np.ndarray
    """float64 ``(COMPARED, COMPARED)``."""
    coarse: np.ndarray
    """float64 ``(SQUARES, SQUARES)``."""
    sums: np.ndarray
    """float64 ``(class,)``, "unclassified" first."""
    peak: np.ndarray
    """float64 ``(class,)``: shares of the largest pixels; of one mostly, of many where a map is clipped."""


@dataclass(frozen=True)
class Audit:
    """The stage; see the module."""

    layers: ClassVar = ("image", "coverage", "landcover")
    models: tuple[ModelRef, ...]
    """All models of the city."""
    n_values: int
    """Land-cover values, 0 (unclassified) included."""
    method: Method = PRESETS["paper"]
    steps: int = 10
    """Of the deletion and insertion curves."""
    draws: int = 2
    """Orders by lot beside the map's."""
    cascade: int = 8
    """Steps of the randomisation."""
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """How the rows are made, for the figures."""
        return {
            "preset": self.method.name, "steps": self.steps, "draws": self.draws, "squares": SQUARES,
            "compared_squares": COMPARED, "seed": self.seed,
        }  # fmt: skip

    def __call__(
        self,
        items: Sequence[CellTask],
        image: np.ndarray,
        coverage: np.ndarray,
        landcover: np.ndarray,
    ) -> list[dict[str, Any]]:
        """One row per cell; image ``(cell, band, y, x)``, the others ``(cell, y, x)``, uint8."""
        classes, areas = observed_classes(coverage, landcover, self.n_values)
        rows: list[dict[str, Any]] = [{} for _ in items]
        for ref, members in by_model(items).items():
            places = np.linspace(0, 1, ref.n_classes)
            expected = class_probabilities(ref, image[members]) @ places
            for i, p in zip(members, expected, strict=True):
                rows[i] = {"cell_id": items[i].cell_id, "side": int(p > 0.5), "area": areas[i]}
        side = np.array([row["side"] for row in rows])
        looks = {
            ref: list(self._looks(ref, None, image, classes, side)) for ref in self.models
        }  # fmt: skip
        for ref, members in by_model(items).items():
            own = [looks[ref][i] for i in members]
            for i, look in zip(members, own, strict=True):
                rows[i] |= {"sums": look.sums, "peak": look.peak}
                rows[i]["curves"] = self._curves(ref, items[i], image[i], look, rows[i]["side"])
                rows[i]["similar"] = []
            for name, n_layers, weights in self._cascade(ref):
                changed = self._looks(ref, weights, image[members], classes[members], side[members])
                for i, before, after in zip(members, own, changed, strict=True):
                    similar = rank_correlation(before.squares, after.squares)
                    rows[i]["similar"].append((name, n_layers, similar))
        for i, row in enumerate(rows):
            other = _next_of_side(side, i)
            mine = [looks[ref][i] for ref in self.models]
            row["of_models"] = [look.sums for look in mine]
            row["agreement"] = _mean_similarity(combinations(mine, 2))
            row["unrelated"] = np.nan
            if other is not None:
                pairs = [(looks[ref][i], looks[ref][other]) for ref in self.models]
                row["unrelated"] = _mean_similarity(pairs)
        return rows

    def _cascade(self, ref: ModelRef) -> Iterator[tuple[str, int, Any]]:
        from sesgrid.kernels.randomise import cascade

        explainer = ready_explainer(ref, self.method)
        with DEVICE_LOCK:
            fresh = _untrained(architecture_of(ref), self.seed)
        return cascade(explainer, ref.load(), fresh, self.cascade)

    def _looks(
        self,
        ref: ModelRef,
        weights: Any,
        image: np.ndarray,
        classes: np.ndarray,
        side: np.ndarray,
    ) -> Iterator[Look]:
        """Every cell's map of its side; weights: other ones than the model's."""
        explainer = ready_explainer(ref, self.method)
        weights = weights or explainer.weights_of(ref.load())
        size = image.shape[-1]
        for part, (_, evidence, sensitivity) in weighted_batches(
            explainer, weights, image, "factors", ref
        ):
            signed = is_signed(evidence)
            maps = attribution_maps(evidence, sensitivity, self.method, signed=signed)
            for both, of_cell, s in zip(maps, classes[part], side[part], strict=True):
                one = np.ascontiguousarray(both[s])
                yield Look(
                    square_means(one, min(COMPARED, size)),
                    square_means(one, min(SQUARES, size)),
                    class_sums(one, of_cell, size, self.n_values)[0, 0],
                    _shares(of_cell[one == one.max()], self.n_values),
                )

    def _curves(
        self, ref: ModelRef, task: CellTask, image: np.ndarray, look: Look, side: int
    ) -> np.ndarray:
        """float64 ``(test, order, step)``: the class' probability; tests deletion, insertion."""
        rng = np.random.default_rng([self.seed, *task.cell_id.encode()])
        orders = [ranks_of(look.coarse, rng)]
        orders += [ranks_of(np.zeros_like(look.coarse), rng) for _ in range(self.draws)]
        plain = np.broadcast_to(
            image.mean(axis=(1, 2), keepdims=True).round().astype(np.uint8), image.shape
        )
        soft = blurred(image)
        shown = [revealed(image, plain, order, self.steps) for order in orders]
        shown += [revealed(soft, image, order, self.steps) for order in orders]
        probabilities = class_probabilities(ref, np.concatenate(shown))
        outer = 0 if side == 0 else ref.n_classes - 1
        return probabilities[:, outer].reshape(2, len(orders), self.steps + 1)


@lru_cache(maxsize=2)
def _untrained(architecture: str, seed: int) -> Any:
    import keras

    from sesgrid.kernels.randomise import reinitialised

    return reinitialised(keras.models.model_from_json(architecture), seed)


def _shares(values: np.ndarray, n_values: int) -> np.ndarray:
    return np.bincount(values, minlength=n_values) / len(values)


def _next_of_side(side: np.ndarray, i: int) -> int | None:
    same = np.flatnonzero(side == side[i])
    return None if len(same) < 2 else int(same[(np.searchsorted(same, i) + 1) % len(same)])


def _mean_similarity(pairs: Any) -> float:
    values = [rank_correlation(a.squares, b.squares) for a, b in pairs]
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else np.nan


def audit_sample(cells: gpd.GeoDataFrame, n: int, seed: int) -> gpd.GeoDataFrame:
    """Up to n cells with a model, half of them low (p < ½) and half high.

    They are drawn by lot among the cells predicted in the outermost classes, which the findings are
    about; where these are too few, the cells with the lowest (highest) p are taken.

    Raises
    ------
    MissingInputError
        No cell is predicted.
    """
    known = cells[cells["model_id"].notna() & cells["p"].notna()].sort_index()
    if known.empty:
        raise MissingInputError("no cell is predicted: there is nothing to audit")
    k, rng = cells.attrs["n_classes"], np.random.default_rng(seed)
    outer, rank = n_extreme_classes(k), known["ses_predicted"].astype(int)
    p, chosen = known["p"], []
    low, high = (p < 0.5, rank <= outer, (n + 1) // 2), (p >= 0.5, rank > k - outer, n // 2)
    for mine, extreme, take in (low, high):
        pool, of_side = known[mine & extreme], known[mine]
        if len(pool) >= take:
            chosen.append(pool.iloc[np.sort(rng.choice(len(pool), take, replace=False))])
        else:
            sure = (of_side["p"] - 0.5).abs().sort_values(ascending=False, kind="stable")
            chosen.append(of_side.loc[sure.index[:take]])
    out = pd.concat(chosen)
    out.attrs = dict(cells.attrs)
    return out


def audit_stage(models: Mapping[str, ModelRef], n_values: int, method: Method, seed: int) -> Audit:
    """The stage for a city's models, in a fixed order."""
    ordered = tuple(models[k] for k in sorted(models))
    return Audit(ordered, n_values, method, seed=seed)


def place_audit(
    stage: Audit,
    cells: gpd.GeoDataFrame,
    sample: int,
    pixels: xr.Dataset,
    models: Mapping[str, ModelRef],
) -> Any:
    """The stage laid over a sample of the cells; nothing is computed."""
    grid = Extent.from_attributes(pixels.attrs).grid
    chosen = with_model(audit_sample(cells, sample, stage.seed), grid.cells_per_block)
    return place_cells(stage, chosen, pixels, models, stage.layers, "audit", group=GROUP)


def audit(
    cells: gpd.GeoDataFrame,
    pixels: xr.Dataset,
    models: Mapping[str, ModelRef],
    class_names: Sequence[str],
    *,
    truth: Sequence[str] = (),
    activation: pd.DataFrame | None = None,
    sample: int = 48,
    seed: int = 0,
    preset: str = "paper",
    **changes: Any,
) -> dict[str, Any]:
    """Audit the explanations of a city.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.predict`.
    pixels : xarray.Dataset
        With ``image``, ``coverage`` and ``landcover``.
    models : mapping
        From `sesgrid.train`; all of them explain every cell of the sample, those that saw it too.
    class_names : sequence of str
        Names of the land-cover values 1, 2, …
    truth, activation
        See `sesgrid.stages.audit_figures.summarise`.
    sample : int
        Cells to look at; half of them predicted low, half high.
    seed : int
        Of the sample, the orders by lot and the weights drawn anew.
    preset, **changes
        As of `sesgrid.explain`.

    Returns
    -------
    dict
        See `sesgrid.stages.audit_figures.summarise`.

    Raises
    ------
    MissingInputError
        No cell is predicted.
    GridMismatchError
        The pixels hold no ``landcover``, or one of another grid.
    ConfigError
        A class of the truth is not known, or the method is none.
    """
    require_landcover(pixels)
    require_known(truth, class_names)
    stage = audit_stage(models, len(class_names) + 1, method_named(preset, **changes), seed)
    rows = list(place_audit(stage, cells, sample, pixels, models).compute())
    return summarise(rows, stage.settings, class_names, truth=truth, activation=activation)
