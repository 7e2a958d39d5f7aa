"""Any polygons as land cover: OCS GE and CoSIA as IGN delivers them, tiles, overlaps, and what is told."""

from __future__ import annotations

import sqlite3
import warnings
import zipfile
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import py7zr
import pytest
import rasterio.features
import shapely

from sesgrid import read_class_table, read_landcover
from sesgrid.errors import FormatError, MissingInputError, SesgridWarning
from sesgrid.grid import Grid
from sesgrid.sources import holds_rasters
from sesgrid.stages.landcover import Landcover, LandcoverIndex
from sesgrid.stages.place import BlockCells

WEST, SOUTH = 3760000, 2880000
SIDE = 1600
"""Of a block of the grid, metres."""
CLASSES = [
    ("Bâtiment", 1, "building"),
    ("Feuillu", 9, "broad-leaved trees"),
    ("Pelouse", 12, "lawn"),
]


def frame_of(geometry, crs: int = 3035, **columns) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=np.asarray(geometry), crs=3035).to_crs(crs)


def row_of_boxes(n: int = 4, size: float = 100) -> np.ndarray:
    x = WEST + size * np.arange(n)
    return shapely.box(x, SOUTH, x + size, SOUTH + size)


def ocsge(crs: int = 3035) -> gpd.GeoDataFrame:
    return frame_of(
        row_of_boxes(),
        crs,
        id=[f"OCSGE{i}" for i in range(4)],
        code_cs=["CS1.1.1.1", "CS1.1.1.1", "CS2.2.1", "CS1.2.2"],
        code_us=["US5", "US3", "US5", None],
        millesime="2023",
    )


def cosia(n: int = 12, seed: int = 0) -> gpd.GeoDataFrame:
    """Squares of 100 m side by side, four in a row."""
    k = np.random.default_rng(seed).integers(0, 3, n)
    x, y = WEST + 100 * (np.arange(n) % 4), SOUTH + 100 * (np.arange(n) // 4)
    return frame_of(
        shapely.box(x, y, x + 100, y + 100),
        numero=[CLASSES[i][1] for i in k],
        classe=[CLASSES[i][0] for i in k],
    )


def write_tiles(
    folder: Path, frame: gpd.GeoDataFrame, of_tile: np.ndarray, names: list[str]
) -> Path:
    folder.mkdir(parents=True)
    for tile, name in enumerate(names):
        if (of_tile == tile).any():
            frame[of_tile == tile].to_file(folder / f"{name}.gpkg", layer=name)
    return folder


def burn(land: gpd.GeoDataFrame, px: int = 40) -> np.ndarray:
    grid = Grid(px, 8)
    row, col = grid.block_of(-(SOUTH // 200) - 1, WEST // 200)
    block = BlockCells(
        row, col, tuple((row * 8 + i, col * 8 + j) for i in range(8) for j in range(8))
    )
    return Landcover(grid)(LandcoverIndex(grid, land).items([block]))[0].arrays["landcover"]


def told(read, *given, **named) -> tuple[gpd.GeoDataFrame, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        land = read(*given, **named)
    assert {w.category for w in caught} <= {SesgridWarning}
    assert {Path(w.filename).name for w in caught} <= {Path(__file__).name}
    return land, [str(w.message) for w in caught]


def test_ocsge_as_it_is_delivered(tmp_path):
    name = "OCS-GE_2-0__GPKG_LAMB93_D013_2023-01-01"
    inside = (
        tmp_path / name / "OCS-GE/1_DONNEES_LIVRAISON_2025-05-00027/OCSGE_2-0_GPKG_LAMB93_D13-2023"
    )
    inside.mkdir(parents=True)
    ocsge(2154).to_file(inside / "OCCUPATION_SOL.gpkg", layer="OCCUPATION_SOL")
    frame_of(row_of_boxes(1), 2154, id=["Z1"]).to_file(inside / "ZONE_CONSTRUITE.gpkg")
    (inside / "OCCUPATION_SOL.gpkg.md5").write_text("0")
    with py7zr.SevenZipFile(tmp_path / f"{name}.7z", "w") as archive:
        archive.writeall(tmp_path / name, name)
    for source in (tmp_path / f"{name}.7z", tmp_path / name, inside / "OCCUPATION_SOL.gpkg"):
        land, said = told(read_landcover, source, "ocsge")
        by_id = land.iloc[np.argsort(land.geometry.bounds["minx"].to_numpy())]
        assert by_id["landcover_class"].tolist() == [
            "homes",
            "other buildings",
            "lawns of homes",
            "water",
        ]
        assert by_id["code_cs"].tolist() == ocsge()["code_cs"].tolist()
        assert by_id["value"].dtype == np.uint8
        assert land.crs == 3035
        assert np.allclose(by_id.geometry.bounds, ocsge().geometry.bounds, atol=1e-6)
        assert said == []  # ZONE_CONSTRUITE has no codes, and is to have none
    frame_of(row_of_boxes(1), 2154, id=["Z1"]).to_file(inside / "other.gpkg")
    _, said = told(read_landcover, inside, "ocsge")
    assert len(said) == 1
    assert "1 files have no column code_cs or code_us and are left out, first other.gpkg" in said[0]
    assert land.attrs == {"source": "OCCUPATION_SOL.gpkg", "layers": 1, "classes": "ocsge"}


@pytest.mark.parametrize("columns", [["numero", "classe"], ["numero"], ["classe"]])
def test_cosia_is_many_tiles(tmp_path, columns):
    frame = cosia()
    names = [f"D974_2025_{x}_{y}_vecto" for x in (370, 380) for y in (6790, 6800)]
    write_tiles(tmp_path / "COSIA_1-0__GPKG_D974_2025-01-01", frame[[*columns, "geometry"]],
                np.arange(12) % 4, names)  # fmt: skip
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as z:
        for file in sorted(tmp_path.glob("COSIA*/*")):
            z.write(file, file.relative_to(tmp_path))
    wanted = {
        (g.bounds[0], g.bounds[1]): n for g, n in zip(frame.geometry, frame["numero"], strict=True)
    }
    meaning = {number: name for _, number, name in CLASSES}
    for source in (tmp_path / "COSIA_1-0__GPKG_D974_2025-01-01", tmp_path / "c.zip"):
        land, said = told(read_landcover, source, "cosia")
        assert said == []
        assert land.attrs["layers"] == 4
        found = {(g.bounds[0], g.bounds[1]): n
                 for g, n in zip(land.geometry, land["landcover_class"], strict=True)}  # fmt: skip
        assert found == {at: meaning[number] for at, number in wanted.items()}


def scattered(n: int = 60, seed: int = 3) -> gpd.GeoDataFrame:
    """Triangles over and under each other."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 350, (n, 1, 2)) + rng.uniform(0, 120, (n, 3, 2)) + [WEST, SOUTH]
    k = rng.integers(0, 3, n)
    return frame_of(
        shapely.polygons(corners),
        classe=[CLASSES[i][0] for i in k],
        numero=[CLASSES[i][1] for i in k],
    )


def test_neither_tiles_nor_their_order_change_a_pixel(tmp_path):
    frame = scattered()
    rng = np.random.default_rng(1)
    maps, lands = [], []
    for trial, (n_tiles, order) in enumerate([(1, 1), (1, -1), (3, 1), (7, 1), (7, -1)]):
        shuffled = frame.iloc[rng.permutation(len(frame))]
        names = [f"tile_{i:02}" for i in range(n_tiles)][::order]
        folder = write_tiles(
            tmp_path / str(trial), shuffled, rng.integers(0, n_tiles, len(frame)), names
        )
        land, said = told(read_landcover, folder, "cosia")
        assert len(said) == 1
        assert said[0].endswith("pairs of polygons overlap; where they do, the smaller one wins")
        maps.append(burn(land))
        lands.append(land)
    for one, land in zip(maps[1:], lands[1:], strict=True):
        np.testing.assert_array_equal(one, maps[0])
        pd.testing.assert_frame_equal(land, lands[0], check_like=True)
    # GDAL, the large ones first
    value = frame["classe"].map(
        {name: v for v, name in enumerate(["", *(c for c, _, _ in CLASSES)])}
    )
    value = value.map({1: 1, 2: 9, 3: 12})
    shapes = sorted(zip(frame.geometry, value, strict=True), key=lambda s: -s[0].area)
    grid = Grid(40, 8)
    at = grid.block_transform(*grid.block_of(-(SOUTH // 200) - 1, WEST // 200))
    theirs = rasterio.features.rasterize(shapes, maps[0].shape, transform=at, dtype="uint8")
    np.testing.assert_array_equal(maps[0], theirs)
    assert len(np.unique(maps[0])) == 4


def test_polygons_that_two_tiles_share_are_there_once(tmp_path):
    frame = cosia(4)
    folder = write_tiles(tmp_path / "t", frame, np.array([0, 0, 1, 1]), ["a", "b"])
    both = frame.iloc[[1, 2]].copy()
    both.loc[2, ["classe", "numero"]] = (
        ["Feuillu", 9] if both.loc[2, "numero"] != 9 else ["Pelouse", 12]
    )
    # the same points from another one on
    turned = [
        shapely.Polygon(np.roll(shapely.get_coordinates(g)[:-1], 2, axis=0)) for g in both.geometry
    ]
    both.set_geometry(turned, crs=3035).to_file(folder / "c.gpkg", layer="c")
    land, said = told(read_landcover, folder, "cosia")
    assert len(land) == 4
    assert [s.split(": ")[1] for s in said] == [
        "2 of 6 polygons repeat a later one and are left out"
    ]
    # of two classes for the same polygon, the later one in the table
    at = land.geometry.bounds["minx"] == WEST + 200
    assert land["value"][at].tolist() == [max(frame["numero"][2], both["numero"][2])]


def test_only_what_lies_within_is_read(tmp_path):
    frame = cosia(12)
    folder = write_tiles(tmp_path / "t", frame, np.arange(12) // 4, ["a", "b", "c"])
    whole = read_landcover(folder, "cosia")
    within = (WEST + 110, SOUTH + 10, WEST + 190, SOUTH + 120)
    part = read_landcover(folder, "cosia", within=within)
    meets = whole[whole.intersects(shapely.box(*within))].reset_index(drop=True)
    assert len(part) == 2
    pd.testing.assert_frame_equal(part, meets)
    with pytest.raises(
        MissingInputError, match=r"none of its 3 layers has .* within E 100–200, N 1–2"
    ):
        read_landcover(folder, "cosia", within=(100, 1, 200, 2))
    # an unknown code elsewhere is not this city's
    frame["classe"], frame["numero"] = ["?", *frame["classe"][1:]], [99, *frame["numero"][1:]]
    folder = write_tiles(tmp_path / "u", frame, np.arange(12) // 4, ["a", "b", "c"])
    assert told(read_landcover, folder, "cosia", within=within)[1] == []
    assert (
        "1 of 12 polygons have codes that cosia does not know"
        in told(read_landcover, folder, "cosia")[1][0]
    )


def test_a_wrong_extent_in_a_header_hides_no_polygon(tmp_path):
    path = tmp_path / "a.gpkg"
    ocsge(2154).to_file(path, layer="OCCUPATION_SOL")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE gpkg_contents SET min_x = 0, max_x = 1, min_y = 0, max_y = 1")
    assert len(read_landcover(path, "ocsge", within=(WEST, SOUTH, WEST + SIDE, SOUTH + SIDE))) == 4


def test_a_geometry_that_is_none_is_not_passed_over_in_a_search_by_place(tmp_path):
    path = tmp_path / "a.gpkg"
    ocsge().to_file(path, layer="OCCUPATION_SOL")
    with closing(sqlite3.connect(path)) as db, db:
        # without the functions that its triggers call
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute("UPDATE OCCUPATION_SOL SET geom = zeroblob(length(geom)) WHERE fid = 2")
    within = (WEST, SOUTH, WEST + SIDE, SOUTH + SIDE)
    for bounds in (None, within):
        try:
            _, said = told(read_landcover, path, "ocsge", within=bounds)
        except FormatError as error:  # GDAL gives such a geometry as none, or as an empty one
            said = [str(error)]
        assert "3 of the 4 geometries" in said[0] or "1 of 4 polygons are empty" in said[0]


def test_codes_that_are_missing(tmp_path):
    (tmp_path / "t.csv").write_text("code,landcover_class\n7,a\n12,b\n")
    frame = frame_of(row_of_boxes(4), Code_18=[7.0, np.nan, 12.0, 8.0])
    frame.to_file(tmp_path / "clc.gpkg")
    land, said = told(read_landcover, tmp_path / "clc.gpkg", tmp_path / "t.csv")
    assert sorted(land["value"]) == [0, 0, 1, 2]
    assert land["landcover_class"].isna().sum() == 2
    assert said == [
        "clc.gpkg: 2 of 4 polygons have codes that t.csv does not know, and belong to no class: "
        "8 (1), missing (1)"
    ]
    frame.assign(Code_18="x").to_file(tmp_path / "x.gpkg")
    with pytest.raises(
        FormatError, match=r"t\.csv knows the codes of none of its 4 polygons, .*: x \(4\)"
    ):
        read_landcover(tmp_path / "x.gpkg", tmp_path / "t.csv")


def test_columns_that_hold_no_codes_are_refused_or_unknown(tmp_path):
    (tmp_path / "t.csv").write_text("wkb,landcover_class\n7,a\ntrue,b\n")
    odd = frame_of(row_of_boxes(4), wkb=[True, False, True, None])
    odd.to_parquet(tmp_path / "a.parquet")
    land, said = told(read_landcover, tmp_path / "a.parquet", tmp_path / "t.csv")
    assert sorted(land["value"]) == [0, 0, 2, 2]
    assert said[0].endswith("belong to no class: False (1), missing (1)")
    frame_of(row_of_boxes(4), wkb=[[7], [7, 8], [], None]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"a\.parquet"):
        read_landcover(tmp_path / "a.parquet", tmp_path / "t.csv")


def test_a_layer_with_some_of_the_columns_tells_which_classes_it_cannot_have(tmp_path):
    ocsge().drop(columns="code_us").to_file(tmp_path / "a.gpkg")
    land, said = told(read_landcover, tmp_path / "a.gpkg", "ocsge")
    assert set(land["landcover_class"]) == {"other buildings", "grassland", "water"}
    assert len(said) == 1
    assert "1 of 1 layers have no code_us, first a.gpkg: no polygon of theirs is of" in said[0]


@pytest.mark.parametrize(
    "name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson", "a.parquet", "a.gdb.zip"]
)
def test_any_format_any_case_any_crs(tmp_path, name):
    frame = ocsge(2154).rename(columns={"code_cs": "CODE_CS", "code_us": "Code_US"})
    if name == "a.geojson":
        frame = frame.to_crs(4326)
    if name == "a.parquet":
        frame.to_parquet(tmp_path / name)
    elif name == "a.gdb.zip":
        frame.to_file(tmp_path / "a.gdb", driver="OpenFileGDB")
        with zipfile.ZipFile(tmp_path / name, "w") as z:
            for file in (tmp_path / "a.gdb").iterdir():
                z.write(file, f"a.gdb/{file.name}")
    else:
        frame.to_file(tmp_path / name)
    land = read_landcover(tmp_path / name, read_class_table("ocsge"))
    assert sorted(land["landcover_class"]) == [
        "homes",
        "lawns of homes",
        "other buildings",
        "water",
    ]
    assert land.geometry.area.sum() == pytest.approx(4e4, rel=1e-4)


def test_tiles_may_differ_in_crs_and_must_have_one(tmp_path):
    frame = cosia(4)
    frame.iloc[:2].to_crs(2154).to_file(tmp_path / "a.gpkg")
    frame.iloc[2:].to_file(tmp_path / "b.gpkg")
    land = read_landcover(tmp_path, "cosia")
    assert sorted(round(x) for x in land.geometry.bounds["minx"]) == [
        WEST + 100 * k for k in range(4)
    ]
    frame.iloc[2:].set_crs(None, allow_override=True).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(FormatError, match=r"c\.parquet tells no CRS: assign it"):
        read_landcover(tmp_path, "cosia")


def test_what_could_be_meant_is_asked_for(tmp_path):
    ocsge().to_file(tmp_path / "a.gpkg", layer="one")
    ocsge().to_file(tmp_path / "a.gpkg", layer="two")
    frame_of(row_of_boxes(1), x=[1]).to_file(tmp_path / "a.gpkg", layer="other")
    with pytest.raises(
        FormatError, match=r"a\.gpkg has 2 layers with code_cs, .*: 'one', 'two'; name one"
    ):
        read_landcover(tmp_path / "a.gpkg", "ocsge")
    assert len(read_landcover(tmp_path / "a.gpkg", "ocsge", layer="TWO")) == 4
    with pytest.raises(
        MissingInputError, match=r"no layer of polygons called 'x' .*'one', 'other', 'two'"
    ):
        read_landcover(tmp_path / "a.gpkg", "ocsge", layer="x")
    with pytest.raises(
        FormatError, match=r"expected polygons with .* code_cs, code_us; its columns are x"
    ):
        read_landcover(tmp_path / "a.gpkg", "ocsge", layer="other")
    ocsge().assign(CODE_CS="CS1.1.1.1").iloc[:, [0, 1, 2, 5, 4]].to_parquet(tmp_path / "b.parquet")
    with pytest.raises(FormatError, match=r"columns code_cs, CODE_CS could all be 'code_cs'"):
        read_landcover(tmp_path / "b.parquet", "ocsge")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        MissingInputError, match=r"empty: no layer of polygons in a file ending in \.fgb"
    ):
        read_landcover(tmp_path / "empty", "ocsge")
    with zipfile.ZipFile(tmp_path / "empty" / "oso.zip", "w") as archive:
        archive.writestr("OCS_2022.tif", b"II*\0")
    with pytest.raises(MissingInputError, match=r"holds oso\.zip: give the path of that archive"):
        read_landcover(tmp_path / "empty", "ocsge")
    with pytest.raises(MissingInputError, match=r"if oso\.zip holds rasters, unpack it, and give"):
        read_landcover(tmp_path / "empty" / "oso.zip", "ocsge")


def test_one_departement_in_two_years_is_refused_and_two_departements_are_read(tmp_path):
    left, right = cosia(4).iloc[:2], cosia(4).iloc[2:]
    for name, some in (("D033_2021_400_6400_vecto", left), ("D033_2024_400_6400_vecto", right)):
        some.to_file(tmp_path / f"{name}.gpkg")
    with pytest.raises(FormatError, match="département 33 is there of 2 years, 2021, 2024"):
        read_landcover(tmp_path, "cosia")
    (tmp_path / "D033_2024_400_6400_vecto.gpkg").rename(tmp_path / "D040_2024_400_6400_vecto.gpkg")
    assert len(read_landcover(tmp_path, "cosia")) == 4
    assert len(read_landcover(sorted(tmp_path.iterdir()), "cosia")) == 4


def test_a_delivery_may_be_younger_than_what_it_shows(tmp_path):
    name = "COSIA_1-0__GPKG_LAMB93_D033_2025-01-01"
    (tmp_path / name).mkdir()
    cosia(4).to_file(tmp_path / name / "D033_2021_400_6400_vecto.gpkg")
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as z:
        z.write(
            tmp_path / name / "D033_2021_400_6400_vecto.gpkg",
            f"{name}/D033_2021_400_6400_vecto.gpkg",
        )
    assert len(read_landcover(tmp_path / f"{name}.zip", "cosia")) == 4
    assert len(read_landcover(tmp_path / name, "cosia")) == 4
    older = tmp_path / name.replace("2025", "2018")
    older.mkdir()
    cosia(4).to_file(older / "vecto.gpkg")
    with pytest.raises(FormatError, match="département 33 is there of 2 years, 2018, 2021"):
        read_landcover([tmp_path / name, older], "cosia")


def test_files_tell_what_kind_of_land_cover_they_are(tmp_path):
    (tmp_path / "COSIA").mkdir()
    assert not holds_rasters(tmp_path)
    (tmp_path / "COSIA" / "D033_2021_400_6400_vecto.gpkg").touch()
    (tmp_path / "COSIA" / "overview.png").touch()
    assert not holds_rasters(tmp_path)
    (tmp_path / "COSIA" / "._b.tif").touch()
    assert not holds_rasters(tmp_path)
    (tmp_path / "COSIA" / "b.TIF").touch()
    with pytest.raises(
        FormatError,
        match=r"holds polygons, COSIA/D033.*\.gpkg, and rasters, COSIA/b\.TIF: .* one kind",
    ):
        holds_rasters(tmp_path)
    (tmp_path / "COSIA" / "D033_2021_400_6400_vecto.gpkg").unlink()
    assert holds_rasters(tmp_path)
    assert not holds_rasters(tmp_path / "a.7z")
