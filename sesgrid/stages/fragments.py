"""Fragments: what the maps are like inside each polygon of a cell.

Polygons are laid on cells once, from a spatial index, part by part: of a road network only the parts that
touch a cell travel with it. Their numbers are burnt inside the task, and never stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely import box

from sesgrid.grid import Grid
from sesgrid.kernels.burn import burn_polygons
from sesgrid.kernels.zonal import FRAGMENT_STATISTICS, fragment_statistics
from sesgrid.stages.landcover import PolygonIndex
from sesgrid.stages.mosaic import OBSERVED
from sesgrid.stages.predict import CellTask

__all__ = ["PolygonTask", "fragments_of", "with_polygons"]


@dataclass(frozen=True)
class PolygonTask(CellTask):
    """A cell, its model, and the polygons that touch it, in the order of their file."""

    wkb: tuple[bytes, ...]
    """Parts of polygons, EPSG:3035."""
    polygons: tuple[int, ...]
    """Row of each part's polygon in the land cover."""


def with_polygons(
    cells: Iterable[CellTask], grid: Grid, polygons: PolygonIndex
) -> list[PolygonTask]:
    """Give every cell its polygons."""
    tasks = list(cells)
    cell = Grid(grid.pixels_per_cell, 1)  # a block of one cell
    squares = np.array([box(*cell.block_bounds(t.row, t.col)) for t in tasks])
    return [
        PolygonTask(t.cell_id, t.row, t.col, t.model, wkb, rows)
        for t, (wkb, rows) in zip(tasks, polygons.on(squares), strict=True)
    ]


def fragments_of(task: PolygonTask, maps: np.ndarray, coverage: np.ndarray) -> list[dict[str, Any]]:
    """One row per polygon in the cell.

    Parameters
    ----------
    task : PolygonTask
    maps : np.ndarray
        float32 ``(map, y, x)``.
    coverage : np.ndarray
        uint8 ``(y, x)``; what was not observed belongs to no fragment.

    Returns
    -------
    list of dict
        ``polygon`` (its row in the land cover), ``count`` (pixels), ``area_m2``, the statistics of
        `sesgrid.kernels.zonal.fragment_statistics`, and ``low_score`` and ``high_score``: sum / area.
    """
    if not task.wkb:
        return []
    rows, local = np.unique(task.polygons, return_inverse=True)
    size = coverage.shape[-1]
    grid = Grid(size, 1)
    ids = burn_polygons(
        shapely.from_wkb(np.array(task.wkb, dtype=object)),
        (local + 1).astype(np.uint32),
        (size, size),
        grid.cell_transform(task.row, task.col),
    )
    ids[coverage != OBSERVED] = 0
    known, counts, statistics = fragment_statistics(maps, ids)
    out = []
    for number, count, values in zip(known, counts, statistics, strict=True):
        area = float(count) * grid.pixel_m**2
        row = dict(zip(FRAGMENT_STATISTICS, map(float, values), strict=True))
        out.append(
            {"polygon": int(rows[number - 1]), "count": int(count), "area_m2": area}
            | row
            | {f"{m}_score": row[f"{m}_sum"] / area for m in ("low", "high")}
        )
    return out
