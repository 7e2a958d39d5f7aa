"""The tables of scores: means with intervals, each fold, and random beside spatial folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sesgrid.report.content import number

__all__ = ["folds_sentence", "folds_table", "score_table"]


@dataclass(frozen=True)
class _Row:
    """How a score is written."""

    name: str
    label: str
    digits: int = 2
    percent: bool = False

    def value(self, value: float | None) -> str:
        """The figure with its unit."""
        text = self._bare(value)
        return f"{text}\N{NARROW NO-BREAK SPACE}%" if self.percent and value is not None else text

    def bounds(self, interval: Sequence[float] | None) -> str:
        """An interval in brackets, in the unit of the figure; empty where there is none."""
        if interval is None:
            return ""
        low, high = (self._bare(bound) for bound in interval)
        return f"[{low}, {high}]"

    def signed(self, value: float | None) -> str:
        """A difference: with its sign, shares in percentage points."""
        if value is None:
            return "–"
        text = self._bare(value)
        return text if value < 0 else f"+{text}"

    def _bare(self, value: float | None) -> str:
        if value is None or not self.percent:
            return number(value, self.digits)
        return number(100 * value, 1)


_ROWS = (
    _Row("pearson_r", "Pearson r"),
    _Row("spearman_r", "Spearman ρ"),
    _Row("quadratic_weighted_kappa", "Quadratic-weighted κ"),
    _Row("accuracy", "Exact class", percent=True),
    _Row("accuracy_within_one", "Within one class", percent=True),
    _Row("mae", "Mean error, classes"),
    _Row("r2_income_rank", "R² on income ranks"),
    _Row("expected_calibration_error", "Expected calibration error", 3),
    _Row("majority_baseline_accuracy", "Always the commonest class", percent=True),
)


def score_table(metrics: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The scores of one kind of fold as text.

    Parameters
    ----------
    metrics : mapping
        Of `sesgrid.stages.score.metrics`.

    Returns
    -------
    dict
        ``head``: names of the columns; ``rows``: a list each of (figure, its interval or "") per column,
        the row's name first.
    """
    observed = metrics["observed_only"]
    head = ["Score", "Mean of folds", "95 % over cells", "95 % over blocks"]
    head += ["Observed cells only"] if observed else []
    head += [f"Fold {fold['fold']}" for fold in metrics["folds"]]
    cells = [("Cells", ""), (f"{metrics['n']:,}", ""), ("", ""), ("", "")]
    cells += [(f"{observed['n']:,}", "")] if observed else []
    rows = [[*cells, *((f"{fold['n']:,}", "") for fold in metrics["folds"])]]
    for row in _ROWS:
        bounds = metrics["intervals"][row.name]
        line = [(row.label, ""), (row.value(metrics[row.name]), "")]
        line += [(row.bounds(bounds[unit]), "") for unit in ("cells", "blocks")]
        line += [(row.value(observed[row.name]), "")] if observed else []
        for fold in metrics["folds"]:
            interval = fold["intervals"][row.name]["cells"]
            line.append((row.value(fold[row.name]), row.bounds(interval)))
        rows.append(line)
    return {"head": head, "rows": rows}


def folds_table(by_folds: Mapping[str, Any] | None) -> dict[str, list[Any]] | None:
    """Random folds, spatial folds and the gap between them, in the form of `score_table`.

    Parameters
    ----------
    by_folds : mapping or None
        Of `sesgrid.stages.leakage.compare_folds`; None where one kind of fold was trained.
    """
    if by_folds is None:
        return None
    head = ["Score", "Random folds", "Spatial folds", "Gap", "95 % over cells", "95 % over blocks"]
    kinds = [by_folds[kind] for kind in ("random", "spatial")]
    rows = []
    for row in _ROWS:
        gap = by_folds["leakage_gap"][row.name]
        line = [(row.label, "")]
        for scores in kinds:
            interval = scores["intervals"][row.name]["blocks"]
            line.append((row.value(scores[row.name]), row.bounds(interval)))
        line.append((row.signed(gap["value"]), ""))
        rows.append([*line, *((row.bounds(gap[unit]), "") for unit in ("cells", "blocks"))])
    return {"head": head, "rows": rows}


def folds_sentence(metrics: Mapping[str, Any]) -> str:
    """What the kinds of fold say together, or that only one is there.

    Parameters
    ----------
    metrics : mapping
        ``folds_kind`` and ``by_folds``, as of `sesgrid.stages.analyse.analyse`.
    """
    leak = (
        "random folds leak where incomes are smooth in space, since a tested cell’s neighbours were "
        "learnt from"
    )
    if metrics["by_folds"] is None:
        kind = metrics["folds_kind"]
        return f"Only {kind} folds were trained, so the leak cannot be measured: {leak}."
    kinds = metrics["by_folds"]
    row, gap = _ROWS[0], kinds["leakage_gap"]["pearson_r"]
    if gap["value"] is None:
        return f"The gap cannot be measured, as one kind has no correlation; {leak}."
    values = [row.value(kinds[kind]["pearson_r"]) for kind in ("random", "spatial")]
    said = (
        f"Pearson r is {values[0]} with random folds and {values[1]} with spatial ones, a gap of "
    )
    said += row.signed(gap["value"])
    if gap["blocks"] is None:
        return f"{said}; {leak}."
    said += f" {row.bounds(gap['blocks'])} over blocks"
    if gap["blocks"][0] <= 0:
        return f"{said}: no leak can be told from chance here. In general, {leak}."
    return f"{said}: {leak}."
