"""Real kernels on made-up cities of 64, 256, 1,024 and 4,096 cells: what one more cell costs, and holds.

Small pixels (64 a cell) and the study's network with random weights, from the census to the explained cells,
on one worker with one thread: so that a city of one task and one of many are computed side by side alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sesgrid.grid import CELL_M, Grid, rowcol_of_ids

__all__ = ["SIDES", "run_growth"]

SIDES = (8, 16, 32, 64)
"""Of the cities, in cells."""

MOST_TIMES = 6
"""That a small city is run in a round, at most."""

PX, RESOLUTION_M, CLASSES = 64, 1.6, 5


def run_growth(folder: Path, sides: Sequence[int] = SIDES, rounds: int = 3) -> dict[str, Any]:
    """Run cities of growing size, in turn, round by round: small ones several times in each.

    The difference of two small cities is a few seconds, and a processor's speed drifts by a tenth in minutes.

    Parameters
    ----------
    folder : Path
    sides : sequence of int
        Of the cities, in cells, rising.
    rounds : int
        The median time of each city counts.

    Returns
    -------
    dict
        Figures of `benchmarks.scale`'s text, and what they are made of.
    """
    from sesgrid.batches.flight import peak_mb
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import load_config
    from sesgrid.run.engine import run_stages
    from sesgrid.run.settings import ClusterSettings
    from sesgrid.synth import write_city

    drawn = [
        write_city(folder / f"city-{n}", cells=n, seed=0, resolution_m=RESOLUTION_M) for n in sides
    ]
    cities = [
        replace(city, census=_write_full_census(folder / f"census-{n}", n))
        for city, n in zip(drawn, sides, strict=True)
    ]
    counts = _write_models(folder / "elsewhere", [city.census for city in cities])
    times = [min(max(counts[-1] // n, 1), MOST_TIMES) for n in counts]
    seconds: list[list[float]] = [[] for _ in sides]
    peaks: list[int] = []
    with connected(ClusterSettings(workers=1, threads=1), None) as client:

        def run(name: str, city: Any) -> float:
            path = _configure(folder / name, folder, city)
            started = time.perf_counter()
            run_stages(load_config(path), client, "explain", lambda _: None)
            return time.perf_counter() - started

        run("once-beforehand", cities[0])  # kernels are compiled, the network is loaded
        for r, again in product(range(rounds), range(max(times))):
            for k, city in enumerate(cities):
                if again >= times[k]:
                    continue
                seconds[k].append(run(f"run-{r}-{again}-{k}", city))
                if r == again == 0:
                    peaks += client.run(peak_mb).values()
                print(f"{sides[k]} × {sides[k]} cells: {seconds[k][-1]:.1f} s", file=sys.stderr)
    middle = np.array([np.median(of) for of in seconds])
    slopes = np.diff(middle) / np.diff(counts)
    return {
        "cells_of_cities": counts,
        "runs_of_cities": [len(of) for of in seconds],
        "seconds_of_cities": middle.round(3).tolist(),
        "seconds_a_cell": slopes.round(5).tolist(),
        "slope_spread": float(np.abs(slopes / np.median(slopes) - 1).max()),
        "worker_peaks_mb": peaks,
        "worker_peak_growth": peaks[-1] / peaks[1],
    }


def _write_full_census(folder: Path, side: int) -> Path:
    """People in every cell of the square.

    The network takes 64 cells of this size at once, and fewer are padded: of a city with gaps, the smaller
    it is, the more of its cost would be padding.
    """
    from sesgrid.synth.census import Census, census_table, count_people, write_census
    from sesgrid.synth.city import SOUTH_M, WEST_M

    rng = np.random.default_rng(0)
    row, col = np.divmod(np.arange(side * side), side)
    people = count_people(np.full(len(row), 40.0), 0.0, rng)
    income = rng.uniform(15_000, 35_000, len(row))
    census = Census(SOUTH_M + row * CELL_M, WEST_M + col * CELL_M, income, *people)
    return write_census(folder, census_table(census, rng))


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
    """A run that was trained elsewhere, on cells of the last census; how many cells each census has.

    With one model: the cells of each model fill batches of their own.
    """
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
    cells = cells[["departement"]].assign(row=at[:, 0], col=at[:, 1], fold=0)
    cells.attrs = {"city": "Elsewhere", "n_folds": 1, "folds_kind": "random", "n_classes": CLASSES}
    write_table(files.table("cells"), cells, members_of(plan_batches(Grid(PX, 8), cells), cells))
    keras.utils.set_random_seed(0)
    save_model(
        build_network(network_spec(protocol_named("scratch"), PX, CLASSES), weights=None),
        files.models / "random-0.keras",
        model_id="Elsewhere-random0",
        card={"pixels_per_cell": PX, "n_classes": CLASSES},
    )
    return [len(table) for table in tables]
