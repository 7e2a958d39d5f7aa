"""The reliability chart: is a predicted class right as often as its probability says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sesgrid.report.content import number, percent
from sesgrid.report.palette import GRID, INK, MUTED, NO_VALUE, REFERENCE, REFERENCE_INK
from sesgrid.report.svg import drawing, tag

__all__ = ["reliability_chart"]

_LEFT, _TOP, _SIDE, _STRIP = 60.0, 20.0, 320.0, 44.0
"""The square of the curve, and the strip of counts below it."""

_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def reliability_chart(
    bins: Sequence[Mapping[str, Any]] | None, error: float | None
) -> Markup | None:
    """Accuracy against confidence with intervals over blocks, and how many cells each point rests on.

    Parameters
    ----------
    bins : sequence of mapping, or None
        ``reliability`` of `sesgrid.stages.score.metrics`.
    error : float or None
        Expected calibration error, for the text alternative.

    Returns
    -------
    Markup or None
        None where no probability was given.
    """
    if bins is None:
        return None
    filled = [b for b in bins if b["n"]]
    said = "; ".join(
        f"at {number(b['confidence'])}, {percent(b['accuracy'])} of {b['n']:,} cells"
        for b in filled
    )
    return drawing(
        _LEFT + _SIDE + 24,
        _TOP + _SIDE + _STRIP + 46,
        *_frame(),
        *_counts(filled),
        *(_point(b) for b in filled),
        label="Reliability: share of cells whose predicted class is right, by its probability. "
        f"{said}. Expected calibration error {number(error, 3)}.",
    )


def _x(value: float) -> float:
    return _LEFT + _SIDE * value


def _y(value: float) -> float:
    return _TOP + _SIDE * (1 - value)


def _frame() -> list[Markup]:
    """Grid, tick labels, names of the axes, and the diagonal of a model that knows what it knows."""
    bottom = _y(0) + _STRIP
    parts = []
    for tick in _TICKS:
        parts.append(tag("path", d=f"M{_x(tick):.1f} {_y(1)}V{bottom}", stroke=GRID))
        parts.append(tag("path", d=f"M{_x(0)} {_y(tick):.1f}H{_x(1)}", stroke=GRID))
        parts.append(tag("text", f"{tick:g}", x=_x(tick), y=bottom + 17, text_anchor="middle",
                         class_="small", fill=MUTED))  # fmt: skip
        parts.append(tag("text", f"{tick:g}", x=_LEFT - 8, y=_y(tick) + 4, text_anchor="end",
                         class_="small", fill=MUTED))  # fmt: skip
    middle = f"translate(14 {_TOP + _SIDE / 2}) rotate(-90)"
    spot = f"translate({_x(0.2) - 6} {_y(0.2) - 6}) rotate(-45)"
    return [
        *parts,
        tag("path", d=f"M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}", stroke=REFERENCE, stroke_width=1.5),
        tag("text", "as sure as right", transform=spot, text_anchor="middle", class_="small",
            fill=REFERENCE_INK),
        tag("text", "Probability of the predicted class", x=_x(0.5), y=bottom + 38,
            text_anchor="middle"),
        tag("text", "Share that is right", transform=middle, text_anchor="middle"),
        tag("text", "cells", x=_LEFT - 8, y=bottom - 4, text_anchor="end", class_="small",
            fill=MUTED),
    ]  # fmt: skip


def _counts(filled: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """A bar per bin: its cells, the fullest bin at full height."""
    most, bottom = max((b["n"] for b in filled), default=1), _y(0) + _STRIP
    bars = []
    for b in filled:
        height = (_STRIP - 10) * b["n"] / most
        said = tag("title", f"({b['from']:g}, {b['to']:g}]: {b['n']:,} cells")
        width = _x(b["to"]) - _x(b["from"]) - 2
        bars.append(tag("rect", said, x=_x(b["from"]) + 1, y=bottom - height, width=width,
                        height=height, fill=NO_VALUE))  # fmt: skip
    return bars


def _point(b: Mapping[str, Any]) -> Markup:
    """A bin's accuracy at its mean confidence, with its interval over blocks, else over cells."""
    x, y = _x(b["confidence"]), _y(b["accuracy"])
    bounds = b["intervals"]["blocks"] or b["intervals"]["cells"]
    said = f"{number(b['confidence'])}: {percent(b['accuracy'])} right"
    parts = []
    if bounds is not None:
        low, high = bounds
        said += f" [{percent(low)}, {percent(high)}]"
        parts.append(tag("path", d=f"M{x:.1f} {_y(low):.1f}V{_y(high):.1f}", stroke=INK,
                         stroke_width=2, stroke_opacity=0.55))  # fmt: skip
    return tag("g", tag("title", said), *parts, tag("circle", cx=x, cy=y, r=4, fill=INK))
