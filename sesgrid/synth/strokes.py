"""What is drawn on the ground: a long list of small convex shapes, painted in order.

A stroke has a kind, a shape in local metres, a colour, an opacity, and an **owner**: the land-use
polygon (or class) that it may colour. The painter never lets a stroke leave its owner, so what
depends on income stays, pixel by pixel, inside the classes that bear it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyproj import Transformer

from sesgrid.grid import CRS
from sesgrid.synth.geometry import MAX_VERTICES

__all__ = [
    "ANYWHERE",
    "FILL",
    "OUTLINE",
    "SHADE",
    "TREE",
    "Frame",
    "StrokeList",
    "Strokes",
    "rectangles",
    "strip",
]

FILL, SHADE, OUTLINE, TREE = 0, 1, 2, 3
"""Paint a colour; darken; paint a band of ``width_m`` along the inner edge; a lit tree crown."""

ANYWHERE = -1
"""Owner of a stroke that may colour every polygon."""


class Frame:
    """Local metres → Lambert-93 metres from a base point, by a cubic fitted to PROJ.

    The fit errs by less than a millimetre over a city, and costs a hundredth of PROJ's time.

    Parameters
    ----------
    west_m, south_m : int
        The city's south-west corner in EPSG:3035.
    side_m, margin_m : float
        The square that is drawn.
    """

    def __init__(self, west_m: int, south_m: int, side_m: float, margin_m: float) -> None:
        steps = np.linspace(-margin_m, side_m + margin_m, 9)
        x, y = (a.ravel() for a in np.meshgrid(steps, steps))
        to_lambert = Transformer.from_crs(CRS, "EPSG:2154", always_xy=True)
        target = np.column_stack(to_lambert.transform(west_m + x, south_m + y))
        self.base_m = np.floor(target.min(axis=0) / 1000) * 1000
        self._half = side_m / 2
        design = self._design(x, y)
        self._fit = np.linalg.lstsq(design, target - self.base_m, rcond=None)[0]
        self.error_m = float(np.abs(design @ self._fit - (target - self.base_m)).max())

    def _design(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = x / self._half - 1, y / self._half - 1
        powers = [(i, j) for i in range(4) for j in range(4 - i)]
        return np.stack([u**i * v**j for i, j in powers], axis=-1)

    def lambert(self, points: np.ndarray) -> np.ndarray:
        """Local points ``(..., 2)`` → Lambert-93 metres east and north of ``base_m``."""
        return self._design(points[..., 0], points[..., 1]) @ self._fit


@dataclass(frozen=True)
class Strokes:
    """All strokes of a picture as arrays, in painting order, metres from the frame's base."""

    vertices: np.ndarray
    """float32 ``(stroke, MAX_VERTICES, 2)``."""
    counts: np.ndarray
    """int16 ``(stroke,)``, vertices used (1 for a tree: its centre)."""
    kinds: np.ndarray
    """uint8 ``(stroke,)``."""
    colours: np.ndarray
    """float32 ``(stroke, 3)``, red, green, blue, 0 to 255."""
    opacity: np.ndarray
    """float32 ``(stroke,)``, 0 to 1."""
    width_m: np.ndarray
    """float32 ``(stroke,)``: band of an outline, radius of a tree."""
    owners: np.ndarray
    """int32 ``(stroke,)``: polygon id, ``ANYWHERE``, or minus a class code."""


class StrokeList:
    """Collects strokes."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(
        self,
        kind: int,
        shapes: np.ndarray,
        colours: np.ndarray | tuple[float, float, float],
        *,
        owner: np.ndarray | int = ANYWHERE,
        opacity: float = 1.0,
        width_m: np.ndarray | float = 0.0,
        counts: np.ndarray | None = None,
    ) -> None:
        """Append shapes ``(stroke, vertex, 2)``, counter-clockwise, local metres."""
        n, k = shapes.shape[:2]
        if n == 0:
            return
        used = shapes[:, np.minimum(np.arange(MAX_VERTICES), k - 1)]
        self._parts.append(
            (
                self._frame.lambert(used).astype(np.float32),
                np.full(n, k, np.int16) if counts is None else counts.astype(np.int16),
                np.full(n, kind, np.uint8),
                np.broadcast_to(np.asarray(colours, np.float32), (n, 3)),
                np.full(n, opacity, np.float32),
                np.broadcast_to(np.asarray(width_m, np.float32), (n,)),
                np.broadcast_to(np.asarray(owner, np.int32), (n,)),
            )
        )

    def trees(
        self,
        rng: np.random.Generator,
        centres: np.ndarray,
        radius_m: np.ndarray,
        *,
        owner: np.ndarray | int = ANYWHERE,
        colour: tuple[float, float, float] = (62, 88, 48),
    ) -> None:
        """Append trees with their shadows: centres ``(tree, 2)``."""
        n = len(centres)
        if n == 0:
            return
        turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        cast = centres + SHADOW * radius_m[:, None] * 0.75
        disc = cast[:, None] + ring * radius_m[:, None, None]
        self.add(SHADE, disc, (0, 0, 0), owner=owner, opacity=0.42)
        hues = np.asarray(colour) * rng.normal(1, 0.11, (n, 1)) + rng.normal(0, 5, (n, 3))
        self.add(TREE, centres[:, None], hues, owner=owner, width_m=radius_m)

    def finish(self) -> Strokes:
        """Everything that was added, in order."""
        return Strokes(*(np.concatenate(column) for column in zip(*self._parts, strict=True)))


SHADOW = np.array([-0.34, 0.94])
"""Where shadows fall: the sun stands in the south-south-east."""


def rectangles(
    centres: np.ndarray, length_m: np.ndarray, depth_m: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Rectangles ``(n, 4, 2)``: centres ``(n, 2)``, sides along and across ``angle`` (radians).

    >>> rectangles(np.zeros((1, 2)), np.array([2.0]), np.array([1.0]), np.array([0.0]))[0].tolist()
    [[-1.0, -0.5], [1.0, -0.5], [1.0, 0.5], [-1.0, 0.5]]
    """
    along = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * np.asarray(length_m)[..., None] / 2
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=-1) * np.asarray(depth_m)[..., None] / 2
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.stack([centres + i * along + j * across for i, j in signs], axis=-2)


def strip(
    start: np.ndarray, end: np.ndarray, offset_m: float, width_m: float, step_m: float, on_m: float
) -> np.ndarray:
    """A line's parallel as short rectangles: one of ``on_m`` every ``step_m`` metres."""
    vector = end - start
    length = float(np.hypot(*vector))
    direction = vector / length
    left = np.array([-direction[1], direction[0]])
    at = np.arange(step_m / 2, length, step_m)
    centres = start + at[:, None] * direction + offset_m * left
    angle = np.full(len(at), np.arctan2(direction[1], direction[0]))
    return rectangles(centres, np.full(len(at), on_m), np.full(len(at), width_m), angle)
