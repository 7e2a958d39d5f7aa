"""Urban Atlas deliveries: layers, codes, classes, polygons to mend, and the city's boundary."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sesgrid.errors import FormatError, MissingInputError, SesgridWarning
from sesgrid.sources import (
    N_CLASSES,
    class_groups,
    class_names,
    landcover_classes,
    read_boundary,
    read_urban_atlas,
)
from sesgrid.sources.polygons import count_overlaps

REAL = Path(__file__).resolve().parents[2] / "shared" / "realdata" / "urban_atlas"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="shared/realdata is absent")

NAME = "FR001L1_PARIS_UA2018"
CODES = ["11100", "12400", "13300", "50000"]
CLASSES = ["continuous urban fabric", None, "construction and dump", "water"]
X, Y = 3759200.0, 2881200.0


def land(column: str = "code_2018", crs: int = 3035) -> gpd.GeoDataFrame:
    boxes = shapely.box(X + 100 * np.arange(4), Y, X + 100 * np.arange(1, 5), Y + 50)
    frame = pd.DataFrame({"country": "FR", column: CODES, "class_2018": "a  name …"})
    return gpd.GeoDataFrame(frame, geometry=boxes, crs=3035).to_crs(crs)


def boundary() -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"fua": ["FR001"]}, geometry=[shapely.box(X, Y, X + 400, Y + 50)], crs=3035
    )


def write_gpkg(path: Path, frame: gpd.GeoDataFrame | None = None) -> Path:
    frame = land() if frame is None else frame
    frame.to_file(path, layer=NAME)
    boundary().to_file(path, layer=f"{NAME}_Boundary")
    boundary().buffer(-10).to_frame("geometry").to_file(path, layer=f"{NAME}_UrbanCore")
    return path


def write_shp(folder: Path) -> Path:
    land("CODE2012").to_file(folder / "FR001L1_PARIS_UA2012.shp")
    boundary().to_file(folder / "FR001L1_PARIS_UA2012_Boundary.shp")
    return folder / "FR001L1_PARIS_UA2012.shp"


def zip_of(path: Path, *members: Path, root: Path) -> Path:
    with zipfile.ZipFile(path, "w") as z:
        for member in members:
            z.write(member, member.relative_to(root))
    return path


def check(frame: gpd.GeoDataFrame, vintage: str) -> None:
    assert frame["code"].tolist() == [int(c) for c in CODES]
    assert frame["code"].dtype == np.int64
    assert frame["landcover_class"].isna().tolist() == [c is None for c in CLASSES]
    assert frame["landcover_class"].dropna().tolist() == [c for c in CLASSES if c]
    assert frame.crs == 3035
    assert np.allclose(
        shapely.bounds(frame.geometry.values), shapely.bounds(land().geometry), atol=1e-6
    )
    assert frame.attrs["vintage"] == vintage


def test_table_of_classes() -> None:
    table = landcover_classes()
    assert len(table) == 27 + 2
    assert N_CLASSES == len(class_names()) == len(set(class_names())) == 19
    # pixel values follow the order in which the study lists its classes
    order = [11100, 11210, 11220, 11230, 11240, 11300, 12100, 13100, 13400, 12210, 12220, 12230]
    order += [12300, 14100, 14200, 21000, 31000, 33000, 50000]
    assert table.loc[order, "value"].tolist() == list(range(1, 20))
    same = {8: {13100, 13300}, 16: {21000, 22000, 23000, 24000, 25000, 40000}, 17: {31000, 32000}}
    for value, codes in same.items():
        assert set(table.index[table["value"] == value]) == codes
    none = table[table["value"] == 0]
    assert set(none.index) == {12400, 91000, 92000}
    assert none["landcover_class"].isna().all()
    assert (table.groupby("value")["landcover_class"].nunique() <= 1).all()
    sizes = pd.Series(class_groups()).value_counts().to_dict()
    assert sizes == {
        "residential": 6,
        "functional": 5,
        "infrastructure": 4,
        "nature": 3,
        "no use": 1,
    }
    table.loc[11100, "value"] = 0  # a caller's change stays the caller's
    assert landcover_classes().loc[11100, "value"] == 1


@pytest.mark.parametrize("column", ["code_2018", "CODE_2012", "CODE2012", "code2018", "Code_2012"])
def test_code_column_of_any_vintage_and_case(tmp_path: Path, column: str) -> None:
    frame = read_urban_atlas(write_gpkg(tmp_path / "a.gpkg", land(column)))
    check(frame, column[-4:])
    assert frame.attrs == {"vintage": column[-4:], "layer": NAME, "source": "a.gpkg"}


def test_shapefile_folder_and_zips(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    path = write_shp(tmp_path / "d")
    check(read_urban_atlas(path), "2012")
    check(read_urban_atlas(tmp_path / "d"), "2012")
    zipped = zip_of(tmp_path / "d.zip", *(tmp_path / "d").iterdir(), root=tmp_path)
    check(read_urban_atlas(zipped), "2012")
    for source in (path, tmp_path / "d", zipped):
        assert read_boundary(source).geometry[0].equals(boundary().geometry[0])
    gpkg = write_gpkg(tmp_path / f"{NAME}.gpkg")
    zipped = zip_of(tmp_path / f"{NAME}.gpkg.zip", gpkg, root=tmp_path)
    check(read_urban_atlas(zipped), "2018")
    assert read_boundary(zipped).geometry[0].equals(boundary().geometry[0])


@pytest.mark.parametrize("inside", [True, False])
def test_zipped_geodatabase(tmp_path: Path, inside: bool) -> None:
    gdb = tmp_path / f"{NAME}.gdb"
    pyogrio.write_dataframe(
        land("CODE_2018"), gdb, layer=NAME, driver="OpenFileGDB", geometry_type="MultiPolygon",
        promote_to_multi=True,
    )  # fmt: skip
    check(read_urban_atlas(gdb), "2018")
    root = tmp_path if inside else gdb
    check(read_urban_atlas(zip_of(tmp_path / "x.gdb.zip", *gdb.iterdir(), root=root)), "2018")


def test_other_crs_is_reprojected(tmp_path: Path) -> None:
    check(read_urban_atlas(write_gpkg(tmp_path / "a.gpkg", land(crs=2154))), "2018")


def test_codes_written_as_numbers(tmp_path: Path) -> None:
    check(
        read_urban_atlas(write_gpkg(tmp_path / "a.gpkg", land().astype({"code_2018": int}))), "2018"
    )


def test_layer_by_name_then_by_column(tmp_path: Path) -> None:
    path = write_gpkg(tmp_path / "a.gpkg")
    land().iloc[:1].to_file(path, layer="user_copy")
    check(read_urban_atlas(path), "2018")
    assert len(read_urban_atlas(path, layer="user_copy")) == 1
    land().to_file(tmp_path / "b.gpkg", layer="anything")
    check(read_urban_atlas(tmp_path / "b.gpkg"), "2018")
    land().to_file(tmp_path / "b.gpkg", layer="more")
    with pytest.raises(FormatError, match=r"found 2; candidates: 'anything'.*'more'.*`layer`"):
        read_urban_atlas(tmp_path / "b.gpkg")
    with pytest.raises(MissingInputError, match=r"no layer 'x'"):
        read_urban_atlas(path, layer="x")
    with pytest.raises(FormatError, match=r"found 0; its layers: .*_Boundary"):
        read_urban_atlas(path, layer=f"{NAME}_Boundary")
    land().assign(code_2012="11100").to_file(tmp_path / "c.gpkg", layer="change")
    with pytest.raises(FormatError, match=r"\(code_2018, code_2012\): it is a layer of changes"):
        read_urban_atlas(tmp_path / "c.gpkg")


def test_unknown_codes(tmp_path: Path) -> None:
    frame = land()
    frame.loc[[1, 2], "code_2018"] = "11150"
    frame.loc[3, "code_2018"] = None
    with pytest.raises(
        FormatError, match=r"a\.gpkg.*'code_2018': 2 unknown codes: '11150' \(2 pol"
    ):
        read_urban_atlas(write_gpkg(tmp_path / "a.gpkg", frame))


def test_polygons_are_mended_dropped_and_counted(tmp_path: Path) -> None:
    bowtie = shapely.Polygon([(X, Y), (X + 10, Y + 10), (X + 10, Y), (X, Y + 10)])
    square = shapely.box(X + 50, Y, X + 60, Y + 10)
    again = shapely.Polygon(np.roll(shapely.get_coordinates(square)[:-1], 2, axis=0))
    frame = gpd.GeoDataFrame(
        {"code_2018": ["11100", "50000", "14100", "31000"]},
        geometry=[bowtie, square, shapely.Polygon(), again],
        crs=3035,
    )
    path = write_gpkg(tmp_path / "a.gpkg", frame)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = read_urban_atlas(path)
    assert [str(w.message).split(": ")[1] for w in caught] == [
        "1 of 4 polygons were invalid and are repaired",
        "1 of 4 polygons are empty and left out",
        "1 of 4 polygons repeat a later one and are left out",
    ]
    assert all(w.category is SesgridWarning and w.filename == __file__ for w in caught)
    assert result["code"].tolist() == [11100, 31000]
    assert result.index.tolist() == [0, 1]
    assert result.geometry.is_valid.all()
    assert result.geometry.area.tolist() == pytest.approx([50.0, 100.0])


def test_overlaps_are_kept_and_counted(tmp_path: Path) -> None:
    frame = land()
    frame.loc[1, "geometry"] = frame.geometry[1].buffer(3, join_style="mitre")
    frame.loc[3, "geometry"] = frame.geometry[2].buffer(-5)
    with pytest.warns(SesgridWarning, match="3 pairs of polygons overlap") as caught:
        result = read_urban_atlas(write_gpkg(tmp_path / "a.gpkg", frame))
    assert len(caught) == 1
    assert result["code"].tolist() == [int(c) for c in CODES]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 6)] * 2), min_size=1, max_size=7)
)
@example([(0, 0, 4, 3), (1, 1, 2, 1)])  # one holds the other whole
def test_overlap_count_equals_all_pairs(rectangles: list[tuple[int, int, int, int]]) -> None:
    boxes = np.array([shapely.box(x, y, x + w, y + h) for x, y, w, h in rectangles])
    boxes = np.array(list(dict.fromkeys(boxes)), dtype=object)  # repeated ones are dropped before
    slow = sum(a.intersection(b).area > 1 for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert count_overlaps(boxes) == slow


def test_no_crs_no_polygons_no_file(tmp_path: Path) -> None:
    path = write_shp(tmp_path)
    for file in tmp_path.glob("*.prj"):
        file.unlink()
    with pytest.raises(FormatError, match="no usable CRS"):
        read_urban_atlas(path)
    with pytest.raises(FormatError, match="no usable CRS"):
        read_boundary(path)
    lines = land()
    lines.geometry = lines.geometry.boundary
    with pytest.raises(FormatError, match=r"4 of 4 geometries are no polygons \(first: LineString"):
        read_urban_atlas(write_gpkg(tmp_path / "b.gpkg", lines))
    with pytest.raises(FormatError, match="holds no polygon"):
        read_urban_atlas(write_gpkg(tmp_path / "c.gpkg", land().iloc[:0]))
    empty = write_gpkg(tmp_path / "d.gpkg", land().set_geometry([shapely.Polygon()] * 4, crs=3035))
    with (
        pytest.warns(SesgridWarning, match="4 of 4 polygons are empty"),
        pytest.raises(FormatError, match="holds no polygon"),
    ):
        read_urban_atlas(empty)
    with pytest.raises(MissingInputError, match="no such file"):
        read_urban_atlas(tmp_path / "nowhere.gpkg")
    with pytest.raises(MissingInputError, match="nothing to read"):
        read_urban_atlas(zip_of(tmp_path / "e.zip", root=tmp_path))


def test_boundary_of_any_polygon_file(tmp_path: Path) -> None:
    boundary().to_crs(2154).to_file(tmp_path / "city.geojson", driver="GeoJSON")
    assert read_boundary(tmp_path / "city.geojson").geometry[0].area == pytest.approx(
        20000, rel=1e-6
    )
    boundary().to_parquet(tmp_path / "city.parquet")
    assert read_boundary(tmp_path / "city.parquet")["fua"].tolist() == ["FR001"]
    path = write_gpkg(tmp_path / "a.gpkg")
    core = read_boundary(path, layer=f"{NAME}_UrbanCore")
    assert core.geometry.area.sum() < 20000
    for layer in ("one", "two", "FR001L1_PARIS_CityBoundary"):
        boundary().to_file(tmp_path / "b.gpkg", layer=layer)
    with pytest.raises(FormatError, match=r"which of its layers.*'one', 'two', .*CityB.*`layer`"):
        read_boundary(tmp_path / "b.gpkg")
    boundary().to_file(tmp_path / "two.gpkg", layer="one")
    boundary().buffer(9).to_frame("geometry").to_file(tmp_path / "two.gpkg", layer="two")
    assert read_boundary(tmp_path / "two.gpkg").geometry.area.sum() > 20000
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(MissingInputError, match="no layer of polygons"):
        read_boundary(tmp_path / "bare.parquet")


@needs_real
@pytest.mark.parametrize(
    ("name", "vintage", "codes"),
    [
        ("EE003L1_NARVA_UA2012.gpkg", "2012", [12100, 31000]),
        ("EE003L1_NARVA_UA2012.gdb.zip", "2012", [12100, 31000]),
        ("EE003L1_NARVA_UA2018.gpkg.zip", "2018", [12100, 12100]),
    ],
)
def test_real_files(name: str, vintage: str, codes: list[int]) -> None:
    frame = read_urban_atlas(REAL / name)
    assert frame["code"].tolist() == codes
    assert frame.attrs["vintage"] == vintage
    assert frame.attrs["layer"] == f"EE003L1_NARVA_UA{vintage}"
    assert frame.crs == 3035


@needs_real
def test_real_boundary_and_its_neighbour_layer() -> None:
    path = REAL / "aoi_ua2012.gpkg"
    assert "FUA_OR_CIT" not in read_boundary(path)
    other = read_boundary(path, layer="aoi_ua2018")
    assert len(other) == 3
    assert "FUA_OR_CIT" in other
    with pytest.raises(FormatError, match=r"'aoi_ua2018'.*'aoi_ua2012'"):
        read_urban_atlas(path)


@needs_real
def test_every_code_of_the_official_schema_has_a_row() -> None:
    schema = json.loads((REAL / "eea_product_definition_ua2012.json").read_text())
    text = json.dumps(schema)
    official = {code for code in range(10000, 100000) if f'"{code}"' in text}
    assert official
    assert official <= set(landcover_classes().index)
