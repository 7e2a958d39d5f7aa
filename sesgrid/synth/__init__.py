"""Synthetic cities with a known answer, in the formats of the real sources.

``layout`` plans the land use, ``income`` the smooth field, ``draw_*`` the strokes, ``paint`` their
pixels; ``ortho``, ``census`` and ``landcover`` write them as IGN, INSEE and Copernicus deliver.
"""

from __future__ import annotations

from sesgrid.synth.city import SynthCity, write_city

__all__ = ["SynthCity", "write_city"]
