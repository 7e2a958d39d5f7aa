"""Every source is opened before anything is made of any: what it holds, how much, and whether it lies here.

What a stage would find after hours of another is found at once, and all that is wrong is told together.
Nothing is written, and no pixel is read: of rasters the headers, of tables the rows that the run uses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import FormatError, MissingInputError, SesgridError, SesgridWarning
from sesgrid.foreign import reading
from sesgrid.grid import CELL_M, Grid, rowcol_of_ids
from sesgrid.run.choose import choose_of
from sesgrid.run.config import Config
from sesgrid.run.imagery import imagery_of
from sesgrid.run.inside import inside
from sesgrid.run.job import class_table, land_polygons, method_of, protocol_of
from sesgrid.run.settings import TlsSettings
from sesgrid.run.trained import trained_cities
from sesgrid.sources import (
    ClassReader,
    holds_rasters,
    read_boundary,
    read_census,
    read_class_rasters,
)

__all__ = ["check_sources"]


def check_sources(config: Config, tell: Callable[[str], None], note: Callable[[str], None]) -> None:
    """Open all sources of a run, and tell a line of each.

    Parameters
    ----------
    config : Config
    tell : callable
        Receives the lines.
    note : callable
        Receives what was repaired or left out.

    Raises
    ------
    SesgridError
        The last fault of a source; those before it are in its ``others``.
    """
    looked = _Looked(config)
    faults: list[SesgridError] = []
    for what, look in looked.each():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SesgridWarning)
            try:
                tell(f"{what}: {look()}")
            except SesgridError as error:
                # what the boundary is taken from is told once
                if str(error) not in map(str, faults):
                    faults.append(error)
        notes = [str(w.message) for w in caught if issubclass(w.category, SesgridWarning)]
        for told in dict.fromkeys(notes):
            note(told)
    if faults:
        faults[-1].others = tuple(map(str, faults[:-1]))
        raise faults[-1]


class _Looked:
    """What was seen of a run's sources; each ``look_at_…`` tells of one."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.census: pd.DataFrame | None = None
        self.cells: pd.DataFrame | None = None

    def each(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """The looks in order, under the names of the TOML."""
        s = self.config.sources
        yield "settings", self.look_at_settings
        weights = protocol_of(self.config).weights
        if weights not in (None, "imagenet"):
            yield (
                f"weights, {Path(str(weights)).name}",
                partial(_look_at_weights, Path(str(weights))),
            )
        if self.config.cluster.tls is not None:
            yield "cluster.tls", partial(_look_at_tls, self.config.cluster.tls)
        yield f"census, {s.census.name}", self.look_at_census
        if self.census is not None:
            yield "boundary", self.look_at_boundary
        for path in s.cities:
            yield f"cities, {path.name}", partial(_look_at_city, path)
        yield f"ortho, {', '.join(p.name for p in s.ortho[:3])}", self.look_at_ortho
        if s.landcover is not None:
            yield f"landcover, {s.landcover.name}", self.look_at_landcover
        if self.config.models is not None:
            yield "models", self.look_at_models

    def look_at_settings(self) -> str:
        if self.config.train.backbone is not None:
            # knowing them takes Keras, which a run of the protocol's own need not load here
            from sesgrid.kernels.backbones import backbone_named

            backbone_named(self.config.train.backbone)
        return f"{protocol_of(self.config).name}; {method_of(self.config).name}"

    def look_at_census(self) -> str:
        s = self.config.sources
        self.census = read_census(s.census, s.census_layer, vintage=s.vintage).sort_index()
        self.cells = _placed(self.census)  # until a boundary chooses among them
        return (
            f"{len(self.census)} cells of {self.census.attrs['vintage']}, "
            f"{_place(*_bounds(self.cells))}"
        )

    def look_at_boundary(self) -> str:
        assert self.census is not None  # what `each` asks for
        chosen, origin = choose_of(self.config, self.census)
        self.cells = _placed(chosen)
        return f"{origin}: {len(chosen)} of the cells, {_place(*_bounds(self.cells))}"

    def look_at_ortho(self) -> str:
        tiles = imagery_of(self.config)
        years = sorted(tiles["year"].dropna().unique().astype(int).tolist())
        sizes = ", ".join(f"{m:g}" for m in sorted(tiles["resolution_m"].unique())[:5])
        return (
            f"{len(tiles)} tiles in {', '.join(sorted(tiles['crs'].unique())[:3])}, pixels of {sizes} m, of "
            f"{', '.join(map(str, years)) or 'no year told'}; {self._shown(tiles, 'sources.ortho')}"
        )

    def look_at_landcover(self) -> str:
        config, source = self.config, self.config.sources.landcover
        table = class_table(config)
        classes = "" if table is None else f" in {table['landcover_class'].nunique()} classes"
        if table is not None and source is not None and holds_rasters(source):
            ClassReader.of(table)
        if self.cells is None:
            return f"not looked at, as there are no cells{classes}"
        grid = Grid(config.grid.pixels_per_cell, config.grid.cells_per_block)
        found = land_polygons(config, grid, self.cells)
        kind = "polygons" if found is not None else "rasters"
        if found is None:
            found = read_class_rasters(source)  # type: ignore[arg-type]
        return f"{len(found)} {kind}{classes}; {self._shown(found, 'sources.landcover')}"

    def look_at_models(self) -> str:
        assert self.config.models is not None  # what `each` asks for
        cities = trained_cities(self.config.models.cities)
        return ", ".join(f"{len(city.models)} of {city.name}" for city in cities)

    def _shown(self, frame: gpd.GeoDataFrame, key: str) -> str:
        """How many of the cells a source covers; one that covers none is elsewhere."""
        place = _place(*frame.total_bounds)
        if self.cells is None:
            return place
        n = int(inside(self.cells, frame.geometry).sum())
        if n == 0 and not self._touches(frame):
            raise MissingInputError(
                f"{key} covers none of the {len(self.cells)} cells: it lies in {place}, they in "
                f"{_place(*_bounds(self.cells))}; check that both are of the same city"
            )
        return f"{n} of {len(self.cells)} cells"

    def _touches(self, frame: gpd.GeoDataFrame) -> bool:
        """Whether any part of it lies among the cells, as where it is smaller than one."""
        west, south, east, north = _bounds(self.cells)
        return len(frame.cx[west:east, south:north]) > 0


def _look_at_weights(path: Path) -> str:
    """Whether a file of weights is of a kind that Keras reads; whether they fit is told by the training."""
    import h5py

    advice = "give a file of the backbone's weights without top, as Keras saves them"
    with reading(f"train.weights: {path}", advice=advice):
        with open(path, "rb") as file:
            archive = is_zipfile(file)
        # one that is cut is told when it is opened
        with nullcontext() if archive else h5py.File(path, "r"):
            kind = "Keras' archive" if archive else "HDF5"
        return f"{kind}, {path.stat().st_size / 1e6:.1f} MB"


def _look_at_tls(tls: TlsSettings) -> str:
    for key, path in tls:
        with reading(f"cluster.tls.{key}: {path}"):
            data = path.read_bytes()
        if b"-----BEGIN " not in data:
            raise FormatError(f"cluster.tls.{key}: {path} is no PEM: give the file in that form")
    return ", ".join(path.name for _, path in tls)


def _look_at_city(path: Path) -> str:
    frame = read_boundary(path)
    return f"{len(frame)} polygons, {_place(*frame.total_bounds)}"


def _placed(cells: pd.DataFrame) -> pd.DataFrame:
    rows, cols = rowcol_of_ids(cells.index).T
    return cells.assign(row=rows, col=cols)


def _bounds(cells: Any) -> tuple[int, int, int, int]:
    row, col = cells["row"], cells["col"]
    return (
        int(col.min()) * CELL_M, -(int(row.max()) + 1) * CELL_M,
        (int(col.max()) + 1) * CELL_M, -int(row.min()) * CELL_M,
    )  # fmt: skip


def _place(west: float, south: float, east: float, north: float) -> str:
    """Bounds in EPSG:3035 for a message, in kilometres."""
    w, s, e, n = (np.round(v / 1000, 1) for v in (west, south, east, north))
    return f"E {w:g}–{e:g} km, N {s:g}–{n:g} km"
