"""Parquet and GeoParquet: any name, encoding and type of the geometry, tables in parts, damage."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from sesgrid.errors import FormatError, MissingInputError, SesgridError, SesgridWarning
from sesgrid.sources import read_boundary, read_census, read_urban_atlas
from sesgrid.sources.tables import list_tables, read_table

X, Y = 3759200.0, 2881200.0
IDS = [f"CRS3035RES200mN{n}E{e}" for n in (2890000, 2890200) for e in range(3760000, 3761000, 200)]


def city(n: int = 6) -> gpd.GeoDataFrame:
    boxes = shapely.box(X + 100 * np.arange(n), Y, X + 100 * np.arange(1, n + 1), Y + 50)
    return gpd.GeoDataFrame({"code_2018": ["11100", "50000"] * (n // 2)}, geometry=boxes, crs=3035)


def census() -> pd.DataFrame:
    k = np.arange(len(IDS))
    table = {
        "idcar_200m": IDS,
        "ind": 10.5 + k,
        "ind_snv": 2e5 + k,
        "i_est_200": k % 2,
        "dep": ["01", "2A"] * 5,
    }
    return pd.DataFrame(table)


def geo_of(path: Path) -> dict:
    return json.loads(pq.read_schema(path).metadata[b"geo"])


def with_geo(path: Path, geo: dict | bytes) -> Path:
    table = pq.read_table(path)
    text = geo if isinstance(geo, bytes) else json.dumps(geo).encode()
    pq.write_table(table.replace_schema_metadata({b"geo": text}), path)
    return path


@pytest.mark.parametrize("name", ["geometry", "geom", "the_geom", "wkb_geometry", "Géométrie"])
@pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
def test_a_geometry_of_any_name_and_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / "a.parquet"
    frame = city() if name == "geometry" else city().rename_geometry(name)
    frame.to_parquet(path, geometry_encoding=encoding)
    assert read_boundary(path).geometry.geom_equals(city().geometry).all()
    assert read_urban_atlas(path)["code"].tolist() == [11100, 50000] * 3
    (table,) = list_tables(path, frozenset({".parquet"}))
    assert table.columns == ("code_2018",)


def test_the_primary_geometry_is_taken_of_several(tmp_path: Path) -> None:
    frame = city()
    frame["centre"] = frame.geometry.centroid
    frame.rename_geometry("area").to_parquet(tmp_path / "a.parquet")
    assert read_boundary(tmp_path / "a.parquet").geometry.area.sum() == pytest.approx(30000)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), "view"])
@pytest.mark.parametrize("crs", ["projjson", "wkt", "none", "unknown"])
def test_crs_and_types_of_the_column(tmp_path: Path, kind: object, crs: str) -> None:
    path = tmp_path / "a.parquet"
    frame = city() if crs in ("projjson", "wkt") else city().to_crs(4326)
    frame.to_parquet(path)
    geo = geo_of(path)
    if crs == "wkt":  # as GeoPandas wrote it before 0.12
        geo["columns"]["geometry"]["crs"] = frame.crs.to_wkt()
    if crs == "none":  # then it is in degrees
        del geo["columns"]["geometry"]["crs"]
    if crs == "unknown":
        geo["columns"]["geometry"]["crs"] = None
    table = pq.read_table(path)
    kind = pa.binary_view() if kind == "view" else kind
    column = pa.array(table["geometry"].to_pylist(), kind)
    pq.write_table(table.set_column(1, "geometry", column), path)
    with_geo(path, geo)
    if crs == "unknown":
        with pytest.raises(FormatError, match="no usable CRS"):
            read_boundary(path)
    else:
        found = read_boundary(path).geometry
        assert found.symmetric_difference(city().geometry).area.max() < 0.1


def test_the_type_geometry_of_parquet_itself(tmp_path: Path) -> None:
    field = pa.field(
        "geom", pa.binary(),
        metadata={"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": '{"crs": "EPSG:3035"}'},
    )  # fmt: skip
    rows = pa.table([pa.array(shapely.to_wkb(city().geometry.values))], schema=pa.schema([field]))
    pq.write_table(rows, tmp_path / "a.parquet")
    assert read_boundary(tmp_path / "a.parquet").geometry.geom_equals(city().geometry).all()


@pytest.mark.parametrize(
    ("told", "crs"),
    [
        ({"crs": "srid:3035"}, 3035),
        ({"crs": "3035", "crs_type": "srid"}, 3035),
        ({"crs": "EPSG:2154"}, 2154),
        ({"crs": "srid:0"}, None),
        ({}, "OGC:CRS84"),
    ],
)
def test_the_crs_of_parquets_own_type(tmp_path: Path, told: dict, crs: object) -> None:
    field = pa.field(
        "g", pa.binary(),
        metadata={"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps(told)},
    )  # fmt: skip
    content = pa.table(
        [pa.array(IDS), pa.array(shapely.to_wkb(squares(3035)))],
        schema=pa.schema([pa.field("id", pa.string()), field]),
    )
    pq.write_table(content, tmp_path / "a.parquet")
    (table,) = list_tables(tmp_path / "a.parquet", frozenset({".parquet"}))
    found = read_table(table, ["id"], geometry=True)
    assert found.crs == crs


def squares(crs: int) -> np.ndarray:
    """Those of the census, by the numbers in its ids."""
    north, east = np.array([i[15:].split("E") for i in IDS], dtype=float).T
    boxes = gpd.GeoSeries(shapely.box(east, north, east + 200, north + 200), crs=3035)
    return np.asarray(boxes.to_crs(crs).values, dtype=object)


@pytest.mark.parametrize("crs", [3035, 2154, 4326])
@pytest.mark.parametrize("told", ["nothing", "unknown"])
def test_a_census_whose_file_tells_no_crs(tmp_path: Path, crs: int, told: str) -> None:
    path = tmp_path / "Filosofi2019.parquet"
    gpd.GeoDataFrame(census(), geometry=squares(crs), crs=crs).to_parquet(path)
    geo = geo_of(path)
    geo["columns"]["geometry"].pop("crs")
    with_geo(path, geo)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_census(path).index.tolist() == IDS
    if told == "unknown" and crs != 4326:
        geo["columns"]["geometry"]["crs"] = None
        with_geo(path, geo)
        assert read_census(path).index.tolist() == IDS
    moved = shapely.transform(squares(crs), lambda xy: xy + (1.0 if crs == 4326 else 5e4))
    gpd.GeoDataFrame(census(), geometry=moved, crs=crs).to_parquet(path)
    geo["columns"]["geometry"].pop("crs", None)
    with pytest.raises(FormatError, match="outside the square that its id"):
        read_census(with_geo(path, geo))


def test_an_index_that_pandas_wrote_is_a_column(tmp_path: Path) -> None:
    census().set_index("idcar_200m").to_parquet(tmp_path / "c.parquet")
    assert read_census(tmp_path / "c.parquet").index.tolist() == IDS


@pytest.mark.parametrize("name", ["ind", "ind_snv"])
@pytest.mark.parametrize("kind", ["truth", "times", "bytes", "lists"])
def test_columns_of_types_that_are_no_numbers(tmp_path: Path, name: str, kind: str) -> None:
    n = len(IDS)
    values = {
        "truth": pa.array([True] * n), "times": pa.array(range(n), pa.timestamp("us")),
        "bytes": pa.array([b"\xff\xfe"] * n), "lists": pa.array([[1.0]] * n),
    }  # fmt: skip
    table = pa.Table.from_pandas(census(), preserve_index=False)
    path = tmp_path / "c.parquet"
    pq.write_table(table.set_column(table.column_names.index(name), name, values[kind]), path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SesgridWarning)  # of the bytes
        with pytest.raises(FormatError, match=rf"column '{name}'.*number"):
            read_census(path)


def test_text_and_flags_that_old_writers_leave_as_bytes_and_truth(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(census(), preserve_index=False)
    ids = pa.array([i.encode() for i in IDS], pa.binary())
    flags = pa.array([k % 2 == 1 for k in range(len(IDS))])
    table = table.set_column(0, "idcar_200m", ids).set_column(3, "i_est_200", flags)
    pq.write_table(table, tmp_path / "c.parquet")
    cells = read_census(tmp_path / "c.parquet")
    assert cells.index.tolist() == IDS
    assert cells["imputed"].tolist() == flags.to_pylist()


# ---------------------------------------------------------------- tables in parts


def in_parts(folder: Path, key: str = "dep") -> Path:
    census().to_parquet(folder, partition_cols=[key])
    return folder


@pytest.mark.parametrize("name", ["cells", "cells.parquet", "Filosofi2021!a;b"])
def test_a_folder_of_parts_is_one_table(tmp_path: Path, name: str) -> None:
    folder = in_parts(tmp_path / name)
    (folder / "_SUCCESS").touch()
    (folder / "_metadata.parquet").write_bytes(b"of Spark")
    (table,) = list_tables(folder, frozenset({".parquet", ".csv"}))
    rows = read_table(table, ["idcar_200m", "dep", "ind"], geometry=False)
    expected = census()[["idcar_200m", "dep", "ind"]]
    ordered = rows.sort_values("idcar_200m").reset_index(drop=True)
    assert ordered.astype(str).equals(
        expected.sort_values("idcar_200m").reset_index(drop=True).astype(str)
    )
    assert set(rows["dep"]) == {"01", "2A"}  # not the number 1
    cells = read_census(folder)
    assert set(cells.index) == set(IDS)
    assert cells.loc[IDS, "individuals"].tolist() == census()["ind"].tolist()


def test_parts_with_geometries(tmp_path: Path) -> None:
    frame = city().rename_geometry("geom")
    (tmp_path / "ua" / "year=2018").mkdir(parents=True)
    for k, part in enumerate((frame.iloc[:4], frame.iloc[4:])):
        part.to_parquet(tmp_path / "ua" / "year=2018" / f"part-{k}.parquet")
    assert read_urban_atlas(tmp_path / "ua")["code"].tolist() == [11100, 50000] * 3
    assert read_boundary(tmp_path / "ua").geometry.geom_equals(frame.geometry).all()
    frame.to_crs(2154).iloc[4:].to_parquet(tmp_path / "ua" / "year=2018" / "part-1.parquet")
    with pytest.raises(FormatError, match="its parts differ in the name, encoding or CRS"):
        read_boundary(tmp_path / "ua")


def test_a_part_that_is_damaged_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    folder = in_parts(tmp_path / "cells")
    part = next((folder / "dep=2A").iterdir())
    whole = part.read_bytes()
    part.write_bytes(whole[:-20])
    with pytest.raises(FormatError, match=r"cells/dep=2A/.*cannot be read"):
        read_census(folder)
    pq.write_table(pq.read_table(pa.BufferReader(whole)).drop_columns(["ind"]), part)
    with pytest.raises(FormatError, match=r"dep=2A/.* lacks the column 'ind' of the other parts"):
        read_census(folder)
    for file in folder.rglob("*.parquet"):
        file.unlink()
    with pytest.raises(MissingInputError, match="nothing to read"):
        read_census(folder)


@pytest.mark.parametrize("lacking", ["dep=01", "dep=2A"])
@pytest.mark.parametrize("column", ["i_est_200", "dep"])
def test_a_column_that_some_part_lacks_is_not_passed_over(
    tmp_path: Path, lacking: str, column: str
) -> None:
    folder = in_parts(tmp_path / "cells")
    part = next((folder / lacking).iterdir())
    if column == "dep":
        part.rename(folder / "none.parquet")
    else:
        pq.write_table(pq.read_table(part, partitioning=None).drop_columns([column]), part)
    (table,) = list_tables(folder, frozenset({".parquet"}))
    assert column in table.columns
    with pytest.raises(FormatError, match=f"lacks the column '{column}' of the other parts"):
        read_table(table, ["idcar_200m", column], geometry=False)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_part_without_geometry_is_named(tmp_path: Path, lacking: int) -> None:
    (tmp_path / "ua.parquet").mkdir()
    for k in range(2):
        part = city().drop(columns="geometry") if k == lacking else city()
        part.to_parquet(tmp_path / "ua.parquet" / f"part-{k}.parquet")
    with pytest.raises(FormatError, match=f"part-{lacking}.parquet lacks the "):
        read_boundary(tmp_path / "ua.parquet")


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_parts_that_lay_out_text_in_other_ways_are_one_table(
    tmp_path: Path, kind: pa.DataType
) -> None:
    (tmp_path / "cells.parquet").mkdir()
    whole = pa.Table.from_pandas(census(), preserve_index=False)
    ids = whole["idcar_200m"].combine_chunks()
    other = ids.dictionary_encode() if pa.types.is_dictionary(kind) else ids.cast(kind)
    for k, part in enumerate((whole[:4], whole.set_column(0, "idcar_200m", other)[4:])):
        pq.write_table(part, tmp_path / "cells.parquet" / f"part-{k}.parquet")
    assert read_census(tmp_path / "cells.parquet").index.tolist() == IDS
    text = whole["ind"].cast(pa.string())
    file = tmp_path / "cells.parquet" / "part-1.parquet"
    pq.write_table(whole.set_column(1, "ind", text)[4:], file)
    with pytest.raises(FormatError, match="its parts are to have columns of the same types"):
        read_census(tmp_path / "cells.parquet")


def test_files_beside_each_other_stay_tables_of_their_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        city().to_parquet(tmp_path / f"{name}.parquet")
    assert [t.name for t in list_tables(tmp_path, frozenset({".parquet"}))] == ["one", "two"]


# ---------------------------------------------------------------- damage


GEO = {
    "no JSON": (b"{bad", "metadata cannot be read"),
    "no object": (b"[]", "name no columns"),
    "empty": (b"{}", "name no columns"),
    "no primary column": (b'{"columns": {"geometry": {"encoding": "WKB"}}}', "name None as the geometry"),
    "a column that is not there": (
        b'{"primary_column": "geom", "columns": {"geometry": {}}}', "name 'geom' as the geometry"
    ),
    "an unknown encoding": (
        b'{"primary_column": "geometry", "columns": {"geometry": {"encoding": "WKT"}}}', "received 'WKT'"
    ),
    "a CRS that is a file": (
        b'{"primary_column": "geometry",'
        b' "columns": {"geometry": {"encoding": "WKB", "crs": "+init=/etc/x:1"}}}',
        "its CRS cannot be read",
    ),
    "a CRS that is none": (
        b'{"primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB", "crs": {"type": "x"}}}}',
        "its CRS cannot be read",
    ),
    "polygons that are WKB": (
        b'{"primary_column": "geometry", "columns": {"geometry": {"encoding": "polygon"}}}', "cannot be read"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GEO)
def test_damaged_metadata(tmp_path: Path, kind: str) -> None:
    geo, told = GEO[kind]
    city().to_parquet(tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=told) as caught:
        read_boundary(with_geo(tmp_path / "a.parquet", geo))
    assert "\n" not in str(caught.value)


def test_a_geometry_that_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    city().to_parquet(path)
    geo, table = geo_of(path), pq.read_table(path)
    pq.write_table(table.set_column(1, "geometry", pa.array(["POLYGON EMPTY"] * 6)), path)
    with pytest.raises(FormatError, match=r"column 'geometry': expected WKB, received string"):
        read_boundary(with_geo(path, geo))


def test_pages_with_checksums_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    census().to_parquet(path, write_page_checksum=True, compression=None, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[data.index(np.array([10.5, 11.5]).tobytes()) + 7] ^= 1  # the people of a cell
    assert len(read_census(path)) == len(IDS)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="cannot be read"):
        read_census(path)


@pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
def test_changed_bytes_end_in_one_line(tmp_path: Path, encoding: str) -> None:
    path, clear = tmp_path / "a.parquet", []
    city().to_parquet(path, geometry_encoding=encoding)
    whole = path.read_bytes()
    for seed in range(30):
        chance, data = random.Random(seed), bytearray(whole)
        for _ in range(chance.choice([1, 20])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        told = ""
        try:
            tables = list_tables(path, frozenset({".parquet"}))
            rows = len(read_table(tables[0], tables[0].columns, geometry=True))
        except SesgridError as error:
            told, rows = str(error), 6
        clear += [told] if told else []
        assert rows == 6
    assert len(clear) > 8
    assert not any("\n" in text for text in clear)
