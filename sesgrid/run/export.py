"""Out of the cube, for QGIS and for GDAL before 3.13: Cloud Optimized GeoTIFF and GeoParquet."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import xarray as xr
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from sesgrid.errors import ConfigError, FormatError, MissingInputError, StoreError
from sesgrid.foreign import writing
from sesgrid.grid import CELL_M, CRS, Extent, cell_id_of
from sesgrid.run.workspace import save_rows
from sesgrid.sources import UNCLASSIFIED
from sesgrid.sources.cell_geometry import cell_squares
from sesgrid.stages.scene import OBSERVED
from sesgrid.store.cube import Cube, open_cube

__all__ = ["export"]

Bounds = tuple[float, float, float, float]

_OF_IMAGERY = frozenset({"image", "activation"})
"""Layers that say nothing where no imagery was observed, and are masked there: black is a colour, too."""

_NODATA = {"landcover": UNCLASSIFIED}
"""Values of layers that stand for nothing."""


def export(
    cube: str | Path, output: str | Path, variable: str = "image", bounds: Bounds | None = None
) -> Path:
    """Write a part of a cube in a format that every GIS reads.

    Parameters
    ----------
    cube : str or Path
    output : str or Path
        ``….tif``: a Cloud Optimized GeoTIFF of one variable, with a mask (imagery) or nodata where nothing
        is known; ``….parquet``: GeoParquet of all cells and
        their values (`variable` is then ignored).
    variable : str
        ``"image"``, ``"coverage"``, ``"landcover"``, ``"activation"`` where maps were kept (bytes: roots of
        the shares of each cell's own peak, not to be compared between cells), or a variable of the
        cells such as ``"ses_predicted"``.
    bounds : (west, south, east, north), optional
        Metres in EPSG:3035; widened to whole cells. The whole cube by default.

    Raises
    ------
    ConfigError
        Another suffix, an unknown variable, or bounds that meet nothing of the cube.
    MissingInputError
        No cube there, or one without cells yet.
    FormatError
        The cube lacks what tells where imagery was observed, or is damaged otherwise.
    StoreError
        The output cannot be written.
    """
    extent, output = Cube.open(cube).extent, Path(output)
    rows, cols = _cell_window(extent, bounds)
    if output.suffix == ".parquet":
        _export_cells(cube, output, extent, rows, cols)
    elif output.suffix in (".tif", ".tiff"):
        _export_raster(cube, output, variable, extent, rows, cols)
    else:
        raise ConfigError(f"output: expected a name ending in .tif or .parquet, received {output}")
    return output


def _cell_window(extent: Extent, bounds: Bounds | None) -> tuple[slice, slice]:
    """Cells of the extent that the bounds touch, counted from its corner."""
    height, width = extent.shape_cells
    if bounds is None:
        return slice(0, height), slice(0, width)
    west, south, east, north = bounds
    if not np.isfinite(bounds).all():
        raise ConfigError(f"bounds: expected metres in EPSG:3035, received {bounds}")
    left, _, _, top = extent.bounds
    rows = int((top - north) // CELL_M), int(-((south - top) // CELL_M))
    cols = int((west - left) // CELL_M), int(-((left - east) // CELL_M))
    r0, r1 = max(rows[0], 0), min(rows[1], height)
    c0, c1 = max(cols[0], 0), min(cols[1], width)
    if r0 >= r1 or c0 >= c1:
        raise ConfigError(
            f"bounds {bounds} (west, south, east, north; EPSG:3035) meet nothing of the cube, which "
            f"covers {extent.bounds}"
        )
    return slice(r0, r1), slice(c0, c1)


def _export_raster(
    cube: str | Path, output: Path, variable: str, extent: Extent, rows: slice, cols: slice
) -> None:
    tree = open_cube(cube, chunked=False)
    # the cells have a coverage of their own, which is another
    seen = _coverage(tree) if variable in {*_OF_IMAGERY, "coverage"} else None
    # coordinates and what tells of the CRS are no rasters
    known = {
        group: [str(n) for n, v in tree[group].data_vars.items() if v.ndim >= 2]
        for group in ("pixels", "cells")
        if group in tree
    }
    group = next((g for g, names in known.items() if variable in names), None)
    if group is None:
        names = ", ".join(sorted({name for of in known.values() for name in of}))
        raise ConfigError(f"variable: expected one of {names}; received {variable!r}")
    array = tree[group][variable].variable
    step = extent.grid.pixels_per_cell if group == "pixels" else 1
    west, _, _, north = extent.bounds
    corner = west + cols.start * CELL_M, north - rows.start * CELL_M
    size = CELL_M / step
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": array.dtype,
        "count": array.shape[0] if array.ndim == 3 else 1,
        "height": (rows.stop - rows.start) * step,
        "width": (cols.stop - cols.start) * step,
        "crs": CRS,
        "transform": rasterio.Affine(size, 0, corner[0], 0, -size, corner[1]),
        "nodata": np.nan if array.dtype.kind == "f" else _NODATA.get(variable),
        "tiled": True,
        "bigtiff": "if_safer",
    }
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        _require_room(output.parent, profile)
        plain = output.with_name(f".{output.name}.plain.tif")
        partial = output.with_name(f".{output.name}.partial.tif")
        try:
            with _internal_masks(), rasterio.open(plain, "w", **profile) as raster:
                mask = seen if variable in _OF_IMAGERY else None
                _write_rows(raster, array, mask, rows, cols, step)
            with rasterio.Env():  # GDAL's complaints are raised, and not printed as well
                copy_raster(plain, partial, driver="COG", compress="deflate", predictor="yes")
            partial.replace(output)
        except (RasterioError, CPLE_BaseError) as error:
            raise OSError(error) from error  # GDAL's own classes are none
        finally:
            for path in (plain, partial):
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _coverage(tree: xr.DataTree) -> xr.Variable:
    """What tells where imagery was observed; zarr passes over a layer whose metadata are gone."""
    if "coverage" not in tree["pixels"]:
        raise FormatError(
            "pixels/coverage is gone from the cube: `sesgrid verify --redo` writes it again"
        )
    return tree["pixels"]["coverage"].variable


def _require_room(folder: Path, profile: dict[str, Any]) -> None:
    """Before the work, not within it: what is written first is not compressed."""
    needed = profile["count"] * profile["height"] * profile["width"] * profile["dtype"].itemsize
    free = shutil.disk_usage(folder).free
    if 0 < free < needed:  # a file system that tells nothing tells 0
        raise StoreError(
            f"{folder} has {free / 1e6:.1f} MB of room, and {needed / 1e6:.1f} MB are needed: make room, or "
            "export a smaller part with --bbox"
        )


def _internal_masks() -> rasterio.Env:
    return rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)


def _write_rows(
    raster: rasterio.io.DatasetWriter,
    array: xr.Variable,
    seen: xr.Variable | None,
    rows: slice,
    cols: slice,
    step: int,
) -> None:
    """A row of cells at a time: what is held does not grow with the city."""
    x = slice(cols.start * step, cols.stop * step)
    for row in range(rows.start, rows.stop):
        y = slice(row * step, (row + 1) * step)
        window = Window(0, (row - rows.start) * step, x.stop - x.start, step)
        raster.write(np.asarray(array[..., y, x]).reshape(raster.count, step, -1), window=window)
        if seen is not None:
            raster.write_mask(np.asarray(seen[y, x]) == OBSERVED, window=window)


def _export_cells(cube: str | Path, output: Path, extent: Extent, rows: slice, cols: slice) -> None:
    tree = open_cube(cube, chunked=False)
    if "cells" not in tree:
        raise MissingInputError(f"{cube} holds no cells yet: they are written by `sesgrid analyse`")
    part = tree["cells"].to_dataset().isel(y=rows, x=cols)
    columns = {str(n): v.values.ravel() for n, v in part.data_vars.items() if v.ndim == 2}
    there = np.logical_or.reduce([np.isfinite(v) for v in columns.values()])
    y, x = (a.ravel() for a in np.mgrid[rows, cols])
    row, col = (y + extent.row)[there], (x + extent.col)[there]
    table = gpd.GeoDataFrame(
        {name: values[there] for name, values in columns.items()},
        index=[cell_id_of(int(r), int(c)) for r, c in zip(row, col, strict=True)],
        geometry=cell_squares(-(row + 1) * CELL_M, col * CELL_M),
        crs=CRS,
    )
    for name in table.columns.drop("geometry"):
        kinds = part[name].attrs.get("categories")
        if kinds is not None:
            table[name] = [None if np.isnan(v) else kinds[int(v)] for v in table[name]]
    table.index.name = "cell_id"
    save_rows(table.reset_index(), output)
