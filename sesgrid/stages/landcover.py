"""Land cover: polygons → class pixels, burnt per block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from shapely import box

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.grid import Extent, Grid
from sesgrid.kernels.burn import burn_polygons
from sesgrid.stages.place import (
    BlockCells,
    BlockResult,
    lazy_pixels,
    place,
    plan_blocks,
)

__all__ = [
    "Landcover",
    "LandcoverIndex",
    "PolygonBlock",
    "PolygonIndex",
    "landcover",
    "plan_landcover",
]


@dataclass(frozen=True)
class PolygonBlock:
    """A block and the polygons that touch it, in the order of their file."""

    block: BlockCells
    wkb: tuple[bytes, ...]
    """Parts of polygons, EPSG:3035."""
    values: tuple[int, ...]
    """Class value of each part's polygon, 0 = no class."""


@dataclass(frozen=True)
class Landcover:
    """The stage: burns the polygons of blocks; pixels outside the listed cells stay 0."""

    grid: Grid

    def __call__(self, items: Sequence[PolygonBlock]) -> list[BlockResult]:
        """One `BlockResult` per block: ``landcover`` (y, x) uint8."""
        return list(self.each(items))

    def each(self, items: Sequence[PolygonBlock]) -> Iterator[BlockResult]:
        """The blocks one after the other."""
        return (self._block(item) for item in items)

    def _block(self, item: PolygonBlock) -> BlockResult:
        started = time.perf_counter()
        block = item.block
        burnt = burn_polygons(
            shapely.from_wkb(np.array(item.wkb, dtype=object)),
            np.array(item.values, dtype=np.uint8),
            (self.grid.block_px, self.grid.block_px),
            self.grid.block_transform(block.block_row, block.block_col),
        )
        kept = np.zeros_like(burnt)
        for cell in block.cells:
            at = self.grid.cell_slices(*self.grid.cell_in_block(*cell))
            kept[at] = burnt[at]
        return BlockResult(block, {"landcover": kept}, seconds=time.perf_counter() - started)


class PolygonIndex:
    """Polygons, found by the squares that they touch; one spatial index for all questions.

    Part by part: of a road network that is one geometry, only what touches a square goes there. Parts
    of a polygon burn alike, so the pixels are those of the whole.

    Parameters
    ----------
    polygons : GeoDataFrame
        EPSG:3035.
    """

    def __init__(self, polygons: gpd.GeoDataFrame) -> None:
        self._parts, self._owner = shapely.get_parts(
            np.asarray(polygons.geometry.values), return_index=True
        )
        self._tree = shapely.STRtree(self._parts)

    def on(self, squares: np.ndarray) -> list[tuple[tuple[bytes, ...], tuple[int, ...]]]:
        """Which parts of which polygons touch each square.

        Parameters
        ----------
        squares : np.ndarray
            Boxes ``(square,)``, EPSG:3035.

        Returns
        -------
        list of (WKB of the parts, rows of their polygons)
            Per square, in the order of the polygons: where they overlap, the later wins.
        """
        hits: list[list[int]] = [[] for _ in squares]
        for square, part in zip(*self._tree.query(squares, "intersects"), strict=True):
            hits[int(square)].append(int(part))
        return [
            (tuple(shapely.to_wkb(self._parts[sorted(h)])), tuple(self._owner[sorted(h)].tolist()))
            for h in hits
        ]


class LandcoverIndex:
    """Land-cover polygons, found by the blocks that they touch.

    Parameters
    ----------
    grid : Grid
    polygons : GeoDataFrame
        From `sesgrid.read_urban_atlas` or `sesgrid.read_landcover`; ``value`` is the pixel value, 0…255,
        0 = no class.

    Raises
    ------
    FormatError
        The polygons have no ``value`` column, or one out of range.
    """

    def __init__(self, grid: Grid, polygons: gpd.GeoDataFrame) -> None:
        if "value" not in polygons or not polygons["value"].between(0, 255).all():
            raise FormatError(
                "land-cover polygons need a column 'value' of whole numbers from 0 (no class) to 255; "
                f"received columns {', '.join(map(str, polygons.columns))}"
            )
        self.grid, self._codes = grid, polygons["value"].to_numpy(dtype=np.uint8)
        self._index, self._bounds = PolygonIndex(polygons), polygons.total_bounds

    def items(self, blocks: Sequence[BlockCells]) -> list[PolygonBlock]:
        """Each block with the polygons that touch it."""
        squares = np.array([box(*self.grid.block_bounds(b.block_row, b.block_col)) for b in blocks])
        return [
            PolygonBlock(b, wkb, tuple(self._codes[list(rows)].tolist()))
            for b, (wkb, rows) in zip(blocks, self._index.on(squares), strict=True)
        ]

    def require_any(self, blocks: Iterable[Sequence[BlockCells]]) -> None:
        """Refuse polygons that touch none of the blocks, which are looked at until one is touched.

        Raises
        ------
        MissingInputError
        """
        n = 0
        for some in blocks:
            n += len(some)
            if any(item.wkb for item in self.items(some)):
                return
        west, south, east, north = (round(float(v)) for v in self._bounds)
        raise MissingInputError(
            f"none of the {len(self._codes)} land-cover polygons touches any of the {n} blocks: they "
            f"cover eastings {west}–{east} and northings {south}–{north} (EPSG:3035); is it the "
            "land cover of this city?"
        )


def plan_landcover(
    grid: Grid, blocks: Sequence[BlockCells], polygons: gpd.GeoDataFrame
) -> list[PolygonBlock]:
    """Blocks, each with the polygons that touch it; see `LandcoverIndex`.

    Raises
    ------
    FormatError
        The polygons have no ``value`` column, or one out of range.
    MissingInputError
        No polygon touches any block.
    """
    index = LandcoverIndex(grid, polygons)
    index.require_any([blocks])
    return index.items(blocks)


def landcover(
    pixels: xr.Dataset,
    cells: gpd.GeoDataFrame,
    polygons: gpd.GeoDataFrame,
) -> xr.DataArray:
    """Class pixels on the grid of an existing mosaic, lazily.

    Parameters
    ----------
    pixels : xarray.Dataset
        From `sesgrid.mosaic` or the ``pixels`` of a cube.
    cells : GeoDataFrame
        From `sesgrid.cells`.
    polygons : GeoDataFrame
        From `sesgrid.read_urban_atlas` or `sesgrid.read_landcover`; where they overlap, the later wins.

    Returns
    -------
    xarray.DataArray
        uint8 ``(y, x)``, 0 = no class; EPSG:3035.
    """
    extent = Extent.from_attributes(pixels.attrs)
    blocks = plan_blocks(extent.grid, cells["row"].to_numpy(), cells["col"].to_numpy())
    work = plan_landcover(extent.grid, blocks, polygons)
    results = place(Landcover(extent.grid), work, name="landcover")
    return lazy_pixels(results, blocks, extent, {"landcover": 0})["landcover"]
