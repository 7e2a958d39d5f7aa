"""The synthetic city's land cover, as the Urban Atlas 2018 delivers it."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely

from sesgrid.grid import CRS
from sesgrid.synth.classes import NAMES, RESIDENTIAL

__all__ = ["land_use_table", "write_landcover"]

_FUA, _NAME = "FR099L1", "SYNTHEVILLE"
_PEOPLE_A_HOME = 2.25
_LAYER = f"{_FUA}_{_NAME}_UA2018"


def land_use_table(
    polygons: np.ndarray, codes: np.ndarray, west_m: int, south_m: int, side_m: float
) -> gpd.GeoDataFrame:
    """Land-use polygons clipped to the city's square, with the columns of the real layer.

    Parameters
    ----------
    polygons, codes : np.ndarray
        ``(polygon,)``, local metres, and their classes.
    west_m, south_m : int
        The city's south-west corner in EPSG:3035.
    """
    clipped = shapely.intersection(polygons, shapely.box(0, 0, side_m, side_m))
    parts, source = shapely.get_parts(clipped, return_index=True)
    keep = (shapely.get_type_id(parts) == 3) & (shapely.area(parts) > 0)
    parts, codes = parts[keep], codes[source[keep]]
    placed = shapely.transform(parts, lambda xy: xy + np.array([west_m, south_m]))
    density = np.array([RESIDENTIAL.get(int(c), 0.0) for c in codes]) * _PEOPLE_A_HOME / 1e4
    identifiers = [f"{i + 1}-{_FUA}" for i in range(len(placed))]
    return gpd.GeoDataFrame(
        {
            "country": "FR",
            "fua_name": _NAME.title(),
            "fua_code": _FUA,
            "code_2018": codes.astype(str),
            "class_2018": [NAMES[int(c)] for c in codes],
            "prod_date": "2020-07",
            "identifier": identifiers,
            "perimeter": shapely.length(placed),
            "area": shapely.area(placed),
            "comment": "",
            "Pop2018": np.round(shapely.area(placed) * density).astype(np.int64),
        },
        geometry=shapely.multipolygons([[p] for p in placed]),
        crs=CRS,
    )


def write_landcover(folder: Path, land_use: gpd.GeoDataFrame, square: shapely.Polygon) -> Path:
    """Write the GeoPackage with its three layers; returns its path.

    Parameters
    ----------
    square : shapely.Polygon
        The city in EPSG:3035; the urban core is its inner part.
    """
    target = folder / f"{_LAYER}_v013.gpkg"
    attributes = {"country": ["FR"], "fua_name": [_NAME.title()], "fua_code": [_FUA]}
    core = square.buffer(-square.length / 40, join_style="mitre")
    layers = {
        _LAYER: land_use,
        f"{_LAYER}_Boundary": gpd.GeoDataFrame(
            attributes, geometry=[shapely.MultiPolygon([square])], crs=CRS
        ),
        f"{_LAYER}_UrbanCore": gpd.GeoDataFrame(
            attributes, geometry=[shapely.MultiPolygon([core])], crs=CRS
        ),
    }
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    # GeoPackage notes when a layer last changed: a fixed date keeps two runs equal
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2020-07-01T00:00:00.000Z"})
    try:
        for name, layer in layers.items():
            layer.to_file(target, layer=name, driver="GPKG", engine="pyogrio")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
    return target
