"""The activation chart and the heatmaps of pairs (Figs 5 and 6 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from sesgrid.report.palette import (
    DIVERGING,
    GRID,
    GROUP_ORDER,
    HIGH,
    INK,
    LOW,
    MUTED,
    REFERENCE,
    REFERENCE_INK,
    ramp,
    text_on,
    to_hex,
)
from sesgrid.report.svg import drawing, nice_ticks, shorten, tag

__all__ = ["activation_chart", "pair_heatmap"]

_SIDES = (("low", LOW, -4.5), ("high", HIGH, 4.5))
_LABEL_CHARACTERS = 38
_RATIO_LIMIT = 2.0
"""Heatmap colours saturate at this ratio, and at one over it."""


@dataclass(frozen=True)
class _Panel:
    """A horizontal axis: values 0…upper on pixels left…right."""

    title: str
    left: float
    right: float
    ticks: list[float]
    reference: float
    reference_label: str
    columns: tuple[str, str, str]
    """Value, low and high bound in the table."""

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * min(value / self.ticks[-1], 1.0)


def activation_chart(table: pd.DataFrame, chance: float) -> Markup:
    """Activation ratios (left) and probabilities (right) by land-cover class, with intervals.

    Parameters
    ----------
    table : DataFrame
        Of `sesgrid.stages.analyse.activation_table`; not empty.
    chance : float
        Probability of a true class on one side, were land cover to say nothing.
    """
    panels = _panels(table, chance)
    order = _group_rows(table)
    parts: list[Markup] = []
    y, top = 58.0, 50.0
    for group, names in order:
        parts.append(tag("text", (group or "other").capitalize(), x=0, y=y + 12, class_="group"))
        parts.append(tag("path", d=f"M0 {y - 6}H1040", stroke="#c9c8c1"))
        y += 29
        for name in names:
            parts.append(_chart_row(table[table["landcover_class"] == name], name, y, panels))
            y += 25
        y += 8
    axes = [_axis(panel, top, y) for panel in panels]
    heads = [
        tag("text", "cells low / high", x=1040, y=14, text_anchor="end", class_="small", fill=MUTED)
    ]
    over = _over_activated(table)
    return drawing(
        1040, y + 30, *axes, *heads, *parts, min_width=820,
        label="Activation ratio and true probability of each land-cover class in cells predicted "
        f"low (blue circles) and high (red diamonds), with 95 % intervals. {over} "
        "The table below the figure gives all numbers.",
    )  # fmt: skip


def _panels(table: pd.DataFrame, chance: float) -> tuple[_Panel, _Panel]:
    reach = table[["activation_ratio", "ci_high"]].to_numpy(np.float64)
    upper = float(np.nanmax(reach)) if np.isfinite(reach).any() else 1.0
    return (
        _Panel("a  Activation ratio", 262, 590, nice_ticks(max(upper, 1.5)), 1.0, "H0 = 1",
               ("activation_ratio", "ci_low", "ci_high")),
        _Panel("b  Probability of truly being low (high)", 652, 940, [0, 0.25, 0.5, 0.75, 1.0],
               chance, f"chance {chance:.2g}",
               ("probability", "probability_ci_low", "probability_ci_high")),
    )  # fmt: skip


def _group_rows(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Classes by group, in the figure's order."""
    names = table[["landcover_class", "group"]].drop_duplicates("landcover_class").fillna("")
    groups = list(dict.fromkeys(names["group"]))
    known = [g for g in GROUP_ORDER if g in groups]
    return [
        (group, names.loc[names["group"] == group, "landcover_class"].tolist())
        for group in [*known, *(g for g in groups if g not in known)]
    ]


def _axis(panel: _Panel, top: float, bottom: float) -> Markup:
    """Title, grid lines, tick labels below, and the reference line with its label."""
    parts = [tag("text", panel.title, x=panel.left, y=14, class_="title")]
    for tick in panel.ticks:
        x = panel.x(tick)
        parts.append(tag("path", d=f"M{x:.1f} {top}V{bottom}", stroke=GRID))
        parts.append(tag("text", f"{tick:g}", x=x, y=bottom + 17, text_anchor="middle",
                         class_="small", fill=MUTED))  # fmt: skip
    x = panel.x(panel.reference)
    parts.append(tag("path", d=f"M{x:.1f} {top - 8}V{bottom}", stroke=REFERENCE, stroke_width=1.5))
    parts.append(tag("text", panel.reference_label, x=x, y=top - 13, text_anchor="middle",
                     class_="small", fill=REFERENCE_INK))  # fmt: skip
    return tag("g", *parts)


def _chart_row(rows: pd.DataFrame, name: str, y: float, panels: Sequence[_Panel]) -> Markup:
    """One class: its name, both sides' points in both panels, and how many cells they stand on."""
    parts = [
        tag("text", shorten(name, _LABEL_CHARACTERS), tag("title", name), x=12, y=y + 5),
    ]
    counts = []
    for side, colour, offset in _SIDES:
        row = rows[rows["prediction"] == side]
        if row.empty:
            counts.append("–")
            continue
        counts.append(f"{int(row['n_cells'].iloc[0]):,}")
        for panel in panels:
            value, low, high = (float(row[c].iloc[0]) for c in panel.columns)
            parts.append(_point(panel, value, low, high, y + offset, colour, f"{name}, {side}"))
    parts.append(tag("text", " / ".join(counts), x=1040, y=y + 5, text_anchor="end",
                     class_="small", fill=MUTED))  # fmt: skip
    return tag("g", *parts)


def _point(
    panel: _Panel, value: float, low: float, high: float, y: float, colour: str, name: str
) -> Markup:
    """A point with its interval; blue circles and red diamonds, so that shape tells them apart."""
    if not np.isfinite(value):
        return Markup("")
    x = panel.x(value)
    interval = np.isfinite(low) and np.isfinite(high)
    said = f"{name}: {value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if interval else "")
    parts = [tag("title", said)]
    if interval:
        parts.append(tag("path", d=f"M{panel.x(low):.1f} {y:.1f}H{panel.x(high):.1f}",
                         stroke=colour, stroke_width=2, stroke_opacity=0.55))  # fmt: skip
    if colour == LOW:
        parts.append(tag("circle", cx=x, cy=y, r=4, fill=colour))
    else:
        parts.append(tag("path", d=f"M{x:.2f} {y - 5:.2f}l5 5l-5 5l-5 -5z", fill=colour))
    return tag("g", *parts)


def _over_activated(table: pd.DataFrame) -> str:
    """Classes whose whole interval lies above 1, for the text alternative."""
    said = []
    for side in ("low", "high"):
        rows = table[(table["prediction"] == side) & (table["ci_low"] > 1)]
        said.append(f"Above 1 for {side}: {', '.join(rows['landcover_class']) or 'none'}.")
    return " ".join(said)


def pair_heatmap(
    table: pd.DataFrame, value: str, title: str, order: Sequence[str]
) -> Markup | None:
    """Residential classes (rows) beside their neighbours (columns), low above high.

    Parameters
    ----------
    table : DataFrame
        Of `sesgrid.stages.analyse.pair_table`.
    value : str
        ``coactivation`` or ``gain``.
    title : str
        Said by screen readers.
    order : sequence of str
        Land-cover classes in the order of the rows and columns.

    Returns
    -------
    Markup or None
        None where no pair has a value.
    """
    filled = table[table[value].notna()]
    if filled.empty:
        return None
    rows = [name for name in order if name in set(filled["landcover_class"])]
    columns = [name for name in order if name in set(filled["neighbour"])]
    lookup = filled.set_index(["prediction", "landcover_class", "neighbour"])[value]
    left, width, height = 210.0, min(54.0, 830.0 / len(columns)), 28.0
    parts: list[Markup] = []
    y = 4.0
    for side, colour, _ in _SIDES:
        parts.append(tag("text", f"Predicted {side}" if value == "coactivation" else
                         f"Truly {side}", x=0, y=y + 14, class_="group", fill=colour))  # fmt: skip
        y += 22
        for name in rows:
            parts.append(tag("text", shorten(name, 30), tag("title", name), x=left - 8, y=y + 18,
                             text_anchor="end"))  # fmt: skip
            parts += [
                _heat_cell(left + j * width, y, width, height, lookup.get((side, name, other)),
                           f"{name} beside {other}, {side}", name == other)
                for j, other in enumerate(columns)
            ]  # fmt: skip
            y += height
        y += 14
    for j, name in enumerate(columns):
        spot = f"translate({left + (j + 0.5) * width + 4:.1f} {y:.1f}) rotate(-45)"
        parts.append(tag("text", shorten(name, 30), tag("title", name), transform=spot,
                         text_anchor="end", class_="small"))  # fmt: skip
    deepest = max(min(len(n), 30) for n in columns) * 4.6 + 24
    return drawing(max(left + width * len(columns) + 6, 420), y + deepest, *parts,
                   label=f"{title}. Rows: residential classes; columns: neighbours.",
                   min_width=min(760, int(left + width * len(columns))))  # fmt: skip


def _heat_cell(
    x: float, y: float, width: float, height: float, value: float | None, name: str, itself: bool
) -> Markup:
    if value is None:
        fill = "none" if not itself else GRID
        return tag("rect", x=x + 1, y=y + 1, width=width - 2, height=height - 2, fill=fill,
                   stroke=GRID)  # fmt: skip
    position = 0.5 + np.log(max(value, 1e-3)) / (2 * np.log(_RATIO_LIMIT))
    fill = to_hex(ramp(DIVERGING, np.array(position)))
    return tag(
        "g",
        tag("title", f"{name}: {value:.2f}"),
        tag("rect", x=x + 1, y=y + 1, width=width - 2, height=height - 2, fill=fill),
        tag("text", f"{value:.2f}", x=x + width / 2, y=y + height / 2 + 4, text_anchor="middle",
            class_="small", fill=text_on(fill) if fill != INK else "#ffffff"),
    )  # fmt: skip
