"""A metropolitan France that is made up: its inhabited cells, their census and the tiles that show them.

The outline is France's to some ten kilometres. 35,000 communes lie in it at random, their sizes after Zipf's
law, their cells around them in a bell; a third of the cells are farms and hamlets anywhere. That gives what a
national run has to cope with: 2.3 million cells in some 200,000 blocks, most of which hold a few cells and
some of which are full.

The tiles are GeoTIFFs of 5 km without a pixel: half a kilobyte each, read as nodata.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import from_origin

__all__ = ["CELLS", "France", "draw_france", "write_census", "write_tiles"]

CELLS = 2_300_000
"""Inhabited cells of metropolitan France."""

CELL_M, TILE_M, TILE_PX = 200, 5000, 25_000

_OUTLINE = (
    (2.4, 51.05), (4.1, 50.0), (6.1, 49.5), (8.2, 48.97), (7.6, 47.6), (6.1, 46.2), (6.9, 45.8), (7.5, 43.75),
    (5.2, 43.3), (3.1, 43.2), (3.1, 42.4), (-1.8, 43.35), (-1.2, 45.6), (-2.2, 47.2), (-4.8, 47.9),
    (-4.8, 48.5), (-2.0, 48.65), (-1.7, 49.7), (0.1, 49.5), (1.7, 50.9),
)  # fmt: skip
"""Longitude and latitude."""

_COMMUNES, _DEPARTEMENTS, _FARMS = 35_000, 96, 0.31


@dataclass(frozen=True)
class France:
    """Inhabited cells, by id."""

    northing_m: np.ndarray
    """int64 ``(cell,)``, of the south-west corner."""
    easting_m: np.ndarray
    commune: np.ndarray
    """int64 ``(cell,)``, 0 …: the nearest."""
    departement: np.ndarray
    """int64 ``(commune,)``, 0 …"""


def draw_france(cells: int = CELLS, seed: int = 0) -> France:
    """Draw the inhabited cells.

    Parameters
    ----------
    cells : int
        Fewer cells make a smaller country of the same density.
    seed : int
    """
    rng = np.random.default_rng(seed)
    land = shapely.Polygon(_OUTLINE)
    to_grid = Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True)
    land = shapely.transform(land, lambda p: np.column_stack(to_grid.transform(*p.T)))
    scale = (cells / CELLS) ** 0.5
    land = shapely.affinity.scale(land, scale, scale)
    communes = max(1, round(_COMMUNES * cells / CELLS))
    centres = _inside(land, communes, rng)
    size = 1 / (1 + rng.permutation(communes)) ** 0.6
    farms = _inside(land, round(_FARMS * cells), rng)
    drawn = [np.unique(farms // CELL_M, axis=0)]
    shapely.prepare(land)
    while sum(map(len, drawn)) < cells:
        at = rng.choice(communes, cells // 2, p=size / size.sum())
        spread = 250 + 9000 * size[at] ** 0.8
        points = centres[at] + rng.normal(size=(len(at), 2)) * spread[:, None]
        points = points[shapely.contains_xy(land, *points.T)]
        drawn = [np.unique(np.concatenate([*drawn, points // CELL_M]), axis=0)]
    found = drawn[0]
    found = found[np.sort(rng.choice(len(found), cells, replace=False))].astype(np.int64)
    nearest = shapely.STRtree(shapely.points(centres)).nearest(shapely.points(found * CELL_M))
    # départements: columns of strips of equally many communes
    side = max(1, round(_DEPARTEMENTS**0.5))
    column = np.argsort(np.argsort(centres[:, 0])) * side // communes
    departement = np.zeros(communes, np.int64)
    for c in range(side):
        of = np.flatnonzero(column == c)
        departement[of] = c * side + np.argsort(np.argsort(centres[of, 1])) * side // len(of)
    return France(found[:, 1] * CELL_M, found[:, 0] * CELL_M, nearest.astype(np.int64), departement)


def _inside(land: shapely.Polygon, n: int, rng: np.random.Generator) -> np.ndarray:
    """Points of a polygon, float64 ``(point, 2)``, (x, y)."""
    west, south, east, north = land.bounds
    out, have = [], 0
    shapely.prepare(land)
    while have < n:
        points = rng.uniform((west, south), (east, north), (2 * n, 2))
        out.append(points[shapely.contains_xy(land, *points.T)])
        have += len(out[-1])
    return np.concatenate(out)[:n]


def write_census(france: France, path: Path, seed: int = 0) -> Path:
    """The cells as INSEE's file of 2019 has them, as parquet."""
    rng = np.random.default_rng(seed)
    n = len(france.northing_m)
    people = np.maximum(1, rng.lognormal(2.5, 1.2, n).round(1))
    income = rng.normal(23_000, 4_000, n).clip(8_000, 60_000)
    north, east = (v.astype(str) for v in (france.northing_m, france.easting_m))
    of = france.departement[france.commune] % 95 + 1
    communes = [f"{d:02d}{c % 1000:03d}" for d, c in zip(of, france.commune, strict=True)]
    table = pd.DataFrame(
        {
            "idcar_200m": np.char.add(
                np.char.add("CRS3035RES200mN", north), np.char.add("E", east)
            ),
            "i_est_200": (people < 25).astype(np.int64),
            "lcog_geo": communes,
            "ind": people,
            "men": np.maximum(1, (people / 2.2).round()),
            "ind_snv": (people * income).round(1),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False)
    return path


def write_tiles(france: France, folder: Path, year: int = 2020) -> int:
    """The tiles that hold cells, in Lambert-93; how many there are.

    A folder per département would hold neighbours' tiles twice, as real deliveries do; here each once.
    """
    to_tiles = Transformer.from_crs("EPSG:3035", "EPSG:2154", always_xy=True)
    corners = [
        to_tiles.transform(france.easting_m + dx, france.northing_m + dy)
        for dx in (0, CELL_M)
        for dy in (0, CELL_M)
    ]
    at = np.unique(
        np.concatenate([np.column_stack(c) // TILE_M for c in corners]).astype(np.int64), axis=0
    )
    folder.mkdir(parents=True, exist_ok=True)
    blank, where = _blank(folder / "blank.tif")
    for col, row in at.tolist():
        left, top = col * TILE_M, (row + 1) * TILE_M
        data = bytearray(blank)
        data[where : where + 16] = struct.pack("<2d", left, top)
        name = f"99-{year}-{left // 1000:04d}-{top // 1000:04d}-LA93-0M20-E080.tif"
        (folder / name).write_bytes(data)
    return len(at)


def _blank(path: Path) -> tuple[bytes, int]:
    """A tile without pixels, and where its file says its west and north."""
    west, north = 123_455.0, 6_543_215.0
    with rasterio.open(
        path, "w", driver="GTiff", width=TILE_PX, height=TILE_PX, count=3, dtype="uint8", crs="EPSG:2154",
        transform=from_origin(west, north, TILE_M / TILE_PX, TILE_M / TILE_PX), sparse_ok=True, nodata=0,
        blockysize=TILE_PX, photometric="RGB",
    ):  # fmt: skip
        pass
    data = path.read_bytes()
    path.unlink()
    return data, data.index(struct.pack("<2d", west, north))
