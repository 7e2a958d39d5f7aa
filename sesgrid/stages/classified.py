"""A land cover that is a raster: class values of any grid → class pixels, by nearest neighbour."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import xarray as xr

from sesgrid.errors import ReadError
from sesgrid.grid import CRS, Extent, Grid
from sesgrid.kernels.warp import warp
from sesgrid.stages.mosaic import TiledBlock, plan_mosaic
from sesgrid.stages.place import BlockResult, lazy_pixels, place
from sesgrid.stages.scene import OBSERVED, CellSource, Reader, Units

__all__ = ["Classified", "classified"]


@dataclass(frozen=True)
class Classified:
    """The stage: draws the class pixels of blocks from classified rasters."""

    grid: Grid
    reader: Reader

    def __call__(self, items: Sequence[TiledBlock]) -> list[BlockResult]:
        """One `BlockResult` per block: ``landcover`` (y, x) uint8."""
        return list(self.each(items))

    def each(self, items: Sequence[TiledBlock]) -> Iterator[BlockResult]:
        """The blocks one after the other; what one reads serves the next."""
        units = Units(self.reader)
        sources = [item.sources(self.grid, units) for item in items]
        units.expect(s for of_block in sources for of_cell in of_block for s in of_cell)
        for item, of_block in zip(items, sources, strict=True):
            started = time.perf_counter()
            n = self.grid.block_px
            out, filled = np.zeros((n, n), np.uint8), np.zeros((n, n), bool)
            for cell, of_cell in zip(item.block.cells, of_block, strict=True):
                at = self.grid.cell_slices(*self.grid.cell_in_block(*cell))
                for source in of_cell:
                    self._draw(source, cell, units, out[at], filled[at])
                for source in of_cell:
                    units.release(source)
            if units.errors:
                # a class that is missing by accident would be taken for land of no class
                raise ReadError("; ".join(units.errors.values()))
            seconds = time.perf_counter() - started
            yield BlockResult(item.block, {"landcover": out}, seconds=seconds)

    def _draw(
        self,
        source: CellSource,
        cell: tuple[int, int],
        units: Units,
        out: np.ndarray,
        filled: np.ndarray,
    ) -> None:
        """Fill what no better raster has said anything of; "no class" is said too."""
        values, state = units.paste(source)
        p = self.grid.pixels_per_cell
        grid = source.grid
        drawn, seen = warp(
            values, grid.transform(source.window[0], source.window[2]), grid.crs,
            (p, p), self.grid.cell_transform(*cell), CRS, "nearest",
            source_valid=state == OBSERVED,
        )  # fmt: skip
        new = ~filled & (seen == 1)
        out[new], filled[new] = drawn[0, new], True


def classified(
    pixels: xr.Dataset, cells: gpd.GeoDataFrame, rasters: gpd.GeoDataFrame, reader: Reader
) -> xr.DataArray:
    """Class pixels on the grid of an existing mosaic, from classified rasters, lazily.

    Parameters
    ----------
    pixels : xarray.Dataset
        From `sesgrid.mosaic` or the ``pixels`` of a cube.
    cells : GeoDataFrame
        From `sesgrid.cells`.
    rasters : GeoDataFrame
        From `sesgrid.read_class_rasters`; the finer first where they overlap.
    reader : Reader
        ``sesgrid.ClassReader.of(sesgrid.read_class_table("classes.csv"))``.

    Returns
    -------
    xarray.DataArray
        uint8 ``(y, x)``, 0 = no class; EPSG:3035.
    """
    extent = Extent.from_attributes(pixels.attrs)
    work = plan_mosaic(extent.grid, cells, rasters, prefer=("finest",))
    results = place(Classified(extent.grid, reader), work, name="classified")
    blocks = [item.block for item in work]
    return lazy_pixels(results, blocks, extent, {"landcover": 0})["landcover"]
