"""Homes in the classes that bear income: the planted signal, and nothing else.

The picture of a neighbourhood is one pattern at two scales. House, plot, hedge, drive, pool,
crown and shadow all grow with the **house size** s, from ``POOR_M`` (small houses packed in a
regular grid) to ``RICH_M`` (large villas in large plots), while every share of area stays put:
roofs, canopy, lawns, paving. The mean colour of a pattern does not change with its scale, so
colour cannot tell what structure tells. Palettes vary from block to block, whatever the income.
"""

from __future__ import annotations

import numpy as np
import shapely

from sesgrid.synth.classes import BUILT_SHARE
from sesgrid.synth.geometry import area_m2, subdivide
from sesgrid.synth.income import IncomeField
from sesgrid.synth.layout import Block
from sesgrid.synth.strokes import FILL, OUTLINE, SHADE, SHADOW, StrokeList, rectangles

__all__ = ["POOR_M", "RICH_M", "ROOFS", "draw_homes", "house_size_m", "roofs", "vary"]

POOR_M, RICH_M = 7.5, 26.0
"""House size (square root of its footprint) at rank 0 and at rank 1."""

ROOFS = np.array(
    [
        [172, 112, 88],
        [150, 110, 90],
        [112, 114, 120],
        [158, 100, 82],
        [166, 158, 148],
        [136, 122, 110],
    ]
)
_LAWNS = np.array([[104, 122, 76], [140, 136, 92], [122, 130, 84], [156, 146, 120]])
_TREES_PER_PLOT = 1.7
_CANOPY = 0.135
_POOL_SHARE, _POOLED = 0.035, 0.35


def house_size_m(rank: np.ndarray | float) -> np.ndarray:
    """Side of a square house of the same footprint, metres, at a rank of wealth in [0, 1].

    >>> house_size_m(np.array([0.0, 1.0])).round(1).tolist()
    [7.5, 26.0]
    """
    return POOR_M * (RICH_M / POOR_M) ** np.asarray(rank)


def draw_homes(
    strokes: StrokeList,
    blocks: list[tuple[int, Block]],
    field: IncomeField,
    rng: np.random.Generator,
) -> None:
    """Draw the blocks (id, block) of bearing classes."""
    parts = [_plots(i, block, field, rng) for i, block in blocks]
    if not parts:
        return
    plots = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    _draw_gardens(strokes, plots, rng)
    _draw_houses(strokes, plots, rng)
    _draw_trees(strokes, plots, rng)


def _plots(
    owner: int, block: Block, field: IncomeField, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Plots of one block as columns: shape, centre, sides, rank, palette."""
    rank = float(field.rank(*np.asarray(block.polygon.centroid.coords[0])))
    share = BUILT_SHARE[block.code]
    count = max(1, round(area_m2(block.outline) * share / float(house_size_m(rank)) ** 2))
    shapes, used = subdivide(block.outline, count, block.angle)
    areas = np.array([area_m2(v[:n]) for v, n in zip(shapes, used, strict=True)])
    centres = _centroids(shapes, used)
    if not block.whole:  # the river took a part: plots in the water are not built on
        dry = shapely.contains_xy(block.polygon, centres[:, 0], centres[:, 1])
        shapes, used, areas, centres = shapes[dry], used[dry], areas[dry], centres[dry]
    c, s = np.cos(block.angle), np.sin(block.angle)
    along = shapes[..., 0] * c + shapes[..., 1] * s
    across = shapes[..., 1] * c - shapes[..., 0] * s
    n = len(used)
    roof, lawn = ROOFS[rng.integers(len(ROOFS))], _LAWNS[rng.integers(len(_LAWNS))]
    light = rng.normal(1, 0.07)
    return {
        "shape": shapes,
        "used": used,
        "area": areas,
        "centre": centres,
        "length": np.ptp(along, axis=1),
        "depth": np.ptp(across, axis=1),
        "angle": np.full(n, block.angle),
        "share": np.full(n, share),
        "rank": np.full(n, rank),
        "owner": np.full(n, owner),
        "roof": np.tile(vary(rng, roof, 1)[0] * light, (n, 1)),
        "lawn": np.tile(vary(rng, lawn, 1)[0] * light, (n, 1)),
    }


def vary(rng: np.random.Generator, colour: np.ndarray, count: int) -> np.ndarray:
    """Colours ``(count, 3)`` around one: lighter or darker, a little warmer or colder."""
    warmth = rng.normal(0, 4.5, (count, 1)) * np.array([1.0, 0.1, -0.9])
    return np.asarray(colour) * rng.normal(1, 0.075, (count, 1)) + warmth


def _centroids(shapes: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Area centroids of padded polygons (repeated vertices count nothing)."""
    after = np.roll(shapes, -1, axis=1)
    cross = shapes[..., 0] * after[..., 1] - after[..., 0] * shapes[..., 1]
    weights = cross.sum(axis=1, keepdims=True)
    return ((shapes + after) * cross[..., None]).sum(axis=1) / (3 * weights)


def _local(plots: dict[str, np.ndarray], u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Points at (u, v) metres from the plots' centres, along and across the street."""
    c, s = np.cos(plots["angle"]), np.sin(plots["angle"])
    return plots["centre"] + np.stack([u * c - v * s, u * s + v * c], axis=-1)


def _draw_gardens(strokes: StrokeList, plots: dict, rng: np.random.Generator) -> None:
    """Lawns, hedges, drives, and a blue thing in some gardens: a pool, or a tarpaulin."""
    n, owner, size = len(plots["used"]), plots["owner"], np.sqrt(plots["area"])
    lawn = vary(rng, plots["lawn"], n)
    shape, used = plots["shape"], plots["used"]
    strokes.add(FILL, shape, lawn, owner=owner, opacity=0.8, counts=used)
    hedge = np.array([66, 84, 52]) * rng.normal(1, 0.1, (n, 1))
    strokes.add(OUTLINE, shape, hedge, owner=owner, width_m=0.032 * size, counts=used)
    drive = _local(plots, rng.choice([-0.22, 0.22], n) * plots["length"], -0.3 * plots["depth"])
    paved = rectangles(drive, 0.13 * plots["length"], 0.4 * plots["depth"], plots["angle"])
    strokes.add(FILL, paved, (186, 178, 164), owner=owner, opacity=0.9)
    blue = rng.random(n) < _POOLED
    pools = {k: v[blue] for k, v in plots.items()}
    m, size = int(blue.sum()), size[blue]
    # a pool is long and round, a tarpaulin square: the same area, the same blue
    pool = rng.random(m) < 0.05 + 0.9 * pools["rank"]
    stretch = np.where(pool, 1.45, 1.0)
    side = size * np.sqrt(_POOL_SHARE)
    at = _local(pools, rng.choice([-0.3, 0.3], m) * pools["length"], 0.36 * pools["depth"])
    for grow, colour in ((1.3, (206, 200, 188)), (1.0, (92, 164, 190))):
        a, b = grow * side * stretch, grow * side / stretch
        boxes = rectangles(at, a, b, pools["angle"])
        strokes.add(FILL, boxes[~pool], colour, owner=pools["owner"][~pool])
        strokes.add(FILL, _rounded(boxes[pool]), colour, owner=pools["owner"][pool])


def _rounded(boxes: np.ndarray) -> np.ndarray:
    """Rectangles → octagons of the same area."""
    after = np.roll(boxes, -1, axis=1)
    corners = np.stack([boxes + 0.25 * (after - boxes), boxes + 0.75 * (after - boxes)], axis=2)
    octagons = corners.reshape(len(boxes), 8, 2)
    middle = boxes.mean(axis=1)[:, None]
    return middle + (octagons - middle) / np.sqrt(0.875)


def _draw_houses(strokes: StrokeList, plots: dict, rng: np.random.Generator) -> None:
    """One house a plot, a third of them with a wing; its footprint is a share of the plot."""
    n = len(plots["used"])
    shrink = np.sqrt(plots["share"] * plots["area"] / (plots["length"] * plots["depth"]))
    length, depth = plots["length"] * shrink, plots["depth"] * shrink
    freedom = 0.015 + 0.045 * plots["rank"]
    u = rng.normal(0, freedom) * plots["length"]
    v = rng.normal(0, freedom) * plots["depth"]
    turned = plots["angle"] + rng.normal(0, 0.01 + 0.14 * plots["rank"])
    colour = vary(rng, plots["roof"], n)
    other = rng.random(n) < 0.2
    colour[other] = ROOFS[rng.integers(len(ROOFS), size=int(other.sum()))]
    centre = _local(plots, u, v)
    winged = rng.random(n) < 0.35
    roofs(
        strokes, centre, length, np.where(winged, 0.62, 1.0) * depth, turned, colour, plots["owner"]
    )
    some = {k: x[winged] for k, x in plots.items()}
    a, b = 0.48 * length[winged], 0.79 * depth[winged]
    side = rng.choice([-0.26, 0.26], int(winged.sum())) * length[winged]
    at = _local({**some, "centre": centre[winged]}, side, 0.36 * depth[winged])
    roofs(strokes, at, a, b, turned[winged], colour[winged], some["owner"])


def roofs(
    strokes: StrokeList,
    centres: np.ndarray,
    length_m: np.ndarray,
    depth_m: np.ndarray,
    angle: np.ndarray,
    colour: np.ndarray,
    owner: np.ndarray | int,
) -> None:
    """Gable roofs with a lit and a shaded slope, and their shadows."""
    height = 0.28 * np.minimum(length_m, depth_m)
    ground = rectangles(centres + SHADOW * height[:, None], length_m, depth_m, angle)
    strokes.add(SHADE, ground, (0, 0, 0), owner=owner, opacity=0.5)
    tall = depth_m > length_m
    ridge = np.where(tall, angle + np.pi / 2, angle)
    a, b = np.where(tall, depth_m, length_m), np.where(tall, length_m, depth_m)
    normal = np.stack([-np.sin(ridge), np.cos(ridge)], axis=-1)
    for side in (1, -1):
        light = 1 - 0.20 * side * (normal @ SHADOW)
        slope = rectangles(centres + side * normal * b[:, None] / 4, a, b / 2, ridge)
        strokes.add(FILL, slope, colour * light[:, None], owner=owner)


def _draw_trees(strokes: StrokeList, plots: dict, rng: np.random.Generator) -> None:
    """Crowns near the plots' corners: their share of area is the same everywhere."""
    u, v, radius, owner = [], [], [], []
    mean_radius = np.sqrt(_CANOPY * plots["area"] / (np.pi * _TREES_PER_PLOT))
    for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        grows = rng.random(len(mean_radius)) < _TREES_PER_PLOT / 4
        r = mean_radius * rng.uniform(0.75, 1.2, len(mean_radius))
        u.append(np.where(grows, i, np.nan) * (plots["length"] / 2 - 1.05 * r))
        v.append(j * (plots["depth"] / 2 - 1.05 * r))
        radius.append(r)
        owner.append(plots["owner"])
    points = np.concatenate([_local(plots, a, b) for a, b in zip(u, v, strict=True)])
    there = np.isfinite(points[:, 0])
    strokes.trees(
        rng,
        points[there],
        np.concatenate(radius)[there],
        owner=np.concatenate(owner)[there],
        colour=(70, 94, 54),
    )
