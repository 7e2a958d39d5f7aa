"""Colours of the report: safe for colour-blind readers, and legible in grey print.

Low is blue and high is red everywhere, as in the paper's figures; what is
neither is warm grey. Colours are ``#rrggbb`` strings or float arrays 0–1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

__all__ = [
    "DIVERGING",
    "GRID",
    "GROUP_ORDER",
    "HIGH",
    "INK",
    "LOW",
    "MUTED",
    "NO_VALUE",
    "REFERENCE",
    "REFERENCE_INK",
    "landcover_colours",
    "ramp",
    "ses_colours",
    "text_on",
    "to_hex",
]

INK = "#23272e"
MUTED = "#6b7078"
NO_VALUE = "#c4c4bf"
GRID = "#e4e3dd"
REFERENCE, REFERENCE_INK = "#c08a00", "#8a6300"
"""Of the line that values are compared with, and of its label."""
LOW = "#2f64a8"
HIGH = "#b8322f"

GROUP_ORDER = ("residential", "functional", "infrastructure", "nature")
"""Order of the groups in figures; any other group follows."""

DIVERGING = ("#5b3f8c", "#a99bcb", "#f5f4f0", "#e6ab62", "#a8590b")
"""Below one → one → above one, for ratios."""

_SES = ("#2f5f9f", "#8db6d8", "#f0e2ad", "#e8935d", "#b02a2d")

_GROUP_RAMPS: dict[str, tuple[str, ...]] = {
    "residential": ("#6d1423", "#b8433f", "#e2876c", "#f6d5c0"),
    "functional": ("#6a4c93", "#b08fc7", "#5fa35a", "#a9c65b", "#d9c25f"),
    "infrastructure": ("#2f3338", "#6d737b", "#b4b9bf"),
    "nature": ("#3d7a4b", "#c2cf8f", "#4a8fc4"),
}
_OTHER_RAMP = (
    "#8c7a5b", "#d9cdb4", "#2f6f7c", "#9fd0c7", "#7a3b69",
    "#d39ac0", "#35508c", "#9db3dc", "#b5651d", "#f0c27b",
)  # fmt: skip
"""Of the classes of all other groups together, and of those without one."""


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def ramp(colours: Sequence[str], positions: np.ndarray) -> np.ndarray:
    """Interpolate between evenly spaced colours.

    Parameters
    ----------
    colours : sequence of str
        ``#rrggbb``, at least one.
    positions : np.ndarray
        Any shape, 0 (first colour) to 1 (last); clipped.

    Returns
    -------
    np.ndarray
        float64 ``(..., 3)``, RGB 0–1.

    Examples
    --------
    >>> ramp(("#000000", "#ffffff"), np.array([0.0, 0.5, 2.0]))[:, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    stops = np.linspace(0.0, 1.0, len(colours))
    table = np.array([_rgb(c) for c in colours])
    x = np.clip(np.asarray(positions, dtype=np.float64), 0.0, 1.0)
    return np.stack([np.interp(x, stops, table[:, band]) for band in range(3)], axis=-1)


def to_hex(rgb: np.ndarray) -> str:
    """``#rrggbb`` of three floats 0–1.

    >>> to_hex(np.array([1.0, 0.5, 0.0]))
    '#ff8000'
    """
    return "#" + "".join(f"{round(float(v) * 255):02x}" for v in rgb)


def text_on(background: str) -> str:
    """Ink or white, whichever reads better on a background (WCAG relative luminance).

    >>> text_on("#ffffff") == INK, text_on("#000000")
    (True, '#ffffff')
    """
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in _rgb(background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.3 else "#ffffff"


def ses_colours(n_classes: int) -> list[str]:
    """A colour per socioeconomic class, lowest first.

    >>> len(ses_colours(3)), ses_colours(5)[0]
    (3, '#2f5f9f')
    """
    positions = np.linspace(0.0, 1.0, n_classes) if n_classes > 1 else np.zeros(1)
    return [to_hex(c) for c in ramp(_SES, positions)]


def landcover_colours(names: Iterable[str], groups: Mapping[str, str]) -> dict[str, str]:
    """A colour per land-cover class: one family of hues a group, spread over its classes.

    >>> colours = landcover_colours(["roads", "railways"], {"roads": "infrastructure"})
    >>> sorted(colours)
    ['railways', 'roads']
    """
    names = list(names)
    colours: dict[str, str] = {}
    family = {name: g if (g := groups.get(name, "")) in _GROUP_RAMPS else "" for name in names}
    for group in dict.fromkeys(family.values()):
        members = [name for name in names if family[name] == group]
        shades = ramp(_GROUP_RAMPS.get(group, _OTHER_RAMP), np.linspace(0, 1, len(members)))
        colours |= {name: to_hex(shade) for name, shade in zip(members, shades, strict=True)}
    return {name: colours[name] for name in names}
