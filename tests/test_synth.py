"""The synthetic city: real formats, an exact tiling, and a truth that only structure tells."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from sesgrid.errors import ConfigError
from sesgrid.grid import parse_cell_id
from sesgrid.run.config import Config
from sesgrid.run.demo import write_demo_config
from sesgrid.synth import SynthCity, geometry, paint, write_city
from sesgrid.synth.city import SOUTH_M, WEST_M, City, make_city
from sesgrid.synth.classes import BEARING
from sesgrid.synth.geometry import area_m2, cut, subdivide
from sesgrid.synth.income import IncomeField
from sesgrid.synth.ortho import TILE_M
from sesgrid.synth.strokes import ANYWHERE, FILL, OUTLINE, SHADE, TREE, Strokes

CELLS, RESOLUTION_M = 5, 2.0
LAYER = "FR099L1_SYNTHEVILLE_UA2018"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SynthCity:
    folder = tmp_path_factory.mktemp("city")
    return write_city(folder, cells=CELLS, seed=3, resolution_m=RESOLUTION_M, imputed_share=0.25)


@pytest.fixture(scope="module")
def small() -> City:
    return make_city(CELLS, 3, 0.25)


@pytest.fixture(scope="module")
def town() -> City:
    return make_city(16, 0, 0.1)


def flat_field(rank: float) -> IncomeField:
    """The same rank everywhere."""
    quantiles = np.linspace(-rank, 1 - rank, 101)
    return IncomeField(np.zeros((0, 4)), np.zeros(2), quantiles)


def tiles_of(city: SynthCity) -> list[Path]:
    return sorted(city.ortho.glob("ORTHOHR/1_DONNEES_LIVRAISON_*/OHR_RVB_*/*.jp2"))


# --- formats -------------------------------------------------------------------------------------


def test_tiles_lie_where_their_names_say(written):
    tiles = tiles_of(written)
    assert len(tiles) >= 4
    for path in tiles:
        match = re.fullmatch(r"99-2019-(\d{4})-(\d{4})-LA93-2M00-E080\.jp2", path.name)
        assert match is not None
        with rasterio.open(path) as tile:
            assert tile.crs.to_epsg() == 2154
            assert tile.dtypes == ("uint8",) * 3
            assert tile.shape == (500, 500)
            assert tile.transform.c == int(match[1]) * 1000
            assert tile.transform.f == int(match[2]) * 1000
            assert tile.res == (RESOLUTION_M, RESOLUTION_M)


def test_index_lists_the_tiles_and_their_footprints(written):
    (index,) = written.ortho.glob("ORTHOHR/3_SUPPLEMENTS_LIVRAISON_*/OHR_RVB_*/dalles.shp")
    table = gpd.read_file(index)
    assert table.crs.to_epsg() == 2154
    assert sorted(table["NOM"]) == [f"./{p.name}" for p in tiles_of(written)]
    for name, outline in zip(table["NOM"], table.geometry, strict=True):
        with rasterio.open(next(p for p in tiles_of(written) if f"./{p.name}" == name)) as tile:
            assert outline.bounds == tuple(tile.bounds)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * CELLS * 200 + [WEST_M, SOUTH_M]
    to_lambert = Transformer.from_crs("EPSG:3035", "EPSG:2154", always_xy=True)
    square = shapely.Polygon(np.column_stack(to_lambert.transform(*corners.T)))
    assert table.union_all().buffer(-50).contains(square)


def test_census_has_the_columns_of_2019(written):
    census = pd.read_csv(written.census, dtype={"lcog_geo": str})
    expected = (
        "idcar_200m,idcar_1km,idcar_nat,i_est_200,i_est_1km,lcog_geo,ind,men,men_pauv,men_1ind,"
        "men_5ind,men_prop,men_fmp,ind_snv,men_surf,men_coll,men_mais,log_av45,log_45_70,"
        "log_70_90,log_ap90,log_inc,log_soc,ind_0_3,ind_4_5,ind_6_10,ind_11_17,ind_18_24,"
        "ind_25_39,ind_40_54,ind_55_64,ind_65_79,ind_80p,ind_inc"
    )
    assert written.census.read_text().splitlines()[0] == expected
    assert census["idcar_200m"].is_unique
    assert (census.select_dtypes("number") >= 0).all(axis=None)
    ages = census.filter(regex=r"^ind_(\d|inc)").sum(axis=1)
    np.testing.assert_allclose(ages, census["ind"], atol=1e-6)
    np.testing.assert_allclose(census["men_coll"] + census["men_mais"], census["men"], atol=1e-6)
    built = census[["log_av45", "log_45_70", "log_70_90", "log_ap90", "log_inc"]].sum(axis=1)
    np.testing.assert_allclose(built, census["men"], atol=1e-6)
    northing, easting = np.array([parse_cell_id(i) for i in census["idcar_200m"]]).T
    assert ((northing >= SOUTH_M) & (northing < SOUTH_M + 200 * CELLS)).all()
    assert ((easting >= WEST_M) & (easting < WEST_M + 200 * CELLS)).all()


def test_observed_cells_tell_the_truth_and_imputed_ones_their_neighbourhood(written):
    census = pd.read_csv(written.census).set_index("idcar_200m")
    truth = pd.DataFrame(json.loads(written.truth.read_text())["cells"]).set_index("cell_id")
    assert set(census.index) == set(truth.index)
    truth = truth.loc[census.index]
    imputed = census["i_est_200"] == 1
    assert imputed.sum() == round(0.25 * len(census))
    assert (imputed == truth["imputed"]).all()
    assert census.loc[imputed, "men"].max() < 11 <= census.loc[~imputed, "men"].min()
    income = census["ind_snv"] / census["ind"]
    np.testing.assert_allclose(income[~imputed], truth["income"][~imputed], atol=0.2)
    halves = census.loc[~imputed, "ind"] * 2
    np.testing.assert_array_equal(halves, halves.round())
    squares = census["idcar_1km"][imputed]
    spread = income[imputed].groupby(squares).agg(np.ptp)
    assert (spread < 25).all()  # a cell of few people rounds its sum to 0.1 euro, people to 0.1
    assert np.abs(income[imputed] - truth["income"][imputed]).max() > 100
    assert income.between(11_000, 41_000).all()


def test_land_cover_has_the_layers_and_fields_of_the_real_one(written):
    layers = dict(pyogrio.list_layers(written.landcover))
    assert list(layers) == [LAYER, f"{LAYER}_Boundary", f"{LAYER}_UrbanCore"]
    assert set(layers.values()) == {"MultiPolygon"}
    land_use = gpd.read_file(written.landcover, layer=LAYER)
    assert land_use.crs.to_epsg() == 3035
    assert ",".join(land_use.columns) == (
        "country,fua_name,fua_code,code_2018,class_2018,prod_date,identifier,perimeter,area,"
        "comment,Pop2018,geometry"
    )
    assert land_use["code_2018"].str.fullmatch(r"\d{5}").all()
    assert land_use["identifier"].is_unique
    np.testing.assert_allclose(land_use["area"], land_use.area)


def test_polygons_tile_the_city(written):
    land_use = gpd.read_file(written.landcover, layer=LAYER)
    side = CELLS * 200
    square = shapely.box(WEST_M, SOUTH_M, WEST_M + side, SOUTH_M + side)
    assert land_use.is_valid.all()
    assert land_use.union_all().symmetric_difference(square).area < 1e-3
    assert abs(land_use.area.sum() - square.area) < 1e-3
    assert shapely.coverage_is_valid(land_use.geometry.to_numpy())


def test_the_picture_follows_the_land_cover(written, small):
    """Pixels asked for by PROJ's own coordinates belong to the polygon that the file has there."""
    land_use = gpd.read_file(written.landcover, layer=LAYER)
    rng = np.random.default_rng(0)
    points = rng.uniform(5, CELLS * 200 - 5, (400, 2)) + np.array([WEST_M, SOUTH_M])
    inner = land_use.geometry.buffer(-3.0)
    where = shapely.STRtree(inner.to_numpy()).query(shapely.points(points), predicate="within")
    to_lambert = Transformer.from_crs("EPSG:3035", "EPSG:2154", always_xy=True)
    x, y = to_lambert.transform(*points[where[0]].T)
    scene = small.scene(3)
    west, north, step = -100.0, 2900.0, 1.0
    ids = scene.ids(west, north, step, 3000)
    column = ((x - scene.frame.base_m[0] - west) / step).astype(int)
    row = ((north - y + scene.frame.base_m[1]) / step).astype(int)
    drawn = scene.codes[ids[row, column]]
    assert len(drawn) > 250
    np.testing.assert_array_equal(drawn, land_use["code_2018"].astype(int).to_numpy()[where[1]])


# --- the planted truth ---------------------------------------------------------------------------


def test_income_changes_no_pixel_outside_the_bearing_classes(small):
    window = (300.0, 1500.0, 1.0, 1000)
    pictures = [small.scene(3, flat_field(rank)).window(*window) for rank in (0.05, 0.95)]
    scene = small.scene(3)
    bears = np.isin(scene.codes[scene.ids(*window)], BEARING)
    differs = (pictures[0] != pictures[1]).any(axis=-1)
    assert bears.mean() > 0.25
    assert not differs[~bears].any()
    assert differs[bears].mean() > 0.8


def test_structure_differs_and_mean_colour_does_not(small):
    window = (300.0, 1500.0, 1.0, 1000)
    scene = small.scene(3)
    bears = np.isin(scene.codes[scene.ids(*window)], BEARING)
    means, scales = [], []
    for rank in (0.05, 0.95):
        homes = small.scene(3, flat_field(rank)).window(*window).astype(float)
        means.append(homes[bears].mean(axis=0))
        grey = homes.mean(axis=-1)
        inside = bears[:, :-6] & bears[:, 6:]
        far = np.corrcoef(grey[:, :-6][inside], grey[:, 6:][inside])[0, 1]
        scales.append(far)
    # six metres away is still the same roof for the rich, the neighbour's garden for the poor
    assert scales[1] - scales[0] > 0.25
    np.testing.assert_allclose(means[0], means[1], atol=5)


def test_houses_are_more_and_smaller_where_income_is_low(small):
    counts = [len(small.scene(3, flat_field(rank)).strokes.counts) for rank in (0.1, 0.5, 0.9)]
    assert counts[0] > 1.6 * counts[1] > 2.2 * counts[2]


def test_land_cover_does_not_tell_income(town):
    shares, rank = town.shares[town.inhabited], town.rank[town.inhabited]
    r = [np.corrcoef(s, rank)[0, 1] for s in shares.T if s.std() > 0]
    assert np.abs(r).max() < 0.25
    people = np.corrcoef(town.census.individuals, town.census.income)[0, 1]
    assert abs(people) < 0.2


def test_cells_mix_classes_and_hold_enough_homes(town):
    inhabited = town.inhabited
    assert 0.85 < inhabited.mean() < 0.97
    assert 3 < (town.shares > 0.01).sum(axis=1).mean() < 6
    bearing = town.bearing_share[inhabited]
    assert 0.45 < bearing.mean() < 0.66
    assert (bearing > 0.25).mean() > 0.96
    np.testing.assert_allclose(town.shares.sum(axis=1), 1.0, atol=1e-9)


def test_ridge_on_mean_colour_finds_no_income(town):
    """The colour baseline: cell means of a coarse rendering, cross-validated ridge."""
    scene, step, pad = town.scene(0), 2.0, 60.0
    to_lambert = Transformer.from_crs("EPSG:3035", "EPSG:2154", always_xy=True)
    side = town.cells * 200
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side + np.array([WEST_M, SOUTH_M])
    corners = np.column_stack(to_lambert.transform(*corners.T)) - scene.frame.base_m
    west, north = corners[:, 0].min() - pad, corners[:, 1].max() + pad
    size = int((np.ptp(corners, axis=0).max() + 2 * pad) / step)
    flat = scene.window(west, north, step, size).reshape(-1, 3).astype(float)
    x, y = west + (np.arange(size) + 0.5) * step, north - (np.arange(size) + 0.5) * step
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) + scene.frame.base_m
    easting, northing = to_lambert.transform(*points.T, direction="INVERSE")
    row = town.cells - 1 - (northing - SOUTH_M) // 200
    column = (easting - WEST_M) // 200
    within = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < town.cells)
    cell = (row * town.cells + column)[within].astype(int)
    n, flat = town.cells**2, flat[within]
    counts = np.bincount(cell, minlength=n)
    assert counts.min() > 9_900
    mean = np.stack([np.bincount(cell, flat[:, c], n) / counts for c in range(3)], axis=1)
    model = RidgeCV(np.logspace(-3, 3, 13))
    folds = KFold(3, shuffle=True, random_state=0)
    predicted = cross_val_predict(model, mean[town.inhabited], town.census.income, cv=folds)
    assert np.corrcoef(predicted, town.census.income)[0, 1] < 0.3


def test_incomes_look_like_a_french_city(town):
    low, middle, high = np.percentile(town.census.income, [20, 50, 80])
    assert 19_500 < low < 22_500
    assert 23_500 < middle < 26_500
    assert 27_500 < high < 31_500
    # smooth in space: neighbours are alike
    rank = np.where(town.inhabited, town.rank, np.nan).reshape(town.cells, town.cells)
    left, right = rank[:, :-1].ravel(), rank[:, 1:].ravel()
    both = np.isfinite(left + right)
    assert np.corrcoef(left[both], right[both])[0, 1] > 0.85


def test_tiles_join_without_a_seam(small):
    """A window across two tiles shows what the tiles show."""
    scene, step = small.scene(3), 2.0
    left, right = (scene.window(x, 2000.0, step, 500) for x in (0.0, 1000.0))
    across = scene.window(500.0, 2000.0, step, 500)
    np.testing.assert_array_equal(across[:, :250], left[:, 250:])
    np.testing.assert_array_equal(across[:, 250:], right[:, :250])


def test_jpeg_keeps_the_drawing(written, small):
    path = tiles_of(written)[0]
    scene = small.scene(3)
    with rasterio.open(path) as tile:
        read = tile.read().transpose(1, 2, 0).astype(float)
        west, north = tile.transform.c, tile.transform.f
    base_x, base_y = scene.frame.base_m
    drawn = scene.window(west - base_x, north - base_y, RESOLUTION_M, TILE_M // 2)
    assert np.abs(read - drawn).mean() < 5


# --- determinism, bad arguments, folders ---------------------------------------------------------


def test_the_same_seed_writes_the_same_city(written, tmp_path):
    again = write_city(tmp_path, cells=CELLS, seed=3, resolution_m=RESOLUTION_M, imputed_share=0.25)
    assert again.census.read_bytes() == written.census.read_bytes()
    assert again.truth.read_bytes() == written.truth.read_bytes()
    assert again.landcover.read_bytes() == written.landcover.read_bytes()
    for a, b in zip(tiles_of(again), tiles_of(written), strict=True):
        assert a.name == b.name
        assert a.read_bytes() == b.read_bytes()


def test_another_seed_is_another_city(small):
    other = make_city(CELLS, 4, 0.25)
    assert not np.allclose(other.rank, small.rank)
    assert len(other.layout.blocks) != len(small.layout.blocks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": 3}, "cells must be a whole number of at least 4, received 3"),
        ({"cells": 6.5}, "cells must be"),
        ({"cells": True}, "cells must be"),
        ({"seed": -1}, "seed must be"),
        ({"resolution_m": 0.3}, "expected one of .*0.8.*received 0.3"),
        ({"resolution_m": 0.0}, "resolution_m must divide"),
        ({"resolution_m": float("nan")}, "resolution_m must divide"),
        ({"imputed_share": 1.0}, r"\[0, 1\), received 1.0"),
        ({"imputed_share": -0.1}, "imputed_share"),
        ({"imputed_share": float("nan")}, "imputed_share"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        write_city(tmp_path / "city", **arguments)
    assert not (tmp_path / "city").exists()


def test_a_written_city_is_kept_and_another_refused(written):
    before = written.truth.stat().st_mtime_ns
    same = {"cells": CELLS, "seed": 3, "resolution_m": RESOLUTION_M, "imputed_share": 0.25}
    assert write_city(written.directory, **same) == written
    assert written.truth.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="holds a synthetic city"):
        write_city(written.directory, **{**same, "seed": 8})


@pytest.mark.parametrize("output", ['a"b', "a\\b", "a\tb\x7f", "é 😀", "C:\\new"])
def test_the_configuration_names_the_output_that_was_asked_for(written, tmp_path, output):
    city = replace(written, directory=tmp_path, **moved(written, tmp_path))
    path = write_demo_config(city, output)
    assert Config.model_validate(tomllib.loads(path.read_text("utf-8"))).output == Path(output)
    assert write_demo_config(city, output) == path
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="says something else"):
        write_demo_config(city, output)


@pytest.mark.parametrize("output", ["", "s3://bucket/x", "a\0b", "\udcff"])
def test_no_configuration_is_written_that_cannot_be_read(written, tmp_path, output):
    with pytest.raises(ConfigError, match="output"):
        write_demo_config(replace(written, directory=tmp_path, **moved(written, tmp_path)), output)
    assert not list(tmp_path.iterdir())


def moved(city, folder) -> dict[str, Path]:
    """The parts of a city, as they would be named in another folder."""
    names = ("ortho", "census", "landcover")
    return {n: folder / Path(getattr(city, n)).relative_to(city.directory) for n in names}


@pytest.mark.parametrize("told", ["[]", "[" * 100_000])
def test_a_foreign_truth_file_is_refused(tmp_path, told):
    (tmp_path / "truth.json").write_text(told)
    with pytest.raises(ConfigError, match=r"truth\.json was not written by"):
        write_city(tmp_path, cells=4)


def test_an_interrupted_write_is_done_again(tmp_path):
    arguments = {"cells": 4, "seed": 0, "resolution_m": 5.0}
    (tmp_path / ".synth-partial").mkdir()
    (tmp_path / ".synth-partial" / "rest").touch()
    stale = tmp_path / "Filosofi2019_carreaux_200m_csv"
    stale.mkdir()
    (stale / "carreaux_200m_met.csv").write_text("half of a file")
    with pytest.raises(ConfigError, match="already holds 'Filosofi2019"):
        write_city(tmp_path, **arguments)  # for all we know it is the user's
    assert (stale / "carreaux_200m_met.csv").read_text() == "half of a file"
    (stale / "of-another.csv").touch()
    marked = [f"{stale.name}/{name}" for name in ("carreaux_200m_met.csv", "of-another.csv")]
    (tmp_path / ".synth-moving").write_text("\n".join(["x.gpkg", *marked]))
    city = write_city(tmp_path, **arguments)
    assert not list(tmp_path.glob(".synth-*"))
    assert not (stale / "of-another.csv").exists()
    assert len(pd.read_csv(city.census)) > 4
    city.landcover.unlink()
    assert write_city(tmp_path, **arguments).landcover.is_file()


def test_nothing_of_others_goes_with_a_damaged_city(tmp_path):
    arguments = {"cells": 4, "seed": 0, "resolution_m": 5.0}
    city = write_city(tmp_path, **arguments)
    city.landcover.unlink()
    mine = city.ortho / "notes.txt" if city.ortho.is_dir() else city.ortho.with_name("notes.txt")
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=r"already holds .*notes\.txt"):
        write_city(tmp_path, **arguments)
    assert mine.read_text() == "mine"
    mine.unlink()
    assert write_city(tmp_path, **arguments) == city
    assert city.landcover.is_file()


# --- kernels -------------------------------------------------------------------------------------


def strokes_of(*shapes: tuple[int, np.ndarray, tuple, float, float, int]) -> Strokes:
    """Strokes (kind, corners in metres, colour, opacity, width_m, owner)."""
    vertices = np.zeros((len(shapes), 12, 2), np.float32)
    for i, (_, corners, *_rest) in enumerate(shapes):
        vertices[i] = corners[np.minimum(np.arange(12), len(corners) - 1)]
    kinds, corners, colours, opacity, width, owners = zip(*shapes, strict=True)
    return Strokes(
        vertices,
        np.array([len(c) for c in corners], np.int16),
        np.array(kinds, np.uint8),
        np.array(colours, np.float32),
        np.array(opacity, np.float32),
        np.array(width, np.float32),
        np.array(owners, np.int32),
    )


BOX = np.array([[3.25, 2.0], [9.25, 2.0], [9.25, 6.5], [3.25, 6.5]])


def painted(shape: tuple, *, plain: bool) -> np.ndarray:
    """One stroke on grey, 12 × 12 pixels of 1 m; by the compiled kernels or by their Python."""
    canvas = np.full((12, 12, 3), 100, np.uint8)
    ids = np.ones((12, 12), np.int32)
    ids[:, 7:] = 2
    codes = np.array([0, 11210, 12220], np.int32)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_paint", "_coverage", "_noise", "_hash") if plain else ():
            patch.setattr(paint, name, getattr(paint, name).py_func)
        with np.errstate(over="ignore"):  # the hash wraps around
            paint.paint_strokes(canvas, ids, codes, 0.0, 12.0, 1.0, strokes_of(shape))
    return canvas.astype(float)


@pytest.mark.parametrize("kind", [FILL, SHADE, OUTLINE, TREE])
@pytest.mark.parametrize("plain", [True, False])
def test_strokes_stay_with_their_owner(kind, plain):
    corners = BOX if kind != TREE else np.array([[6.0, 4.0]])
    anywhere, one, road = (
        painted((kind, corners, (200, 50, 20), 1.0, 2.0, owner), plain=plain)
        for owner in (ANYWHERE, 1, -12220)
    )
    assert (one[:, 7:] == 100).all()
    assert (road[:, :7] == 100).all()
    assert (anywhere[:, 7:] != 100).any()
    np.testing.assert_array_equal(one[:, :7], anywhere[:, :7])
    np.testing.assert_array_equal(road[:, 7:], anywhere[:, 7:])


@pytest.mark.parametrize("plain", [True, False])
def test_a_fill_covers_the_share_that_the_shape_covers(plain):
    """The oracle is shapely: area of each pixel inside the shape."""
    canvas = painted((SHADE, BOX, (0, 0, 0), 1.0, 0.0, ANYWHERE), plain=plain)
    pixels = [
        [shapely.box(j, 11 - i, j + 1, 12 - i).intersection(shapely.Polygon(BOX)).area]
        for i in range(12)
        for j in range(12)
    ]
    expected = 100 * (1 - np.array(pixels).reshape(12, 12))
    corner = np.zeros((12, 12), bool)
    corner[np.ix_([5, 9], [3, 9])] = True  # two edges at once: an approximation
    np.testing.assert_allclose(canvas[~corner, 0], expected[~corner], atol=1.01)
    np.testing.assert_allclose(canvas[corner, 0], expected[corner], atol=13)


def test_an_outline_is_a_band_along_the_inside():
    band = painted((OUTLINE, BOX, (200, 200, 200), 1.0, 1.0, ANYWHERE), plain=False)[..., 0]
    fill = painted((FILL, BOX, (200, 200, 200), 1.0, 0.0, ANYWHERE), plain=False)[..., 0]
    assert (band[7:8, 5:8] == 100).all()
    assert band[9, 5] == pytest.approx(fill[9, 5], abs=3)  # the southernmost row, y from 2 to 3
    assert band[9, 5] > 150


@pytest.mark.parametrize("plain", [True, False])
def test_the_ground_has_the_colour_of_its_polygon(plain):
    table = np.zeros((3, 9))
    table[:, :3] = [[10, 20, 30], [90, 120, 60], [140, 130, 120]]
    table[1:, 3:6] = 0.05
    table[2, 6:9] = 0.1, 4.0, 0.0
    ids = np.repeat([[0, 1, 2]], 300, axis=0).repeat(20, axis=1).astype(np.int32)
    canvas = np.zeros((*ids.shape, 3), np.uint8)
    kernel = paint.paint_ground.py_func if plain else paint.paint_ground
    kernel(canvas[:40] if plain else canvas, ids[:40] if plain else ids, 0.0, 300.0, 1.0, table)
    drawn = canvas[:40] if plain else canvas
    assert (drawn[:, :20] == [10, 20, 30]).all()
    np.testing.assert_allclose(drawn[:, 20:40].mean(axis=(0, 1)), table[1, :3], rtol=0.08)
    # stripes of direction 0 run east, so rows differ and half a period has the other sign
    rows = drawn[:, 40:].mean(axis=(1, 2))
    assert (
        np.corrcoef(rows[:-4], rows[4:])[0, 1] > 0.5 > -0.5 > np.corrcoef(rows[:-2], rows[2:])[0, 1]
    )


def test_geometry_kernels_as_plain_python(monkeypatch):
    compiled = subdivide(BOX, 7, 0.3)
    for name in ("clip", "area_m2", "extents", "_split_offset"):
        monkeypatch.setattr(geometry, name, getattr(geometry, name).py_func)
    plain = geometry.subdivide.py_func(BOX, 7, 0.3)
    np.testing.assert_allclose(plain[0], compiled[0])
    np.testing.assert_array_equal(plain[1], compiled[1])


# --- geometry ------------------------------------------------------------------------------------


@st.composite
def convex(draw) -> np.ndarray:
    points = draw(
        st.lists(
            st.tuples(st.floats(0, 200), st.floats(0, 150)), min_size=3, max_size=6, unique=True
        )
    )
    hull = shapely.MultiPoint(points).convex_hull.buffer(20.0, quad_segs=1)
    outline = np.asarray(shapely.geometry.polygon.orient(hull).exterior.coords)[:-1]
    assume(len(outline) < geometry.MAX_VERTICES)  # no block of the city has more
    return outline


@settings(max_examples=25, deadline=None)
@given(convex(), st.integers(1, 30), st.floats(-3, 3))
def test_plots_divide_a_block_equally(outline, parts, angle):
    vertices, counts = subdivide(outline, parts, angle)
    plots = [shapely.Polygon(v[:n]) for v, n in zip(vertices, counts, strict=True)]
    whole = shapely.Polygon(outline)
    assert len(plots) == parts
    np.testing.assert_allclose([p.area for p in plots], whole.area / parts, rtol=0.01)
    # on a grid: in floats, GEOS 3.14 drops plots whose edges meet within a rounding error
    union = shapely.union_all(plots, grid_size=1e-6)
    difference = shapely.symmetric_difference(union, whole, grid_size=1e-6)
    assert difference.area < 1e-6 * whole.area
    assert area_m2(outline) == pytest.approx(whole.area)


@settings(max_examples=25, deadline=None)
@given(convex(), st.floats(0, 6.2), st.floats(-0.4, 0.4), st.floats(1, 12))
def test_a_street_takes_its_width_out_of_a_block(outline, heading, shift, width):
    normal = np.array([np.cos(heading), np.sin(heading)])
    offset = float(normal @ outline.mean(axis=0) + 20 * shift)
    pieces = [shapely.Polygon(p) for p in cut(outline, normal, offset, width)]
    along = np.array([-normal[1], normal[0]]) * 1000
    foot = normal * offset
    street = shapely.LineString([foot - along, foot + along]).buffer(width / 2, cap_style="flat")
    expected = shapely.Polygon(outline).difference(street)
    assert shapely.union_all(pieces).symmetric_difference(expected).area < 2.1


def test_the_frame_is_proj_to_a_millimetre(small):
    frame = small.frame()
    points = np.random.default_rng(1).uniform(-250, 1250, (50, 2))
    to_lambert = Transformer.from_crs("EPSG:3035", "EPSG:2154", always_xy=True)
    expected = np.column_stack(to_lambert.transform(WEST_M + points[:, 0], SOUTH_M + points[:, 1]))
    np.testing.assert_allclose(frame.lambert(points) + frame.base_m, expected, atol=1e-3)
