"""Geometries that GEOS refuses and GIS programs read: arcs, surfaces, open rings; and what is none."""

from __future__ import annotations

import contextlib
import math
import random
import sqlite3
import struct
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import FormatError, SesgridWarning
from sesgrid.sources import read_boundary, read_filosofi, read_urban_atlas
from sesgrid.sources.arcs import chords
from sesgrid.sources.wkb import geometries_of_wkb

X, Y = 3760000.0, 2890000.0
SQUARE = [(X, Y), (X + 200, Y), (X + 200, Y + 200), (X, Y + 200), (X, Y)]
HOLE = [(X + 9, Y + 9), (X + 20, Y + 9), (X + 20, Y + 20), (X + 9, Y + 9)]
WIDE = [(X - 9, Y - 9), (X + 209, Y - 9), (X + 209, Y + 209), (X - 9, Y + 209), (X - 9, Y - 9)]
RIM = [(X, Y + 100), (X + 100, Y + 200), (X + 200, Y + 100), (X + 100, Y), (X, Y + 100)]


def string(kind: int, points: list[tuple[float, float]]) -> bytes:
    return struct.pack("<BI", 1, kind) + ring(points)


def ring(points: list[tuple[float, float]]) -> bytes:
    return struct.pack("<I", len(points)) + b"".join(struct.pack("<dd", *p) for p in points)


def many(kind: int, *parts: bytes) -> bytes:
    return struct.pack("<BII", 1, kind, len(parts)) + b"".join(parts)


def polygon(*rings: list[tuple[float, float]]) -> bytes:
    return many(3, *map(ring, rings))


def with_blobs(path: Path, *blobs: bytes) -> Path:
    """Put WKB into the first rows of a GeoPackage, as other programs write it."""
    database = sqlite3.connect(path)
    for (name,) in database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall():
        database.execute(f'DROP TRIGGER "{name}"')
    (table, column), = database.execute(
        "SELECT table_name, column_name FROM gpkg_geometry_columns"
    ).fetchall()  # fmt: skip
    for row, wkb in enumerate(blobs, start=1):
        blob = b"GP\0\1" + struct.pack("<i", 3035) + wkb
        database.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE fid = ?', (blob, row))
    database.commit()
    database.close()
    return path


def atlas(folder: Path, *blobs: bytes) -> Path:
    path = folder / "a.gpkg"
    boxes = [shapely.box(X + 500 * k, Y, X + 500 * k + 9, Y + 9) for k in range(len(blobs) + 1)]
    gpd.GeoDataFrame(
        {"code_2018": "11100"}, index=range(len(boxes)), geometry=boxes, crs=3035
    ).to_file(path)
    return with_blobs(path, *blobs)


CIRCLE = string(8, RIM)
ARCS = {
    "a circle": many(10, CIRCLE),
    "a circle of two points": many(10, string(8, [RIM[0], RIM[2], RIM[0]])),
    "half a circle and its chord": many(
        10, many(9, string(8, RIM[:3]), string(2, [RIM[2], RIM[0]]))
    ),
    "a square with a round hole": many(10, string(2, WIDE), CIRCLE),
    "surfaces": many(12, many(10, CIRCLE), polygon([(x + 900, y) for x, y in SQUARE])),
}


@pytest.mark.parametrize("name", ARCS)
def test_arcs_are_as_gdal_draws_them(tmp_path: Path, name: str) -> None:
    path = atlas(tmp_path, ARCS[name])
    (gdals, _) = pyogrio.raw.read(path)[2]
    for read in (read_urban_atlas, read_boundary):
        with pytest.warns(SesgridWarning, match="1 of 2 geometries have arcs") as caught:
            land = read(path)
        assert len(caught) == 1
        assert len(land) == 2
        # GDAL's chords are of 4°, so a little shorter
        drawn = land.geometry[0]
        assert drawn.symmetric_difference(shapely.from_wkb(gdals)).area < 1e-3 * math.pi * 1e4
        assert drawn.is_valid
    whole = {"a circle": math.pi * 1e4, "half a circle and its chord": math.pi * 5e3}
    assert drawn.area == pytest.approx(whole.get(name, drawn.area), rel=1e-4)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0, 6.28), st.floats(0.02, 6.2), st.floats(0.1, 0.9), st.booleans(), st.floats(1, 1e5)
)
def test_an_arc_lies_on_its_circle(start, turn, share, clockwise, radius) -> None:
    angles = start + (-1 if clockwise else 1) * turn * np.array([0, share, 1])
    given_points = np.stack([X + radius * np.cos(angles), Y + radius * np.sin(angles)], axis=1)
    drawn = chords(given_points)
    assert np.allclose(np.hypot(drawn[:, 0] - X, drawn[:, 1] - Y), radius, rtol=1e-4, atol=1e-4)
    length = np.hypot(*np.diff(drawn, axis=0).T)
    assert length.sum() == pytest.approx(radius * turn, rel=1e-3)
    assert length.max() <= radius * math.radians(1.001) + 1e-4
    assert all((drawn == p).all(axis=1).any() for p in given_points)


def test_points_in_a_line_are_a_line() -> None:
    line = np.array([[0.0, 0], [1, 1], [2, 2]])
    assert chords(line).tolist() == line.tolist()
    for points in (line[:2], np.zeros((4, 2)), np.array([[0, 0], [np.nan, 1], [1, 1]])):
        with pytest.raises(ValueError, match="odd number"):
            chords(points)


@pytest.mark.parametrize("depth", [1, 2])
def test_arcs_inside_a_collection(depth: int) -> None:
    blob = many(10, string(8, RIM))
    for _ in range(depth):
        blob = many(7, blob)
    with pytest.warns(SesgridWarning, match="1 of 2 geometries have arcs"):
        found = geometries_of_wkb([blob, polygon(SQUARE)], "a.parquet")
    assert shapely.area(found).tolist() == pytest.approx([math.pi * 100**2, 40000], rel=1e-4)


REPAIRED = {
    "ring": (polygon(SQUARE[:-1]), 40000, "rings that were not closed"),
    "hole": (polygon(SQUARE, HOLE[:-1]), 40000 - 60.5, "rings that were not closed"),
    "part": (many(6, polygon(SQUARE), polygon(HOLE[:-1])), 40000, "rings that were not closed"),
    "hole of one point": (polygon(SQUARE, HOLE[:1]), 40000, "fewer than three points"),
    "polyhedral surface": (many(15, polygon(SQUARE)), 40000, "surfaces of faces"),
    "triangles": (
        many(16, many(17, ring([*SQUARE[:3], SQUARE[0]])), many(17, ring([*SQUARE[2:], SQUARE[2]]))),
        40000,
        "surfaces of faces",
    ),
    "collection": (many(7, polygon(SQUARE), string(2, SQUARE)), 40000, "collections, of which"),
    "collection in a collection": (many(7, many(7, polygon(SQUARE))), 40000, "collections, of which"),
}  # fmt: skip


@pytest.mark.parametrize("name", REPAIRED)
def test_what_can_be_repaired_is_and_is_counted(tmp_path: Path, name: str) -> None:
    blob, area, told = REPAIRED[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        land = read_boundary(atlas(tmp_path, blob))
    assert land.geometry.area.tolist() == pytest.approx([area, 81])
    texts = [str(w.message) for w in caught]
    assert any(told in text and "1 of 2" in text for text in texts), texts
    assert all(w.category is SesgridWarning for w in caught)


@pytest.mark.parametrize("dims", ["Z", "M", "ZM", "EWKB Z", "big-endian"])
def test_heights_and_measures_make_no_difference(tmp_path: Path, dims: str) -> None:
    square = shapely.Polygon(SQUARE)
    tall = shapely.force_3d(square, 7.0)
    blob = {
        "Z": lambda: shapely.to_wkb(tall, flavor="iso", output_dimension=3),
        "EWKB Z": lambda: shapely.to_wkb(tall, flavor="extended", output_dimension=3),
        "big-endian": lambda: shapely.to_wkb(square, byte_order=0),
        "M": lambda: struct.pack("<BII", 1, 2003, 1) + measured(3),
        "ZM": lambda: struct.pack("<BII", 1, 3003, 1) + measured(4),
    }[dims]()
    land = read_urban_atlas(atlas(tmp_path, blob))
    assert land.geometry[0].equals(square)
    assert not land.geometry[0].has_z


def measured(dims: int) -> bytes:
    rest = (5.0,) * (dims - 2)
    points = b"".join(struct.pack(f"<{dims}d", *p, *rest) for p in SQUARE)
    return struct.pack("<I", len(SQUARE)) + points


DAMAGED = {
    "bytes are missing": polygon(SQUARE)[:-9],
    "no kind": struct.pack("<BI", 1, 99) + bytes(40),
    "no byte order": b"\x07" + bytes(40),
    "nothing after the header": b"\x01",
    "more rings than bytes": struct.pack("<BII", 1, 3, 2**31),
    "an arc of two points": many(10, string(8, RIM[:2])),
    "not a number": polygon([(math.nan, Y), *SQUARE[1:-1], (math.nan, Y)]),
    "infinite": polygon([(math.inf, Y), *SQUARE[1:-1], (math.inf, Y)]),
    "a tower of collections": struct.pack("<BII", 1, 7, 1) * 5000,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_geometry_is_refused_with_its_row(tmp_path: Path, name: str) -> None:
    path = atlas(tmp_path, polygon(SQUARE), DAMAGED[name])
    for read in (read_urban_atlas, read_boundary):
        with pytest.raises(FormatError, match=r"a\.gpkg: 1 of 3 geometries .*row 2") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_census_with_odd_geometries_is_read(tmp_path: Path) -> None:
    ids = ["CRS3035RES200mN2890000E3760000", "CRS3035RES200mN2890000E3760200"]
    boxes = [shapely.box(X, Y, X + 200, Y + 200), shapely.box(X + 200, Y, X + 400, Y + 200)]
    table = {"idcar_200m": ids, "ind": [10.5, 20], "ind_snv": [210000.5, 5e5], "i_est_200": [0, 1]}
    gpd.GeoDataFrame(table, geometry=boxes, crs=3035).to_file(tmp_path / "c.gpkg")
    with pytest.warns(SesgridWarning, match="not closed"):
        cells = read_filosofi(with_blobs(tmp_path / "c.gpkg", polygon(SQUARE[:-1])))
    assert cells.index.tolist() == ids
    with pytest.warns(SesgridWarning, match="arcs|differ from the square"):
        cells = read_filosofi(with_blobs(tmp_path / "c.gpkg", many(10, CIRCLE)))
    assert cells.geometry.area.tolist() == [40000, 40000]


def test_damaged_bytes_raise_nothing_else() -> None:
    """Bytes changed by seed: a geometry, or one error; and GEOS' own where it reads them too."""
    good = [polygon(SQUARE, HOLE), *ARCS.values(), REPAIRED["triangles"][0]]
    for seed in range(400):
        chance = random.Random(seed)
        blob = bytearray(good[seed % len(good)])
        for _ in range(chance.randrange(1, 4)):
            blob[chance.randrange(len(blob))] ^= 1 << chance.randrange(8)
        blob = bytes(blob[: chance.choice([len(blob), chance.randrange(len(blob))])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SesgridWarning)
            try:
                (found,) = geometries_of_wkb([blob], "a.gpkg")
            except FormatError:
                continue
        peer = None
        with contextlib.suppress(NotImplementedError), np.errstate(all="ignore"):
            (peer,) = shapely.from_wkb([blob], on_invalid="ignore")
        if peer is not None and np.isfinite(shapely.get_coordinates(peer)).all():
            assert shapely.equals_exact(found, peer)
