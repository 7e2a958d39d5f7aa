"""The stage ``train`` of a run: one Dask task per fold, finished folds kept."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client, as_completed, get_worker

from sesgrid.errors import MissingInputError, ModelMismatchError, SesgridWarning
from sesgrid.run.batches import progress_bar
from sesgrid.run.cluster import TRAINING, on_gpus
from sesgrid.run.job import Job, protocol_of
from sesgrid.run.workspace import load_table
from sesgrid.stages.folds import FOLD_KINDS, other_kind
from sesgrid.stages.train import Fold, plan_folds, train_fold
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef

__all__ = ["run_train"]

_TOPIC = "sesgrid-train"


def run_train(job: Job) -> dict[str, Any]:
    """Pixels and labels → one model per fold, of both kinds of folds where they are to be compared."""
    c = job.config
    cells = load_table(job.files.table("mosaic"))
    tables = [cells, other_kind(cells) if c.cells.compare_folds else None]
    folds = [
        replace(fold, card={**fold.card, "key": job.key})
        for table in tables
        if table is not None
        for fold in plan_folds(
            table,
            job.files.models,
            protocol_of(c),
            seed=c.train.seed,
            min_coverage=c.cells.min_coverage,
        )
    ]
    _clear(job.files.models, folds)
    todo = [f for f in folds if not _finished(f, job.key)]
    notes = _train_all(job.client, todo, job.files.cube)
    best = [min(_card(f)["history"]["val_loss"]) for f in folds]
    return {
        "models": len(folds),
        "folds kept from an earlier run": len(folds) - len(todo),
        "training cells per fold": [int((~f.validation).sum()) for f in folds],
        "epochs": [len(_card(f)["history"]["loss"]) for f in folds],
        "best validation loss": [round(v, 4) for v in best],
        "protocol": c.train.protocol,
        "notes": notes,
        "result_id": "-".join(ModelRef.open(f.path).sha256[:12] for f in folds),
    }


def _clear(directory: Path, folds: Sequence[Fold]) -> None:
    """Remove models of folds that are no longer wanted, with their checkpoints and logs."""
    wanted = {Path(f.path).stem for f in folds}
    for kind in FOLD_KINDS:
        for stray in [*directory.glob(f"{kind}-*"), *directory.glob(f"logs/{kind}-*")]:
            if stray.name.split(".")[0] not in wanted:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()


def _card(fold: Fold) -> dict[str, Any]:
    return json.loads(Path(fold.path).with_suffix(".json").read_text())


def _finished(fold: Fold, key: str) -> bool:
    try:
        ModelRef.open(fold.path)
    except (MissingInputError, ModelMismatchError):
        return False
    return _card(fold).get("key") == key


def _train_all(client: Client, folds: list[Fold], cube: str) -> list[str]:
    if not folds:
        return []
    total = sum(f.protocol.epochs for f in folds)
    with progress_bar("train", total, "epoch") as bar:

        def show(event: tuple[float, dict[str, Any]]) -> None:
            message = event[1]
            bar.update(1)
            bar.set_postfix_str(f"{message['model_id']} val_loss {message['val_loss']:.3f}")

        client.subscribe_topic(_TOPIC, show)
        try:
            options = {"pure": False, "resources": on_gpus(client, TRAINING)}
            futures = [client.submit(_train_on_worker, f, cube, **options) for f in folds]
            for future in as_completed(futures):
                if future.status == "error":
                    error = future.exception()  # a cancelled future would only say that it was
                    client.cancel(futures)
                    raise error
            return sorted({note for f in futures for note in f.result()})
        finally:
            client.unsubscribe_topic(_TOPIC)


def _train_on_worker(fold: Fold, cube: str) -> list[str]:
    """Train where the task landed; warnings travel back as text."""

    def progress(model_id: str, epoch: int, logs: Mapping[str, float]) -> None:
        message = {"model_id": model_id, "epoch": epoch, "val_loss": float(logs["val_loss"])}
        get_worker().log_event(_TOPIC, message)

    pixels = Cube.open(cube).pixels()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SesgridWarning)
        train_fold(fold, pixels["image"].assign_attrs(pixels.attrs), progress)
    return [str(w.message) for w in caught if issubclass(w.category, SesgridWarning)]
