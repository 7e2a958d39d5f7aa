"""A made-up city whose models were trained elsewhere: runs of it take no training."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from sesgrid.batches.blocks import members_of, plan_batches
from sesgrid.grid import Grid, rowcol_of_ids
from sesgrid.run.tables import write_table
from sesgrid.run.workspace import Workspace
from sesgrid.sources import read_census
from sesgrid.synth import write_city

PX, SIDE, CLASSES = 64, 1, 3


def make(folder: Path, cells: int = 22):
    """The folder, and a city of some 400 blocks there, beside the models of another."""
    made = write_city(folder / "city", cells=cells, seed=1, resolution_m=1.6, imputed_share=0.1)
    _write_models(folder / "elsewhere", made.census)
    return folder, made


def _write_models(folder: Path, census: Path) -> None:
    """The networks of a run that was trained elsewhere: small, with random weights."""
    import keras
    from keras import layers

    from sesgrid.store.models import save_model

    files = Workspace(folder)
    table = read_census(census).iloc[:20]
    at = rowcol_of_ids(table.index)
    cells = table[["departement"]].assign(row=at[:, 0], col=at[:, 1])
    cells["fold"] = np.arange(len(cells)) % 2
    cells.attrs = {"city": "Elsewhere", "n_folds": 2, "folds_kind": "random", "n_classes": CLASSES}
    plan = plan_batches(Grid(PX, SIDE), cells)
    write_table(files.table("cells"), cells, members_of(plan, cells))
    for fold in range(2):
        keras.utils.set_random_seed(fold)
        x = image = keras.Input((PX, PX, 3))
        x = layers.Rescaling(1 / 127.5, -1)(x)
        for k in range(3):
            x = layers.Conv2D(8, 3, 2, "same", activation="swish", name=f"conv_{k}")(x)
        x = layers.Activation("swish", name="top_activation")(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(image, layers.Activation("log_softmax")(layers.Dense(CLASSES)(x)))
        save_model(
            model,
            files.models / f"random-{fold}.keras",
            model_id=f"Elsewhere-random{fold}",
            card={"pixels_per_cell": PX, "n_classes": CLASSES, "head": "softmax"},
        )


def configure(city, folder: Path, extra: str = "") -> Path:
    base, made = city
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.toml"
    path.write_text(
        f'name = "Ville"\noutput = "result"\n[sources]\ncensus = "{made.census}"\northo = "{made.ortho}"\n'
        f'landcover = "{made.landcover}"\n[grid]\npixels_per_cell = {PX}\ncells_per_block = {SIDE}\n'
        f'[cells]\nclasses = {CLASSES}\ncompare_folds = false\n[models]\ncities = "{base / "elsewhere"}"\n'
        f"{extra}"
    )
    return path


def finish(machines, toml: Path, stage: str = "explain", patience_s: float = 240) -> None:
    """Run to the end, whatever has to be started again."""
    until = time.monotonic() + patience_s
    while True:
        machines.mend()
        driver = machines.drive(stage, str(toml))
        while driver.poll() is None:
            assert time.monotonic() < until, machines.said()[-2000:]
            time.sleep(0.2)
            machines.mend()
        if driver.returncode == 0:
            return
        assert driver.returncode in (1, 2), machines.said()[-3000:]
