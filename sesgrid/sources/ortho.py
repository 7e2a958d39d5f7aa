"""Orthophotos as an index of tiles: where each lies, in which CRS, how fine, of which year.

Only headers are opened. A raster's own georeferencing wins; without one, its name gives
the corner. `RasterReader` reads the pixels.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from sesgrid.errors import ConfigError, FormatError, ReadError, SesgridWarning
from sesgrid.grid import CRS as GRID_CRS
from sesgrid.sources.delivery import TileFile, find_tiles
from sesgrid.sources.gdal_says import warn_of_remarks
from sesgrid.sources.georeference import footprints, pixel_size
from sesgrid.sources.raster import RasterHeader, read_header
from sesgrid.sources.tile_name import TileName, parse_tile_name, year_of_delivery

__all__ = ["LAMBERT_93", "read_ortho"]

LAMBERT_93 = "EPSG:2154"
"""``LA93`` in tile names."""

_SAME_M = 0.001


@dataclass(frozen=True)
class _Placed:
    """A tile with its place; fields as the columns of `read_ortho`."""

    path: str
    crs: str
    resolution_m: float
    year: int | None
    left: float
    top: float
    width: int
    height: int
    delivery: str


def read_ortho(
    path: str | Path | Sequence[str | Path],
    *,
    default_crs: str | None = None,
    fill_values: Sequence[int] = (),
) -> gpd.GeoDataFrame:
    """Index the RGB tiles of orthophotos.

    Parameters
    ----------
    path : path or list of paths
        A BD ORTHO delivery, a folder of deliveries (départements side by side), a folder of
        rasters, or a raster: JP2, GeoTIFF, JPEG with world file.
    default_crs : str, optional
        CRS of tiles that neither say theirs nor have ``LA93`` in a BD ORTHO name.
    fill_values : sequence of int
        Values that the reader is told to take for no imagery, so that they need no warning.

    Returns
    -------
    GeoDataFrame
        A row per tile, by path: ``path`` (absolute), ``crs`` (``EPSG:…``, else WKT),
        ``resolution_m``, ``year`` (Int64, of the name, else the delivery, else the TIFF tag, else
        NA), ``left`` and ``top`` (outer north-west corner in the tile's CRS, metres), ``width`` and
        ``height`` (pixels), ``delivery``, and the footprint in EPSG:3035, each edge in 16 parts.

    Raises
    ------
    MissingInputError
        No such path, or no raster in it.
    FormatError
        Infrared only, not 8-bit RGB, of another kind than its suffix says, no georeferencing or CRS,
        rotated or oblong pixels, units other than metres, or a name that contradicts the raster.
    UnsafePathError
        A name in ``dalles.shp`` leads out of the delivery, or a raster would have others read.
    ReadError
        A raster cannot be opened, and no readable tile like it tells its size.

    Warns
    -----
    SesgridWarning
        Tiles left out (infrared, missing, not listed), or kept although they cannot be opened; a fourth
        band that is called alpha and is no mask; corners or borders of one colour that nothing marks.
    """
    tiles = find_tiles(path)
    with ThreadPoolExecutor(8) as pool:  # opening waits for the disk, not for the processor
        headers = list(pool.map(_header_or_error, tiles))
    _warn_of(tiles, headers, fill_values)
    default = None if default_crs is None else _known_crs(default_crs)
    placed = [
        _place(tile, header, default)
        for tile, header in zip(tiles, _stand_ins(tiles, headers), strict=True)
    ]
    frame = pd.DataFrame(placed).astype({"year": "Int64"})
    return gpd.GeoDataFrame(frame, geometry=footprints(frame), crs=GRID_CRS)


def _header_or_error(tile: TileFile) -> RasterHeader | ReadError:
    try:
        return read_header(tile.path)
    except ReadError as error:
        return error


def _warn_of(
    tiles: list[TileFile], headers: list[RasterHeader | ReadError], fill_values: Sequence[int]
) -> None:
    """What looks wrong and cannot be known to be."""
    known = [
        (t.path.name, h) for t, h in zip(tiles, headers, strict=True) if isinstance(h, RasterHeader)
    ]
    warn_of_remarks([(name, header.remarks) for name, header in known], stacklevel=3)
    odd = [name for name, header in known if header.false_alpha]
    if odd:
        warnings.warn(
            f"the fourth band of {len(odd)} tiles, first {odd[0]}, is called alpha but has values between "
            "clear and opaque, as infrared has: it is not read, and all of these tiles counts as observed",
            SesgridWarning,
            stacklevel=3,
        )
    told = [(value,) * 3 for value in fill_values]
    untold = [(n, [c for c in h.filled if c not in told]) for n, h in known]
    filled = [(n, colours[0]) for n, colours in untold if colours]
    if filled:
        name, colour = filled[0]
        warnings.warn(
            f"{len(filled)} tiles have a corner or a border of one colour, first {name} {colour}, which no "
            "nodata, alpha or mask tells to be no imagery, and which hides what other tiles show there: if "
            "it is filling, set mosaic.fill_values, or 'gdal_edit -a_nodata' the tiles",
            SesgridWarning,
            stacklevel=3,
        )


def _stand_ins(
    tiles: list[TileFile], headers: list[RasterHeader | ReadError]
) -> list[RasterHeader]:
    """Replace the headers that could not be opened: the name tells the place, siblings the size.

    So the mosaic meets the damaged tile, marks its pixels as not read, and the run goes on.
    """
    sizes = {
        tile.delivery: Counter(
            (h.width, h.height)
            for t, h in zip(tiles, headers, strict=True)
            if t.delivery == tile.delivery and isinstance(h, RasterHeader)
        )
        for tile, header in zip(tiles, headers, strict=True)
        if isinstance(header, ReadError)
    }
    result, damaged = [], []
    for tile, header in zip(tiles, headers, strict=True):
        if isinstance(header, ReadError):
            name, size = parse_tile_name(tile.path.stem), sizes[tile.delivery].most_common(1)
            if name is None or name.left_m is None or not size:
                raise header
            (width, height), _ = size[0]
            header = RasterHeader(width, height, None, None, None)
            damaged.append(tile.path.name)
        result.append(header)
    if damaged:
        warnings.warn(
            f"{len(damaged)} tiles cannot be opened, first {damaged[0]}; they are kept in the "
            "index at the place that their name tells, and their pixels will count as not read",
            SesgridWarning,
            stacklevel=3,
        )
    return result


def _place(tile: TileFile, header: RasterHeader, default_crs: str | None) -> _Placed:
    name = parse_tile_name(tile.path.stem)
    left, top, resolution = _georeference(tile.path, header, name)
    placed = _Placed(
        path=str(tile.path),
        crs=LAMBERT_93,
        resolution_m=resolution,
        year=(name.year if name else None) or year_of_delivery(tile.delivery) or header.year,
        left=left,
        top=top,
        width=header.width,
        height=header.height,
        delivery=tile.delivery,
    )
    if header.crs_wkt is not None:
        return replace(placed, crs=_metric_crs(header.crs_wkt, placed))
    if name is not None and name.lambert_93:
        return placed
    if default_crs is None:
        raise FormatError(
            f"{tile.path} says no CRS, and its name is no BD ORTHO tile's (…-LA93-…); if it is in "
            f"Lambert-93, pass default_crs={LAMBERT_93!r}, or set sources.ortho_crs"
        )
    return replace(placed, crs=default_crs)


def _georeference(
    path: Path, header: RasterHeader, name: TileName | None
) -> tuple[float, float, float]:
    """(left, top, resolution_m) of a tile; the raster's own wins over the name's."""
    if header.transform is None:
        if name is None or name.left_m is None or name.top_m is None or name.resolution_m is None:
            raise FormatError(
                f"{path} has no georeferencing: no coordinates inside, no world file beside it, "
                "and a name that tells no corner, or no resolution; add a world file (.jgw, .tfw, .j2w)"
            )
        return name.left_m, name.top_m, name.resolution_m
    resolution = pixel_size(path, header.transform, header.width, header.height)
    left, top = header.transform.c, header.transform.f
    if name is not None and name.left_m is not None and name.top_m is not None:
        off = max(abs(left - name.left_m), abs(top - name.top_m))
        if off > resolution / 2 and _is_lambert_93(header):
            raise FormatError(
                f"{path}: the name puts the north-west corner at ({name.left_m:.0f}, "
                f"{name.top_m:.0f}), the raster at ({left:.2f}, {top:.2f}), {off:.2f} m away; "
                "expected the same within half a pixel: rename the file or correct it"
            )
    return left, top, resolution


def _is_lambert_93(header: RasterHeader) -> bool:
    """Whether the name's kilometres and the raster's coordinates are in the same CRS."""
    return header.crs_wkt is None or _known_crs(header.crs_wkt) == LAMBERT_93


@lru_cache(maxsize=256)
def _known_crs(text: str) -> str:
    """``EPSG:…`` where the CRS is, or has the effect of, a known one; else WKT."""
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise ConfigError(f"{text!r} is no CRS: {error}; expected one like 'EPSG:2154'") from error
    code = crs.to_epsg()
    if code is not None:
        return f"EPSG:{code}"
    if crs.is_projected:
        for candidate in (LAMBERT_93, GRID_CRS):
            if _same_in_effect(crs, candidate):
                return candidate
    return crs.to_wkt()


def _same_in_effect(crs: CRS, candidate: str) -> bool:
    """Whether coordinates of metropolitan France keep their value, to a millimetre.

    A CRS without name or code, as some GeoTIFFs carry, is known by what it does.
    """
    lon, lat = np.meshgrid(np.linspace(-5.0, 9.5, 5), np.linspace(41.5, 51.0, 5))
    known = Transformer.from_crs("EPSG:4171", candidate, always_xy=True)
    x, y = known.transform(lon.ravel(), lat.ravel())
    u, v = Transformer.from_crs(candidate, crs, always_xy=True).transform(x, y)
    return bool(np.hypot(u - x, v - y).max() < _SAME_M)


def _metric_crs(wkt: str, tile: _Placed) -> str:
    text = _known_crs(wkt)
    crs = CRS.from_user_input(text)
    if not crs.is_projected or any(a.unit_conversion_factor != 1.0 for a in crs.axis_info[:2]):
        raise FormatError(
            f"{tile.path} is in {crs.name}: expected a projected CRS in metres; convert it with "
            "'gdalwarp -t_srs EPSG:2154'"
        )
    return text
