"""Class sums: ours against numpy, scipy and (where installed) exactextract."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.land import town
from benchmarks.rounds import arguments, interleave, report
from sesgrid.kernels import burn_polygons, class_sums

__all__ = ["run"]

N_CLASSES = 20


def run(
    size_px: int = 800, cells: int = 2, rounds: int = 21, as_json: bool = False
) -> dict[str, Any]:
    """Time all on a block of `cells` × `cells` cells; they must agree first."""
    activation, classes = _block(size_px, cells)
    rivals = _rivals(activation, classes, size_px)
    expected = rivals["sesgrid.kernels.class_sums"]()
    for name, call in rivals.items():
        if "bincount" in name or "sum_labels" in name:
            np.testing.assert_allclose(call(), expected, rtol=1e-9, err_msg=name)
    peers = ["numba", "numpy", "scipy"]
    if find_spec("exactextract"):
        rivals["exactextract, one cell's polygons"] = _exactextract(activation, size_px)
        peers.append("exactextract")
    return report(
        f"class sums of a float32 map, {cells} × {cells} cells of {size_px} × {size_px} pixels, "
        f"{N_CLASSES} classes",
        interleave(rivals, rounds, repeats=2),
        "sesgrid.kernels.class_sums",
        peers,
        as_json,
    )


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
        "only reading the map, summed to float64": lambda: activation.sum(dtype=np.float64),
    }


def _exactextract(activation: np.ndarray, size_px: int) -> Callable[[], Any]:
    """One cell only, by polygon: the way that needs no class raster (it weighs border pixels,
    so its sums are not ours)."""
    import exactextract
    import geopandas
    from exactextract.raster import NumPyRasterSource

    polygons, values, transform = town(60, size_px, seed=1)
    frame = geopandas.GeoDataFrame({"value": values}, geometry=polygons, crs="EPSG:3035")
    west, north, side = transform.c, transform.f, transform.a * size_px
    bounds = {"xmin": west, "xmax": west + side, "ymin": north - side, "ymax": north}
    raster = NumPyRasterSource(activation[:size_px, :size_px], **bounds)
    return lambda: exactextract.exact_extract(raster, frame, ["sum"])


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    tiny: dict[str, int] = {"size_px": 32, "rounds": 5} if options.quick else {}
    run(**tiny, as_json=options.json)


if __name__ == "__main__":
    main()
