"""Families of the census: CSV, Parquet and vector files, plain, in folders and in archives."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import sesgrid
from benchmarks.fuzz.archives import ARCHIVE_DAMAGES, pack
from benchmarks.fuzz.cells import (
    census_difference,
    draw_cells,
    insee_frame,
    squares,
    write_shapefile,
)
from benchmarks.fuzz.damage import ANY_FILE, BLIND, flip
from benchmarks.fuzz.trial import Damage, Family, Trial
from benchmarks.fuzz.vectors import GPKG_DAMAGES, SHP_DAMAGES

__all__ = ["FAMILIES", "write_any_census"]


def _trial(
    path: Path, cells: pd.DataFrame, given: Path | None = None, layer: str | None = None
) -> Trial:
    read = partial(sesgrid.read_filosofi, given or path, layer)
    return Trial(read, census_difference(cells), path)


def _csv_text(rng: Random, frame: pd.DataFrame, separator: str, end: str) -> str:
    text = io.StringIO()
    decimal = "," if separator == ";" and rng.random() < 0.7 else "."
    quoting: Literal[0, 1, 2, 3] = rng.choice(
        [csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL]
    )
    if quoting == csv.QUOTE_NONNUMERIC and decimal == ",":
        quoting = csv.QUOTE_ALL
    frame.to_csv(
        text, index=False, sep=separator, decimal=decimal, quoting=quoting, lineterminator=end
    )
    return text.getvalue()


def _write_csv(rng: Random, folder: Path) -> Trial:
    cells = draw_cells(rng)
    frame = insee_frame(rng, cells)
    separator, end = rng.choice(",;"), rng.choice(["\n", "\n", "\r\n", "\r"])
    if rng.random() < 0.3:
        frame["lib_com"] = [
            rng.choice(["Nîmes", "L'Haÿ", "Saint-Étienne", "Œuilly"[:2]]) for _ in range(len(frame))
        ]
    text = _csv_text(rng, frame, separator, end)
    if rng.random() < 0.2:
        text = text.rstrip("\r\n") + rng.choice(["", end * 2])
    encoding = rng.choice(["utf-8", "utf-8-sig", "cp1252", "utf-8", "utf-16"])
    path = folder / rng.choice(
        ["carreaux_200m_met.csv", "Filosofi2017.CSV", "données é.csv", "a!b c.csv"]
    )
    path.write_bytes(text.encode(encoding, errors="replace"))
    return _trial(path, cells)


def _csv_damage(
    change: Callable[[Random, list[list[str]]], None],
) -> Callable[[Random, Trial], Trial]:
    """Change the rows of a plain CSV: header first."""

    def do(rng: Random, trial: Trial) -> Trial:
        cells = draw_cells(rng, rng.randint(5, 30))
        frame = insee_frame(rng, cells, "2019")
        rows = list(csv.reader(io.StringIO(frame.to_csv(index=False))))
        rows[0] = [name.lower() for name in rows[0]]
        change(rng, rows)
        path = trial.path.parent / "carreaux.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return _trial(path, cells)

    return do


def _value(column: str, *values: str) -> Callable[[Random, list[list[str]]], None]:
    def change(rng: Random, rows: list[list[str]]) -> None:
        rows[rng.randrange(1, len(rows))][rows[0].index(column)] = rng.choice(values)

    return change


def _separators(rng: Random, rows: list[list[str]]) -> None:
    """Thousands set apart, in some rows or all, and other marks for decimals: read rightly or refused."""
    k, mark, point = (
        rows[0].index("ind_snv"),
        rng.choice([" ", ".", "'", "\u202f", ","]),
        rng.choice(".,"),
    )
    mark = " " if mark == point else mark
    some = rng.random() < 0.5
    for row in rows[1:]:
        if not some or rng.random() < 0.5:
            whole, _, rest = f"{float(row[k]):,.1f}".rpartition(".")
            row[k] = whole.replace(",", mark) + point + rest


def _drop_column(rng: Random, rows: list[list[str]]) -> None:
    k = rows[0].index(rng.choice(["idcar_200m", "ind", "ind_snv"]))
    for row in rows:
        del row[k]


def _repeat_row(rng: Random, rows: list[list[str]]) -> None:
    rows.insert(rng.randrange(1, len(rows)), list(rng.choice(rows[1:])))


def _short_row(rng: Random, rows: list[list[str]]) -> None:
    row = rng.choice(rows[1:])
    del row[rng.randrange(1, len(row)) :]


def _long_row(rng: Random, rows: list[list[str]]) -> None:
    rng.choice(rows[1:]).extend(["1", "2"])


def _second_header(rng: Random, rows: list[list[str]]) -> None:
    rows.insert(rng.randrange(2, len(rows)), list(rows[0]))


def _repeat_column(rng: Random, rows: list[list[str]]) -> None:
    k = rows[0].index("ind")
    for n, row in enumerate(rows):
        row.append("ind" if n == 0 else str(float(row[k]) + 1))


def _cut_in_row(rng: Random, trial: Trial) -> None:
    """Cut within a row, so that fields are missing: where a whole row is gone, nobody can tell."""
    content = trial.path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16").encode()
    lines = content.splitlines(keepends=True)
    k = rng.randrange(1, len(lines))
    while not lines[k].strip():
        k -= 1
    marks = [n for n, byte in enumerate(lines[k]) if byte in b",;"]
    at = rng.choice(marks[: max(1, len(marks) // 2)])
    trial.path.write_bytes(b"".join(lines[:k]) + lines[k][:at])


def _binary(rng: Random, trial: Trial) -> None:
    """A hole of zeros, as a broken download leaves it, over several rows."""
    content = bytearray(trial.path.read_bytes())
    a = rng.randrange(len(content) // 2)
    content[a : a + len(content) // 3] = bytes(len(content) // 3)
    trial.path.write_bytes(content)


_IDS = (
    "CRS3035RES200mN2890100E3760000", "CRS2975RES200mN2890000E3760000", "CRS3035RES1000mN2890000E3760000",
    "2890000", "", "CRS3035RES200mN2890000", "CRS3035RES200mN-200E3760000x",
    "CRS3035RES200mN999999999999999999E1", "=CMD()", "CRS3035RES200mN2,89E+06E3760000",
)  # fmt: skip
_CSV_DAMAGES = (
    Damage(_cut_in_row, "cut in a row"),
    Damage(_binary, "hole of zeros"),
    *(d for d in ANY_FILE if d.name in ("empty", "replaced", "noise")),
    Damage(_csv_damage(_value("ind", "0", "-3", "", "abc", "inf", "1e999", "NaN", "12abc")), "people"),
    Damage(_csv_damage(_value("ind_snv", "-1", "", "x", "-inf", "nan", "1.2.3", "1e400")), "incomes"),
    Damage(_csv_damage(_value("men", "-2", "many", "inf", "1_0")), "households"),
    Damage(_csv_damage(_value("i_est_200", "2", "yes", "-1", "0.5")), "imputed"),
    Damage(_csv_damage(_value("idcar_200m", *_IDS)), "id"),
    Damage(_csv_damage(_separators), "separators"),
    Damage(_csv_damage(_drop_column), "column gone"),
    Damage(_csv_damage(_repeat_row), "row twice"),
    Damage(_csv_damage(_short_row), "short row"),
    Damage(_csv_damage(_long_row), "long row"),
    Damage(_csv_damage(_second_header), "second header"),
    Damage(_csv_damage(_repeat_column), "column twice"),
    *BLIND,
)  # fmt: skip


def _write_parquet(rng: Random, folder: Path, name: str = "carreaux_200m_met.parquet") -> Trial:
    cells = draw_cells(rng)
    frame = insee_frame(rng, cells)
    kind = rng.choice(["plain", "plain", "geometry", "geom"])
    path = folder / name
    compression = rng.choice(["snappy", "zstd", "gzip", "none", "brotli"])
    if kind == "plain":
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if rng.random() < 0.3:
            k = next(
                i
                for i, n in enumerate(table.column_names)
                if str(n).lower() in ("idcar_200m", "idinspire")
            )
            text = (
                table.column(k).cast(pa.large_string())
                if rng.random() < 0.5
                else table.column(k).dictionary_encode()
            )
            table = table.set_column(k, table.column_names[k], text)
        pq.write_table(
            table, path, compression=compression, row_group_size=rng.choice([1000, 7]),
            use_dictionary=rng.random() < 0.5, version=rng.choice(["1.0", "2.4", "2.6"]),
        )  # fmt: skip
    else:
        crs = rng.choice([3035, 2154])
        geo = gpd.GeoDataFrame(frame, geometry=squares(cells, crs), crs=crs)
        (geo if kind == "geometry" else geo.rename_geometry(kind)).to_parquet(
            path, compression=None if compression == "none" else compression
        )
    return _trial(path, cells)


def _flip_page(rng: Random, trial: Trial) -> Trial:
    """Pages with checksums, one of which no longer agrees."""
    cells = draw_cells(rng, 50)
    frame = insee_frame(rng, cells, "2019")
    path = trial.path
    pq.write_table(
        pa.Table.from_pandas(frame, preserve_index=False), path, compression=rng.choice(["none", "snappy"]),
        use_dictionary=False, write_statistics=False, write_page_checksum=True,
    )  # fmt: skip
    names = {str(n).lower(): str(n) for n in frame}
    chunk = rng.choice([names["ind"], names["ind_snv"], names["idcar_200m"]])
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = next(
        group.column(k) for k in range(group.num_columns) if group.column(k).path_in_schema == chunk
    )
    # behind the page's own header, which no checksum covers
    start = column.data_page_offset + column.total_compressed_size // 2
    flip(rng, path, start, column.data_page_offset + column.total_compressed_size)
    return _trial(path, cells)


def _odd_types(rng: Random, trial: Trial) -> Trial:
    """Columns of types that hold no such thing: nested, dates, bytes that are no text."""
    cells = draw_cells(rng, 12)
    frame = insee_frame(rng, cells, "2019")
    frame.columns = frame.columns.str.lower()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    n = len(frame)
    name = rng.choice(["ind", "ind_snv", "idcar_200m"])
    odd = rng.choice([
        pa.array([[1.0]] * n), pa.array([{"a": 1}] * n), pa.array([b"\xff\xfe"] * n), pa.nulls(n),
        pa.array(range(n), pa.timestamp("us")), pa.array([True] * n),
    ])  # fmt: skip
    pq.write_table(table.set_column(table.column_names.index(name), name, odd), trial.path)
    return _trial(trial.path, cells)


def _bad_geo(rng: Random, trial: Trial) -> Trial:
    """GeoParquet whose metadata or geometries are no such thing."""
    cells = draw_cells(rng, 12)
    table = pa.Table.from_pandas(insee_frame(rng, cells, "2019"), preserve_index=False)
    table = table.append_column(
        "geometry",
        pa.array([rng.choice([b"xx", b"", b"\x01\x03\0\0\0\xff\xff\xff\xff"])] * len(cells)),
    )
    meta = rng.choice([
        b"{bad", b"{}", b"[]", b"null", b'{"version":"1.0.0","primary_column":"nope","columns":{}}',
        b'{"version":"1.0.0","primary_column":"geometry","columns":{"geometry":{"encoding":"WKB","geometry_types":[]}}}',
        b'{"version":"9.0","primary_column":"geometry","columns":{"geometry":{"encoding":"point","crs":{"a":1}}}}',
        b"\xff\xfe",
    ])  # fmt: skip
    pq.write_table(table.replace_schema_metadata({b"geo": meta}), trial.path)
    return _trial(trial.path, cells)


def _write_vector(rng: Random, folder: Path, suffix: str) -> Trial:
    cells = draw_cells(rng)
    crs = rng.choice([3035, 2154])
    frame = gpd.GeoDataFrame(insee_frame(rng, cells), geometry=squares(cells, crs), crs=crs)
    path = folder / f"carreaux_200m_met{suffix}"
    if suffix == ".shp":
        write_shapefile(frame, path, rng.choice(["utf-8", "ISO-8859-1"]))
    else:
        if rng.random() < 0.3:
            frame.geometry = frame.geometry.force_3d() if rng.random() < 0.5 else frame.normalize()
        frame.to_file(
            path, layer=rng.choice(["carreaux_200m_met", "Cells é", "a b"]), engine="pyogrio"
        )
        if rng.random() < 0.4:
            other = (
                pd.DataFrame({"note": ["x"]})
                if rng.random() < 0.5
                else pd.DataFrame({"idcar_1km": ["a"], "ind": [1.0]})
            )
            gpd.GeoDataFrame(other, geometry=[None], crs=crs).to_file(
                path, layer="other", engine="pyogrio", mode="a"
            )
    return _trial(path, cells)


def write_any_census(rng: Random, folder: Path) -> Trial:
    """A census in one of the formats."""
    kind = rng.choice(["csv", "parquet", ".gpkg", ".shp"])
    if kind == "csv":
        return _write_csv(rng, folder)
    return _write_parquet(rng, folder) if kind == "parquet" else _write_vector(rng, folder, kind)


def _write_archive(rng: Random, folder: Path) -> Trial:
    plain = folder.parent / "tmp" / "plain"
    plain.mkdir(parents=True)
    trial = write_any_census(rng, plain)
    packed = pack(rng, plain, folder)
    act = partial(sesgrid.read_filosofi, packed)
    return replace(trial, act=act, path=packed)


FAMILIES = (
    Family("census-csv", _write_csv, _CSV_DAMAGES, share=4),
    Family(
        "census-parquet", _write_parquet,
        (
            *ANY_FILE, Damage(_flip_page, "flip in a page"), Damage(_odd_types, "types"),
            Damage(_bad_geo, "geo"), *BLIND,
        ),
        share=2,
    ),
    Family("census-gpkg", partial(_write_vector, suffix=".gpkg"), (*GPKG_DAMAGES, *BLIND), share=2),
    Family("census-shp", partial(_write_vector, suffix=".shp"), (*SHP_DAMAGES, *BLIND), share=2),
    Family("census-archive", _write_archive, ARCHIVE_DAMAGES, share=2),
)  # fmt: skip
