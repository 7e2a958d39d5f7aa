"""Parks, sports grounds, allotments, woods and fields."""

from __future__ import annotations

import numpy as np
import shapely

from sesgrid.synth.draw_homes import ROOFS
from sesgrid.synth.draw_works import grid_points, inside
from sesgrid.synth.geometry import area_m2, extents, subdivide
from sesgrid.synth.layout import Block
from sesgrid.synth.strokes import FILL, OUTLINE, SHADE, SHADOW, StrokeList, rectangles

__all__ = ["draw_green"]


def draw_green(
    strokes: StrokeList, blocks: list[tuple[int, Block]], rng: np.random.Generator
) -> None:
    """Draw the blocks (id, block) of these classes; others are left as they are."""
    for owner, block in blocks:
        if block.code == 14100:
            _park(strokes, owner, block, rng)
        elif block.code == 31000:
            _wood(strokes, owner, block, rng)
        elif block.code == 21000:
            _field(strokes, owner, block, rng)
        elif block.code == 14200:
            kinds = (_pitch, _courts, _allotments)
            kinds[rng.choice(3, p=[0.4, 0.25, 0.35])](strokes, owner, block, rng)


def _park(strokes, owner: int, block: Block, rng: np.random.Generator) -> None:
    """Lawns, paths from edge to edge, groups of large trees."""
    corners = block.outline
    middle = corners.mean(axis=0)
    hub = middle + rng.normal(0, 12, 2)
    for i in range(len(corners)):
        edge = 0.5 * (corners[i] + corners[(i + 1) % len(corners)])
        for target in (edge, corners[i]) if rng.random() < 0.5 else (edge,):
            vector = target - hub
            path = rectangles(
                ((target + hub) / 2)[None],
                np.array([np.hypot(*vector)]),
                np.array([rng.uniform(2.4, 4.0)]),
                np.array([np.arctan2(vector[1], vector[0])]),
            )
            strokes.add(FILL, path, (204, 192, 164), owner=owner)
    groups = inside(block, rng, max(2, int(block.polygon.area / 1500)))
    counts = rng.integers(2, 7, len(groups))
    centres = np.repeat(groups, counts, axis=0)
    centres = centres + rng.normal(0, 9, centres.shape)
    away = np.hypot(*(centres - hub).T) > 7
    centres = centres[away]
    strokes.trees(rng, centres, rng.uniform(2.6, 6.8, len(centres)), owner=owner)


def _wood(strokes, owner: int, block: Block, rng: np.random.Generator) -> None:
    """A closed canopy."""
    points, _ = grid_points(block.outline, block.angle + 0.4, 5.2, 5.2)
    points = points + rng.normal(0, 1.6, points.shape)
    radius = rng.uniform(2.2, 4.6, len(points))
    order = rng.permutation(len(points))
    strokes.trees(rng, points[order], radius, owner=owner, colour=(56, 78, 44))


def _field(strokes, owner: int, block: Block, rng: np.random.Generator) -> None:
    """Tramlines over the furrows, which are the ground's."""
    u0, u1, _, _ = extents(block.outline, block.angle)
    points, _ = grid_points(block.outline, block.angle, u1 - u0, rng.uniform(16, 24))
    n = len(points)
    for shift in (-0.9, 0.9):
        line = points + shift * np.array([-np.sin(block.angle), np.cos(block.angle)])
        tram = rectangles(line, np.full(n, u1 - u0), np.full(n, 0.6), np.full(n, block.angle))
        strokes.add(FILL, tram, (150, 132, 100), owner=owner, opacity=0.55)


def _pitch(strokes, owner: int, block: Block, rng: np.random.Generator) -> None:
    """A mown pitch with its lines, a stand and a running track."""
    u0, u1, v0, v1 = extents(block.outline, block.angle)
    shrink = np.sqrt(area_m2(block.outline) / ((u1 - u0) * (v1 - v0))) * 0.78
    length, depth = min((u1 - u0) * shrink, 106.0), min((v1 - v0) * shrink, 106.0)
    angle = np.array([block.angle])
    centre = np.asarray(block.polygon.centroid.coords[0])[None]

    def box(a: float, b: float) -> np.ndarray:
        return rectangles(centre, np.array([a]), np.array([b]), angle)

    if rng.random() < 0.5:
        strokes.add(FILL, box(length + 15, depth + 15), (164, 86, 66), owner=owner)
    strokes.add(FILL, box(length, depth), (84, 132, 66), owner=owner)
    points, _ = grid_points(box(length, depth)[0], block.angle, length / 12, depth)
    points = points[::2]
    n = len(points)
    mown = rectangles(points, np.full(n, length / 12), np.full(n, depth), np.full(n, block.angle))
    strokes.add(FILL, mown, (104, 150, 80), owner=owner, opacity=0.8)
    for a, b in ((length - 3, depth - 3), (0.7, depth - 3), (length * 0.18, depth * 0.18)):
        line = box(a, b)
        strokes.add(OUTLINE, line, (236, 236, 230), owner=owner, width_m=0.5)
    stand = centre + 0.5 * (depth + 14) * np.array([-np.sin(block.angle), np.cos(block.angle)])
    hut = rectangles(stand, np.array([length * 0.4]), np.array([7.0]), angle)
    strokes.add(SHADE, hut + SHADOW * 4, (0, 0, 0), owner=owner, opacity=0.5)
    strokes.add(FILL, hut, (200, 198, 192), owner=owner)


def _courts(strokes, owner: int, block: Block, rng: np.random.Generator) -> None:
    """Tennis courts side by side."""
    points, _ = grid_points(block.outline, block.angle, 20.0, 39.0)
    core = block.polygon.buffer(-9.0)
    points = points[shapely.contains_xy(core, points[:, 0], points[:, 1])]
    n = len(points)
    turned = np.full(n, block.angle)
    colour = np.array([[186, 104, 70], [80, 122, 88], [92, 118, 156]])[rng.integers(3)]
    strokes.add(
        FILL, rectangles(points, np.full(n, 17.0), np.full(n, 35.0), turned), colour, owner=owner
    )
    for a, b in ((10.9, 23.8), (8.2, 12.8)):
        line = rectangles(points, np.full(n, a), np.full(n, b), turned)
        strokes.add(OUTLINE, line, (236, 234, 226), owner=owner, width_m=0.4)
    trees = inside(block, rng, int(block.polygon.area / 900))
    strokes.trees(rng, trees, rng.uniform(2, 4, len(trees)), owner=owner)


def _allotments(strokes, owner: int, block: Block, rng: np.random.Generator) -> None:
    """Garden plots with beds in rows and a shed each."""
    count = max(2, round(area_m2(block.outline) / 230))
    shapes, used = subdivide(block.outline, count, block.angle)
    n = len(used)
    beds = np.array([[120, 104, 76], [96, 118, 62], [146, 132, 92], [84, 104, 58]])
    soil = beds[rng.integers(4, size=n)] * rng.normal(1, 0.08, (n, 1))
    strokes.add(FILL, shapes, soil, owner=owner, opacity=0.9, counts=used)
    strokes.add(OUTLINE, shapes, (168, 156, 128), owner=owner, width_m=0.6, counts=used)
    middle = np.array([s[:k].mean(axis=0) for s, k in zip(shapes, used, strict=True)])
    along = np.array([np.cos(block.angle), np.sin(block.angle)])
    for shift in (-3.6, -1.2, 1.2, 3.6):
        rows = rectangles(
            middle + shift * along, np.full(n, 0.9), np.full(n, 9.0), np.full(n, block.angle)
        )
        strokes.add(FILL, rows, (70, 94, 48), owner=owner, opacity=0.75)
    sheds = rectangles(
        middle + rng.uniform(-4.5, 4.5, (n, 2)),
        np.full(n, 3.0),
        np.full(n, 2.4),
        np.full(n, block.angle),
    )
    strokes.add(SHADE, sheds + SHADOW * 1.5, (0, 0, 0), owner=owner, opacity=0.45)
    strokes.add(FILL, sheds, ROOFS[rng.integers(len(ROOFS), size=n)], owner=owner)
