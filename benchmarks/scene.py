"""Aerial-like pixels in a JPEG 2000, fixed by a seed."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from scipy import ndimage

from sesgrid.grid import CELL_M, CRS, cell_id_of
from sesgrid.sources.cell_geometry import cell_squares

__all__ = ["aerial_texture", "town_cells", "write_jp2"]

L93 = "EPSG:2154"
ROW, COL = -14_400, 18_784
"""North-west cell of the town, the corner of a group of blocks: near Paris."""


def town_cells(side: int, offset: tuple[int, int] = (0, 0)) -> gpd.GeoDataFrame:
    """``side`` × ``side`` cells, all inhabited, from some cells off the corner of a group on."""
    top, left = ROW + offset[0], COL + offset[1]
    row, col = (a.ravel() for a in np.mgrid[top : top + side, left : left + side])
    squares = cell_squares(-(row + 1) * CELL_M, col * CELL_M)
    index = [cell_id_of(int(r), int(c)) for r, c in zip(row, col, strict=True)]
    return gpd.GeoDataFrame({"row": row, "col": col}, geometry=squares, crs=CRS, index=index)


def write_jp2(
    path: Path, side: int, resolution_m: float, *, tile_px: int = 1024, seed: int = 0
) -> Path:
    """A raster that covers a town of ``side`` × ``side`` cells, in tiles of 1024 pixels as GDAL writes.

    Its texture has the sharpness of roofs and streets and 0.3 bytes a pixel, as deliveries have; it decodes
    as fast as a photograph compressed alike.
    """
    corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)]) * side * CELL_M
    x, y = Transformer.from_crs(CRS, L93, always_xy=True).transform(
        COL * CELL_M + corners[:, 0], -ROW * CELL_M - corners[:, 1]
    )
    # deliveries are cut at kilometres, so that three levels of theirs fit tile to tile
    margin, step = 20 * resolution_m, 8 * resolution_m
    left, top = np.floor((min(x) - margin) / step) * step, np.ceil((max(y) + margin) / step) * step
    width = int(np.ceil((max(x) + margin - left) / step)) * 8
    height = int(np.ceil((top - min(y) + margin) / step)) * 8
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=3, height=height, width=width, dtype="uint8",
        crs=L93, transform=Affine(resolution_m, 0, left, 0, -resolution_m, top),
        QUALITY="10", REVERSIBLE="NO", BLOCKXSIZE=str(tile_px), BLOCKYSIZE=str(tile_px),
    ) as raster:  # fmt: skip
        raster.write(aerial_texture(height, width, np.random.default_rng(seed)))
    return path


def aerial_texture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 ``(band, y, x)``: patches with sharp borders, shading and grain, repeated."""
    n = 1024
    patches = ndimage.gaussian_filter(rng.random((n, n)), 6)
    levels = np.digitize(patches, np.quantile(patches, [0.2, 0.4, 0.6, 0.8]))
    colours = rng.integers(50, 210, (5, 3))
    shade = 1 + 0.15 * np.sin(np.arange(n) / 40)[:, None]
    image = colours[levels].transpose(2, 0, 1) * shade + rng.normal(0, 7, (3, n, n))
    tiles = -(-height // n), -(-width // n)
    return np.tile(np.clip(image, 0, 255).astype(np.uint8), (1, *tiles))[:, :height, :width]
