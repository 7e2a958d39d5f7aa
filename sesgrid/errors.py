"""One error root; every error says what was expected, what was received, and what to do.

Each class also inherits the built-in that a caller would reach for, so
``except ValueError`` and ``except SesgridError`` both work.
"""

from __future__ import annotations

__all__ = [
    "CellIdError",
    "ClusterError",
    "CodecError",
    "ConfigError",
    "FormatError",
    "GridMismatchError",
    "MissingInputError",
    "ModelMismatchError",
    "ReadError",
    "SesgridError",
    "SesgridWarning",
    "StoreError",
    "TooFewCellsError",
    "UnsafePathError",
]


class SesgridError(Exception):
    """Root of every error that sesgrid raises on purpose."""


class ConfigError(SesgridError, ValueError):
    """A setting is unknown, misspelt or out of range."""


class MissingInputError(SesgridError, FileNotFoundError):
    """A file, folder, layer or column that was asked for is not there."""

    def __str__(self) -> str:  # FileNotFoundError would print its errno form
        return str(self.args[0]) if self.args else ""


class FormatError(SesgridError, ValueError):
    """A file is not what its reader expects, or its content breaks the format's rules."""


class CellIdError(FormatError):
    """A cell id is malformed, off the 200 m lattice, or of another CRS."""


class GridMismatchError(SesgridError, ValueError):
    """Two things that must lie on the same grid do not."""


class ModelMismatchError(SesgridError, ValueError):
    """A model was made for another cell size, number of classes or version."""


class ReadError(SesgridError, OSError):
    """A raster that should be readable is truncated, damaged or gone."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreError(SesgridError, OSError):
    """A cube cannot be written or reached: read-only, full, or no such store."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CodecError(SesgridError, ImportError):
    """A package that reads or writes the cube's pixels is not installed."""


class ClusterError(SesgridError, RuntimeError):
    """The machines that a run needs are gone, or fail whatever they are given."""


class TooFewCellsError(SesgridError, ValueError):
    """Fewer labelled cells than the folds and classes need."""


class UnsafePathError(SesgridError, ValueError):
    """A name inside an archive or an index leads out of its folder."""


class SesgridWarning(UserWarning):
    """Something was repaired or left out, and counted; the run goes on."""
