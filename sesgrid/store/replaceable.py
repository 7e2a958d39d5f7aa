"""What may be removed to make a local cube, or a part of it, again: a cube's own files, and no other."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sesgrid.errors import FormatError
from sesgrid.foreign import refuse_unreadable
from sesgrid.store.cube_layout import LISTS
from sesgrid.store.location import is_remote
from sesgrid.store.sealed_cells import CELLS

__all__ = ["require_outside", "require_own"]

_OF_CUBE = re.compile(
    rf"((pixels|{CELLS}|{LISTS})(/[^/]+)?/)?zarr\.json|(pixels|{CELLS}|{LISTS})/[^/]+/c(/\d+)*"
    rf"|((pixels|{CELLS}|{LISTS})/([^/]+/(c/(\d+/)*)?)?)?(\.[^/]*|[^/]*\.partial)"
)
"""Files of a cube, and what writers and systems leave beside them."""


def require_own(path: str, part: str = "") -> None:
    """Refuse to remove a local cube, or a part of it, with files that are none of a cube's.

    Parameters
    ----------
    path : str
        Of the cube. Under a URL all is the cube's.
    part : str
        A group or an array of it; empty: the whole.

    Raises
    ------
    FormatError
        There is such a file, or a link.
    """
    below = Path(path) / part
    if is_remote(path) or not os.path.lexists(below):
        return
    for folder, folders, names in os.walk(below, onerror=refuse_unreadable):
        at = Path(folder)
        for name in [*names, *(n for n in folders if (at / n).is_symlink())]:
            if not _OF_CUBE.fullmatch((at / name).relative_to(path).as_posix()):
                raise FormatError(
                    f"{at} holds {name!r}, which is no part of a cube: move it away, then run again"
                )


def require_outside(path: str) -> None:
    """Refuse a place inside another zarr store, which could then not be made again.

    Raises
    ------
    FormatError
    """
    if is_remote(path):
        return
    stores = [p for p in Path(path).absolute().parents if (p / "zarr.json").exists()]
    if stores:
        raise FormatError(
            f"{path} lies in the zarr store {stores[-1].name}: choose a place outside of it (cube.path)"
        )
