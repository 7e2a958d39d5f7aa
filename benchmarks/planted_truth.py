"""Does the method find what was planted? A run on a synthetic city against its truth.json.

``python -m benchmarks.planted_truth build/demo build/city/truth.json``

Every ratio is x_u: the mean of r_u over the cells predicted low (high) that hold the class, 1 where
the class draws its share. Beside the method itself its two factors stand alone, so that one sees
where a miss comes from. See docs/design/007.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from sesgrid.kernels.class_sums import class_areas, class_sums
from sesgrid.kernels.method import PRESETS, Method
from sesgrid.kernels.statistics import activation_ratios
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.sources import class_names, landcover_classes
from sesgrid.stages.evidence import n_extreme_classes
from sesgrid.stages.predict import run_model
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef

FEATURE_SHIFT_PX = 15.5
"""How far EfficientNetB0's padding moves the centre of a feature from that of its square."""

RINGS = 8
"""Distances to a cell's border at which the mean activation is told."""


@dataclass(frozen=True)
class Factors:
    """What the models of a run say about its cells, before the factors meet."""

    evidence: np.ndarray
    """float32 ``(cell, 1 or map, v, u)``, as the network gives it."""
    cams: np.ndarray
    """float32 ``(cell, map, v, u)``."""
    guided: np.ndarray
    """float32 ``(cell, map, y, x)``."""
    classes: np.ndarray
    """uint8 ``(cell, y, x)``: class pixels."""
    predicted: np.ndarray
    """int ``(cell,)``: class 1 … K."""
    n_classes: int


def factors_of(run: Path, method: Method = PRESETS["paper"]) -> Factors:
    """Explain every cell of a finished run again, by the model that its table names."""
    files = Workspace(run)
    cells = load_table(files.table("predict"))
    n_classes = cells.attrs["n_classes"]
    cells = cells[cells["model_id"].notna()].sort_values("model_id", kind="stable")
    cube = Cube.open(files.cube)
    pixels, extent = cube.pixels(), cube.extent
    known = [ModelRef.open(path) for path in sorted(files.models.glob("*.keras"))]
    models = [ref for ref in known if (cells["model_id"] == ref.model_id).any()]
    at = [extent.cell_slices(int(r), int(c)) for r, c in zip(cells.row, cells.col, strict=True)]
    parts = []
    for ref in sorted(models, key=lambda ref: ref.model_id):
        mine = [s for s, m in zip(at, cells["model_id"], strict=True) if m == ref.model_id]
        image = np.stack([np.asarray(pixels["image"].variable[:, y, x]) for y, x in mine])
        _, evidence, guided = run_model(ref, image, "factors", method)
        parts.append((evidence, guided))
    evidence, guided = (np.concatenate(p) for p in zip(*parts, strict=True))
    both = np.concatenate([-evidence, evidence], axis=1) if evidence.shape[1] == 1 else evidence
    classes = np.stack([np.asarray(pixels["landcover"].variable[s]) for s in at])
    predicted = cells["ses_predicted"].to_numpy(dtype=int)
    return Factors(evidence, np.maximum(both, 0), guided, classes, predicted, n_classes)


def enlarged(cams: np.ndarray, size: int, shift_px: float) -> np.ndarray:
    """CAMs ``(cell, v, u)`` → ``(cell, y, x)``, bilinearly, the features moved by ``shift_px``."""
    scale = size / cams.shape[-1]
    at = (np.arange(size) + 0.5 - shift_px) / scale - 0.5
    v, u = np.meshgrid(at, at, indexing="ij")
    return np.stack([ndimage.map_coordinates(c, [v, u], order=1, mode="nearest") for c in cams])


def variants(factors: Factors, side: int, chosen: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The method's maps ``(cell, y, x)`` and what they are made of, one at a time."""
    size = factors.guided.shape[-1]
    cams, guided = factors.cams[chosen, side], factors.guided[chosen, side]
    cam = enlarged(cams, size, 0.0)
    yield "guided Grad-CAM", cam * guided
    yield "Grad-CAM alone", cam
    yield "guided alone", guided
    yield "shift undone", enlarged(cams, size, FEATURE_SHIFT_PX) * guided


def ratios_of(maps: np.ndarray, classes: np.ndarray, n_values: int) -> tuple[np.ndarray, ...]:
    """r_u ``(cell, class)`` (NaN = absent) and the classes' pixels ``(cell, class)``."""
    size = maps.shape[-1]
    tall = np.ascontiguousarray(maps.reshape(-1, size))
    flat = classes.reshape(-1, size)
    sums = class_sums(tall, flat, size, n_values)[:, 0]
    areas = class_areas(flat, size, n_values)[:, 0]
    return activation_ratios(sums[:, 1:], areas[:, 1:]), areas[:, 1:]


def border_profile(maps: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean activation by distance to the cell's border, from the border inwards; mean 1."""
    size = maps.shape[-1]
    step = np.minimum(np.arange(size), np.arange(size)[::-1])
    distance = np.minimum(step[:, None], step[None, :])
    known = classes > 0
    mean = (maps * known).sum((1, 2)) / np.maximum(known.sum((1, 2)), 1)
    scaled = maps[mean > 0] / mean[mean > 0, None, None]
    edges = np.linspace(0, size / 2, RINGS + 1)
    rings = [(distance >= a) & (distance < b) for a, b in pairwise(edges)]
    return np.array([scaled[:, ring].mean() for ring in rings])


def compare(factors: Factors, bears: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """x_u per side, class and variant, and the border profiles."""
    names = list(class_names())
    outer = n_extreme_classes(factors.n_classes)
    rank = factors.predicted
    rows, profiles = [], {}
    for side, (name, chosen) in enumerate(
        (("low", rank <= outer), ("high", rank > factors.n_classes - outer))
    ):
        classes = factors.classes[chosen]
        columns: dict[str, np.ndarray] = {}
        for variant, maps in variants(factors, side, chosen):
            r, area = ratios_of(maps, classes, len(names) + 1)
            columns[variant] = np.nanmean(np.where(area.any(0), r, 0), axis=0)
            profiles[f"{name}, {variant}"] = border_profile(maps, classes)
            if variant == "guided Grad-CAM":
                weight = np.where(np.isfinite(r), area / area.sum(1, keepdims=True), 0)
                total = np.maximum(weight.sum(0), 1e-12)
                columns["… weighted by area"] = (np.nan_to_num(r) * weight).sum(0) / total
                n_cells = np.isfinite(r).sum(0)
        table = pd.DataFrame(columns, index=pd.Index(names, name="class"))
        table.insert(0, "cells", n_cells)
        table.insert(0, "bears", [n in bears for n in names])
        table.insert(0, "predicted", name)
        rows.append(table[table["cells"] > 1])
    return pd.concat(rows).reset_index(), pd.DataFrame(profiles).T


def verdict(activation: pd.DataFrame, bears: set[str]) -> list[str]:
    """The planted truth, side by side with what ``activation.csv`` says."""
    lines = []
    for side, table in activation.groupby("prediction", sort=False):
        bearing = table["landcover_class"].isin(bears)
        best = table[~bearing].nlargest(1, "activation_ratio").iloc[0]
        for row in table[bearing].to_dict("records"):
            ratio = row["activation_ratio"]
            found = row["ci_low"] > 1 and ratio > best["activation_ratio"]
            lines.append(
                f"{'found ' if found else 'missed'}  {side:4}  {row['landcover_class']:28} "
                f"{ratio:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]; most of the others: "
                f"{best['landcover_class']} {best['activation_ratio']:.2f}"
            )
    return lines


def bearing_classes(truth: Path) -> set[str]:
    """Names of the study's classes that bear income, from ``truth.json``."""
    codes = [int(code) for code in json.loads(truth.read_text())["bearing_classes"]]
    return set(landcover_classes().loc[codes, "landcover_class"])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("truth", type=Path, help="truth.json of its synthetic city")
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    options = parser.parse_args(argv)
    bears = bearing_classes(options.truth)
    for line in verdict(pd.read_csv(Workspace(options.run).activation), bears):
        print(line)
    table, profiles = compare(factors_of(options.run), bears)
    table = table.sort_values(["predicted", "bears"], ascending=False, kind="stable")
    print(f"\nactivation ratios\n{table.round(2).to_string(index=False)}")
    print("\nmean activation by distance to the cell's border, from the border to the middle")
    print(profiles.round(2).to_string(header=False))
    if options.json:
        print(
            json.dumps({"ratios": table.to_dict("records"), "border": profiles.T.to_dict("list")})
        )


if __name__ == "__main__":
    main()
