"""The stage ``train`` of a run: one Dask task per fold, finished folds kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sesgrid.run.job import Job, protocol_of
from sesgrid.run.trainings import run_trainings
from sesgrid.run.workspace import load_cells
from sesgrid.stages.folds import FOLD_KINDS, other_kind
from sesgrid.stages.train import Fold, Progress, card_of, finished, plan_folds, train_fold
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef

__all__ = ["run_train"]


def run_train(job: Job) -> dict[str, Any]:
    """Pixels and labels → one model per fold, of both kinds of folds where they are to be compared."""
    c = job.config
    cells = load_cells(job.files)
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
    todo = [f for f in folds if finished(f) is None]
    total = sum(f.protocol.epochs for f in todo)
    done = run_trainings(job.client, "train", todo, _TrainFold(job.files.cube), total)
    notes = sorted({note for _, _, told in done for note in told})
    best = [min(card_of(f)["history"]["val_loss"]) for f in folds]
    return {
        "models": len(folds),
        "folds kept from an earlier run": len(folds) - len(todo),
        "training cells per fold": [int((~f.validation).sum()) for f in folds],
        "epochs": [len(card_of(f)["history"]["loss"]) for f in folds],
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


@dataclass(frozen=True)
class _TrainFold:
    """What a worker does with a fold."""

    cube: str

    def __call__(self, fold: Fold, progress: Progress) -> None:
        pixels = Cube.open(self.cube).pixels()
        train_fold(fold, pixels["image"].assign_attrs(pixels.attrs), progress)
