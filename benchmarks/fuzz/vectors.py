"""Damages of vector files: what GeoPackage, shapefile, geodatabase and FlatGeobuf can tell of themselves."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

from benchmarks.fuzz.damage import ANY_FILE, damage_file
from benchmarks.fuzz.trial import Damage, Trial

__all__ = [
    "FGB_DAMAGES",
    "GDB_DAMAGES",
    "GPKG_DAMAGES",
    "SHP_DAMAGES",
    "free_database",
    "into_row",
    "wkb_of",
]


def _zero_page(rng: Random, trial: Trial) -> None:
    """Pages of a database that were never fetched; the first says how many there are."""
    content = bytearray(trial.path.read_bytes())
    size = struct.unpack(">H", content[16:18])[0] or 4096
    size = 65536 if size == 1 else size
    for page in rng.sample(range(1, len(content) // size), rng.choice([1, 3])):
        content[page * size : (page + 1) * size] = bytes(size)
    trial.path.write_bytes(content)


@contextmanager
def free_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A GeoPackage to be changed by SQL, without its triggers, which need functions of GDAL's."""
    with closing(sqlite3.connect(path)) as db, db:
        for (name,) in db.execute("select name from sqlite_master where type='trigger'").fetchall():
            db.execute(f'drop trigger "{name}"')
        yield db


def _sql(*texts: str) -> Callable[[Random, Trial], None]:
    """Change the database by SQL."""

    def do(rng: Random, trial: Trial) -> None:
        with free_database(trial.path) as db:
            (table,) = db.execute("select table_name from gpkg_contents").fetchone()
            for text in texts:
                db.execute(text.format(table=table))

    return do


def into_row(path: Path, wkb: bytes, row: int = 1) -> None:
    """Put a geometry into a row of a GeoPackage's first layer, as another software would have written it."""
    with free_database(path) as db:
        table, column, srs = db.execute(
            "select table_name, column_name, srs_id from gpkg_geometry_columns"
        ).fetchone()
        blob = b"GP\0\x01" + struct.pack("<i", srs) + wkb
        db.execute(f'update "{table}" set "{column}"=? where fid=?', (blob, row))


def _ring(points: list[tuple[float, float]]) -> bytes:
    return struct.pack("<I", len(points)) + b"".join(struct.pack("<dd", *p) for p in points)


def wkb_of(rng: Random, x: float, y: float) -> bytes:
    """A geometry that is not quite one: arcs, open rings, cut bytes, other kinds."""
    square = [(x, y), (x + 200, y), (x + 200, y + 200), (x, y + 200)]
    round_it = [(x, y + 100), (x + 100, y + 200), (x + 200, y + 100), (x + 100, y), (x, y + 100)]
    arc = struct.pack("<BII", 1, 8, 5) + b"".join(struct.pack("<dd", *p) for p in round_it)
    polygon = struct.pack("<BII", 1, 3, 1)
    return rng.choice(
        [
            struct.pack("<BII", 1, 10, 1) + arc,
            struct.pack("<BII", 1, 12, 1) + struct.pack("<BII", 1, 10, 1) + arc,
            polygon + _ring(square),  # never closed
            polygon + _ring([*square, square[0]])[:-9],  # cut
            struct.pack("<BII", 1, 3, 2**31 - 1),
            polygon + _ring([(x, y), (x, y)]),
            polygon + _ring([(float("nan"), y), *square[1:], (float("nan"), y)]),
            polygon + _ring([(float("inf"), y), *square[1:], (float("inf"), y)]),
            struct.pack("<BIdd", 1, 1, x, y),
            struct.pack("<BI", 1, 99),
            struct.pack("<BII", 1, 15, 0),
            struct.pack("<BII", 1, 7, 1) + struct.pack("<BII", 1, 7, 0),
            b"",
            b"\x05",
        ]
    )


def _odd_row(rng: Random, trial: Trial) -> None:
    into_row(trial.path, wkb_of(rng, 3_700_000.0, 2_800_000.0))


GPKG_DAMAGES = (
    *ANY_FILE,
    Damage(_zero_page, "pages never fetched"),
    Damage(_odd_row, "odd geometry"),
    Damage(_sql("delete from gpkg_geometry_columns"), "no geometry columns"),
    Damage(
        _sql("update gpkg_contents set table_name = table_name || '_gone'"), "layer of no table"
    ),
    Damage(_sql("drop table gpkg_contents"), "no contents"),
    Damage(_sql('alter table "{table}" rename to gone'), "table gone"),
)


def _part(suffix: str, kind: str) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        damage_file(rng, trial.path.with_suffix(suffix), kind)

    return Damage(do, f"{suffix} {kind}")


def _gone(suffix: str) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        trial.path.with_suffix(suffix).unlink()

    return Damage(do, f"{suffix} gone")


SHP_DAMAGES = (
    *(
        _part(suffix, kind)
        for kind in ("cut", "empty", "noise")
        for suffix in (".dbf", ".shp", ".shx")
    ),
    _part(".dbf", "header"),
    _part(".shp", "header"),
    _gone(".dbf"),
    _gone(".shx"),
    _part(".prj", "noise"),
)

FGB_DAMAGES = ANY_FILE


def _in_folder(kind: str) -> Damage:
    """Damage the largest table of a geodatabase."""

    def do(rng: Random, trial: Trial) -> None:
        tables = sorted(trial.path.glob("a*.gdbtable"), key=lambda p: p.stat().st_size)
        damage_file(rng, rng.choice(tables[-3:]), kind)

    return Damage(do, f"table {kind}")


def _lose(pattern: str) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        files = sorted(trial.path.glob(pattern))
        rng.choice(files).unlink()

    return Damage(do, f"{pattern} gone")


GDB_DAMAGES = (
    *map(_in_folder, ("cut", "empty", "noise", "header")),
    _lose("*.gdbtable"),
    _lose("*.gdbtablx"),
)
