"""The synthetic city's picture, cut into a BD ORTHO delivery of JPEG 2000 tiles."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine

from sesgrid.errors import ConfigError
from sesgrid.synth.scene import Scene

__all__ = ["TILE_M", "resolution_code", "tile_size_px", "write_ortho"]

TILE_M = 1000
"""Side of a tile; real ones measure 5 km, a small city should have seams too."""

_DEPARTMENT, _YEAR = "99", 2019
_MARGIN_M = 60.0
_QUALITY = 25
"""OpenJPEG's share of the raw size, per cent: errors of about two grey levels."""


def tile_size_px(resolution_m: float) -> int:
    """Pixels along a tile.

    Raises
    ------
    ConfigError
        The resolution is not a whole number of centimetres that divides a tile.

    Examples
    --------
    >>> tile_size_px(0.8)
    1250
    """
    fit = [c for c in range(10, 501) if TILE_M * 100 % c == 0]
    centimetres = round(resolution_m * 100) if np.isfinite(resolution_m) else 0
    if centimetres not in fit or abs(resolution_m * 100 - centimetres) > 1e-6:
        raise ConfigError(
            f"resolution_m must divide a tile of {TILE_M} m in whole centimetres: expected one of "
            f"{', '.join(f'{c / 100:g}' for c in fit)}; received {resolution_m!r}"
        )
    return TILE_M * 100 // centimetres


def resolution_code(resolution_m: float) -> str:
    """How IGN writes a resolution.

    >>> resolution_code(0.8), resolution_code(0.2)
    ('0M80', '0M20')
    """
    metres, centimetres = divmod(round(resolution_m * 100), 100)
    return f"{metres}M{centimetres:02d}"


def write_ortho(
    folder: Path, scene: Scene, square: shapely.Polygon, resolution_m: float
) -> tuple[Path, list[Path]]:
    """Draw and write every tile that the city touches, and the index ``dalles.shp``.

    Parameters
    ----------
    square : shapely.Polygon
        The city in Lambert-93 metres.

    Returns
    -------
    delivery : Path
        The top folder, as a user unpacks it.
    tiles : list of Path
    """
    code = resolution_code(resolution_m)
    name = f"OHR_RVB_{code}_JP2-E080_LAMB93_D{_DEPARTMENT}-{_YEAR}"
    delivery = folder / f"ORTHOHR_1-0_RVB-{code}_JP2-E080_LAMB93_D099_{_YEAR}-01-01"
    parts = {
        stem: delivery / "ORTHOHR" / f"{stem}_LIVRAISON_2020-01-00001" / name
        for stem in ("1_DONNEES", "2_METADONNEES", "3_SUPPLEMENTS")
    }
    for part in parts.values():
        part.mkdir(parents=True)
    (parts["2_METADONNEES"] / "LISEZ-MOI.txt").write_text(
        "Synthetic orthophotos: no real place.\n", encoding="utf-8"
    )
    needed = square.buffer(_MARGIN_M)
    xmin, ymin, xmax, ymax = (int(v // TILE_M) for v in needed.bounds)
    tiles, outlines = [], []
    for top_km in range(ymax + 1, ymin, -1):
        for left_km in range(xmin, xmax + 1):
            box = shapely.box(
                left_km * TILE_M, (top_km - 1) * TILE_M, (left_km + 1) * TILE_M, top_km * TILE_M
            )
            if needed.intersects(box):
                stem = f"{_DEPARTMENT}-{_YEAR}-{left_km:04d}-{top_km:04d}-LA93-{code}-E080"
                tiles.append(parts["1_DONNEES"] / f"{stem}.jp2")
                outlines.append(box)
                _write_tile(tiles[-1], scene, left_km, top_km, resolution_m)
    index = gpd.GeoDataFrame(
        {"NOM": [f"./{t.name}" for t in tiles]}, geometry=outlines, crs="EPSG:2154"
    )
    index.to_file(parts["3_SUPPLEMENTS"] / "dalles.shp", engine="pyogrio")
    return delivery, tiles


def _write_tile(path: Path, scene: Scene, left_km: int, top_km: int, resolution_m: float) -> None:
    west, north = left_km * TILE_M, top_km * TILE_M
    base_x, base_y = scene.frame.base_m
    size = tile_size_px(resolution_m)
    pixels = scene.window(float(west - base_x), float(north - base_y), resolution_m, size)
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        width=size,
        height=size,
        count=3,
        dtype="uint8",
        crs="EPSG:2154",
        transform=Affine(resolution_m, 0, west, 0, -resolution_m, north),
        photometric="RGB",
        QUALITY=_QUALITY,
    ) as target:
        target.write(pixels.transpose(2, 0, 1))
