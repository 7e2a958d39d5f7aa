"""Orthophoto indexes and pixel windows: deliveries, names, CRS, bands, damage."""

from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from sesgrid.errors import (
    ConfigError,
    FormatError,
    GridMismatchError,
    MissingInputError,
    ReadError,
    SesgridWarning,
    UnsafePathError,
)
from sesgrid.sources import RasterReader, read_ortho
from sesgrid.sources.tile_name import parse_tile_name

REAL = Path(__file__).resolve().parents[2] / "shared" / "realdata" / "ortho"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="shared/realdata is absent")

DELIVERY = "ORTHOHR_1-0_RVB-0M20_JP2-E080_LAMB93_D075_2021-01-01"
PX = 100
RES = 2.0


def picture(seed: int = 0, bands: int = 3, px: int = PX) -> np.ndarray:
    """Blocks of colour, as a JPEG 2000 keeps them."""
    coarse = np.random.default_rng(seed).integers(0, 255, (bands, px // 10, px // 10))
    return np.kron(coarse, np.ones((1, 10, 10), int)).astype(np.uint8)


def write(path: Path, left: float = 0, top: float = 0, **options: object) -> Path:
    """A tile; `options` override rasterio's profile, None leaves an entry out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.asarray(options.pop("data", picture()))
    driver = {".jp2": "JP2OpenJPEG", ".tif": "GTiff", ".jpg": "JPEG"}[path.suffix]
    profile = {
        "driver": driver,
        "count": data.shape[0],
        "height": data.shape[1],
        "width": data.shape[2],
        "dtype": data.dtype,
        "crs": "EPSG:2154",
        "transform": Affine(RES, 0, left, 0, -RES, top),
    } | options
    colours = profile.pop("colorinterp", None)
    if driver == "JP2OpenJPEG":
        profile = {"REVERSIBLE": "YES", "QUALITY": "100"} | profile
    profile = {k: v for k, v in profile.items() if v is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as tile:
            if colours:
                tile.colorinterp = colours
            tile.write(data)
    return path


def name_of(x_km: int, y_km: int, dep: str = "75", infix: str = "") -> str:
    return f"{dep}-2021-{x_km:04}-{y_km:04}-LA93-2M00{infix}-E080.jp2"


def deliver(
    folder: Path, corners: Sequence[tuple[int, int]], dep: str = "75", name: str = DELIVERY
) -> Path:
    """A BD ORTHO delivery with its odd folders; returns the folder of the tiles."""
    top = folder / name.replace("075", f"{int(dep):03}") / "ORTHOHR"
    data = top / "1_DONNEES_LIVRAISON_2021-11-00111" / f"OHR_RVB_0M20_JP2-E080_LAMB93_D{dep}-2021"
    for x, y in corners:
        tile = write(data / name_of(x, y, dep), x * 1000, y * 1000)
        tile.with_suffix(".jp2.md5").write_text("0  x")
        tile.with_suffix(".tab").write_text("tab")
    side = top / "2_METADONNEES_LIVRAISON_2021-11-00111" / data.name
    write(side / "whole_department.jpg", driver="JPEG", crs=None, transform=None)
    write_index(data, [f"./{name_of(x, y, dep)}" for x, y in corners])
    return data


def write_index(data: Path, noms: Sequence[str], number: str = "00222") -> Path:
    side = data.parents[1] / f"3_SUPPLEMENTS_LIVRAISON_2021-12-{number}" / data.name
    side.mkdir(parents=True, exist_ok=True)
    frame = gpd.GeoDataFrame(
        {"NOM": noms}, geometry=[shapely.box(0, 0, 1, 1)] * len(noms), crs=2154
    )
    frame.to_file(side / "dalles.shp")
    return side / "dalles.shp"


def names(frame: gpd.GeoDataFrame) -> list[str]:
    return [Path(p).name for p in frame["path"]]


def test_delivery(tmp_path: Path) -> None:
    deliver(tmp_path, [(650, 6865), (651, 6865)])
    tiles = read_ortho(tmp_path)
    assert list(tiles.columns) == [
        "path", "crs", "resolution_m", "year", "left", "top", "width", "height", "delivery",
        "geometry",
    ]  # fmt: skip
    assert names(tiles) == [name_of(650, 6865), name_of(651, 6865)]
    assert all(Path(p).is_absolute() and Path(p).is_file() for p in tiles["path"])
    row = tiles.iloc[0].drop(["path", "geometry"]).to_dict()
    assert row == {
        "crs": "EPSG:2154",
        "resolution_m": RES,
        "year": 2021,
        "left": 650000.0,
        "top": 6865000.0,
        "width": PX,
        "height": PX,
        "delivery": DELIVERY,
    }
    assert str(tiles["year"].dtype) == "Int64"
    assert tiles.crs == 3035


def test_every_way_to_name_a_delivery_gives_the_same(tmp_path: Path) -> None:
    data = deliver(tmp_path, [(650, 6865)])
    whole = read_ortho(tmp_path)
    for path in (tmp_path / DELIVERY, data.parents[1], data, data / name_of(650, 6865)):
        pd.testing.assert_frame_equal(pd.DataFrame(read_ortho(path)), pd.DataFrame(whole))
    twice = read_ortho([data, str(data / name_of(650, 6865))])
    assert len(twice) == 1


def test_departments_side_by_side(tmp_path: Path) -> None:
    deliver(tmp_path, [(650, 6865)])
    deliver(tmp_path, [(650, 6865), (651, 6865)], dep="92")
    tiles = read_ortho(tmp_path)
    assert tiles.groupby("delivery").size().to_dict() == {
        DELIVERY: 1,
        DELIVERY.replace("075", "092"): 2,
    }


def test_footprint_is_densified_and_exact(tmp_path: Path) -> None:
    tile = write(tmp_path / "a.tif", 650000, 6865000, transform=Affine(50, 0, 65e4, 0, -50, 6865e3))
    footprint = read_ortho(tile).geometry[0]
    assert len(footprint.exterior.coords) == 4 * 16 + 1
    to_grid = Transformer.from_crs(2154, 3035, always_xy=True)
    t = np.linspace(0, 5000, 200)
    edge = shapely.LineString(np.stack(to_grid.transform(650000 + t, 6865000 + 0 * t), axis=1))
    assert edge.hausdorff_distance(edge.intersection(footprint.exterior.buffer(0.01))) < 1e-6
    assert footprint.area == pytest.approx(25e6, rel=2e-3)
    centre = shapely.Point(to_grid.transform(652500, 6862500))
    assert footprint.centroid.distance(centre) < 1


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["75", "2A", "2B", "974", "06"]),
    st.integers(1990, 2030),
    st.integers(0, 1300),
    st.integers(6000, 7200),
    st.sampled_from([0.2, 0.5, 0.05, 1.0]),
    st.sampled_from(["", "-IRC"]),
)
def test_names_round_trip(dep: str, year: int, x: int, y: int, res: float, ir: str) -> None:
    metres, cm = divmod(round(res * 100), 100)
    stem = f"{dep}-{year}-{x:04}-{y:04}-LA93-{metres}M{cm:02}{ir}-E080"
    name = parse_tile_name(stem)
    assert name is not None
    assert (name.department, name.year, name.left_m, name.top_m) == (dep, year, x * 1e3, y * 1e3)
    assert name.resolution_m == pytest.approx(res)


@pytest.mark.parametrize(
    ("stem", "year", "corner"),
    [  # as public scripts name them
        ("75-2008-0640-6860-LA93", 2008, 640000.0),
        ("44-2013-0286-6713-LA93-0M50-E080", 2013, 286000.0),
        ("1-2017-0850-6680-LA93-0M50-E080", 2017, 850000.0),
        ("974-2022-0340-7640-U40S-0M20-E080", 2022, None),
        ("974-2017-0340-7640-U40S-0M20-E080_clipped_cog", 2017, None),
    ],
)
def test_years_of_names_that_others_write(stem: str, year: int, corner: float | None) -> None:
    name = parse_tile_name(stem)
    assert name is not None
    assert (name.year, name.left_m, name.lambert_93) == (year, corner, "LA93" in stem)


def test_a_name_of_another_projection_tells_no_lambert_93(tmp_path: Path) -> None:
    path = write(tmp_path / "974-2022-0340-7640-U40S-0M20-E080.tif", 340000, 7640000, crs=None)
    with pytest.raises(FormatError, match="says no CRS"):
        read_ortho(path)
    tile = read_ortho(path, default_crs="EPSG:2154").iloc[0]
    assert (tile["year"], tile["left"]) == (2022, 340000)


def test_tiles_without_georeferencing_are_placed_by_their_name(tmp_path: Path) -> None:
    path = write(tmp_path / name_of(650, 6865), crs=None, transform=None)
    tile = read_ortho(path).iloc[0]
    assert (tile["left"], tile["top"], tile["resolution_m"]) == (650000, 6865000, 2.0)
    assert tile["crs"] == "EPSG:2154"
    for stem in ("photo", "75-2021-0650-6865-LA93-2M00-E080_p1"):
        bare = write(tmp_path / "b" / f"{stem}.tif", crs=None, transform=None)
        with pytest.raises(FormatError, match=rf"{stem}.*no georeferencing.*world file"):
            read_ortho(bare)


def test_world_file_and_crs_by_convention(tmp_path: Path) -> None:
    for stem in ("75-2021-0650-6865-LA93-2M00-E080_p0009", "patch"):
        path = write(tmp_path / f"{stem}.jpg", crs=None, transform=None)
        path.with_suffix(".jgw").write_text("2\n0\n0\n-2\n650101\n6864899\n")
    tiles = read_ortho(tmp_path, default_crs="EPSG:2154")
    assert tiles["left"].tolist() == [650100.0] * 2
    assert tiles["top"].tolist() == [6864900.0] * 2
    assert tiles["crs"].tolist() == ["EPSG:2154"] * 2
    assert tiles["year"].isna().tolist() == [False, True]
    with pytest.raises(FormatError, match=r"patch\.jpg says no CRS.*default_crs='EPSG:2154'"):
        read_ortho(tmp_path)
    with pytest.raises(ConfigError, match="'EPSG:nonsense' is no CRS"):
        read_ortho(tmp_path, default_crs="EPSG:nonsense")


def test_name_that_contradicts_the_raster(tmp_path: Path) -> None:
    near = write(tmp_path / "a" / name_of(650, 6865), 650000.9, 6865000)
    assert read_ortho(near)["left"].tolist() == [650000.9]
    far = write(tmp_path / "b" / name_of(650, 6865), 650000, 6865001.1)
    with pytest.raises(
        FormatError, match=r"0650-6865.*\(650000, 6865000\).*\(650000.00, 6865001.10"
    ):
        read_ortho(far)
    other = write(tmp_path / "c" / name_of(650, 6865), 3800000, 2900000, crs="EPSG:3035")
    assert read_ortho(other)["crs"].tolist() == ["EPSG:3035"]


NAMELESS = (
    'PROJCS["unnamed",GEOGCS["unknown",DATUM["unnamed",SPHEROID["unretrievable",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Lambert_Conformal_Conic_2SP"],PARAMETER["latitude_of_origin",46.5],'
    'PARAMETER["central_meridian",3],PARAMETER["standard_parallel_1",{first}],'
    'PARAMETER["standard_parallel_2",44],PARAMETER["false_easting",700000],'
    'PARAMETER["false_northing",6600000],UNIT["{unit}",{metres}]]'
)


def test_nameless_crs_is_known_by_its_effect(tmp_path: Path) -> None:
    same = NAMELESS.format(first=49, unit="metre", metres=1)
    path = write(tmp_path / "a.tif", 650000, 6865000, crs=same)
    assert read_ortho(path)["crs"].tolist() == ["EPSG:2154"]
    other = NAMELESS.format(first=48.9, unit="metre", metres=1)
    tiles = read_ortho(write(tmp_path / "b.tif", 650000, 6865000, crs=other))
    operation = CRS(tiles["crs"][0]).coordinate_operation
    assert operation is not None
    assert 48.9 in [parameter.value for parameter in operation.params]
    to_grid = Transformer.from_crs(CRS(other), 3035, always_xy=True)
    corner = shapely.Point(to_grid.transform(650000, 6865000))
    assert tiles.geometry[0].boundary.distance(corner) < 1e-6


@pytest.mark.parametrize(
    "crs", ["EPSG:4326", NAMELESS.format(first=49, unit="foot", metres=0.3048)]
)
def test_crs_that_is_not_in_metres(tmp_path: Path, crs: str) -> None:
    path = write(tmp_path / "a.tif", 2, 48, crs=crs)
    with pytest.raises(FormatError, match=r"a\.tif.*projected CRS in metres"):
        read_ortho(path)


@pytest.mark.parametrize(
    "transform",
    [Affine(2, 0, 0, 0, -1, 0), Affine(2, 0.1, 0, 0.1, -2, 0), Affine(2, 0, 0, 0, 2, 0)],
)
def test_pixels_that_are_not_square_or_north_up(tmp_path: Path, transform: Affine) -> None:
    path = write(tmp_path / "a.tif", transform=transform)
    with pytest.raises(FormatError, match=r"a\.tif: pixels of .*north up"):
        read_ortho(path)


def test_index_rules_and_missing_tiles_are_counted(tmp_path: Path) -> None:
    data = deliver(tmp_path, [(650, 6865), (651, 6865), (652, 6865)])
    write_index(data, [f"./{name_of(x, 6865)}" for x in (650, 653, 654)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tiles = read_ortho(tmp_path)
    assert names(tiles) == [name_of(650, 6865)]
    texts = [str(w.message) for w in caught]
    assert len(texts) == 2
    assert texts[0].startswith(
        f"2 tiles listed in dalles.shp are missing, first ./{name_of(653, 6865)}"
    )
    assert texts[1].startswith(
        "2 rasters that dalles.shp does not list are left out, first 75-2021-0651"
    )
    write_index(data, [f"./{name_of(x, 6865)}" for x in (653, 654)])
    with pytest.raises(MissingInputError, match="none of the 2 tiles it lists"):
        read_ortho(tmp_path)


@pytest.mark.parametrize("noms", [[], ["", " "], [None], [f"./{name_of(650, 6865, infix='-IRC')}"]])
def test_an_index_that_lists_no_tile_hides_none(tmp_path: Path, noms: list) -> None:
    data = deliver(tmp_path, [(650, 6865), (651, 6865)])
    index = write_index(data, noms)
    with pytest.warns(SesgridWarning, match=r"dalles\.shp names no RGB tile: the 2 that are there"):
        assert len(read_ortho(tmp_path)) == 2
    alone = tmp_path / "alone" / "3_SUPPLEMENTS"
    index.parent.rename(tmp_path / "index")
    alone.parent.mkdir()
    (tmp_path / "index").rename(alone)
    with pytest.raises(MissingInputError, match="alone holds no raster"):
        read_ortho(alone.parent)


def test_index_is_for_the_folder_of_its_name(tmp_path: Path) -> None:
    data = deliver(tmp_path, [(650, 6865)])
    write_index(data, [f"./{name_of(650, 6865)}", f"./{name_of(650, 6865, infix='-IRC')}"])
    older = data.with_name(data.name.replace("2021", "2018"))
    write(older / name_of(650, 6865), 650000, 6865000)
    with pytest.warns(SesgridWarning, match="1 rasters that dalles.shp does not list") as caught:
        tiles = read_ortho(tmp_path)
    assert len(caught) == 1
    assert [Path(p).parent.name for p in tiles["path"]] == [data.name]


def test_index_beside_the_tiles_and_field_names(tmp_path: Path) -> None:
    write(tmp_path / name_of(650, 6865), 650000, 6865000)
    frame = gpd.GeoDataFrame(
        {"nom": [f"./{name_of(650, 6865)}"]}, geometry=[shapely.box(0, 0, 1, 1)]
    )
    frame = frame.set_crs(2154)
    frame.to_file(tmp_path / "DALLES.shp")
    assert len(read_ortho(tmp_path)) == 1
    frame.rename(columns={"nom": "tile"}).to_file(tmp_path / "DALLES.shp")
    with pytest.raises(FormatError, match=r"lacks the field NOM.*fields are tile"):
        read_ortho(tmp_path)


def test_folders_in_the_users_own_order(tmp_path: Path) -> None:
    write(tmp_path / "data" / "2_lyon" / name_of(650, 6865), 650000, 6865000)
    deliver(tmp_path / "disk", [(651, 6865)])
    (tmp_path / "data" / "paris").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    beside = tmp_path / "data" / "3_nice"
    write(beside / "tiles" / name_of(652, 6865), 652000, 6865000)
    (beside / "index").mkdir()
    frame = gpd.GeoDataFrame(
        {"NOM": [name_of(652, 6865)]}, geometry=[shapely.box(0, 0, 1, 1)], crs=2154
    )
    frame.to_file(beside / "index" / "dalles.shp")
    assert sorted(names(read_ortho(tmp_path / "data"))) == [
        name_of(x, 6865) for x in (650, 651, 652)
    ]


@pytest.mark.parametrize(
    "nom", ["../75.jp2", "/etc/75.jp2", "./a/../../75.jp2", "..\\75.jp2", "C:\\75.jp2"]
)
def test_index_name_that_leads_out(tmp_path: Path, nom: str) -> None:
    data = deliver(tmp_path, [(650, 6865)])
    write(data.parent / "75.jp2", 650000, 6865000)
    write_index(data, [f"./{name_of(650, 6865)}", nom])
    with pytest.raises(UnsafePathError, match=r"dalles\.shp, field NOM") as caught:
        read_ortho(tmp_path)
    assert repr(nom) in str(caught.value)


def test_infrared_is_never_mixed_in(tmp_path: Path) -> None:
    data = deliver(tmp_path, [(650, 6865)])
    ir = write(data / name_of(650, 6865, infix="-IRC"), 650000, 6865000)
    by_folder = deliver(tmp_path, [(651, 6865)], name=DELIVERY.replace("RVB", "IRC"))
    with pytest.warns(SesgridWarning, match=r"2 infrared \(IRC\) tiles are left out") as caught:
        tiles = read_ortho(tmp_path)
    assert len(caught) == 1
    assert names(tiles) == [name_of(650, 6865)]
    for only in (ir, by_folder.parents[2], [ir, by_folder.parents[2]]):
        with pytest.raises(FormatError, match=r"all \d tiles are infrared"):
            read_ortho(only)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="holds no raster"):
        read_ortho(tmp_path)
    with pytest.raises(MissingInputError, match="no such file"):
        read_ortho(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match="empty list"):
        read_ortho([])
    for name, hint in (("a.7z", "unpack"), ("a.7z.001", "unpack"), ("a.ecw", "expected a raster")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(FormatError, match=hint):
            read_ortho(tmp_path / name)


RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def test_images_that_are_not_8_bit_rgb(tmp_path: Path) -> None:
    wide = write(tmp_path / "wide.tif", data=picture().astype(np.uint16))
    with pytest.raises(FormatError, match=r"wide\.tif has bands of uint16.*gdal_translate"):
        read_ortho(wide)
    grey = write(tmp_path / "grey.tif", data=picture(bands=1))
    with pytest.raises(FormatError, match=r"grey\.tif has 1 band"):
        read_ortho(grey)
    palette = write(tmp_path / "palette.tif", data=picture(bands=1), photometric="palette")
    with rasterio.open(palette, "r+") as tile:
        tile.write_colormap(1, {0: (255, 0, 0)})
    with pytest.raises(FormatError, match=r"palette\.tif is paletted.*expand rgb"):
        read_ortho(palette)
    unnamed = write(tmp_path / "four.tif", data=picture(bands=4), photometric="minisblack",
                    colorinterp=(ColorInterp.gray, *[ColorInterp.undefined] * 3))  # fmt: skip
    with pytest.raises(FormatError, match=r"four\.tif has 4 bands named gray, undefined"):
        read_ortho(unnamed)
    with pytest.raises(FormatError, match=r"four\.tif"):
        RasterReader().read(unnamed, (0, 1, 0, 1))


def test_four_bands_with_named_colours(tmp_path: Path) -> None:
    data = picture(bands=4)
    data[3] = np.where(np.arange(PX) < 30, 0, 255)
    alpha = write(tmp_path / "alpha.tif", data=data, colorinterp=(*RGB, ColorInterp.alpha))
    infrared = write(tmp_path / "nir.tif", data=data, colorinterp=(*RGB, ColorInterp.undefined),
                     photometric="rgb", alpha="unspecified")  # fmt: skip
    swapped = write(tmp_path / "bgr.tif", data=data[2::-1], photometric="minisblack",
                    colorinterp=RGB[::-1])  # fmt: skip
    assert len(read_ortho(tmp_path)) == 3
    for path in (alpha, infrared, swapped):
        pixels, valid = RasterReader().read(path, (10, 40, 20, 60))
        assert np.array_equal(pixels, data[:3, 10:40, 20:60])
        if path is alpha:
            assert np.array_equal(valid, data[3, 10:40, 20:60] > 0)
        else:
            assert valid is None


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_cut_jp2_is_never_read_as_pixels(tmp_path: Path, level: int) -> None:
    """GDAL's own threads would lose the error at a coarser level."""
    path, size = tmp_path / "cut.jp2", 1536
    rng = np.random.default_rng(0)
    write(path, data=rng.integers(0, 256, (3, size, size), dtype=np.uint8))
    assert RasterReader().levels(path) >= 2
    part = (0, size >> level, 0, size >> level)
    whole, _ = RasterReader().read(path, part, level)
    assert whole.std() > 10
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReadError, match=r"cut\.jp2 cannot be read"):
        RasterReader().read(path, part, level)


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_is_the_mean_of_squares_where_the_file_has_none(tmp_path: Path, level: int) -> None:
    n = 2**level
    data = picture()[:, : PX // n * n, : PX // n * n]
    path = write(tmp_path / "plain.tif", data=data)
    assert RasterReader().levels(path) == 5
    r, c = slice(2, 9), slice(1, 12)
    pixels, valid = RasterReader().read(path, (r.start, r.stop, c.start, c.stop), level)
    part = data[:, r.start * n : r.stop * n, c.start * n : c.stop * n].astype(float)
    means = part.reshape(3, r.stop - r.start, n, c.stop - c.start, n).mean(axis=(2, 4))
    assert valid is None
    assert np.abs(pixels - means).max() <= 0.5
    holes = write(tmp_path / "holes.tif", data=np.where(data[:1] % 3 == 0, 9, data), nodata=9)
    pixels, valid = RasterReader().read(holes, (r.start, r.stop, c.start, c.stop), level)
    some = np.where(data[:1] % 3 == 0, 9, data)
    known = ~(some == 9).all(axis=0)
    square = (r.stop - r.start, n, c.stop - c.start, n)
    inside = known[r.start * n : r.stop * n, c.start * n : c.stop * n].reshape(square)
    part = some[:, r.start * n : r.stop * n, c.start * n : c.stop * n].astype(float)
    share = inside.mean(axis=(1, 3))
    assert np.array_equal(valid, share >= 0.5)
    sums = (part.reshape(3, *square) * inside).sum(axis=(2, 4))
    expected = sums / np.maximum(inside.sum(axis=(1, 3)), 1)
    assert np.abs(pixels - expected)[:, valid].max() <= 0.5


@pytest.mark.parametrize("suffix", [".jp2", ".tif"])
@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(0, PX - 1), st.integers(1, PX)),
    st.tuples(st.integers(0, PX - 1), st.integers(1, PX)),
)
def test_any_window_is_that_part_of_the_picture(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    rows: tuple[int, int],
    cols: tuple[int, int],
) -> None:
    path = tmp_path_factory.getbasetemp() / f"window{suffix}"
    if not path.exists():
        write(path, blockxsize=64, blockysize=64, tiled=True if suffix == ".tif" else None)
    r0, r1 = sorted((rows[0], max(rows[1], rows[0] + 1)))
    c0, c1 = sorted((cols[0], max(cols[1], cols[0] + 1)))
    pixels, valid = RasterReader().read(path, (r0, r1, c0, c1))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, picture()[:, r0:r1, c0:c1])
    assert valid is None


def test_black_is_valid_and_nodata_is_not(tmp_path: Path) -> None:
    data = picture()
    data[:, :20] = 0
    data[:, 50:60] = 255
    data[0, 70:80] = 255
    black = write(tmp_path / "black.tif", data=data)
    white = write(tmp_path / "white.tif", data=data, nodata=255)
    masked = write(tmp_path / "masked.tif", data=data)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as tile:
        tile.write_mask(np.broadcast_to(np.arange(PX) >= 5, (PX, PX)))
    window = (0, PX, 0, PX)
    assert RasterReader().read(black, window)[1] is None
    valid = RasterReader().read(white, window)[1]
    assert np.array_equal(valid, ~(data == 255).all(axis=0))
    assert not valid[55].any()
    assert np.array_equal(RasterReader().read(masked, window)[1][7], np.arange(PX) >= 5)


@pytest.mark.parametrize("window", [(0, 101, 0, 5), (-1, 5, 0, 5), (5, 5, 0, 5), (0, 5, 90, 120)])
def test_window_outside(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    path = write(tmp_path / "a.tif")
    with pytest.raises(GridMismatchError, match=r"a\.tif, which has 100 rows and 100 columns"):
        RasterReader().read(path, window)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", [".jp2", ".tif", ".jpg"])
def test_truncated_files_raise_and_whole_parts_are_right(
    tmp_path: Path, suffix: str, share: float
) -> None:
    blocks = {"blockxsize": 64, "blockysize": 64} if suffix != ".jpg" else {}
    noise = np.random.default_rng(1).integers(0, 255, (3, 256, 256)).astype(np.uint8)
    extra = {"compress": "deflate", "tiled": True} if suffix == ".tif" else {}
    path = write(tmp_path / f"cut{suffix}", 650000, 6865000, data=noise, **blocks, **extra)
    if suffix == ".tif":  # a copy has its directory in front, as converted tiles have
        path = path.rename(tmp_path / "whole.tif")
        rasterio.shutil.copy(path, tmp_path / "cut.tif", driver="GTiff", **extra, **blocks)
        path = tmp_path / "cut.tif"
    with rasterio.open(path) as tile:
        whole = tile.read()
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    read, failed = 0, []
    for row in range(0, 256, 64):
        for col in range(0, 256, 64):
            try:
                pixels, _ = RasterReader().read(path, (row, row + 64, col, col + 64))
            except ReadError as error:
                failed.append(str(error))
            else:
                read += 1
                assert np.array_equal(pixels, whole[:, row : row + 64, col : col + 64])
    assert failed
    assert all(f"cut{suffix} cannot be" in text and "fetch it again" in text for text in failed)
    assert any("rows 192:256, columns 192:256" in text for text in failed)
    if suffix != ".jpg":
        assert read >= 3
    with pytest.raises(ReadError, match="fetch it again"):
        RasterReader().read(path, (0, 256, 0, 256))


def test_a_tile_that_cannot_be_opened_keeps_its_place(tmp_path: Path) -> None:
    data = deliver(tmp_path, [(650, 6865), (651, 6865)])
    broken = data / name_of(651, 6865)
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.warns(SesgridWarning, match=r"1 tiles cannot be opened, first 75-2021-0651"):
        tiles = read_ortho(tmp_path)
    assert tiles[["left", "top", "width", "resolution_m"]].iloc[1].tolist() == [
        651e3,
        6865e3,
        PX,
        2,
    ]
    with pytest.raises(ReadError, match=r"0651-6865.*cannot be read"):
        RasterReader().read(broken, (0, 1, 0, 1))
    with pytest.raises(ReadError, match="cannot be read"):
        read_ortho(broken)
    with pytest.raises(ReadError, match="was it moved"):
        RasterReader().read(tmp_path / "gone.tif", (0, 1, 0, 1))


def test_reader_travels_and_threads_do_not_share_datasets(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.tif", data=picture(i)) for i in range(4)]
    reader = pickle.loads(pickle.dumps(RasterReader(open_files=2)))  # noqa: S301
    assert reader == RasterReader(open_files=2)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 4, 40):
            pixels, _ = reader.read(paths[i], (0, PX, 0, PX))
            if not np.array_equal(pixels, picture(int(i))):
                wrong.append(int(i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", data=picture(1))
    RasterReader().read(path, (0, 5, 0, 5))
    path.unlink()
    write(path, data=picture(2, px=90))
    assert np.array_equal(RasterReader().read(path, (0, 90, 0, 90))[0], picture(2, px=90))


@needs_real
def test_real_folder() -> None:
    tiles = read_ortho(REAL)
    assert len(tiles) == 8 + 52
    assert set(tiles["crs"]) == {"EPSG:2154"}
    assert set(tiles["resolution_m"]) == {0.2}
    patches = tiles[tiles["delivery"] == "paris_patches"]
    assert set(patches["year"]) == {2021}
    assert tiles["year"].isna().sum() == 8
    for _, tile in tiles.iterrows():
        if Path(tile["path"]).name.startswith("ortho_L93"):
            x, y = (int(part) for part in Path(tile["path"]).stem.split("_")[2:4])
            assert tile["left"] == x
            assert tile["top"] - tile["height"] * 0.2 == pytest.approx(y)
        pixels, valid = RasterReader().read(tile["path"], (0, 50, 10, 100))
        assert pixels.shape == (3, 50, 90)
        assert valid is None or valid.mean() > 0.9
        assert pixels.std() > 2


@needs_real
def test_real_jp2_and_tiff_of_the_same_ground_agree() -> None:
    jp2 = REAL / "ortho_L93_648900_6868700_300x200m.jp2"
    tif = REAL / "ortho_L93_649000_6868700_200x200m.tif"
    tiles = read_ortho([jp2, tif]).set_index(pd.Index(["jp2", "tif"]))
    shift = round((tiles.loc["tif", "left"] - tiles.loc["jp2", "left"]) / 0.2)
    assert tiles.loc["tif", "top"] == tiles.loc["jp2", "top"]
    a, _ = RasterReader().read(jp2, (100, 600, shift + 100, shift + 600))
    b, _ = RasterReader().read(tif, (100, 600, 100, 600))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97
    assert (
        np.corrcoef(a[0].ravel(), b[0].ravel())[0, 1]
        > np.corrcoef(a[0].ravel(), b[2].ravel())[0, 1]
    )


@needs_real
def test_real_nameless_crs_lies_in_languedoc() -> None:
    tile = read_ortho(REAL / "ignpdaltools_test_data_rgb.tif")
    assert tile["crs"].tolist() == ["EPSG:2154"]
    lon, lat = tile.to_crs(4326).geometry[0].centroid.coords[0]
    assert (lon, lat) == pytest.approx((3.87, 43.59), abs=0.05)
