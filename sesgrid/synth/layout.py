"""The land-use plan: a town of straight cuts, its linear features, and a class for every block.

Local metres: x east, y north of the city's south-west corner, in EPSG:3035. The plan reaches
``MARGIN_M`` beyond the city's square, so that the picture has no edge where the city ends.
Nothing here knows the income.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import shapely

from sesgrid.grid import CELL_M
from sesgrid.synth.classes import BEARING, DECK
from sesgrid.synth.geometry import area_m2, cut, extents

__all__ = ["MARGIN_M", "Block", "Layout", "cell_shares", "make_layout"]

MARGIN_M = 260.0
_DISTRICT_M2 = 640.0**2
_BLOCK_M2 = 19_500.0
_STREET_M, _AVENUE_M = 9.0, 17.0
_MOTORWAY_M, _RAILWAY_M = 34.0, 20.0
_VERGE_M = 2.0
_MIN_BLOCK_M2 = 1_200.0
_LATTICE_M = 1 / 1024
"""Vertices lie on this lattice: a binary fraction, so that moving a polygon by whole metres is
exact and keeps it valid."""
_MIN_BEARING = 0.30


@dataclass(frozen=True)
class Block:
    """One street block: a land-use patch with a single class."""

    outline: np.ndarray
    """float64 ``(vertex, 2)``, convex; the hull where the river cuts the block."""
    polygon: shapely.Polygon
    """What the land cover says, local metres."""
    angle: float
    """Direction of its streets, radians."""
    code: int = 0
    zone: str = "town"

    @property
    def whole(self) -> bool:
        """Whether the outline is the polygon."""
        return self.polygon.area > 0.995 * area_m2(self.outline)


@dataclass
class Layout:
    """Everything the picture and the land cover are drawn from."""

    side_m: float
    blocks: list[Block] = field(default_factory=list)
    linear: list[tuple[int, shapely.Geometry]] = field(default_factory=list)
    """(code, polygon) of motorway, railway, water and the street network."""
    streets: list[tuple[np.ndarray, np.ndarray, float]] = field(default_factory=list)
    """(start, end, width_m) of the axes of streets and avenues."""
    motorway: tuple[np.ndarray, np.ndarray] | None = None
    """Axis, start and end."""
    railway: tuple[np.ndarray, np.ndarray] | None = None

    def polygons(self) -> tuple[np.ndarray, np.ndarray]:
        """All land-use polygons: geometries (object) and codes (int64); no gap, no overlap."""
        parts = [(b.code, b.polygon) for b in self.blocks] + self.linear
        return (
            np.array([p for _, p in parts], dtype=object),
            np.array([c for c, _ in parts], dtype=np.int64),
        )


def _chord(outline: np.ndarray, normal: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a line enters and leaves a convex polygon."""
    d = outline @ normal - offset
    ends = []
    for i in range(len(outline)):
        j = (i + 1) % len(outline)
        if (d[i] <= 0) != (d[j] <= 0):
            t = d[i] / (d[i] - d[j])
            ends.append(outline[i] + t * (outline[j] - outline[i]))
    return ends[0], ends[1]


def _split(
    outline: np.ndarray, angle: float, share: float, width_m: float, streets: list
) -> list[np.ndarray]:
    """Lay a street across the longer side of a convex piece, and note its axis."""
    u0, u1, v0, v1 = extents(outline, angle)
    if u1 - u0 >= v1 - v0:
        normal, offset = np.array([np.cos(angle), np.sin(angle)]), u0 + share * (u1 - u0)
    else:
        normal, offset = np.array([-np.sin(angle), np.cos(angle)]), v0 + share * (v1 - v0)
    start, end = _chord(outline, normal, offset)
    streets.append((start, end, width_m))
    return cut(outline, normal, float(offset), width_m)


def _longest_edge_angle(outline: np.ndarray) -> float:
    edges = np.roll(outline, -1, axis=0) - outline
    dx, dy = edges[np.argmax((edges**2).sum(axis=1))]
    return float(np.arctan2(dy, dx))


def _band(domain: np.ndarray, normal: np.ndarray, offset: float, width_m: float):
    """Strip across the domain as a polygon, and its axis."""
    start, end = _chord(domain, normal, offset)
    strip = shapely.LineString([2 * start - end, 2 * end - start]).buffer(
        width_m / 2, cap_style="flat"
    )
    return strip.intersection(shapely.Polygon(domain)), (start, end)


def _river(rng: np.random.Generator, side_m: float, heading: float) -> shapely.Geometry:
    """A winding band across the whole domain."""
    along = np.linspace(-side_m, 2 * side_m, 160)
    swing = side_m * 0.07
    across = (
        rng.uniform(-0.12, 0.12) * side_m
        + swing * np.sin(2 * np.pi * along / (side_m * 0.85) + rng.uniform(0, 6))
        + 0.4 * swing * np.sin(2 * np.pi * along / (side_m * 0.31) + rng.uniform(0, 6))
    )
    c, s = np.cos(heading), np.sin(heading)
    middle = side_m / 2
    x = middle + (along - middle) * c - across * s
    y = middle + (along - middle) * s + across * c
    return shapely.LineString(np.column_stack([x, y])).buffer((20 + 0.009 * side_m) / 2)


def _districts(
    rng: np.random.Generator, pieces: list[np.ndarray], streets: list
) -> list[np.ndarray]:
    """Avenues: cut until a district measures about 0.5 km."""
    done, todo = [], list(pieces)
    while todo:
        piece = todo.pop()
        if area_m2(piece) < _DISTRICT_M2:
            done.append(piece)
            continue
        angle = _longest_edge_angle(piece) + rng.uniform(-0.22, 0.22)
        todo += _split(piece, angle, rng.uniform(0.42, 0.58), _AVENUE_M, streets)
    return done


def _street_blocks(
    rng: np.random.Generator, districts: list[np.ndarray], streets: list
) -> list[tuple[np.ndarray, float]]:
    """Streets: cut each district, in its own direction, into blocks of 80 to 180 m."""
    blocks = []
    for district in districts:
        angle = _longest_edge_angle(district)
        todo = [district]
        while todo:
            piece = todo.pop()
            if area_m2(piece) > _BLOCK_M2 * rng.uniform(0.85, 1.35):
                todo += _split(piece, angle, rng.uniform(0.42, 0.58), _STREET_M, streets)
            elif area_m2(piece) > _MIN_BLOCK_M2:
                blocks.append((piece, angle))
    return blocks


def _cut_by_river(blocks: list[tuple[np.ndarray, float]], river: shapely.Geometry) -> list[Block]:
    """Blocks as polygons, less the river and its quays."""
    quays = river.buffer(7.0)
    shapely.prepare(quays)
    out = []
    for outline, angle in blocks:
        polygon = shapely.set_precision(shapely.Polygon(outline), _LATTICE_M)
        if not quays.intersects(polygon):
            out.append(Block(outline, polygon, angle))
            continue
        for part in shapely.get_parts(polygon.difference(quays, grid_size=_LATTICE_M)):
            if part.area > 2 * _MIN_BLOCK_M2:
                hull = shapely.geometry.polygon.orient(part.convex_hull)
                out.append(Block(np.asarray(hull.exterior.coords)[:-1], part, angle))
    return out


def _zones(rng: np.random.Generator, side_m: float, blocks: list[Block]) -> list[Block]:
    """Three places where nobody lives: a park, an industrial estate and farmland."""
    corner = rng.permutation([[0.07, 0.07], [0.93, 0.07], [0.07, 0.93], [0.93, 0.93]])
    centres = {
        "farmland": (corner[0], 0.165),
        "industry": (0.5 + (corner[1] - 0.5) * rng.uniform(0.55, 0.75), 0.112),
        "park": (0.5 + (corner[2] - 0.5) * rng.uniform(0.3, 0.5), 0.100),
    }
    codes = {"farmland": (21000, 21000, 31000), "industry": (12100,), "park": (14100,)}
    out = []
    for block in blocks:
        centre = np.asarray(block.polygon.centroid.coords[0]) / side_m
        for zone, (middle, radius) in centres.items():
            if np.hypot(*(centre - middle)) < radius:
                code = codes[zone][rng.integers(len(codes[zone]))]
                block = replace(block, zone=zone, code=int(code))
                break
        out.append(block)
    return out


def _deal_classes(rng: np.random.Generator, blocks: list[Block]) -> list[Block]:
    """Give the town's blocks their classes from a shuffled deck."""
    town = [i for i, b in enumerate(blocks) if b.zone == "town"]
    codes = np.array(list(DECK))
    edges = np.cumsum(list(DECK.values()))
    places = (rng.permutation(len(town)) + 0.5) / max(len(town), 1)
    dealt = codes[np.searchsorted(edges, places * edges[-1])]
    out = list(blocks)
    for i, code in zip(town, dealt, strict=True):
        out[i] = replace(out[i], code=int(code))
    return out


def _enough_homes(rng: np.random.Generator, blocks: list[Block], cells: int) -> list[Block]:
    """Turn a block into homes wherever a town cell has too few of them."""
    blocks = list(blocks)
    cell_boxes = _cell_boxes(cells)
    tree = shapely.STRtree([b.polygon for b in blocks])
    order = rng.permutation(len(cell_boxes))
    for k in order:
        near = [int(i) for i in tree.query(cell_boxes[k], predicate="intersects")]
        sizes = {i: blocks[i].polygon.intersection(cell_boxes[k]).area for i in near}
        bearing = sum(a for i, a in sizes.items() if blocks[i].code in BEARING)
        others = [i for i in near if blocks[i].zone == "town" and blocks[i].code not in BEARING]
        zoned = sum(a for i, a in sizes.items() if blocks[i].zone != "town")
        if zoned > 0.5 * CELL_M**2:
            continue
        while bearing < _MIN_BEARING * CELL_M**2 and others:
            i = max(others, key=sizes.__getitem__)
            others.remove(i)
            bearing += sizes[i]
            blocks[i] = replace(blocks[i], code=int(rng.choice(BEARING)))
    return blocks


def _lake(layout: Layout) -> None:
    """Put a pond in the largest block of the park; the block keeps a hole."""
    parks = [i for i, b in enumerate(layout.blocks) if b.zone == "park" and b.whole]
    if not parks:
        return
    i = max(parks, key=lambda k: layout.blocks[k].polygon.area)
    block = layout.blocks[i]
    pond = block.polygon.buffer(-38.0).buffer(22.0, quad_segs=12)
    pond = shapely.set_precision(pond, _LATTICE_M)
    if pond.is_empty:
        return
    layout.blocks[i] = replace(block, polygon=block.polygon.difference(pond, grid_size=_LATTICE_M))
    layout.linear.append((50000, pond))


def _add_network(layout: Layout, domain: np.ndarray, corridors: dict) -> None:
    """Motorway, railway, river under its bridges, and the streets: all that is not a block."""
    motorway, railway, river = corridors["motorway"], corridors["railway"], corridors["river"]
    grid = {"grid_size": _LATTICE_M}
    motorway = shapely.set_precision(motorway, _LATTICE_M)
    railway = railway.difference(motorway, **grid)
    bridges = shapely.union_all(
        [
            shapely.LineString([a, b]).buffer(w / 2, cap_style="flat")
            for a, b, w in layout.streets
            if w == _AVENUE_M
        ]
    )
    box = shapely.Polygon(domain)
    over = shapely.union_all([motorway, railway, bridges], **grid)
    river = river.intersection(box, **grid).difference(over, **grid)
    solid = [b.polygon for b in layout.blocks] + [motorway, railway, river]
    roads = box.difference(shapely.union_all(solid, **grid), **grid)
    for code, shape in ((12210, motorway), (12230, railway), (50000, river)):
        layout.linear += [(code, part) for part in shapely.get_parts(shape)]
    steps = np.arange(domain.min(), domain.max() + 1000.0, 1000.0)
    for x in steps[:-1]:
        for y in steps[:-1]:
            piece = roads.intersection(shapely.box(x, y, x + 1000.0, y + 1000.0), **grid)
            layout.linear += [
                (12220, p) for p in shapely.get_parts(piece) if p.geom_type == "Polygon"
            ]


def _share_borders(layout: Layout) -> None:
    """Give neighbours the same vertices along their common border.

    Rounding to the lattice leaves cracks of a millimetre where one polygon's vertex meets the
    middle of another's edge. All borders are noded together and made into faces anew; a crack
    goes to the polygon beside it.
    """
    polygons, codes = layout.polygons()
    # the city's own border is noded too, so that clipping there later moves no vertex
    square = shapely.box(0, 0, layout.side_m, layout.side_m)
    borders = shapely.boundary([*polygons, square])
    lines = shapely.union_all(borders, grid_size=_LATTICE_M)
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    tree = shapely.STRtree(polygons)
    source = tree.nearest(shapely.point_on_surface(faces))
    whole = [shapely.coverage_union_all(faces[source == i]) for i in range(len(polygons))]
    n = len(layout.blocks)
    layout.blocks = [replace(b, polygon=p) for b, p in zip(layout.blocks, whole[:n], strict=True)]
    layout.linear = [
        (int(c), part)
        for c, shape in zip(codes[n:], whole[n:], strict=True)
        for part in shapely.get_parts(shape)
    ]


def make_layout(cells: int, rng: np.random.Generator) -> Layout:
    """Plan a city of ``cells`` × ``cells`` census cells.

    Parameters
    ----------
    cells : int
        Cells along one side.
    rng : np.random.Generator
        Used by nothing else, so that the plan cannot follow the income.
    """
    side_m = float(cells * CELL_M)
    layout = Layout(side_m)
    low, high = -MARGIN_M, side_m + MARGIN_M
    domain = np.array([[low, low], [high, low], [high, high], [low, high]])
    heading = rng.uniform(0.15, 0.5) + np.pi / 2 * rng.integers(4)
    pieces = [domain]
    corridors: dict[str, shapely.Geometry] = {}
    for name, turn, shift, width in (
        ("motorway", heading, 0.3, _MOTORWAY_M),
        ("railway", heading + rng.uniform(1.2, 1.8), 0.2, _RAILWAY_M),
    ):
        normal = np.array([-np.sin(turn), np.cos(turn)])
        offset = float(normal @ [side_m / 2, side_m / 2] + shift * side_m)
        corridors[name], axis = _band(domain, normal, offset, width)
        setattr(layout, name, axis)
        pieces = [q for p in pieces for q in cut(p, normal, offset, width + 2 * _VERGE_M)]
    corridors["river"] = _river(rng, side_m, heading + rng.uniform(-0.3, 0.3))
    districts = _districts(rng, pieces, layout.streets)
    blocks = _cut_by_river(_street_blocks(rng, districts, layout.streets), corridors["river"])
    blocks = _deal_classes(rng, _zones(rng, side_m, blocks))
    layout.blocks = _enough_homes(rng, blocks, cells)
    _add_network(layout, domain, corridors)
    _lake(layout)
    _share_borders(layout)
    return layout


def _cell_boxes(cells: int) -> np.ndarray:
    """Cell squares in local metres, row by row from the north-west, ``(cell,)``."""
    top, left = np.divmod(np.arange(cells * cells), cells)
    south, west = (cells - 1 - top) * CELL_M, left * CELL_M
    return shapely.box(west, south, west + CELL_M, south + CELL_M)


def cell_shares(
    polygons: np.ndarray, codes: np.ndarray, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Share of every class in every cell.

    Returns
    -------
    shares : np.ndarray
        float64 ``(cell, class)``, cells row by row from the north-west.
    classes : np.ndarray
        int64 ``(class,)``, the codes, ascending.
    """
    boxes = _cell_boxes(cells)
    classes = np.unique(codes)
    cell, shape = shapely.STRtree(polygons).query(boxes, predicate="intersects")
    areas = shapely.area(shapely.intersection(boxes[cell], polygons[shape])) / CELL_M**2
    shares = np.zeros((len(boxes), len(classes)))
    np.add.at(shares, (cell, np.searchsorted(classes, codes[shape])), areas)
    return shares, classes
