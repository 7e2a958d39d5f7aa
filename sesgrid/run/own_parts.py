"""Are the parts of the stages that make no pixels there, and as they were written?"""

from __future__ import annotations

from collections.abc import Iterator

from sesgrid.batches.journal import plans_of, read_plan
from sesgrid.errors import SesgridError
from sesgrid.run.verify import KEPT, PIXEL_STAGES
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import Cube
from sesgrid.store.parts import Parts

__all__ = ["damaged_parts", "missing_plans"]

_MADE_BY = {
    "predict": "predict",
    "predict-other": "predict",
    "explain": "explain",
    "features": "analyse",
}
"""Stages that have parts and make no pixels, and under which stage's record these count."""


def damaged_parts(files: Workspace) -> Iterator[tuple[str, str, str]]:
    """Parts of finished stages that are gone or damaged: the stage that makes it again, its batch, and what.

    The first is a stage of the run, the second a name below ``work/parts``.
    """
    for name, stage in _MADE_BY.items():
        parts = Parts(files.parts(name))
        if not files.record(stage).read() or (name == KEPT and _is_looked_at(files)):
            continue
        known = set(parts.names())
        # of features there is no plan, but each part's checksum
        gone = {*parts.orphans(), *read_plan(files.journals, name)} - known
        for batch in sorted(known | gone):
            if batch in gone:
                yield stage, f"{name}/{batch}", "missing"
            elif parts.sound(batch) is None:
                yield stage, f"{name}/{batch}", "damaged"


def missing_plans(files: Workspace) -> Iterator[str]:
    """Finished stages that go by batches, have parts, and of which no plan tells."""
    for stage in (*PIXEL_STAGES, "predict", KEPT):
        done = files.record(stage).read() and not Parts(files.parts(stage)).is_empty
        if done and not plans_of(files.journals, stage):
            yield stage


def _is_looked_at(files: Workspace) -> bool:
    """Whether the parts of the explanations are looked at with the shards of the maps."""
    try:
        return Cube.open(files.cube).keeps_activation
    except SesgridError:
        return False
