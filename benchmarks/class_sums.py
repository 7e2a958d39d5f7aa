"""Sums per land-cover class: the kernels against numpy, scipy, exactextract and the study's own way.

``--json`` ends with one object:

- ``burn_vs_gdal``: `sesgrid.kernels.burn_polygons` over `rasterio.features.rasterize`;
- ``sums_vs_bincount``: `sesgrid.kernels.class_sums` over `np.bincount`, cell by cell;
- ``sums_over_read``: it over reading the map once, which is this numba function::

      @numba.njit(fastmath=True)
      def read(a):
          total = np.float32(0)
          for y in range(a.shape[0]):
              row = np.float32(0)
              for x in range(a.shape[1]):
                  row += a[y, x]
              total += row
          return total

- ``zonal_vs_exactextract``, ``zonal_vs_reference``: burning and the class sums of two maps over
  exactextract's sums, and over the study's way: overlay, a shapefile, a GeoTIFF and
  `rasterstats.zonal_stats` with six statistics a map.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import exactextract
import geopandas as gpd
import numba
import numpy as np
import rasterio
import rasterstats
import shapely
from exactextract.raster import NumPyRasterSource
from scipy import ndimage
from shapely import box

from benchmarks import burn
from benchmarks.land import town
from benchmarks.rounds import arguments, interleave, lower_quartile_ratio, report
from sesgrid.kernels import burn_polygons, class_sums
from sesgrid.kernels.zonal import fragment_statistics

N_CLASSES = 20
STATISTICS = ["sum", "min", "max", "mean", "median", "count"]


def sums(size_px: int, cells: int, rounds: int) -> dict[str, float]:
    """Class sums of a block of `cells` × `cells` cells; all must agree first."""
    activation, classes = _block(size_px, cells)
    rivals = _rivals(activation, classes, size_px)
    expected = rivals["sesgrid.kernels.class_sums"]()
    for name, call in rivals.items():
        if "bincount" in name or "sum_labels" in name:
            np.testing.assert_allclose(call(), expected, rtol=1e-9, err_msg=name)
    seconds = interleave(rivals, rounds, repeats=2)
    what = (
        f"class sums of a float32 map, {cells} × {cells} cells of {size_px} px, {N_CLASSES} classes"
    )
    report(what, seconds, "sesgrid.kernels.class_sums", ["numba", "numpy", "scipy"], False)
    ours = seconds["sesgrid.kernels.class_sums"]
    return {
        "sums_vs_bincount": lower_quartile_ratio(seconds["np.bincount, cell by cell"], ours),
        "sums_over_read": 1 / lower_quartile_ratio(seconds["only reading the map"], ours),
    }


def zonal(size_px: int, rounds: int) -> dict[str, float]:
    """From polygons to the sums of two maps, for one cell of about 4 polygons of 125 vertices."""
    polygons, values, transform = town(3, size_px, seed=2, segment_m=8.0)
    rng = np.random.default_rng(0)
    maps = rng.random((2, size_px, size_px), np.float32)
    frame = gpd.GeoDataFrame({"value": values}, geometry=polygons, crs="EPSG:3035")
    side = transform.a * size_px
    cell = box(transform.c, transform.f - side, transform.c + side, transform.f)
    square = gpd.GeoDataFrame(geometry=[cell], crs=frame.crs)
    numbers = np.arange(1, len(polygons) + 1, dtype=np.uint32)

    def ours() -> np.ndarray:
        classes = burn_polygons(polygons, values, (size_px, size_px), transform)
        return class_sums(maps, classes, size_px, N_CLASSES)

    def fragments() -> Any:
        ids = burn_polygons(polygons, numbers, (size_px, size_px), transform)
        return fragment_statistics(maps, ids)

    bounds = dict(zip(("xmin", "ymin", "xmax", "ymax"), cell.bounds, strict=True))

    def exact() -> Any:
        rasters = [NumPyRasterSource(m, name=n, **bounds) for m, n in zip(maps, "ab", strict=True)]
        return exactextract.exact_extract(rasters, frame, ["sum"])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def study() -> Any:
            inside = gpd.overlay(frame, square, how="intersection")
            inside.to_file(folder / "parts.shp")
            found = []
            for m in maps:
                with rasterio.open(
                    folder / "map.tif", "w", driver="GTiff", count=1, height=size_px,
                    width=size_px, dtype="float32", crs=frame.crs, transform=transform,
                ) as raster:  # fmt: skip
                    raster.write(m, 1)
                found.append(
                    rasterstats.zonal_stats(
                        str(folder / "parts.shp"),
                        str(folder / "map.tif"),
                        stats=STATISTICS,
                        nodata=-999,
                    )
                )
            return found

        # the pixel-centre rule on clipped polygons: all but the pixels on the borders agree
        theirs = sum(row["sum"] for row in study()[0])
        np.testing.assert_allclose(ours()[0].sum(), theirs, rtol=1e-2)
        seconds = interleave(
            {
                "sesgrid, burn and class sums": ours,
                "sesgrid, burn and every statistic": fragments,
                "exactextract": exact,
                "the study's way": study,
            },
            rounds,
            repeats=3,
        )
    vertices = shapely.get_num_coordinates(polygons).mean()
    what = (
        f"two maps of {size_px} px summed over {len(polygons)} polygons of {vertices:.0f} vertices"
    )
    packages = ["exactextract", "rasterstats", "geopandas", "rasterio"]
    report(what, seconds, "sesgrid, burn and class sums", packages, False)
    mine = seconds["sesgrid, burn and class sums"]
    return {
        "zonal_vs_exactextract": lower_quartile_ratio(seconds["exactextract"], mine),
        "zonal_vs_reference": lower_quartile_ratio(seconds["the study's way"], mine),
        "fragments_vs_reference": lower_quartile_ratio(
            seconds["the study's way"], seconds["sesgrid, burn and every statistic"]
        ),
    }


@numba.njit(fastmath=True)
def read(a: np.ndarray) -> np.float32:
    """Sum a float32 map row by row: what reading it once takes."""
    total = np.float32(0)
    for y in range(a.shape[0]):
        row = np.float32(0)
        for x in range(a.shape[1]):
            row += a[y, x]
        total += row
    return total


def _block(size_px: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 activation and uint8 classes, ``(y, x)``, of a block of towns."""
    shape = (size_px, size_px)
    rows = []
    for i in range(cells):
        towns = [town(60, size_px, seed=1 + i * cells + j) for j in range(cells)]
        rows.append(np.hstack([burn_polygons(p, v, shape, t) for p, v, t in towns]))
    classes = np.vstack(rows)
    return np.random.default_rng(0).random(classes.shape, np.float32), classes


def _rivals(
    activation: np.ndarray, classes: np.ndarray, size_px: int
) -> dict[str, Callable[[], Any]]:
    n_y, n_x = classes.shape[0] // size_px, classes.shape[1] // size_px

    def ours() -> np.ndarray:
        return class_sums(activation, classes, size_px, N_CLASSES)

    def cell_by_cell() -> np.ndarray:
        out = np.empty((n_y, n_x, N_CLASSES))
        for i, j in np.ndindex(n_y, n_x):
            cell = np.s_[i * size_px : (i + 1) * size_px, j * size_px : (j + 1) * size_px]
            out[i, j] = np.bincount(classes[cell].ravel(), activation[cell].ravel(), N_CLASSES)
        return out

    cell = np.arange(n_y * n_x, dtype=np.int32).reshape(n_y, n_x) * N_CLASSES
    first_key = cell.repeat(size_px, axis=0).repeat(size_px, axis=1)  # made once for all blocks

    def keyed() -> np.ndarray:
        keys = (first_key + classes).ravel()
        sums = np.bincount(keys, activation.ravel(), n_y * n_x * N_CLASSES)
        return sums.reshape(n_y, n_x, N_CLASSES)

    def labels() -> np.ndarray:
        index = np.arange(n_y * n_x * N_CLASSES)
        return ndimage.sum_labels(activation, first_key + classes, index).reshape(n_y, n_x, -1)

    return {
        "sesgrid.kernels.class_sums": ours,
        "np.bincount, cell by cell": cell_by_cell,
        "np.bincount, keyed by cell": keyed,
        "scipy.ndimage.sum_labels": labels,
        "only reading the map": lambda: read(activation),
    }


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    size, rounds = (32, 5) if options.quick else (800, 21)
    burnt = burn.run(size, 8 if options.quick else 60, rounds)
    result = {"burn_vs_gdal": burnt["ratio"]["rasterio.features.rasterize"]}
    print()
    result |= sums(size, 2, rounds)
    print()
    result |= zonal(size, 5 if options.quick else 11)
    print()
    for key, value in result.items():
        print(f"  {key:<24} {value:.2f}")
    if options.json:
        packages = ["numba", "numpy", "scipy", "rasterio", "exactextract", "rasterstats"]
        print(json.dumps({**result, "versions": {p: version(p) for p in packages}}))


if __name__ == "__main__":
    main()
