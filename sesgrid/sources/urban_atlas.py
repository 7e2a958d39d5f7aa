"""Copernicus Urban Atlas, 2012 to 2021 and later: land-use polygons by code, and the study's class of each.

A file holds several layers (land use, Boundary, UrbanCore); code columns carry
their year. Both are found by pattern, whatever the case.
"""

from __future__ import annotations

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import FormatError
from sesgrid.sources.archive import unpacked
from sesgrid.sources.landcover import landcover_classes
from sesgrid.sources.polygons import clean_polygons, tell_overlaps
from sesgrid.sources.tables import POLYGON_SUFFIXES, Table, read_table, wanted_tables

__all__ = ["read_urban_atlas"]

_LAND_USE = re.compile(
    r"[a-z]{2}\d{3}l\d_.*_ua20\d\d(_revised)?|clms_ua_lcu_s20\d\d_.*?[a-z]{2}\d{3}l\d_.*",
    re.IGNORECASE,
)
"""``FR001L1_PARIS_UA2018``; since 2024 ``CLMS_UA_LCU_S2021_V025ha_FR001L1_PARIS_03035_V01_R00_20241025``."""
_CODE = re.compile(r"code_?(20\d\d)", re.IGNORECASE)


def read_urban_atlas(path: str | Path, layer: str | None = None) -> gpd.GeoDataFrame:
    """Read the land-use polygons of a city.

    Parameters
    ----------
    path : str or Path
        GeoPackage, FlatGeobuf, GeoParquet, shapefile, file geodatabase or GeoJSON; plain, in a folder,
        or in ``.zip`` / ``.7z``.
    layer : str, optional
        Layer or file stem. Otherwise the one named as Urban Atlas names land use
        (``FR001L1_PARIS_UA2018``), else the only one with a code column.

    Returns
    -------
    GeoDataFrame
        In the file's order, EPSG:3035: ``code`` (int64), ``landcover_class`` (string; NA for
        airports and no data), ``value`` (uint8, pixel value of the class, 0 = none) and the
        polygons. Burnt in this order, later polygons win.
        ``.attrs``: ``vintage`` (year in the code column's name, as text), ``layer``, ``source``.

    Raises
    ------
    MissingInputError
        No such file or layer.
    FormatError
        No land-use layer or several, an unknown code, no CRS, no polygons.

    Warns
    -----
    SesgridWarning
        Polygons repaired or left out (invalid, empty, repeated), or overlapping; counted.
    """
    path = Path(path)
    with unpacked(path, POLYGON_SUFFIXES) as content:
        table = _choose_layer(wanted_tables(content, POLYGON_SUFFIXES, layer, path), path)
        column = _code_columns(table)[0]
        frame = read_table(table, [column], geometry=True)
    label = str(table) if table.path == path else f"{path.name} → {table}"
    if not isinstance(frame, gpd.GeoDataFrame) or frame.empty:
        raise FormatError(f"{label} holds no polygon; expected the city's land use")
    classes = landcover_classes()
    codes = _codes(frame[column], classes.index, label)
    land = gpd.GeoDataFrame(
        {
            "code": codes,
            "landcover_class": classes["landcover_class"].reindex(codes).to_numpy(),
            "value": classes["value"].reindex(codes).to_numpy(dtype="uint8"),
        },
        geometry=frame.geometry.to_numpy(),
        crs=frame.crs,
    ).astype({"landcover_class": "string"})
    land = clean_polygons(land, label).reset_index(drop=True)
    tell_overlaps(land, label, "later")
    year = _CODE.fullmatch(column)
    vintage = year[1] if year else "unknown"
    land.attrs = {"vintage": vintage, "layer": table.name, "source": path.name}
    return land


def _code_columns(table: Table) -> list[str]:
    return [c for c in table.columns if _CODE.fullmatch(c)]


def _choose_layer(tables: list[Table], path: Path) -> Table:
    coded = [t for t in tables if _code_columns(t)]
    named = [t for t in coded if _LAND_USE.fullmatch(t.name) or _LAND_USE.fullmatch(t.path.stem)]
    candidates = named or coded
    if len(candidates) != 1:
        names = ", ".join(f"{t.name!r} ({', '.join(t.columns[:12])})" for t in candidates or tables)
        raise FormatError(
            f"{path}: expected one land-use layer of the Urban Atlas, with a column like CODE2012 "
            f"or code_2021, found {len(candidates)}; "
            f"{'candidates' if candidates else 'its layers'}: {names}"
            f"{'; name one with `layer`' if candidates else ''}"
        )
    if len(_code_columns(candidates[0])) > 1:
        raise FormatError(
            f"{path}: {candidates[0]} has several code columns "
            f"({', '.join(_code_columns(candidates[0]))}): it is a layer of changes; expected the "
            "land use of one year"
        )
    return candidates[0]


def _codes(column: pd.Series, known: pd.Index, label: str) -> np.ndarray:
    """Codes as int64; they come as text, sometimes as numbers."""
    codes = pd.to_numeric(column, errors="coerce")
    wrong = ~codes.isin(known)
    if wrong.any():
        counts = column[wrong].astype(object).fillna("missing").value_counts()
        listed = ", ".join(f"{code!r} ({n} polygons)" for code, n in counts.head(5).items())
        raise FormatError(
            f"{label}, column {column.name!r}: {len(counts)} unknown codes: {listed}; expected the "
            f"{len(known)} codes of the Urban Atlas' nomenclature (11100 … 92000)"
        )
    return codes.to_numpy(np.int64)
