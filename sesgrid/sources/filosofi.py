"""INSEE Filosofi: incomes of the 200 m cells, releases 2015, 2017, 2019 and 2021.

Column names and their case changed between releases, so they are matched by any of
their names. Income is ``ind_snv / ind``: INSEE publishes the *sum* of winsorised living standards.

References
----------
INSEE, "Données carroyées" (insee.fr 4176290, 6215138, 7655475, 8735162).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import CellIdError, ConfigError, FormatError, SesgridWarning
from sesgrid.grid import CRS
from sesgrid.sources.archive import unpacked
from sesgrid.sources.cell_geometry import cell_squares, corners_of_ids, count_redrawn
from sesgrid.sources.tables import Table, match_columns, read_table, wanted_tables

__all__ = ["VINTAGES", "departement_of", "read_census", "read_filosofi"]

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
        CSV (``,`` or ``;``), GeoPackage, shapefile, parquet or GeoParquet; plain, in a folder, or
        inside ``.zip`` / ``.7z``.
    layer : str, optional
        Layer or file stem. Otherwise the only one with the columns of a 200 m release, if need be
        the only one of those that has the imputation flag, or that is not overseas.
    vintage : str, optional
        Release year, used where neither the columns nor the file name tell it.

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
        missing or negative sum of living standards, a flag other than 0 or 1, a geometry outside
        its id's square.
    CellIdError
        An id of another CRS (overseas) or cell size, off the lattice, or malformed.

    Warns
    -----
    SesgridWarning
        Geometries that differ from their id's square were replaced by it.
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
    if frame.empty:
        raise FormatError(f"{label} has no rows: expected a row per inhabited 200 m cell")
    northing, easting = _corners(frame[names["cell_id"]], label)
    if isinstance(frame, gpd.GeoDataFrame):
        _warn_of_redrawn(frame.geometry, northing, easting, label)
    result = _cells(frame, names, label)
    # INSEE's files inside an archive have no year in their names, the folder made from it has
    known = vintage_of(
        table.columns, (path.name, table.path.name, table.name, path.absolute().parent.name)
    )
    result.attrs = {"vintage": known or str(vintage or "unknown"), "source": path.name}
    return result


def vintage_of(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Release year told by the columns, else by the first name with one; None if neither does.

    2019 and 2021 have the same columns. ``Groupe`` left with 2019, as did capital letters.

    >>> vintage_of(["IdINSPIRE", "Ind"], [])
    '2015'
    >>> vintage_of(["idcar_200m", "ind"], ["carreaux_200m_met.csv", "Filosofi2021.zip"])
    '2021'
    """
    lower = {c.lower() for c in columns}
    if lower & {"idinspire", "i_est_cr"}:
        return "2015"
    if "groupe" in lower or "Idcar_200m" in columns:
        return "2017"
    for name in names:
        found = re.search(r"(?<!\d)(2015|2017|2019|2021)(?!\d)", name)
        if found:
            return found[1]
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
        if any("1km" in c.lower() for c in nearest.columns) and "cell_id" not in found[nearest]
        else ""
    )
    return (
        f"{path.name} is not a Filosofi table of 200 m cells: {nearest} lacks the column "
        f"{' and '.join(missing)} (any case); its columns are "
        f"{', '.join(nearest.columns[:40]) or 'none'}{hint}"
    )


def _corners(ids: pd.Series, label: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        northing, easting = corners_of_ids(ids)
    except CellIdError as error:
        raise CellIdError(f"{label}, column {ids.name!r}, {error}") from None
    twice = ids.duplicated(keep=False)
    if twice.any():
        first = list(dict.fromkeys(ids[twice]))
        raise FormatError(
            f"{label}: {len(first)} cell ids appear more than once (first: "
            f"{', '.join(first[:3])}); expected one row a cell; remove the repeated rows"
        )
    return northing, easting


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


def _cells(frame: pd.DataFrame, names: dict[str, str], label: str) -> pd.DataFrame:
    ids = frame[names["cell_id"]]

    def numbers(key: str) -> np.ndarray:
        return (
            _numbers(frame[names[key]], ids, label) if key in names else np.full(len(ids), np.nan)
        )

    individuals, total = numbers("individuals"), numbers("living_standard_sum")
    households, flags = numbers("households"), numbers("imputed")
    for key, wrong, expected in (
        ("individuals", ~(individuals > 0), "a number of people above 0"),
        ("living_standard_sum", ~(total >= 0), "a sum of euros, not negative"),
        ("households", households < 0, "a number of households, not negative"),
        ("imputed", ~(np.isnan(flags) | (flags == 0) | (flags == 1)), "a flag 0 or 1"),
    ):
        if wrong.any():
            _raise_value(frame[names[key]], wrong, ids, expected, label)
    index = pd.Index(ids.astype(str), name="cell_id")
    columns = {
        "individuals": individuals,
        "households": pd.Series(households, index=index).astype("Float64"),
        "income": total / individuals,
        "imputed": pd.Series(flags, index=index).astype("boolean"),
        "departement": _departements(frame, names).set_axis(index),
    }
    return pd.DataFrame(columns, index=index)


def _departements(frame: pd.DataFrame, names: dict[str, str]) -> pd.Series:
    """The département of each cell's first commune; NA where the file does not tell as text."""
    column = frame[names["commune"]] if "commune" in names else None
    if column is None or pd.api.types.is_numeric_dtype(column):
        # a number has lost the zero of 01, and of several codes run together all but the first digits
        return pd.Series(pd.NA, index=frame.index, dtype="string")
    return departement_of(column)


def departement_of(communes: pd.Series) -> pd.Series:
    """The département of commune codes, of which INSEE runs several together where a cell has several.

    >>> departement_of(pd.Series(["7505675112", "2A004", "97411", "", None])).tolist()
    ['75', '2A', '974', <NA>, <NA>]
    """
    # of each that occurs once only: a nation's millions of texts would be taken apart one by one
    at, distinct = pd.factorize(communes)
    texts = pd.Series(distinct, dtype="string")
    found = texts.str.extract(r"^(97\d|2[AB]|\d\d)\w{2,3}", expand=False).astype("string")
    return pd.Series(found.array.take(at, allow_fill=True), index=communes.index)


def _numbers(column: pd.Series, ids: pd.Series, label: str) -> np.ndarray:
    """A column as float64; NaN where empty, an error where it is no finite number."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = (np.isnan(values) & column.notna().to_numpy()) | np.isinf(values)
    if wrong.any():
        _raise_value(column, wrong, ids, "a number", label)
    return values


def _raise_value(
    column: pd.Series, wrong: np.ndarray, ids: pd.Series, expected: str, label: str
) -> None:
    row = int(np.flatnonzero(wrong)[0])
    raise FormatError(
        f"{label}, column {column.name!r}, row {row + 1} (cell {ids.iloc[row]}): expected "
        f"{expected}, received {column.iloc[row]!r} ({int(wrong.sum())} such rows); correct or "
        "remove these rows"
    )
