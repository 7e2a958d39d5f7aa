"""Which files in its output folder a run can have written: what a record tells of others is not believed.

An output folder may come from anybody, and users put files of their own into it. A name that no stage writes
is none of the run's, whatever a record or the list of what was written says.
"""

from __future__ import annotations

import re
from pathlib import Path

from sesgrid.run.workspace import Workspace
from sesgrid.stages.folds import FOLD_KINDS

__all__ = ["is_of_fold", "is_written_by_stages", "model_paths"]

_HERE = Workspace(Path())
_TABLES = ("cells", "mosaic", "predict", "predict-other", "explain", "activation", "pairs")
_RESULTS = frozenset(
    path.as_posix()
    for path in (
        _HERE.cells, _HERE.activation, _HERE.pairs, _HERE.metrics, _HERE.fragments, _HERE.report,
        *map(_HERE.table, _TABLES),
    )
)  # fmt: skip

_FOLD = rf"({'|'.join(FOLD_KINDS)})-(0|[1-9][0-9]{{0,5}})"
_MODEL = re.compile(rf"models/{_FOLD}\.(keras|json)")


def is_written_by_stages(name: str) -> bool:
    """Whether a stage's record may tell of a file of that name.

    >>> is_written_by_stages("models/random-0.json"), is_written_by_stages("models/random-mine.json")
    (True, False)
    >>> is_written_by_stages("work/cells.parquet"), is_written_by_stages("work/../cells.parquet")
    (True, False)
    """
    return name in _RESULTS or _MODEL.fullmatch(name) is not None


def is_of_fold(path: Path) -> bool:
    """Whether a model, or what lies beside it, has the name of a fold's.

    >>> is_of_fold(Path("models/random-0.checkpoint.npz")), is_of_fold(Path("models/random-mine.json"))
    (True, False)
    """
    return re.fullmatch(_FOLD, path.name.split(".")[0]) is not None


def model_paths(folder: Path, kind: str, folds: int) -> list[Path]:
    """Where the models of a run lie, by the kind of its folds.

    >>> [path.name for path in model_paths(Path("models"), "random", 2)]
    ['random-0.keras', 'random-1.keras']
    """
    return [folder / f"{kind}-{k}.keras" for k in range(folds)]
