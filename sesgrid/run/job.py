"""What a stage of a run is given, and what the run's settings ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import pandas as pd
from distributed import Client

from sesgrid.batches.journal import Journal
from sesgrid.batches.leases import Leases
from sesgrid.grid import Extent, Grid
from sesgrid.kernels.method import Method, method_named
from sesgrid.run.claims import model_paths
from sesgrid.run.config import Config
from sesgrid.run.published import placeless
from sesgrid.run.trained import trained_cities
from sesgrid.run.workspace import Workspace
from sesgrid.sources import holds_rasters, read_class_table, read_landcover, read_urban_atlas
from sesgrid.stages.protocol import Protocol, protocol_named
from sesgrid.stages.score import metrics
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef
from sesgrid.store.parts import Parts

__all__ = [
    "Job",
    "about",
    "class_table",
    "folds_kind",
    "land_polygons",
    "load_models",
    "method_of",
    "protocol_of",
    "scores_of",
]


@dataclass(frozen=True)
class Job:
    """What a stage's runner is given."""

    config: Config
    files: Workspace
    client: Client
    key: str
    """Hash of this stage's settings; what a batch reads beside them is in the batch's own key."""

    leases: Leases | None = None
    """This driver's; None: nobody else is about."""

    only: frozenset[str] | None = None
    """Départements whose pixels are made; None: all, and then what rests on all of them."""

    @property
    def grid(self) -> Grid:
        """The run's grid."""
        return Grid(self.config.grid.pixels_per_cell, self.config.grid.cells_per_block)

    def cube(self, cells: gpd.GeoDataFrame) -> Cube:
        """The run's cube, which must lie on the grid of the run's cells."""
        cube = Cube.open(self.files.cube)
        cube.require(Extent.of_cells(self.grid, cells["row"], cells["col"]))
        return cube

    def parts(self, stage: str) -> Parts:
        """The parts of a stage."""
        return Parts(self.files.parts(stage))

    @property
    def journal(self) -> Journal:
        """Where the blocks that end are told of."""
        return Journal.of_driver(self.files.journals, self.tidy)

    def tidy(self, text: str) -> str:
        """A message as the run's files may tell it."""
        return placeless(text, self.config)


def protocol_of(config: Config) -> Protocol:
    """The training protocol with the run's changes."""
    given = config.train.model_dump(exclude={"protocol", "seed"})
    return protocol_named(config.train.protocol, **given, max_void=config.cells.max_void)


def scores_of(config: Config, cells: pd.DataFrame) -> dict[str, Any]:
    """Scores of predicted cells with the run's resamples; its spatial folds' squares are the blocks."""
    return metrics(
        cells,
        n_bootstrap=config.analyse.bootstrap,
        seed=config.analyse.seed,
        cells_per_block=config.cells.fold_block_cells,
    )


def folds_kind(config: Config) -> str:
    """The kind of folds whose models make the maps."""
    return config.cells.folds_kind or "random"


def method_of(config: Config) -> Method:
    """The explaining method with the run's changes."""
    e = config.explain
    return method_named(
        e.preset, layer=e.layer, gates=e.gates, cam=e.cam, clip_percentile=e.clip_percentile,
        channels=e.channels,
    )  # fmt: skip


def class_table(config: Config) -> pd.DataFrame | None:
    """What the codes of the land cover mean; None: the study's own classes, of the Urban Atlas."""
    given = config.sources.landcover_classes
    return None if given is None else read_class_table(given)


def land_polygons(config: Config, grid: Grid, cells: pd.DataFrame) -> gpd.GeoDataFrame | None:
    """The land cover's polygons about the cells; None: there is no land cover, or it is classified rasters.

    The Urban Atlas is read as a whole, by its own codes.
    """
    s, table = config.sources, class_table(config)
    if s.landcover is None or (table is not None and holds_rasters(s.landcover)):
        return None
    if table is None:
        return read_urban_atlas(s.landcover, s.landcover_layer)
    return read_landcover(s.landcover, table, s.landcover_layer, within=about(grid, cells))


def about(grid: Grid, cells: pd.DataFrame) -> tuple[int, int, int, int]:
    """(west, south, east, north) of the blocks that hold the cells, metres."""
    return Extent.of_cells(grid, cells["row"], cells["col"]).bounds


def load_models(job: Job, kind: str | None = None) -> dict[str, ModelRef]:
    """The run's models by id, each verified against its card; by default those that make the maps.

    Where the run names models of other cities, all of these, and none of another kind of folds.
    """
    if job.config.models is not None:
        cities = [] if kind is not None else trained_cities(job.config.models.cities)
        return {ref.model_id: ref for city in cities for ref in city.models}
    kind = kind or folds_kind(job.config)
    own = sorted(model_paths(job.files.models, kind, job.config.cells.folds))
    refs = [ModelRef.open(p) for p in own if p.exists()]
    return {ref.model_id: ref for ref in refs}
