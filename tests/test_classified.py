"""A classified raster as land cover: nearest neighbour as GDAL does it, tables, and what is refused."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling

from sesgrid import ClassReader, classified, mosaic, read_class_rasters, read_class_table
from sesgrid.errors import FormatError, GridMismatchError, MissingInputError, ReadError
from sesgrid.grid import CRS
from sesgrid.sources import class_groups, class_names, holds_rasters, read_boundary, read_ortho
from tests.test_mosaic import FakeReader, around, cells, tiles

TABLE = "code,landcover_class,group\n10,built,residential\n11,built,\n20, wood ,nature\n0,,\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "classes.csv").write_text(TABLE, encoding="utf-8-sig")
    return read_class_table(tmp_path / "classes.csv")


def write_codes(path, codes, left, top, res, crs="EPSG:2154", **options):
    profile = {"driver": "GTiff", "count": 1, "dtype": codes.dtype, "crs": crs, **options}
    height, width = codes.shape[-2:]
    at = Affine(res, 0, left, 0, -res, top)
    with rasterio.open(path, "w", height=height, width=width, transform=at, **profile) as raster:
        raster.write(codes, 1)
    return path


def scene_of(table_of_cells, tmp_path, res=3.0, dtype="uint16"):
    """Codes over the cells, in Lambert-93."""
    x, y = rasterio.warp.transform(
        CRS,
        "EPSG:2154",
        *(np.ravel(v) for v in np.meshgrid(*table_of_cells.total_bounds.reshape(2, 2).T)),
    )
    left, top = np.floor(min(x)) - 30, np.ceil(max(y)) + 30
    n = int((max(max(x) - left, top - min(y)) + 30) / res)
    rng = np.random.default_rng(0)
    codes = rng.choice(np.array([10, 11, 20, 0], dtype), (n // 4 + 1, n // 4 + 1))
    codes = codes.repeat(4, 0).repeat(4, 1)
    return write_codes(tmp_path / "codes.tif", codes, left, top, res), codes, (left, top)


def test_class_pixels_are_the_nearest_ones(tmp_path, table):
    chosen = cells(3)
    path, codes, (left, top) = scene_of(chosen, tmp_path)
    pixels = mosaic(chosen, tiles(around(6)), FakeReader(), pixels_per_cell=40, cells_per_block=2)
    found = classified(pixels, chosen, read_class_rasters(path), ClassReader.of(table)).compute()
    assert found.rio.crs.to_epsg() == 3035
    values = np.zeros(1 << 16, np.uint8)
    values[[10, 11, 20]] = 1, 1, 2
    theirs = np.zeros(found.shape, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rasterio.warp.reproject(
            values[codes], theirs, src_transform=Affine(3, 0, left, 0, -3, top),
            src_crs="EPSG:2154", dst_transform=found.rio.transform(), dst_crs=CRS,
            resampling=Resampling.nearest, tolerance=0,
        )  # fmt: skip
    drawn = pixels["coverage"].values > 0
    apart = (theirs != found.values)[drawn]
    assert drawn.sum() == 9 * 40**2
    assert apart.mean() < 1e-3  # a centre on the very border of two codes
    assert set(np.unique(found.values[drawn])) == {0, 1, 2}
    assert not found.values[~drawn].any()


def test_rasters_side_by_side_are_one(tmp_path, table):
    chosen = cells(2)
    _, codes, (left, top) = scene_of(chosen, tmp_path)
    pixels = mosaic(chosen, tiles(around(6)), FakeReader(), pixels_per_cell=20, cells_per_block=2)
    reader = ClassReader.of(table)
    whole = classified(pixels, chosen, read_class_rasters(tmp_path / "codes.tif"), reader).compute()
    folder = tmp_path / "parts"
    folder.mkdir()
    half = codes.shape[1] // 2
    write_codes(folder / "a.tif", codes[:, :half], left, top, 3.0)
    write_codes(folder / "b.tif", codes[:, half:], left + 3.0 * half, top, 3.0)
    parts = read_class_rasters(folder)
    assert len(parts) == 2
    np.testing.assert_array_equal(classified(pixels, chosen, parts, reader).compute(), whole)


def test_no_class_of_a_finer_raster_is_not_filled_from_a_coarser_one(tmp_path, table):
    chosen = cells(2)
    _, codes, (left, top) = scene_of(chosen, tmp_path)
    fine = np.zeros((codes.shape[0] * 3, codes.shape[1] * 3), np.uint8)  # 0: known, of no class
    write_codes(tmp_path / "fine.tif", fine, left, top, 1.0)
    pixels = mosaic(chosen, tiles(around(6)), FakeReader(), pixels_per_cell=20, cells_per_block=2)
    both = read_class_rasters([tmp_path / "codes.tif", tmp_path / "fine.tif"])
    found = classified(pixels, chosen, both, ClassReader.of(table))
    assert not found.values.any()


def test_nodata_is_no_class_and_unknown_codes_are_named(tmp_path, table):
    codes = np.array([[10, 99], [20, 0]], np.uint8)
    path = write_codes(tmp_path / "n.tif", codes, 0, 2, 1.0, nodata=99)
    values, valid = ClassReader.of(table).read(str(path), (0, 2, 0, 2))
    assert values.tolist() == [[[1, 0], [2, 0]]]
    assert valid.tolist() == [[True, False], [True, True]]
    codes[0, 1] = 77
    write_codes(path, codes, 0, 2, 1.0)
    with pytest.raises(FormatError, match=r"n\.tif: the codes 77 are not in the table"):
        ClassReader.of(table).read(str(path), (0, 2, 0, 2))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ReadError, match=r"n\.tif cannot be read"):
        ClassReader.of(table).read(str(path), (0, 2, 0, 2))


def test_a_table_names_classes_in_their_order(table):
    assert class_names(table) == ("built", "wood")
    assert class_groups(table) == {"built": "residential", "wood": "nature"}
    assert table["value"].tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("code,name\n1,a\n", "missing landcover_class"),
        ("code,landcover_class\n1,a\n1,b\n", "'1' in line 3"),
        ("code,landcover_class\n7,a\n07,b\n", "'07' in line 3"),
        ("", "is empty: expected a header"),
        ("code,landcover_class\n1,\n", "received 0"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_class_table(tmp_path / "t.csv")
    with pytest.raises(MissingInputError, match="no table"):
        read_class_table(tmp_path / "u.csv")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("code,landcover_class\n1,a\nx,a\n", "'x' in code"),
        ("code,landcover_class\n1,a\n70000,a\n", "70000 in code"),
        ("cs,us,landcover_class\n1,,a\n", r"\('1', ''\) in cs, us"),
    ],
)
def test_codes_that_no_raster_holds_are_refused(tmp_path, text, wrong):
    (tmp_path / "t.csv").write_text(text)
    table = read_class_table(tmp_path / "t.csv")
    with pytest.raises(FormatError, match=rf"t\.csv: a raster's codes .* received {wrong}"):
        ClassReader.of(table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": "EPSG:4326"}, "a CRS in metres, received EPSG:4326"),
        ({"crs": None}, "received none; tell the one that it is in with 'gdal_edit"),
        ({"dtype": "float32"}, "one band of codes"),
        ({"count": 2}, "one band of codes"),
    ],
)
def test_rasters_that_are_no_land_cover_are_refused(tmp_path, options, message):
    codes = np.ones((4, 4), options.get("dtype", "uint8"))
    path = write_codes(tmp_path / "r.tif", codes, 3, 45, 0.5, **options)
    with pytest.raises(FormatError, match=message):
        read_class_rasters(path)
    with pytest.raises(MissingInputError, match="expected a classified raster"):
        read_class_rasters(tmp_path / "nowhere")


def test_class_pixels_of_another_grid_are_refused():
    import xarray as xr

    from sesgrid import audit, explain

    at = {"y": [3.0, 2.0, 1.0], "x": [0.0, 1.0, 2.0]}
    pixels = xr.Dataset({"image": (("y", "x"), np.zeros((3, 3), np.uint8))}, coords=at)
    elsewhere = xr.DataArray(np.ones((3, 3), np.uint8), dims=("y", "x"), coords=at)
    for ask in (explain, audit):
        with pytest.raises(GridMismatchError, match="hold no 'landcover'"):
            ask(None, pixels, {}, ["built"])
        # xarray aligns by coordinates, and fills what it finds none for
        moved = pixels.assign(landcover=elsewhere.assign_coords(x=[0.5, 1.5, 2.5]))
        with pytest.raises(GridMismatchError, match=r"uint8 \(y, x\) on the grid .* float"):
            ask(None, moved, {}, ["built"])


def test_other_classes_are_other_pixels(tmp_path):
    """The table is read by no task, but all that is drawn and summed rests on it."""
    from sesgrid.run.config import Config
    from sesgrid.run.engine import facts_of, settings_key

    keys = []
    for text in (TABLE, TABLE.replace("10,built", "10,wood").replace("wood ,", "built ,")):
        (tmp_path / "classes.csv").write_text(text)
        sources = {"census": "c", "ortho": "o", "landcover": "l"}
        config = Config.model_validate(
            {
                "name": "x",
                "output": str(tmp_path),
                "sources": {**sources, "landcover_classes": str(tmp_path / "classes.csv")},
            }
        )
        before = dict.fromkeys(("cells", "mosaic", "landcover", "predict"), "as before")
        keys.append(
            {s: settings_key(s, facts_of(s, config, before)) for s in ("landcover", "explain")}
        )
    assert keys[0]["landcover"] != keys[1]["landcover"]
    assert keys[0]["explain"] != keys[1]["explain"]


def test_codes_may_be_written_as_spreadsheets_do(tmp_path):
    (tmp_path / "t.csv").write_text("code,landcover_class\n1.0,a\n 02,b\n3,\n")
    reader = ClassReader.of(read_class_table(tmp_path / "t.csv"))
    assert (reader.codes, reader.values) == ((1, 2, 3), (1, 2, 0))
    (tmp_path / "t.csv").write_text("code,landcover_class\n1.0,a\n1.5,b\n")
    with pytest.raises(FormatError, match=r"received '1\.5'"):
        ClassReader.of(read_class_table(tmp_path / "t.csv"))


@pytest.mark.parametrize("name", ["metre", "meters", "Metre", "m"])
def test_a_metre_has_many_names_and_a_foot_is_none(tmp_path, name):
    wkt = rasterio.crs.CRS.from_epsg(2154).to_wkt(version="WKT1_GDAL")
    codes = np.ones((4, 4), "uint8")
    path = write_codes(
        tmp_path / "r.img", codes, 3, 45, 0.5, wkt.replace("metre", name), driver="HFA"
    )
    assert len(read_class_rasters(path)) == 1
    foot = write_codes(tmp_path / "f.tif", codes, 3, 45, 0.5, "EPSG:2263")
    with pytest.raises(FormatError, match="expected a CRS in metres, received EPSG:2263"):
        read_class_rasters(foot)


def test_what_macos_puts_beside_rasters_is_passed_over(tmp_path):
    write_codes(tmp_path / "a.tif", np.ones((4, 4), "uint8"), 3, 45, 0.5)
    (tmp_path / "._a.tif").write_bytes(b"\0\5\x16\7")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.tif").write_bytes(b"\0\5\x16\7")
    assert [p.rpartition("/")[2] for p in read_class_rasters(tmp_path)["path"]] == ["a.tif"]
    assert holds_rasters(tmp_path)


def test_a_zipped_raster_is_to_be_unpacked(tmp_path):
    path = write_codes(tmp_path / "a.tif", np.ones((4, 4), "uint8"), 3, 45, 0.5)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.tif")
    with pytest.raises(FormatError, match=r"a\.zip is an archive: .* unpack it"):
        read_class_rasters(tmp_path / "a.zip")


@pytest.mark.parametrize("read", [read_ortho, read_class_rasters, holds_rasters, read_boundary])
@pytest.mark.parametrize("name", ["a" * 300 + ".tif", "x/" * 3000 + "a.shp"])
def test_paths_that_the_system_refuses_are_told_as_such(tmp_path, read, name):
    with pytest.raises(ReadError, match=r"cannot be read: File name too long"):
        read(tmp_path / name)
