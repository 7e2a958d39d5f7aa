"""Vectors brought to the grid: straight edges stay where they are, shared borders shared."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from pyproj import Transformer

from sesgrid.errors import FormatError
from sesgrid.sources import read_boundary, select_cells
from sesgrid.sources.reproject import TOLERANCE_M, to_grid_crs

BOXES = {
    "degrees": ("EPSG:4326", shapely.box(2, 48, 4, 49), 0.002),
    "Lambert-93": ("EPSG:2154", shapely.box(6e5, 6.75e6, 7.5e5, 6.88e6), 200),
    "UTM 31N": ("EPSG:32631", shapely.box(4e5, 5.3e6, 6e5, 5.4e6), 200),
    "Mercator of the web": ("EPSG:3857", shapely.box(2.2e5, 6.1e6, 4.4e5, 6.3e6), 200),
    "the grid itself": ("EPSG:3035", shapely.box(3.7e6, 2.8e6, 3.8e6, 2.9e6), 200),
    "a nation": ("EPSG:4326", shapely.box(-5, 42, 8, 51), 0.01),
}


def exact(crs: str, shape: shapely.Geometry, step: float) -> shapely.Geometry:
    """Every point of a fine edge transformed, by pyproj alone."""
    to = Transformer.from_crs(crs, "EPSG:3035", always_xy=True)
    fine = shapely.segmentize(shape, step)
    return shapely.transform(fine, lambda xy: np.stack(to.transform(*xy.T), axis=1))


@pytest.mark.parametrize("name", BOXES)
def test_edges_are_at_most_a_pixel_off(name: str) -> None:
    crs, box, step = BOXES[name]
    (placed,) = to_grid_crs(gpd.GeoSeries([box], crs=crs), "a")
    true = exact(crs, box, step)
    off = shapely.distance(placed.exterior, shapely.points(shapely.get_coordinates(true)))
    assert off.max() <= TOLERANCE_M
    assert len(placed.exterior.coords) < 1500
    corners = exact(crs, box, 1e9)  # the corners are exactly where they belong
    assert {*corners.exterior.coords} <= {*placed.exterior.coords}


@pytest.mark.parametrize("kind", ["gpkg", "geojson", "shp", "parquet"])
@pytest.mark.parametrize("name", ["degrees", "Lambert-93"])
def test_the_cells_of_a_rectangle_are_those_inside_its_edges(
    tmp_path: Path, kind: str, name: str
) -> None:
    crs, box, step = BOXES[name]
    frame = gpd.GeoDataFrame({"n": [1]}, geometry=[box], crs=crs)
    path = tmp_path / f"b.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "geojson":  # of today: always degrees; older ones name their CRS
        text = {"type": "name", "properties": {"name": crs}}
        path.write_text(json.dumps(json.loads(frame.to_json()) | {"crs": text}))
    else:
        frame.to_file(path)
    true = exact(crs, box, step)
    west, _, east, north = (v // 200 * 200 for v in true.bounds)
    # along the northern edge, which bends most
    e, n = np.meshgrid(np.arange(west, east, 2000), np.arange(north - 8000, north, 200))
    ids = [f"CRS3035RES200mN{int(b)}E{int(a)}" for a, b in zip(e.flat, n.flat, strict=True)]
    cells = pd.DataFrame(index=pd.Index(ids, name="cell_id"))
    expected = select_cells(cells, true, "centre").index
    assert set(select_cells(cells, read_boundary(path), "centre").index) == set(expected)
    # and the same of a frame that was never a file
    assert set(select_cells(cells, frame, "centre").index) == set(expected)


def test_shared_borders_stay_shared() -> None:
    left, right = shapely.box(2, 48, 3, 49), shapely.box(3, 48, 4, 49)
    halves = [shapely.box(2, 49, 2.5, 49.5), shapely.box(2.5, 49, 3, 49.5)]
    placed = to_grid_crs(gpd.GeoSeries([left, right, *halves], crs=4326), "a")
    assert shapely.intersection(*placed.iloc[:2]).area == 0
    whole = exact("EPSG:4326", shapely.union_all([left, right, *halves]), 0.002)
    assert placed.union_all().symmetric_difference(whole).area < 0.3 * whole.length


def test_short_edges_get_no_points() -> None:
    buildings = shapely.box(
        650000 + 20 * np.arange(50), 6.86e6, 650010 + 20 * np.arange(50), 6.86e6 + 9
    )
    placed = to_grid_crs(gpd.GeoSeries(buildings, crs=2154), "a")
    assert shapely.get_num_coordinates(placed.values).tolist() == [5] * 50


@pytest.mark.parametrize(
    ("crs", "shape"),
    [
        (4326, shapely.box(200, 95, 210, 99)),
        (4326, shapely.box(650000, 6860000, 650100, 6860100)),
        (3035, shapely.box(1e30, 1e30, 2e30, 2e30)),
        (2154, shapely.box(1e15, 1e15, 2e15, 2e15)),
    ],
)
def test_coordinates_off_the_earth_are_refused_with_their_row(
    crs: int, shape: shapely.Geometry
) -> None:
    good = gpd.GeoSeries([shapely.box(2, 48, 3, 49)], crs=4326).to_crs(crs).iloc[0]
    with pytest.raises(FormatError, match=r"1 of 2 geometries lie nowhere on Earth.*row 2"):
        to_grid_crs(gpd.GeoSeries([good, shape], crs=crs), "a.gpkg")


SOMEWHERE = 'ENGCRS["here",EDATUM["x"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'


@pytest.mark.parametrize("crs", [None, SOMEWHERE])
def test_no_usable_crs(crs: str | None) -> None:
    with pytest.raises(FormatError, match=r"a\.gpkg has no usable CRS"):
        to_grid_crs(gpd.GeoSeries([shapely.box(0, 0, 1, 1)], crs=crs), "a.gpkg")


def test_missing_and_empty_ones_stay() -> None:
    given = gpd.GeoSeries(
        [None, shapely.Polygon(), shapely.box(2, 48, 3, 49)], index=[7, 8, 9], crs=4326
    )
    placed = to_grid_crs(given, "a")
    assert placed.index.tolist() == [7, 8, 9]
    assert placed.isna().tolist() == [True, False, False]
    assert placed.is_empty.tolist()[1:] == [True, False]
