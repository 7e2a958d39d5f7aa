"""Sources that tell to read another file, or to ask another machine: nothing of that may happen.

Each points at a *canary*: a file beside the input whose content would show in the result, and a port on which
the parent listens.
"""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from benchmarks.fuzz.trial import Damage, Trial

__all__ = ["RASTER_HOSTILE", "VECTOR_HOSTILE", "Listener", "canary_raster"]

_PORT = "SESGRID_FUZZ_PORT"


class Listener:
    """A port on loopback that nobody should call; who does is told by the path that is asked for."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.socket.setblocking(False)
        os.environ[_PORT] = str(self.socket.getsockname()[1])

    def callers(self) -> Iterator[str]:
        """Names of the inputs that called since it was asked last."""
        with suppress(BlockingIOError):
            while True:
                connection, _ = self.socket.accept()
                with connection:
                    connection.settimeout(0.5)
                    with suppress(OSError):
                        words = connection.recv(4000).decode("latin-1").split("/")
                        yield next(
                            (w.split("?")[0].split(" ")[0] for w in words if w.startswith("by-")),
                            "?",
                        )


def _address(path: Path) -> str:
    """Of the canary, for an input's file: its folder's name is asked for."""
    folder = next((p.parent.name for p in path.parents if p.name == "in"), "")
    return f"{os.environ.get(_PORT, '9')}/by-{folder}"


def _canary_vector(folder: Path) -> Path:
    path = folder / "secret.gpkg"
    land = gpd.GeoDataFrame(
        {"code_2018": ["50000"]},
        geometry=[shapely.box(3_000_000, 2_000_000, 3_000_100, 2_000_100)],
        crs=3035,
    )
    land.to_file(path, layer="FR666L1_SECRET_UA2018", engine="pyogrio")
    return path


def canary_raster(folder: Path, bands: int = 3) -> Path:
    """A raster that is none of the user's sources."""
    path = folder / "secret.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=40, height=40, count=bands, dtype="uint8", crs="EPSG:2154",
        transform=from_origin(650_000, 6_860_000, 1, 1),
    ) as raster:  # fmt: skip
        raster.write(np.full((bands, 40, 40), 66, np.uint8))
    return path


def _vector(name: str, text: str) -> Damage:
    """Replace the file, or what is in the archive, by a text that GDAL would know by its content."""

    def do(rng: Random, trial: Trial) -> Trial | None:
        aside = trial.path.parent / "aside"
        aside.mkdir()
        secret = _canary_vector(aside)
        filled = text.replace("{secret}", str(secret)).replace("{port}", _address(trial.path))
        path = trial.path
        if path.suffix in (".zip", ".7z"):
            with zipfile.ZipFile(path, "w") as z:
                z.writestr("FR001L1_X_UA2018.gpkg", filled)
            return None
        if path.is_dir():
            path = path.with_suffix(".gpkg")
        path.write_text(filled, encoding="utf-8")
        return replace(trial, path=path)

    return Damage(do, name, hostile=True)


_OGR_VRT = (
    '<OGRVRTDataSource><OGRVRTLayer name="FR666L1_SECRET_UA2018"><SrcDataSource>{where}</SrcDataSource>'
    "<SrcLayer>FR666L1_SECRET_UA2018</SrcLayer></OGRVRTLayer></OGRVRTDataSource>"
)
VECTOR_HOSTILE = (
    _vector("OGR VRT of a file", _OGR_VRT.replace("{where}", "{secret}")),
    _vector(
        "OGR VRT of an address",
        _OGR_VRT.replace("{where}", "/vsicurl/http://127.0.0.1:{port}/a.gpkg"),
    ),
    _vector("WFS", "<OGRWFSDataSource><URL>http://127.0.0.1:{port}/wfs</URL></OGRWFSDataSource>"),
    _vector("OGC API", "<OGCAPI><URL>http://127.0.0.1:{port}/</URL></OGCAPI>"),
    _vector("GMLAS", "GMLAS:http://127.0.0.1:{port}/a.xml"),
    _vector(
        "GML with a schema elsewhere",
        '<?xml version="1.0"?><ogr:FeatureCollection xmlns:ogr="http://ogr.maptools.org/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://127.0.0.1:{port}/ '
        'http://127.0.0.1:{port}/a.xsd" xmlns:gml="http://www.opengis.net/gml"></ogr:FeatureCollection>',
    ),
    _vector(
        "XML with an entity",
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><kml>&x;</kml>',
    ),
)


def _raster(name: str, text: str, suffix: str | None = None) -> Damage:
    def do(rng: Random, trial: Trial) -> Trial:
        aside = next(p for p in trial.path.parents if p.name == "in") / "aside"
        aside.mkdir()
        secret = canary_raster(aside, 3)
        one = aside / "one.tif"
        canary_raster(aside.parent, 1).rename(one)
        filled = (
            text.replace("{one}", str(one))
            .replace("{secret}", str(secret))
            .replace("{port}", _address(trial.path))
        )
        trial.path.write_text(filled, encoding="utf-8")
        return trial

    return Damage(do, name, hostile=True)


def _vrt(where: str, bands: int = 3) -> str:
    def band(k: int) -> str:
        return (
            f'<VRTRasterBand dataType="Byte" band="{k}"><SimpleSource>'
            f"<SourceFilename>{where}</SourceFilename>"
            f"<SourceBand>{k}</SourceBand></SimpleSource></VRTRasterBand>"
        )

    return (
        '<VRTDataset rasterXSize="40" rasterYSize="40"><SRS>EPSG:2154</SRS>'
        "<GeoTransform>650000,1,0,6860000,0,-1</GeoTransform>"
        + "".join(map(band, range(1, bands + 1)))
        + "</VRTDataset>"
    )


RASTER_HOSTILE = (
    _raster("VRT of a file", _vrt("{secret}")),
    _raster("VRT of a file, one band", _vrt("{one}", 1)),
    _raster("VRT of an address", _vrt("/vsicurl/http://127.0.0.1:{port}/a.tif")),
    _raster(
        "WMS",
        '<GDAL_WMS><Service name="WMS"><ServerUrl>http://127.0.0.1:{port}/?</ServerUrl><Layers>x</Layers><SRS>EPSG:2154'
        "</SRS></Service><DataWindow><UpperLeftX>650000</UpperLeftX><UpperLeftY>6860000</UpperLeftY><LowerRightX>650040"
        "</LowerRightX><LowerRightY>6859960</LowerRightY><SizeX>40</SizeX><SizeY>40</SizeY></DataWindow>"
        "<BandsCount>3</BandsCount></GDAL_WMS>",
    ),
    _raster(
        "STAC tiled",
        '{"type":"Feature","stac_version":"1.0.0","assets":{"a":{"href":"http://127.0.0.1:{port}/a.tif"}}}',
    ),
    _raster(
        "MRF",
        "<MRF_META><Raster><Size x='40' y='40' c='3'/><DataFile>{secret}</DataFile></Raster></MRF_META>",
    ),
)  # fmt: skip
