"""Mosaic: aerial tiles → pixels of the inhabited cells, exactly on the grid.

A task makes one block. It reads, once, the source window under the block's inhabited cells from the
tiles that touch it, pastes tiles of one lattice (same CRS, resolution and phase) into one source image,
so that no tile border is ever an image border, and warps each inhabited cell from its own part of it.
The part depends on the cell alone, so the pixels are the same for any block size.
Where the preferred tiles have no data, the next lattice fills in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from pyproj import Transformer
from shapely import box

from sesgrid.errors import MissingInputError, ReadError
from sesgrid.grid import CELL_M, CRS, Extent, Grid, cell_id_of
from sesgrid.kernels.warp import warp
from sesgrid.stages.place import BlockCells, BlockResult, lazy_pixels, place, plan_blocks

__all__ = [
    "NODATA",
    "OBSERVED",
    "OUTSIDE",
    "READ_FAILED",
    "Mosaic",
    "Reader",
    "Tile",
    "TiledBlock",
    "mosaic",
    "plan_mosaic",
]

OUTSIDE, OBSERVED, NODATA, READ_FAILED = 0, 1, 2, 3
"""Coverage codes: no tile there; observed; inside a tile but without data; the tile could not be read."""

_HALO_PX = 3
"""Source pixels around a cell that bilinear resampling may touch, per unit of downsampling."""


class Reader(Protocol):
    """Reads windows of rasters; `sesgrid.sources.RasterReader`, or a fake in tests."""

    def read(self, path: str, window: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """``(row0, row1, col0, col1)`` → uint8 ``(band=3, y, x)`` and bool validity ``(y, x)``."""
        ...


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

    @property
    def lattice(self) -> tuple:
        """Tiles with equal lattices can be pasted into one image without resampling."""
        return (self.crs, round(self.resolution_m, 9), *self._phase(), self.year)

    def _phase(self) -> tuple[float, float]:
        """Part of a pixel by which the lattice is off the CRS' own (0, 0), (y, x), in [0, 1)."""
        y, x = (round(v / self.resolution_m % 1.0, 4) % 1.0 for v in (-self.top, self.left))
        return y, x

    def window_origin(self) -> tuple[int, int]:
        """(row, col) of the tile's first pixel on its lattice, which starts at (0, 0) of the CRS."""
        y, x = self._phase()
        return (
            round(-self.top / self.resolution_m - y),
            round(self.left / self.resolution_m - x),
        )


@dataclass(frozen=True)
class TiledBlock:
    """A block and the tiles that may show it, best first."""

    block: BlockCells
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Mosaic:
    """The stage: draws blocks from their tiles."""

    grid: Grid
    reader: Reader
    resampling: str = "bilinear"

    def __call__(self, items: Sequence[TiledBlock]) -> list[BlockResult]:
        """One `BlockResult` per block: ``image`` (band, y, x) and ``coverage`` (y, x), uint8."""
        return [self._block(item) for item in items]

    def _block(self, item: TiledBlock) -> BlockResult:
        started = time.perf_counter()
        n = self.grid.block_px
        image = np.zeros((3, n, n), dtype=np.uint8)
        coverage = np.zeros((n, n), dtype=np.uint8)
        years: dict[tuple[int, int], int | None] = {}
        errors: list[tuple[str, str]] = []
        for tiles in _by_lattice(item.tiles):
            scene = Scene.read(tiles, item.block.cells, self.reader, errors)
            if scene is None:
                continue
            for cell in item.block.cells:
                at = self.grid.cell_slices(*self.grid.cell_in_block(*cell))
                if self._draw(scene, cell, image[(slice(None), *at)], coverage[at]):
                    years.setdefault(cell, tiles[0].year)
        return BlockResult(
            item.block,
            {"image": image, "coverage": coverage},
            tuple(self._row(cell, coverage, years.get(cell)) for cell in item.block.cells),
            dict(errors),
            time.perf_counter() - started,
        )

    def _draw(
        self, scene: Scene, cell: tuple[int, int], image: np.ndarray, coverage: np.ndarray
    ) -> bool:
        """Fill the cell's missing pixels from a scene; True if any was filled."""
        missing = coverage != OBSERVED
        if not missing.any():
            return False
        p = self.grid.pixels_per_cell
        source, state, transform = scene.window(cell)
        if not state.any():
            return False
        args = ((p, p), self.grid.cell_transform(*cell), CRS, self.resampling)
        pixels, seen = warp(source, transform, scene.crs, *args, source_valid=state == OBSERVED)
        for code in (NODATA, READ_FAILED):
            if (state == code).any():
                _, there = warp(source, transform, scene.crs, *args, source_valid=state == code)
                # a tile that could not be read says more than another that has no data there
                known = coverage == READ_FAILED
                coverage[missing & (there == 1) & ~known] = code
        new = missing & (seen == 1)
        image[:, new] = pixels[:, new]
        coverage[new] = OBSERVED
        return bool(new.any())

    def _row(self, cell: tuple[int, int], coverage: np.ndarray, year: int | None) -> dict:
        at = self.grid.cell_slices(*self.grid.cell_in_block(*cell))
        share = np.bincount(coverage[at].ravel(), minlength=4) / self.grid.pixels_per_cell**2
        return {
            "cell_id": cell_id_of(*cell),
            "coverage": float(share[OBSERVED]),
            "share_nodata": float(share[NODATA]),
            "share_read_failed": float(share[READ_FAILED]),
            "ortho_year": year,
        }


@dataclass(frozen=True)
class Scene:
    """Tiles of one lattice, pasted: a source image around some cells."""

    image: np.ndarray
    """uint8 ``(band, y, x)``."""
    state: np.ndarray
    """uint8 ``(y, x)``: a coverage code per source pixel."""
    row: int
    col: int
    """Position of the first pixel on the lattice."""
    offset: tuple[float, float]
    """(easting, northing) of the lattice's pixel (0, 0)."""
    resolution_m: float
    crs: str

    @classmethod
    def read(
        cls,
        tiles: Sequence[Tile],
        cells: Sequence[tuple[int, int]],
        reader: Reader,
        errors: list[tuple[str, str]],
    ) -> Scene | None:
        """Read what the cells need; None when no tile touches them."""
        first = tiles[0]
        windows = np.array([_source_window(c, first.crs, first.resolution_m) for c in cells])
        row0, col0 = windows[:, 0].min(), windows[:, 2].min()
        row1, col1 = windows[:, 1].max(), windows[:, 3].max()
        overlaps = [(t, w) for t in tiles if (w := _overlap(t, (row0, row1, col0, col1)))]
        if not overlaps:
            return None
        image = np.zeros((3, row1 - row0, col1 - col0), dtype=np.uint8)
        state = np.zeros(image.shape[1:], dtype=np.uint8)
        for tile, (r0, r1, c0, c1) in overlaps:
            at = (slice(r0 - row0, r1 - row0), slice(c0 - col0, c1 - col0))
            todo = state[at] != OBSERVED
            if not todo.any():
                continue
            origin = tile.window_origin()
            window = (r0 - origin[0], r1 - origin[0], c0 - origin[1], c1 - origin[1])
            try:
                pixels, valid = reader.read(tile.path, window)
            except ReadError as error:
                errors.append((tile.path, str(error)))
                state[at][todo] = READ_FAILED
                continue
            new = todo & valid
            image[:, at[0], at[1]][:, new] = pixels[:, new]
            state[at][todo & ~valid & (state[at] == OUTSIDE)] = NODATA
            state[at][new] = OBSERVED
        origin = first.window_origin()
        offset = (
            first.left - origin[1] * first.resolution_m,
            first.top + origin[0] * first.resolution_m,
        )
        return cls(image, state, int(row0), int(col0), offset, first.resolution_m, first.crs)

    def window(self, cell: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, Affine]:
        """The part under one cell: image, state, transform."""
        r0, r1, c0, c1 = _source_window(cell, self.crs, self.resolution_m)
        at = (slice(r0 - self.row, r1 - self.row), slice(c0 - self.col, c1 - self.col))
        size = self.resolution_m
        west, north = self.offset[0] + c0 * size, self.offset[1] - r0 * size
        transform = Affine(size, 0.0, west, 0.0, -size, north)
        return self.image[:, at[0], at[1]], self.state[at], transform


def _source_window(
    cell: tuple[int, int], crs: str, resolution_m: float
) -> tuple[int, int, int, int]:
    """(row0, row1, col0, col1) on the lattice, half-open, with halo: a function of the cell alone."""
    row, col = cell
    square = box(col * CELL_M, -(row + 1) * CELL_M, (col + 1) * CELL_M, -row * CELL_M)
    x, y = square.segmentize(CELL_M / 4).exterior.xy
    east, north = _to_source(crs).transform(np.asarray(x), np.asarray(y))
    halo = _halo_px(resolution_m)
    return (
        int(np.floor(-north.max() / resolution_m)) - halo,
        int(np.ceil(-north.min() / resolution_m)) + halo,
        int(np.floor(east.min() / resolution_m)) - halo,
        int(np.ceil(east.max() / resolution_m)) + halo,
    )


def _halo_px(resolution_m: float) -> int:
    """Enough for bilinear and for box-filtered downsampling down to 8 m pixels."""
    return _HALO_PX + int(np.ceil(16.0 / resolution_m))


_TRANSFORMERS: dict[str, Transformer] = {}


def _to_source(crs: str) -> Transformer:
    # pyproj's transformers keep a context per thread, so one object serves all
    if crs not in _TRANSFORMERS:
        _TRANSFORMERS[crs] = Transformer.from_crs(CRS, crs, always_xy=True)
    return _TRANSFORMERS[crs]


def _overlap(tile: Tile, window: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    row, col = tile.window_origin()
    r0, r1 = max(window[0], row), min(window[1], row + tile.height)
    c0, c1 = max(window[2], col), min(window[3], col + tile.width)
    return (r0, r1, c0, c1) if r0 < r1 and c0 < c1 else None


def _by_lattice(tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
    """Groups of equal lattice, in order of their best tile."""
    groups: dict[tuple, list[Tile]] = {}
    for tile in tiles:
        groups.setdefault(tile.lattice, []).append(tile)
    yield from groups.values()


def plan_mosaic(
    grid: Grid, cells: gpd.GeoDataFrame, tiles: gpd.GeoDataFrame, *, near_year: int | None = None
) -> list[TiledBlock]:
    """Blocks with inhabited cells, each with the tiles whose footprints touch it.

    Parameters
    ----------
    grid : Grid
    cells : GeoDataFrame
        With ``row`` and ``col``.
    tiles : GeoDataFrame
        From `sesgrid.read_ortho`.
    near_year : int, optional
        Tiles of the nearest year come first, then the newer, then the finer, then by path.

    Raises
    ------
    MissingInputError
        No tile touches any cell.
    """
    ranked = sorted(
        (
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
        ),
        key=lambda t: (*_year_rank(t.year, near_year), t.resolution_m, t.path),
    )
    order = {t.path: k for k, t in enumerate(ranked)}
    by_path = {t.path: t for t in ranked}
    blocks = plan_blocks(grid, cells["row"].to_numpy(), cells["col"].to_numpy())
    squares = np.array([box(*grid.block_bounds(b.block_row, b.block_col)) for b in blocks])
    hits: dict[int, list[str]] = {k: [] for k in range(len(blocks))}
    for b, t in zip(*tiles.sindex.query(squares, predicate="intersects"), strict=True):
        hits[int(b)].append(str(tiles["path"].iloc[int(t)]))
    if not any(hits.values()):
        west, south, east, north = tiles.total_bounds
        raise MissingInputError(
            f"none of the {len(tiles)} tiles shows any of the {len(cells)} cells: the tiles cover "
            f"eastings {west:.0f}–{east:.0f} and northings {south:.0f}–{north:.0f} (EPSG:3035), the cells "
            f"{cells.total_bounds.round().tolist()}; check the département of the delivery"
        )
    return [
        TiledBlock(b, tuple(by_path[p] for p in sorted(set(hits[k]), key=order.__getitem__)))
        for k, b in enumerate(blocks)
    ]


def _year_rank(year: int | None, near: int | None) -> tuple[int, int]:
    if year is None:
        return (10_000, 0)
    return (abs(year - near) if near is not None else 0, -year)


def mosaic(
    cells: gpd.GeoDataFrame,
    tiles: gpd.GeoDataFrame,
    reader: Reader,
    *,
    pixels_per_cell: int = 800,
    cells_per_block: int = 8,
    resampling: str = "bilinear",
    near_year: int | None = None,
) -> xr.Dataset:
    """Aerial pixels of the cells, lazily.

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
    resampling : {"bilinear"}
    near_year : int, optional
        Preferred year of the imagery.

    Returns
    -------
    xarray.Dataset
        ``image`` uint8 ``(band, y, x)`` RGB and ``coverage`` uint8 ``(y, x)`` (0 outside, 1 observed, 2
        nodata, 3 read failed), EPSG:3035, one dask chunk a block. Only the given cells are drawn; all
        else is zero.
    """
    grid = Grid(pixels_per_cell, cells_per_block)
    work = plan_mosaic(grid, cells, tiles, near_year=near_year)
    extent = Extent.of_cells(grid, cells["row"], cells["col"])
    results = place(Mosaic(grid, reader, resampling), work, name="mosaic")
    return lazy_pixels(results, [w.block for w in work], extent, {"image": 3, "coverage": 0})
