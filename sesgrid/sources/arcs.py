"""Arcs of circles as chords."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["chords"]

_STEP = math.radians(1.0)
"""Of one chord, which is then 4 cm off the arc at a radius of 1 km."""


def chords(points: np.ndarray) -> np.ndarray:
    """A circular string, whose arcs each go from a point through the next to the one after, as a line.

    Parameters
    ----------
    points : np.ndarray
        x and y ``(point, 2)``, an odd number. Of an arc that ends where it began the point
        between is opposite: a whole circle. Three points in a line are a line.

    Returns
    -------
    np.ndarray
        x and y ``(point, 2)``, with all of `points`.

    Raises
    ------
    ValueError
        An even number of points, or fewer than three.

    Examples
    --------
    >>> half = chords(np.array([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    >>> len(half), bool(np.allclose(np.hypot(*half.T), 1))
    (181, True)
    """
    if len(points) == 0:
        return points
    if len(points) < 3 or len(points) % 2 == 0 or not np.isfinite(points).all():
        raise ValueError("a circular string has an odd number of points, three at least")
    parts = [points[:1]]
    for k in range(0, len(points) - 2, 2):
        parts += [part[1:] for part in _arc(*points[k : k + 3])]
    return np.concatenate(parts)


def _arc(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    """The arc in two parts, that `middle` stays exact."""
    if (start == end).all():
        centre, whole = (start + middle) / 2, True
    else:
        centre, whole = _centre(start, middle, end), False
    if centre is None:
        return [np.stack([start, middle]), np.stack([middle, end])]
    a, b, c = (math.atan2(*(p - centre)[::-1]) for p in (start, middle, end))
    (ux, uy), (vx, vy) = middle - start, end - middle
    if whole or ux * vy - uy * vx > 0:  # counter-clockwise
        first, second = (b - a) % math.tau, (c - b) % math.tau
    else:
        first, second = -((a - b) % math.tau), -((b - c) % math.tau)
    radius = math.hypot(*(start - centre))
    return [
        _part(centre, radius, a, first, start, middle),
        _part(centre, radius, b, second, middle, end),
    ]


def _centre(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray | None:
    """Of the circle through three points; None where they lie in a line."""
    (bx, by), (cx, cy) = b - a, c - a  # from a: coordinates of millions would lose digits
    twice = 2 * (bx * cy - by * cx)
    if abs(twice) <= 1e-12 * (math.hypot(bx, by) * math.hypot(cx, cy)):
        return None
    b2, c2 = bx * bx + by * by, cx * cx + cy * cy
    return a + np.array([(cy * b2 - by * c2) / twice, (bx * c2 - cx * b2) / twice])


def _part(
    centre: np.ndarray, radius: float, at: float, turn: float, start: np.ndarray, end: np.ndarray
) -> np.ndarray:
    steps = max(1, math.ceil(abs(turn) / _STEP - 1e-9))
    angle = at + turn * np.arange(1, steps) / steps
    between = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([start[None], between, end[None]])
