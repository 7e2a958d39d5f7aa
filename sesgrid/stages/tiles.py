"""Tiles of a catalogue: which are preferred, and on which pixel lattice each one lies.

Tiles of one **source grid** (CRS, resolution, phase, year) adjoin in whole pixels and are pasted
without resampling, so that no tile border is ever an image border. Where the output is coarser than the
source, a grid is taken at a coarser **level**: level k halves the resolution k times, as the
overviews of a raster do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import geopandas as gpd
import pandas as pd
from affine import Affine

from sesgrid.errors import ConfigError

__all__ = [
    "COARSEST_LEVEL",
    "PREFER",
    "PREFERENCES",
    "Preference",
    "SourceGrid",
    "Tile",
    "ranked_tiles",
    "tiles_by_grid",
]

Window = tuple[int, int, int, int]
"""``(row0, row1, col0, col1)``, half-open."""

Preference = Literal["near_year", "newest", "oldest", "finest", "coarsest"]
"""What may decide between tiles that show the same place."""

PREFERENCES: tuple[str, ...] = get_args(Preference)

PREFER: tuple[Preference, ...] = ("near_year", "newest", "finest")
"""Default order of preference."""

COARSEST_LEVEL = 5
"""No cell is drawn from pixels that were halved more often."""


@dataclass(frozen=True)
class SourceGrid:
    """A lattice of source pixels at some level."""

    crs: str
    resolution_m: float
    """Side of a pixel of this level, metres in ``crs``."""
    west: float
    """Outer west edge of column 0, metres."""
    north: float
    """Outer north edge of row 0."""
    level: int
    year: int | None

    def transform(self, row: int, col: int) -> Affine:
        """(col, row) → (x, y) of a window that starts at a pixel."""
        size = self.resolution_m
        return Affine(size, 0.0, self.west + col * size, 0.0, -size, self.north - row * size)


@dataclass(frozen=True)
class Tile:
    """One raster, as much of it as planning needs."""

    path: str
    crs: str
    left: float
    """Outer west edge, metres in ``crs``."""
    top: float
    """Outer north edge."""
    resolution_m: float
    width: int
    height: int
    year: int | None

    def level_for(self, pixel_m: float, coarsest: int = COARSEST_LEVEL) -> int:
        """The coarsest level that is no coarser than the output and cuts the tile in whole pixels."""
        level = 0
        row, col = self.origin()
        while (
            level < coarsest
            and self.resolution_m * 2 ** (level + 1) <= pixel_m * (1 + 1e-6)
            and not any(n % 2 ** (level + 1) for n in (row, col, self.width, self.height))
        ):
            level += 1
        return level

    def grid(self, level: int = 0) -> SourceGrid:
        """The lattice that the tile lies on; equal for tiles that can be pasted."""
        y, x = self._phase()
        factor = 2**level
        # JPEG 2000's levels are the even samples of a wavelet, each centred on a sample of the level
        # below; those of other formats are means of squares
        shift = (factor - 1) / 2 if self.path.lower().endswith(".jp2") else 0.0
        return SourceGrid(
            self.crs,
            round(self.resolution_m, 9) * factor,
            (x - shift) * self.resolution_m,
            (shift - y) * self.resolution_m,
            level,
            self.year,
        )

    def _phase(self) -> tuple[float, float]:
        """Part of a pixel by which the lattice is off the CRS' own (0, 0), (y, x), in [0, 1)."""
        y, x = (round(v / self.resolution_m % 1.0, 4) % 1.0 for v in (-self.top, self.left))
        return y, x

    def origin(self, level: int = 0) -> tuple[int, int]:
        """(row, col) of the tile's first pixel on its grid."""
        y, x = self._phase()
        row = round(-self.top / self.resolution_m - y)
        return row >> level, round(self.left / self.resolution_m - x) >> level

    def overlap(self, window: Window, level: int) -> Window | None:
        """The part of a window of the grid that the tile holds."""
        row, col = self.origin(level)
        r0, r1 = max(window[0], row), min(window[1], row + (self.height >> level))
        c0, c1 = max(window[2], col), min(window[3], col + (self.width >> level))
        return (r0, r1, c0, c1) if r0 < r1 and c0 < c1 else None


def ranked_tiles(
    tiles: gpd.GeoDataFrame, near_year: int | None, prefer: Sequence[str]
) -> list[Tile]:
    """The tiles of a catalogue, best first.

    Parameters
    ----------
    tiles : GeoDataFrame
        From `sesgrid.read_ortho`.
    near_year : int, optional
        The census' year; without it ``"near_year"`` decides nothing.
    prefer : sequence of str
        Of `PREFERENCES`, the first decides first. Tiles without a year come after those with one. What
        is still equal is ordered by path.

    Raises
    ------
    ConfigError
        An unknown preference.
    """
    unknown = [p for p in prefer if p not in PREFERENCES]
    if unknown:
        raise ConfigError(
            f"mosaic.prefer: expected some of {', '.join(PREFERENCES)}, received {unknown[0]!r}"
        )

    def rank(tile: Tile) -> tuple:
        year = tile.year
        by = {
            "near_year": 0 if near_year is None or year is None else abs(year - near_year),
            "newest": -(year or 0),
            "oldest": year or 0,
            "finest": tile.resolution_m,
            "coarsest": -tile.resolution_m,
        }
        return (year is None, *(by[p] for p in prefer), tile.path)

    found = [
        Tile(
            str(t.path),
            str(t.crs),
            float(t.left),
            float(t.top),
            float(t.resolution_m),
            int(t.width),
            int(t.height),
            None if pd.isna(t.year) else int(t.year),
        )
        for t in tiles.itertuples(index=False)
    ]
    return sorted(found, key=rank)


def tiles_by_grid(
    tiles: Sequence[Tile], pixel_m: float, levels: Callable[[str], int]
) -> list[tuple[SourceGrid, list[Tile]]]:
    """Tiles that can be pasted together, at the level that an output resolution asks for.

    `levels` tells the coarsest level of a path. The groups come in the order of their best tile.
    Tiles that differ in the levels they can be cut to share the finest.
    """
    groups: dict[SourceGrid, list[Tile]] = {}
    for tile in tiles:
        groups.setdefault(tile.grid(), []).append(tile)
    out = []
    for members in groups.values():
        level = min(t.level_for(pixel_m, levels(t.path)) for t in members)
        kinds: dict[SourceGrid, list[Tile]] = {}
        for tile in members:
            kinds.setdefault(tile.grid(level), []).append(tile)
        out += list(kinds.items())
    return out
