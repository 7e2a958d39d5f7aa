"""Mosaic: no seam, the same bytes for any block size, absence told apart from black."""

from __future__ import annotations

from dataclasses import dataclass, field

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from shapely import box

from sesgrid import RasterReader, mosaic, read_ortho
from sesgrid.errors import ConfigError, MissingInputError, ReadError
from sesgrid.grid import Extent, Grid
from sesgrid.stages.mosaic import (
    NODATA,
    OBSERVED,
    OUTSIDE,
    PREFER,
    READ_FAILED,
    Mosaic,
    plan_mosaic,
)
from sesgrid.stages.place import group_blocks
from sesgrid.stages.scene import Units, sources_of
from sesgrid.stages.tiles import Tile, ranked_tiles

RES = 2.0
SIZE = 300
ROW, COL = -12_500, 18_000
"""A spot in the south-west of France."""


def scene_pixels(east, north):
    """A smooth scene in Lambert-93, uint8 (band, …); band 2 is black in places."""
    return np.stack(
        [
            127 + 100 * np.sin(east / 90),
            127 + 100 * np.cos(north / 70),
            np.maximum(0, 200 * np.sin((east + north) / 150)),
        ]
    ).astype(np.uint8)


@dataclass(frozen=True)
class FakeReader:
    """Tiles that are windows of one scene; paths are ``left_top``."""

    broken: tuple[str, ...] = ()
    hole: tuple[str, ...] = ()
    offset: dict = field(default_factory=dict, compare=False)
    reads: list = field(default_factory=list, compare=False)

    def levels(self, path):
        return 5

    def unit_shape(self, path, level=0):
        return 70, 110

    def read(self, path, window, level=0):
        self.reads.append((path, window))
        if path in self.broken:
            raise ReadError(f"{path}: truncated")
        left, top = (float(v) for v in path.split("_")[:2])
        r0, r1, c0, c1 = window
        assert 0 <= r0 < r1 <= SIZE >> level
        assert 0 <= c0 < c1 <= SIZE >> level
        step = RES * 2**level
        north = top - (np.arange(r0, r1)[:, None] + 0.5) * step
        east = left + (np.arange(c0, c1)[None, :] + 0.5) * step
        pixels = scene_pixels(east + 0 * north, north + 0 * east)
        pixels = pixels + np.uint8(self.offset.get(path, 0))
        valid = np.zeros(pixels.shape[1:], bool) if path in self.hole else None
        return pixels, valid


def tiles(names, year=2019, res=RES):
    rows = []
    for name in names:
        left, top = (float(v) for v in name.split("_")[:2])
        size = SIZE * res
        footprint = gpd.GeoSeries([box(left, top - size, left + size, top)], crs=2154).to_crs(3035)
        rows.append(
            {
                "path": name, "crs": "EPSG:2154", "resolution_m": res, "year": year, "left": left,
                "top": top, "width": SIZE, "height": SIZE, "geometry": footprint.iloc[0],
            }
        )  # fmt: skip
    return gpd.GeoDataFrame(rows, crs=3035)


def around(n):
    """Names of n × n adjoining tiles around the cells."""
    x, y = Transformer.from_crs(3035, 2154, always_xy=True).transform(COL * 200, -ROW * 200)
    size = SIZE * RES
    left, top = np.floor(x / size) * size, np.ceil(y / size) * size
    k = range(-(n // 2), n - n // 2)
    return [f"{left + i * size}_{top + j * size}" for i in k for j in k]


def cells(side=5):
    rowcol = [(ROW + i, COL + j) for i in range(side) for j in range(side)]
    r, c = np.array(rowcol).T
    return gpd.GeoDataFrame(
        {"row": r, "col": c},
        geometry=[box(j * 200, -(i + 1) * 200, (j + 1) * 200, -i * 200) for i, j in rowcol],
        crs=3035,
    )


def cells_of(pixels, table):
    extent = Extent.from_attributes(pixels.attrs)
    slices = [extent.cell_slices(r, c) for r, c in zip(table["row"], table["col"], strict=True)]
    return {
        name: np.stack([pixels[name].values[..., y, x] for y, x in slices])
        for name in ("image", "coverage")
    }


@pytest.fixture(scope="module")
def whole():
    table = cells()
    pixels = mosaic(table, tiles(around(6)), FakeReader(), pixels_per_cell=50).compute()
    return table, cells_of(pixels, table)


def test_pixels_show_the_scene_where_it_lies(whole):
    table, drawn = whole
    assert (drawn["coverage"] == OBSERVED).all()
    to_source = Transformer.from_crs(3035, 2154, always_xy=True)
    step = (np.arange(50) + 0.5) * 4.0
    worst = 0
    for k, (row, col) in enumerate(zip(table["row"], table["col"], strict=True)):
        east, north = np.meshgrid(col * 200 + step, -row * 200 - step)
        expected = scene_pixels(*to_source.transform(east, north)).astype(int)
        difference = np.abs(drawn["image"][k].astype(int) - expected)
        worst = max(worst, np.percentile(difference, 99))
    # the scene changes by up to 1.4 levels a metre: a shift of half a target pixel (2 m) would show
    assert worst <= 4


def test_same_bytes_for_any_block_size(whole):
    table, drawn = whole
    pixels = mosaic(table, tiles(around(6)), FakeReader(), pixels_per_cell=50, cells_per_block=3)
    again = cells_of(pixels.compute(), table)
    np.testing.assert_array_equal(again["image"], drawn["image"])


def test_tile_order_and_tile_cuts_leave_no_seam(whole):
    table, drawn = whole
    shuffled = tiles(around(6)).sample(frac=1, random_state=1)
    pixels = mosaic(table, shuffled, FakeReader(), pixels_per_cell=50).compute()
    np.testing.assert_array_equal(cells_of(pixels, table)["image"], drawn["image"])
    # the same scene as one lattice shifted by half a tile: other cuts, same pixels
    shifted = []
    for name in around(8):
        left, top = (float(v) for v in name.split("_"))
        shifted.append(f"{left + SIZE * RES / 2}_{top + SIZE * RES / 2}")
    pixels = mosaic(table, tiles(shifted), FakeReader(), pixels_per_cell=50).compute()
    np.testing.assert_array_equal(cells_of(pixels, table)["image"], drawn["image"])


def test_absence_is_told_apart(whole):
    table, drawn = whole
    names = around(6)
    middle = names[21]
    grid = Grid(50, 8)
    seen = {}
    for code, reader in {
        READ_FAILED: FakeReader(broken=(middle,)),
        NODATA: FakeReader(hole=(middle,)),
        OUTSIDE: FakeReader(),
    }.items():
        index = tiles(names if code != OUTSIDE else [n for n in names if n != middle])
        work = plan_mosaic(grid, table, index)
        results = Mosaic(grid, reader)(work)
        coverage = np.concatenate([r.arrays["coverage"].ravel() for r in results])
        image = np.concatenate([r.arrays["image"].reshape(3, -1) for r in results], axis=1)
        counts = np.bincount(coverage, minlength=4)
        seen[code] = counts[OBSERVED]
        drawn_elsewhere = sum(len(r.rows) for r in results) * 2500
        assert counts[OBSERVED] < drawn_elsewhere
        if code != OUTSIDE:
            assert counts[code] > 1000
        assert (image[:, coverage != OBSERVED] == 0).all()
        errors = {tile: e for r in results for tile, e in r.errors.items()}
        assert errors == ({middle: f"{middle}: truncated"} if code == READ_FAILED else {})
        shares = sum(row["coverage"] for r in results for row in r.rows) * 2500
        assert shares == pytest.approx(counts[OBSERVED])
    assert seen[NODATA] == seen[READ_FAILED]
    assert (drawn["image"] == 0).any(), "the scene holds black, and it is observed"


def test_the_year_nearest_to_the_census_wins_and_others_fill_in():
    table, names = cells(3), around(6)
    reader = FakeReader(offset={f"{n}_old": 40 for n in names})
    old = tiles([f"{n}_old" for n in names], year=2012)
    new = tiles(names, year=2019)
    both = gpd.GeoDataFrame(pd.concat([old, new], ignore_index=True), crs=3035)
    only = {
        y: cells_of(mosaic(table, t, reader, pixels_per_cell=50).compute(), table)["image"]
        for y, t in ((2012, old), (2019, new))
    }
    for near, year in ((2013, 2012), (2019, 2019), (None, 2019)):
        pixels = mosaic(table, both, reader, pixels_per_cell=50, near_year=near).compute()
        np.testing.assert_array_equal(cells_of(pixels, table)["image"], only[year])
    # a hole in the preferred year is filled from the other
    holed = FakeReader(hole=tuple(names), offset=reader.offset)
    pixels = mosaic(table, both, holed, pixels_per_cell=50, near_year=2019).compute()
    np.testing.assert_array_equal(cells_of(pixels, table)["image"], only[2012])


def test_tiles_without_a_year_come_last():
    table, names = cells(2), around(6)
    undated = tiles(names)
    undated["year"] = pd.array([pd.NA] * len(names), dtype="Int64")
    (first, *_) = plan_mosaic(Grid(50, 8), table, undated)
    assert first.tiles[0].year is None
    mixed = gpd.GeoDataFrame(
        pd.concat([undated, tiles([f"{n}_x" for n in names])], ignore_index=True), crs=3035
    )
    (first, *_) = plan_mosaic(Grid(50, 8), table, mixed)
    years = [t.year for t in first.tiles]
    assert years == sorted(years, key=lambda y: y is None)
    assert {None, 2019} <= set(years)


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75])
def test_tiles_of_one_lattice_adjoin_in_whole_pixels(phase):
    made = [
        Tile("x", "EPSG:2154", (k + phase) * 2.0, (k + phase) * 2.0, 2.0, 1001, 1001, None)
        for k in (1000, 2001, 3002)
    ]
    assert len({t.grid() for t in made}) == 1
    origins = np.array([t.origin() for t in made])
    np.testing.assert_array_equal(np.diff(origins, axis=0), [[-1001, 1001]] * 2)


def test_only_the_given_cells_are_drawn():
    table = cells(5).iloc[[0, 7, 24]]
    pixels = mosaic(table, tiles(around(6)), FakeReader(), pixels_per_cell=50).compute()
    assert (pixels["coverage"].values > 0).sum() == 3 * 2500


def test_imagery_of_elsewhere_is_an_error():
    with pytest.raises(MissingInputError, match="none of the 1 tiles"):
        mosaic(cells(2), tiles(["100000.0_6100000.0"]), FakeReader())


def test_a_group_decodes_each_unit_once_and_drops_what_it_no_longer_needs():
    table, reader = cells(12), FakeReader()
    work = plan_mosaic(Grid(50, 3), table, tiles(around(8)))
    (group,) = group_blocks(work, 64)
    assert len(group) >= 16
    drawn = {r.block: r.arrays["image"] for r in Mosaic(Grid(50, 3), reader).each(group)}
    assert len(reader.reads) == len(set(reader.reads)) > 50
    # apart, neighbours decode what they share again; the pixels are the same
    alone = FakeReader()
    for item in work:
        (result,) = Mosaic(Grid(50, 3), alone)([item])
        np.testing.assert_array_equal(result.arrays["image"], drawn[item.block])
    assert set(alone.reads) == set(reader.reads)
    assert len(alone.reads) > 1.1 * len(reader.reads)


def test_units_are_held_no_longer_than_needed():
    table, reader = cells(12), FakeReader()
    units, best = Units(reader), ranked(around(10))
    made = [
        sources_of((r, c), best, 4.0, units.levels) for r, c in table[["row", "col"]].to_numpy()
    ]
    units.expect(s for of_cell in made for s in of_cell)
    for of_cell in made:
        for source in of_cell:
            _, state = units.paste(source)
            assert (state == OBSERVED).all()
            units.release(source)
    assert units.held_bytes == 0
    assert units.peak_bytes < 0.6 * 3 * units.decoded_px


def ranked(names, **options):
    return ranked_tiles(tiles(names, **options), None, PREFER)


def test_a_city_extended_is_the_city_made_at_once(whole):
    table, drawn = whole
    west = table["col"] < COL + 2
    # two départements built apart, through the middle of a block: no gap and no double line
    for part in (west, ~west):
        some = table[part]
        pixels = mosaic(some, tiles(around(6)), FakeReader(), pixels_per_cell=50).compute()
        np.testing.assert_array_equal(
            cells_of(pixels, some)["image"], drawn["image"][part.to_numpy()]
        )


def test_tiles_that_contradict_each_other_are_settled_by_the_preference():
    table, names = cells(3), around(6)
    both = gpd.GeoDataFrame(
        pd.concat([tiles([f"{n}_b" for n in names]), tiles([f"{n}_a" for n in names])]), crs=3035
    ).reset_index(drop=True)
    reader = FakeReader(offset={f"{n}_b": 50 for n in names})
    pixels = mosaic(table, both, reader, pixels_per_cell=50).compute()
    only = mosaic(table, tiles([f"{n}_a" for n in names]), reader, pixels_per_cell=50).compute()
    np.testing.assert_array_equal(pixels["image"], only["image"])


@pytest.mark.parametrize(
    ("prefer", "first"),
    [
        (("near_year", "newest", "finest"), (2016, 2.0)),
        (("newest", "finest"), (2021, 2.0)),
        (("oldest",), (2012, 2.0)),
        (("finest", "newest"), (2019, 1.0)),
        (("coarsest", "near_year"), (2016, 2.0)),
    ],
)
def test_preferences_decide_in_their_order(prefer, first):
    (name,) = around(1)
    catalogue = gpd.GeoDataFrame(
        pd.concat(
            [tiles([f"{name}_{y}"], year=y) for y in (2012, 2016, 2021)]
            + [tiles([f"{name}_fine"], year=2019, res=1.0)],
            ignore_index=True,
        ),
        crs=3035,
    )
    best = ranked_tiles(catalogue, 2015, prefer)[0]
    assert (best.year, best.resolution_m) == first
    with pytest.raises(ConfigError, match=r"mosaic\.prefer: expected some of near_year"):
        ranked_tiles(catalogue, 2015, ["nearest"])


def write_scene(path, names_of_pixels, size, **options):
    left, top, res = names_of_pixels
    north = top - (np.arange(size)[:, None] + 0.5) * res
    east = left + (np.arange(size)[None, :] + 0.5) * res
    pixels = scene_pixels(east + 0 * north, north + 0 * east)
    with rasterio.open(
        path, "w", count=3, height=size, width=size, dtype="uint8", crs="EPSG:2154",
        transform=Affine(res, 0, left, 0, -res, top), **options,
    ) as raster:  # fmt: skip
        raster.write(pixels)


@pytest.mark.parametrize("kind", ["jp2", "tif", "tif with overviews"])
@pytest.mark.parametrize("pixels_per_cell", [200, 100, 50, 25])
def test_coarser_levels_show_the_scene_where_it_lies(tmp_path, kind, pixels_per_cell):
    """1 m pixels, cells of 1 to 8 m pixels: no level may shift the picture."""
    table = cells(1)
    x, y = Transformer.from_crs(3035, 2154, always_xy=True).transform(COL * 200, -ROW * 200)
    left, top = np.floor(x / 8) * 8 - 96, np.ceil(y / 8) * 8 + 96
    if kind == "jp2":
        path = tmp_path / "scene.jp2"
        options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    else:
        path, options = tmp_path / "scene.tif", {"driver": "GTiff", "tiled": True}
    write_scene(path, (left, top, 1.0), 512, **options)
    if kind == "tif with overviews":
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    pixels = mosaic(
        table, read_ortho(path, default_crs="EPSG:2154"), RasterReader(),
        pixels_per_cell=pixels_per_cell,
    ).compute()  # fmt: skip
    drawn = cells_of(pixels, table)
    assert (drawn["coverage"] == OBSERVED).all()
    step = (np.arange(pixels_per_cell) + 0.5) * 200 / pixels_per_cell
    east, north = np.meshgrid(COL * 200 + step, -ROW * 200 - step)
    to_source = Transformer.from_crs(3035, 2154, always_xy=True)
    expected = scene_pixels(*to_source.transform(east, north)).astype(float)
    # the scene changes by up to 1.4 levels a metre, and its curvature costs a coarse mean a level
    difference = drawn["image"][0] - expected
    smooth = expected[2] > 20  # the third band has a kink at black
    assert np.abs(difference[:2]).mean() < 0.8
    assert (
        abs(np.corrcoef(np.gradient(expected[0], axis=1).ravel(), difference[0].ravel())[0, 1])
        < 0.35
    )
    assert np.abs(difference[2][smooth]).mean() < 1
