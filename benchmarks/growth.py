"""Real kernels on made-up cities of 64, 256, 1,024 and 4,096 cells: what one more cell costs, and holds.

Small pixels (64 a cell) and the study's network with random weights, from the census to the explained cells,
on one worker with one thread: so that a city of one task and one of many are computed side by side alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sesgrid.grid import Grid, rowcol_of_ids

__all__ = ["SIDES", "run_growth"]

SIDES = (8, 16, 32, 64)
"""Of the cities, in cells."""

PX, RESOLUTION_M, CLASSES = 64, 1.6, 5


def run_growth(folder: Path, sides: Sequence[int] = SIDES, rounds: int = 3) -> dict[str, Any]:
    """Run cities of growing size, each in turn, round by round.

    Parameters
    ----------
    folder : Path
    sides : sequence of int
        Of the cities, in cells, rising.
    rounds : int
        The shortest time of each city counts: what disturbs only adds.

    Returns
    -------
    dict
        Figures of `benchmarks.scale`'s text, and what they are made of.
    """
    from sesgrid.batches.flight import peak_mb
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import ClusterSettings, load_config
    from sesgrid.run.engine import run_stages
    from sesgrid.synth import write_city

    cities = [
        write_city(folder / f"city-{n}", cells=n, seed=0, resolution_m=RESOLUTION_M) for n in sides
    ]
    counts = _write_models(folder / "elsewhere", [city.census for city in cities])
    seconds = np.full((rounds, len(sides)), np.inf)
    peaks: list[int] = []
    with connected(ClusterSettings(workers=1, threads=1), None) as client:

        def run(name: str, city: Any) -> float:
            path = _configure(folder / name, folder, city)
            started = time.perf_counter()
            run_stages(load_config(path), client, "explain", lambda _: None)
            return time.perf_counter() - started

        run("once-beforehand", cities[0])  # kernels are compiled, the network is loaded
        for r in range(rounds):
            for k, city in enumerate(cities):
                seconds[r, k] = run(f"run-{r}-{k}", city)
                if r == 0:
                    peaks += client.run(peak_mb).values()
                print(f"{sides[k]} × {sides[k]} cells: {seconds[r, k]:.1f} s", file=sys.stderr)
    best = seconds.min(axis=0)
    slopes = np.diff(best) / np.diff(counts)
    return {
        "cells_of_cities": counts,
        "seconds_of_cities": best.round(3).tolist(),
        "seconds_a_cell": slopes.round(5).tolist(),
        "slope_spread": float(np.abs(slopes / np.median(slopes) - 1).max()),
        "worker_peaks_mb": peaks,
        "worker_peak_growth": peaks[-1] / peaks[1],
    }


def _configure(folder: Path, base: Path, city: Any) -> Path:
    """The run of a city with the models of another."""
    folder.mkdir()
    path = folder / "city.toml"
    path.write_text(
        f'name = "City"\noutput = "result"\n[sources]\ncensus = "{city.census}"\northo = "{city.ortho}"\n'
        f'landcover = "{city.landcover}"\n[grid]\npixels_per_cell = {PX}\n[cells]\nlabels = "all"\n'
        f'classes = {CLASSES}\ncompare_folds = false\n[models]\ncities = "{base / "elsewhere"}"\n'
    )
    return path


def _write_models(folder: Path, censuses: Sequence[Path]) -> list[int]:
    """A run that was trained elsewhere, on cells of the last census; how many cells each census has."""
    from sesgrid.kernels.backend import start_backend

    start_backend()
    import keras

    from sesgrid.batches.blocks import members_of, plan_batches
    from sesgrid.kernels.network import build_network
    from sesgrid.run.tables import write_table
    from sesgrid.run.workspace import Workspace
    from sesgrid.sources import read_census
    from sesgrid.stages.fit import network_spec
    from sesgrid.stages.protocol import protocol_named
    from sesgrid.store.models import save_model

    tables = [read_census(path) for path in censuses]
    files, cells = Workspace(folder), tables[-1].iloc[:20]
    at = rowcol_of_ids(cells.index)
    cells = cells[["departement"]].assign(
        row=at[:, 0], col=at[:, 1], fold=np.arange(len(cells)) % 5
    )
    cells.attrs = {"city": "Elsewhere", "n_folds": 5, "folds_kind": "random", "n_classes": CLASSES}
    write_table(files.table("cells"), cells, members_of(plan_batches(Grid(PX, 8), cells), cells))
    for k in range(5):
        keras.utils.set_random_seed(k)
        save_model(
            build_network(network_spec(protocol_named("scratch"), PX, CLASSES), weights=None),
            files.models / f"random-{k}.keras",
            model_id=f"Elsewhere-random{k}",
            card={"pixels_per_cell": PX, "n_classes": CLASSES},
        )
    return [len(table) for table in tables]
