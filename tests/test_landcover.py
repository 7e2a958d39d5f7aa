"""Land cover on the grid: the same pixels as GDAL, only in the listed cells."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
from shapely import box

from sesgrid import landcover
from sesgrid.errors import FormatError, MissingInputError
from sesgrid.grid import Extent, Grid
from sesgrid.store.georeference import georeference
from tests.test_mosaic import COL, ROW, cells


def polygons():
    rng = np.random.default_rng(0)
    west, north = COL * 200, -ROW * 200
    corners = rng.uniform(0, 900, (40, 2))
    shapes = [
        box(west + x, north - y - 170, west + x + 230, north - y).buffer(-11, join_style="mitre")
        for x, y in corners
    ]
    return gpd.GeoDataFrame({"value": rng.integers(0, 20, 40)}, geometry=shapes, crs=3035)


@pytest.mark.parametrize("block", [3, 8])
def test_pixels_are_gdals(block):
    import xarray as xr

    table = cells(5).iloc[::2]
    extent = Extent.of_cells(Grid(40, block), table["row"], table["col"])
    pixels = georeference(xr.Dataset({"c": (("y", "x"), np.zeros(extent.shape_px))}), extent)
    land = polygons()
    burnt = landcover(pixels, table, land).compute()
    assert burnt.rio.crs.to_epsg() == 3035
    expected = rasterio.features.rasterize(
        zip(land.geometry, land["value"], strict=True),
        out_shape=extent.shape_px,
        transform=extent.transform,
        dtype="uint8",
    )
    inside = np.zeros(extent.shape_px, dtype=bool)
    for row, col in zip(table["row"], table["col"], strict=True):
        inside[extent.cell_slices(row, col)] = True
    np.testing.assert_array_equal(burnt.values, np.where(inside, expected, 0))
    assert len(np.unique(burnt.values)) > 10


def test_polygons_without_values_are_refused():
    import xarray as xr

    table = cells(2)
    extent = Extent.of_cells(Grid(40, 8), table["row"], table["col"])
    pixels = georeference(xr.Dataset({"c": (("y", "x"), np.zeros(extent.shape_px))}), extent)
    with pytest.raises(FormatError, match="'value'"):
        landcover(pixels, table, polygons().drop(columns="value"))
    with pytest.raises(FormatError, match="'value'"):
        landcover(pixels, table, polygons().assign(value=300))
    elsewhere = polygons()
    elsewhere.geometry = elsewhere.translate(1e6)
    with pytest.raises(MissingInputError, match="none of the 40 land-cover polygons"):
        landcover(pixels, table, elsewhere)
