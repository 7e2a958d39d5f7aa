"""Readers of what users really have: Filosofi cells, orthophotos, Urban Atlas land cover."""

from __future__ import annotations

from sesgrid.sources.archive import unpacked
from sesgrid.sources.boundary import RULES, read_boundary, select_cells
from sesgrid.sources.class_raster import ClassReader, holds_rasters, read_class_rasters
from sesgrid.sources.class_table import CLASS_TABLES, read_class_table
from sesgrid.sources.filosofi import VINTAGES, read_census, read_filosofi
from sesgrid.sources.land_polygons import read_landcover
from sesgrid.sources.landcover import (
    N_CLASSES,
    UNCLASSIFIED,
    class_groups,
    class_names,
    landcover_classes,
)
from sesgrid.sources.ortho import read_ortho
from sesgrid.sources.raster import RasterReader
from sesgrid.sources.urban_atlas import read_urban_atlas

__all__ = [
    "CLASS_TABLES",
    "N_CLASSES",
    "RULES",
    "UNCLASSIFIED",
    "VINTAGES",
    "ClassReader",
    "RasterReader",
    "class_groups",
    "class_names",
    "holds_rasters",
    "landcover_classes",
    "read_boundary",
    "read_census",
    "read_class_rasters",
    "read_class_table",
    "read_filosofi",
    "read_landcover",
    "read_ortho",
    "read_urban_atlas",
    "select_cells",
    "unpacked",
]
