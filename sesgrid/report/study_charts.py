"""The figures of the comparisons: models, resolutions, findings over models, and cities by cities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

import numpy as np
import pandas as pd
from markupsafe import Markup

from sesgrid.report.content import number
from sesgrid.report.palette import (
    GRID,
    HIGH,
    INK,
    LOW,
    MUTED,
    REFERENCE,
    REFERENCE_INK,
    ramp,
    to_hex,
)
from sesgrid.report.svg import drawing, nice_ticks, tag

__all__ = [
    "is_baseline",
    "matrix_chart",
    "model_chart",
    "resolution_chart",
    "squeeze",
    "stability_chart",
]

_SCORE, _LABEL = "pearson_r", "Pearson r"
_SIDES = (("low", LOW, -4.5), ("high", HIGH, 4.5))
_SEQUENTIAL = ("#ffffff", "#d3e1ec", "#a5c4dc", "#74a3c9")
"""Never so dark that ink could not be read on it."""
_PAPER = "#fdfdfb"
_RULE = "#c9c8c1"
_FEW_RUNS = 6
"""With more, the cells of a matrix are too small for intervals."""


@dataclass(frozen=True)
class _Axis:
    """Values from the first tick to the last on pixels from start to end."""

    ticks: Sequence[float]
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.start + (self.end - self.start) * share


def is_baseline(model: object) -> bool:
    """Whether a row of a comparison is a baseline, by its name.

    >>> is_baseline("baseline: most common class"), is_baseline("vgg16 binomial")
    (True, False)
    """
    return str(model).startswith("baseline: ")


def squeeze(text: str, limit: int) -> str:
    """At most ``limit`` characters; the end is kept, since years and seeds stand there.

    >>> squeeze("Villeneuve-sur-Lot 2015", 16)
    'Villeneuve… 2015'
    """
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def _width(text: str) -> float:
    """Pixels of text of 13 px, rather too many."""
    wide = (c in "MWmw@%" or east_asian_width(c) in "WF" for c in text)
    return sum(13.5 if w else 9.5 if c.isupper() else 7.8 for w, c in zip(wide, text, strict=True))


def _fit(text: str, width: float) -> str:
    """As much of a text as a width in pixels holds."""
    return text if _width(text) <= width else squeeze(text, int(width * len(text) / _width(text)))


def _ticks(values: Iterable[float]) -> list[float]:
    """Round numbers around the values and 0.

    >>> _ticks([-0.1, 0.5, float("nan")])
    [-0.2, 0.0, 0.2, 0.4, 0.6]
    """
    known = [0.0, *(float(v) for v in values if np.isfinite(v))]
    low, high = min(known), max(known)
    step = nice_ticks(high - low if high - low > 0.01 else 1.0)[1]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _scores(table: pd.DataFrame) -> np.ndarray:
    """float64 ``(row, value and bounds)``; NaN where there is none."""
    return table[[_SCORE, f"{_SCORE}_low", f"{_SCORE}_high"]].to_numpy(np.float64, na_value=np.nan)


def _said(value: float, low: float, high: float) -> str:
    interval = f" [{number(low)}, {number(high)}]" if np.isfinite([low, high]).all() else ""
    return f"{number(value)}{interval}"


def _small(text: object, x: float, y: float, anchor: str | None = "middle", **more: Any) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_="small",
               **{"fill": MUTED, **more})  # fmt: skip


def _line(path: str, colour: str, width: float = 2, opacity: float | None = 0.55) -> Markup:
    return tag("path", d=path, stroke=colour, stroke_width=width, stroke_opacity=opacity)


def _mark(shape: str, x: float, y: float, colour: str, filled: bool) -> Markup:
    """A circle or a diamond, full or hollow."""
    paint = {"fill": colour if filled else _PAPER, "stroke": colour, "stroke_width": 1.6}
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=4, **paint)
    return tag("path", d=f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", **paint)


def _across(axis: _Axis, top: float, bottom: float) -> list[Markup]:
    """Grid lines of a horizontal axis with numbers below."""
    return [
        part
        for tick in axis.ticks
        for part in (
            _line(f"M{axis.at(tick):.1f} {top}V{bottom}", GRID if tick else _RULE, 1, None),
            _small(_tick(tick), axis.at(tick), bottom + 17),
        )
    ]


def _reference(x: float, label: str, top: float, bottom: float) -> list[Markup]:
    """The line that values are compared with, its label above."""
    return [
        _line(f"M{x:.1f} {top - 8}V{bottom}", REFERENCE, 1.5, None),
        _small(label, x, top - 13, fill=REFERENCE_INK),
    ]


def model_chart(table: pd.DataFrame) -> Markup:
    """A row per model: Pearson r with its interval; baselines apart, the best of them as a line.

    Parameters
    ----------
    table : DataFrame
        ``model``, ``pearson_r``, ``pearson_r_low``, ``pearson_r_high``; what is NaN is not drawn.
    """
    apart = table["model"].map(is_baseline).astype(bool)
    axis = _Axis(_ticks(_scores(table).ravel()), 320, 830)
    parts: list[Markup] = []
    y, top = 58.0, 50.0
    for title, rows in (("Networks", table[~apart]), ("Baselines", table[apart])):
        if rows.empty:
            continue
        parts.append(_line(f"M0 {y - 6}H1000", _RULE, 1, None))
        parts.append(tag("text", title, x=0, y=y + 12, class_="group"))
        y += 34
        for name, score in zip(rows["model"].astype(str), _scores(rows), strict=True):
            parts.append(_model_row(name, score, y, axis))
            y += 25
        y += 3
    best = float(table.loc[apart, _SCORE].astype(np.float64).max())
    if np.isfinite(best):
        parts = _reference(axis.at(best), f"best baseline {number(best)}", top, y - 12) + parts
    said = "; ".join(
        f"{n} {_said(*s)}" for n, s in zip(table["model"], _scores(table), strict=True)
    )
    return drawing(
        1000, y + 14, tag("text", _LABEL, x=axis.start, y=14, class_="title"),
        _small("95 % over blocks", 1000, 14, "end"), *_across(axis, top, y - 12), *parts,
        label=f"{_LABEL} of each model with 95 % intervals: {said}.", min_width=820,
    )  # fmt: skip


def _model_row(name: str, score: np.ndarray, y: float, axis: _Axis) -> Markup:
    value, low, high = map(float, score)
    said, baseline = _said(value, low, high), is_baseline(name)
    shown, colour = name.removeprefix("baseline: "), MUTED if baseline else INK
    parts = [
        tag("text", _fit(shown, axis.start - 32), tag("title", name), x=12, y=y),
        tag("text", said, x=1000, y=y, text_anchor="end"),
    ]
    if np.isfinite([low, high]).all():
        parts.append(_line(f"M{axis.at(low):.1f} {y - 4.5:.1f}H{axis.at(high):.1f}", colour))
    if np.isfinite(value):
        shape = "diamond" if baseline else "circle"
        parts.append(_mark(shape, axis.at(value), y - 4.5, colour, not baseline))
    return tag("g", tag("title", f"{name}: {said}"), *parts)


def resolution_chart(table: pd.DataFrame) -> Markup:
    """Pearson r with its interval against metres per pixel, on a logarithmic axis.

    Parameters
    ----------
    table : DataFrame
        ``pixels``, ``metres_per_pixel`` and the columns of `model_chart` but ``model``.
    """
    table = table.sort_values("metres_per_pixel")
    scores, metres = _scores(table), table["metres_per_pixel"].to_numpy(np.float64)
    octaves = np.log2(metres)
    span = (110.0, 690.0) if len(octaves) > 1 else (400.0, 400.0)
    x = np.interp(octaves, octaves[[0, -1]], span)
    axis = _Axis(_ticks(scores.ravel()), 320, 34)
    parts = [tag("text", _LABEL, x=0, y=14, class_="title")]
    for tick in axis.ticks:
        parts.append(_line(f"M60 {axis.at(tick):.1f}H740", GRID if tick else _RULE, 1, None))
        parts.append(_small(_tick(tick), 50, axis.at(tick) + 4, "end"))
    known = np.isfinite(scores[:, 0])
    points = " ".join(
        f"{a:.1f},{axis.at(b):.1f}" for a, b in zip(x[known], scores[known, 0], strict=True)
    )
    parts.append(tag("polyline", points=points, fill="none", stroke=MUTED, stroke_width=1))
    free = -np.inf  # names of sizes that are nearly alike would overlap
    for k, pixels in enumerate(table["pixels"]):
        named = bool(x[k] - free >= 34)
        free = x[k] if named else free
        parts.append(_size(x[k], axis, scores[k], f"{metres[k]:.3g}", int(pixels), named))
    parts.append(tag("text", "Metres per pixel", x=740, y=384, text_anchor="end"))
    parts.append(_small("second line: pixels along a cell", 60, 384, "start"))
    said = "; ".join(f"at {m:.3g} m {_said(*s)}" for m, s in zip(metres, scores, strict=True))
    return drawing(760, 394, *parts, min_width=560,
                   label=f"{_LABEL} against metres per pixel, with 95 % intervals: {said}.")  # fmt: skip


def _size(
    x: float, axis: _Axis, score: np.ndarray, metres: str, pixels: int, named: bool
) -> Markup:
    """A size's point, interval and value, and below it its place on the axis."""
    value, low, high = map(float, score)
    y = axis.at(value if np.isfinite(value) else 0.0)
    parts = [tag("title", f"{metres} m, {pixels} px: {_said(value, low, high)}")]
    if np.isfinite([low, high]).all():
        parts.append(_line(f"M{x:.1f} {axis.at(low):.1f}V{axis.at(high):.1f}", INK))
    if np.isfinite(value):
        parts.append(_mark("circle", x, y, INK, True))
    if named:
        parts.append(_small(number(value), x + 7, y - 7, "start", fill=INK))
        parts.append(tag("text", metres, x=x, y=axis.start + 24, text_anchor="middle"))
        parts.append(_small(pixels, x, axis.start + 41))
    return tag("g", *parts)


def stability_chart(table: pd.DataFrame) -> Markup:
    """Per class and side the range of activation ratios over models around 1, and their mean.

    Parameters
    ----------
    table : DataFrame
        Of `sesgrid.stages.stability.stability_table`; not empty.
    """
    reach = table[["lowest", "highest"]].to_numpy(np.float64)
    axis = _Axis(_ticks([*reach.ravel(), 1.5]), 310, 840)
    parts: list[Markup] = []
    y, top = 70.0, 50.0
    for name, rows in table.groupby("landcover_class", sort=False):
        parts.append(_class_row(str(name), rows, y, axis))
        y += 27
    held = table[table["holds"]]
    said = "; ".join(
        f"{side}: {', '.join(held.loc[held['prediction'] == side, 'landcover_class']) or 'none'}"
        for side, _, _ in _SIDES
    )
    return drawing(
        1000, y + 10, tag("text", "Activation ratio", x=axis.start, y=14, class_="title"),
        _small("models above 1, low / high", 1000, 14, "end"), *_across(axis, top, y - 12),
        *_reference(axis.at(1), "H0 = 1", top, y - 12), *parts, min_width=820,
        label="Range and mean of the activation ratio of each land-cover class over models, in cells "
        f"predicted low (blue circles) and high (red diamonds). Classes that hold, {said}.",
    )  # fmt: skip


def _class_row(name: str, rows: pd.DataFrame, y: float, axis: _Axis) -> Markup:
    """One class, bold where it holds on a side; its ranges; how many models are above 1."""
    counts, parts = [], []
    for side, colour, offset in _SIDES:
        of_side = rows[rows["prediction"] == side]
        counts.append("–" if of_side.empty else _above_1(of_side.iloc[0]))
        parts += [_range(row, y + offset, colour, axis) for _, row in of_side.iterrows()]
    return tag(
        "g",
        tag("text", _fit(name, axis.start - 24), tag("title", name), x=0, y=y + 5,
            font_weight=700 if rows["holds"].any() else None),
        *parts,
        _small(" / ".join(counts), 1000, y + 5, "end"),
    )  # fmt: skip


def _above_1(row: pd.Series) -> str:
    return f"{round(row['share_above_1'] * row['models'])} of {row['models']}"


def _range(row: pd.Series, y: float, colour: str, axis: _Axis) -> Markup:
    """Lowest to highest ratio of a class on a side: thick, with a full mark, where it holds."""
    low, mean, high = (float(row[c]) for c in ("lowest", "mean", "highest"))
    holds, side = bool(row["holds"]), row["prediction"]
    said = f"{row['landcover_class']}, {side}: mean {number(mean)}, from {number(low)} to {number(high)}"
    return tag(
        "g",
        tag("title", f"{said}, {_above_1(row)} models above 1"),
        _line(f"M{axis.at(low):.1f} {y:.1f}H{axis.at(high):.1f}", colour, 3.2 if holds else 1.4),
        _mark("circle" if side == "low" else "diamond", axis.at(mean), y, colour, holds),
    )


def matrix_chart(
    matrix: pd.DataFrame,
    title: str,
    write: Callable[[float], str] = number,
    bounds: Mapping[Any, str] | None = None,
) -> Markup:
    """Rows trained on, columns tested on: a score in each cell, the diagonal outlined.

    Parameters
    ----------
    matrix : DataFrame
        float ``(trained on, tested on)``, the same names in the same order on both; at least one.
    title : str
        Name of the score.
    write : callable
        The score as text.
    bounds : mapping, optional
        Intervals as text, of (trained on, tested on); shown below the values of a small matrix.
    """
    values, names = matrix.to_numpy(np.float64, na_value=np.nan), list(map(str, matrix.index))
    small = len(names) <= _FEW_RUNS
    width, height = (96.0, 52.0) if small else (58.0, 38.0)
    shown = [_fit(name, 210) for name in names]
    longest = max(map(_width, shown))
    slant = longest if longest > width - 8 else 0.0
    left, top = 44 + longest, 44 + 0.71 * slant
    parts = [tag("text", "Tested on", x=left, y=14, class_="group")]
    turned = f"translate(14 {top + len(names) * height / 2:.1f}) rotate(-90)"
    parts.append(tag("text", "Trained on", transform=turned, text_anchor="middle", class_="group"))
    most = float(np.max(values, initial=0.0, where=np.isfinite(values))) or 1.0
    for i, name in enumerate(names):
        spot = f"translate({left + (i + 0.5) * width:.1f} {top - 8})"
        parts.append(tag("text", shown[i], tag("title", name),
                         transform=spot + (" rotate(-45)" if slant else ""),
                         text_anchor="start" if slant else "middle"))  # fmt: skip
        parts.append(tag("text", shown[i], tag("title", name), x=left - 10,
                         y=top + (i + 0.5) * height + 4.5, text_anchor="end"))  # fmt: skip
        for j, other in enumerate(names):
            interval = (bounds or {}).get((matrix.index[i], matrix.columns[j]), "")
            said = tag(
                "title", f"trained on {name}, tested on {other}: {write(values[i, j])} {interval}"
            )
            lines = [write(values[i, j]), *([interval] if small and interval else [])]
            fill = to_hex(ramp(_SEQUENTIAL, np.nan_to_num(values[i, j] / most)))
            box = (left + j * width, top + i * height, width, height)
            parts.append(_matrix_cell(said, lines, box, fill, i == j))
    own = "; ".join(f"{n} {write(v)}" for n, v in zip(names, values.diagonal(), strict=True))
    edge = left + len(names) * width
    return drawing(edge + max(0.71 * slant - width / 2, 0) + 8, top + len(names) * height + 4, *parts,
                   label=f"{title}, rows trained on, columns tested on. On their own cells: {own}.",
                   min_width=round(min(edge, 760)))  # fmt: skip


def _matrix_cell(
    said: Markup, lines: Sequence[str], box: tuple[float, float, float, float], fill: str, own: bool
) -> Markup:
    """A square with its value and interval; an outline where a run is tested on itself."""
    x, y, width, height = box
    middle = y + height / 2 + 5 - 8 * (len(lines) - 1)
    return tag(
        "g", said,
        tag("rect", x=x + 1.5, y=y + 1.5, width=width - 3, height=height - 3, fill=fill,
            stroke=INK if own else GRID, stroke_width=2.4 if own else 1),
        tag("text", lines[0], x=x + width / 2, y=middle, text_anchor="middle", fill=INK),
        *(_small(line, x + width / 2, middle + 17, fill=INK) for line in lines[1:]),
    )  # fmt: skip
