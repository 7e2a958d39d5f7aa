"""Filosofi in every format and vintage, and every way in which a file can be wrong."""

from __future__ import annotations

import errno
import gzip
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import py7zr
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from sesgrid.errors import (
    CellIdError,
    ConfigError,
    FormatError,
    MissingInputError,
    ReadError,
    SesgridWarning,
    TooFewCellsError,
)
from sesgrid.grid import format_cell_id, parse_cell_id
from sesgrid.sources import read_filosofi, select_cells
from sesgrid.sources.cell_geometry import corners_of_ids
from sesgrid.sources.filosofi import vintage_of
from sesgrid.sources.stray_cells import BOUNDS_M

REAL = Path(__file__).resolve().parents[2] / "shared" / "realdata" / "filosofi"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="shared/realdata is absent")

IDS = [format_cell_id(2881200 + 200 * (i // 3), 3759200 + 200 * (i % 3)) for i in range(6)]
IND = [115.5, 518.0, 264.0, 2.0, 10.1, 63.5]
SNV = [3157103.6, 13596138.0, 8513111.3, 48167.1, 121200.0, 1637813.5]
MEN = [40.0, 200.0, 100.5, 1.0, np.nan, 42.0]
FLAG = [0, 0, 0, 1, 1, 0]
INCOME = [snv / ind for snv, ind in zip(SNV, IND, strict=True)]

NAMES = {
    "2015": ("IdINSPIRE", "Ind", "Men", "Ind_snv", "I_est_cr"),
    "2017": ("Idcar_200m", "Ind", "Men", "Ind_snv", "I_est_200"),
    "2019": ("idcar_200m", "ind", "men", "ind_snv", "i_est_200"),
}


def table(vintage: str = "2019") -> pd.DataFrame:
    columns = dict(zip(NAMES[vintage], (IDS, IND, MEN, SNV, FLAG), strict=True))
    extra = {"i_est_1km": 7, "lcog_geo": "2A0049306493077", "idcar_1km": "CRS3035RES1000mN2881000"}
    if vintage == "2017":
        extra["Groupe"] = "545008"
    return pd.DataFrame(columns | extra)


def with_squares(frame: pd.DataFrame, crs: str | int | None = 3035) -> gpd.GeoDataFrame:
    """The table with its cells drawn in `crs`: corners transformed by pyproj, as INSEE does."""
    corners = [parse_cell_id(i) for i in IDS]
    squares = gpd.GeoSeries([shapely.box(e, n, e + 200, n + 200) for n, e in corners], crs=3035)
    return gpd.GeoDataFrame(frame, geometry=squares if crs is None else squares.to_crs(crs))


def check(cells: gpd.GeoDataFrame, *, flags: bool = True) -> None:
    assert cells.index.tolist() == IDS
    assert cells.index.name == "cell_id"
    assert cells.crs == 3035
    assert {c: str(cells[c].dtype) for c in cells.columns[:-1]} == {
        "individuals": "float64",
        "households": "Float64",
        "income": "float64",
        "imputed": "boolean",
        "departement": "string",
    }
    assert cells["individuals"].tolist() == IND
    assert cells["income"].tolist() == pytest.approx(INCOME)
    assert cells["households"].isna().tolist() == [False] * 4 + [True, False]
    assert cells["households"].dropna().tolist() == [m for m in MEN if m == m]
    if flags:
        assert cells["imputed"].tolist() == [bool(f) for f in FLAG]
    else:
        assert cells["imputed"].isna().all()
    for cell_id, square in cells.geometry.items():
        n, e = parse_cell_id(cell_id)
        assert square.equals(shapely.box(e, n, e + 200, n + 200))


WRITERS: dict[str, Callable[[Path, pd.DataFrame], Path]] = {}


def writer(function: Callable[[Path, pd.DataFrame], Path]) -> None:
    WRITERS[function.__name__.strip("_")] = function


@writer
def csv(folder: Path, frame: pd.DataFrame) -> Path:
    frame.assign(i_est_1km="0").to_csv(folder / "cells.csv", index=False, quoting=0)
    return folder / "cells.csv"


@writer
def latin1_csv(folder: Path, frame: pd.DataFrame) -> Path:
    frame.assign(Libellé="Bègles").to_csv(folder / "cells.csv", index=False, encoding="latin-1")
    return folder / "cells.csv"


@writer
def semicolon_csv_with_bom_and_comma(folder: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(folder / "c.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    return folder / "c.csv"


@writer
def gpkg(folder: Path, frame: pd.DataFrame) -> Path:
    with_squares(frame).to_file(folder / "cells.gpkg", layer="cells")
    return folder / "cells.gpkg"


@writer
def gpkg_lambert_93(folder: Path, frame: pd.DataFrame) -> Path:
    with_squares(frame, 2154).to_file(folder / "cells.gpkg", layer="cells")
    return folder / "cells.gpkg"


@writer
def shapefile(folder: Path, frame: pd.DataFrame) -> Path:
    with_squares(frame, 2154).to_file(folder / "cells.shp")
    return folder / "cells.shp"


@writer
def parquet(folder: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(folder / "cells.parquet")
    return folder / "cells.parquet"


@writer
def geoparquet(folder: Path, frame: pd.DataFrame) -> Path:
    with_squares(frame, 2154).to_parquet(folder / "cells.parquet")
    return folder / "cells.parquet"


@pytest.mark.parametrize("vintage", list(NAMES))
@pytest.mark.parametrize("kind", list(WRITERS))
def test_every_format_and_vintage(tmp_path: Path, kind: str, vintage: str) -> None:
    path = WRITERS[kind](tmp_path, table(vintage))
    cells = read_filosofi(path)
    check(cells)
    assert cells.attrs == {
        "vintage": "unknown" if vintage == "2019" else vintage,
        "source": path.name,
    }


@pytest.mark.parametrize("crs", [3035, 2154, 4326, 3857, 32631])
def test_the_same_census_is_the_same_table_in_every_format_and_crs(
    tmp_path: Path, crs: int
) -> None:
    frame = table()
    drawn = with_squares(frame, crs)
    drawn.to_file(tmp_path / "a.gpkg", layer="cells")
    drawn.to_file(tmp_path / "a.shp")
    drawn.to_parquet(tmp_path / "a.geoparquet")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "b.csv", index=False)
    found = [read_filosofi(p) for p in sorted(tmp_path.glob("*.*")) if p.suffix[1:] in FORMATS]
    assert len(found) == len(FORMATS)
    for other in found:
        assert_geodataframe_equal(other, found[0], normalize=False)
        pd.testing.assert_frame_equal(
            pd.DataFrame(other).drop(columns="geometry"),
            pd.DataFrame(found[0]).drop(columns="geometry"),
            check_exact=True,
        )


FORMATS = ("gpkg", "shp", "geoparquet", "parquet", "csv")


@pytest.mark.parametrize("archive", ["zip", "7z", "7z.zip"])
@pytest.mark.parametrize("kind", ["csv", "shapefile", "gpkg"])
def test_archives(tmp_path: Path, kind: str, archive: str) -> None:
    (tmp_path / "in").mkdir()
    WRITERS[kind](tmp_path / "in", table())
    path = tmp_path / "Filosofi2021_carreaux.zip"
    inner = tmp_path / "carreaux.7z" if archive != "zip" else None
    if inner:
        with py7zr.SevenZipFile(inner, "w") as z:
            z.writeall(tmp_path / "in", "in")
    if archive == "7z":
        assert inner is not None
        path = inner.rename(tmp_path / "Filosofi2021_carreaux.7z")
    else:
        with zipfile.ZipFile(path, "w") as z:
            for file in [inner] if inner else list((tmp_path / "in").iterdir()):
                z.write(file, file.name)
    cells = read_filosofi(path)
    check(cells)
    assert cells.attrs == {"vintage": "2021", "source": path.name}


def test_gzip_plain_and_in_an_archive(tmp_path: Path) -> None:
    content = WRITERS["csv"](tmp_path, table()).read_bytes()
    packed = tmp_path / "Filosofi2021_carreaux.csv.gz"
    packed.write_bytes(gzip.compress(content))
    cells = read_filosofi(packed)
    check(cells)
    assert cells.attrs == {"vintage": "2021", "source": packed.name}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.write(packed, packed.name)
    check(read_filosofi(tmp_path / "a.zip"))
    whole = packed.read_bytes()
    for damaged in (whole[:-20], whole[:-8] + bytes(8), b"PK", b""):
        packed.write_bytes(damaged)
        with pytest.raises((FormatError, MissingInputError), match=r"cannot be unpacked|is empty"):
            read_filosofi(packed)
    packed.rename(tmp_path / "a.tar.gz").write_bytes(whole)
    with pytest.raises(MissingInputError, match="nothing to read in it"):
        read_filosofi(tmp_path / "a.tar.gz")


def test_vintage_in_order_argument_columns_name(tmp_path: Path) -> None:
    path = WRITERS["csv"](tmp_path, table())
    assert read_filosofi(path, vintage="2021").attrs["vintage"] == "2021"
    named = path.rename(tmp_path / "export2021_Filosofi2019_carreaux_200m_met.csv")
    assert read_filosofi(named).attrs["vintage"] == "2019"
    assert read_filosofi(named, vintage="2019").attrs["vintage"] == "2019"
    with pytest.warns(SesgridWarning, match=r"vintage 2021 was given and is used.*tell 2019"):
        assert read_filosofi(named, vintage="2021").attrs["vintage"] == "2021"
    table("2015").to_csv(named, index=False)
    assert read_filosofi(named, vintage="unknown").attrs["vintage"] == "2015"
    with pytest.warns(SesgridWarning, match="tell 2015"):
        assert read_filosofi(named, vintage="2021").attrs["vintage"] == "2021"
    (tmp_path / "projet_2021").mkdir()
    below = WRITERS["csv"](tmp_path / "projet_2021", table())
    assert read_filosofi(below).attrs["vintage"] == "2021"
    with pytest.warns(SesgridWarning, match="tell 2021"):
        assert read_filosofi(below, vintage="2019").attrs["vintage"] == "2019"
    assert vintage_of(["idcar_200m"], ["x_120190.csv"]) is None
    assert vintage_of(["idcar_200m"], ["export_2021_carreaux_2019.csv"]) is None
    assert vintage_of(["idcar_200m"], ["2017_2019.csv", "Filosofi2021"]) == "2021"
    with pytest.raises(ConfigError, match="'2016'"):
        read_filosofi(named, vintage="2016")


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table().drop(columns=["men", "i_est_200", "lcog_geo"]).to_parquet(path)
    cells = read_filosofi(path)
    assert cells["imputed"].isna().all()
    assert cells["households"].isna().all()
    assert cells["income"].tolist() == pytest.approx(INCOME)


def test_ids_parse_fast_as_one_by_one() -> None:
    ids = pd.Series(IDS)
    northing, easting = corners_of_ids(ids)
    assert list(zip(northing.tolist(), easting.tolist(), strict=True)) == [
        parse_cell_id(i) for i in IDS
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-9999, 40000), st.integers(-9999, 40000)), min_size=1))
def test_corners_round_trip(cells: list[tuple[int, int]]) -> None:
    ids = pd.Series([format_cell_id(200 * n, 200 * e) for n, e in cells])
    northing, easting = corners_of_ids(ids)
    assert [(n // 200, e // 200) for n, e in zip(northing, easting, strict=True)] == cells


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ("N28812\u0660\u0660E3759200", r"row 2.*expected a cell id"),
        ("N2881200E3759200000000000000", r"row 2.*plain digits"),
    ],
)
def test_what_only_the_slow_way_would_accept_is_refused(odd: str, why: str) -> None:
    with pytest.raises(CellIdError, match=why):
        corners_of_ids(pd.Series([IDS[1], f"CRS3035RES200m{odd}"]))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, len(IDS[0])),
    st.sampled_from(["", "0", "1", "m", " ", "-", "\n"]),
    st.integers(0, 3),
)
def test_damaged_ids_are_refused_as_one_by_one(at: int, insert: str, cut: int) -> None:
    damaged = IDS[0][:at] + insert + IDS[0][at + cut :]
    try:
        expected = parse_cell_id(damaged)
    except CellIdError:
        with pytest.raises(CellIdError, match=r"row 2.*1 such row"):
            corners_of_ids(pd.Series([IDS[1], damaged]))
    else:
        northing, easting = corners_of_ids(pd.Series([damaged]))
        assert (northing[0], easting[0]) == expected


BAD_IDS = {
    "CRS5490RES200mN1601200E720000": "CRS 5490.*metropolitan",
    "CRS2975RES200mN7653200E338000": "CRS 2975",
    "CRS3035RES1000mN2881000E3759000": "1000 m cell",
    "CRS3035RES200mN2881201E3759200": "off the 200 m lattice",
    "CRS3035RES200mN2881200E3759100": "off the 200 m lattice",
    "75056": "expected a cell id",
}


@pytest.mark.parametrize("cell_id", list(BAD_IDS))
def test_bad_ids(tmp_path: Path, cell_id: str) -> None:
    frame = table()
    frame.loc[[2, 4], "idcar_200m"] = cell_id
    path = WRITERS["csv"](tmp_path, frame)
    with pytest.raises(CellIdError, match=f"cells.csv.*'idcar_200m'.*row 3.*{BAD_IDS[cell_id]}"):
        read_filosofi(path)
    with pytest.raises(CellIdError, match="2 such rows"):
        read_filosofi(path)


def test_ids_that_are_numbers(tmp_path: Path) -> None:
    frame = table().assign(idcar_200m=range(6))
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(CellIdError, match=r"a\.parquet.*row 1: expected a cell id.*received"):
        read_filosofi(tmp_path / "a.parquet")


def test_missing_id_and_repeated_ids(tmp_path: Path) -> None:
    frame = table()
    frame.loc[1, "idcar_200m"] = None
    with pytest.raises(CellIdError, match="row 2"):
        read_filosofi(WRITERS["csv"](tmp_path, frame))
    frame = pd.concat([table(), table().iloc[[1, 3]]])
    with pytest.raises(FormatError, match=rf"2 cell ids appear more than once \(first: {IDS[1]}"):
        read_filosofi(WRITERS["csv"](tmp_path, frame))


@pytest.mark.parametrize("kind", ["csv", "parquet", "gpkg"])
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("ind", 0.0, "people above 0"),
        ("ind", -2.0, "people above 0"),
        ("ind", None, "people above 0"),
        ("ind", np.inf, "a finite number, received (inf|'inf') "),
        ("ind_snv", None, "sum of euros"),
        ("ind_snv", -1.0, "sum of euros"),
        ("men", -1.0, "households"),
        ("i_est_200", 2, "flag 0 or 1"),
    ],
)
def test_bad_values(
    tmp_path: Path, kind: str, column: str, value: float | None, expected: str
) -> None:
    frame = table()
    frame[column] = frame[column].astype(float)
    frame.loc[3, column] = value
    path = WRITERS[kind](tmp_path, frame)
    with pytest.raises(FormatError, match=rf"'{column}', row 4 \(cell {IDS[3]}\).*{expected}"):
        read_filosofi(path)


def test_text_where_a_number_belongs(tmp_path: Path) -> None:
    frame = table().astype({"ind": object})
    frame.loc[5, "ind"] = "beaucoup"
    with pytest.raises(FormatError, match=r"'ind', row 6.*'beaucoup'"):
        read_filosofi(WRITERS["csv"](tmp_path, frame))


def test_missing_flag_is_na(tmp_path: Path) -> None:
    frame = table().astype({"i_est_200": "Int64"})
    frame.loc[0, "i_est_200"] = pd.NA
    cells = read_filosofi(WRITERS["csv"](tmp_path, frame))
    assert cells["imputed"].isna().tolist() == [True] + [False] * 5


def test_the_same_cell_written_with_a_zero_more_is_the_same_cell(tmp_path: Path) -> None:
    frame = table()
    frame.loc[1, "idcar_200m"] = " " + IDS[1].replace("N2", "N02")
    check(read_filosofi(WRITERS["csv"](tmp_path, frame)))
    frame.loc[2, "idcar_200m"] = IDS[1]
    with pytest.raises(FormatError, match=f"1 cell ids appear more than once.*{IDS[1]}"):
        read_filosofi(WRITERS["csv"](tmp_path, frame))


def test_cells_outside_the_area_of_use_are_refused(tmp_path: Path) -> None:
    west, south, east, north = BOUNDS_M
    whole = Transformer.from_crs(4326, 3035, always_xy=True)
    edges = whole.transform_bounds(*whole.target_crs.area_of_use.bounds, densify_pts=99)
    assert np.allclose(BOUNDS_M, edges, atol=400)
    for corner in ((south - 200, west), (south, west - 200), (north, west), (south, east)):
        frame = table()
        frame.loc[2, "idcar_200m"] = format_cell_id(*corner)
        with pytest.raises(
            CellIdError, match=r"row 3: cell CRS.* outside the area of use of EPSG:3035"
        ):
            read_filosofi(WRITERS["csv"](tmp_path, frame))


def test_two_parts_far_apart_are_kept_and_told(tmp_path: Path) -> None:
    ids = [format_cell_id(2881200 + 200 * k, 3759200) for k in range(40)]
    ids[20:] = [i.replace("E3759200", "E4759200") for i in ids[20:]]
    frame = pd.DataFrame({"idcar_200m": ids, "ind": 10.0, "ind_snv": np.arange(40) * 1e3 + 2e5})
    path = WRITERS["csv"](tmp_path, frame)
    with pytest.warns(SesgridWarning, match="its cells lie in parts 1000 km apart"):
        assert len(read_filosofi(path)) == 40


def test_a_cell_far_from_all_others_is_left_out_and_named(tmp_path: Path) -> None:
    ids = [format_cell_id(2881200 + 200 * k, 3759200) for k in range(40)]
    frame = pd.DataFrame({"idcar_200m": ids, "ind": 10.0, "ind_snv": np.arange(40) * 1e3 + 2e5})
    frame.loc[7, "idcar_200m"] = lost = ids[7].replace("E3759200", "E6759200")
    path = WRITERS["csv"](tmp_path, frame)
    with pytest.warns(
        SesgridWarning, match=f"1 of 40 cells lie more than 300 km away.*first: {lost}"
    ):
        cells = read_filosofi(path)
    assert cells.index.tolist() == ids[:7] + ids[8:]
    assert cells["income"].tolist() == (frame["ind_snv"] / 10).drop(7).tolist()
    # two cities are none, nor are the cells of Corsica
    for east in (4059000, 3900000):
        frame["idcar_200m"] = ids[:20] + [i.replace("3759200", str(east)) for i in ids[20:]]
        assert len(read_filosofi(WRITERS["csv"](tmp_path, frame))) == 40


@pytest.mark.parametrize("dtype", ["text", "int64", "float64"])
def test_departements_of_codes_that_lost_their_zero(tmp_path: Path, dtype: str) -> None:
    codes = ["1004", "100401007", "75056", "4112", "6088", "751127511375114"]
    frame = table().assign(lcog_geo=codes)
    expected = ["01", "01", "75", "04", "06", "75"]
    frame = frame if dtype == "text" else frame.astype({"lcog_geo": dtype})
    path = WRITERS["csv" if dtype == "text" else "parquet"](tmp_path, frame)
    with pytest.warns(
        SesgridWarning, match=r"'lcog_geo': 4 values have lost their first zero.*1004"
    ):
        cells = read_filosofi(path)
    assert cells["departement"].tolist() == expected
    right = ["01004", "0100401007", "75056", "04112", "2A004", "97411"]
    cells = read_filosofi(WRITERS["csv"](tmp_path, table().assign(lcog_geo=right)))
    assert cells["departement"].tolist() == ["01", "01", "75", "04", "2A", "974"]
    wrong = ["75O56", "00001", "20004", "123", "7505", "75056 "]
    with pytest.warns(SesgridWarning) as caught:
        cells = read_filosofi(WRITERS["csv"](tmp_path, table().assign(lcog_geo=wrong)))
    assert cells["departement"].isna().tolist() == [True] * 4 + [False] * 2
    assert [str(w.message).split(": ")[1][:9] for w in caught] == ["4 values ", "1 values "]


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("ind_snv", 5.0, "1 of 6 cells have incomes .*first: 2.5 in row 4, cell"),
        ("ind_snv", 0.0, "1 of 6 cells have incomes .*first: 0 in row 4, cell"),
        ("ind_snv", 1e15, "incomes in euros a year that can hardly be .*5e\\+14 in row 4"),
        ("ind", 3e7, "numbers of people that can hardly be .*first: 3e\\+07 in row 4"),
    ],
)
def test_values_that_can_hardly_be_are_told(
    tmp_path: Path, column: str, value: float, told: str
) -> None:
    frame = table()
    frame.loc[3, column] = value
    if column == "ind":
        frame.loc[3, "ind_snv"] = 20_000 * value
    with pytest.warns(SesgridWarning, match=told):
        assert len(read_filosofi(WRITERS["csv"](tmp_path, frame))) == 6
    frame.loc[3, ["ind", "ind_snv"]] = 1e-300, 1e300
    with pytest.raises(FormatError, match=r"'ind_snv', row 4 .* finite for each of the people"):
        read_filosofi(WRITERS["csv"](tmp_path, frame))


@pytest.mark.parametrize("communes", [None, "", ["75056"], {"a": 1}, "\uff17\uff15056", b"75056"])
def test_communes_of_any_kind_are_read_or_told(tmp_path: Path, communes: object) -> None:
    path = WRITERS["parquet"](tmp_path, table().assign(lcog_geo=[communes] * 6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_filosofi(path)["departement"]
    if communes == b"75056":
        assert found.tolist() == ["75"] * 6
    else:
        assert found.isna().all()
    odd = [c for c in (communes,) if c and c != b"75056"]
    assert [w.category for w in caught] == [SesgridWarning] * len(odd)


def test_a_name_that_is_almost_one_is_told(tmp_path: Path) -> None:
    path = WRITERS["csv"](tmp_path, table().rename(columns={"lcog_geo": "lcog_gek"}))
    with pytest.warns(
        SesgridWarning, match="the column 'lcog_gek' is not read; call it 'lcog_geo'"
    ):
        assert read_filosofi(path)["departement"].isna().all()


def test_flags_may_be_truth_values(tmp_path: Path) -> None:
    flags = [bool(f) for f in FLAG]
    check(read_filosofi(WRITERS["csv"](tmp_path, table().assign(i_est_200=flags))))
    check(read_filosofi(WRITERS["parquet"](tmp_path, table().assign(i_est_200=flags))))


def test_numbers_as_they_are_written_in_france(tmp_path: Path) -> None:
    frame = table()
    spaced = frame.assign(
        ind=[f"{v:,.1f}".replace(",", "\u202f").replace(".", ",") for v in IND],
        ind_snv=[f"{v:,.1f}".replace(",", " ").replace(".", ",") for v in SNV],
    )
    spaced.to_csv(tmp_path / "a.csv", index=False, sep="\t", lineterminator="\r", encoding="utf-16")
    check(read_filosofi(tmp_path / "a.csv"))
    unclear = frame.assign(ind=[f"{n},{n}00" for n in range(1, 7)], ind_snv="100000")
    unclear.to_csv(tmp_path / "a.csv", index=False, sep=";")
    with pytest.raises(
        FormatError, match=r"'ind', row 1 .*read in one way only.* '1,100' \(6 such"
    ):
        read_filosofi(tmp_path / "a.csv")


@pytest.mark.parametrize("names", ["IDCAR_200M,Ind,IND SNV", " idcar-200m , ind , ind snv "])
def test_names_of_columns_in_any_case_and_order(tmp_path: Path, names: str) -> None:
    rows = [f"{i},{n},{s}" for i, n, s in zip(IDS, IND, SNV, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join([names, *rows, ""]))
    assert read_filosofi(tmp_path / "a.csv")["income"].tolist() == pytest.approx(INCOME)


def test_files_that_are_not_filosofi(tmp_path: Path) -> None:
    path = tmp_path / "cities.csv"
    path.write_text("name,people\nLyon,520000\n")
    with pytest.raises(FormatError, match=r"not a Filosofi.*'idcar_200m' or 'idinspire'.*name, pe"):
        read_filosofi(path)
    path.write_text("")
    with pytest.raises(FormatError, match="empty"):
        read_filosofi(path)
    path.write_text(",".join(NAMES["2019"]) + "\n")
    with pytest.raises(FormatError, match="no rows"):
        read_filosofi(path)
    path.write_text("a,a\n1,2\n" + "idcar_200m,ind,ind_snv\n")
    with pytest.raises(FormatError):
        read_filosofi(path)
    path.write_text("Idcar_1km,I_est_1km,Ind,Ind_snv\nCRS3035RES1000mN2881000E3759000,0,1,1\n")
    with pytest.raises(FormatError, match="1 km release"):
        read_filosofi(path)
    path.write_text(" ".join(["idcar_1km", *NAMES["2019"]]) + f"\nx {IDS[0]} 1 1 9000 0\n")
    with pytest.raises(FormatError, match=r"lacks the column 'idcar_200m' (?!.*1 km release)"):
        read_filosofi(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = WRITERS["csv"](tmp_path, table())
    path.write_text(path.read_text() + "CRS3035,1\n")
    with pytest.raises(FormatError, match=r"cells\.csv, line 8: expected 8 fields.*received 2"):
        read_filosofi(path)
    header = "idcar_200m,ind,IND,ind_snv,i_est_200\n"
    path.write_text(header)
    with pytest.raises(FormatError, match=r"\['ind', 'IND'\] could all be"):
        read_filosofi(path)
    path.write_text("idcar_200m,ind,ind,ind_snv\n" + f"{IDS[0]},1,1,9000\n")
    with pytest.raises(FormatError, match=r"\['ind', 'ind'\] could all be"):
        read_filosofi(path)
    path.write_text("idcar_200m,ind,ind_snv,x,x\n" + f"{IDS[0]},1,9000,1,1\n")
    assert read_filosofi(path)["income"].tolist() == [9000.0]
    for name in ("a.parquet", "a.gpkg", "a.shp"):
        (tmp_path / name).write_bytes(b"PAR1 not really")
        with pytest.raises(FormatError, match=rf"^{name}.*damaged or of another kind"):
            read_filosofi(tmp_path / name)
    (tmp_path / "a.xlsx").write_bytes(b"x")
    with pytest.raises(FormatError, match=r"unknown kind of file '.xlsx'"):
        read_filosofi(tmp_path / "a.xlsx")
    with pytest.raises(MissingInputError, match="no such file"):
        read_filosofi(tmp_path / "nowhere.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="nothing to read"):
        read_filosofi(tmp_path / "empty")


def test_layer_choice(tmp_path: Path) -> None:
    path = tmp_path / "city.gpkg"
    flagged = with_squares(table())
    bare = with_squares(table().drop(columns="i_est_200"))
    bare.to_file(path, layer="rest")
    bare.to_file(path, layer="edge")
    with pytest.raises(FormatError, match=r"2 layers could be the cells: 'rest', 'edge'"):
        read_filosofi(path)
    check(read_filosofi(path, "edge"), flags=False)
    check(read_filosofi(path, layer="EDGE"), flags=False)
    flagged.to_file(path, layer="cells")
    check(read_filosofi(path))
    flagged.to_file(path, layer="more")
    with pytest.raises(FormatError, match="'cells', 'more'"):
        read_filosofi(path)
    with pytest.raises(MissingInputError, match=r"no layer 'paris'.*'rest', 'edge', 'cells'"):
        read_filosofi(path, layer="paris")


def test_overseas_files_beside_are_left(tmp_path: Path) -> None:
    for name in ("carreaux_200m_met", "carreaux_200m_mart", "carreaux_200m_reun"):
        WRITERS["csv"](tmp_path, table()).rename(tmp_path / f"{name}.csv")
    pd.DataFrame({"Idcar_1km": ["x"]}).to_csv(tmp_path / "carreaux_1km_met.csv")
    assert read_filosofi(tmp_path).attrs["source"] == tmp_path.name
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for file in tmp_path.glob("*.csv"):
            z.write(file, file.name)
    check(read_filosofi(tmp_path / "a.zip"))


def test_clipped_geometries_become_squares_with_one_warning(tmp_path: Path) -> None:
    frame = with_squares(table())
    frame.loc[1, "geometry"] = frame.geometry[1].intersection(frame.geometry[1].buffer(-20))
    frame.loc[2, "geometry"] = None
    for crs in (3035, 2154, 4326):
        path = tmp_path / f"{crs}.gpkg"
        frame.to_crs(crs).to_file(path, layer="x")
        with pytest.warns(SesgridWarning, match="2 of 6 geometries") as caught:
            check(read_filosofi(path))
        assert len(caught) == 1
        assert caught[0].filename == __file__


UNDEFINED = (
    'LOCAL_CS["Undefined Cartesian SRS with unknown unit",UNIT["unknown",0],AXIS["X",OTHER]]'
)


@pytest.mark.parametrize("crs", [3035, 2154])
@pytest.mark.parametrize("declared", [None, UNDEFINED])
def test_coordinates_without_a_usable_crs(tmp_path: Path, crs: int, declared: str | None) -> None:
    frame = with_squares(table(), crs).set_crs(declared, allow_override=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # writing without a CRS
        frame.to_file(tmp_path / "a.gpkg", layer="a")
    check(read_filosofi(tmp_path / "a.gpkg"))


def test_geometry_outside_its_square(tmp_path: Path) -> None:
    frame = with_squares(table())
    frame.loc[[1, 4], "geometry"] = frame.geometry[[1, 4]].translate(0, 30)
    frame.to_file(tmp_path / "a.gpkg", layer="cells")
    with pytest.raises(FormatError, match=rf"2 cells.*30 m \(first: {IDS[1]}, {IDS[4]}"):
        read_filosofi(tmp_path / "a.gpkg")
    wrong = with_squares(table(), 2154).set_crs(3035, allow_override=True)
    wrong.to_file(tmp_path / "b.gpkg", layer="cells")
    with pytest.raises(FormatError, match=r"b\.gpkg.*6 cells lies outside"):
        read_filosofi(tmp_path / "b.gpkg")


def test_half_a_metre_outside_is_drawing_noise(tmp_path: Path) -> None:
    frame = with_squares(table())
    frame.geometry = frame.geometry.translate(0.5, 0)
    frame.to_file(tmp_path / "a.gpkg", layer="cells")
    with pytest.warns(SesgridWarning, match="6 of 6"):
        check(read_filosofi(tmp_path / "a.gpkg"))


CITY = shapely.box(3759200, 2881200, 3759500, 2881600)


@pytest.mark.parametrize(
    ("rule", "expected"), [("within", [0, 3]), ("centre", [0, 1, 3, 4]), ("touching", [0, 1, 3, 4])]
)
def test_select_cells(rule: str, expected: list[int]) -> None:
    cells = with_squares(table()).set_index("idcar_200m")
    cells.attrs["vintage"] = "2019"
    lambert = gpd.GeoSeries([CITY], crs=3035).segmentize(10).to_crs(2154)
    for boundary in (CITY, gpd.GeoSeries([CITY], crs=3035), lambert.to_frame("geometry")):
        city = CITY.buffer(0.01) if boundary is not CITY else boundary
        area = boundary if boundary is CITY else gpd.GeoSeries([city], crs=3035).to_crs(2154)
        chosen = select_cells(cells, area, rule)
        assert chosen.index.tolist() == [IDS[i] for i in expected]
        assert chosen.attrs == {"vintage": "2019"}


def test_select_cells_edges_and_errors() -> None:
    cells = with_squares(table())
    west, south, _, north = cells.geometry[0].bounds
    beside = shapely.box(west - 100, south, west, north)
    for rule in ("within", "centre", "touching"):
        with pytest.raises(TooFewCellsError, match=rf"'{rule}'.*E 3759100–3759200.*of the same"):
            select_cells(cells, beside, rule)
    sliver = shapely.box(west - 100, south, west + 1, north)
    assert len(select_cells(cells, sliver, "touching")) == 1
    half = shapely.box(west, south, west + 100, north)
    assert len(select_cells(cells, half, "centre")) == 1
    with pytest.raises(ConfigError, match="'inside'"):
        select_cells(cells, CITY, "inside")
    with pytest.raises(FormatError, match="no CRS"):
        select_cells(cells, gpd.GeoSeries([CITY]))


@needs_real
def test_real_bordeaux_2015() -> None:
    path = REAL / "Filosofi2015_carreaux_200m_bordeaux_ouest.csv"
    cells = read_filosofi(path)
    raw = pd.read_csv(path)
    assert cells.attrs == {"vintage": "2015", "source": path.name}
    assert len(cells) == len(raw) == 3350
    assert np.allclose(cells["income"], raw["Ind_snv"] / raw["Ind"])
    assert cells["income"].max() == pytest.approx(40710, abs=1)
    assert cells["imputed"].tolist() == (raw["I_est_cr"] == 1).tolist()
    assert cells["households"].tolist() == raw["Men"].tolist()


@needs_real
def test_real_paris_strip_2019() -> None:
    cells = read_filosofi(REAL / "paris_strip_filosofi2019_200m.csv")
    assert len(cells) == 211
    assert cells.attrs["vintage"] == "2019"
    assert cells["households"].isna().all()
    assert cells.loc["CRS3035RES200mN2881200E3759200", "income"] == 3157103.6 / 115.5
    assert not cells["imputed"].isna().any()


@needs_real
def test_real_bondy_2019() -> None:
    path = REAL / "bondy_filosofi2019_carreaux.gpkg"
    with pytest.warns(SesgridWarning, match="66 of 164 geometries") as caught:
        cells = read_filosofi(path)
    assert len(caught) == 1
    assert len(cells) == 164
    assert cells.attrs["vintage"] == "2019"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = pyogrio.read_dataframe(path, layer="bondy")
    to_grid = Transformer.from_crs(2154, 3035, always_xy=True)
    drawn = shapely.transform(raw.geometry.values, to_grid.transform, interleaved=False)
    assert shapely.covers(shapely.buffer(cells.geometry.values, 0.001), drawn).all()
    with pytest.raises(FormatError, match=r"'resteBondy': \d+ cell ids appear more than once"):
        read_filosofi(path, layer="resteBondy")
    with pytest.warns(SesgridWarning, match="of 19 geometries"):
        part = read_filosofi(path, layer="perimetre")
    assert part["imputed"].isna().all()


def test_a_folder_that_fails_to_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["csv"](tmp_path, table())

    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ReadError, match="may not be read"):
        read_filosofi(tmp_path)
