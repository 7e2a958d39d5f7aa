"""Family of classified rasters, each with the table of its codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import from_origin

from benchmarks.fuzz.damage import ANY_FILE, BLIND, flip
from benchmarks.fuzz.hostile import RASTER_HOSTILE
from benchmarks.fuzz.rasters import (
    PLACE_DAMAGES,
    Array,
    no_crs,
    real_numbers,
    rewrite,
    write_aux,
    write_raster,
)
from benchmarks.fuzz.trial import Damage, Family, Trial
from sesgrid.sources import ClassReader, read_class_rasters, read_class_table

__all__ = ["FAMILIES"]


def _read_classes(raster: Path, table: Path) -> tuple[gpd.GeoDataFrame, list[Array]]:
    """Index and values of all windows, as the stage reads them."""
    index, classes = read_class_rasters(raster), read_class_table(table)
    reader = ClassReader.of(classes)
    values = []
    for row in index.itertuples():
        got, valid = reader.read(row.path, (0, int(row.height), 0, int(row.width)))
        values.append(np.where(valid, got[0], 0) if valid is not None else got[0])
    return index, values


def _classes_difference(
    wanted: Array, left: float, top: float, size: float
) -> Callable[[object, bool], str]:
    def difference(result: object, partly: bool) -> str:
        index, values = cast(tuple[gpd.GeoDataFrame, list[Array]], result)
        if len(index) != 1:
            return f"{len(index)} rasters"
        place = tuple(float(index[n].iloc[0]) for n in ("left", "top", "resolution_m"))
        if not np.allclose(place, (left, top, size), rtol=0, atol=1e-6):
            return f"placed at {place} instead of {(left, top, size)}"
        if values[0].shape != wanted.shape:
            return f"{values[0].shape} instead of {wanted.shape}"
        off = values[0] != wanted
        return f"{int(off.sum())} of {off.size} pixels" if off.any() else ""

    return difference


def _write_classes(rng: Random, folder: Path) -> Trial:
    random = np.random.default_rng(rng.randrange(2**32))
    codes = sorted(rng.sample(range(1, 200 if rng.random() < 0.5 else 60_000), rng.randint(2, 12)))
    names = [rng.choice(["bâti", "eau", "forêt", "champs", ""]) for _ in codes]
    names[0] = "eau"
    kinds = {n: k for k, n in enumerate(dict.fromkeys(n for n in names if n), start=1)}
    height, width = rng.randint(20, 90), rng.randint(20, 90)
    at = random.integers(0, len(codes), (height, width))
    dtype = np.uint8 if codes[-1] < 256 and rng.random() < 0.8 else np.uint16
    pixels = np.asarray(codes)[at].astype(dtype)
    wanted = np.asarray([kinds.get(n, 0) for n in names])[at]
    left, top, size = (
        rng.randrange(600_000, 700_000),
        rng.randrange(6_600_000, 6_800_000),
        rng.choice([1.0, 2.5, 10.0]),
    )
    absent = random.random((height, width)) < 0.1
    way = rng.choice(["none", "nodata", "mask", "sidecar mask", "nodata in aux.xml"])
    folder.joinpath("oso").mkdir()
    path = folder / "oso" / rng.choice(["oso.tif", "OCS é.TIF", "a!b.tiff"])
    options: dict[str, object] = {"driver": "GTiff", "crs": f"EPSG:{rng.choice([2154, 3035])}"}
    options |= rng.choice(
        [
            {},
            {"compress": "deflate"},
            {"compress": "lzw", "predictor": 2},
            {"tiled": True, "blockxsize": 32, "blockysize": 32},
            {"compress": "zstd"},
            {"BIGTIFF": "YES"},
        ]
    )
    if "nodata" in way:
        pixels[absent] = 0
    if way == "nodata":
        options["nodata"] = 0
    elif way == "nodata in aux.xml":
        write_aux(path, '<PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand>')
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=way == "mask"):
        write_raster(path, pixels[None], from_origin(left, top, size, size), **options)
        if "mask" in way:
            with rasterio.open(path, "r+") as raster:
                raster.write_mask(~absent)
    if way != "none":
        wanted = np.where(absent, 0, wanted)
    table = pd.DataFrame(
        {"code": codes, "landcover_class": names, "group": ["nature"] * len(codes)}
    )
    table = table.sample(frac=1, random_state=rng.randrange(100)) if rng.random() < 0.0 else table
    classes = folder / "classes.csv"
    classes.write_bytes(
        table.to_csv(index=False, lineterminator=rng.choice(["\n", "\r\n"])).encode(
            rng.choice(["utf-8", "utf-8-sig"])
        )
    )
    return Trial(
        partial(_read_classes, path, classes), _classes_difference(wanted, left, top, size), path
    )


def _in_table(text: bytes) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        (trial.path.parents[1] / "classes.csv").write_bytes(text)

    return Damage(do, f"table {text[:30]!r}")


def _flip_deflated(rng: Random, trial: Trial) -> None:
    """Bits of pixels packed by deflate: its own checksum tells."""
    with rasterio.open(trial.path) as raster:
        pixels, profile = raster.read(), raster.profile
    for key in ("predictor", "tiled", "blockxsize", "blockysize", "BIGTIFF", "compress"):
        profile.pop(key, None)
    trial.path.unlink()
    with rasterio.open(
        trial.path, "w", **(profile | {"compress": "deflate", "blockysize": pixels.shape[1]})
    ) as raster:
        raster.write(pixels)
    with rasterio.open(trial.path) as raster:
        tags = {
            n: raster.get_tag_item(n, "TIFF", bidx=1)
            for n in ("BLOCK_OFFSET_0_0", "BLOCK_SIZE_0_0")
        }
    start = int(tags["BLOCK_OFFSET_0_0"])
    flip(rng, trial.path, start + 2, start + int(tags["BLOCK_SIZE_0_0"]))


def _unknown_code(rng: Random, profile: dict[str, object], pixels: Array) -> Array:
    code = 251 if pixels.dtype == np.uint8 else 65_001
    return np.where(pixels == pixels.flat[0], code, pixels).astype(pixels.dtype)


_HEADER = b"code,landcover_class\n"
_ROWS = (
    *(_HEADER + row for row in (
        b"1,eau\n1,eau\n", b"x,eau\n", b"-1,eau\n", b"70000,eau\n", b"1,\n", b"1,eau,3,4\n2,x\n",
        b'1,"eau\n', b"1.5,eau\n", b"1e400,eau\n",
    )),
    b"code,landcover_class,group\n1,eau,nature\n2,eau,infrastructure\n",
    b"code,code,landcover_class\n1,1,eau\n",
)  # fmt: skip

_CLASS_DAMAGES = (
    *ANY_FILE,
    Damage(_flip_deflated, "flip in deflated pixels"),
    *RASTER_HOSTILE,
    *PLACE_DAMAGES,
    rewrite("another type", real_numbers),
    rewrite("no CRS", no_crs),
    rewrite("unknown code", _unknown_code),
    *map(_in_table, (b"", b"\0\0\0\0", b"\xff\xfe\x00\xd8", b"code,name\n1,eau\n", *_ROWS)),
    *BLIND,
)  # fmt: skip


FAMILIES = (Family("classes", _write_classes, _CLASS_DAMAGES, share=4),)
