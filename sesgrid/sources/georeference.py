"""Where a raster lies: square pixels, north up, at finite coordinates; and its outline on the grid."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from affine import Affine

from sesgrid.errors import FormatError
from sesgrid.grid import CRS

__all__ = ["footprints", "pixel_size"]

_EDGE_PARTS = 16

_FARTHEST_M = 5e7
"""No projected coordinate of the Earth is as large."""


def pixel_size(path: Path, transform: Affine, width: int, height: int) -> float:
    """Side of a pixel of a raster, metres.

    Raises
    ------
    FormatError
        Numbers that are none or too large, rotated or oblong pixels, south up.
    """
    t = transform
    corners = (t.c, t.f, t.c + t.a * width, t.f + t.e * height)
    if not np.isfinite(tuple(t)[:6]).all() or max(map(abs, corners)) > _FARTHEST_M:
        raise FormatError(
            f"{path} is georeferenced at ({t.c:g}, {t.f:g}) with pixels of {t.a:g} × {t.e:g}: expected "
            "metres on the Earth; correct its world file or .aux.xml, or 'gdal_edit -a_ullr' it"
        )
    slack = 0.01 * abs(t.a) / max(width, height)  # a hundredth of a pixel over the whole raster
    if t.a <= 0 or max(abs(t.b), abs(t.d), abs(t.a + t.e)) > slack:
        raise FormatError(
            f"{path}: pixels of {t.a:g} × {t.e:g} with rotation terms {t.b:g}, {t.d:g}: expected square "
            f"pixels, north up; convert it with 'gdalwarp -tr R -R {path.name} out.tif' (classes: -r near)"
        )
    return float(round(t.a, 9))


def footprints(tiles: pd.DataFrame) -> gpd.GeoSeries:
    """Outlines in EPSG:3035 of rows as those of `sesgrid.read_ortho`.

    Edges are cut before transforming, since they bend.

    Raises
    ------
    FormatError
        A tile lies where its CRS does not hold.
    """
    right = tiles["left"] + tiles["width"] * tiles["resolution_m"]
    bottom = tiles["top"] - tiles["height"] * tiles["resolution_m"]
    boxes = shapely.box(tiles["left"], bottom, right, tiles["top"])
    edge = tiles[["width", "height"]].min(axis=1) * tiles["resolution_m"]
    outlines = gpd.GeoSeries(shapely.segmentize(boxes, edge / _EDGE_PARTS), index=tiles.index)
    parts = [
        outlines.loc[rows.index].set_crs(crs).to_crs(CRS)
        for crs, rows in tiles.groupby("crs", sort=False)
    ]
    placed = gpd.GeoSeries(pd.concat(parts).reindex(tiles.index), crs=CRS)
    nowhere = ~np.isfinite(placed.bounds.to_numpy()).all(axis=1)
    if nowhere.any():
        first = tiles.loc[nowhere].iloc[0]
        raise FormatError(
            f"{first['path']} lies at ({first['left']:g}, {first['top']:g}) in {first['crs'][:40]}, which "
            "has no place in EPSG:3035: expected a tile of Europe; check its CRS and its position"
        )
    return placed
