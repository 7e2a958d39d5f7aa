"""The stage ``train`` of a run: one Dask task per fold, finished folds kept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from sesgrid import __version__
from sesgrid.errors import ClusterError, SesgridWarning, TooFewCellsError
from sesgrid.run.claims import is_of_fold
from sesgrid.run.cluster import on_gpus
from sesgrid.run.config import Config
from sesgrid.run.freshness import digest, fingerprint, key_of
from sesgrid.run.job import Job, load_models, method_of, protocol_of
from sesgrid.run.pixel_blocks import shards_of
from sesgrid.run.trainings import run_trainings
from sesgrid.run.workspace import Workspace, load_cells
from sesgrid.stages.explainable import require_explainable
from sesgrid.stages.folds import other_kind
from sesgrid.stages.protocol import Protocol
from sesgrid.stages.train import Fold, Progress, card_of, finished, plan_folds, train_fold
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef

__all__ = ["check_explainable", "run_train", "train_together"]


def run_train(job: Job) -> dict[str, Any]:
    """Pixels and labels → one model per fold, of both kinds of folds where they are to be compared."""
    c = job.config
    if c.models is not None:
        refs = load_models(job)
        return {
            "models": len(refs),
            "models of": [path.name for path in c.models.cities],
            "elsewhere": c.models.elsewhere,
            "result_id": digest(ref.sha256 for ref in refs.values()),
        }
    _require_pixels(job)
    folds = _folds(c)
    _clear(job.files, folds)
    todo = [f for f in folds if finished(f) is None]
    _enter(job.files, todo)
    if todo and (c.sources.landcover is not None or c.explain.maps != "none"):
        check_explainable(c, job.client, protocol_of(c))
    _train(job.client, [(job.files.cube, f) for f in todo])
    best = [min(card_of(f)["history"]["val_loss"]) for f in folds]
    return {
        "models": len(folds),
        "folds kept from an earlier run": len(folds) - len(todo),
        "training cells per fold": [int((~f.validation).sum()) for f in folds],
        "epochs": [len(card_of(f)["history"]["loss"]) for f in folds],
        "best validation loss": [round(v, 4) for v in best],
        "protocol": protocol_of(c).name,
        "initial weights": sorted({card_of(f)["initial_weights"] for f in folds}),
        "notes": _notes(folds),
        "result_id": "-".join(ModelRef.open(f.path).sha256[:12] for f in folds),
    }


def _require_pixels(job: Job) -> None:
    """Wait with days of training for pixels that are to be tried again.

    Raises
    ------
    ClusterError
    """
    failed = job.files.record("mosaic").read().get("summary", {}).get("failures", [])
    if failed:
        lines = "\n".join(f"  {line}" for line in failed)
        raise ClusterError(
            f"train waits: {len(failed)} tasks of the mosaic failed, and models trained now would have to be "
            f"trained again with their cells; run again, and these are tried again:\n{lines}"
        )


def train_together(configs: Sequence[Config], client: Client) -> None:
    """Train the folds of several runs at once, so that none waits for another run's; their cubes are made.

    The stage ``train`` of each then finds its models finished.
    """
    work = []
    for config in configs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SesgridWarning)  # the stage will tell
            todo = [f for f in _folds(config) if finished(f) is None]
        if todo:
            # what lies beside a model must have been made from it, also if this stops half-way
            Workspace.of(config).record("train").forget()
            Workspace.of(config).withdraw("train")
            _enter(Workspace.of(config), todo)
        work += [(Workspace.of(config).cube, fold) for fold in todo]
    _train(client, work)


def check_explainable(config: Config, client: Client, protocol: Protocol) -> None:
    """Refuse, before hours of training, a network that the run's method could not explain; on a worker.

    Raises
    ------
    ModelMismatchError
    """
    options = {"pure": False, "resources": on_gpus(client)}
    client.submit(require_explainable, protocol, method_of(config), **options).result()


def _train(client: Client, work: Sequence[tuple[str, Fold]]) -> None:
    total = sum(fold.protocol.epochs for _, fold in work)
    for _ in run_trainings(client, "train", work, _train_fold, total):
        pass


def _train_fold(work: tuple[str, Fold], progress: Progress) -> None:
    """What a worker does with a fold of a cube."""
    cube, fold = work
    pixels = Cube.open(cube).pixels()
    train_fold(fold, pixels["image"].assign_attrs(pixels.attrs), progress)


def _folds(config: Config) -> list[Fold]:
    """The trainings of a run, each with a key of its own: another's labels or buffer do not touch it."""
    files, protocol = Workspace.of(config), protocol_of(config)
    cells = load_cells(files)
    options: dict[str, Any] = {"seed": config.train.seed, "min_coverage": config.cells.min_coverage}
    folds = plan_folds(cells, files.models, protocol, **options)
    other = other_kind(cells) if config.cells.compare_folds else None
    if other is not None:
        try:
            folds += plan_folds(other, files.models, protocol, **options)
        except TooFewCellsError as error:
            kind = other.attrs["folds_kind"]
            warnings.warn(
                f"models of {kind} folds are not trained, so how much the folds leak is not told: {error}",
                SesgridWarning,
                stacklevel=2,
            )
    facts: dict[str, Any] = {"sesgrid": __version__}
    written, otherwise = shards_of(files, ["mosaic"]), files.record("mosaic").read()["result_id"]
    side = config.grid.cells_per_block

    def pixels(fold: Fold) -> str:
        """Names the pixels of the blocks that a fold's cells lie in."""
        blocks = np.unique(fold.cells // side, axis=0).tolist()
        return digest(written.get((row, col), otherwise) for row, col in blocks)

    if protocol.weights not in (None, "imagenet"):
        facts["weights"] = fingerprint(Path(str(protocol.weights)))
    return [
        replace(
            f, card={**f.card, "key": key_of({**facts, "pixels": pixels(f), **f.facts, **f.card})}
        )
        for f in folds
    ]


def _notes(folds: Sequence[Fold]) -> list[str]:
    """What is to be known of the weights that the models started from, whenever they were trained."""
    if folds[0].protocol.weights != "imagenet":
        return []
    random = [Path(f.path).stem for f in folds if card_of(f)["initial_weights"] == "random"]
    if not random:
        return []
    which = "all models start" if len(random) == len(folds) else f"{', '.join(random)} start"
    return [
        f"{which} from random weights, as ImageNet's could not be had, which needs protocol 'scratch': put "
        f"Keras' file of {folds[0].protocol.backbone} without top into ~/.keras/models, and run again"
    ]


def _enter(files: Workspace, folds: Sequence[Fold]) -> None:
    """Enter what trainings are about to write: models, cards, checkpoints, logs."""
    for path in (Path(f.path) for f in folds):
        written = [path.with_suffix(s) for s in (".keras", ".json", ".checkpoint.npz")]
        files.mark.enter(*written, path.parent / "logs" / path.stem)


def _clear(files: Workspace, folds: Sequence[Fold]) -> None:
    """Remove models of folds that are no longer wanted, with their checkpoints and logs."""
    wanted = {Path(f.path).stem for f in folds}
    ours = [*files.mark.entered(files.models), *files.mark.entered(files.models / "logs")]
    # the list may come from anybody: a name that no training writes is none of the run's
    old = (p for p in ours if is_of_fold(p) and p.name.split(".")[0] not in wanted)
    files.mark.remove(*old)
