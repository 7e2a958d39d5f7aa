"""Mosaic: no seam, the same bytes for any block size, absence told apart from black."""

from __future__ import annotations

from dataclasses import dataclass, field

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from pyproj import Transformer
from shapely import box

from sesgrid import mosaic
from sesgrid.errors import MissingInputError, ReadError
from sesgrid.grid import Extent, Grid
from sesgrid.stages.mosaic import (
    NODATA,
    OBSERVED,
    OUTSIDE,
    READ_FAILED,
    Mosaic,
    Tile,
    plan_mosaic,
)

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

    def read(self, path, window):
        if path in self.broken:
            raise ReadError(f"{path}: truncated")
        left, top = (float(v) for v in path.split("_")[:2])
        r0, r1, c0, c1 = window
        assert 0 <= r0 < r1 <= SIZE
        assert 0 <= c0 < c1 <= SIZE
        north = top - (np.arange(r0, r1)[:, None] + 0.5) * RES
        east = left + (np.arange(c0, c1)[None, :] + 0.5) * RES
        pixels = scene_pixels(east + 0 * north, north + 0 * east)
        pixels = pixels + np.uint8(self.offset.get(path, 0))
        valid = np.full(pixels.shape[1:], path not in self.hole)
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
    assert len({t.lattice for t in made}) == 1
    origins = np.array([t.window_origin() for t in made])
    np.testing.assert_array_equal(np.diff(origins, axis=0), [[-1001, 1001]] * 2)


def test_only_the_given_cells_are_drawn():
    table = cells(5).iloc[[0, 7, 24]]
    pixels = mosaic(table, tiles(around(6)), FakeReader(), pixels_per_cell=50).compute()
    assert (pixels["coverage"].values > 0).sum() == 3 * 2500


def test_imagery_of_elsewhere_is_an_error():
    with pytest.raises(MissingInputError, match="none of the 1 tiles"):
        mosaic(cells(2), tiles(["100000.0_6100000.0"]), FakeReader())
