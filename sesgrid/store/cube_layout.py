"""What a cube is made of: its groups and arrays, without a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
import zarr

from sesgrid.grid import CRS, Extent
from sesgrid.store.codec import PixelCodec
from sesgrid.store.location import open_group

__all__ = [
    "ACTIVATION",
    "LAYERS",
    "LISTS",
    "LISTS_SHARDS",
    "OF_ACTIVATION",
    "OWNER",
    "PIXEL_LAYERS",
    "TOKEN",
    "VERSION",
    "create_layer",
    "lay_out",
    "write_spatial_ref",
]

VERSION, TOKEN, OWNER = "sesgrid_cube_version", "sesgrid_cube_token", "sesgrid_run"
"""Attributes that make a group a cube, that name it, and that name the run whose it is."""

LISTS, LISTS_SHARDS = "shards", "sesgrid_lists_shards"
"""The group of the lists of shards, and the attribute that tells that a cube has them."""

PIXEL_LAYERS = {"image": 3, "coverage": 0, "landcover": 0}
"""Variables of ``pixels`` and their number of bands (0: no band axis)."""

ACTIVATION = "activation"
"""Variable of ``pixels`` that holds the kept maps."""
LAYERS = PIXEL_LAYERS | {ACTIVATION: 2}
"""All variables that ``pixels`` may hold."""
_LEADING = {"image": ("band",), ACTIVATION: ("map",)}

OF_ACTIVATION = {
    "maps": ["low", "high"],
    "description": "sqrt of the share of the cell's peak: activation = peak * (value / 255)**2, with the "
    "peaks in cells/peak_low and cells/peak_high; cells without a peak keep no map",
}


def lay_out(path: str, extent: Extent, codec: PixelCodec, attributes: Mapping[str, Any]) -> None:
    """Groups and arrays without a pixel; the attributes that make it a cube come last."""
    # the token first: what is left of a cube that was never finished can be told and replaced
    whose = {name: attributes[name] for name in (TOKEN, OWNER) if name in attributes}
    root = open_group(path, "w", whose)
    pixels = root.create_group("pixels", attributes=extent.attributes())
    for name in PIXEL_LAYERS:
        create_layer(pixels, name, extent, codec)
    y, x = extent.pixel_centres()
    for name, values in (("y", y), ("x", x)):
        pixels.create_array(
            name,
            data=values,
            chunks=(len(values),),
            dimension_names=(name,),
            attributes={"units": "metre", "standard_name": f"projection_{name}_coordinate"},
        )
    write_spatial_ref(pixels, extent, extent.grid.pixel_m)
    root.create_group(LISTS)
    root.update_attributes({**attributes, LISTS_SHARDS: True})


def create_layer(
    pixels: zarr.Group,
    name: str,
    extent: Extent,
    codec: PixelCodec,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """One array of ``pixels``: a block is a shard, a cell an inner chunk."""
    size, p, bands = extent.grid.block_px, extent.grid.pixels_per_cell, LAYERS[name]
    lead = (bands,) if bands else ()
    pixels.create_array(
        name,
        shape=(*lead, *extent.shape_px),
        dtype="uint8",
        chunks=(*lead, p, p),
        shards=(*lead, size, size),
        fill_value=0,
        dimension_names=(*_LEADING.get(name, ()), "y", "x"),
        attributes={"grid_mapping": "spatial_ref", **(attributes or {})},
        **codec.for_zarr(bands),
    )


def write_spatial_ref(group: zarr.Group, extent: Extent, step_m: float) -> None:
    """The CRS and the transform, as CF and GDAL read them."""
    west, _, _, north = extent.bounds
    attributes = dict(xr.DataArray(0).rio.write_crs(CRS).spatial_ref.attrs)
    attributes["GeoTransform"] = f"{west} {step_m} 0.0 {north} 0.0 {-step_m}"
    group.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0, attributes=attributes)
