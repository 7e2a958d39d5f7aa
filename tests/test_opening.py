"""What a raster and the files beside it may say and do: all validity read, no other file, nothing written."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from sesgrid.errors import (
    FormatError,
    MissingInputError,
    ReadError,
    SesgridError,
    SesgridWarning,
    UnsafePathError,
)
from sesgrid.sources import ClassReader, RasterReader, read_census, read_class_rasters, read_ortho
from sesgrid.sources.checksums import delivered_checksums
from sesgrid.stages.mosaic import mosaic
from tests.test_mosaic import cells
from tests.test_ortho import PX, picture, write

AT = Affine(2, 0, 650000, 0, -2, 6860000)
WHOLE = (0, PX, 0, PX)
CODES = ClassReader((0, *range(1, 256)), (0, *range(1, 256)))
READ = {read_ortho: ".tif", read_class_rasters: ".vrt"}


def codes(path: Path, data: np.ndarray | None = None, **options: object) -> Path:
    data = picture()[:1] if data is None else data
    return write(path, data=data, transform=AT, **options)


def pam(path: Path, xml: str) -> None:
    path.with_name(path.name + ".aux.xml").write_text(f"<PAMDataset>{xml}</PAMDataset>")


def scene_tile(path: Path, chosen: gpd.GeoDataFrame) -> Path:
    """A picture of everything around some cells, a metre a pixel."""
    west, south, east, north = chosen.total_bounds
    data = np.kron(
        np.random.default_rng(0).integers(0, 250, (3, 60, 60)), np.ones((1, 10, 10), int)
    ).astype(np.uint8)[:, : int(north - south) + 200, : int(east - west) + 200]
    at = Affine(1, 0, west - 100, 0, -1, north + 100)
    return write(path, data=data, transform=at, crs="EPSG:3035")


def state(folder: Path) -> dict[str, str]:
    """Names and content of all files."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


ASKED: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ASKED.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url():
    """Of a web server of this machine that notes what it is asked for."""
    with HTTPServer(("127.0.0.1", 0), _Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def vrt(part: object, inside: str = "", band: str = "") -> str:
    return (
        f'<VRTDataset rasterXSize="{PX}" rasterYSize="{PX}"><SRS>EPSG:2154</SRS>'
        f"<GeoTransform>650000, 2, 0, 6860000, 0, -2</GeoTransform>{inside}"
        f'<VRTRasterBand dataType="Byte" band="1" {band}><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{part}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


WMS = "<GDAL_WMS><Service name='TMS'><ServerUrl>{url}/${{z}}</ServerUrl></Service></GDAL_WMS>"


@pytest.mark.parametrize(
    "name", ["a.tif", "a.jp2", "a.jpg", "a.png", "a.img", "a.tif.msk", "a.tif.ovr"]
)
@pytest.mark.parametrize("text", ["vrt", "wms"])
def test_xml_is_no_raster_whatever_its_name(tmp_path, url, name, text) -> None:
    secret = codes(tmp_path / "elsewhere" / "secret.tif")
    written = vrt(secret) if text == "vrt" else WMS.format(url=url)
    if name.startswith("a.tif."):
        codes(tmp_path / "in" / "a.tif")
        write(tmp_path / "in3" / "a.tif")
    for folder, read in (("in", read_class_rasters), ("in3", read_ortho)):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(written)
        other = (".jpg",) if read is read_class_rasters else (".png", ".img")
        if path.suffix in other:
            continue
        with pytest.raises(UnsafePathError, match=rf"{name} is XML"):
            read(path.parent)
    assert not ASKED


def test_a_raster_of_another_kind_than_its_name_is_refused(tmp_path) -> None:
    right = write(tmp_path / "a.tif")
    wrong = (tmp_path / "b.jp2").absolute()
    wrong.write_bytes(right.read_bytes())
    assert len(read_ortho(right)) == 1
    with pytest.raises(FormatError, match=r"b\.jp2 is GeoTIFF: expected JPEG 2000"):
        read_ortho(wrong)


@pytest.mark.parametrize("beside", [False, True])
def test_overviews_are_not_taken_from_a_file_that_metadata_name(tmp_path, beside) -> None:
    path = write(tmp_path / "a.tif")
    secret = write(tmp_path / "secret.tif", data=picture()[:, ::2, ::2])
    if beside:
        pam(
            path, f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata>'
        )
    else:
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    with rasterio.open(path) as raster:
        assert raster.overviews(1) == [2]  # so GDAL alone does take them
    for read in (read_ortho, lambda p: RasterReader().read(p, (0, 9, 0, 9), 1)):
        with pytest.raises(UnsafePathError, match="OVERVIEW_FILE"):
            read(path)


@pytest.mark.parametrize(
    "item",
    [
        '<Metadata domain="OVERVIEWS"><MDI Key="OVERVIEW_FILE">{}</MDI></Metadata>',
        '<Metadata domain="OVERVIEWS"><MDI name="overview_file">{}</MDI></Metadata>',
        '<metadata domain="overviews"><mdi key="Overview_File">{}</mdi></metadata>',
        '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW&#95;FILE">{}</MDI></Metadata>',
        '<Metadata domain="OVERVIEWS"><MDI xmlns="OVERVIEW_FILE">{}</MDI></Metadata>',
        '<Metadata domain="OVERVIEWS" xmlns="a"><MDI key="OVERVIEW_FILE">{}</MDI></Metadata>',
        None,
    ],
)
def test_names_of_metadata_are_known_however_they_are_spelt(tmp_path, item) -> None:
    path = write(tmp_path / "a.tif")
    secret = write(tmp_path / "secret.tif", data=picture()[:, ::2, ::2])
    if item is not None:
        pam(path, item.format(secret))
    else:
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(ns="overviews", overview_file=str(secret))
    with rasterio.open(path) as raster:
        assert raster.overviews(1) == [2]  # so GDAL alone does take them
    with pytest.raises(UnsafePathError, match=r"(?i)overview_file"):
        RasterReader().read(path, (0, 9, 0, 9), 1)


def test_other_metadata_of_overviews_are_taken(tmp_path) -> None:
    path = write(tmp_path / "a.tif")
    pam(path, '<Metadata domain="OVERVIEWS"><MDI key="RESAMPLING">AVERAGE</MDI></Metadata>')
    assert len(read_ortho(path)) == 1


def test_a_mask_and_overviews_beside_a_raster_are_read(tmp_path) -> None:
    path = write(tmp_path / "a.tif")
    seen = np.zeros((PX, PX), bool)
    seen[:, 30:] = True
    with (
        rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(path, "r+") as raster,
    ):
        raster.write_mask(seen)
        raster.build_overviews([2])
    assert {p.name for p in tmp_path.iterdir()} >= {"a.tif.msk", "a.tif.ovr"}
    before = state(tmp_path)
    assert len(read_ortho(path)) == 1
    assert np.array_equal(RasterReader().read(path, WHOLE)[1], seen)
    assert np.array_equal(RasterReader().read(path, (0, 50, 0, 50), 1)[1], seen[::2, ::2])
    classes = codes(tmp_path / "c.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(classes, "r+") as raster:
        raster.write_mask(seen)
    before = state(tmp_path)
    values, valid = CODES.read(str(classes), WHOLE)
    assert np.array_equal(valid, seen)
    assert np.array_equal(values[0], np.where(seen, picture()[0], 0))
    assert state(tmp_path) == before
    mask = tmp_path / "c.tif.msk"
    for damaged in (mask.read_bytes()[:20], b"II*\0" + b"\xff" * 99, b"nothing"):
        mask.write_bytes(damaged)
        with pytest.raises(ReadError, match=r"c\.tif\.msk cannot be read"):
            CODES.read(str(classes), WHOLE)


@pytest.mark.parametrize("suffix", [".tif", ".jp2", ".jpg"])
def test_what_aux_xml_says_of_nodata_and_place(tmp_path, suffix) -> None:
    data = picture()
    data[:, :, :30] = 0
    path = write(tmp_path / f"a{suffix}", data=data, transform=AT)
    for stale in tmp_path.glob("*.aux.xml"):
        stale.unlink()
    nodata = "".join(
        f'<PAMRasterBand band="{b}"><NoDataValue>0</NoDataValue></PAMRasterBand>' for b in (1, 2, 3)
    )
    place = "<GeoTransform>650100, 2, 0, 6860200, 0, -2</GeoTransform>"
    pam(path, f"<SRS>EPSG:2154</SRS>{place}{nodata}")
    with rasterio.open(path) as raster:
        assert raster.nodatavals == (0, 0, 0)
        seen = raster.read().any(axis=0)
    before = state(tmp_path)
    tile = read_ortho(path).iloc[0]
    assert (tile["left"], tile["top"], tile["crs"]) == (650100, 6860200, "EPSG:2154")
    valid = RasterReader().read(path, WHOLE)[1]
    assert np.array_equal(valid, seen)
    assert not seen[:, :15].all()
    assert state(tmp_path) == before


def test_aux_xml_and_world_file_of_class_rasters(tmp_path) -> None:
    path = write(tmp_path / "c.tif", data=picture()[:1], transform=None)
    path.with_suffix(".tfw").write_text("2\n0\n0\n-2\n650001\n6859999\n")
    assert read_class_rasters(path)[["left", "top", "resolution_m"]].iloc[0].tolist() == [
        65e4,
        686e4,
        2,
    ]
    value = int(picture()[0, 0, 0])
    pam(path, f'<PAMRasterBand band="1"><NoDataValue>{value}</NoDataValue></PAMRasterBand>')
    before = state(tmp_path)
    read_class_rasters(path)
    _, valid = CODES.read(str(path), WHOLE)
    assert np.array_equal(valid, picture()[0] != value)
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<GeoTransform>1, 2", "cannot be read"),
        ("<GeoTransform>650000, 2, 0, x, 0, -2</GeoTransform>", "expected 6 number"),
        ("<GeoTransform>650000, 2, 0</GeoTransform>", "expected 6 number"),
        ("<GeoTransform>650_000, 2, 0, 6860000, 0, -2</GeoTransform>", "expected 6 number"),
        ("<GeoTransform>nan, 2, 0, 6860000, 0, -2</GeoTransform>", "metres on the Earth"),
        ('<PAMRasterBand band="1"><NoDataValue>O</NoDataValue></PAMRasterBand>', "1 number"),
        ('<pamrasterband BAND="1"><nodatavalue>O</nodatavalue></pamrasterband>', "1 number"),
    ],
)
def test_a_damaged_aux_xml_is_not_passed_over(tmp_path, xml, message) -> None:
    for path, read in (
        (write(tmp_path / "a.tif"), read_ortho),
        (codes(tmp_path / "c.tif"), read_class_rasters),
    ):
        assert len(read(path)) == 1
        pam(path, xml)
        with pytest.raises(FormatError, match=message):
            read(path)
        path.with_name(path.name + ".aux.xml").write_text("<Other/>")
        with pytest.raises(FormatError, match="expected <PAMDataset>"):
            read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("before", ["", " \r\n", '<?xml version="1.0"?>', "<!-- put right -->"])
def test_an_aux_xml_that_gdal_passes_over_is_not_passed_over(tmp_path, before, encoding) -> None:
    path = write(tmp_path / "a.tif", 650000, 6860000)
    beside = path.with_name("a.tif.aux.xml")
    place = "<GeoTransform>650010, 2, 0, 6860000, 0, -2</GeoTransform>"
    beside.write_bytes(f"{before}<PAMDataset>{place}</PAMDataset>".encode(encoding))
    with rasterio.open(path) as raster:
        left = raster.transform.c
    if left == 650010:
        assert read_ortho(path)["left"].tolist() == [left]
        return
    with pytest.raises(FormatError, match=r"a\.tif\.aux\.xml begins with .*GDAL passes over"):
        read_ortho(path)
    beside.write_bytes(f"{before}<PAMDataset><Metadata/></PAMDataset>".encode(encoding))
    assert read_ortho(path)["left"].tolist() == [650000]


def test_a_mask_beside_a_vrt_is_its_mask(tmp_path) -> None:
    part = codes(tmp_path / "p.tif")
    path = tmp_path / "all.vrt"
    path.write_text(vrt("p.tif"))
    assert CODES.read(str(path), WHOLE)[1].all()
    seen = np.arange(PX * PX).reshape(PX, PX) % 3 > 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(part, "r+") as raster:
        raster.write_mask(seen)
    (tmp_path / "p.tif.msk").rename(tmp_path / "all.vrt.msk")
    with rasterio.open(path) as raster:
        assert np.array_equal(raster.dataset_mask() > 0, seen)
    values, valid = CODES.read(str(path), WHOLE)
    assert np.array_equal(valid, seen)
    assert np.array_equal(values[0], np.where(seen, picture()[0], 0))
    (tmp_path / "all.vrt.msk").write_text(vrt(part))
    with pytest.raises(UnsafePathError, match=r"all\.vrt\.msk is XML"):
        CODES.read(str(path), WHOLE)


@pytest.mark.parametrize("name", ["b.tif", "a.tif.msk", "a.tif.ovr", "a.tfw"])
def test_a_pipe_is_not_waited_for(tmp_path, name) -> None:
    write(tmp_path / "a.tif", 650000, 6860000)
    os.mkfifo(tmp_path / name)
    with pytest.raises((FormatError, ReadError), match=rf"{name} is .*a pipe or a device"):
        read_ortho(tmp_path)
    os.mkfifo(tmp_path / "c.vrt")
    with pytest.raises((FormatError, ReadError), match=r"c\.vrt is .*a pipe or a device"):
        read_class_rasters(tmp_path / "c.vrt")
    os.mkfifo(tmp_path / "census.zip")
    with pytest.raises(ReadError, match=r"census\.zip is a pipe or a device"):
        read_census(tmp_path / "census.zip")
    os.mkfifo(tmp_path / "list.md5")
    with pytest.raises(ReadError, match=r"list\.md5 is a pipe or a device"):
        delivered_checksums([tmp_path])


def test_a_vrt_of_the_rasters_in_its_folder(tmp_path) -> None:
    codes(tmp_path / "d" / "parts" / "p.tif")
    path = tmp_path / "d" / "all.vrt"
    path.write_text(vrt("parts/p.tif"))
    before = state(tmp_path)
    assert read_class_rasters(path)["left"].tolist() == [650000]
    assert np.array_equal(CODES.read(str(path), WHOLE)[0], picture()[:1])
    path.write_text(vrt(tmp_path / "d" / "parts" / "p.tif"))  # by its absolute name
    assert np.array_equal(CODES.read(str(path), WHOLE)[0], picture()[:1])
    path.write_text(vrt("parts/p.tif"))
    assert state(tmp_path) == before


@pytest.mark.parametrize("how", ["bilinear", "CUBIC", "average"])
@pytest.mark.parametrize("kind", ["SimpleSource", "ComplexSource"])
def test_a_vrt_of_other_pixels_makes_no_means_of_codes(tmp_path, how, kind) -> None:
    path = codes(tmp_path / "p.tif").with_name("all.vrt")
    fine = vrt("p.tif").replace("SimpleSource>", f"{kind}>").replace("650000, 2,", "650000, 1,")
    fine = fine.replace(f'Size="{PX}"', f'Size="{2 * PX}"').replace("0, -2<", "0, -1<")
    rects = f'<SrcRect xOff="0" yOff="0" xSize="{PX}" ySize="{PX}"/><DstRect xOff="0" yOff="0" '
    rects += f'xSize="{2 * PX}" ySize="{2 * PX}"/></{kind}>'
    fine = fine.replace(f"</{kind}>", rects)
    path.write_text(fine.replace(f"<{kind}>", f'<{kind} Resampling="{how}">'))
    found, _ = CODES.read(str(path), (0, 2 * PX, 0, 2 * PX))
    assert np.array_equal(found, np.kron(picture()[:1], np.ones((1, 2, 2), np.uint8)))


def test_a_vrt_of_another_file_than_is_there(tmp_path) -> None:
    part = codes(tmp_path / "p.tif")
    path = part.with_name("all.vrt")
    told = f'<SourceProperties RasterXSize="{PX}" RasterYSize="{PX}" DataType="Byte"/>'
    rect = f'<SrcRect xOff="0" yOff="0" xSize="{PX}" ySize="{PX}"/>'
    rect += rect.replace("SrcRect", "DstRect")
    for inside in (told, rect):
        path.write_text(vrt("p.tif").replace("</SimpleSource>", f"{inside}</SimpleSource>"))
        codes(part)
        assert np.array_equal(CODES.read(str(path), WHOLE)[0], picture()[:1])
        codes(part, picture()[:1, ::2, ::2])
        os.utime(path, (1, 1))  # what was seen of it before is of another state
        with pytest.raises(FormatError, match=r"its part p\.tif has .* not what the VRT"):
            read_class_rasters(path)


def test_a_vrt_reads_nothing_outside_its_folder(tmp_path, url) -> None:
    secret = codes(tmp_path / "secret.tif")
    path = codes(tmp_path / "d" / "p.tif").with_name("all.vrt")
    (path.parent / "link.tif").symlink_to(secret)
    (path.parent / "xml.tif").write_text(vrt(secret))
    (path.parent / "other.vrt").write_text(vrt("p.tif"))
    kernel = "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode>1</PixelFunctionCode>"
    for text in (
        vrt(secret),
        vrt("../secret.tif"),
        vrt("link.tif"),
        vrt("xml.tif"),
        vrt("other.vrt"),
        vrt("p.tif", band='subClass="VRTDerivedRasterBand"'),
        vrt("p.tif", band='subClass="VRTRawRasterBand"'),
        vrt("p.tif", band='Subclass="VRTDerivedRasterBand"'),
        vrt("p.tif").replace("<SimpleSource>", f"{kernel}<SimpleSource>"),
        vrt("p.tif").replace("SimpleSource", "KernelFilteredSource"),
        vrt("p.tif").replace(
            "<SourceBand>", '<OpenOptions><OOI key="x">y</OOI></OpenOptions><SourceBand>'
        ),
        vrt("p.tif", "<GDALWarpOptions/>"),
        vrt(
            "p.tif",
            f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata>',
        ),
        vrt(
            "p.tif",
            f'<Metadata domain="OVERVIEWS"><MDI Key="overview_file">{secret}</MDI></Metadata>',
        ),
    ):
        path.write_text(text)
        for read in (read_class_rasters, lambda p: CODES.read(str(p), WHOLE)):
            with pytest.raises(UnsafePathError, match=r"\.vrt|xml\.tif"):
                read(path)
    for part in (
        f"/vsicurl/{url}/p.tif",
        f"{url}/p.tif",
        "/vsizip/d.zip/p.tif",
        "none.tif",
        "",
        ".",
    ):
        path.write_text(vrt(part))
        with pytest.raises((UnsafePathError, MissingInputError)):
            read_class_rasters(path)
    path.write_text(WMS.format(url=url))
    with pytest.raises(FormatError, match="expected <VRTDataset>"):
        read_class_rasters(path)
    assert not ASKED


def test_infrared_that_is_called_alpha_is_no_mask(tmp_path) -> None:
    infrared = np.random.default_rng(0).integers(30, 250, (1, PX, PX))
    infrared[:, :, :50] = 0  # water
    data = np.concatenate([picture(), infrared]).astype(np.uint8)
    path = write(tmp_path / "rgbi.tif", data=data)
    with rasterio.open(path) as raster:
        assert raster.colorinterp[3] == ColorInterp.alpha  # as GDAL calls any fourth byte
    with pytest.warns(SesgridWarning, match=r"fourth band of 1 tiles, first rgbi\.tif"):
        read_ortho(path)
    pixels, valid = RasterReader().read(path, WHOLE)
    assert valid is None
    assert np.array_equal(pixels, picture())
    data[3] = np.where(np.arange(PX) < 50, 0, 255)
    mask = write(tmp_path / "mask" / "rgba.tif", data=data)
    read_ortho(mask)
    assert np.array_equal(RasterReader().read(mask, WHOLE)[1], data[3] > 0)


@pytest.mark.parametrize("suffix", [".tif", ".jp2"])
def test_a_filled_corner_is_told_and_can_be_named(tmp_path, suffix) -> None:
    data = picture(px=300)
    data[:, :140, :140] = 255
    path = write(tmp_path / f"a{suffix}", data=data)
    with pytest.warns(
        SesgridWarning, match=r"1 tiles have a corner or a border of one colour.*\(255, 255, 255\)"
    ):
        read_ortho(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_ortho(path, fill_values=[255])
        read_ortho(write(tmp_path / "told" / "a.tif", data=data, nodata=255))
        read_ortho(write(tmp_path / "whole" / "a.tif", data=picture(px=300)))
    window = (0, 300, 0, 300)
    assert RasterReader().read(path, window)[1] is None
    pixels, valid = RasterReader(fill_values=(0, 255)).read(path, window)
    assert np.array_equal(valid, ~(data == 255).all(axis=0))
    assert np.array_equal(pixels, data)
    _, coarse = RasterReader(fill_values=(255,)).read(path, (0, 150, 0, 150), 1)
    assert not coarse[:69, :69].any()
    assert coarse[75:, 75:].all()


def test_filled_tiles_do_not_hide_the_imagery_of_others(tmp_path) -> None:
    chosen = cells(1)
    place = read_ortho(scene_tile(tmp_path / "whole.tif", chosen)).iloc[0]
    data = RasterReader().read(place["path"], (0, place["height"], 0, place["width"]))[0].copy()
    data[:, :, : data.shape[2] // 2] = 255
    at = Affine(1, 0, place["left"], 0, -1, place["top"])
    folder = tmp_path / "0"  # goes first
    write(folder / "filled.tif", data=data, transform=at, crs="EPSG:3035")
    grid = {"pixels_per_cell": 50, "cells_per_block": 1}
    whole = mosaic(chosen, read_ortho(place["path"]), RasterReader(), **grid)
    tiles = read_ortho([folder, place["path"]], fill_values=[255])
    both = mosaic(chosen, tiles, RasterReader(fill_values=(255,)), **grid)
    assert tiles["path"].str.endswith("filled.tif").tolist() == [True, False]
    assert (both["coverage"] == 1).all()
    off = np.abs(both["image"].astype(int) - whole["image"].astype(int))
    assert float((off > 0).mean()) < 0.05  # where pixels of both meet
    hidden = mosaic(chosen, tiles, RasterReader(), **grid)
    assert float((hidden["image"] == 255).mean()) > 0.3


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path, monkeypatch) -> None:
    import os

    codes(tmp_path / "d" / "a.tif")
    write(tmp_path / "e" / "a.tif")
    scan = os.scandir

    def refuse(path: object) -> object:
        if str(path) in (str(tmp_path / "d"), str(tmp_path / "e")):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for folder, read in (("d", read_class_rasters), ("e", read_ortho)):
        with pytest.raises(ReadError, match="may not be read"):
            read(tmp_path / folder)


@pytest.mark.parametrize(
    "at", [(5, 0, np.nan, 0, -5, 0), (5, 0, 0, 0, -5, np.inf), (1e9, 0, 0, 0, -1e9, 0)]
)
def test_places_that_are_none(tmp_path, at) -> None:
    for path, read in (
        (write(tmp_path / "a.tif", transform=Affine(*at)), read_ortho),
        (write(tmp_path / "c.tif", data=picture()[:1], transform=Affine(*at)), read_class_rasters),
    ):
        with pytest.raises(FormatError, match="metres on the Earth"):
            read(path)
    far = write(tmp_path / "far.tif", transform=Affine(1, 0, 4e7, 0, -1, 4e7), crs="EPSG:32631")
    with pytest.raises(SesgridError, match="no place in EPSG:3035"):
        read_ortho(far)


def border_tile(shape: str, value: int) -> np.ndarray:
    """A picture of 1,000 px, and a filling that leaves most corners of 128 px unfilled."""
    data = np.random.default_rng(0).integers(3, 250, (3, 1000, 1000)).astype(np.uint8)
    row, col = np.mgrid[:1000, :1000]
    data[:, FILLINGS[shape](row, col)] = value
    return data


FILLINGS = {
    "frame": lambda r, c: (np.minimum(r, c) < 120) | (np.maximum(r, c) >= 880),
    "stripe": lambda r, c: c >= 940,
    "triangle": lambda r, c: r + c < 200,
    "middle": lambda r, c: (r >= 900) & (c >= 400) & (c < 700),
    "wedge": lambda r, c: r < (c - 500) * 0.2,
}


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (255, {}),
        (0, {"compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256}),
        (255, {"compress": "jpeg", "photometric": "ycbcr"}),
    ],
    ids=["plain", "black", "jpeg"],
)
@pytest.mark.parametrize("shape", FILLINGS)
def test_a_filled_border_is_told(tmp_path, shape, value, options) -> None:
    path = write(tmp_path / "a.tif", data=border_tile(shape, value), **options)
    with pytest.warns(SesgridWarning, match=rf"border of one colour, first a\.tif \({value}, "):
        read_ortho(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_ortho(path, fill_values=[value])


@pytest.mark.parametrize("shape", ["stripe", "wedge"])
def test_a_filled_border_of_a_lossy_jpeg_2000_is_told(tmp_path, shape) -> None:
    path = write(tmp_path / "a.jp2", data=border_tile(shape, 255), QUALITY="10", REVERSIBLE="NO")
    with pytest.warns(SesgridWarning, match=r"border of one colour, first a\.jp2 \(25[45], "):
        read_ortho(path)


def test_a_second_filling_is_told_where_the_first_is_named(tmp_path) -> None:
    data = border_tile("stripe", 255)
    data[:, :, :60] = 0
    path = write(tmp_path / "a.tif", data=data)
    for named, other in ((0, 255), (255, 0)):
        with pytest.warns(SesgridWarning, match=rf"first a\.tif \({other}, "):
            read_ortho(path, fill_values=[named])


@pytest.mark.parametrize("what", ["shadows", "snow", "roof in the sun", "lake"])
def test_dark_and_bright_land_at_the_border_is_no_filling(tmp_path, what) -> None:
    noise = np.random.default_rng(1)
    data = border_tile("stripe", 128)
    if what == "shadows":
        data[:, :60, 100:150] = data[:, 300:350, -60:] = 0
    if what == "snow":  # overexposed in part
        data = np.clip(noise.normal(252, 4, data.shape), 0, 255).astype(np.uint8)
    if what == "roof in the sun":
        data[:, :50, 500:555] = 255
    if what == "lake":
        data[:, :300] = noise.integers(0, 9, (3, 300, 1000))
    data[0, :, 940:] = 40  # a field of one colour along a side, neither white nor black
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_ortho(write(tmp_path / "a.tif", data=data[:, :, :-5]))
