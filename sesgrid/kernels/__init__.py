"""Arrays in, arrays out: the computations, with no dask, no xarray and no files."""

from __future__ import annotations

from sesgrid.kernels.burn import burn_polygons
from sesgrid.kernels.class_sums import class_areas, class_sums
from sesgrid.kernels.warp import warp

__all__ = ["burn_polygons", "class_areas", "class_sums", "warp"]
