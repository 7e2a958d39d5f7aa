"""Burning equals GDAL's rasterize pixel for pixel, on sound and on degenerate polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize

from sesgrid.errors import FormatError
from sesgrid.kernels import burn_polygons

REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"
UNIT = Affine(1, 0, 0, 0, -1, 16)
TRANSFORMS = [
    UNIT,
    Affine(0.7, 0, -1.3, 0, -0.9, 14.1),  # nothing is exact in binary
    Affine(0.25, 0, 3759200, 0, -0.25, 2881400),  # a cell of the grid
]


def gdal(geometries, values, out_shape, transform, fill=0):
    pairs = [(g, int(v)) for g, v in zip(geometries, values, strict=True)]
    if not pairs:
        return np.full(out_shape, fill, values.dtype)
    return rasterize(
        pairs, out_shape=out_shape, transform=transform, fill=fill, dtype=values.dtype.name
    )


def assert_as_gdal(geometries, out_shape=(16, 20), transform=UNIT, dtype=np.uint8, fill=0):
    values = np.arange(1, len(geometries) + 1).astype(dtype)
    if dtype is np.uint32:
        values += np.uint32(4_000_000_000)  # beyond int32 and float32
    ours = burn_polygons(geometries, values, out_shape, transform, fill)
    theirs = gdal(geometries, values, out_shape, transform, fill)
    assert ours.dtype == values.dtype
    np.testing.assert_array_equal(ours, theirs)
    return ours


def placed(transform, *rings):
    """A polygon from rings in pixel coordinates (col, row)."""
    a, _, c, _, e, f = tuple(transform)[:6]
    shell, *holes = [[(c + a * x, f + e * y) for x, y in ring] for ring in rings]
    return shapely.Polygon(shell, holes)


# Half pixels are centres and corners at once: every tie rule is met.
lattice = st.integers(-6, 50).map(lambda n: n / 2)
anywhere = st.floats(-5, 30, allow_nan=False)
ring = st.one_of(
    st.lists(st.tuples(lattice, lattice), min_size=3, max_size=9),
    st.lists(st.tuples(anywhere, anywhere), min_size=3, max_size=9),
)
transforms = st.sampled_from(TRANSFORMS)


@st.composite
def polygons(draw):
    """Rings as they come: crossing themselves, with spikes, repeated points, no area."""
    transform = draw(transforms)
    rings = st.lists(ring, min_size=1, max_size=3)
    return transform, [placed(transform, *r) for r in draw(st.lists(rings, min_size=1, max_size=4))]


@settings(max_examples=400, deadline=None)
@given(polygons(), st.sampled_from([np.uint8, np.uint32]), st.integers(0, 255))
def test_any_polygons_as_gdal(drawn, dtype, fill):
    transform, geometries = drawn
    assert_as_gdal(geometries, transform=transform, dtype=dtype, fill=fill)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(ring, min_size=1, max_size=2), min_size=1, max_size=3))
def test_parts_of_a_multipolygon_are_united_as_gdal(parts):
    assert_as_gdal([shapely.MultiPolygon([placed(UNIT, *rings) for rings in parts])])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shift", [0, 0.25, 0.5])
def test_boxes_on_pixel_centres_and_corners(reverse, shift):
    def box(x1, y1, x2, y2):
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        return corners[::-1] if reverse else corners

    outer, hole = box(2, 3, 12, 13), box(5, 5, 9, 9)
    outer, hole = [[(x + shift, y + shift) for x, y in r] for r in (outer, hole)]
    burnt = assert_as_gdal([placed(UNIT, outer, hole)])
    # on pixel centres the box has both its horizontal borders, the hole only the upper one
    assert burnt.sum() == (100 - 16 if shift != 0.5 else 10 * 11 - 4 * 4)


DEGENERATE = {
    "one point": [(3.5, 3.5)] * 4,
    "segment": [(2, 2.5), (9, 2.5), (2, 2.5)],
    "vertical segment": [(2.5, 2), (2.5, 9), (2.5, 2)],
    "spike out": [(2, 2), (6, 2), (6, 4.5), (15, 4.5), (6, 4.5), (6, 8), (2, 8)],
    "spike in": [(2, 2), (10, 2), (10, 4.5), (4, 4.5), (10, 4.5), (10, 8), (2, 8)],
    "sliver": [(1, 1), (15, 12.0000001), (15, 12)],
    "sliver between centres": [(1, 5.6), (15, 5.6), (15, 6.4), (1, 6.4)],
    "hourglass": [(2, 2), (10, 10), (10, 2), (2, 10)],
    "touches itself": [(2, 2), (8, 2), (8, 8), (5, 2), (2, 8)],
    "repeated points": [(2.5, 2.5)] * 5 + [(8.5, 2.5)] * 3 + [(8.5, 8.5), (2.5, 8.5)],
    "pivot vertex twice": [(5.5, 9.5), (9, 3), (2, 3.5), (5.5, 9.5), (1.5, 9.5), (1, 1)],
    # the turn at the lowest vertex contradicts the area; OGR does not trust it below 1e-5
    "kink at the pivot": [
        *[(2, 11.5), (8, 11.5), (8, 12.2), (10, 13.6), (10 - 1e-6, 13.6 - 1e-7)],
        *[(10, 7.5), (2, 7.5)],
    ],
    "left of the raster": [(-9, 2), (-3, 2), (-3, 9)],
    "right of the raster": [(30, 2), (35, 2), (30, 9)],
    "above": [(2, -9), (8, -9), (5, -2)],
    "below": [(2, 20), (8, 20), (5, 28)],
    "around the raster": [(-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6)],
    "far and slanted": [(-1e7, 8), (10, -1e7), (1e7, 8.25), (10, 1e7)],
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_rings_as_gdal(name, transform):
    for points in (DEGENERATE[name], DEGENERATE[name][::-1]):
        assert_as_gdal([placed(transform, points)], transform=transform)


def test_thousands_of_vertices_and_thousands_of_crossings_a_line():
    angle = np.linspace(0, 2 * np.pi, 20_001)[:-1]
    radius = 90 + 60 * np.sin(37 * angle) * np.cos(501 * angle)
    star = np.stack([128 + radius * np.cos(angle), 128 + radius * np.sin(angle)], axis=1)
    teeth = np.arange(3000) * 0.08
    comb = np.stack([teeth, np.where(np.arange(3000) % 2, 20.5, 200.25)], axis=1)
    comb = np.concatenate([comb, [(300, 250), (-5, 250)]])
    assert_as_gdal([shapely.Polygon(star), shapely.Polygon(comb)], (256, 256), UNIT)


def test_a_tessellation_covers_every_pixel_once():
    points = np.random.default_rng(5).uniform(-20, 120, (80, 2))
    parts = list(shapely.voronoi_polygons(shapely.MultiPoint(points)).geoms)
    transform = Affine(0.5, 0, 0, 0, -0.5, 100)
    together = assert_as_gdal(parts, (200, 200), transform)
    one = np.ones(1, np.uint8)
    times = sum(burn_polygons([g], one, (200, 200), transform).astype(int) for g in parts)
    assert (times[together > 0] == 1).all()
    assert (times[together == 0] == 0).all()


def test_blocks_burnt_apart_are_the_whole():
    points = np.random.default_rng(6).uniform(-20, 120, (60, 2))
    parts = list(shapely.voronoi_polygons(shapely.MultiPoint(points)).geoms)
    values = np.arange(1, len(parts) + 1).astype(np.uint8)
    whole = burn_polygons(parts, values, (100, 100), Affine(1, 0, 0, 0, -1, 100))
    for y in (0, 50):
        for x in (0, 50):
            block = burn_polygons(parts, values, (50, 50), Affine(1, 0, x, 0, -1, 100 - y))
            np.testing.assert_array_equal(block, whole[y : y + 50, x : x + 50])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_the_real_urban_atlas_as_gdal(dtype):
    path = REALDATA / "urban_atlas" / "EE003L1_NARVA_UA2012.gpkg"
    if not path.exists():
        pytest.skip(f"no real data at {path.parent}")
    pyogrio = pytest.importorskip("pyogrio")
    layer = max(
        pyogrio.list_layers(path)[:, 0], key=lambda n: pyogrio.read_info(path, n)["features"]
    )
    frame = pyogrio.read_dataframe(path, layer=layer)
    west, _, _, north = frame.total_bounds
    for pixel_m in (2.0, 0.25):
        west, north = np.floor(west / 200) * 200, np.ceil(north / 200) * 200
        transform = Affine(pixel_m, 0, west, 0, -pixel_m, north)
        burnt = assert_as_gdal(list(frame.geometry), (1000, 1000), transform, dtype)
        west, _, _, north = frame.geometry.iloc[len(frame) // 2].bounds
    assert burnt.any()


def test_collections_give_their_polygonal_parts_and_empties_nothing():
    box, other = shapely.box(1, 1, 5, 5), shapely.box(7, 7, 9, 9)
    nested = shapely.GeometryCollection(
        [
            shapely.LineString([(0, 0), (16, 16)]),
            shapely.GeometryCollection([shapely.MultiPolygon([other]), shapely.Point(12, 12)]),
            shapely.Polygon(),
            box,
        ]
    )
    geometries = [shapely.Polygon(), nested, shapely.MultiPolygon(), shapely.GeometryCollection()]
    values = np.array([9, 2, 9, 9], np.uint8)
    expected = gdal([shapely.MultiPolygon([box, other])], values[1:2], (16, 20), UNIT)
    np.testing.assert_array_equal(burn_polygons(geometries, values, (16, 20), UNIT), expected)


def test_third_coordinates_arrays_and_series_are_taken():
    import geopandas

    flat, tall = shapely.box(1, 1, 5, 5), shapely.force_3d(shapely.box(1, 1, 5, 5), 40.0)
    one = np.ones(1, np.uint8)
    expected = burn_polygons([flat], one, (16, 20), UNIT)
    for given_as in ([tall], np.array([flat]), geopandas.GeoSeries([flat])):
        np.testing.assert_array_equal(burn_polygons(given_as, one, (16, 20), UNIT), expected)


def test_nothing_to_burn_and_no_pixels():
    none = np.zeros(0, np.uint8)
    assert (burn_polygons([], none, (2, 3), UNIT, fill=7) == 7).all()
    assert burn_polygons([shapely.box(0, 0, 9, 9)], np.ones(1, np.uint8), (0, 3), UNIT).size == 0


def test_coordinates_beyond_all_measure_do_not_crash():
    huge = shapely.Polygon([(-1e300, -1e300), (1e300, -1e300), (0, 1e300)])
    assert burn_polygons([huge], np.ones(1, np.uint8), (4, 4), UNIT).shape == (4, 4)


BOX = shapely.box(0, 0, 4, 4)
ONE = np.ones(1, np.uint8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([shapely.Point(1, 1)], ONE, (4, 4), UNIT), "geometry 0.*received Point"),
        (([BOX, None], np.ones(2, np.uint8), (4, 4), UNIT), "geometry 1.*missing geometry"),
        (([shapely.LineString([(0, 0), (1, 1)])], ONE, (4, 4), UNIT), "LineString"),
        ((["a"], ONE, (4, 4), UNIT), "expected shapely geometries"),
        (([[BOX]], ONE, (4, 4), UNIT), "flat sequence"),
        (([BOX], [1], (4, 4), UNIT), "received list; pass np.asarray"),
        (([BOX], np.ones(1, np.int64), (4, 4), UNIT), "received int64"),
        (([BOX], np.ones(2, np.uint8), (4, 4), UNIT), r"shape \(1,\), received shape \(2,\)"),
        (([BOX], ONE, (4, 4), Affine(1, 0.1, 0, 0, -1, 4)), "north-up.*b=0.1"),
        (([BOX], ONE, (4, 4), Affine(1, 0, 0, 0, 1, 4)), "north-up.*e=1"),
        (([BOX], ONE, (4, 4), Affine(1, 0, np.nan, 0, -1, 4)), "finite"),
        (([BOX], ONE, (4, 4, 1), UNIT), "out_shape"),
        (([BOX], ONE, (4, -1), UNIT), "out_shape"),
        (([BOX], ONE, (4, 4), UNIT, 256), "0 to 255"),
        (([BOX], ONE, (4, 4), UNIT, -1), "fill"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(FormatError, match=words):
        burn_polygons(*arguments)


def test_a_coordinate_that_is_not_finite_names_its_geometry():
    with np.errstate(invalid="ignore"):
        bad = shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)])
    geometries = [BOX, shapely.MultiPolygon([BOX]), bad]
    with pytest.raises(FormatError, match="geometry 2: expected finite"):
        burn_polygons(geometries, np.ones(3, np.uint8), (4, 4), UNIT)
