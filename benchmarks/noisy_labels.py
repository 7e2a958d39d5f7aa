"""How near does a head come to an oracle that sees what was planted, where labels are wrong?

``python -m benchmarks.noisy_labels --json [--cells 40] [--pixels 256] [--heads binomial ordinal softmax]``

A synthetic city of cells × cells; a tenth of the labels is drawn anew by lot, for training and for scoring.
The oracle tells the class of the planted rank at a cell's centre, which no picture holds better. Both are
scored on the same held-out cells against the same wrong labels; ``…_over_oracle`` is the ratio of their
Pearson r, means over the folds. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

import sesgrid
from benchmarks.rounds import describe_machine
from sesgrid.run.cluster import connected
from sesgrid.run.config import load_config
from sesgrid.run.demo import write_demo_config
from sesgrid.run.engine import run_stages
from sesgrid.run.workspace import Workspace, load_cells
from sesgrid.stages.labels import classify
from sesgrid.stages.score import metrics
from sesgrid.store.cube import Cube
from sesgrid.synth import write_city

NOISE = 0.1
"""Share of labels that are drawn anew; one in K of them by chance as it was."""


def noisy(cells: gpd.GeoDataFrame, seed: int) -> gpd.GeoDataFrame:
    """The cells with some labels drawn by lot."""
    rng, out = np.random.default_rng([seed, 7]), cells.copy()
    drawn = rng.random(len(cells)) < NOISE
    wrong = rng.integers(1, cells.attrs["n_classes"] + 1, len(cells))
    out["ses_true"] = pd.array(np.where(drawn, wrong, cells["ses_true"].astype(int)), dtype="Int64")
    out.attrs = dict(cells.attrs)
    return out


def oracle(cells: gpd.GeoDataFrame, truth: Path) -> gpd.GeoDataFrame:
    """The cells as predicted by who sees the planted rank, cut where the labelled cells' quantiles lie."""
    planted = pd.DataFrame(json.loads(truth.read_text())["cells"]).set_index("cell_id")["rank"]
    rank = planted.reindex(cells.index).to_numpy(np.float64)
    k = cells.attrs["n_classes"]
    thresholds = np.quantile(rank[cells["labelled"].to_numpy(bool)], np.arange(1, k) / k)
    out = cells.copy()
    out["ses_predicted"] = pd.array(classify(rank, thresholds), dtype="Int64")
    out.attrs = dict(cells.attrs)
    return out


def city_cube(folder: Path, side: int, pixels: int, folds: int, seed: int) -> tuple[Any, Path]:
    """A city drawn, and its cube and cells made; its workspace and its truth."""
    city = write_city(folder / "city", cells=side, seed=seed)
    toml = write_demo_config(city, "../run")
    text = toml.read_text().replace("pixels_per_cell = 256", f"pixels_per_cell = {pixels}")
    toml.write_text(text.replace("folds = 3", f"folds = {folds}"))
    config = load_config(toml)
    with connected(config.cluster, None) as client:
        run_stages(config, client, "mosaic", lambda line: None)
    return Workspace.of(config), city.truth


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train every head on the noisy labels; ratios over the oracle."""
    files, truth = city_cube(folder, options.cells, options.pixels, options.folds, options.seed)
    cells = noisy(load_cells(files), options.seed)
    pixels = Cube.open(files.cube).pixels()
    best = metrics(oracle(cells, truth), n_bootstrap=200)["pearson_r"]
    found: dict[str, Any] = {"labelled": int(cells["labelled"].sum()), "oracle_r": best}
    print(f"{found['labelled']} labelled cells, {NOISE:.0%} noise: the oracle reaches r {best:.3f}")
    for head in options.heads:
        protocol = sesgrid.protocol_named("scratch", head=head, epochs=options.epochs)
        models = sesgrid.train(
            cells, pixels, folder / head, protocol=protocol, seed=options.seed,
            progress=lambda model, epoch, logs: print(
                f"  {model} {epoch}: {logs['loss']:.3f} {logs['val_loss']:.3f}", flush=True
            ),
        )  # fmt: skip
        scores = metrics(sesgrid.predict(cells, pixels, models), n_bootstrap=2000)
        found |= {
            f"{head}_r": scores["pearson_r"],
            f"{head}_over_oracle": scores["pearson_r"] / best,
        }
        print(
            f"{head}: r {scores['pearson_r']:.3f} {scores['intervals']['pearson_r']['blocks']}, "
            f"{found[f'{head}_over_oracle']:.3f} of the oracle's"
        )
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--heads", nargs="+", default=["binomial"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
