"""What the report says: headline figures, sentences, notes and tables, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sesgrid.report.palette import NO_VALUE, ses_colours
from sesgrid.stages.analyse import Findings

__all__ = [
    "activation_sentences",
    "automatic_notes",
    "headline",
    "number",
    "percent",
    "provenance_sections",
    "ses_legend",
]

_FEW_CELLS = 10
"""Classes in fewer cells are not named in sentences."""

_NAMED_CLASSES = 6
"""Longer lists end in a count."""


def number(value: float | None, digits: int = 2) -> str:
    """A figure for reading; an en dash for what is missing.

    >>> number(0.6789), number(None), number(float("nan"))
    ('0.68', '–', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share for reading.

    >>> percent(0.8249), percent(None)
    ('82\u202f%', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    return f"{100 * value:.0f}\N{NARROW NO-BREAK SPACE}%"


def headline(cells: pd.DataFrame, metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures that matter: label, value and one line that says what it is."""
    folds = len(metrics["folds"])
    predicted = int(cells["ses_predicted"].notna().sum())
    labelled = int(cells["labelled"].fillna(False).astype(bool).sum())
    coverage = cells["coverage"].astype(float).mean()
    baseline = metrics.get("pearson_r_colour_baseline")
    boosting = metrics.get("baselines", {}).get("gradient_boosting", {}).get("pearson_r")
    rows = [
        ("Pearson r", number(metrics["pearson_r"]),
         f"true against predicted class, unseen cells, mean of {folds} folds"),
        ("Exact class", percent(metrics["accuracy"]),
         f"always the commonest class: {percent(metrics['majority_baseline_accuracy'])}"),
        ("Within one class", percent(metrics["accuracy_within_one"]),
         "predicted at most one class off"),
        ("Mean error", number(metrics["mae"]), "classes between true and predicted"),
        ("Colour alone, r", number(baseline),
         "ridge regression on a cell's mean colour" if baseline is not None else "not computed"),
        ("Simple features, r", number(boosting),
         "gradient boosting on a cell's colours, textures and land cover" if boosting is not None
         else "not computed"),
        ("Cells", f"{predicted:,}", f"predicted, of {len(cells):,}; {labelled:,} labelled"),
        ("Imagery", percent(coverage), "of the cells' area was observed"),
    ]  # fmt: skip
    return [{"label": label, "value": value, "detail": detail} for label, value, detail in rows]


def automatic_notes(cells: pd.DataFrame, findings: Findings) -> list[str]:
    """Warnings that follow from the tables themselves."""
    notes = list(findings.metrics.get("notes", ()))
    n_cells = f"{len(cells):,}"
    boosting = findings.metrics.get("baselines", {}).get("gradient_boosting", {}).get("pearson_r")
    if boosting is not None and boosting >= (findings.metrics["pearson_r"] or 0):
        notes.append(
            f"Gradient boosting on simple features of the cell does as well as the networks or better (r "
            f"{number(boosting)}): what these add cannot be told"
        )
    unpredicted = int(cells["ses_predicted"].isna().sum())
    if unpredicted:
        notes.append(f"Cells without a prediction (grey on the map): {unpredicted:,} of {n_cells}")
    partial = int((cells["coverage"].astype(float) < 0.995).sum())
    if partial:
        notes.append(f"Cells only partly covered by imagery: {partial:,} of {n_cells}")
    labelled = cells[cells["labelled"].fillna(False).astype(bool)]
    imputed = labelled["imputed"].fillna(False).astype(bool).mean() if len(labelled) else 0.0
    if imputed > 0:
        notes.append(
            f"Labelled cells with an imputed income: {percent(imputed)}. Such incomes are spread "
            "over groups of neighbours: with random folds, part of the answer leaks from training "
            "to test"
        )
    if not findings.landcover_classes:
        notes.append(
            "No land cover was given: what the model looked at is not broken down by class"
        )
    elif not len(findings.activation):
        notes.append("The land cover meets none of the explained cells: look at its extent")
    for side, count in findings.activation.attrs.get("cells_without_activation", {}).items():
        if count:
            notes.append(f"Cells predicted {side} without any activation (no ratios): {count:,}")
    return notes


def activation_sentences(table: pd.DataFrame) -> list[str]:
    """In words, which classes were over- and under-activated, whole intervals on one side of 1."""
    said = []
    for side in ("low", "high"):
        rows = table[(table["prediction"] == side) & (table["n_cells"] >= _FEW_CELLS)]
        over = rows[rows["ci_low"] > 1].sort_values("activation_ratio", ascending=False)
        under = rows[rows["ci_high"] < 1].sort_values("activation_ratio")
        said.append(
            f"When it predicts {side}, the model draws more than their area's share on "
            f"{_listed(over)}; less on {_listed(under)}."
        )
    return said


def _listed(rows: pd.DataFrame) -> str:
    names = [
        f"{name} ({ratio:.2f})"
        for name, ratio in zip(rows["landcover_class"], rows["activation_ratio"], strict=True)
    ]
    if len(names) > _NAMED_CLASSES:
        names = [*names[: _NAMED_CLASSES - 1], f"{len(names) - _NAMED_CLASSES + 1} other classes"]
    if len(names) < 2:
        return names[0] if names else "no class"
    return ", ".join(names[:-1]) + " and " + names[-1]


def ses_legend(n_classes: int, thresholds: Sequence[float] | None) -> list[dict[str, str]]:
    """Colour, number and income range of each class, then "no value"."""
    legend = []
    bounds = [f"{t:,.0f}" for t in thresholds] if thresholds is not None else []
    for k, colour in enumerate(ses_colours(n_classes)):
        text = f"{k + 1}"
        if len(bounds) == n_classes - 1:
            low, high = (bounds[k - 1] if k else ""), (bounds[k] if k < n_classes - 1 else "")
            text += _range_text(low, high)
        legend.append({"colour": colour, "text": text})
    return [*legend, {"colour": NO_VALUE, "text": "no value"}]


def _range_text(low: str, high: str) -> str:
    if not low:
        return f" · below {high} €"
    return f" · {low}–{high} €" if high else f" · from {low} €"


def provenance_sections(
    provenance: Mapping[str, Any] | None,
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Flatten nested settings into tables: plain values first, then a section per mapping.

    >>> provenance_sections({"seed": 0, "grid": {"pixels": {"side": 800}}, "sources": ["a", "b"]})
    [('General', [('seed', '0')]), ('grid', [('pixels.side', '800')]), ('sources', [('1', 'a'), ('2', 'b')])]
    """
    plain, sections = [], []
    for key, value in (provenance or {}).items():
        if isinstance(value, Mapping | list | tuple):
            sections.append((str(key), _flat(value)))
        else:
            plain.append((str(key), str(value)))
    return ([("General", plain)] if plain else []) + [s for s in sections if s[1]]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        items = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        if prefix and not any(isinstance(v, Mapping | list | tuple) for v in value):
            return [(prefix, ", ".join(map(str, value)))]
        items = [(str(i), v) for i, v in enumerate(value, start=1)]
    else:
        return [(prefix, str(value))]
    rows: list[tuple[str, str]] = []
    for key, inner in items:
        rows += _flat(inner, f"{prefix}.{key}" if prefix else key)
    return rows
