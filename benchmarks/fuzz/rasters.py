"""What both kinds of rasters share: a writer, and damages of their headers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import rasterio
from rasterio.transform import Affine

from benchmarks.fuzz.trial import Damage, Trial

__all__ = ["PLACE_DAMAGES", "Array", "real_numbers", "rewrite", "write_aux", "write_raster"]

Array = np.ndarray


def write_raster(path: Path, pixels: Array, transform: Affine | None, **options: object) -> None:
    """A raster by GDAL; ``pixels`` (band, y, x)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = {} if transform is None else {"transform": transform}
        with rasterio.open(
            path, "w", width=pixels.shape[2], height=pixels.shape[1], count=len(pixels), dtype=pixels.dtype,
            **place, **options,
        ) as raster:  # fmt: skip
            raster.write(pixels)


def write_aux(path: Path, inside: str) -> None:
    """What ArcGIS and QGIS write beside a raster."""
    path.with_name(path.name + ".aux.xml").write_text(f"<PAMDataset>{inside}</PAMDataset>")


def rewrite(
    name: str, change: Callable[[Random, dict[str, object], Array], Array | None]
) -> Damage:
    """Write the raster again with another header."""

    def do(rng: Random, trial: Trial) -> None:
        with rasterio.open(trial.path) as raster:
            pixels, profile = raster.read(), dict(raster.profile)
        profile = {k: profile[k] for k in ("driver", "crs", "transform", "dtype") if k in profile}
        changed = change(rng, profile, pixels)
        pixels = pixels if changed is None else changed
        for aside in (trial.path.with_name(trial.path.name + ".msk"), trial.path):
            aside.unlink(missing_ok=True)
        profile.pop("dtype")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(
                trial.path, "w", height=pixels.shape[1], width=pixels.shape[2], count=len(pixels),
                dtype=pixels.dtype, **profile,
            ) as raster:  # fmt: skip
                raster.write(pixels)

    return Damage(do, name)


def _nan_place(rng: Random, profile: dict[str, object], pixels: Array) -> None:
    bad = rng.choice([float("nan"), float("inf"), 1e300])
    profile["transform"] = rng.choice(
        [Affine(1, 0, bad, 0, -1, 0), Affine(1, 0, 0, 0, -1, bad), Affine(bad, 0, 0, 0, -bad, 0)]
    )


def _turned(rng: Random, profile: dict[str, object], pixels: Array) -> None:
    profile["transform"] = rng.choice(
        [
            Affine(1, 0.5, 650_000, 0.5, -1, 6_800_000),
            Affine(1, 0, 650_000, 0, -2, 6_800_000),
            Affine(1, 0, 650_000, 0, 1, 6_800_000),
        ]
    )


def _degrees(rng: Random, profile: dict[str, object], pixels: Array) -> None:
    profile["crs"] = "EPSG:4326"
    profile["transform"] = Affine(1e-4, 0, 2.3, 0, -1e-4, 48.8)


def real_numbers(rng: Random, profile: dict[str, object], pixels: Array) -> Array:
    return pixels.astype(rng.choice(["float32", "int16", "float64"]))


def no_crs(rng: Random, profile: dict[str, object], pixels: Array) -> None:
    profile["crs"] = None


PLACE_DAMAGES = (
    rewrite("no finite place", _nan_place),
    rewrite("turned", _turned),
    rewrite("degrees", _degrees),
)
"""Of any raster."""
