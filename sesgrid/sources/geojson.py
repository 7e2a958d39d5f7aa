"""Tables in GeoJSON. Not by GDAL: JSON has no first bytes, so that GDAL would try a dozen kinds of JSON file,
some of which name other files or servers.

References
----------
RFC 7946; its forerunner of 2008 (geojson.org/geojson-spec) for the member ``crs``.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry import shape

from sesgrid.errors import FormatError, SesgridWarning, UnsafePathError
from sesgrid.foreign import DAMAGED, reading
from sesgrid.sources.table import Table
from sesgrid.sources.wkb import listed_rows, refuse_infinite

__all__ = ["list_geojson", "read_geojson"]

_GEOMETRIES = frozenset(
    {
        "Point",
        "LineString",
        "Polygon",
        "MultiPoint",
        "MultiLineString",
        "MultiPolygon",
        "GeometryCollection",
    }
)
_DEGREES = "OGC:CRS84"
_CRS_NAME = re.compile(
    r"(?:urn:(?:ogc|x-ogc):def:crs:)?([A-Za-z]+):(?:[\d.]*:)?(\w+)"
    r"|https?://www\.opengis\.net/def/crs/([A-Za-z]+)/[\d.]+/(\w+)"
)
"""As GDAL and QGIS write it, or the address that OGC gave to it, at which nobody asks."""


def list_geojson(path: Path) -> list[Table]:
    """The one table of a GeoJSON file.

    Raises
    ------
    FormatError
        It is no GeoJSON.
    """
    content = _content(path)
    names = dict.fromkeys(name for f in _features(content, path.name) for name in _properties(f))
    layer = content.get("name")
    return [Table(path, layer if isinstance(layer, str) and layer else None, tuple(names), True)]


def read_geojson(table: Table, columns: Sequence[str], *, geometry: bool) -> pd.DataFrame:
    """Some properties; a GeoDataFrame when `geometry` is asked for.

    Raises
    ------
    FormatError
        A geometry is damaged, or the CRS is not known.
    UnsafePathError
        The CRS is a link.

    Warns
    -----
    SesgridWarning
        Geometries are not as GeoJSON asks, and were mended; counted.
    """
    label = str(table)
    content = _content(table.path)
    features = _features(content, label)
    rows = [_properties(f) for f in features]
    with reading(label):
        frame = pd.DataFrame({c: [_plain(row.get(c)) for row in rows] for c in columns})
    if not geometry:
        return frame
    with reading(f"{label}, its CRS"):
        crs = _crs(content, label)
    found = _geometries([f.get("geometry") for f in features], label)
    return gpd.GeoDataFrame(frame, geometry=gpd.GeoSeries(found, crs=crs))


def _content(path: Path) -> dict:
    with reading(path.name):
        content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or content.get("type") not in {
        "FeatureCollection", "Feature", *_GEOMETRIES,
    }:  # fmt: skip
        kind = content.get("type") if isinstance(content, dict) else type(content).__name__
        raise FormatError(
            f"{path.name}: expected GeoJSON (a FeatureCollection, a Feature or a geometry), received "
            f"{kind!r}; convert it (ogr2ogr)"
        )
    return content


def _features(content: dict, label: str) -> list[dict]:
    if content["type"] in _GEOMETRIES:
        return [{"type": "Feature", "geometry": content, "properties": None}]
    features = content.get("features") if content["type"] == "FeatureCollection" else [content]
    if not isinstance(features, list):
        kind = type(features).__name__
        raise FormatError(f"{label}: expected a list of features, received {kind}; {DAMAGED}")
    for row, feature in enumerate(features):
        properties = feature.get("properties") if isinstance(feature, dict) else "none"
        if not isinstance(properties, dict | None) or "geometry" not in feature:
            raise FormatError(
                f"{label}, row {row + 1}: expected a Feature with a geometry and properties; {DAMAGED}"
            )
    return features


def _properties(feature: dict) -> dict[str, Any]:
    return feature.get("properties") or {}


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, str) and not value.isascii():  # halves of characters, which JSON can write
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def _geometries(described: list[dict | None], label: str) -> np.ndarray:
    texts = np.array([None if g is None else json.dumps(g) for g in described], dtype=object)
    with np.errstate(all="ignore"):  # of coordinates that are no numbers
        found = shapely.from_geojson(texts, on_invalid="ignore")
    odd = [int(r) for r in np.flatnonzero(shapely.is_missing(found)) if texts[r] is not None]
    damaged = []
    for row in odd:
        try:  # shapely's own reader closes rings
            found[row] = shape(_in_two(described[row]))
        except Exception:  # of whatever stands where numbers should
            damaged.append(row)
    if damaged:
        raise FormatError(
            f"{label}: {len(damaged)} of {len(texts)} geometries are damaged or no GeoJSON "
            f"({listed_rows(damaged)}); correct or remove these rows"
        )
    refuse_infinite(found, label)
    if odd:
        warnings.warn(
            f"{label}: {len(odd)} of {len(texts)} geometries are not as GeoJSON asks (rings that are not "
            "closed, positions that are not of two or three numbers) and are mended",
            SesgridWarning,
            stacklevel=5,
        )
    return found


def _in_two(described: Any) -> Any:
    """A geometry's description without what follows x and y, of which more than z has no meaning."""
    if isinstance(described, dict):
        return {key: _in_two(value) for key, value in described.items()}
    if not isinstance(described, list):
        return described
    position = bool(described) and not isinstance(described[0], list | dict)
    return described[:2] if position else [_in_two(one) for one in described]


def _crs(content: dict, label: str) -> str | None:
    """Degrees, unless the file is of before 2016 and names another; None where it says that it is unknown."""
    if "crs" not in content:
        return _DEGREES
    crs = content["crs"]
    if crs is None:
        return None
    kind, told = (crs.get("type"), crs.get("properties")) if isinstance(crs, dict) else (None, None)
    if isinstance(kind, str) and kind.lower() in ("link", "url"):
        raise UnsafePathError(
            f"{label}: its CRS is a link to another file, which is not followed; name it (EPSG:3035) instead"
        )
    if isinstance(told, dict):
        if kind == "EPSG":
            return f"EPSG:{int(told['code'])}"
        name = _CRS_NAME.fullmatch(str(told.get("name", "")))
        if kind == "name" and name:
            authority, code = (name[1], name[2]) if name[1] else (name[3], name[4])
            return f"{authority.upper()}:{code}"
    raise FormatError(f"{label}: expected a CRS by name, like EPSG:3035, received {crs!r}")
