"""A table as every reader knows it: where it lies, its columns, and whether its rows carry a geometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """A readable table."""

    path: Path
    """The file, or the ``.gdb`` folder."""

    layer: str | None
    """Layer name; None where the format holds one table only."""

    columns: tuple[str, ...]
    """Column names as the file spells them, without the geometry."""

    has_geometry: bool = False
    """Whether rows carry a geometry."""

    @property
    def name(self) -> str:
        """The layer's name, else the file's stem."""
        return self.layer or self.path.stem

    def __str__(self) -> str:
        if self.layer and self.layer != self.path.stem:
            return f"{self.path.name}, layer {self.layer!r}"
        return self.path.name
