"""INSEE Filosofi: incomes of the 200 m cells, releases 2015, 2017, 2019 and 2021.

Column names and their case changed between releases, so they are matched by any of
their names. Income is ``ind_snv / ind``: INSEE publishes the *sum* of winsorised living standards.

References
----------
INSEE, "Données carroyées" (insee.fr 4176290, 6215138, 7655475, 8735162).
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import CellIdError, ConfigError, FormatError, SesgridWarning
from sesgrid.grid import CRS, format_cell_id
from sesgrid.sources.archive import unpacked
from sesgrid.sources.cell_geometry import cell_squares, corners_of_ids, count_redrawn
from sesgrid.sources.cell_values import cell_values
from sesgrid.sources.stray_cells import FAR_M, beyond_europe, far_from_others, widest_gap
from sesgrid.sources.tables import Table, match_columns, read_table, wanted_tables

__all__ = ["VINTAGES", "read_census", "read_filosofi"]

VINTAGES = ("2015", "2017", "2019", "2021", "unknown")
"""What ``.attrs["vintage"]`` may be."""

_SUFFIXES = frozenset({".csv", ".gpkg", ".shp", ".parquet", ".geoparquet"})
_COLUMNS = {
    "cell_id": ("idcar_200m", "idinspire"),
    "individuals": ("ind",),
    "living_standard_sum": ("ind_snv",),
    "households": ("men",),
    "imputed": ("i_est_200", "i_est_cr"),
    "commune": ("lcog_geo", "depcom"),
}
_NEEDED = ("cell_id", "individuals", "living_standard_sum")
_ID_1KM = re.compile(r"id_?car\w*1km", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)(2015|2017|2019|2021)(?!\d)")
_RELEASE = re.compile(r"filosofi[ _-]?(2015|2017|2019|2021)(?!\d)", re.IGNORECASE)
_OVERSEAS = re.compile(r"mart|reun|guad|guya|_97\d", re.IGNORECASE)


def read_filosofi(
    path: str | Path, layer: str | None = None, *, vintage: str | None = None
) -> gpd.GeoDataFrame:
    """Read the cells of a Filosofi release, each with its square; see `read_census`.

    Returns
    -------
    GeoDataFrame
        As `read_census`, EPSG:3035, with the exact square of the id as geometry.
    """
    cells = _read(path, layer, vintage)
    squares = cell_squares(*corners_of_ids(cells.index.to_series()))
    result = gpd.GeoDataFrame(cells, geometry=squares, crs=CRS)
    result.attrs = dict(cells.attrs)
    return result


def read_census(
    path: str | Path, layer: str | None = None, *, vintage: str | None = None
) -> pd.DataFrame:
    """Read the cells of a Filosofi release; a nation's squares would take a gigabyte.

    Parameters
    ----------
    path : str or Path
        CSV (see `sesgrid.sources.csv_table.read_csv`), GeoPackage, shapefile, parquet or GeoParquet; plain,
        in a folder, or inside ``.zip`` / ``.7z`` / ``.gz``.
    layer : str, optional
        Layer or file stem. Otherwise the only one with the columns of a 200 m release, if need be
        the only one of those that has the imputation flag, or that is not overseas.
    vintage : str, optional
        Release year. Otherwise the one that the columns tell, or the name of the file or its folder.

    Returns
    -------
    DataFrame
        Indexed by ``cell_id`` in the file's order, with ``individuals`` (float64), ``households``
        (Float64, may be NA), ``income`` (float64, € a year), ``imputed`` (boolean, may be NA) and
        ``departement`` (string, of the commune with most of the cell; NA where the file tells none).
        ``.attrs``: ``vintage`` (one of `VINTAGES`) and ``source`` (file name).

    Raises
    ------
    MissingInputError
        No such file or layer.
    FormatError
        Not a Filosofi table, several candidate layers, an id twice, people not above zero, a
        missing or negative sum of living standards, a flag other than 0 or 1, a number that is none or
        can be read in two ways, a geometry outside its id's square.
    CellIdError
        An id of another CRS (overseas) or cell size, off the lattice, outside Europe, or malformed.

    Warns
    -----
    SesgridWarning
        Geometries that differ from their id's square were replaced by it; a few cells far from all others
        were left out; the file tells another vintage, or calls a column almost as
        one that is read; incomes, people or commune codes that can hardly be.
    """
    return _read(path, layer, vintage)


def _read(path: str | Path, layer: str | None, vintage: str | None) -> pd.DataFrame:
    path = Path(path)
    if vintage is not None and str(vintage) not in VINTAGES:
        raise ConfigError(f"vintage must be one of {', '.join(VINTAGES)}, received {vintage!r}")
    with unpacked(path, _SUFFIXES) as content:
        table = _choose_table(wanted_tables(content, _SUFFIXES, layer, path), path)
        names = match_columns(table, _COLUMNS)
        frame = read_table(table, list(names.values()), geometry=True)
    label = str(table) if table.path == path else f"{path.name} → {table}"
    _warn_of_near_names(table, names, label)
    if frame.empty:
        raise FormatError(f"{label} has no rows: expected a row per inhabited 200 m cell")
    ids, northing, easting = _places(frame[names["cell_id"]], label)
    if isinstance(frame, gpd.GeoDataFrame):
        _warn_of_redrawn(frame.geometry, northing, easting, label)
    result = cell_values(frame, names, ids, label)
    far = far_from_others(northing, easting)
    if far.any():
        warnings.warn(
            f"{label}: {int(far.sum())} of {len(ids)} cells lie more than {FAR_M // 1000} km away from all "
            f"others and were left out (first: {', '.join(ids[far][:3])}); their ids are wrong, or those "
            "between are missing",
            SesgridWarning,
            stacklevel=3,
        )
        result = result[~far]
    gap = widest_gap(northing[~far], easting[~far])
    if gap > FAR_M:
        warnings.warn(
            f"{label}: its cells lie in parts {gap / 1000:.0f} km apart, of too many cells to be left out; "
            "if they are not of several cities, the ids of one part are wrong",
            SesgridWarning,
            stacklevel=3,
        )
    result.attrs = {"vintage": _vintage(vintage, table, path), "source": path.name}
    return result


def _vintage(given: str | None, table: Table, path: Path) -> str:
    """The year that the user gives, else what `vintage_of` finds; tells where the two differ."""
    # INSEE's files inside an archive have no year in their names, the folder made from it has
    names = (path.name, table.path.name, table.name, path.absolute().parent.name)
    found = vintage_of(table.columns, names)
    if given is None or str(given) == "unknown":
        return found or "unknown"
    if found is not None and str(given) != found:
        warnings.warn(
            f"{path.name}: the vintage {given} was given and is used, but its columns or the names of file "
            f"and folder tell {found}; correct `vintage` if that is right",
            SesgridWarning,
            stacklevel=4,
        )
    return str(given)


def vintage_of(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Release year told by the columns, else by the first name with one alone; None if neither does.

    2019 and 2021 have the same columns. ``Groupe`` left with 2019, as did capital letters.

    >>> vintage_of(["IdINSPIRE", "Ind"], [])
    '2015'
    >>> vintage_of(["idcar_200m", "ind"], ["carreaux_200m_met.csv", "export2021_Filosofi2019.zip"])
    '2019'
    """
    lower = {c.lower() for c in columns}
    if lower & {"idinspire", "i_est_cr"}:
        return "2015"
    if "groupe" in lower or "Idcar_200m" in columns:
        return "2017"
    for name in names:
        years = set(_RELEASE.findall(name) or _YEAR.findall(name))
        if len(years) == 1:
            return years.pop()
    return None


def _choose_table(tables: list[Table], path: Path) -> Table:
    found = {table: match_columns(table, _COLUMNS) for table in tables}
    candidates = [t for t in tables if set(_NEEDED) <= set(found[t])]
    if not candidates:
        raise FormatError(_not_filosofi(tables, found, path))
    for better in (
        lambda t: "imputed" in found[t],
        lambda t: not _OVERSEAS.search(t.name),
    ):
        candidates = [t for t in candidates if better(t)] or candidates
    if len(candidates) > 1:
        raise FormatError(
            f"{path}: {len(candidates)} layers could be the cells: "
            f"{', '.join(repr(t.name) for t in candidates)}; name one with `layer`"
        )
    return candidates[0]


def _not_filosofi(tables: list[Table], found: dict[Table, dict[str, str]], path: Path) -> str:
    nearest = max(tables, key=lambda t: len(found[t]))
    missing = [
        " or ".join(repr(n) for n in _COLUMNS[key]) for key in _NEEDED if key not in found[nearest]
    ]
    hint = (
        "; this is the 1 km release: use the 200 m one"
        if any(map(_ID_1KM.fullmatch, nearest.columns)) and "cell_id" not in found[nearest]
        else ""
    )
    return (
        f"{path.name} is not a Filosofi table of 200 m cells: {nearest} lacks the column "
        f"{' and '.join(missing)} (any case); its columns are "
        f"{', '.join(nearest.columns[:40]) or 'none'}{hint}"
    )


def _warn_of_near_names(table: Table, names: dict[str, str], label: str) -> None:
    """A column that may be left out is missed where another is called almost as it."""
    for column in set(table.columns) - set(names.values()):
        near = [
            known
            for ours in _COLUMNS.keys() - names.keys()
            for known in _COLUMNS[ours]
            if _likeness(column.lower(), known) > (0.8 if len(known) > 3 else 0.65)
        ]
        if near:
            warnings.warn(
                f"{label}: the column {column!r} is not read; call it {near[0]!r} if it is that",
                SesgridWarning,
                stacklevel=4,
            )


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _places(column: pd.Series, label: str) -> tuple[pd.Series, np.ndarray, np.ndarray]:
    """Ids as INSEE writes them, and their corners, once each and in Europe."""
    ids = column.astype("string").str.strip()
    try:
        northing, easting = corners_of_ids(ids)
    except CellIdError as error:
        raise CellIdError(f"{label}, column {column.name!r}, {error}") from None
    outside = beyond_europe(northing, easting)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise CellIdError(
            f"{label}, column {column.name!r}, row {row + 1}: cell {ids.iloc[row]} lies outside the area of "
            f"use of {CRS} ({int(outside.sum())} such rows); correct or remove these rows"
        )
    padded = ids.str.contains(r"[NE](?:-?0\d|-0)", regex=True)
    if padded.any():
        places = zip(northing.tolist(), easting.tolist(), strict=True)
        ids = ids.mask(padded, pd.Series([format_cell_id(*p) for p in places], index=ids.index))
    twice = ids.duplicated(keep=False)
    if twice.any():
        first = list(dict.fromkeys(ids[twice]))
        raise FormatError(
            f"{label}: {len(first)} cell ids appear more than once (first: "
            f"{', '.join(first[:3])}); expected one row a cell; remove the repeated rows"
        )
    return ids, northing, easting


def _warn_of_redrawn(
    source: gpd.GeoSeries, northing: np.ndarray, easting: np.ndarray, label: str
) -> None:
    redrawn = count_redrawn(source, northing, easting, label)
    if redrawn:
        warnings.warn(
            f"{label}: {redrawn} of {len(source)} geometries differ from the square that their id "
            "names (clipped or missing); the squares are used",
            SesgridWarning,
            stacklevel=4,
        )
