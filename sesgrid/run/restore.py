"""Files of a run that are not as it wrote them are made again: by their stages, or from what others tell."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from distributed import Client

from sesgrid.batches.journal import mend
from sesgrid.batches.leases import Leases
from sesgrid.errors import ClusterError
from sesgrid.run.config import Config
from sesgrid.run.engine import STAGES, run_stages, settings_key
from sesgrid.run.mark import lies_within
from sesgrid.run.own_cube import CubeDamage
from sesgrid.run.own_files import CUBE, MARK, FileFault, unentered
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import owner_of
from sesgrid.store.parts import Parts

__all__ = ["make_up_to_date", "restore"]


def restore(
    config: Config, faults: Sequence[FileFault], tell: Callable[[str], None]
) -> tuple[list[FileFault], list[str]]:
    """Write again what other files tell of, and remove what a stage has to make again.

    Parameters
    ----------
    config : Config
    faults : sequence of FileFault
        From `sesgrid.run.own_files.find_file_faults`.
    tell : callable
        Receives a line per fault.

    Returns
    -------
    list of FileFault
        Those that are left; what each needs was told.
    list of str
        Stages that have to be done again, for `make_up_to_date`.

    Raises
    ------
    ClusterError
        A driver is at work on the run.
    """
    files = Workspace.of(config)
    with Leases(files.leases) as leases:
        busy = leases.holder([*STAGES, "predict-other"])
        if busy is not None:
            raise ClusterError(f"files cannot be made again while {busy}: wait for it")
        return _restore(config, files, faults, tell)


def _restore(
    config: Config, files: Workspace, faults: Sequence[FileFault], tell: Callable[[str], None]
) -> tuple[list[FileFault], list[str]]:
    if any(f.made_by == MARK for f in faults):
        if any(f.name.endswith(files.mark.path.name) for f in faults):
            files.mark.restore(config.name, owner_of(files.cube) or uuid.uuid4().hex)
        files.mark.enter_again(*unentered(files))
        tell("the run's mark and its list of what it wrote: written again")
    left, stages = [], set[str]()
    for fault in faults:
        path = files.output / fault.name
        if fault.made_by not in (CUBE, MARK) and not _lies_here(files, fault, path):
            tell(f"{fault}; it lies behind a link out of {files.output}: left as it is")
            left.append(fault)
        elif fault.made_by in STAGES:
            _remove(files, path)
            files.record(str(fault.made_by)).forget()
            stages.add(str(fault.made_by))
        elif path.suffix == ".jsonl":
            mend(path)
            tell(f"{fault}; left out now")
        elif fault.made_by is None:
            tell(str(fault))
            left.append(fault)
    damage = CubeDamage.of(files) if any(f.made_by == CUBE for f in faults) else None
    if damage is not None:
        key = settings_key("mosaic", files.record("mosaic").read()["facts"])
        stages |= damage.mend(config, files, key, tell)
    return left, [name for name in STAGES if name in stages]


def _lies_here(files: Workspace, fault: FileFault, path: Path) -> bool:
    """Whether a damaged file, and the record of its stage, lie in the run's folder and not behind a link."""
    record = [files.record(fault.made_by).path] if fault.made_by in STAGES else []
    return all(lies_within(p, files.output) for p in [path, *record])


def _remove(files: Workspace, path: Path) -> None:
    """A damaged file of a stage, and the checksum beside it; nothing that is not the run's."""
    if path.parent.parent == files.output / "work" / "parts":
        Parts(path.parent).remove(path.stem)
    elif path.is_relative_to(files.output / "work"):
        path.unlink(missing_ok=True)
    elif path.is_relative_to(files.output):
        # a model and its card belong together, and are made together
        beside = [path.with_suffix(".keras"), path.with_suffix(".json")]
        files.mark.remove(path, *(beside if path.parent == files.models else []))


def make_up_to_date(
    config: Config, client: Client, stages: Sequence[str], tell: Callable[[str], None]
) -> bool:
    """Do stages whose files were removed again, and what rests on them up to the last of these.

    Returns
    -------
    bool
        Whether all could be read and done.
    """
    summaries = run_stages(config, client, stages[-1], tell)
    return not any(s.get("errors") or s.get("failures") for s in summaries.values())
