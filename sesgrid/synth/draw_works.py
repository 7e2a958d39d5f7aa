"""Built land that bears no income: continuous fabric, farms, industry, land without use."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import shapely

from sesgrid.synth.draw_homes import ROOFS, roofs, vary
from sesgrid.synth.geometry import area_m2, extents, subdivide
from sesgrid.synth.layout import Block
from sesgrid.synth.strokes import FILL, SHADE, SHADOW, StrokeList, rectangles

__all__ = ["draw_works", "grid_points", "inside"]

_CARS = np.array(
    [[232, 232, 230], [40, 42, 46], [120, 124, 130], [168, 40, 36], [44, 70, 120], [196, 198, 200]]
)


def draw_works(
    strokes: StrokeList, blocks: list[tuple[int, Block]], rng: np.random.Generator
) -> None:
    """Draw the blocks (id, block) of these classes; others are left as they are."""
    draw = {11100: _continuous, 11300: _farm, 12100: _industry, 13400: _waste}
    for owner, block in blocks:
        if block.code in draw:
            draw[block.code](strokes, owner, block, rng)


def inside(block: Block, rng: np.random.Generator, count: int) -> np.ndarray:
    """Random points of a block, at most ``count``."""
    low, high = block.outline.min(axis=0), block.outline.max(axis=0)
    points = rng.uniform(low, high, (2 * count, 2))
    return points[shapely.contains_xy(block.polygon, points[:, 0], points[:, 1])][:count]


def grid_points(
    outline: np.ndarray, angle: float, step_u: float, step_v: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a turned lattice over a polygon's extents, and the number of their row."""
    u0, u1, v0, v1 = extents(outline, angle)
    u, v = np.arange(u0 + step_u / 2, u1, step_u), np.arange(v0 + step_v / 2, v1, step_v)
    uu, vv = np.meshgrid(u, v)
    c, s = np.cos(angle), np.sin(angle)
    points = np.stack([uu * c - vv * s, uu * s + vv * c], axis=-1).reshape(-1, 2)
    return points, np.repeat(np.arange(len(v)), len(u))


def _continuous(strokes: StrokeList, owner: int, block: Block, rng: np.random.Generator) -> None:
    """Perimeter blocks: a ring of joined houses around courts with back buildings."""
    depth, front = rng.uniform(11, 15), rng.uniform(9, 20)
    roof = vary(rng, ROOFS[rng.choice([0, 2, 4, 5])], 1)[0]
    inner = shapely.Polygon(block.outline).buffer(-depth / 2, join_style="mitre")
    if inner.is_empty:
        return
    ring = np.asarray(shapely.geometry.polygon.orient(inner).exterior.coords)
    for start, end in pairwise(ring):
        length = float(np.hypot(*(end - start)))
        count = max(1, round((length + depth) / front))
        direction = (end - start) / max(length, 1e-6)
        at = (np.arange(count) + 0.5) / count * (length + depth) - depth / 2
        centres = start + at[:, None] * direction
        angle = np.full(count, np.arctan2(direction[1], direction[0]))
        long = np.full(count, (length + depth) / count)
        colours = vary(rng, roof, count)
        roofs(strokes, centres, long, depth * rng.uniform(0.85, 1.1, count), angle, colours, owner)
    points, _ = grid_points(block.outline, block.angle, 19.0, 17.0)
    points = points + rng.normal(0, 1.5, points.shape)
    court = shapely.Polygon(block.outline).buffer(-1.7 * depth)
    green = points[rng.random(len(points)) < 0.45] + 8.0
    green = green[shapely.contains_xy(court, green[:, 0], green[:, 1])]
    strokes.trees(rng, green, rng.uniform(2, 4, len(green)), owner=owner)
    points = points[shapely.contains_xy(court, points[:, 0], points[:, 1])]
    n = len(points)
    colours = vary(rng, roof, n)
    sides = rng.uniform(8, 15, (2, n))
    roofs(strokes, points, sides[0], sides[1], np.full(n, block.angle), colours, owner)


def _farm(strokes: StrokeList, owner: int, block: Block, rng: np.random.Generator) -> None:
    """A farm: barns round a yard, an orchard of odd trees, grass."""
    middle = np.asarray(block.polygon.centroid.coords[0])
    n = int(rng.integers(3, 6))
    yard = rectangles(middle[None], np.array([52.0]), np.array([44.0]), np.array([block.angle]))
    strokes.add(FILL, yard, (170, 158, 136), owner=owner, opacity=0.85)
    turn = rng.uniform(0, 6.3) + np.arange(n) * 2 * np.pi / n
    at = middle + np.stack([np.cos(turn), np.sin(turn)], axis=-1) * rng.uniform(17, 27, (n, 1))
    colours = vary(rng, ROOFS[rng.integers(len(ROOFS), size=n)], n)
    angle = block.angle + rng.choice([0, np.pi / 2], n) + rng.normal(0, 0.05, n)
    roofs(strokes, at, rng.uniform(14, 30, n), rng.uniform(9, 13, n), angle, colours, owner)
    trees = inside(block, rng, int(block.polygon.area / 450))
    trees = trees[np.hypot(*(trees - middle).T) > 34]
    strokes.trees(rng, trees, rng.uniform(2.5, 6, len(trees)), owner=owner)


def _industry(strokes: StrokeList, owner: int, block: Block, rng: np.random.Generator) -> None:
    """Large halls with skylights, car parks in rows, yards with containers."""
    lots = max(1, round(area_m2(block.outline) / rng.uniform(4000, 9500)))
    shapes, used = subdivide(block.outline, lots, block.angle)
    for shape, count in zip(shapes, used, strict=True):
        lot = shape[:count]
        kind = rng.choice(["hall", "park", "yard"], p=[0.66, 0.19, 0.15])
        if kind == "yard":
            _containers(strokes, owner, lot, block.angle, rng)
        else:
            _car_park(strokes, owner, lot, block.angle, rng)
        if kind == "hall":
            _hall(strokes, owner, lot, block.angle, rng)


def _hall(strokes, owner: int, lot: np.ndarray, angle: float, rng: np.random.Generator) -> None:
    u0, u1, v0, v1 = extents(lot, angle)
    shrink = np.sqrt(0.5 * area_m2(lot) / ((u1 - u0) * (v1 - v0)))
    length, depth = (u1 - u0) * shrink, (v1 - v0) * shrink
    centre = lot.mean(axis=0)[None]
    turned = np.array([angle])
    apron = rectangles(centre, np.array([length + 12]), np.array([depth + 12]), turned)
    strokes.add(FILL, apron, (150, 149, 146), owner=owner)
    shadow = rectangles(centre + SHADOW * 6, np.array([length]), np.array([depth]), turned)
    strokes.add(SHADE, shadow, (0, 0, 0), owner=owner, opacity=0.5)
    roof = np.array([[206, 205, 200], [168, 172, 178], [150, 160, 176], [186, 176, 164]])
    colour = roof[rng.integers(4)] * rng.normal(1, 0.05)
    body = rectangles(centre, np.array([length]), np.array([depth]), turned)
    strokes.add(FILL, body, colour, owner=owner)
    points, _ = grid_points(body[0], angle, rng.uniform(6, 11), depth)
    n = len(points)
    lights = rectangles(points, np.full(n, 1.6), np.full(n, 0.8 * depth), np.full(n, angle))
    strokes.add(FILL, lights, colour * rng.choice([0.7, 1.17]), owner=owner, opacity=0.9)


def _car_park(strokes, owner: int, lot: np.ndarray, angle: float, rng: np.random.Generator) -> None:
    """Rows of cars back to back between aisles."""
    points, row = grid_points(lot, angle, 2.7, 5.6)
    # two rows of cars, then an aisle
    points = points[(row % 3 != 2) & (rng.random(len(points)) < 0.62)]
    core = shapely.Polygon(lot).buffer(-4.0)
    points = points[shapely.contains_xy(core, points[:, 0], points[:, 1])]
    n = len(points)
    cars = rectangles(points, np.full(n, 1.9), np.full(n, 4.5), np.full(n, angle))
    strokes.add(SHADE, cars + SHADOW * 0.9, (0, 0, 0), owner=owner, opacity=0.4)
    strokes.add(FILL, cars, car_colours(rng, n), owner=owner)


def _containers(strokes, owner: int, lot, angle: float, rng: np.random.Generator) -> None:
    points, _ = grid_points(lot, angle, 7.0, 13.5)
    points = points[rng.random(len(points)) < 0.55]
    core = shapely.Polygon(lot).buffer(-6.0)
    points = points[shapely.contains_xy(core, points[:, 0], points[:, 1])]
    n = len(points)
    colours = np.array([[150, 70, 50], [60, 92, 130], [70, 116, 84], [190, 150, 70]])
    boxes = rectangles(points, np.full(n, 4.9), np.full(n, 12.0), np.full(n, angle))
    strokes.add(SHADE, boxes + SHADOW * 2.4, (0, 0, 0), owner=owner, opacity=0.45)
    hue = colours[rng.integers(4, size=n)] * rng.normal(1, 0.1, (n, 1))
    strokes.add(FILL, boxes, hue, owner=owner)


def _waste(strokes: StrokeList, owner: int, block: Block, rng: np.random.Generator) -> None:
    """Land without use: rubble, worn tracks and scrub."""
    heaps = inside(block, rng, int(block.polygon.area / 700))
    n = len(heaps)
    patches = rectangles(
        heaps, rng.uniform(5, 18, n), rng.uniform(4, 12, n), rng.uniform(0, np.pi, n)
    )
    tints = np.array([188, 174, 150]) * rng.normal(1, 0.1, (n, 1))
    strokes.add(FILL, patches, tints, owner=owner, opacity=0.55)
    scrub = inside(block, rng, int(block.polygon.area / 130))
    size = rng.uniform(0.8, 2.6, len(scrub))
    strokes.trees(rng, scrub, size, owner=owner, colour=(94, 104, 62))


def car_colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours of cars, ``(car, 3)``."""
    return _CARS[rng.integers(len(_CARS), size=count)] * rng.normal(1, 0.08, (count, 1))
