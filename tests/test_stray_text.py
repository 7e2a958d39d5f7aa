"""Text where a table declares numbers: read as a CSV is, or refused with the row; never GDAL's guess."""

from __future__ import annotations

import sqlite3
import struct
import warnings
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.sources import read_boundary, read_census

N = 12
PEOPLE = np.arange(N) * 7 + 63.5
FLAGS = np.arange(N) % 2


def cells() -> gpd.GeoDataFrame:
    east = 3759200 + 200 * np.arange(N)
    columns = {
        "IdINSPIRE": [f"CRS3035RES200mN2881200E{e}" for e in east],
        "I_est_cr": FLAGS,
        "Ind": PEOPLE,
        "Men": np.arange(N) + 20.0,
        "Ind_snv": PEOPLE * 20_000.25,
    }
    squares = shapely.box(east, 2881200, east + 200, 2881400)
    return gpd.GeoDataFrame(columns, geometry=squares, crs=3035)


def census(path: Path) -> pd.DataFrame:
    """Read without a single remark."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_census(path)


@pytest.fixture
def gpkg(tmp_path: Path) -> Path:
    cells().to_file(tmp_path / "a.gpkg")
    return tmp_path / "a.gpkg"


def change(path: Path, *statements: str) -> Path:
    """As a program that knows nothing of GDAL does: its triggers call functions of GDAL."""
    with closing(sqlite3.connect(path)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for statement in (*(f'DROP TRIGGER "{n}"' for (n,) in names), *statements):
            database.execute(statement)
        database.commit()
    return path


COMMA = "UPDATE a SET {0} = replace(printf('%.2f', {0}), '.', ',')"


def test_decimal_commas_in_a_geopackage_are_read_as_such(gpkg: Path) -> None:
    sound = census(gpkg)
    assert sound["individuals"].tolist() == PEOPLE.tolist()
    found = census(change(gpkg, COMMA.format("Ind"), COMMA.format("Ind_snv")))
    pd.testing.assert_frame_equal(found, sound)


def test_numbers_beside_text_lose_no_digit(gpkg: Path) -> None:
    change(gpkg, "UPDATE a SET Ind = 1.234 WHERE fid = 2", "UPDATE a SET Ind = 0.1 WHERE fid = 3")
    change(gpkg, "UPDATE a SET Ind = '70,5' WHERE fid = 1", "UPDATE a SET Men = '' WHERE fid = 4")
    with pytest.warns(SesgridWarning, match="can hardly be"):
        found = read_census(gpkg)
    assert found["individuals"].tolist() == [70.5, 1.234, 0.1, *PEOPLE[3:]]
    assert found["households"].isna().tolist() == [k == 3 for k in range(N)]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE a SET I_est_cr = 'oui' WHERE fid = 2", "'I_est_cr', row 2.*'oui'"),
        ("UPDATE a SET I_est_cr = 0.5 WHERE fid = 2", "'I_est_cr', row 2.*a flag 0 or 1"),
        ("UPDATE a SET Men = 'secret'", "'Men', row 1.*'secret' .12 such rows"),
        ("UPDATE a SET Ind_snv = '' WHERE fid = 3", "'Ind_snv', row 3"),
        ("UPDATE a SET Ind = '12x5' WHERE fid = 3", "'Ind', row 3.*'12x5'"),
    ],
)
def test_text_in_a_geopackage_is_no_number(gpkg: Path, statement: str, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        read_census(change(gpkg, statement))


def test_text_in_a_column_that_is_not_read(gpkg: Path) -> None:
    sound = census(gpkg)
    change(gpkg, "ALTER TABLE a ADD COLUMN other REAL", "UPDATE a SET other = 'x'")
    pd.testing.assert_frame_equal(census(gpkg), sound)


# ---------------------------------------------------------------- shapefiles


def fill(shp: Path, column: str, texts: dict[int, str]) -> Path:
    """Put texts into a column of the ``.dbf``, by row."""
    dbf = shp.with_suffix(".dbf")
    content = bytearray(dbf.read_bytes())
    first, width = struct.unpack_from("<HH", content, 8)
    at = 1
    for k in range(32, first - 1, 32):
        if content[k : k + 11].split(b"\0")[0] == column.encode():
            for row, text in texts.items():
                begin = first + row * width + at
                content[begin : begin + content[k + 16]] = text.rjust(content[k + 16]).encode()
        at += content[k + 16]
    dbf.write_bytes(content)
    return shp


@pytest.fixture
def shp(tmp_path: Path) -> Path:
    cells().to_file(tmp_path / "a.shp")
    return tmp_path / "a.shp"


@pytest.mark.parametrize(
    ("column", "text", "told"),
    [
        ("Ind", "63,5", "'Ind', row 3: expected a number with a decimal point, received '63,5'"),
        ("Ind", "12x5", "'12x5' .1 such rows"),
        ("Men", "abc", "'Men', row 3"),
        ("Men", "1 234.5", "'1 234.5'"),
        ("I_est_cr", "x", "'I_est_cr', row 3: expected a whole number"),
        ("I_est_cr", "0.5", "'I_est_cr', row 3: expected a whole number"),
    ],
)
def test_numbers_of_a_shapefile_that_are_none(shp: Path, column: str, text: str, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        read_census(fill(shp, column, {2: text}))


def test_numbers_of_a_shapefile_as_programs_write_them(shp: Path) -> None:
    sound = census(shp)
    assert sound["individuals"].tolist() == PEOPLE.tolist()
    fill(shp, "Ind", {0: "+63.50", 1: "7.05E+01", 2: "77.5\0\0"})
    fill(shp, "Men", {3: "", 4: "*" * 24, 5: "\0" * 24, 6: "26.", 7: "27"})
    found = census(shp)
    assert found["individuals"].tolist() == PEOPLE.tolist()
    assert found["households"].isna().tolist() == [k in (3, 4, 5) for k in range(N)]
    assert found["households"].dropna().tolist() == [20, 21, 22, 26, 27, 28, 29, 30, 31]


@pytest.mark.parametrize("texts", ["TF", "yn", "10", "VF"])
def test_truth_values_of_a_shapefile(shp: Path, texts: str) -> None:
    sound = census(shp)
    cells().assign(I_est_cr=FLAGS == 1).to_file(shp)
    fill(shp, "I_est_cr", {row: texts[0] if flag else texts[1] for row, flag in enumerate(FLAGS)})
    if texts in ("TF", "yn"):
        pd.testing.assert_frame_equal(census(shp), sound)
    else:
        with pytest.raises(
            FormatError, match=r"'I_est_cr', row \d: expected a truth value, T or F"
        ):
            read_census(shp)


def test_rows_and_columns_of_a_shapefile_that_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    cells().assign(other=1.5).to_file(path)
    sound = census(path)
    fill(path, "other", dict.fromkeys(range(N), "x"))
    pd.testing.assert_frame_equal(census(path), sound)
    fill(path, "Ind", {2: "x"})
    dbf = bytearray(path.with_suffix(".dbf").read_bytes())
    first, width = struct.unpack_from("<HH", dbf, 8)
    dbf[first + 2 * width] = ord("*")
    path.with_suffix(".dbf").write_bytes(dbf)
    pd.testing.assert_frame_equal(census(path), sound.drop(sound.index[2]))


TYPES = ("VARCHAR(40)", "NUMERIC(12,2)", "BIGINT", "DOUBLE PRECISION", "NUM", "text", "")


@pytest.mark.parametrize("kind", TYPES)
def test_columns_of_types_that_gdal_does_not_know(gpkg: Path, kind: str) -> None:
    sound = census(gpkg)
    columns = ", ".join(f'"{name}" {kind}' for name in cells().columns.drop("geometry"))
    change(
        gpkg,
        "DROP TABLE rtree_a_geom",
        "ALTER TABLE a RENAME TO old",
        f"CREATE TABLE a (fid INTEGER PRIMARY KEY, geom POLYGON, {columns}, centre POINT)",
        "INSERT INTO a SELECT *, NULL FROM old",
        "DROP TABLE old",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns without a type GDAL remarks so
        found = read_census(gpkg)
        rows = read_boundary(gpkg)
    pd.testing.assert_frame_equal(found, sound)
    assert rows.columns.drop("geometry").tolist() == cells().columns.drop("geometry").tolist()
    assert rows["IdINSPIRE"].tolist() == sound.index.tolist()


def test_a_table_whose_rows_have_no_numbers(gpkg: Path) -> None:
    change(
        gpkg,
        "DROP TABLE rtree_a_geom",
        "ALTER TABLE a RENAME TO old",
        "CREATE TABLE a (IdINSPIRE VARCHAR(40) PRIMARY KEY, Ind REAL, Ind_snv REAL, geom POLYGON) "
        "WITHOUT ROWID",
        "INSERT INTO a SELECT IdINSPIRE, Ind, Ind_snv, geom FROM old",
        "DROP TABLE old",
    )
    with pytest.raises(
        FormatError, match=r"its columns IdINSPIRE .* export the layer to a new file"
    ):
        read_census(gpkg)
