"""Source pixels under a cell: decoded once, pasted from every tile that shows them.

A raster decodes in **units**: its own tiles, or a square of 512 pixels. The source grid and the
census grid are rotated against each other by five to six degrees, so neighbouring cells need
the same units. `Units` knows from the plan how many cells of a task need each one: a unit is decoded when
it is first needed and dropped after its last use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from affine import Affine

from sesgrid.errors import ReadError
from sesgrid.grid import CELL_M, CRS
from sesgrid.kernels.lattice import projector
from sesgrid.stages.tiles import COARSEST_LEVEL, SourceGrid, Tile, Window, tiles_by_grid

__all__ = [
    "NODATA",
    "OBSERVED",
    "OUTSIDE",
    "READ_FAILED",
    "CellSource",
    "Reader",
    "Rehearsal",
    "Units",
    "sources_of",
]

OUTSIDE, OBSERVED, NODATA, READ_FAILED = 0, 1, 2, 3
"""Coverage codes: no tile there; observed; inside a tile but without data; the tile could not be read."""

_HALO_PX = 2
"""Source pixels around a cell, beyond half an output pixel, that resampling may touch."""


class Layout(Protocol):
    """Knows how rasters are laid out."""

    def levels(self, path: str) -> int:
        """Coarsest level at which the raster can be read."""
        ...

    def unit_shape(self, path: str, level: int = 0) -> tuple[int, int]:
        """(y, x) of the parts that the raster decodes as a whole, in pixels of the level."""
        ...


class Reader(Layout, Protocol):
    """Reads windows of rasters; `sesgrid.sources.RasterReader`, or a fake in tests.

    A reader of other than three bands says so in its attribute ``bands``.
    """

    def read(
        self, path: str, window: Window, level: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels of a level → uint8 ``(band, y, x)`` and validity bool ``(y, x)``, None = all."""
        ...


@dataclass(frozen=True)
class Unit:
    """A part of a tile that is decoded as a whole."""

    tile: Tile
    level: int
    row: int
    """In units from the tile's upper edge."""
    col: int


@dataclass(frozen=True)
class CellSource:
    """What one source grid shows of one cell."""

    grid: SourceGrid
    tiles: tuple[Tile, ...]
    """Best first."""
    window: Window
    """On the grid; a function of the cell and the grid alone, so pixels do not depend on blocks."""


def sources_of(
    cell: tuple[int, int], tiles: Sequence[Tile], pixel_m: float, levels: Callable[[str], int]
) -> list[CellSource]:
    """What may show a cell, best first.

    Depends on the tiles that touch the cell and on nothing else, so that pixels do not depend on how
    the work is cut.

    Parameters
    ----------
    cell : (int, int)
        Global (row, col).
    tiles : sequence of Tile
        Best first.
    pixel_m : float
        Output pixel, metres.
    levels : callable
        Path → coarsest level at which the raster can be read.
    """
    windows: dict[SourceGrid, Window] = {}
    touching = []
    for tile in tiles:
        grid = tile.grid()
        if grid not in windows:
            # no level is coarser than the output, so its halo stays within these metres
            windows[grid] = _window(cell, grid, pixel_m, halo_m=(_HALO_PX + 1.5) * pixel_m)
        if tile.overlap(windows[grid], 0):
            touching.append(tile)
    out = []
    for grid, members in tiles_by_grid(touching, pixel_m, levels):
        window = _window(cell, grid, pixel_m)
        seen = tuple(t for t in members if t.overlap(window, grid.level))
        if seen:
            out.append(CellSource(grid, seen, window))
    return out


def _window(cell: tuple[int, int], grid: SourceGrid, pixel_m: float, halo_m: float = 0.0) -> Window:
    row, col = cell
    square = Affine(CELL_M, 0, col * CELL_M, 0, -CELL_M, -row * CELL_M)
    project = projector(square, CRS, grid.transform(0, 0), grid.crs)
    across = np.linspace(-0.5, 0.5, 5)  # of a cell, from its centre
    rows, cols = project(*np.meshgrid(across, across, indexing="ij"))
    halo = _HALO_PX + int(np.ceil(max(0.5 * pixel_m, halo_m) / grid.resolution_m))
    return (
        int(np.floor(rows.min())) - halo,
        int(np.ceil(rows.max())) + halo,
        int(np.floor(cols.min())) - halo,
        int(np.ceil(cols.max())) + halo,
    )


@dataclass(frozen=True)
class Rehearsal:
    """A reader that knows the shapes of units and decodes nothing: to count what a plan would."""

    layout: Layout

    def levels(self, path: str) -> int:
        """As the raster's reader says."""
        return self.layout.levels(path)

    def unit_shape(self, path: str, level: int = 0) -> tuple[int, int]:
        """As the raster's reader says."""
        return self.layout.unit_shape(path, level)

    def read(self, path: str, window: Window, level: int = 0) -> tuple[np.ndarray, None]:
        """An image of the right size that takes no memory."""
        shape = 3, window[1] - window[0], window[3] - window[2]
        return np.broadcast_to(np.uint8(0), shape), None


@dataclass
class Units:
    """The decoded units of one task.

    Parameters
    ----------
    reader : Reader
    """

    reader: Reader
    errors: dict[str, str] = field(default_factory=dict)
    """What could not be read: path of a tile → message."""
    decoded_px: int = 0
    held_bytes: int = 0
    peak_bytes: int = 0
    _uses: Counter = field(default_factory=Counter)
    _levels: dict[str, int] = field(default_factory=dict)
    _shapes: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    _held: dict[Unit, tuple[np.ndarray, np.ndarray | None] | None] = field(default_factory=dict)

    def levels(self, path: str) -> int:
        """Coarsest level of a raster; asked once a raster."""
        if path not in self._levels:
            try:
                self._levels[path] = self.reader.levels(path)
            except ReadError:
                # it cannot even be opened, and must not decide for the others
                self._levels[path] = COARSEST_LEVEL
        return self._levels[path]

    def expect(self, sources: Iterable[CellSource]) -> None:
        """Announce cells that will be drawn: their units are kept until as many were released."""
        for source in sources:
            self._uses.update(unit for unit, _, _ in self.parts_of(source))

    def rehearse(self, cells: Sequence[Sequence[CellSource]]) -> None:
        """Take the units of cells, in order, as drawing them would."""
        self.expect(source for of_cell in cells for source in of_cell)
        for of_cell in cells:
            for source in of_cell:
                for unit, _, _ in self.parts_of(source):
                    self.decoded(unit)
            for source in of_cell:
                self.release(source)

    def release(self, source: CellSource) -> None:
        """A cell is done with its units, whether it looked at them or not."""
        for unit, _, _ in self.parts_of(source):
            self._uses[unit] -= 1
            if self._uses[unit] <= 0:
                del self._uses[unit]
                held = self._held.pop(unit, None)
                self.held_bytes -= _bytes(held)

    def paste(self, source: CellSource) -> tuple[np.ndarray, np.ndarray]:
        """Decode what is missing and put a cell's source image together.

        Returns
        -------
        image : np.ndarray
            uint8 ``(band, y, x)`` over the source's window.
        state : np.ndarray
            uint8 ``(y, x)``: a coverage code per source pixel.
        """
        r0, r1, c0, c1 = source.window
        bands = getattr(self.reader, "bands", 3)
        image = np.zeros((bands, r1 - r0, c1 - c0), dtype=np.uint8)
        state = np.zeros(image.shape[1:], dtype=np.uint8)
        for unit, at, part in self.parts_of(source):
            # units come tile by tile, best first: what is observed stays
            if (state[at] == OBSERVED).all():
                continue
            decoded = self.decoded(unit)
            if decoded is None:
                state[at][state[at] != OBSERVED] = READ_FAILED
                continue
            pixels, valid = decoded
            if valid is None and not state[at].any():
                image[:, *at], state[at] = pixels[:, *part], OBSERVED
                continue
            seen = np.ones(state[at].shape, bool) if valid is None else valid[part]
            new = seen & (state[at] != OBSERVED)
            image[:, *at][:, new] = pixels[:, *part][:, new]
            state[at][~seen & (state[at] == OUTSIDE)] = NODATA
            state[at][new] = OBSERVED
        return image, state

    def decoded(self, unit: Unit) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Pixels and validity of a unit, from memory where it is held; None where it cannot be read."""
        if unit not in self._held:
            self._held[unit] = self.decode(unit)
            self.held_bytes += _bytes(self._held[unit])
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        return self._held[unit]

    def decode(self, unit: Unit) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Read a unit; a failure is noted in ``errors``."""
        tile, level = unit.tile, unit.level
        try:
            height, width = self._shape(tile, level)
            rows = unit.row * height, min((unit.row + 1) * height, tile.height >> level)
            cols = unit.col * width, min((unit.col + 1) * width, tile.width >> level)
            self.decoded_px += (rows[1] - rows[0]) * (cols[1] - cols[0])
            return self.reader.read(tile.path, (*rows, *cols), level)
        except ReadError as error:
            self.errors.setdefault(tile.path, str(error))
            return None

    def _shape(self, tile: Tile, level: int) -> tuple[int, int]:
        key = (tile.path, level)
        if key not in self._shapes:
            try:
                self._shapes[key] = self.reader.unit_shape(tile.path, level)
            except ReadError:
                # it cannot even be opened: one unit, and reading that will say why
                self._shapes[key] = (tile.height, tile.width)
        return self._shapes[key]

    def parts_of(
        self, source: CellSource
    ) -> Iterator[tuple[Unit, tuple[slice, slice], tuple[slice, slice]]]:
        """(unit, its place in the window, its part that lies there), tile by tile."""
        level, window = source.grid.level, source.window
        for tile in source.tiles:
            overlap = tile.overlap(window, level)
            if overlap is None:
                continue
            height, width = self._shape(tile, level)
            row, col = tile.origin(level)
            for i in range((overlap[0] - row) // height, -(-(overlap[1] - row) // height)):
                for j in range((overlap[2] - col) // width, -(-(overlap[3] - col) // width)):
                    r0, r1 = _common(overlap[:2], row + i * height, height)
                    c0, c1 = _common(overlap[2:], col + j * width, width)
                    at = (
                        slice(r0 - window[0], r1 - window[0]),
                        slice(c0 - window[2], c1 - window[2]),
                    )
                    top, left = row + i * height, col + j * width
                    part = slice(r0 - top, r1 - top), slice(c0 - left, c1 - left)
                    yield Unit(tile, level, i, j), at, part


def _common(span: tuple[int, int], start: int, length: int) -> tuple[int, int]:
    return max(span[0], start), min(span[1], start + length)


def _bytes(decoded: tuple[np.ndarray, np.ndarray | None] | None) -> int:
    return sum(a.nbytes for a in decoded if a is not None) if decoded is not None else 0
