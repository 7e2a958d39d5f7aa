"""What keeping maps as bytes costs their activation ratios: on the cells and models of a finished run.

``python -m benchmarks.kept_maps build/demo``

Bytes on a scale of square roots, as the cube keeps them (docs/design/011), beside bytes in equal steps of
the peak.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.planted_truth import factors_of, ratios_of
from sesgrid.kernels.attribution import attribution_maps, quantised, restored
from sesgrid.kernels.method import PRESETS
from sesgrid.sources import class_names


def in_equal_steps(maps: np.ndarray) -> np.ndarray:
    """Maps ``(…, y, x)`` rounded to 255 equal steps of their peaks."""
    peaks = maps.max(axis=(-2, -1), keepdims=True)
    peaks = np.where(peaks > 0, peaks, 1)
    return np.rint(maps / peaks * 255) / 255 * peaks


def loss(run: Path, preset: str = "paper") -> dict[str, dict[str, float]]:
    """Absolute difference of activation ratios, over cells, maps and classes."""
    factors = factors_of(run, PRESETS[preset])
    signed = factors.evidence.shape[1] == 1
    maps = attribution_maps(factors.evidence, factors.guided, PRESETS[preset], signed=signed)
    n_values, out = len(class_names()) + 1, {}
    for name, kept in (
        ("roots", restored(*quantised(maps))),
        ("equal steps", in_equal_steps(maps)),
    ):
        differences = []
        for side in range(maps.shape[1]):
            exact, _ = ratios_of(np.ascontiguousarray(maps[:, side]), factors.classes, n_values)
            rounded, _ = ratios_of(
                np.ascontiguousarray(kept[:, side], np.float32), factors.classes, n_values
            )
            both = np.isfinite(exact) & np.isfinite(rounded)
            differences.append(np.abs(exact - rounded)[both])
        found = np.concatenate(differences)
        out[name] = {
            "median": float(np.median(found)),
            "99 %": float(np.quantile(found, 0.99)),
            "largest": float(found.max()),
        }
    return out


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper")
    options = parser.parse_args(argv)
    found = loss(options.run, options.preset)
    for name, figures in found.items():
        told = ", ".join(f"{k} {v:.4f}" for k, v in figures.items())
        print(f"bytes of {name:<12} change activation ratios by: {told}")
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
