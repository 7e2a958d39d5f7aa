"""Families of land use and boundaries: polygons with codes, in every format that delivers them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

import sesgrid
from benchmarks.fuzz.archives import ARCHIVE_DAMAGES, pack
from benchmarks.fuzz.cells import write_shapefile
from benchmarks.fuzz.damage import ANY_FILE, BLIND
from benchmarks.fuzz.hostile import VECTOR_HOSTILE
from benchmarks.fuzz.trial import Damage, Family, Trial
from benchmarks.fuzz.vectors import FGB_DAMAGES, GDB_DAMAGES, GPKG_DAMAGES, SHP_DAMAGES

__all__ = ["FAMILIES"]

_CODES = (
    11100, 11210, 11220, 11230, 11240, 11300, 12100, 12210, 12220, 12230, 12300, 12400, 13100, 13300, 13400,
    14100, 14200, 21000, 22000, 23000, 24000, 25000, 31000, 32000, 33000, 40000, 50000,
)  # fmt: skip
_NO_CLASS = (12400,)
"""Airports belong to none of the study's classes."""

_NEAR_M = 0.05
"""An edge of a kilometre that is straight in another CRS bends by less."""


def draw_land(rng: Random) -> gpd.GeoDataFrame:
    """The truth: rectangles beside each other, a code each, EPSG:3035."""
    n = rng.randint(3, 40)
    x, y = rng.randrange(3_500_000, 3_900_000, 100), rng.randrange(2_300_000, 2_900_000, 100)
    side = int(n**0.5) + 1
    boxes = [
        shapely.box(
            x + 400 * (k % side),
            y + 300 * (k // side),
            x + 400 * (k % side + 1),
            y + 300 * (k // side + 1),
        )
        for k in range(n)
    ]
    return gpd.GeoDataFrame(
        {"code": [rng.choice(_CODES) for _ in range(n)]}, geometry=boxes, crs=3035
    )


def _same_shapes(got: np.ndarray, wanted: np.ndarray, odd: int = 0) -> str:
    """What of polygons differs, if it is more than the odd one that was put into the file and told of."""
    off = shapely.hausdorff_distance(got, wanted) > _NEAR_M
    # an edge has more points where it was cut before it was transformed
    off |= ~np.isclose(shapely.area(got), shapely.area(wanted), rtol=2e-3)
    return f"polygon {int(off.argmax())} lies or looks otherwise" if off.sum() > odd else ""


def land_difference(land: gpd.GeoDataFrame) -> Callable[[object, bool], str]:
    """Compares land use row by row."""

    def difference(result: object, partly: bool) -> str:
        if not isinstance(result, gpd.GeoDataFrame):
            return f"received {type(result).__name__}"
        if result.crs != "EPSG:3035":
            return f"in {result.crs}"
        wanted = land
        if len(result) < len(land) and partly:
            near = gpd.GeoSeries(shapely.centroid(result.geometry.array), crs=3035)
            at = [
                int(np.argmin(shapely.distance(shapely.centroid(land.geometry.array), p)))
                for p in near
            ]
            if len(set(at)) < len(at):
                return "polygons twice"
            wanted = land.iloc[at]
        if len(result) != len(wanted):
            return f"{len(result)} of {len(wanted)} polygons"
        codes = result["code"].to_numpy().astype(int)
        if (off := codes != wanted["code"].to_numpy()).any():
            return f"code {codes[off][0]} instead of {wanted['code'].to_numpy()[off][0]}"
        if ((result["value"] == 0) != np.isin(codes, _NO_CLASS)).any():
            return "a class for what has none, or none"
        return _same_shapes(result.geometry.to_numpy(), wanted.geometry.to_numpy(), odd=partly)

    return difference


def _delivered(rng: Random, land: gpd.GeoDataFrame, crs: int, year: str) -> gpd.GeoDataFrame:
    """As a release has it: text or numbers, further columns, names in any case."""
    frame = land.to_crs(crs) if crs != 3035 else land.copy()
    codes = frame.pop("code")
    frame["country"], frame["fua_name"] = "FR", rng.choice(["Nîmes", "Paris", "Saint-Étienne"])
    name = rng.choice([f"code_{year}", f"CODE{year}", f"CODE_{year}"])
    frame[name] = codes.astype(str) if rng.random() < 0.8 else codes.astype("int64")
    frame["class_" + year] = "Land  …"
    columns = [c for c in frame.columns if c != "geometry"]
    rng.shuffle(columns)
    frame = frame[[*columns, "geometry"]]
    if rng.random() < 0.3:
        frame = frame.set_geometry(
            shapely.multipolygons(frame.geometry.to_numpy()[:, None]), crs=frame.crs
        )
    if rng.random() < 0.2:
        frame = frame.set_geometry(shapely.force_3d(frame.geometry.to_numpy()), crs=frame.crs)
    return frame


def _write_land(rng: Random, folder: Path, suffix: str) -> Trial:
    land = draw_land(rng)
    year = rng.choice(["2012", "2018", "2021"])
    layer = f"FR{rng.randint(1, 99):03}L1_NIMES_UA{year}"
    stem = layer + rng.choice(["", "_v013", "_revised_v021"])
    crs = rng.choice([3035, 3035, 2154])
    frame = _delivered(rng, land, crs, year)
    path = folder / f"{stem}{suffix}"
    if suffix == ".shp":
        write_shapefile(frame, path)
    elif suffix == ".parquet":
        frame.rename_geometry(rng.choice(["geom", "geometry_"])).to_parquet(
            path
        ) if rng.random() < 0.5 else frame.to_parquet(path)
    elif suffix == ".geojson":
        frame.to_crs(4326).to_file(path, engine="pyogrio", COORDINATE_PRECISION=9)
    elif suffix == ".gdb":
        frame.to_file(path, layer=layer, driver="OpenFileGDB", engine="pyogrio")
    else:
        options = {"layer": layer} if suffix == ".gpkg" else {"SPATIAL_INDEX": "NO"}
        frame.to_file(path, engine="pyogrio", **options)
        if suffix == ".gpkg" and rng.random() < 0.5:
            around = gpd.GeoDataFrame(
                {"fua_name": ["x"]}, geometry=[frame.union_all().envelope], crs=crs
            )
            around.to_file(path, layer=f"{layer}_Boundary", engine="pyogrio", mode="a")
    return Trial(partial(sesgrid.read_urban_atlas, path), land_difference(land), path)


def _write_land_archive(rng: Random, folder: Path) -> Trial:
    plain = folder.parent / "tmp" / "plain"
    plain.mkdir(parents=True)
    trial = _write_land(rng, plain, rng.choice([".gpkg", ".shp", ".gdb"]))
    packed = pack(rng, plain, folder)
    return replace(trial, act=partial(sesgrid.read_urban_atlas, packed), path=packed)


def boundary_difference(area: shapely.Geometry) -> Callable[[object, bool], str]:
    """Compares a boundary's area with the one that was drawn."""

    def difference(result: object, partly: bool) -> str:
        if not isinstance(result, gpd.GeoDataFrame) or result.crs != "EPSG:3035":
            return "no polygons in EPSG:3035"
        found = result.union_all()
        beside = shapely.symmetric_difference(found, area).area
        # 50 mm along the line
        return f"{beside:.0f} m² are in one only" if beside > 0.05 * area.length + 1 else ""

    return difference


def _write_boundary(rng: Random, folder: Path) -> Trial:
    x, y, side = (
        rng.randrange(3_500_000, 3_900_000),
        rng.randrange(2_300_000, 2_900_000),
        rng.choice([2_000, 9_000]),
    )
    crs = rng.choice([3035, 2154, 4326])
    # straight lines in the file's CRS: that is what a boundary in it means
    fine = shapely.segmentize(shapely.box(x, y, x + side, y + side), 100)
    given = gpd.GeoSeries([fine], crs=3035).to_crs(crs)
    area = fine
    suffix = rng.choice([".gpkg", ".shp", ".geojson", ".parquet", ".fgb"])
    frame = gpd.GeoDataFrame(
        {"nom": [rng.choice(["Nîmes", "x"])]}, geometry=given.to_numpy(), crs=crs
    )
    path = folder / f"limite{suffix}"
    if suffix == ".parquet":
        (frame.rename_geometry("geom") if rng.random() < 0.5 else frame).to_parquet(path)
    elif suffix == ".geojson":
        frame.to_crs(4326).to_file(path, engine="pyogrio", COORDINATE_PRECISION=9)
    elif suffix == ".fgb":
        frame.to_file(path, engine="pyogrio", SPATIAL_INDEX="NO")
    else:
        frame.to_file(path, engine="pyogrio")
    return Trial(partial(sesgrid.read_boundary, path), boundary_difference(area), path)


def _geojson(text: str) -> Damage:
    def do(rng: Random, trial: Trial) -> Trial:
        path = trial.path.parent / "limite2.geojson"
        path.write_text(text, encoding="utf-8")
        return replace(trial, act=partial(sesgrid.read_boundary, path), path=path)

    return Damage(do, f"geojson {text[:40]}")


def _ring(inner: str, kind: str = "Polygon") -> str:
    return f'{{"type":"{kind}","coordinates":{inner}}}'


_BOUNDARY_DAMAGES = (
    *ANY_FILE,
    _geojson(_ring("[[[NaN,0],[1,1],[0,1],[NaN,0]]]")),
    _geojson(_ring("[[[1e999,0],[1,1],[0,1],[1e999,0]]]")),
    _geojson(_ring("[[[500,95],[501,95],[501,96],[500,95]]]")),
    _geojson(_ring("[[[3600000,2500000],[3601000,2500000],[3601000,2501000],[3600000,2500000]]]")),
    _geojson(_ring("[]")),
    _geojson(_ring("[[1,2],[3,4]]", "LineString")),
    _geojson('{"type":"FeatureCollection","features":[]}'),
    _geojson('{"type":"FeatureCollection","features":[{"type":"Feature","properties":{},"geometry":null}]}'),
    _geojson('{"type":"FeatureCollection"'),
    _geojson("[" * 20_000),
    _geojson(_ring('[[["a","b"],[1,1],[0,1],["a","b"]]]')),
    _geojson('{"type":"Topology","objects":{},"arcs":[]}'),
    *VECTOR_HOSTILE,
)  # fmt: skip


def _codes_damage(values: tuple[object, ...], name: str) -> Damage:
    """Rewrite the layer with a code that is none."""

    def do(rng: Random, trial: Trial) -> Trial:
        land = draw_land(rng)
        frame = land.rename(columns={"code": "code_2018"}).astype({"code_2018": object})
        frame["code_2018"] = frame["code_2018"].astype(str)
        frame.loc[rng.randrange(len(frame)), "code_2018"] = rng.choice(values)
        if trial.path.is_dir():
            shutil.rmtree(trial.path)
        path = trial.path.with_suffix(".gpkg")
        path.unlink(missing_ok=True)
        frame.to_file(path, layer="FR001L1_PARIS_UA2018", engine="pyogrio")
        return replace(
            trial,
            act=partial(sesgrid.read_urban_atlas, path),
            difference=land_difference(land),
            path=path,
        )

    return Damage(do, name)


_CODE_DAMAGES = (
    _codes_damage(("99999", "11150", "-11100"), "unknown code"),
    _codes_damage((None, "", "  ", "n/a", "111OO", "1.11e4x"), "no code"),
)


def _no_crs(rng: Random, trial: Trial) -> Trial:
    """Coordinates of no known CRS."""
    land = draw_land(rng)
    path = trial.path.parent / "FR002L1_NOWHERE_UA2018.gpkg"
    frame = pd.DataFrame({"code_2018": land["code"].astype(str)})
    gpd.GeoDataFrame(frame, geometry=land.geometry.to_numpy()).to_file(path, engine="pyogrio")
    return replace(
        trial,
        act=partial(sesgrid.read_urban_atlas, path),
        difference=land_difference(land),
        path=path,
    )


_NO_CRS = Damage(_no_crs, "no CRS")

FAMILIES = (
    Family("landuse-gpkg", partial(_write_land, suffix=".gpkg"),
           (*GPKG_DAMAGES, *_CODE_DAMAGES, _NO_CRS, *VECTOR_HOSTILE, *BLIND), share=2),
    Family("landuse-shp", partial(_write_land, suffix=".shp"), (*SHP_DAMAGES, *BLIND)),
    Family("landuse-gdb", partial(_write_land, suffix=".gdb"), GDB_DAMAGES),
    Family("landuse-fgb", partial(_write_land, suffix=".fgb"), (*FGB_DAMAGES, *BLIND)),
    Family("landuse-parquet", partial(_write_land, suffix=".parquet"), (*ANY_FILE, *BLIND)),
    Family("landuse-archive", _write_land_archive, (*ARCHIVE_DAMAGES, *VECTOR_HOSTILE)),
    Family("boundary", _write_boundary, (*_BOUNDARY_DAMAGES, *BLIND), share=3),
)  # fmt: skip
