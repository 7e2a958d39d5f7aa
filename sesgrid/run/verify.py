"""Does a cube hold the very bytes that its run wrote?

Zarr reads a shard that is gone or empty without a word, as fill. A part's record has the size and the crc32
of every shard that its tasks wrote, and the parts' own pages have checksums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sesgrid.batches.blocks import plan_batches
from sesgrid.batches.journal import read_plan
from sesgrid.errors import FormatError, GridMismatchError, SesgridError, StoreError
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store.cube import Cube
from sesgrid.store.location import cause_of, store_failures
from sesgrid.store.parts import Parts
from sesgrid.store.written import Shard

__all__ = ["KEPT", "PIXEL_STAGES", "Fault", "Shards", "faults_of_batch", "find_faults", "find_lost"]

PIXEL_STAGES = ("mosaic", "landcover")
"""Stages that make pixels."""

KEPT = "explain"
"""Its maps are pixels too, where they are kept."""


@dataclass(frozen=True)
class Fault:
    """A shard, or a part, that is not as it was written."""

    stage: str
    batch: str
    block: tuple[int, int] | None
    """(block_row, block_col), global; None: the part itself."""
    layer: str | None
    what: str
    unread: bool = False
    """Whether its bytes could not be looked at."""

    def __str__(self) -> str:
        """One line."""
        if self.block is None:
            return f"{self.stage}: part {self.batch}: {self.what}"
        return f"{self.stage}: block {self.block}, {self.layer}: {self.what}"


def find_faults(files: Workspace) -> Iterator[Fault]:
    """Compare the cube with what its run recorded, shard by shard.

    Parameters
    ----------
    files : Workspace
        Of the run; its stage ``cells`` is done.

    Yields
    ------
    Fault
        In the order of the stages and batches. A stage that was not begun has none.

    Raises
    ------
    FormatError
        The metadata of a layer other than the kept maps are gone or damaged: none of its shards can be
        looked at.
    StoreError
        The store is away.
    """
    cube, cells = Cube.open(files.cube), load_table(files.table("cells"))
    planned, shards = [batch.name for batch in plan_batches(cube.extent.grid, cells)], Shards(cube)
    for stage in PIXEL_STAGES:
        parts = Parts(files.parts(stage))
        known, record = set(parts.names()), files.record(stage).read()
        # a stage that was done says of what; of one that was begun there is a plan
        begun = record["summary"].get("batches") if record else read_plan(files.journals, stage)
        if not known and not begun:
            continue
        for batch in sorted(known.union(planned)):
            yield from faults_of_batch(shards, parts, stage, batch)
    if cube.keeps_activation and files.record(KEPT).read():
        parts = Parts(files.parts(KEPT))
        for batch in parts.names():
            yield from faults_of_batch(shards, parts, KEPT, batch)


def find_lost(files: Workspace, stage: str) -> list[Fault]:
    """Shards that a finished stage recorded and that are gone or of another size, by the listing alone.

    Parameters
    ----------
    files : Workspace
    stage : str
        One of `PIXEL_STAGES`, or `KEPT`.

    Raises
    ------
    FormatError, StoreError
        The cube cannot be opened.
    """
    cube, parts, found = Cube.open(files.cube), Parts(files.parts(stage)), list[Fault]()
    there: dict[str, dict[tuple[int, int], int]] = {}
    for batch in parts.names():
        for row, col, written in (parts.sound(batch) or {}).get("shards", ()):
            for layer, (size, _) in written.items():
                if layer not in there:
                    there[layer] = cube.shard_sizes(layer)
                now = there[layer].get((row, col), 0)
                if now != size:
                    what = f"{now} bytes instead of {size}" if now else "missing"
                    found.append(Fault(stage, batch, (row, col), layer, what))
    return found


@dataclass
class Shards:
    """Looks at shards, until the store is away."""

    cube: Cube
    unread: int = 0

    def fault(self, layer: str, row: int, col: int, written: Shard) -> tuple[str | None, bool]:
        """What is wrong with a shard, if anything, and whether its bytes could not be looked at."""
        try:
            what = self.cube.shard_fault(layer, row, col, written)
        except GridMismatchError as error:
            return str(error), False
        except store_failures() as error:
            self._require_store(error)
            return f"cannot be read ({cause_of(error)})", True
        self.unread = 0
        return what, False

    def _require_store(self, error: Exception) -> None:
        """After some shards in a row, see whether it is the store that is away."""
        self.unread = (self.unread + 1) % _AWAY
        if self.unread:
            return
        away: tuple[type[Exception], ...] = (SesgridError, *store_failures())
        try:
            self.cube.attribute("title")
        except away:
            raise StoreError(
                f"{self.cube.path}: neither {_AWAY} shards in a row can be read nor anything else "
                f"({cause_of(error)}): see that the store answers, and verify again"
            ) from error


_AWAY = 10


def faults_of_batch(shards: Shards, parts: Parts, stage: str, batch: str) -> Iterator[Fault]:
    try:
        record = parts.record(batch)
        if record is None:
            yield Fault(stage, batch, None, None, "missing")
            return
        parts.rows(batch)
    except (FormatError, KeyError, ValueError) as error:
        yield Fault(stage, batch, None, None, f"damaged ({error})")
        return
    for row, col, written in record.get("shards", ()):
        for layer, (size, check) in written.items():
            try:
                what, unread = shards.fault(layer, row, col, (size, check))
            except FormatError as error:
                if stage != KEPT:
                    raise
                yield Fault(stage, batch, None, None, f"damaged ({error})")
                return
            if what is not None:
                yield Fault(stage, batch, (row, col), layer, what, unread)
