"""Any land cover of polygons, by a table of its codes: OCS GE, CoSIA, CORINE, a city's own map.

It may be one file or many tiles. What is read does not depend on how polygons are spread over files, nor on
the order of those: where polygons overlap, the smaller one wins.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from sesgrid.errors import FormatError, MissingInputError, SesgridWarning
from sesgrid.foreign import reading
from sesgrid.sources.archive import is_archive, packed_inside, unpacked
from sesgrid.sources.class_lookup import ClassLookup
from sesgrid.sources.class_table import read_class_table
from sesgrid.sources.polygons import clean_polygons, tell_overlaps
from sesgrid.sources.spatial_filter import Bounds
from sesgrid.sources.tables import POLYGON_SUFFIXES, Table, list_tables, read_table

__all__ = ["read_landcover"]

_WITH_YEAR = re.compile(r"code_?(\d{2}|\d{4})", re.IGNORECASE)
_WITHOUT_CODES = re.compile(r"ZONE_CONSTRUITE(_.*)?", re.IGNORECASE)
"""What OCS GE delivers beside its land cover, of another kind."""

_DELIVERY = re.compile(r"(?:^|[_/])D(\d{3}|0?2[AB])[_-](\d{4})(?=[_-])", re.IGNORECASE)


def read_landcover(
    path: str | Path | Sequence[str | Path],
    classes: str | Path | pd.DataFrame,
    layer: str | None = None,
    *,
    within: Bounds | None = None,
) -> gpd.GeoDataFrame:
    """Read the polygons of a land cover, and the class of each.

    Parameters
    ----------
    path : path or list of paths
        Vector files, folders of some (tiles, a delivery), or ``.zip`` / ``.7z`` archives of either. Of each
        file the layer is read that has the table's columns of codes.
    classes : str, Path or DataFrame
        Of `sesgrid.read_class_table`: ``"ocsge"``, ``"cosia"``, a CSV, or the table itself.
    layer : str, optional
        Layer or file stem, where a file has several with codes.
    within : (west, south, east, north), optional
        EPSG:3035, metres: polygons whose bounds do not meet it are left out.

    Returns
    -------
    GeoDataFrame
        EPSG:3035: the columns of codes, ``landcover_class`` (string; NA = none), ``value`` (uint8, pixel
        value of the class, 0 = none) and the polygons, large ones first: burnt in this order, the smaller
        wins where they overlap. ``.attrs``: ``source``, ``layers`` (how many), ``classes``.

    Raises
    ------
    MissingInputError
        No such file or layer, or no polygon within the bounds.
    FormatError
        No layer has the columns of codes, or several of one file have; no CRS; no polygons; all codes are
        unknown; the files are of several years.

    Warns
    -----
    SesgridWarning
        Unknown codes (their land belongs to no class), polygons repaired, left out or overlapping, files
        without codes; counted.
    """
    table = classes if isinstance(classes, pd.DataFrame) else read_class_table(classes)
    lookup = ClassLookup(table)
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    label = ", ".join(p.name for p in paths)
    with ExitStack() as stack:
        contents = [stack.enter_context(unpacked(p, POLYGON_SUFFIXES)) for p in paths]
        tables = [t for content in contents for t in list_tables(content, POLYGON_SUFFIXES)]
        if not tables:
            raise MissingInputError(f"{label}: {_nothing_inside(paths)}")
        layers = _choose(tables, lookup.columns, layer, label)
        files = {t.path for t in layers}
        _require_one_year(
            Path(p.name, f.relative_to(c))
            for p, c in zip(paths, contents, strict=True)
            for f in files
            if f.is_relative_to(c)
        )
        frames = [frame for frame in _read(layers, within) if len(frame)]
    _tell_lacking(layers, table, label)
    land = _one_frame(frames, lookup, within, label) if frames else None
    if land is None or land.empty:
        raise MissingInputError(
            f"{label}: none of its {len(layers)} layers has a polygon{_told(within)}; is it the land "
            "cover of this city?"
        )
    lookup.tell(land[_codes_of(land, lookup)], lookup.of(land), label)
    tell_overlaps(land, label, "smaller")
    land.attrs = {"source": label, "layers": len(layers), "classes": table.attrs.get("source")}
    return land


def _nothing_inside(paths: Sequence[Path]) -> str:
    """What to tell where there is not a single layer."""
    suffixes = ", ".join(sorted(POLYGON_SUFFIXES))
    packed = [p.name for p in paths if is_archive(p)]
    raster = f"; if {packed[0]} holds rasters, unpack it, and give the folder" if packed else ""
    return (
        f"no layer of polygons in a file ending in {suffixes}{raster}"
        f"{''.join(map(packed_inside, paths))}"
    )


def _choose(
    tables: Sequence[Table], columns: Sequence[str], layer: str | None, label: str
) -> dict[Table, dict[str, str]]:
    """The layer of each file that holds the codes, with our name → its name for their columns."""
    named = [t for t in tables if t.has_geometry and layer in (None, t.name)]
    if not named and layer is not None:
        named = [t for t in tables if t.has_geometry and t.name.lower() == layer.lower()]
    if not named:
        there = ", ".join(sorted({repr(t.name) for t in tables})[:12]) or "none"
        raise MissingInputError(
            f"{label}: no layer of polygons{f' called {layer!r}' if layer else ''} in a file ending in "
            f"{', '.join(sorted(POLYGON_SUFFIXES))}; its layers are {there}"
        )
    by_file: dict[Path, list[Table]] = defaultdict(list)
    for t in named:
        by_file[t.path].append(t)
    found = {t: _columns(t, columns) for t in named}
    chosen: dict[Table, dict[str, str]] = {}
    for of_file in by_file.values():
        most = max(len(found[t]) for t in of_file)
        best = [t for t in of_file if most and len(found[t]) == most]
        if len(best) > 1:
            raise FormatError(
                f"{label}: {best[0].path.name} has {len(best)} layers with {', '.join(found[best[0]])}: "
                f"{', '.join(repr(t.name) for t in best[:8])}; name one as the layer"
            )
        chosen |= {t: found[t] for t in best}
    wanted = ", ".join(columns)
    if not chosen:
        raise FormatError(
            f"{label}: expected polygons with the columns of the table of classes, {wanted}; its columns are "
            f"{', '.join(named[0].columns[:12])}"
        )
    used = {t.path for t in chosen}
    without = [f for f in by_file if f not in used and not _WITHOUT_CODES.fullmatch(f.stem)]
    if without:
        text = f"{label}: {len(without)} files have no column {' or '.join(columns)} and are left out, first "
        warnings.warn(text + without[0].name, SesgridWarning, stacklevel=3)
    return dict(sorted(chosen.items(), key=lambda item: (str(item[0].path), item[0].name)))


def _tell_lacking(layers: dict[Table, dict[str, str]], table: pd.DataFrame, label: str) -> None:
    """Tell of classes that no polygon of a layer can be of, for want of a column of codes."""
    codes = table.index.to_frame(index=False).astype("string")
    for column in codes.columns:
        lacking = [t for t, found in layers.items() if column not in found]
        without = codes[column].eq("").to_numpy(dtype=bool)
        lost = sorted(
            set(table["landcover_class"][~without].dropna())
            - set(table["landcover_class"][without])
        )
        if lacking and lost:
            text = (
                f"{label}: {len(lacking)} of {len(layers)} layers have no {column}, first {lacking[0]}: "
                f"no polygon of theirs is of {len(lost)} classes, {', '.join(lost[:3])} among them"
            )
            warnings.warn(text, SesgridWarning, stacklevel=3)


def _columns(table: Table, columns: Sequence[str]) -> dict[str, str]:
    """Our columns of codes → the layer's: by name, whatever the case; "code" also with a year behind it."""
    found = {}
    for ours in columns:
        for matches in (
            lambda c, ours=ours: c.lower() == ours.lower(),
            lambda c, ours=ours: len(ours) > 10 and c.lower() == ours[:10].lower(),
            lambda c, ours=ours: ours == "code" and _WITH_YEAR.fullmatch(c),
        ):
            hits = [c for c in table.columns if matches(c)]
            if len(hits) > 1:
                raise FormatError(
                    f"{table}: the columns {', '.join(hits)} could all be {ours!r}; name the column in the "
                    "table of classes as the layer does"
                )
            if hits:
                found[ours] = hits[0]
                break
    return found


def _require_one_year(files: Iterable[Path]) -> None:
    """Refuse files of one département in several years, which would be laid on each other.

    A file's own name counts before those of its folders: what is delivered in 2025 may show 2022.
    """
    years: dict[str, set[str]] = defaultdict(set)
    for file in files:
        found = _DELIVERY.findall("/".join(file.parts))
        if found:
            departement, year = found[-1]
            years[departement[-3:].lstrip("0").upper()].add(year)
    for departement, of in years.items():
        if len(of) > 1:
            raise FormatError(
                f"the land cover of département {departement} is there of {len(of)} years, "
                f"{', '.join(sorted(of))}: give the one nearest to the census alone"
            )


def _read(layers: dict[Table, dict[str, str]], within: Bounds | None) -> Iterator[gpd.GeoDataFrame]:
    """The polygons of each layer with their codes, as text."""
    for table, columns in layers.items():
        frame = read_table(table, list(columns.values()), geometry=True, within=within)
        if isinstance(frame, gpd.GeoDataFrame):
            if frame.crs is None:
                raise FormatError(
                    f"{table} tells no CRS: assign it (ogr2ogr -a_srs), or bring the missing .prj"
                )
            with reading(table, advice="expected codes that are text or whole numbers"):
                codes = {ours: _as_text(frame[theirs]) for ours, theirs in columns.items()}
            yield gpd.GeoDataFrame(codes, geometry=frame.geometry.to_numpy(), crs=frame.crs)


def _as_text(column: pd.Series) -> pd.Series:
    """Codes as text; whole numbers among missing ones come as floats."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("string")


def _one_frame(
    frames: Sequence[gpd.GeoDataFrame], lookup: ClassLookup, within: Bounds | None, label: str
) -> gpd.GeoDataFrame:
    """All polygons, clean, with their classes, in an order that files and tiles have no part in."""
    by_crs: dict[str, list[gpd.GeoDataFrame]] = defaultdict(list)
    for frame in frames:
        by_crs[frame.crs.to_wkt()].append(frame)
    parts = []
    for _, some in sorted(by_crs.items()):
        part = gpd.GeoDataFrame(pd.concat(some, ignore_index=True), crs=some[0].crs)
        found = lookup.of(part)
        part = part.assign(landcover_class=pd.array(found.name, dtype="string"), value=found.value)
        told = pd.DataFrame({"value": found.value, "wkb": part.geometry.to_wkb()})
        # of equal polygons the last stays
        part = part.loc[told.sort_values(["value", "wkb"]).index]
        parts.append(clean_polygons(part, label, stacklevel=5))
    land = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=parts[0].crs)
    polygons = np.asarray(land.geometry.values, dtype=object)
    # stable: those as large stay as they were sorted
    order = np.lexsort((land["value"].to_numpy(), -shapely.area(polygons)))
    if within is not None:
        west, south, east, north = within
        x0, y0, x1, y1 = shapely.bounds(polygons[order]).T
        order = order[(x1 >= west) & (x0 <= east) & (y1 >= south) & (y0 <= north)]
    land = land.iloc[order].reset_index(drop=True)
    return land[[*_codes_of(land, lookup), "landcover_class", "value", "geometry"]]


def _codes_of(land: gpd.GeoDataFrame, lookup: ClassLookup) -> list[str]:
    return [c for c in lookup.columns if c in land]


def _told(within: Bounds | None) -> str:
    if within is None:
        return ""
    west, south, east, north = map(round, within)
    return f" within E {west}–{east}, N {south}–{north} (EPSG:3035)"
