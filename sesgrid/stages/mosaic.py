"""Mosaic: aerial tiles → pixels of the inhabited cells, exactly on the grid.

A task makes a group of neighbouring blocks, one after the other, each written before the next is begun.
Every cell is warped from its own window of the source, pasted from all tiles of one source grid, so
no border of a tile, a block or a group is ever an image border, and the pixels do not depend on how
the work is cut. The group shares what it decodes (`sesgrid.stages.scene.Units`). Where the preferred
tiles have no data, the next source grid fills in, pixel by pixel.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from shapely import box

from sesgrid.errors import MissingInputError
from sesgrid.grid import CRS, Extent, Grid, cell_id_of
from sesgrid.kernels.warp import warp
from sesgrid.stages.place import BlockCells, BlockResult, lazy_pixels, place, plan_blocks
from sesgrid.stages.scene import (
    NODATA,
    OBSERVED,
    OUTSIDE,
    READ_FAILED,
    CellSource,
    Reader,
    Rehearsal,
    Units,
    sources_of,
)
from sesgrid.stages.tiles import PREFER, Tile, ranked_tiles

__all__ = [
    "NODATA",
    "OBSERVED",
    "OUTSIDE",
    "PREFER",
    "READ_FAILED",
    "Mosaic",
    "Reader",
    "TileIndex",
    "TiledBlock",
    "mosaic",
    "plan_mosaic",
    "void_share",
]

_SKIPS = 2.0
"""From this many source pixels to an output pixel on, four taps would skip some: a box takes all."""


@dataclass(frozen=True)
class TiledBlock:
    """A block and the tiles that may show it, best first."""

    block: BlockCells
    tiles: tuple[Tile, ...]

    def sources(self, grid: Grid, units: Units) -> list[list[CellSource]]:
        """What may show each cell of the block, best first."""
        return [sources_of(c, self.tiles, grid.pixel_m, units.levels) for c in self.block.cells]


@dataclass(frozen=True)
class Mosaic:
    """The stage: draws blocks from their tiles."""

    grid: Grid
    reader: Reader

    def __call__(self, items: Sequence[TiledBlock]) -> list[BlockResult]:
        """One `BlockResult` per block: ``image`` (band, y, x) and ``coverage`` (y, x), uint8."""
        return list(self.each(items))

    def each(self, items: Sequence[TiledBlock]) -> Iterator[BlockResult]:
        """The blocks one after the other; what one decodes serves the next."""
        units = Units(self.reader)
        sources = [item.sources(self.grid, units) for item in items]
        units.expect(s for of_block in sources for of_cell in of_block for s in of_cell)
        for item, of_block in zip(items, sources, strict=True):
            started = time.perf_counter()
            result = self._block(item.block, of_block, units)
            yield BlockResult(**result, seconds=time.perf_counter() - started)

    def peak_bytes(self, group: Sequence[TiledBlock]) -> int:
        """Memory that drawing a group takes at most, projected from its plan without decoding.

        The decoded units that are held at once, the block being drawn and its copy in the store's
        encoder, and the source window of a cell.
        """
        units = Units(Rehearsal(self.reader))
        of_cells = [of_cell for item in group for of_cell in item.sources(self.grid, units)]
        units.rehearse(of_cells)
        windows = [s.window for of_cell in of_cells for s in of_cell]
        largest = max(((r1 - r0) * (c1 - c0) for r0, r1, c0, c1 in windows), default=0)
        drawn = 4 * self.grid.block_px**2
        encoded = 3 * self.grid.block_px**2
        return units.peak_bytes + drawn + encoded + 6 * largest

    def _block(self, block: BlockCells, sources: list[list[CellSource]], units: Units) -> dict:
        n = self.grid.block_px
        image = np.zeros((3, n, n), dtype=np.uint8)
        coverage = np.zeros((n, n), dtype=np.uint8)
        rows, touched = [], set()
        for cell, of_cell in zip(block.cells, sources, strict=True):
            at = self.grid.cell_slices(*self.grid.cell_in_block(*cell))
            share = Counter[CellSource]()
            for source in of_cell:
                share[source] = self._draw(source, cell, units, image[:, *at], coverage[at])
                touched |= {t.path for t in source.tiles}
            for source in of_cell:
                units.release(source)
            rows.append(self._row(cell, image[:, *at], coverage[at], share))
        return {
            "block": block,
            "arrays": {"image": image, "coverage": coverage},
            "rows": tuple(rows),
            "errors": {path: e for path, e in units.errors.items() if path in touched},
        }

    def _draw(
        self,
        source: CellSource,
        cell: tuple[int, int],
        units: Units,
        image: np.ndarray,
        coverage: np.ndarray,
    ) -> int:
        """Fill the cell's missing pixels from a source; how many were filled."""
        missing = coverage != OBSERVED
        if not missing.any():
            return 0
        pixels, state = units.paste(source)
        if not state.any():
            return 0
        p = self.grid.pixels_per_cell
        to_cell = ((p, p), self.grid.cell_transform(*cell), CRS)
        grid = source.grid
        origin = grid.transform(source.window[0], source.window[2])
        skips = self.grid.pixel_m >= _SKIPS * grid.resolution_m
        whole = bool((state == OBSERVED).all())
        drawn, seen = warp(
            pixels, origin, grid.crs, *to_cell, "box" if skips else "bilinear",
            source_valid=None if whole else state == OBSERVED,
        )  # fmt: skip
        if not whole:
            for code in (NODATA, READ_FAILED):
                _mark(code, state, missing, coverage, (origin, grid.crs, *to_cell))
        if whole and missing.all() and seen.all():
            image[:], coverage[:] = drawn, OBSERVED
            return seen.size
        new = missing & (seen == 1)
        image[:, new] = drawn[:, new]
        coverage[new] = OBSERVED
        return int(new.sum())

    def _row(
        self,
        cell: tuple[int, int],
        image: np.ndarray,
        coverage: np.ndarray,
        share: Counter[CellSource],
    ) -> dict:
        n = self.grid.pixels_per_cell**2
        observed, nodata, failed = (
            np.count_nonzero(coverage == code) / n for code in (OBSERVED, NODATA, READ_FAILED)
        )
        # the source that filled most of the cell
        main = max(share, key=share.__getitem__, default=None)
        used = main is not None and share[main] > 0
        return {
            "cell_id": cell_id_of(*cell),
            "coverage": observed,
            "share_nodata": nodata,
            "share_read_failed": failed,
            "void_share": void_share(image),
            "ortho_year": main.grid.year if main is not None and used else None,
            "ortho_source": _source_name(main) if main is not None and used else None,
        }


def void_share(image: np.ndarray) -> float:
    """Share of a cell's subpixels (over bands and pixels) that are 0.

    The study takes zeros for missing imagery; a pixel without imagery is 0 in all bands, but black may
    be a real colour too.

    >>> void_share(np.array([[[0, 1], [2, 3]], [[0, 0], [2, 3]]], np.uint8))
    0.375
    """
    return float((image.size - np.count_nonzero(image)) / image.size)


def _mark(
    code: int, state: np.ndarray, missing: np.ndarray, coverage: np.ndarray, grids: tuple
) -> None:
    """Write why a pixel is missing; a failed read says more than another tile's lack of data."""
    if not (state == code).any():
        return
    origin, crs, shape, transform, out_crs = grids
    _, there = warp(
        np.zeros((1, *state.shape), np.uint8), origin, crs, shape, transform, out_crs, "nearest",
        source_valid=state == code,
    )  # fmt: skip
    coverage[missing & (there == 1) & (coverage != READ_FAILED)] = code


def _source_name(source: CellSource) -> str:
    """File name of the tile that lies under most of the cell's window."""

    def area(tile: Tile) -> int:
        r0, r1, c0, c1 = tile.overlap(source.window, source.grid.level) or (0, 0, 0, 0)
        return (r1 - r0) * (c1 - c0)

    return PurePath(max(source.tiles, key=area).path).name


class TileIndex:
    """Tiles, found by the blocks that they may show; one spatial index for all questions.

    Parameters
    ----------
    grid : Grid
    tiles : GeoDataFrame
        From `sesgrid.read_ortho`.
    near_year : int, optional
        The census' year.
    prefer : sequence of str
        What decides between tiles that show the same place; see `sesgrid.stages.tiles.ranked_tiles`.
    """

    def __init__(
        self,
        grid: Grid,
        tiles: gpd.GeoDataFrame,
        *,
        near_year: int | None = None,
        prefer: Sequence[str] = PREFER,
    ) -> None:
        self.grid, self._ranked = grid, ranked_tiles(tiles, near_year, prefer)
        order = {t.path: k for k, t in enumerate(self._ranked)}
        self._rank = np.array([order[p] for p in tiles["path"].astype(str)], dtype=np.int64)
        self._tree, self._bounds = tiles.sindex, tiles.total_bounds

    def items(self, blocks: Sequence[BlockCells]) -> list[TiledBlock]:
        """Each block with the tiles whose footprints touch it, best first."""
        squares = np.array([box(*self.grid.block_bounds(b.block_row, b.block_col)) for b in blocks])
        hits: list[set[int]] = [set() for _ in blocks]
        for b, t in zip(*self._tree.query(squares, predicate="intersects"), strict=True):
            hits[int(b)].add(int(self._rank[t]))
        return [
            TiledBlock(b, tuple(self._ranked[t] for t in sorted(h)))
            for b, h in zip(blocks, hits, strict=True)
        ]

    def require_any(self, blocks: Iterable[Sequence[BlockCells]], cells: pd.DataFrame) -> None:
        """Refuse tiles that show none of the blocks.

        Parameters
        ----------
        blocks : iterable of sequences
            Looked at until one is shown.
        cells : DataFrame
            With ``row`` and ``col``, for the message.

        Raises
        ------
        MissingInputError
        """
        if any(item.tiles for some in blocks for item in self.items(some)):
            return
        west, south, east, north = self._bounds
        a, b, c, d = Extent.of_cells(
            Grid(self.grid.pixels_per_cell, 1), cells["row"], cells["col"]
        ).bounds
        raise MissingInputError(
            f"none of the {len(self._ranked)} tiles shows any of the {len(cells)} cells: the tiles cover "
            f"eastings {west:.0f}–{east:.0f} and northings {south:.0f}–{north:.0f} (EPSG:3035), the cells "
            f"eastings {a}–{c} and northings {b}–{d}; check the département of the delivery"
        )


def plan_mosaic(
    grid: Grid,
    cells: pd.DataFrame,
    tiles: gpd.GeoDataFrame,
    *,
    near_year: int | None = None,
    prefer: Sequence[str] = PREFER,
) -> list[TiledBlock]:
    """Blocks with inhabited cells, each with the tiles whose footprints touch it; see `TileIndex`.

    Raises
    ------
    MissingInputError
        No tile touches any cell.
    """
    index = TileIndex(grid, tiles, near_year=near_year, prefer=prefer)
    blocks = plan_blocks(grid, cells["row"].to_numpy(), cells["col"].to_numpy())
    index.require_any([blocks], cells)
    return index.items(blocks)


def mosaic(
    cells: gpd.GeoDataFrame,
    tiles: gpd.GeoDataFrame,
    reader: Reader,
    *,
    pixels_per_cell: int = 800,
    cells_per_block: int = 8,
    near_year: int | None = None,
    prefer: Sequence[str] = PREFER,
) -> xr.Dataset:
    """Aerial pixels of the cells, lazily.

    Resampling is bilinear; where an output pixel spans two source pixels or more, even at the
    coarsest level that fits, it is the mean over the output pixel.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.cells`.
    tiles : GeoDataFrame
        From `sesgrid.read_ortho`.
    reader : Reader
        `sesgrid.RasterReader()` reads whatever GDAL opens.
    pixels_per_cell, cells_per_block : int
        The grid; see `sesgrid.Grid`.
    near_year : int, optional
        Preferred year of the imagery, as a rule the census'.
    prefer : sequence of {"near_year", "newest", "oldest", "finest", "coarsest"}
        What decides between tiles that show the same place, the first first.

    Returns
    -------
    xarray.Dataset
        ``image`` uint8 ``(band, y, x)`` RGB and ``coverage`` uint8 ``(y, x)`` (0 outside, 1 observed, 2
        nodata, 3 read failed), EPSG:3035, one dask chunk a block. Only the given cells are drawn; all
        else is zero.
    """
    grid = Grid(pixels_per_cell, cells_per_block)
    work = plan_mosaic(grid, cells, tiles, near_year=near_year, prefer=prefer)
    extent = Extent.of_cells(grid, cells["row"], cells["col"])
    results = place(Mosaic(grid, reader), work, name="mosaic")
    return lazy_pixels(results, [w.block for w in work], extent, {"image": 3, "coverage": 0})
