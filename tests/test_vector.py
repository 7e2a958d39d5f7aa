"""Vector sources as they come: of their kind or disguised, whole or cut short, under any name."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from sesgrid.errors import (
    FormatError,
    MissingInputError,
    ReadError,
    SesgridError,
    SesgridWarning,
    UnsafePathError,
)
from sesgrid.sources import read_boundary, read_urban_atlas
from sesgrid.sources.gdal_vector import _told
from sesgrid.sources.space_index import listed_within
from sesgrid.sources.sql_calls import computes_columns, foreign_calls, module_of
from sesgrid.sources.tables import list_tables, read_table

N = 40
NAME = "FR001L1_PARIS_UA2018"
CODES = np.array([11100, 12100, 21000, 31000, 50000])
KINDS = ("gpkg", "shp", "fgb", "gdb", "geojson", "parquet")


def land(n: int = N) -> gpd.GeoDataFrame:
    k = np.arange(n)
    x, y = 3759200.0 + 100 * (k % 8), 2881200.0 + 100 * (k // 8)
    columns = {
        "code_2018": CODES[k % 5].astype(str),
        "row": k.astype("int32"),
        "note": [f"été {i}" for i in k],
    }
    return gpd.GeoDataFrame(columns, geometry=shapely.box(x, y, x + 100, y + 100), crs=3035)


def write(folder: Path, kind: str, name: str = NAME) -> Path:
    path = folder / f"{name}.{kind}"
    if kind == "parquet":
        land().to_parquet(path)
    elif kind == "gdb":
        pyogrio.write_dataframe(
            land(), path, layer=NAME, driver="OpenFileGDB", geometry_type="MultiPolygon",
            promote_to_multi=True,
        )  # fmt: skip
    else:
        # an index of space would put the rows in its own order
        options = {"SPATIAL_INDEX": "NO"} if kind == "fgb" else {}
        land().to_file(path, **options)
    return path


def read(path: Path) -> gpd.GeoDataFrame:
    (table,) = list_tables(path, frozenset({path.suffix}))
    return read_table(table, ["code_2018", "row"], geometry=True)


def same(found: gpd.GeoDataFrame, expected: gpd.GeoDataFrame) -> bool:
    """Row by row, as another reader has them."""
    if len(found) != len(expected) or found.crs != expected.crs:
        return False
    a, b = (np.asarray(f.geometry.values, dtype=object) for f in (found, expected))
    return bool(
        shapely.equals(a, b).all()
        and (found["code_2018"].astype(str) == expected["code_2018"].astype(str)).all()
        and (found["row"].astype(str) == expected["row"].astype(str)).all()
    )


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path, request.param)


def test_every_format_is_read_as_it_was_written(source: Path) -> None:
    found = read(source)
    assert same(found, land())
    atlas = read_urban_atlas(source)
    assert atlas["code"].tolist() == land()["code_2018"].astype(int).tolist()
    assert atlas.attrs == {"vintage": "2018", "layer": NAME, "source": source.name}
    assert read_boundary(source).geometry.area.sum() == pytest.approx(N * 1e4)


@pytest.mark.parametrize("folder", ["a!b;c?d=e#50%", "zip:é ü"])
def test_any_name_of_a_folder(tmp_path: Path, source: Path, folder: str) -> None:
    inside = tmp_path / folder
    inside.mkdir()
    for part in list(tmp_path.glob(f"{NAME}.*")):
        part.rename(inside / part.name.replace("PARIS", "P!A;R?I#S"))
    (moved,) = inside.glob(f"*{source.suffix}")
    assert same(read(moved), land())
    assert len(read_urban_atlas(inside)) == N


def test_files_in_capitals_and_of_mixed_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "shp")
    for part in list(tmp_path.iterdir()):
        part.rename(part.with_name(part.name.upper() if part.suffix != ".dbf" else part.name))
    assert same(read(path.with_name(path.name.upper())), land())


# ---------------------------------------------------------------- disguised


def vrt(target: Path) -> bytes:
    return (
        f'<OGRVRTDataSource><OGRVRTLayer name="{NAME}"><SrcDataSource>{target}</SrcDataSource>'
        f"<SrcLayer>{NAME}</SrcLayer></OGRVRTLayer></OGRVRTDataSource>"
    ).encode()


def algorithm(target: Path) -> bytes:
    line = f"gdal vector pipeline ! read {target} ! write --format=stream streamed_dataset"
    return json.dumps({"type": "gdal_streamed_alg", "command_line": line}).encode()


DISGUISES: dict[str, Callable[[Path], bytes]] = {
    "virtual layer": vrt,
    "algorithm": algorithm,
    "algorithm that says it is GeoJSON": lambda t: (
        b'{"features": [], "x": ' + algorithm(t) + b', "type": "gdal_streamed_alg"}'
    ),
    "WFS": lambda t: b"<OGRWFSDataSource><URL>http://127.0.0.1:9/</URL></OGRWFSDataSource>",
    "WFS of OGC API": lambda t: b'{"links": [{"rel": "data", "href": "http://127.0.0.1:9/"}]}',
    "GML": lambda t: b'<?xml version="1.0"?><FeatureCollection xmlns:gml="http://x"/>',
    "name of another": lambda t: str(t).encode(),
    "GeoJSON": lambda t: land().to_json().encode(),
    "web page": lambda t: b"<!DOCTYPE html><html><body>404</body></html>",
    "nothing": lambda t: b"",
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("kind", ["gpkg", "shp", "fgb", "geojson", "gdb", "parquet"])
def test_a_file_is_what_its_name_says_or_refused(tmp_path: Path, kind: str, disguise: str) -> None:
    if (kind, disguise) == ("geojson", "GeoJSON"):
        return
    (tmp_path / "secret").mkdir()
    secret = write(tmp_path / "secret", "gpkg")
    content = DISGUISES[disguise](secret)
    plain = tmp_path / f"FR002L1_X_UA2018.{kind}"
    plain.write_bytes(content)
    archive = tmp_path / "d.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr(plain.name, content)
    for path in (plain, archive):
        for reader in (read_urban_atlas, read_boundary):
            with pytest.raises((FormatError, MissingInputError)) as caught:
                reader(path)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) <= 500


def test_a_crs_by_a_link_is_not_followed(tmp_path: Path) -> None:
    path = write(tmp_path, "geojson")
    content = json.loads(path.read_text())
    for crs, error in (
        (
            {"type": "link", "properties": {"href": "http://127.0.0.1:9/", "type": "ogcwkt"}},
            UnsafePathError,
        ),
        ({"type": "name", "properties": {"name": "/etc/passwd"}}, FormatError),
        (
            {"type": "name", "properties": {"name": "http://127.0.0.1:9/def/crs/EPSG/0/3035"}},
            FormatError,
        ),
        ({"type": "name", "properties": {"name": "+init=/etc/passwd:1"}}, FormatError),
        ("EPSG:3035", FormatError),
    ):
        path.write_text(json.dumps(content | {"crs": crs}))
        with pytest.raises(error, match="CRS"):
            read_boundary(path)
    for crs in ({"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3035"}},
                {"type": "name", "properties": {"name": "urn:x-ogc:def:crs:EPSG:6.9:3035"}},
                {"type": "name", "properties": {"name": "http://www.opengis.net/def/crs/EPSG/0/3035"}},
                {"type": "name", "properties": {"name": "https://www.opengis.net/def/crs/EPSG/9.9.1/3035"}},
                {"type": "name", "properties": {"name": "EPSG:3035"}},
                {"type": "EPSG", "properties": {"code": 3035}}):  # fmt: skip
        path.write_text(json.dumps(content | {"crs": crs}))
        assert same(read(path), land())


def altered(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


FOREIGN = {
    "a view that opens a raster": "CREATE VIEW v AS SELECT gdal_get_pixel_value('/x', 1, 'pixel', 0, 0)",
    "a view that runs stored code": 'CREATE VIEW v AS SELECT "SqlProc_Execute" (fid) FROM t',
    "hidden by a comment": "CREATE VIEW v AS SELECT sqlproc_execute/* ' */(fid), ' */(' FROM t",
    "hidden by quotes": 'CREATE VIEW v AS SELECT fid AS "a\'b", sqlproc_execute(fid) AS "c\'d" FROM t',
    "a view that loads code": "CREATE VIEW v AS SELECT load_extension('/x.so') a",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_database_that_calls_what_reaches_outside(tmp_path: Path, kind: str) -> None:
    path = altered(write(tmp_path, "gpkg"), FOREIGN[kind])
    with pytest.raises(UnsafePathError, match=r"its view 'v' calls (gdal_|sqlproc_|load_ext)"):
        read(path)


def test_a_database_with_a_table_of_another_file(tmp_path: Path) -> None:
    path = altered(
        write(tmp_path, "gpkg"),
        "PRAGMA writable_schema = ON",
        "INSERT INTO sqlite_master VALUES ('table', 'v', 'v', 0, "
        "'CREATE VIRTUAL TABLE v USING VirtualText(''/etc/passwd'', utf8, 0)')",
    )
    with pytest.raises(UnsafePathError, match=r"its table 'v' is made by 'virtualtext'"):
        read(path)


def test_honest_views_computed_columns_and_triggers_are_left_alone(tmp_path: Path) -> None:
    path = altered(
        write(tmp_path, "gpkg"),
        f'CREATE VIEW coarse AS SELECT substr(code_2018, 1, 2) AS c, ST_Area(geom), count(*) FROM "{NAME}"',
        "CREATE TABLE notes (fid INTEGER PRIMARY KEY, a TEXT(50), b AS (upper(a)), CHECK (length(a) < 9))",
    )
    tables = {t.name: t for t in list_tables(path, frozenset({".gpkg"}))}
    assert same(read_table(tables[NAME], ["code_2018", "row"], geometry=True), land())


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT a FROM t WHERE b IN (1, 2) AND (c)", set()),
        ("SELECT Ogr_X(1)", {"ogr_x"}),
        ("SELECT [ogr x] (1), `y`(2), 'z'\n(3)", {"ogr x", "y", "z"}),
        ("SELECT 'ogr_x(1)', -- ogr_y(\n 2 /* ogr_z( */", set()),
        ("SELECT st_area(g), area(g), st_cutter(g)", {"st_cutter"}),
        (
            "WITH a(x, y) AS (SELECT 1, 2), b (z) AS NOT MATERIALIZED (SELECT 3) SELECT * FROM a, b",
            set(),
        ),
        ("WITH ogr_x(a) AS (SELECT 1) SELECT ogr_x(2)", {"ogr_x"}),
        ("CREATE VIEW ogr_x (a) AS SELECT ogr_x(2)", {"ogr_x"}),
        ("CREATE VIEW v (a, b) AS SELECT ogr_x(a) AS b FROM t", {"ogr_x"}),
        ('CREATE TABLE "my t"(a INT REFERENCES u(b), c AS (lower(a)))', set()),
    ],
)
def test_calls_in_sql(sql: str, found: set[str]) -> None:
    assert foreign_calls(sql) == found


@pytest.mark.parametrize(
    ("sql", "module"),
    [
        ("CREATE TABLE t (a)", None),
        ("CREATE VIEW virtual AS SELECT 1", None),
        ("CREATE VIRTUAL TABLE t USING rtree(id, a, b)", "rtree"),
        ('create virtual table "rtree_t_g" using "RTree"(id, a, b)', "rtree"),
        ("CREATE VIRTUAL TABLE [a using rtree] USING evil(b)", "evil"),
        ("CREATE VIRTUAL TABLE a /* USING rtree */ USING -- rtree\n evil(b)", "evil"),
        ("CREATE/**/VIRTUAL/**/TABLE a USING/**/evil", "evil"),
        ("CREATE VIRTUAL TABLE a\u00a0using\u00a0rtree USING evil", "evil"),
    ],
)
def test_the_module_of_a_virtual_table(sql: str, module: str | None) -> None:
    assert module_of(sql) == module
    if module == "evil":  # SQLite takes it for that module, too
        with (
            closing(sqlite3.connect(":memory:")) as database,
            pytest.raises(sqlite3.OperationalError, match="no such module: evil"),
        ):
            database.execute(sql)


@pytest.mark.parametrize("between", ["", " ", "\n", "/* */", "-- a\n"])
def test_computed_columns_are_found(between: str) -> None:
    sql = f"CREATE TABLE t (a, b GENERATED ALWAYS AS{between}(abs(a)))"
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(sql)
        database.execute("INSERT INTO t VALUES (-3)")
        assert database.execute("SELECT b FROM t").fetchone() == (3,)
    assert computes_columns(sql)
    assert not computes_columns("CREATE TABLE t (a, 'as (' TEXT, has (a))")


def test_a_view_is_refused_that_is_named_like_what_it_calls(tmp_path: Path) -> None:
    path = altered(write(tmp_path, "gpkg"), "CREATE VIEW ogr_x AS SELECT ogr_x('/etc/passwd') AS a")
    with pytest.raises(UnsafePathError, match=r"its view 'ogr_x' calls ogr_x"):
        list_tables(path, frozenset({".gpkg"}))


def test_a_database_that_another_program_left_open(tmp_path: Path) -> None:
    path = write(tmp_path, "gpkg")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute(f'UPDATE "{NAME}" SET code_2018 = 40000 WHERE fid = 1')
        database.commit()
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        assert any(name.endswith("-wal") for name in before)
        assert read(path)["code_2018"].iloc[0] == "40000"
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_database_that_another_program_is_writing_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path, "gpkg")
    with closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            FormatError, match=r"database is locked.; another program is writing to it"
        ):
            read(path)
    assert len(read(path)) > 0


def test_a_source_and_its_folder_stay_as_they_are(tmp_path: Path, source: Path) -> None:
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    read(source)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


# ---------------------------------------------------------------- cut short


def files_of(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(p for p in source.iterdir() if p.suffix in (".gdbtable", ".gdbtablx"))
    if source.suffix == ".shp":
        return [source.with_suffix(s) for s in (".shp", ".shx", ".dbf")]
    return [source]


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_no_row_is_lost_to_a_file_cut_short(source: Path, keep: float) -> None:
    for file in files_of(source):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * keep)])
        try:
            found = read(source)
        except SesgridError as error:
            told = str(error)
        else:  # a geodatabase's table of what nobody reads
            told = "" if same(found, land()) else "in silence"
        file.write_bytes(whole)
        assert told != "in silence", file.name
        assert "\n" not in told
    assert same(read(source), land())


@pytest.mark.parametrize(
    ("kind", "suffix", "told"),
    [
        ("shp", ".dbf", r"holds 19 of the 40 rows that its header tells"),
        ("shp", ".shp", r"its \.shp holds 2770 of the 5540 bytes"),
        ("gdb", "a00000009.gdbtable", r"holds \d+ of the 40 rows"),
        ("gdb", "a00000009.gdbtablx", r"which tells where 40 rows lie, holds \d+ of \d+ bytes"),
    ],
)
def test_both_counts_are_told(tmp_path: Path, kind: str, suffix: str, told: str) -> None:
    source = write(tmp_path, kind)
    file = source / suffix if source.is_dir() else source.with_suffix(suffix)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(FormatError, match=told):
        read(source)


def test_a_geometry_that_gdal_passes_over_is_missed(tmp_path: Path) -> None:
    path = write(tmp_path, "gpkg")
    with closing(sqlite3.connect(path)) as database:
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        for row, blob in ((3, b"XX" + bytes(60)), (5, b"")):
            database.execute(f'UPDATE "{NAME}" SET geom = ? WHERE fid = ?', (blob, row))
        database.commit()
    with pytest.raises(FormatError, match=rf"{NAME}\.gpkg.* geometries"):
        read(path)


@pytest.mark.parametrize("kind", ["CURVEPOLYGON", "MULTISURFACE", "GEOMETRY"])
def test_a_layer_declared_to_be_of_another_kind_than_its_rows(tmp_path: Path, kind: str) -> None:
    path = altered(
        write(tmp_path, "gpkg"), f"UPDATE gpkg_geometry_columns SET geometry_type_name = '{kind}'"
    )
    with pytest.warns(
        SesgridWarning, match=rf"{NAME}\.gpkg: geometry column type .*{kind}"
    ) as caught:
        assert same(read(path), land())
    assert len(caught) == 1


def test_a_layer_declared_to_hold_surfaces(tmp_path: Path) -> None:
    path = write(tmp_path, "gpkg")
    altered(path, "UPDATE gpkg_geometry_columns SET geometry_type_name = 'TIN'")
    with pytest.raises(FormatError, match=r"declared to hold surfaces.*-nlt MULTIPOLYGON"):
        read(path)


def test_rows_marked_as_deleted_are_no_loss(tmp_path: Path) -> None:
    source = write(tmp_path, "shp")
    dbf = source.with_suffix(".dbf")
    content = bytearray(dbf.read_bytes())
    first, width = struct.unpack_from("<HH", content, 8)
    content[first + 3 * width] = ord("*")
    dbf.write_bytes(content)
    assert read(source)["row"].tolist() == [k for k in range(N) if k != 3]
    content[first + 3 * width] = ord("x")
    dbf.write_bytes(content)
    with pytest.raises(FormatError, match=r"neither a space nor a star, first row 4"):
        read(source)


def test_shapes_that_are_none_are_no_loss(tmp_path: Path) -> None:
    frame = land()
    frame.loc[2, "geometry"] = None
    frame.to_file(tmp_path / f"{NAME}.shp")
    assert read(tmp_path / f"{NAME}.shp").geometry.isna().tolist() == [k == 2 for k in range(N)]
    with pytest.warns(SesgridWarning, match="1 of 40 polygons are empty"):
        assert len(read_urban_atlas(tmp_path / f"{NAME}.shp")) == N - 1


def test_files_of_two_shapefiles_do_not_go_together(tmp_path: Path) -> None:
    source = write(tmp_path, "shp")
    land(30).to_file(tmp_path / "other.shp")
    (tmp_path / "other.dbf").rename(source.with_suffix(".dbf"))
    with pytest.raises(FormatError, match=r"its \.dbf has 30 rows, its \.shx 40"):
        read(source)
    source.with_suffix(".shx").unlink()
    with pytest.raises(FormatError, match=r"expected its \.shx beside it"):
        read(source)


def test_a_warning_of_gdal_becomes_a_note(tmp_path: Path) -> None:
    source = write(tmp_path, "gpkg")
    content = bytearray(source.read_bytes())
    content[68:72] = b"XXXX"  # the identity of a GeoPackage
    source.write_bytes(content)
    with pytest.warns(SesgridWarning, match=rf"{NAME}\.gpkg.*application_id") as caught:
        assert same(read(source), land())
    assert len(caught) == 1
    assert "/" not in str(caught[0].message).split("application_id")[0]


def test_sources_that_may_not_be_read(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(Path, "is_file" if source.suffix == ".gdb" else "open", refused)
    with pytest.raises(ReadError, match="may not be read"):
        read(source)


@pytest.mark.parametrize("kind", ["gpkg", "fgb", "gdb", "shp"])
def test_a_spatial_index_that_lost_rows_loses_none(tmp_path: Path, kind: str) -> None:
    source = write(tmp_path, kind)
    (table,) = list_tables(source, frozenset({source.suffix}))
    corner = (3759200.0, 2881200.0, 3759250.0, 2881250.0)
    part = read_table(table, ["row"], geometry=True, within=corner)
    assert 0 in part["row"].tolist()
    if kind == "gpkg":
        assert listed_within(source, NAME, (3e6, 2e6, 4e6, 3e6)) == set(range(1, len(land()) + 1))
        altered(source, f'DELETE FROM "rtree_{NAME}_geom" WHERE id < 30')
        assert listed_within(source, NAME, (3e6, 2e6, 4e6, 3e6)) is None
    part = read_table(table, ["row"], geometry=True, within=corner)
    assert 0 in part["row"].tolist()


def without_triggers(path: Path, *statements: str) -> Path:
    """As a program does that knows nothing of spatial indexes."""
    with closing(sqlite3.connect(path)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    return altered(path, *(f'DROP TRIGGER "{name}"' for (name,) in names), *statements)


FIRST_TWO = (3759200.0, 2881200.0, 3759390.0, 2881290.0)
SMALL_AND_FAR = 40_000


def near_and_far(path: Path) -> Path:
    """The land, and as much of it far away, which a search by place passes over."""
    far = land()
    far["geometry"] = far.translate(SMALL_AND_FAR, SMALL_AND_FAR)
    pd.concat([land(), far], ignore_index=True).to_file(path, layer="a")
    return path


@pytest.mark.parametrize(
    ("statements", "rows"),
    [
        ((), 40),
        (("UPDATE a SET geom = (SELECT geom FROM a WHERE fid = 1) WHERE fid = 45",), 41),
        (("UPDATE a SET geom = (SELECT geom FROM a WHERE fid = 45) WHERE fid = 1",), 39),
        (("INSERT INTO a SELECT 99, geom, code_2018, row, note FROM a WHERE fid = 2",), 41),
        (("DELETE FROM a WHERE fid = 2",), 39),
        (("DELETE FROM a WHERE fid = 2", "DELETE FROM rtree_a_geom WHERE id = 2"), 39),
    ],
)
def test_a_spatial_index_that_is_behind_loses_no_row(
    tmp_path: Path, statements: tuple[str, ...], rows: int
) -> None:
    path = without_triggers(near_and_far(tmp_path / "a.gpkg"), *statements)
    (table,) = list_tables(path, frozenset({".gpkg"}))
    whole = read_table(table, ["row"], geometry=True)
    with closing(sqlite3.connect(path)) as database:
        assert len(whole) == database.execute("SELECT count(*) FROM a").fetchone()[0]
    assert int((whole.bounds.maxx < 3761000).sum()) == rows
    part = read_table(table, ["row"], geometry=True, within=(3759200, 2881200, 3760000, 2881700))
    assert int((part.bounds.maxx < 3761000).sum()) == rows
    if not statements:  # the sound one is searched by its index
        assert len(part) == rows
        assert listed_within(path, "a", FIRST_TWO) == set()
        assert listed_within(path, "a", (3759199, 2881199, 3759401, 2881301)) == {1, 2}


@pytest.mark.parametrize("numbers", ["fid - 1", "fid - 3", "fid * 3", "-fid"])
def test_rows_of_any_number(tmp_path: Path, numbers: str) -> None:
    path = without_triggers(write(tmp_path, "gpkg"), f'UPDATE "{NAME}" SET fid = 1000 + {numbers}')
    altered(path, f'UPDATE "{NAME}" SET fid = fid - 1000', f'DELETE FROM "{NAME}" WHERE row = 3')
    assert sorted(read(path)["row"]) == [k for k in range(N) if k != 3]


# ---------------------------------------------------------------- text and views


VIEWS_OF_NOTHING = {
    "of a table that is gone": "CREATE VIEW v AS SELECT * FROM gone",
    "of a column that is gone": f'CREATE VIEW v AS SELECT gone.row FROM "{NAME}"',
}


@pytest.mark.parametrize("kind", VIEWS_OF_NOTHING)
def test_a_view_that_cannot_be_read_is_left_out(tmp_path: Path, kind: str) -> None:
    path = altered(write(tmp_path, "gpkg"), VIEWS_OF_NOTHING[kind])
    with pytest.warns(SesgridWarning, match=r"its layer 'v' cannot be read and is left out"):
        assert same(read(path), land())
    altered(
        path,
        f'DROP TABLE "{NAME}"',
        "DELETE FROM gpkg_contents",
        "DELETE FROM gpkg_geometry_columns",
    )
    with pytest.raises(FormatError, match=r"gpkg cannot be read \(\w+"):
        list_tables(path, frozenset({".gpkg"}))


def test_a_view_that_names_its_parts(tmp_path: Path) -> None:
    view = f'WITH a(x, y) AS (SELECT 1, 2) SELECT code_2018, a.x FROM "{NAME}", a'
    path = altered(write(tmp_path, "gpkg"), f"CREATE VIEW v (b, c) AS {view}")
    tables = {t.name: t for t in list_tables(path, frozenset({".gpkg"}))}
    assert same(read_table(tables[NAME], ["code_2018", "row"], geometry=True), land())
    found = read_table(tables["v"], ["b"], geometry=False)["b"]
    assert found.tolist() == land()["code_2018"].tolist()


def test_values_that_break_the_rules_of_a_database_are_no_damage(tmp_path: Path) -> None:
    path = altered(
        write(tmp_path, "gpkg"),
        "CREATE TABLE notes (a TEXT)",
        "INSERT INTO notes VALUES (NULL)",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE notes (a TEXT NOT NULL)' WHERE name = 'notes'",
    )
    tables = {t.name: t for t in list_tables(path, frozenset({".gpkg"}))}
    with pytest.warns(SesgridWarning, match=r"NULL value in notes\.a") as caught:
        found = read_table(tables[NAME], ["code_2018", "row"], geometry=True)
    assert same(found, land())
    assert len(caught) == 1
    assert str(caught[0].message).count(NAME) == 1


@pytest.mark.parametrize("told", ["nothing", "UTF-8", "no encoding at all"])
@pytest.mark.parametrize("encoding", ["latin1", "cp1252", "UTF-8"])
def test_text_that_is_not_utf_8_and_does_not_say_so(
    tmp_path: Path, encoding: str, told: str
) -> None:
    path = tmp_path / "b.shp"
    land().to_file(path, encoding=encoding)
    path.with_suffix(".cpg").unlink(missing_ok=True)
    if told != "nothing":
        path.with_suffix(".cpg").write_text(told)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = read_boundary(path)
    assert frame["note"].tolist() == land()["note"].tolist()
    assert [
        f"{N} of {N} texts in its column 'note' are not UTF-8" in str(w.message) for w in caught
    ] == [True] * (encoding != "UTF-8")


def test_text_of_parquet_and_geojson_that_is_none(tmp_path: Path) -> None:
    ends = pa.py_buffer(np.arange(0, 2 * N + 2, 2, dtype="int32").tobytes())
    bad = pa.Array.from_buffers(pa.string(), N, [None, ends, pa.py_buffer(b"\xff\xea" * N)])
    path = write(tmp_path, "parquet")
    pq.write_table(pq.read_table(path).append_column("bad", bad), path)
    with pytest.warns(SesgridWarning, match="column 'bad' are not UTF-8"):
        assert read_boundary(path)["bad"].tolist() == ["ÿê"] * N
    path = write(tmp_path, "geojson")
    path.write_text(path.read_text().replace('"FR001', '"x').replace("\u00e9t\u00e9 0", "\\ud800"))
    assert read_boundary(path)["note"].iloc[0] == "?"


@pytest.mark.parametrize(
    "position",
    [
        lambda x, y: [x, y, 3.0, 4.0],
        lambda x, y: [x, y, None],
        lambda x, y: [x, y, float("nan")],
    ],
)
def test_only_x_and_y_of_a_geojson_count(
    tmp_path: Path, position: Callable[[float, float], list]
) -> None:
    path = write(tmp_path, "geojson")
    content = json.loads(path.read_text())
    for feature in content["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        feature["geometry"]["coordinates"] = [[position(x, y) for x, y in ring]]
    path.write_text(json.dumps(content))
    with pytest.warns(SesgridWarning, match=f"{N} of {N} geometries are not as GeoJSON asks"):
        assert read_boundary(path).geometry.geom_equals(land().geometry).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_not_in_utf_8(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")  # as archives of other systems leave them
    source = write(tmp_path, kind)
    folder.mkdir()
    for file in [p for p in tmp_path.iterdir() if p.stem == source.stem]:
        file.rename(folder / (os.fsdecode(b"d\xe9p") + file.suffix))
    assert read_urban_atlas(folder)["code"].tolist() == land()["code_2018"].astype(int).tolist()


def test_columns_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet")
    content = pq.read_table(path)
    pq.write_table(content.rename_columns(["row", "row", "note", "geometry"]), path)
    with pytest.raises(FormatError, match="column names repeat: row"):
        read_boundary(path)


def test_a_view_with_a_function_of_gdal_is_a_layer(tmp_path: Path) -> None:
    view = f'SELECT fid, geom, code_2018, row FROM "{NAME}" WHERE ST_Area(geom) > 1 AND fid <= 7'
    path = altered(
        write(tmp_path, "gpkg"),
        f"CREATE VIEW part AS {view}",
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id)"
        " VALUES ('part', 'features', 'part', 3035)",
        "INSERT INTO gpkg_geometry_columns VALUES ('part', 'geom', 'POLYGON', 3035, 0, 0)",
    )
    (table,) = (t for t in list_tables(path, frozenset({".gpkg"})) if t.name == "part")
    assert same(read_table(table, ["code_2018", "row"], geometry=True), land(7))


@pytest.mark.parametrize("text", [f'ALTER TABLE "{NAME}" RENAME TO gone', f'DROP TABLE "{NAME}"'])
def test_a_layer_that_is_listed_and_not_there_is_told(tmp_path: Path, text: str) -> None:
    """GDAL passes over it; among tiles nobody would miss it."""
    path = altered(write(tmp_path, "gpkg"), text)
    with pytest.warns(SesgridWarning, match=f"its layer '{NAME}' cannot be read and is left out"):
        list_tables(path, frozenset({".gpkg"}))


def test_a_layer_of_any_name_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    land(3).to_file(path, layer="ZONE_URBANISÉE", engine="pyogrio")
    assert [t.layer for t in list_tables(path, frozenset({".gpkg"}))] == ["ZONE_URBANISÉE"]


# ---------------------------------------------------------------- changed bytes


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    kind = chance.choice(["flip", "flip", "flips", "cut", "zeros", "insert"])
    at = chance.randrange(len(changed))
    if kind == "cut":
        return bytes(changed[:at])
    if kind == "zeros":
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    elif kind == "insert":
        changed[at:at] = bytes(chance.randrange(1, 9))
    else:
        for _ in range(1 if kind == "flip" else 20):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def test_changed_bytes_end_in_the_table_or_in_one_line(source: Path) -> None:
    """No traceback, no row lost in silence; what a value was before a change nobody can know."""
    outcomes: Counter[str] = Counter()
    for seed in range(16):
        chance = random.Random(f"{source.suffix} {seed}")
        file = chance.choice(files_of(source))
        whole = file.read_bytes()
        file.write_bytes(mutate(whole, chance))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = read(source)
            except SesgridError as error:
                outcomes["clear" if "\n" not in str(error) else "lines"] += 1
            else:
                told = any(w.category is SesgridWarning for w in caught)
                outcomes["told" if told else "read"] += 1
                assert told or len(found) == N, (file.name, seed)
        assert all(w.category is SesgridWarning for w in caught), [str(w.message) for w in caught]
        file.write_bytes(whole)
    assert same(read(source), land())
    assert outcomes["clear"] >= 1, outcomes
    assert not outcomes["lines"]


def test_the_newest_urban_atlas(tmp_path: Path) -> None:
    frame = land().rename(columns={"code_2018": "code_2021"})
    name = "CLMS_UA_LCU_S2021_V025ha_PL003L2_KRAKOW_03035_V01_R00_20241025"
    frame.to_file(tmp_path / f"{name}.fgb", SPATIAL_INDEX="NO")
    frame.to_parquet(tmp_path / f"{name}.parquet")
    frame.rename_geometry("geom").to_parquet(tmp_path / f"{name}.geoparquet")
    for suffix in (".fgb", ".parquet", ".geoparquet"):
        atlas = read_urban_atlas(tmp_path / (name + suffix))
        assert atlas["code"].tolist() == frame["code_2021"].astype(int).tolist()
        assert atlas.attrs == {"vintage": "2021", "layer": name, "source": name + suffix}
    # beside other tables with a code, it is the one named as the land use is
    (tmp_path / "city").mkdir()
    for stem in (name, "CLMS_UA_STL_S2021_V025ha_PL003L2_KRAKOW_03035_V01_R00_20241025"):
        frame.to_file(tmp_path / "city" / f"{stem}.fgb", driver="FlatGeobuf")
    assert read_urban_atlas(tmp_path / "city").attrs["layer"] == name
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as z:
        z.write(tmp_path / f"{name}.fgb", f"{name}/{name}.fgb")
    assert len(read_urban_atlas(tmp_path / "z.zip")) == N


def test_a_layer_of_a_flatgeobuf_that_has_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.fgb"
    pyogrio.write_dataframe(land(), path, layer="export", SPATIAL_INDEX="NO")
    pd.testing.assert_series_equal(
        pd.Series(read_urban_atlas(path)["code"]),
        pd.Series(read(path)["code_2018"].astype(int), name="code"),
    )


@pytest.mark.parametrize("remarks", [3, 5, 4000])
def test_remarks_of_gdal_are_told_in_a_few_lines(remarks: int) -> None:
    @_told("a.gpkg")
    def remark() -> None:
        for k in range(remarks):
            warnings.warn(f"remark {k}", RuntimeWarning, stacklevel=1)

    with pytest.warns(SesgridWarning) as caught:
        remark()
    texts = [str(w.message) for w in caught]
    assert texts[:5] == [f"a.gpkg: remark {k}" for k in range(min(remarks, 5))]
    assert texts[5:] == ["a.gpkg: GDAL has 3995 more remarks like these"] * (remarks == 4000)
