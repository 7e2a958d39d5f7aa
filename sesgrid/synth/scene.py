"""The whole picture: ground table, strokes in order, and the pixels of any window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rasterio.features
import shapely
from affine import Affine

from sesgrid.synth.classes import BEARING
from sesgrid.synth.draw_green import draw_green
from sesgrid.synth.draw_homes import draw_homes, vary
from sesgrid.synth.draw_ways import draw_ways
from sesgrid.synth.draw_works import draw_works
from sesgrid.synth.income import IncomeField
from sesgrid.synth.layout import Layout
from sesgrid.synth.paint import paint_ground, paint_strokes
from sesgrid.synth.strokes import Frame, StrokeList, Strokes

__all__ = ["Scene", "make_scene"]

# red, green, blue, noise fine, middle, coarse, stripe amplitude, period (m)
_GROUND = {
    0: (132, 134, 84, 0.06, 0.06, 0.10, 0.05, 4.0),
    11100: (142, 138, 130, 0.08, 0.05, 0.04, 0, 1),
    11210: (118, 122, 86, 0.07, 0.05, 0.06, 0, 1),
    11220: (118, 122, 86, 0.07, 0.05, 0.06, 0, 1),
    11230: (118, 122, 86, 0.07, 0.05, 0.06, 0, 1),
    11300: (122, 134, 78, 0.08, 0.06, 0.10, 0, 1),
    12100: (126, 125, 122, 0.07, 0.05, 0.03, 0, 1),
    12210: (116, 126, 78, 0.09, 0.08, 0.08, 0, 1),
    12220: (134, 131, 126, 0.06, 0.04, 0.03, 0, 1),
    12230: (124, 112, 100, 0.14, 0.06, 0.04, 0, 1),
    13400: (150, 138, 106, 0.12, 0.12, 0.12, 0, 1),
    14100: (108, 130, 70, 0.07, 0.06, 0.10, 0, 1),
    14200: (112, 128, 74, 0.07, 0.05, 0.08, 0, 1),
    21000: (146, 132, 88, 0.06, 0.05, 0.08, 0.10, 3.2),
    31000: (48, 64, 38, 0.10, 0.10, 0.08, 0, 1),
    50000: (62, 88, 88, 0.05, 0.04, 0.05, 0, 1),
}
_PAVEMENT = (164, 159, 150, 0.05, 0.03, 0.02, 0, 1)
_CROPS = np.array([[150, 128, 92], [126, 142, 72], [186, 170, 106], [98, 122, 62], [166, 148, 112]])
_PAVED_AROUND = frozenset({11100, 11210, 11220, 11230, 12100, 14100, 14200})


@dataclass(frozen=True)
class Scene:
    """Everything the painter needs, in metres from the frame's base."""

    frame: Frame
    polygons: np.ndarray
    """Land-use polygons (object ``(polygon,)``), Lambert; polygon i has the id i + 1."""
    pavements: np.ndarray
    """Blocks grown by their pavement, drawn below the polygons."""
    codes: np.ndarray
    """int32 ``(polygon + 2,)``: class of each id; id 0 is open country, the last is pavement."""
    table: np.ndarray
    """float64 ``(polygon + 2, 9)``: see :func:`sesgrid.synth.paint.paint_ground`."""
    strokes: Strokes

    def window(self, west: float, north: float, step: float, size_px: int) -> np.ndarray:
        """Pixels uint8 ``(y, x, rgb)`` of a square: corner in metres from the base, Lambert-93."""
        ids = self.ids(west, north, step, size_px)
        canvas = np.zeros((size_px, size_px, 3), dtype=np.uint8)
        paint_ground(canvas, ids, west, north, step, self.table)
        paint_strokes(canvas, ids, self.codes, west, north, step, self.strokes)
        return canvas

    def ids(self, west: float, north: float, step: float, size_px: int) -> np.ndarray:
        """Polygon id of each pixel, int32 ``(y, x)``; 0 outside the plan."""
        box = shapely.box(west, north - size_px * step, west + size_px * step, north)
        pavement, network = len(self.codes) - 1, []
        near = shapely.STRtree(self.polygons).query(box)
        roads = [int(i) for i in near if self.codes[i + 1] == 12220]
        network = [(self.polygons[i], i + 1) for i in roads]
        grown = self.pavements[shapely.STRtree(self.pavements).query(box)]
        rest = [(self.polygons[i], int(i) + 1) for i in near if self.codes[i + 1] != 12220]
        shapes = network + [(g, pavement) for g in grown] + rest
        if not shapes:
            return np.zeros((size_px, size_px), dtype=np.int32)
        transform = Affine(step, 0, west, 0, -step, north)
        return rasterio.features.rasterize(
            shapes, out_shape=(size_px, size_px), transform=transform, dtype="int32"
        )


def make_scene(
    layout: Layout, field: IncomeField, frame: Frame, seeds: list[np.random.SeedSequence]
) -> Scene:
    """Draw the plan. Only the homes of the bearing classes are shown the income field.

    Parameters
    ----------
    seeds : list of SeedSequence
        Five: ground, homes, works, ways, green. Apart, so that what the homes draw shifts no
        other random number.
    """
    ground, homes, works, ways, green = (np.random.default_rng(s) for s in seeds)
    polygons, codes = layout.polygons()
    pavements = np.array(
        [
            b.polygon.buffer(2.0, join_style="mitre")
            for b in layout.blocks
            if b.code in _PAVED_AROUND
        ],
        dtype=object,
    )
    strokes = StrokeList(frame)
    numbered = [(i + 1, b) for i, b in enumerate(layout.blocks)]
    draw_ways(strokes, layout, ways)
    draw_green(strokes, numbered, green)
    draw_works(strokes, numbered, works)
    draw_homes(strokes, [(i, b) for i, b in numbered if b.code in BEARING], field, homes)
    return Scene(
        frame=frame,
        polygons=shapely.transform(polygons, frame.lambert),
        pavements=shapely.transform(pavements, frame.lambert),
        codes=np.concatenate([[0], codes, [12220]]).astype(np.int32),
        table=_ground_table(layout, codes, ground),
        strokes=strokes.finish(),
    )


def _ground_table(layout: Layout, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ground of each polygon, its tint and light varied from block to block."""
    rows = [(*_GROUND[0], 0.3)]
    for i, code in enumerate(codes):
        row = np.array([*_GROUND[int(code)], 0.0])
        if i < len(layout.blocks):
            row[8] = layout.blocks[i].angle
            if code == 21000:
                row[:3] = _CROPS[rng.integers(len(_CROPS))]
                row[7] = rng.uniform(2.6, 5.0)
            row[:3] = vary(rng, row[:3], 1)[0]
        rows.append(tuple(row))
    rows.append((*_PAVEMENT, 0.0))
    return np.array(rows, dtype=np.float64)
