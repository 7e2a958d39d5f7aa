"""One HTML file that opens offline: figures, pictures and style all inside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sesgrid.report.audit import audit_tests
from sesgrid.report.charts import activation_chart, pair_heatmap
from sesgrid.report.content import (
    activation_sentences,
    automatic_notes,
    headline,
    number,
    percent,
    provenance_sections,
    ses_legend,
)
from sesgrid.report.gallery import CellThumbnail, gallery
from sesgrid.report.maps import confusion_chart, ses_map
from sesgrid.report.reliability import reliability_chart
from sesgrid.report.scores import folds_sentence, folds_table, score_table
from sesgrid.stages.analyse import Findings
from sesgrid.stages.evidence import n_extreme_classes
from sesgrid.stages.score import class_count, require_columns
from sesgrid.store.parts import write_atomically

__all__ = ["SHOWN", "write_report"]

_FOLDER = Path(__file__).parent
SHOWN = ("row", "col", "ses_true", "ses_predicted", "labelled", "imputed", "coverage")
"""Columns of the table of cells that a report is made from."""


def write_report(
    path: str | Path,
    cells: pd.DataFrame,
    findings: Findings,
    *,
    title: str,
    thumbnails: Iterable[CellThumbnail] | None = None,
    provenance: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a city.

    The file is complete or not there: it is written beside its place and moved in one step. Names
    from data are shown as text, never interpreted, and the page forbids itself to load anything.

    Parameters
    ----------
    path : path
        Of the HTML file; its folder is made where it is missing.
    cells : GeoDataFrame
        ``row``, ``col``, ``ses_true``, ``ses_predicted``, ``labelled``, ``imputed``, ``coverage``;
        ``attrs`` ``n_classes`` and, if known, ``thresholds`` (€) and ``city``.
    findings : Findings
        Of `sesgrid.stages.analyse.analyse`.
    title : str
        Heading.
    thumbnails : iterable of CellThumbnail, optional
        Cells to show; the first 12.
    provenance : mapping, optional
        Settings, presets, sources, versions, seed: nested as they come. ``city`` and ``date`` are
        shown under the heading too.
    notes : sequence of str
        Warnings to show above the figures; those that follow from the tables are added.
    audit : mapping, optional
        Of `sesgrid.stages.audit.audit`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingInputError
        The table of cells lacks a column.
    """
    require_columns(cells, SHOWN)
    html = _render(cells, findings, title, thumbnails or (), provenance or {}, notes, audit)
    path = Path(path)
    write_atomically(path, html)
    return path


def _render(
    cells: pd.DataFrame,
    findings: Findings,
    title: str,
    thumbnails: Iterable[CellThumbnail],
    provenance: Mapping[str, Any],
    notes: Sequence[str],
    audit: Mapping[str, Any] | None,
) -> str:
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    n_classes = class_count(cells)
    n_extreme = n_extreme_classes(n_classes)
    return environment.get_template("template.html").render(
        title=title,
        city=provenance.get("city") or cells.attrs.get("city") or "",
        date=provenance.get("date", ""),
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        headline=headline(cells, findings.metrics),
        notes=[*notes, *automatic_notes(cells, findings)],
        head=provenance.get("head", "binomial"),
        thresholds_of=str(cells.attrs.get("thresholds_of", "city")),
        n_classes=n_classes,
        n_extreme=n_extreme,
        chance=n_extreme / n_classes,
        chance_extreme=1 / n_classes,
        legend=ses_legend(n_classes, cells.attrs.get("thresholds")),
        metrics=findings.metrics,
        scores=score_table(findings.metrics),
        folds=folds_table(findings.metrics["by_folds"]),
        folds_sentence=folds_sentence(findings.metrics),
        activation=findings.activation.to_dict("records"),
        landcover_given=bool(findings.landcover_classes),
        activation_sentences=activation_sentences(findings.activation),
        audit=audit_tests(audit),
        provenance=provenance_sections(provenance),
        gallery=gallery(thumbnails, findings.landcover_classes, findings.groups, n_classes),
        **_figures(cells, findings, n_classes),
    )


def _figures(cells: pd.DataFrame, findings: Findings, n_classes: int) -> dict[str, Any]:
    """Every drawing of the page; None where there is nothing to draw."""
    maps = {
        f"{name}_map": ses_map(cells, column, n_classes, f"Map of the {name} class of each cell")
        if len(cells)
        else None
        for name, column in (("observed", "ses_true"), ("predicted", "ses_predicted"))
    }
    order = findings.landcover_classes
    chance = n_extreme_classes(n_classes) / n_classes
    metrics = findings.metrics
    scored, explained = metrics["n"] > 0, len(findings.activation) > 0
    return maps | {
        "confusion": confusion_chart(metrics["confusion"]) if scored else None,
        "reliability": reliability_chart(
            metrics["reliability"], metrics["expected_calibration_error"]
        ),
        "activation_chart": activation_chart(findings.activation, chance) if explained else None,
        "coactivation": pair_heatmap(findings.pairs, "coactivation", "Coactivation", order),
        "gain": pair_heatmap(findings.pairs, "gain", "Co-appearance gain", order),
    }
