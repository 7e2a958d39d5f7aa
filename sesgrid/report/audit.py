"""The audit in the report: a few sentences and a figure for each test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from sesgrid.report.content import number, percent
from sesgrid.report.palette import GRID, HIGH, LOW, MUTED, REFERENCE, REFERENCE_INK
from sesgrid.report.svg import drawing, nice_ticks, shorten, tag

__all__ = ["AuditTest", "audit_tests"]

_COLOURS = {"low": LOW, "high": HIGH}
_FEW = 10
"""No verdict rests on fewer cells."""


@dataclass(frozen=True)
class AuditTest:
    """What the page says of one test."""

    title: str
    sentences: list[str]
    figure: Markup | None = None
    caption: str = ""
    table: Mapping[str, Any] = field(default_factory=dict)
    """``head``: names of columns; ``rows``."""


def audit_tests(audit: Mapping[str, Any] | None) -> list[AuditTest]:
    """The tests in the order of the page; empty without an audit."""
    if audit is None:
        return []
    tests = [_hiding(audit), _randomisation(audit["randomisation"])]
    if audit["planted_truth"] is not None:
        tests.insert(0, _planted(audit["planted_truth"]))
    if audit["folds"] is not None:
        tests.append(_folds(audit["folds"]))
    return tests


def _with_interval(of: Mapping[str, Any]) -> str:
    return f"{number(of['mean'])} [{number(of['ci'][0])}, {number(of['ci'][1])}]"


def _verdict(gain: Mapping[str, Any]) -> str:
    """How a value lies to chance, by the interval of its differences from it."""
    low, high = gain["ci"]
    if gain["cells"] < _FEW or low is None:
        return "on too few cells to be compared with"
    return "above" if low > 0 else "below" if high < 0 else "not distinguishable from"


def _planted(truth: Mapping[str, Any]) -> AuditTest:
    game, energy, chance = truth["pointing_game"], truth["energy"], percent(truth["chance"])
    said = [
        f"Income was planted in {', '.join(truth['classes'])} only. The brightest pixel lies there in "
        f"{percent(game['mean'])} of the {game['cells']:,} cells that hold these classes and others, "
        f"{_verdict(game['gain'])} the {chance} that a random pixel would reach. Of the whole "
        f"activation, {percent(energy['mean'])} falls there, {_verdict(energy['gain'])} the share of the "
        f"area ({chance})."
    ]
    rows = []
    for side, ranking in truth["ranking"].items():
        said.append(
            f"Predicted {side}: a class that bears the truth has a larger activation ratio than one that "
            f"does not in {percent(ranking['auc'])} of the pairs (chance 50\N{NARROW NO-BREAK SPACE}%)."
        )
        rows += [
            (side, k, c["landcover_class"], number(c["ratio"]), "bears" if c["bears"] else "")
            for k, c in enumerate(ranking["classes"], start=1)
        ]
    head = ("Prediction", "Rank", "Land-cover class", "Activation ratio", "Truth")
    return AuditTest(
        "The planted truth", said, table={"head": head, "rows": rows} if rows else {}
    )  # fmt: skip


def _hiding(audit: Mapping[str, Any]) -> AuditTest:
    said = []
    for test, doing in (("deletion", "Hiding"), ("insertion", "Showing")):
        gain = audit[test]["gain"]
        said.append(
            f"{doing} squares of the image in the order of the map, not by lot: the probability of the class "
            f"{_turns(test, gain)} (area between the curves {_with_interval(gain)}, better in "
            f"{percent(audit[test]['better'])} of {gain['cells']:,} cells)."
        )
    caption = (
        "Probability of the lowest (blue) or highest class (red) as squares of 12.5 m are hidden behind the "
        "cell's mean colour (left), or shown on a blurred image (right); solid: in the order of the map, "
        "dashed: by lot. A map that points at what matters falls early, and rises early."
    )
    return AuditTest("Deletion and insertion", said, _curves(audit), caption)


def _turns(test: str, gain: Mapping[str, Any]) -> str:
    moves = "falls" if test == "deletion" else "rises"
    how = {"above": "faster", "below": "slower", "not distinguishable from": "no faster"}
    verdict = _verdict(gain)
    return f"{moves} {how[verdict]}" if verdict in how else "was asked of too few cells to tell"


def _curves(audit: Mapping[str, Any]) -> Markup:
    parts = []
    curves = {test: audit[test]["curves"] for test in ("deletion", "insertion")}
    top = max(max(c) for of in curves.values() for by in of.values() for c in by.values())
    ticks = nice_ticks(max(top, 0.1), 4)
    titles = {"deletion": "a  Squares hidden", "insertion": "b  Squares shown"}
    for k, (test, of_side) in enumerate(curves.items()):
        left, width, bottom, height = 44 + 505 * k, 425, 236, 196
        parts.append(tag("text", titles[test], x=left, y=14, class_="title"))
        for tick in ticks:
            y = bottom - height * tick / ticks[-1]
            parts.append(tag("path", d=f"M{left} {y:.1f}h{width}", stroke=GRID))
            parts.append(tag("text", f"{tick:g}", x=left - 8, y=y + 4, text_anchor="end",
                             class_="small", fill=MUTED))  # fmt: skip
        parts += [
            tag("text", percent(share), x=left + width * share, y=bottom + 18, text_anchor="middle",
                class_="small", fill=MUTED)
            for share in (0, 0.25, 0.5, 0.75, 1)
        ]  # fmt: skip
        for side, orders in of_side.items():
            for order, values in orders.items():
                parts.append(_line(values, left, width, bottom, height / ticks[-1],
                                   _COLOURS[side], order, f"{test}, {side}, {order}"))  # fmt: skip
    label = "Probability of the class as squares are hidden and shown, in the order of the map and by lot."
    return drawing(1000, 262, *parts, label=label, min_width=760)


def _line(
    values: Sequence[float],
    left: float,
    width: float,
    bottom: float,
    scale: float,
    colour: str,
    order: str,
    name: str,
) -> Markup:
    step = width / (len(values) - 1)
    points = " ".join(
        f"{left + k * step:.1f},{bottom - v * scale:.1f}" for k, v in enumerate(values)
    )
    dashes = "5 4" if order == "random" else None
    return tag("polyline", tag("title", name), points=points, fill="none", stroke=colour,
               stroke_width=2, stroke_dasharray=dashes)  # fmt: skip


def _randomisation(test: Mapping[str, Any]) -> AuditTest:
    steps, unrelated = test["steps"], test["unrelated"]["mean"]
    last = steps[-1]
    verdict = {"above": "still above", "not distinguishable from": "no longer distinguishable from"}
    compared = _verdict(last["gain"])
    said = [
        "A map that stays when the network forgets what it learnt explains the image, not the network. "
        f"With the last layer alone drawn anew, maps resemble the trained ones by "
        f"{number(steps[0]['mean'])}; with all {last['layers']} layers by {_with_interval(last)}, "
        f"{verdict.get(compared, compared)} the {number(unrelated)} of maps of different cells."
    ]
    rows = [
        (s["layer"], s["layers"], number(s["mean"]), number(s["ci"][0]), number(s["ci"][1]), s["cells"])
        for s in steps
    ]  # fmt: skip
    head = ("Down to", "Layers", "Similarity", "from", "to", "Cells with both maps")
    caption = (
        "Rank correlation of a cell's map before and after, on squares of 3 m, with bootstrap 95 % "
        "intervals, as ever more layers are drawn anew from the top; the line: maps of different cells."
    )
    return AuditTest(
        "Taking away what was learnt", said, _steps(steps, unrelated), caption,
        {"head": head, "rows": rows},
    )  # fmt: skip


def _steps(steps: Sequence[Mapping[str, Any]], unrelated: float | None) -> Markup:
    left, width, y = 210.0, 560.0, 34.0

    def x(value: float) -> float:
        return left + width * (min(max(value, -0.25), 1) + 0.25) / 1.25

    bottom = y + 24 * len(steps)
    parts = []
    for tick in (-0.25, 0, 0.25, 0.5, 0.75, 1):
        parts.append(tag("path", d=f"M{x(tick):.1f} {y - 14}V{bottom - 8}", stroke=GRID))
        parts.append(tag("text", number(tick), x=x(tick), y=bottom + 8, text_anchor="middle",
                         class_="small", fill=MUTED))  # fmt: skip
    if unrelated is not None:
        parts.append(tag("path", d=f"M{x(unrelated):.1f} {y - 18}V{bottom - 8}", stroke=REFERENCE,
                         stroke_width=1.5))  # fmt: skip
        parts.append(tag("text", f"other cells {unrelated:.2f}", x=x(unrelated), y=y - 22,
                         text_anchor="middle", class_="small", fill=REFERENCE_INK))  # fmt: skip
    for step in steps:
        name = shorten(f"{step['layer']} ({step['layers']})", 30)
        parts.append(tag("text", name, tag("title", step["layer"]), x=left - 12, y=y + 4,
                         text_anchor="end"))  # fmt: skip
        if step["mean"] is not None:
            low, high = step["ci"]
            parts.append(tag("path", d=f"M{x(low):.1f} {y:.1f}H{x(high):.1f}", stroke="#55606e",
                             stroke_width=2, stroke_opacity=0.55))  # fmt: skip
            parts.append(tag("circle", tag("title", f"{step['mean']:.2f}"), cx=x(step["mean"]),
                             cy=y, r=4, fill="#55606e"))  # fmt: skip
        y += 24
    label = (
        "Similarity of maps to those of the trained network as layers are drawn anew from the top."
    )
    return drawing(left + width + 30, bottom + 16, *parts, label=label, min_width=620)


def _folds(folds: Mapping[str, Any]) -> AuditTest:
    said = [
        f"The same cells, explained by all {folds['models']} models: the maps resemble each other by "
        f"{_with_interval(folds['similarity'])} (rank correlation), "
        f"{_verdict(folds['similarity']['gain'])} the {_with_interval(folds['unrelated'])} of maps of "
        "different cells."
    ]
    if folds["ranking"] is not None:
        said.append(
            "The order of the land-cover classes by activation ratio agrees between models by "
            f"{number(folds['ranking'])} (rank correlation over the sample)."
        )
    said.append("All but one of the models may have seen a cell in training or validation.")
    rows = [(c["side"], c["landcover_class"], *map(number, c["ratios"])) for c in folds["classes"]]
    head = ("Map", "Land-cover class", *(f"Model {k + 1}" for k in range(folds["models"])))
    return AuditTest(
        "Agreement between folds", said, table={"head": head, "rows": rows} if rows else {}
    )  # fmt: skip
