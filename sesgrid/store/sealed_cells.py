"""What a cube was sealed with: bytes and crc32c of all below ``cells``, in that group's own attributes.

A chunk that is gone would be read as cells without a value, an array that is gone not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import google_crc32c
import zarr

from sesgrid.errors import FormatError, MissingInputError, ReadError, SesgridError
from sesgrid.foreign import reading
from sesgrid.store.location import get, open_group, sizes

__all__ = ["CELLS", "SealedCells", "fault_of_cells"]

CELLS = "cells"
_WRITTEN = "written"
_SEAL_AGAIN = "bring the run to its end again with `sesgrid run`, or `sesgrid verify --redo`"


@dataclass(frozen=True)
class SealedCells:
    """What lies below ``cells``, by key: bytes and crc32c; empty where nothing is known of it."""

    path: str
    written: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str) -> SealedCells:
        """Of a cube, as its group ``cells`` tells.

        Raises
        ------
        FormatError
            The cube was sealed, and its cells are gone or their metadata damaged.
        """
        with reading(f"{path}: the cells that it was sealed with", advice=_SEAL_AGAIN):
            root = open_group(path, "r")
            if CELLS not in root:
                if root.attrs.get("sealed"):
                    raise FormatError(
                        f"{path}: the cells that it was sealed with are gone; {_SEAL_AGAIN}"
                    )
                return cls(path)
            group = cast(zarr.Group, root[CELLS])
            told = cast(Mapping[str, Any], group.attrs.get(_WRITTEN, {}))
            found = cls(path, {str(k): (int(n), int(check)) for k, (n, check) in told.items()})
            missing = {key.split("/")[1] for key in found.written} - set(group.array_keys())
        if missing:
            raise FormatError(f"{path}/{CELLS}/{min(missing)} is gone or damaged; {_SEAL_AGAIN}")
        return found

    @classmethod
    def written_now(cls, path: str) -> dict[str, Any]:
        """For the attributes of the group: all that lies below it now."""
        keys = (key for key in sizes(path, CELLS) if key != f"{CELLS}/zarr.json")
        values = {key: get(path, key) or b"" for key in sorted(keys)}
        return {_WRITTEN: {k: [len(v), google_crc32c.value(v)] for k, v in values.items()}}

    def require(self, key: str, value: bytes | None, *, whole: bool = True) -> None:
        """Refuse a value that is not the one that was written.

        Raises
        ------
        ReadError
        """
        expected = self.written.get(key)
        if expected is None:
            return
        what = None
        if value is None:
            what = "is missing"
        elif whole and (len(value), google_crc32c.value(value)) != expected:
            what = "is not as it was written"
        if what is not None:
            raise ReadError(f"{self.path}/{key} {what}: {_SEAL_AGAIN}")

    def fault(self) -> str | None:
        """What is wrong with any of it; None: all is as it was written."""
        for key in self.written:
            try:
                with reading(f"{self.path}/{key}"):
                    self.require(key, get(self.path, key))
            except (ReadError, MissingInputError) as error:
                return str(error)
        return None


def fault_of_cells(path: str) -> str | None:
    """What is wrong with the cells that a cube was sealed with; None: nothing, or it is not sealed."""
    try:
        return SealedCells.of(path).fault()
    except SesgridError as error:
        return str(error)
