"""The geometry of a Parquet table: which column it is, how it is written, in which CRS.

References
----------
GeoParquet 1.1.0 (geoparquet.org/releases/v1.1.0); Parquet's own type GEOMETRY, as Arrow tells it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pyarrow as pa
from pyproj import CRS

from sesgrid.errors import FormatError
from sesgrid.foreign import DAMAGED, reading
from sesgrid.sources.wkb import geometries_of_wkb

__all__ = ["GeoColumn", "geo_column", "geometry_columns", "series_of"]

_NATIVE = frozenset(
    {"point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"}
)
_DEGREES = "OGC:CRS84"
_SRID = re.compile(r"(srid:)?(\d+)", re.ASCII)
_WKT = re.compile(r"\s*[a-z]+(?:crs|cs)\[.*\]\s*", re.ASCII | re.IGNORECASE | re.DOTALL)
_EXTENSION = b"ARROW:extension:name"


@dataclass(frozen=True)
class GeoColumn:
    """A column of geometries."""

    name: str
    encoding: str
    """``wkb``, or one of the kinds that Arrow lays out as lists of coordinates."""

    crs: str | None
    """As JSON or text; None where the file says that it is unknown."""


def geometry_columns(schema: pa.Schema, label: str) -> frozenset[str]:
    """Names of all columns of geometries.

    Raises
    ------
    FormatError
        The metadata are damaged.
    """
    declared = set(_declared(schema, label).get("columns", {}))
    return frozenset(n for n in schema.names if n in declared or _is_wkb_type(schema.field(n)))


def geo_column(schema: pa.Schema, label: str) -> GeoColumn:
    """The column that is a row's geometry, of those there may be.

    Raises
    ------
    FormatError
        None is named, it is not there, or it is written in a way that is not known.
    """
    geo = _declared(schema, label)
    if not geo:
        return _of_type(schema, label)
    name = geo.get("primary_column")
    told = geo.get("columns", {}).get(name) if isinstance(name, str) else None
    if not isinstance(told, dict) or name not in schema.names:
        raise FormatError(
            f"{label}: its GeoParquet metadata name {name!r} as the geometry; expected one of the columns "
            f"{', '.join(schema.names[:20])}; write the file again"
        )
    encoding = str(told.get("encoding", "")).lower()
    if encoding != "wkb" and encoding not in _NATIVE:
        raise FormatError(
            f"{label}, column {name!r}: expected geometries written as WKB or {', '.join(sorted(_NATIVE))}, "
            f"received {told.get('encoding')!r}; write the file again"
        )
    crs = told.get("crs", _DEGREES)
    return GeoColumn(str(name), encoding, None if crs is None else json.dumps(crs))


def series_of(table: pa.Table, column: GeoColumn, label: str) -> gpd.GeoSeries:
    """The geometries of a table, with their CRS.

    Raises
    ------
    FormatError
        The column holds no geometries, or a CRS that is not known.
    """
    values, kind = table[column.name], table.schema.field(column.name).type
    with reading(f"{label}, its CRS", advice="write the file again"):
        crs = None if column.crs is None else CRS.from_user_input(_crs_of(column.crs))
    if column.encoding == "wkb":
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_view(kind)):
            raise FormatError(
                f"{label}, column {column.name!r}: expected WKB, received {kind}; {DAMAGED}"
            )
        return gpd.GeoSeries(geometries_of_wkb(values.to_pylist(), label), crs=crs)
    field = pa.field(
        column.name, kind, metadata={_EXTENSION: b"geoarrow." + column.encoding.encode()}
    )
    with reading(f"{label}, column {column.name!r}"):
        one = pa.Table.from_arrays([values], schema=pa.schema([field]))
        found = gpd.GeoDataFrame.from_arrow(one).geometry
    return gpd.GeoSeries(np.asarray(found.values, dtype=object), crs=crs)


def _declared(schema: pa.Schema, label: str) -> dict:
    text = (schema.metadata or {}).get(b"geo")
    if text is None:
        return {}
    with reading(f"{label}, its GeoParquet metadata"):
        geo = json.loads(text)
    if not isinstance(geo, dict) or not isinstance(geo.get("columns"), dict):
        raise FormatError(
            f"{label}: its GeoParquet metadata name no columns; expected 'columns' and "
            f"'primary_column'; {DAMAGED}"
        )
    return geo


def _is_wkb_type(field: pa.Field) -> bool:
    return (field.metadata or {}).get(_EXTENSION) == b"geoarrow.wkb"


def _of_type(schema: pa.Schema, label: str) -> GeoColumn:
    """The first of Parquet's own type."""
    field = next((f for f in schema if _is_wkb_type(f)), None)
    if field is None:  # one of several parts
        raise FormatError(f"{label} lacks the geometry of the other parts; expected one table")
    told = json.loads((field.metadata or {}).get(b"ARROW:extension:metadata") or b"{}")
    crs = told.get("crs") or _DEGREES
    numbered = _SRID.fullmatch(str(crs))
    if numbered and (numbered[1] or told.get("crs_type") == "srid"):
        # the specification leaves open whose number it is; whoever writes it means EPSG's, and 0 for none
        crs = f"EPSG:{int(numbered[2])}" if int(numbered[2]) else None
    return GeoColumn(field.name, "wkb", None if crs is None else json.dumps(crs))


def _crs_of(text: str) -> object:
    """Names of authorities, PROJ JSON and, of GeoParquet before 1.0, WKT: no other text, which might name a
    file."""
    crs = json.loads(text)
    if isinstance(crs, dict) or (
        isinstance(crs, str) and ":" in crs and "+" not in crs and "/" not in crs
    ):
        return crs
    if isinstance(crs, str) and _WKT.fullmatch(crs):
        return crs
    raise ValueError(f"expected the name of a CRS like EPSG:3035, or PROJ JSON, received {crs!r}")


def _is_view(kind: pa.DataType) -> bool:
    return str(kind) == "binary_view"
