"""Coordinates, CRS and transform of a dataset that lies on an extent."""

from __future__ import annotations

import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

from sesgrid.grid import CRS, Extent

__all__ = ["BANDS", "georeference"]

BANDS = ("red", "green", "blue")
"""Order of the bands, everywhere."""


def georeference(dataset: xr.Dataset, extent: Extent) -> xr.Dataset:
    """Give a dataset over an extent its coordinates, CRS and transform, and the grid it lies on.

    Parameters
    ----------
    dataset : xarray.Dataset
        With dims ``y``, ``x`` of exactly ``extent.shape_px``, and maybe ``band``.
    extent : Extent
    """
    y, x = extent.pixel_centres()
    dataset = dataset.assign_coords(y=("y", y), x=("x", x))
    if "band" in dataset.dims:
        dataset = dataset.assign_coords(band=list(BANDS))
    dataset = dataset.rio.write_crs(CRS).rio.write_transform(extent.transform)
    return dataset.assign_attrs(extent.attributes())
