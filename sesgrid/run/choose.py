"""Which of the census' cells a run is about."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sesgrid.run.config import Config
from sesgrid.run.imagery import imagery_of
from sesgrid.sources import read_boundary, read_census, select_cells

__all__ = ["choose_cells", "choose_of"]

_FOOTPRINT = "footprint of the imagery (every cell that it touches)"


def choose_cells(config: Config) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The census, the cells within the run's boundary, and what that is.

    Without a boundary it is that of the land cover's polygons, else wherever there is imagery. The rule "all"
    asks for no boundary.
    """
    s = config.sources
    # in order: what sorts it again copies nothing
    census = read_census(s.census, s.census_layer, vintage=s.vintage).sort_index()
    return census, *choose_of(config, census)


def choose_of(config: Config, census: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The cells of a census within the run's boundary, and what that is."""
    s = config.sources
    if config.cells.rule == "all":
        return census, "none (every cell of the census)"
    if s.boundary is not None:
        area, origin = read_boundary(s.boundary, s.boundary_layer), s.boundary.name
    elif s.landcover is not None and s.landcover_classes is None:
        area, origin = read_boundary(s.landcover), s.landcover.name
    else:
        area, origin = imagery_of(config), _FOOTPRINT
    rule: Any = "touching" if origin == _FOOTPRINT else config.cells.rule
    return select_cells(census, area, rule), origin
