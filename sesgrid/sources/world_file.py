"""The world file beside a raster (``.tfw``, ``.jgw``, ``.wld`` …): read by GDAL, looked at first.

GDAL makes a number of whatever a line begins with, and passes over a file that is too short; the raster would
lie elsewhere, or nowhere, in silence.
"""

from __future__ import annotations

from pathlib import Path

from sesgrid.errors import FormatError
from sesgrid.foreign import reading, refuse_special
from sesgrid.sources.number_text import is_number_to_c

__all__ = ["check_world_file"]

_LINES = 6
_LARGEST = 2**16
"""Bytes of a world file, at most."""


def check_world_file(path: Path) -> None:
    """Look through the world file of a raster, if there is one.

    Raises
    ------
    FormatError
        It does not begin with six lines of one number each.
    """
    suffix = path.suffix.lower()
    short = f".{suffix[1]}{suffix[-1]}w" if len(suffix) > 2 else ".wld"
    for name in (short, f"{suffix}w", ".wld"):
        for beside in (path.with_suffix(name), path.with_suffix(name.upper())):
            if beside.exists():
                _check(beside)


def _check(path: Path) -> None:
    refuse_special(path, "a world file", "remove it")
    with reading(path), path.open("rb") as file:
        lines = file.read(_LARGEST).splitlines()  # of bytes: text has more ends of lines than GDAL
    for k in range(_LINES):
        line = lines[k].decode("latin-1") if k < len(lines) else ""
        if not is_number_to_c(line.replace(",", ".")):
            raise FormatError(
                f"{path}: expected six lines of one number each, received {line.strip()!r} in line {k + 1}; "
                "fetch it again"
            )
