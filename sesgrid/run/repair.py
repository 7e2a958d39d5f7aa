"""A run is looked at whole, and what is not as it was written is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distributed import Client

from sesgrid.errors import ConfigError, FormatError, MissingInputError
from sesgrid.run.config import Config
from sesgrid.run.own_files import CUBE, FileFault, find_file_faults
from sesgrid.run.redo import redo
from sesgrid.run.restore import make_up_to_date, restore
from sesgrid.run.verify import Fault, find_faults
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import owner_of

__all__ = ["look_at", "repair"]


def look_at(files: Workspace) -> Iterator[FileFault | Fault]:
    """Faults of a run's files, and then of its cube's shards and parts, as far as these can be looked at.

    Raises
    ------
    MissingInputError, FormatError
        There is nothing to compare the cube with, and no file of the run is at fault for that.
    StoreError
        The store is away.
    """
    found = find_file_faults(files)
    yield from found
    try:
        yield from find_faults(files)
    except (FormatError, MissingInputError) as error:
        # told already, by the file that is at fault
        if not any(f.made_by in (CUBE, "cells", "mosaic") for f in found):
            raise
        yield FileFault(None, "shards", f"cannot be looked at while that is so ({error})")


def repair(config: Config, client: Client, tell: Callable[[str], None]) -> int:
    """Make what `look_at` finds again; how many faults are left, each of them told.

    Raises
    ------
    ClusterError
        A driver is at work on the run.
    ConfigError
        It is a run of sesgrid 0.1, whose files bear no mark.
    """
    files, left = Workspace.of(config), list[FileFault]()
    if not files.mark.path.exists() and owner_of(files.cube) is None:
        raise ConfigError(
            f"output: {files.output} holds results of sesgrid 0.1 and no mark of a run, so nothing in it is "
            "written again: move it away, and run anew"
        )
    # twice: what is restored first may show what else is wrong
    for _ in range(2):
        found = find_file_faults(files)
        if not found:
            break
        left, stages = restore(config, found, tell)
        if stages:
            make_up_to_date(config, client, stages, tell)
    faults = list(find_faults(files))
    return len(left) + len(redo(config, client, faults, tell) if faults else faults)
