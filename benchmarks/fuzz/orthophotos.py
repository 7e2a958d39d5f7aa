"""Families of orthophotos: deliveries and folders of tiles, with what lies beside them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from benchmarks.fuzz.damage import ANY_FILE, BLIND, damage_file
from benchmarks.fuzz.hostile import RASTER_HOSTILE
from benchmarks.fuzz.rasters import PLACE_DAMAGES, Array, rewrite, write_aux, write_raster
from benchmarks.fuzz.trial import Damage, Family, Trial
from sesgrid.sources import RasterReader, read_ortho

__all__ = ["FAMILIES"]


def _read_tiles(path: Path) -> list[tuple[dict[str, float], Array, Array]]:
    """Each tile's place, colours and validity, read in two windows as the mosaic does."""
    index, reader, found = read_ortho(path, default_crs="EPSG:2154"), RasterReader(), []
    for row in index.itertuples():
        place = {"left": float(row.left), "top": float(row.top), "size": float(row.resolution_m)}
        h, w = int(row.height), int(row.width)
        parts = [
            reader.read(row.path, (a, b, 0, w)) for a, b in ((0, h // 2), (h // 2, h)) if b > a
        ]
        pixels = np.concatenate([p for p, _ in parts], axis=1)
        valid = np.concatenate([np.ones(p.shape[1:], bool) if v is None else v for p, v in parts])
        found.append((place, pixels, valid))
    return found


def _tiles_difference(
    wanted: list[tuple[tuple[float, float, float], Array, Array]], lossy: bool
) -> Callable[[object, bool], str]:
    def difference(result: object, partly: bool) -> str:
        tiles = cast(list[tuple[dict[str, float], Array, Array]], result)
        if len(tiles) > len(wanted) or (len(tiles) < len(wanted) and not partly):
            return f"{len(tiles)} of {len(wanted)} tiles"
        for place, pixels, valid in tiles:
            near = [w for w in wanted if np.allclose(w[0], list(place.values()), rtol=0, atol=1e-6)]
            if not near:
                return f"a tile at {place}"
            _, colours, seen = near[0]
            if pixels.shape != colours.shape:
                return f"{pixels.shape} instead of {colours.shape}"
            if (valid != seen).any():
                return f"validity of {int((valid != seen).sum())} of {seen.size} pixels"
            off = np.abs(pixels.astype(int) - colours)[:, seen]
            if off.size and (off.mean() > 12 if lossy else off.max() > 0):
                return f"colours differ by {off.max()}"
        return ""

    return difference


_RES = 0.5


def _write_ortho(rng: Random, folder: Path, suffix: str) -> Trial:
    top_folder = folder / rng.choice(
        ["ortho", "BDORTHO_2-0_RVB-0M50_JP2-E080_LAMB93_D031_2022-01-01"]
    )
    named = rng.random() < 0.6 or top_folder.name.startswith("BD")
    inner = (
        top_folder
        / "ORTHOHR/1_DONNEES_LIVRAISON_2022-04-00085/OHR_RVB_0M50_JP2-E080_LAMB93_D31-2022"
        if top_folder.name.startswith("BD")
        else top_folder
    )
    inner.mkdir(parents=True)
    wanted = []
    side, n = rng.choice([64, 96]), rng.randint(1, 3)
    way = rng.choice(["none", "nodata", "alpha", "mask"]) if suffix == ".tif" else "none"
    x_km, y_km = rng.randint(400, 700), rng.randint(6_300, 6_800)
    random = np.random.default_rng(rng.randrange(2**32))
    for k in range(n):
        left, top = 1000.0 * (x_km + k), 1000.0 * y_km
        stem = f"31-2022-{x_km + k:04}-{y_km:04}-LA93-0M50-E080" if named else f"tuile {k} é"
        path = inner / f"{stem}{suffix}"
        smooth = np.add.outer(np.arange(side), np.arange(side)) + random.integers(0, 40)
        colours = (
            np.stack([smooth + 10, 230 - smooth, smooth // 2 + 50]).clip(1, 255).astype(np.uint8)
        )
        seen = np.ones((side, side), bool)
        if way != "none":
            seen[: rng.randint(1, side // 2)] = False
        _write_tile(
            rng, path, colours, seen, (left, top), way, referenced=not named or rng.random() < 0.7
        )
        wanted.append(((left, top, _RES), colours, seen))
    first = sorted(inner.glob(f"*{suffix}"))[0]
    return Trial(
        partial(_read_tiles, top_folder), _tiles_difference(wanted, suffix in (".jpg",)), first
    )


def _write_tile(
    rng: Random, path: Path, colours: Array, seen: Array, corner: tuple[float, float], way: str, *,
    referenced: bool,
) -> None:  # fmt: skip
    place = from_origin(*corner, _RES, _RES)
    if referenced and path.suffix == ".tif" and rng.random() < 0.2:  # corrected beside it
        x, y = corner
        write_aux(path, f"<GeoTransform>{x}, {_RES}, 0, {y}, 0, {-_RES}</GeoTransform>")
        place = from_origin(x + 37, y - 11, _RES, _RES)
        corrected = True
    else:
        corrected = False
    options: dict[str, object] = {"driver": "GTiff"}
    if path.suffix == ".jp2":
        options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"}
    elif path.suffix == ".jpg":
        options = {"driver": "JPEG", "QUALITY": "95"}
    else:
        options |= rng.choice(
            [
                {},
                {"compress": "deflate"},
                {"tiled": True, "blockxsize": 32, "blockysize": 32},
                {"compress": "lzw"},
            ]
        )
        options["photometric"] = "RGB"
    aside = path.suffix == ".jpg" or (referenced and not corrected and rng.random() < 0.3)
    pixels = colours
    if way == "alpha":
        pixels = np.concatenate([colours, (seen * 255).astype(np.uint8)[None]])
        options["ALPHA"] = "YES"
    elif way == "nodata":
        pixels, options["nodata"] = np.where(seen, colours, 0).astype(np.uint8), 0
    if referenced and not aside:
        options["crs"] = "EPSG:2154"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=rng.random() < 0.5, GDAL_PAM_ENABLED="NO"):
        write_raster(path, pixels, place if referenced and not aside else None, **options)
        if way == "mask":
            with rasterio.open(path, "r+") as raster:
                raster.write_mask(seen)
        if way == "alpha":
            with rasterio.open(path, "r+") as raster:
                raster.colorinterp = (
                    ColorInterp.red,
                    ColorInterp.green,
                    ColorInterp.blue,
                    ColorInterp.alpha,
                )
    if (aside and referenced) or path.suffix == ".jpg":
        world = path.with_suffix({".jpg": ".jgw", ".tif": ".tfw", ".jp2": ".j2w"}[path.suffix])
        x, y = corner
        end = rng.choice(["\n", "\r\n"])
        world.write_text(
            end.join(map(str, (_RES, 0.0, 0.0, -_RES, x + _RES / 2, y - _RES / 2))) + end,
            newline="",
        )


def _world(text: str) -> Damage:
    """A tile without a name that tells its place, and a world file that does not either."""

    def do(rng: Random, trial: Trial) -> Trial:
        folder = trial.path.parent / "other"
        folder.mkdir()
        path = folder / "photo.tif"
        write_raster(
            path, np.full((3, 30, 30), 99, np.uint8), None, driver="GTiff", photometric="RGB"
        )
        path.with_suffix(".tfw").write_text(text)
        return Trial(partial(_read_tiles, folder), _tiles_difference([], False), path)

    return Damage(do, f"world file {text[:24]!r}")


def _index(*names: str) -> Damage:
    """An index of the tiles that lists others."""

    def do(rng: Random, trial: Trial) -> None:
        frame = gpd.GeoDataFrame(
            {"NOM": list(names)}, geometry=[shapely.box(0, 0, 1, 1)] * len(names), crs=2154
        )
        frame.to_file(trial.path.parent / "dalles.shp", engine="pyogrio")

    return Damage(do, f"dalles.shp of {names[0][:20]}")


def _index_damaged(suffix: str, kind: str) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        names = [p.name for p in sorted(trial.path.parent.glob(f"*{trial.path.suffix}"))]
        frame = gpd.GeoDataFrame(
            {"NOM": names}, geometry=[shapely.box(0, 0, 1, 1)] * len(names), crs=2154
        )
        frame.to_file(trial.path.parent / "dalles.shp", engine="pyogrio")
        damage_file(rng, trial.path.parent / f"dalles{suffix}", kind)

    return Damage(do, f"dalles{suffix} {kind}")


def _gray(rng: Random, profile: dict[str, object], pixels: Array) -> Array:
    return pixels[:1]


def _deep(rng: Random, profile: dict[str, object], pixels: Array) -> Array:
    return pixels.astype(np.uint16) * 200


def _lost(rng: Random, trial: Trial) -> Trial:
    """A folder with nothing to read."""
    shutil.rmtree(trial.path.parent)
    trial.path.parent.mkdir()
    (trial.path.parent / "notes.txt").write_text("see the disk")
    return trial


_TILE_DAMAGES = (
    *ANY_FILE,
    *RASTER_HOSTILE,
    *PLACE_DAMAGES,
    rewrite("gray", _gray),
    rewrite("16 bits", _deep),
    *map(_world, (
        "", "nan\n0\n0\nnan\n0\n0\n", "1\n0\n0\n-1\n1e400\n0\n", "one\ntwo\n",
        "0\n0\n0\n0\n0\n0\n", "\xff\xfe\x00", "1\n0\n0\n",
    )),
    _index("../../../etc/passwd"),
    _index("/etc/passwd"),
    _index("nowhere.tif"),
    *(_index_damaged(s, k) for s in (".dbf", ".shp") for k in ("cut", "empty", "noise")),
    Damage(_lost, "nothing there"),
)  # fmt: skip


FAMILIES = (
    Family("ortho-tif", partial(_write_ortho, suffix=".tif"), _TILE_DAMAGES, share=3),
    Family("ortho-jp2", partial(_write_ortho, suffix=".jp2"), (*ANY_FILE, *RASTER_HOSTILE, *BLIND)),
    Family("ortho-jpg", partial(_write_ortho, suffix=".jpg"), (*ANY_FILE, *BLIND)),
)
