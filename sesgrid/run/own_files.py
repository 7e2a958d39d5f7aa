"""Are the files of a run, beside its shards and parts, as it wrote them?

Tables have their crc32c beside them, results in the record of the stage that wrote them, models in their
cards; records, plans and journals must read as such, and the cube's metadata follow from what they tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sesgrid.batches.journal import damaged_lines, is_plan, plan_path
from sesgrid.errors import FormatError, MissingInputError, ReadError, SesgridError
from sesgrid.foreign import reading
from sesgrid.run.claims import is_written_by_stages
from sesgrid.run.engine import STAGES
from sesgrid.run.mark import lies_within
from sesgrid.run.own_cube import CubeDamage, expected_cube
from sesgrid.run.own_parts import damaged_parts, missing_plans
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import owner_of
from sesgrid.store.models import ModelRef
from sesgrid.store.sealed import checksum_of, is_sound
from sesgrid.store.sealed_cells import fault_of_cells

__all__ = [
    "CUBE",
    "MARK",
    "FileFault",
    "find_file_faults",
    "unentered",
]

CUBE, MARK = "cube", "mark"
"""What is made again from what other files tell, and not by a stage."""


@dataclass(frozen=True)
class FileFault:
    """A file of a run that is not as it was written."""

    made_by: str | None
    """The stage that makes it again, `CUBE` or `MARK`; None: none does."""
    name: str
    """Of the file, in the output folder or the cube."""
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.name}: {self.what}"


def find_file_faults(files: Workspace) -> list[FileFault]:
    """Look at every file of a run but what `sesgrid.run.verify.find_faults` looks at: shards and their parts.

    Parameters
    ----------
    files : Workspace

    Returns
    -------
    list of FileFault
        Of the mark first, then of the records, plans and journals, of what the stages wrote in their order,
        and of the cube.
    """
    return [
        *_of_mark(files), *_of_records(files), *_of_journals(files), *_of_outputs(files),
        *_of_parts(files), *_of_models(files), *_of_audit(files), *_of_cube(files),
    ]  # fmt: skip


def _of_mark(files: Workspace) -> Iterator[FileFault]:
    try:
        # a run of sesgrid 0.1 never had one
        if files.mark.run_id() is None and owner_of(files.cube) is not None:
            yield FileFault(MARK, _name(files, files.mark.path), "missing")
    except SesgridError:
        yield FileFault(MARK, _name(files, files.mark.path), "damaged")
    for path in unentered(files):
        yield FileFault(MARK, "work/written", f"does not list {path.name}, which the run wrote")


def unentered(files: Workspace) -> list[Path]:
    """Results as the run's records tell of them, which the list of what it wrote does not name."""
    results = (
        (files.output / name, written)
        for stage in STAGES
        for name, written in _written(files.record(stage).read())
        if not name.startswith("work/")
    )
    return [
        path
        for path, sums in results
        if not files.mark.covers(path)
        and lies_within(path, files.output)
        and _fault_of(path, sums) is None
    ]


def _of_records(files: Workspace) -> Iterator[FileFault]:
    for stage in STAGES:
        record = files.record(stage)
        what = "damaged" if record.path.exists() else "missing"
        resting = any(stage in s.needs and files.record(n).read() for n, s in STAGES.items())
        if stage == "report":
            resting = files.report.exists() and files.mark.covers(files.report)
        if not record.read() and (what == "damaged" or resting):
            yield FileFault(stage, _name(files, record.path), what)


def _of_journals(files: Workspace) -> Iterator[FileFault]:
    for path in sorted(files.journals.glob("*.plan.json")):
        if not is_plan(path):
            stage = path.name.partition(".")[0].removesuffix("-other")
            yield FileFault(stage if stage in STAGES else None, _name(files, path), "damaged")
    for stage in missing_plans(files):
        yield FileFault(stage, _name(files, plan_path(files.journals, stage)), "missing")
    for path in sorted(files.journals.glob("*.jsonl")):
        lines = damaged_lines(path)
        if lines:
            what = f"{lines} damaged lines: `sesgrid status` cannot count their blocks"
            yield FileFault(None, _name(files, path), what)


def _of_outputs(files: Workspace) -> Iterator[FileFault]:
    told = {name for stage in STAGES for name, _ in _written(files.record(stage).read())}
    for path in sorted((files.output / "work").glob("*.parquet")):
        stage = path.stem.removesuffix("-other")
        stage = "analyse" if stage in ("activation", "pairs") else stage
        if _name(files, path) not in told and stage in STAGES and not is_sound(path):
            yield FileFault(stage, _name(files, path), "damaged")
    for stage in STAGES:
        for name, written in _written(files.record(stage).read()):
            what = _fault_of(files.output / name, written)
            if what is None and not is_sound(files.output / name):
                what = "the checksum beside it is damaged"
            if what is not None:
                # what a card tells of its training is made with the model, by the training alone
                yield FileFault("train" if name.startswith("models/") else stage, name, what)


def _written(record: dict[str, Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Files that a record tells of, as far as a stage writes such."""
    for name, (size, check) in record.get("written", {}).items():
        if is_written_by_stages(name):
            yield name, (size, check)


def _fault_of(path: Path, written: tuple[int, int]) -> str | None:
    try:
        with reading(path):
            size, check = checksum_of(path)
    except MissingInputError:
        return "missing"
    except ReadError as error:
        return str(error)
    if size != written[0]:
        return f"{size} bytes instead of {written[0]}"
    return None if check == written[1] else "its bytes are not those written"


def _of_parts(files: Workspace) -> Iterator[FileFault]:
    for stage, batch, what in damaged_parts(files):
        yield FileFault(stage, f"work/parts/{batch}.parquet", what)


def _of_models(files: Workspace) -> Iterator[FileFault]:
    # of others' files that lie beside them nothing is known
    there = (p for p in files.mark.entered(files.models) if p.suffix == ".keras" and p.exists())
    for path in there:
        try:
            ModelRef.open(path)
        except SesgridError as error:
            yield FileFault("train", _name(files, path.with_suffix(".json")), f"damaged ({error})")


def _of_audit(files: Workspace) -> Iterator[FileFault]:
    try:
        with reading(files.audit):
            json.loads(files.audit.read_bytes())
    except MissingInputError:
        return
    except (FormatError, ReadError):
        yield FileFault(None, files.audit.name, "damaged: audit again, or delete it")


def _of_cube(files: Workspace) -> Iterator[FileFault]:
    damage, name = CubeDamage.of(files), Path(files.cube).name
    if damage is not None and damage.keys:
        # the lists and the cells cannot be looked at while that is so
        yield from (FileFault(CUBE, f"{name}/{key}", "missing or damaged") for key in damage.keys)
        return
    for layer in chain.from_iterable(damage.unlisted.values()) if damage is not None else ():
        yield FileFault(CUBE, f"{name}/shards/{layer}", "does not list what was written")
    if expected_cube(files) is not None and files.record("analyse").read():
        what = fault_of_cells(files.cube)
        if what is not None:
            yield FileFault("analyse", f"{name}/cells", what)


def _name(files: Workspace, path: Path) -> str:
    return path.relative_to(files.output).as_posix()
