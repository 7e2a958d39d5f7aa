"""Streets, motorway and railway: markings, vehicles, tracks, street trees."""

from __future__ import annotations

import numpy as np

from sesgrid.synth.draw_works import car_colours
from sesgrid.synth.layout import Layout
from sesgrid.synth.strokes import FILL, SHADE, SHADOW, StrokeList, rectangles, strip

__all__ = ["draw_ways"]

_ROADS, _MOTORWAY, _RAILWAY = -12220, -12210, -12230


def draw_ways(strokes: StrokeList, layout: Layout, rng: np.random.Generator) -> None:
    """Draw over the ground of the network; the owners are its three classes."""
    for start, end, width_m in layout.streets:
        _street(strokes, start, end, width_m, rng)
    if layout.motorway is not None:
        _motorway(strokes, *layout.motorway, rng)
    if layout.railway is not None:
        _railway(strokes, *layout.railway, rng)


def _street(strokes, start, end, width_m: float, rng: np.random.Generator) -> None:
    wide = width_m > 12
    if wide:
        dashes = strip(start, end, 0.0, 0.35, 9.0, 3.5)
        strokes.add(FILL, dashes, (214, 212, 206), owner=_ROADS, opacity=0.9)
    vector = end - start
    for side in (-1, 1):
        lane = strip(start, end, side * (width_m / 2 - 3.2), 1.9, 6.6, 4.5)
        lane = lane[rng.random(len(lane)) < 0.33]
        strokes.add(SHADE, lane + SHADOW * 0.9, (0, 0, 0), owner=_ROADS, opacity=0.35)
        strokes.add(FILL, lane, car_colours(rng, len(lane)), owner=_ROADS)
        if wide:
            length = float(np.hypot(*vector))
            at = np.arange(6.0, length - 6.0, 11.0)
            at = at[rng.random(len(at)) < 0.75]
            left = np.array([-vector[1], vector[0]]) / length
            points = start + at[:, None] * vector / length + side * (width_m / 2 - 1.6) * left
            radius = rng.uniform(1.9, 3.2, len(at))
            strokes.trees(rng, points, radius, owner=_ROADS, colour=(78, 100, 58))


def _motorway(strokes, start, end, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        lanes = strip(start, end, side * 7.2, 11.0, 30.0, 30.6)
        strokes.add(FILL, lanes, (128, 127, 126), owner=_MOTORWAY)
        for offset, step, on in ((2.2, 30.0, 30.6), (5.4, 13.0, 4.0), (9.0, 13.0, 4.0)):
            lines = strip(start, end, side * offset, 0.4, step, on)
            strokes.add(FILL, lines, (222, 220, 214), owner=_MOTORWAY, opacity=0.9)
        for offset, length, width, share in ((3.8, 4.6, 2.0, 0.2), (10.6, 14.0, 2.7, 0.14)):
            cars = strip(start, end, side * offset, width, 26.0, length)
            cars = cars[rng.random(len(cars)) < share]
            strokes.add(SHADE, cars + SHADOW * 1.4, (0, 0, 0), owner=_MOTORWAY, opacity=0.4)
            strokes.add(FILL, cars, car_colours(rng, len(cars)), owner=_MOTORWAY)
    barrier = strip(start, end, 0.0, 0.9, 30.0, 30.4)
    strokes.add(FILL, barrier, (176, 174, 168), owner=_MOTORWAY)


def _railway(strokes, start, end, rng: np.random.Generator) -> None:
    for track in (-6.6, -2.2, 2.2, 6.6):
        sleepers = strip(start, end, track, 2.6, 1.6, 0.7)
        strokes.add(FILL, sleepers, (92, 82, 74), owner=_RAILWAY, opacity=0.8)
        for rail in (-0.75, 0.75):
            rails = strip(start, end, track + rail, 0.35, 25.0, 25.4)
            strokes.add(FILL, rails, (186, 182, 178), owner=_RAILWAY)
        vector = end - start
        length = float(np.hypot(*vector))
        coaches = int(rng.integers(3, 9))
        first = rng.uniform(0.2, 0.75) * length
        at = first + np.arange(coaches) * 26.5
        left = np.array([-vector[1], vector[0]]) / length
        centres = start + at[:, None] * vector / length + track * left
        angle = np.full(coaches, np.arctan2(vector[1], vector[0]))
        train = rectangles(centres, np.full(coaches, 25.6), np.full(coaches, 2.9), angle)
        strokes.add(SHADE, train + SHADOW * 2.2, (0, 0, 0), owner=_RAILWAY, opacity=0.45)
        hue = np.array([[196, 198, 204], [70, 96, 140], [150, 60, 56]])[rng.integers(3)]
        strokes.add(FILL, train, hue, owner=_RAILWAY)
