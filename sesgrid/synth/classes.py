"""The Urban Atlas classes of the synthetic city, and which of them bear income."""

from __future__ import annotations

__all__ = ["BEARING", "BUILT_SHARE", "DECK", "NAMES", "RESIDENTIAL"]

NAMES = {
    11100: "Continuous urban fabric (S.L. : > 80%)",
    11210: "Discontinuous dense urban fabric (S.L. : 50% -  80%)",
    11220: "Discontinuous medium density urban fabric (S.L. : 30% - 50%)",
    11230: "Discontinuous low density urban fabric (S.L. : 10% - 30%)",
    11300: "Isolated structures",
    12100: "Industrial, commercial, public, military and private units",
    12210: "Fast transit roads and associated land",
    12220: "Other roads and associated land",
    12230: "Railways and associated land",
    13400: "Land without current use",
    14100: "Green urban areas",
    14200: "Sports and leisure facilities",
    21000: "Arable land (annual crops)",
    31000: "Forests",
    50000: "Water",
}
"""Code → name, as the Urban Atlas 2018 writes them (double spaces included)."""

BUILT_SHARE = {11210: 0.42, 11220: 0.32, 11230: 0.23}
"""Share of a plot that its house covers: a property of the class, whatever the income."""

BEARING = tuple(BUILT_SHARE)
"""The classes whose drawing varies with income. No other does."""

RESIDENTIAL = {11100: 190.0, 11210: 75.0, 11220: 50.0, 11230: 32.0, 11300: 6.0}
"""Classes where people live, with their households per hectare."""

DECK = {
    11210: 0.235,
    11220: 0.235,
    11230: 0.210,
    11100: 0.050,
    11300: 0.020,
    12100: 0.060,
    13400: 0.025,
    14100: 0.060,
    14200: 0.045,
    21000: 0.030,
    31000: 0.030,
}
"""Shares of the town's blocks; dealt like a shuffled deck, so that they are met almost exactly."""
