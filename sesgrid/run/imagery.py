"""The orthophotos of a run: their index, and the reader of their pixels, as its configuration says."""

from __future__ import annotations

import geopandas as gpd

from sesgrid.run.config import Config
from sesgrid.sources import RasterReader, read_ortho

__all__ = ["imagery_of", "reader_of"]


def imagery_of(config: Config) -> gpd.GeoDataFrame:
    """The tiles; errors and warnings as `sesgrid.read_ortho`."""
    s = config.sources
    return read_ortho(s.ortho, default_crs=s.ortho_crs, fill_values=config.mosaic.fill_values)


def reader_of(config: Config) -> RasterReader:
    """What reads their windows."""
    return RasterReader(fill_values=tuple(config.mosaic.fill_values))
