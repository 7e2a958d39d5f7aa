"""Burning polygons: ours against GDAL's rasterize, on one cell of 800 × 800 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from rasterio.features import rasterize

from benchmarks.land import town
from benchmarks.rounds import arguments, interleave, report
from sesgrid.kernels import burn_polygons

__all__ = ["run"]


def run(
    size_px: int = 800, n_polygons: int = 60, rounds: int = 41, as_json: bool = False
) -> dict[str, Any]:
    """Time both on the same polygons; they must give the same pixels first."""
    polygons, values, transform = town(n_polygons, size_px)
    shape = (size_px, size_px)

    def ours() -> np.ndarray:
        return burn_polygons(polygons, values, shape, transform)

    def gdal() -> np.ndarray:
        pairs = zip(polygons, values, strict=True)
        return rasterize(pairs, out_shape=shape, transform=transform, dtype="uint8")

    np.testing.assert_array_equal(ours(), gdal())
    rivals = {"sesgrid.kernels.burn_polygons": ours, "rasterio.features.rasterize": gdal}
    vertices = int(shapely.get_num_coordinates(polygons).sum())
    return report(
        f"burn {len(polygons)} polygons of {vertices} vertices into {size_px} × {size_px} uint8",
        interleave(rivals, rounds, repeats=3),
        "sesgrid.kernels.burn_polygons",
        ["numba", "numpy", "rasterio", "shapely"],
        as_json,
    )


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    tiny: dict[str, int] = {"size_px": 64, "n_polygons": 8, "rounds": 5} if options.quick else {}
    run(**tiny, as_json=options.json)


if __name__ == "__main__":
    main()
