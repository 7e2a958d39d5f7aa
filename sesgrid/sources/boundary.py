"""A city's boundary, and which cells it takes in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeVar

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from sesgrid.errors import ConfigError, FormatError, MissingInputError, TooFewCellsError
from sesgrid.foreign import reading
from sesgrid.grid import CRS
from sesgrid.sources.archive import packed_inside, unpacked
from sesgrid.sources.cell_geometry import cell_squares, corners_of_ids
from sesgrid.sources.polygons import clean_polygons
from sesgrid.sources.reproject import to_grid_crs
from sesgrid.sources.tables import POLYGON_SUFFIXES, Table, list_tables, pick_by_name, read_table

__all__ = ["RULES", "read_boundary", "select_cells"]

Rule = Literal["within", "centre", "touching"]
RULES: tuple[Rule, ...] = ("within", "centre", "touching")
"""Which cells make a city: wholly inside, centre inside, or any area inside."""

_BOUNDARY = re.compile(r".*(?<!city)boundary(_v\d+)?", re.IGNORECASE)

_AT_ONCE = 200_000
"""Squares held at once."""


def read_boundary(path: str | Path, layer: str | None = None) -> gpd.GeoDataFrame:
    """Read a city's boundary.

    Parameters
    ----------
    path : str or Path
        An Urban Atlas file (its layer ``…_Boundary``, or the ``…_Boundary.shp`` beside it), or any
        file of polygons; plain, in a folder, or in ``.zip`` / ``.7z``.
    layer : str, optional
        Layer or file stem. Otherwise the only one (land use alone bounds the city too), else the
        one named ``…boundary`` (never ``UrbanCore`` or ``CityBoundary``), else the one named like
        its file.

    Returns
    -------
    GeoDataFrame
        One or more polygons in EPSG:3035, with the file's other columns.

    Raises
    ------
    MissingInputError
        No such file or layer.
    FormatError
        Several layers could be meant, no CRS, or no polygons.

    Warns
    -----
    SesgridWarning
        Polygons repaired or left out, counted.
    """
    path = Path(path)
    with unpacked(path, POLYGON_SUFFIXES) as content:
        tables = [
            t for t in list_tables(_with_neighbour(content), POLYGON_SUFFIXES) if t.has_geometry
        ]
        table = _choose(tables, layer, path)
        frame = read_table(table, table.columns, geometry=True)
    label = str(table) if table.path == path else f"{path.name} → {table}"
    return clean_polygons(gpd.GeoDataFrame(frame), label).reset_index(drop=True)


def _with_neighbour(path: Path) -> Path:
    """The ``…_Boundary.shp`` that old deliveries put beside the land use, if there is one."""
    if path.suffix.lower() != ".shp" or _BOUNDARY.fullmatch(path.stem):
        return path
    wanted = f"{path.stem}_boundary.shp".lower()
    with reading(path.parent):
        return next((p for p in path.parent.iterdir() if p.name.lower() == wanted), path)


def _choose(tables: list[Table], layer: str | None, path: Path) -> Table:
    if layer is not None:
        return pick_by_name(tables, layer, path)
    if not tables:
        raise MissingInputError(
            f"{path} holds no layer of polygons; expected a city's boundary{packed_inside(path)}"
        )
    for rule in (
        lambda t: len(tables) == 1,
        lambda t: _BOUNDARY.fullmatch(t.name),
        lambda t: t.name.lower() == path.name.lower().split(".")[0],
    ):
        hits = [t for t in tables if rule(t)]
        if len(hits) == 1:
            return hits[0]
    raise FormatError(
        f"{path}: which of its layers is the city's boundary? "
        f"{', '.join(repr(t.name) for t in tables)}; name one with `layer`"
    )


Cells = TypeVar("Cells", bound=pd.DataFrame)


def select_cells(
    cells: Cells,
    boundary: BaseGeometry | gpd.GeoDataFrame | gpd.GeoSeries,
    rule: Rule = "within",
) -> Cells:
    """Keep the cells that make a city.

    Parameters
    ----------
    cells : GeoDataFrame or DataFrame
        As `read_filosofi` or `read_census` return them: squares in EPSG:3035, or those of the index' ids.
    boundary : geometry, GeoSeries or GeoDataFrame
        Polygons; a bare geometry is in EPSG:3035, the others are reprojected from their CRS.
    rule : {"within", "centre", "touching"}
        ``within``: no part of the cell lies outside (it may share an edge). ``centre``: the centre
        lies inside or on the line. ``touching``: they share some area; a shared edge is not enough.

    Returns
    -------
    GeoDataFrame or DataFrame
        As `cells`, in its order, with its ``.attrs``.

    Raises
    ------
    ConfigError
        Unknown rule.
    FormatError
        `boundary` has no CRS.
    TooFewCellsError
        No cell is selected.

    Examples
    --------
    >>> cells = gpd.GeoDataFrame(geometry=shapely.box([0, 200, 400], 0, [200, 400, 600], 200),
    ...                          crs="EPSG:3035")
    >>> city = shapely.box(0, 0, 310, 200)
    >>> [len(select_cells(cells, city, rule)) for rule in RULES]
    [1, 2, 2]
    """
    if rule not in RULES:
        raise ConfigError(f"rule must be one of {', '.join(RULES)}, received {rule!r}")
    area = _one_polygon(boundary)
    shapely.prepare(area)
    keep = np.concatenate(
        [_chosen(area, _squares(cells.iloc[a : a + _AT_ONCE]), rule) for a in _parts(len(cells))]
    )
    if not keep.any():
        west, south, east, north = (round(v) for v in area.bounds)
        squares = _squares(cells)
        a, b, c, d = (round(float(v)) for v in shapely.total_bounds(squares))
        raise TooFewCellsError(
            f"no cell is selected of {len(cells)} by the rule {rule!r}: the boundary spans "
            f"E {west}–{east}, N {south}–{north}, the cells E {a}–{c}, N {b}–{d} (EPSG:3035, "
            "metres); check that both are of the same city, or choose another rule"
        )
    selected = cells[keep]
    selected.attrs = dict(cells.attrs)
    return selected


def _parts(n: int) -> range:
    return range(0, max(n, 1), _AT_ONCE)


def _squares(cells: pd.DataFrame) -> np.ndarray:
    if isinstance(cells, gpd.GeoDataFrame):
        return np.asarray(cells.geometry.values, dtype=object)
    return cell_squares(*corners_of_ids(cells.index.to_series()))


def _chosen(area: BaseGeometry, squares: np.ndarray, rule: Rule) -> np.ndarray:
    if rule == "within":
        return shapely.covers(area, squares)
    if rule == "centre":
        return shapely.intersects(area, shapely.centroid(squares))
    return shapely.intersects(area, squares) & ~shapely.touches(area, squares)


def _one_polygon(boundary: BaseGeometry | gpd.GeoDataFrame | gpd.GeoSeries) -> BaseGeometry:
    """The boundary as one geometry in EPSG:3035; long edges are cut before they are transformed."""
    if isinstance(boundary, BaseGeometry):
        return boundary
    geometry = boundary.geometry
    if geometry.crs is None:
        raise FormatError(
            f"the boundary has no CRS: expected one; use .set_crs('EPSG:2154') or {CRS!r}"
        )
    return to_grid_crs(geometry, "the boundary").union_all()
