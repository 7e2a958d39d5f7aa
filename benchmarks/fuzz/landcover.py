"""Families of land covers by a table of codes: OCS GE as one layer of pairs, CoSIA as a folder of tiles."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from random import Random

import geopandas as gpd
import numpy as np
import shapely

import sesgrid
from benchmarks.fuzz.archives import ARCHIVE_DAMAGES, pack
from benchmarks.fuzz.damage import BLIND
from benchmarks.fuzz.hostile import VECTOR_HOSTILE
from benchmarks.fuzz.trial import Damage, Family, Trial
from benchmarks.fuzz.vectors import GPKG_DAMAGES, free_database

__all__ = ["FAMILIES"]

_USES = ("US1.1", "US1.3", "US2", "US3", "US5", "US235", "US4.1.1", "US4.1.2", "US4.3", "US6.2")


def _rows(name: str) -> list[dict[str, str]]:
    with files("sesgrid.sources").joinpath(f"{name}_classes.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _squares(rng: Random) -> list[shapely.Geometry]:
    """Beside each other, EPSG:2154."""
    n, x, y = (
        rng.randint(4, 40),
        rng.randrange(700_000, 900_000),
        rng.randrange(6_300_000, 6_700_000),
    )
    side = int(n**0.5) + 1
    at = [(x + 300 * (k % side), y + 300 * (k // side)) for k in range(n)]
    return [shapely.box(a, b, a + 300, b + 300) for a, b in at]


def _draw_ocsge(rng: Random) -> gpd.GeoDataFrame:
    classes = {(r["code_cs"], r["code_us"]): r["landcover_class"] for r in _rows("ocsge")}
    covers, geometry = sorted({cs for cs, _ in classes if (cs, "") in classes}), _squares(rng)
    pairs = [(rng.choice(covers), rng.choice(_USES)) for _ in geometry]
    named = [classes.get(pair, classes[pair[0], ""]) for pair in pairs]
    columns = {
        "code_cs": [cs for cs, _ in pairs],
        "code_us": [us for _, us in pairs],
        "wanted": named,
    }
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=2154)


def _draw_cosia(rng: Random) -> gpd.GeoDataFrame:
    rows, geometry = _rows("cosia"), _squares(rng)
    number = {r["landcover_class"]: int(r["numero"]) for r in rows if r["numero"]}
    taken = [rng.choice([r for r in rows if r["classe"]]) for _ in geometry]
    columns = {
        "classe": [r["classe"] for r in taken],
        "numero": [number[r["landcover_class"]] for r in taken],
        "wanted": [r["landcover_class"] for r in taken],
    }
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=2154)


def _difference(land: gpd.GeoDataFrame) -> Callable[[object, bool], str]:
    """Compares each polygon's class with that of the square about its middle."""
    middles = shapely.centroid(land.geometry.to_crs(3035).to_numpy())
    wanted = land["wanted"].to_numpy()

    def difference(result: object, partly: bool) -> str:
        if not isinstance(result, gpd.GeoDataFrame) or result.crs != "EPSG:3035":
            return "no polygons in EPSG:3035"
        read: gpd.GeoDataFrame = result
        if len(read) != len(land) and not (partly and len(read) < len(land)):
            return f"{len(read)} of {len(land)} polygons"
        found = shapely.centroid(read.geometry.to_numpy())
        apart = shapely.distance(found[:, None], middles[None, :])
        if partly and (apart.min(axis=1) > 1).sum() == 1:  # the one that was put elsewhere
            read, apart = read[apart.min(axis=1) <= 1], apart[apart.min(axis=1) <= 1]
        at = apart.argmin(axis=1)
        if len(set(at)) < len(at) or apart.min(axis=1).max() > 1:
            return "polygons twice, or elsewhere"
        if (abs(shapely.area(read.geometry.to_numpy()) / 90_000 - 1) > 0.01).any():
            return "a polygon of another size"
        off = read["landcover_class"].fillna("").to_numpy() != wanted[at]
        if partly:
            off &= read["landcover_class"].notna().to_numpy()
        return f"{read['landcover_class'][off].iloc[0]}: another class" if off.any() else ""

    return difference


def _save(rng: Random, land: gpd.GeoDataFrame, path: Path, layer: str) -> None:
    frame = land.drop(columns="wanted")
    frame["id"] = [f"x{k}" for k in range(len(frame))]
    columns = [c for c in frame.columns if c != "geometry"]
    rng.shuffle(columns)
    frame[[*columns, "geometry"]].to_file(path, layer=layer, engine="pyogrio")


def _write_ocsge(rng: Random, folder: Path) -> Trial:
    land = _draw_ocsge(rng)
    if rng.random() < 0.3:
        land = land.rename(columns={"code_cs": "CODE_CS", "code_us": "CODE_US"})
    path = folder / "OCCUPATION_SOL.gpkg"
    _save(rng, land, path, "OCCUPATION_SOL")
    act = partial(sesgrid.read_landcover, path, "ocsge")
    return Trial(act, _difference(land), path)


def _write_cosia(rng: Random, folder: Path) -> Trial:
    land = _draw_cosia(rng)
    top = folder / "CoSIA_D013_2023"
    top.mkdir()
    given = land.drop(columns=rng.choice([[], ["numero"], ["classe"]]))
    tile = np.asarray([rng.randrange(3) for _ in range(len(given))])
    paths = []
    for k in sorted(set(tile)):
        paths.append(top / f"D013_2023_{880 + 10 * k}_6250_vecto.gpkg")
        _save(rng, given[tile == k], paths[-1], paths[-1].stem)
    act = partial(sesgrid.read_landcover, top, "cosia")
    return Trial(act, _difference(land), rng.choice(paths))


def _write_archive(rng: Random, folder: Path) -> Trial:
    plain = folder.parent / "tmp" / "plain"
    plain.mkdir(parents=True)
    write, table = rng.choice([(_write_ocsge, "ocsge"), (_write_cosia, "cosia")])
    trial = write(rng, plain)
    packed = pack(rng, plain, folder)
    return replace(trial, act=partial(sesgrid.read_landcover, packed, table), path=packed)


def _in_database(name: str, *texts: str) -> Damage:
    """Change the column of codes by SQL."""

    def do(rng: Random, trial: Trial) -> None:
        with free_database(trial.path) as db:
            (table,) = db.execute("select table_name from gpkg_contents").fetchone()
            names = [row[1] for row in db.execute(f'pragma table_info("{table}")')]
            for column in names:
                if column.lower() in ("code_cs", "classe", "numero"):
                    for text in texts:
                        db.execute(text.format(table=table, column=column))

    return Damage(do, name)


_CODES = (
    _in_database("unknown code", """update "{table}" set "{column}" = 99 where fid = 1"""),
    _in_database("no code", 'update "{table}" set "{column}" = null where fid = 1'),
    _in_database("no codes", 'alter table "{table}" rename "{column}" to "no {column}"'),
)

FAMILIES = (
    Family("landcover-ocsge", _write_ocsge, (*GPKG_DAMAGES, *_CODES, *VECTOR_HOSTILE, *BLIND)),
    Family("landcover-cosia", _write_cosia, (*GPKG_DAMAGES, *_CODES, *VECTOR_HOSTILE, *BLIND)),
    Family("landcover-archive", _write_archive, (*ARCHIVE_DAMAGES, *VECTOR_HOSTILE)),
)
