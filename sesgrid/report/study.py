"""A comparison of trainings as one HTML file that opens offline, and as lines for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.report.content import number
from sesgrid.report.study_charts import (
    is_baseline,
    matrix_chart,
    model_chart,
    resolution_chart,
    squeeze,
    stability_chart,
)
from sesgrid.store.parts import write_atomically

__all__ = ["print_lines", "write_study"]

_FOLDER = Path(__file__).parent
_TITLES = {
    "compare": "Networks compared",
    "resolution": "Scores by resolution",
    "stability": "Do the findings hold?",
    "transfer": "Trained on one, tested on another",
}
_SPACE = "\N{NARROW NO-BREAK SPACE}"


@dataclass(frozen=True)
class _Column:
    """How a column of a table is written."""

    name: str
    label: str
    digits: int | None = 2
    """None: it is text."""
    scale: float = 1.0
    unit: str = ""

    def value(self, row: Mapping[Any, Any]) -> str:
        """The figure with its unit; an en dash where there is none."""
        text = self._bare(row.get(self.name))
        return f"{text}{self.unit}" if text != "–" else text

    def bounds(self, row: Mapping[Any, Any]) -> str:
        """``…_low`` and ``…_high`` in brackets, in the unit of the figure; empty without them."""
        ends = [row.get(f"{self.name}_{end}") for end in ("low", "high")]
        if any(map(pd.isna, ends)):
            return ""
        return "[" + ", ".join(map(self._bare, ends)) + "]"

    def _bare(self, value: Any) -> str:
        if value is None or pd.isna(value):
            return "–"
        if self.digits is None:
            return str(value)
        return f"{float(value) * self.scale:z,.{self.digits}f}".replace("-", "−")


def _share(name: str, label: str) -> _Column:
    return _Column(name, label, 1, 100, f"{_SPACE}%")


def _text(name: str, label: str) -> _Column:
    return _Column(name, label.replace("_", " "), None)


_CELLS = _Column("n", "Cells", 0)
_R = _Column("pearson_r", "Pearson r")
_RANKS = (
    _Column("spearman_r", "Spearman ρ"),
    _Column("quadratic_weighted_kappa", "Quadratic-weighted κ"),
)
_SHARES = (
    _share("accuracy", "Exact class"),
    _share("accuracy_within_one", "Within one class"),
    _Column("mae", "Mean error, classes"),
)
_SCORES = (_CELLS, _R, *_RANKS, *_SHARES)
_COST = (
    _Column("parameters", "Parameters, millions", 2, 1e-6),
    _Column("flops", "GFLOPs a cell", 2, 1e-9),
    _Column("cells_per_s", "Cells per second", 1),
    _Column("training_s", "Training, minutes", 1, 1 / 60),
    _text("initial_weights", "Initial weights"),
)
_FIRST = {
    "compare": (_text("model", "Model"),),
    "resolution": (
        _Column("metres_per_pixel", "Metres per pixel", 3),
        _Column("pixels", "Pixels along a cell", 0),
    ),
    "transfer": (_text("train_on", "Trained on"), _text("test_on", "Tested on")),
}
_LIMITS = (_Column("lowest", "Lowest"), _Column("highest", "Highest"))
_AGREEMENT = (
    _text("differ_in", "Models differ in"),
    _text("prediction", "Prediction"),
    _Column("pairs", "Pairs", 0),
    _Column("rank_correlation", "Mean rank correlation"),
    *_LIMITS,
)
_CLASSES = (
    _text("landcover_class", "Land-cover class"),
    _text("prediction", "Prediction"),
    _Column("models", "Models", 0),
    _Column("mean", "Mean ratio"),
    *_LIMITS,
    _Column("spread", "Standard deviation"),
    _share("share_above_1", "Models above 1"),
    _text("verdict", "In all models"),
)
_TRAININGS = (
    _text("variant", "Training"),
    *(
        _text(name, name.capitalize())
        for name in ("seed", "protocol", "backbone", "head", "pixels")
    ),
    _text("initial_weights", "Initial weights"),
    _text("configuration", "Configuration (hash)"),
)
_PAIRS = (
    _text("train_on", "Trained on"),
    _text("test_on", "Tested on"),
    *(_text(name, name.capitalize()) for name in ("seed", "protocol", "backbone", "head")),
    _text("folds_kind", "Folds"),
    _text("configuration", "Configuration (hash)"),
)
_FOLDS = (
    _text("variant", "Training"),
    *(_text(name, name.capitalize()) for name in ("fold", "epochs", "best_epoch")),
    *(_CELLS, _R),
    _text("model_sha256", "Model (SHA-256)"),
)


def write_study(path: str | Path, name: str, tables: Mapping[str, pd.DataFrame]) -> Path:
    """Write the page of a comparison.

    The file is complete or not there. Text from data is shown as text, and the page forbids itself to load
    anything.

    Parameters
    ----------
    path : path
        Of the HTML file; its folder is made where it is missing.
    name : {"compare", "resolution", "stability", "transfer"}
        Which comparison.
    tables : mapping of str to DataFrame
        As ``Study.tables`` of `sesgrid.studies.comparisons` and `sesgrid.studies.transfer`. NaN and None
        become en dashes.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        There is no such comparison.
    MissingInputError
        Its table is not among the tables.
    """
    main = _main_table(name, tables)
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    results = tables.get("results", pd.DataFrame())
    figures, grids = _content(name, main, tables)
    html = environment.get_template("study.html").render(
        name=name,
        title=_TITLES[name],
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        facts=_facts(main, results),
        figures=figures,
        tables=grids,
        made_by=_made_by(results),
    )
    path = Path(path)
    write_atomically(path, html)
    return path


def _main_table(name: str, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    if name not in _TITLES:
        raise ConfigError(
            f"expected a comparison of {', '.join(_TITLES)}, received {name!r}: name one of them"
        )
    if name not in tables:
        raise MissingInputError(
            f"expected a table {name!r}, received {sorted(tables)}: pass the tables as the comparison "
            "returned them"
        )
    return _with_verdicts(tables[name]) if name == "stability" else tables[name]


def _with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """``holds`` only where there are two models to agree, and what it says in words."""
    if table.empty:
        return table
    holds = table["holds"].astype(bool) & (table["models"] > 1)
    side = table["share_above_1"].map(lambda share: "above 1" if share > 0.5 else "below 1")
    return table.assign(holds=holds, verdict=side.where(holds, "no"))


def _grid(
    caption: str, table: pd.DataFrame, columns: Sequence[_Column], folded: bool = False
) -> dict[str, Any]:
    """A table as text: ``rows`` are lists of (figure, its interval or "")."""
    rows = [[(c.value(r), c.bounds(r)) for c in columns] for r in table.to_dict("records")]
    return {"caption": caption, "head": [c.label for c in columns], "rows": rows, "folded": folded}


def _content(
    name: str, main: pd.DataFrame, tables: Mapping[str, pd.DataFrame]
) -> tuple[list[tuple[str, Markup]], list[dict[str, Any]]]:
    """The figures with their headings, and the tables."""
    if name == "stability":
        agreement = tables.get("agreement", pd.DataFrame())
        return [("", stability_chart(main))] if len(main) else [], [
            _grid("How alike two models rank the classes", agreement, _AGREEMENT),
            _grid("Activation ratios over models", main, _CLASSES, folded=True),
        ]
    scores = _grid("Scores on cells that the models had not seen", main, (*_FIRST[name], *_SCORES))
    if name == "transfer":
        return list(_matrices(main, tables)), [{**scores, "folded": True}]
    chart = model_chart if name == "compare" else resolution_chart
    return [("", chart(main))], [scores, _grid("What it costs", main, (*_FIRST[name], *_COST))]


def _matrices(
    main: pd.DataFrame, tables: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, Markup]]:
    for column in (_R, *_RANKS, _SHARES[0]):
        if column.name in tables:
            bounds = {
                (r["train_on"], r["test_on"]): column.bounds(r) for r in main.to_dict("records")
            }
            matrix = tables[column.name]
            yield column.label, matrix_chart(matrix, column.label, _writer(column), bounds)


def _writer(column: _Column) -> Callable[[float], str]:
    return lambda value: column.value({column.name: value})


def _facts(main: pd.DataFrame, results: pd.DataFrame) -> dict[str, Any]:
    """What the sentences of the page speak of."""
    baselines = sum(map(is_baseline, main.get("model", ())))
    known: tuple[str, ...] = ("city", "vintage", "thresholds_of", "folds_kind")
    known += ("initial_weights", "backbone", "seed", "software")
    return {
        "baselines": baselines,
        "networks": len(main) - baselines,
        "models": len(results),
        "folds": results["fold"].nunique() if "fold" in results else 0,
        **{key: _distinct(results, key) for key in known},
    }


def _distinct(table: pd.DataFrame, column: str) -> list[str]:
    known: Iterable[object] = table[column].dropna() if column in table else ()
    return list(dict.fromkeys(map(str, known)))


def _made_by(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Every training with its configuration, and its folds; nothing where there are no results."""
    if results.empty:
        return []
    if "model_sha256" not in results:
        return [_grid("Pairs of runs", results, _PAIRS, folded=True)]
    folds = results.assign(model_sha256=results["model_sha256"].astype(str).str[:12])
    return [
        _grid("Trainings", results.drop_duplicates("variant"), _TRAININGS),
        _grid("Every fold", folds, _FOLDS, folded=True),
    ]


def print_lines(name: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """The main table of a comparison as aligned text, for the terminal.

    Parameters
    ----------
    name, tables
        As for `write_study`.

    Raises
    ------
    ConfigError, MissingInputError
        As for `write_study`.

    Examples
    --------
    >>> names = pd.Index(["Nice", "Lyon"])
    >>> r = pd.DataFrame([[0.6, 0.3], [0.25, 0.5]], index=names, columns=names)
    >>> for line in print_lines("transfer", {"transfer": r.stack().reset_index(), "pearson_r": r}):
    ...     print(line)
    Pearson r  Nice  Lyon
    Nice       0.60  0.30
    Lyon       0.25  0.50
    rows: trained on; columns: tested on, with its classes
    """
    main = _main_table(name, tables)
    if name == "stability":
        yield from _printed_stability(main, tables)
    elif name == "transfer":
        yield from _printed_matrix(tables["pearson_r"])
    else:
        yield from _printed_scores(main, _FIRST[name])


def _printed_scores(main: pd.DataFrame, first: Sequence[_Column]) -> Iterator[str]:
    columns = (*first, _R, *_SHARES, *_COST[:3])
    short = ("exact", "within one", "MAE", "M parameters", "GFLOPs", "cells/s")
    head = [*(c.label for c in first), _R.label, "95 %", *short]
    after = len(first) + 1
    rows = []
    for r in main.to_dict("records"):
        row = [c.value(r) for c in columns]
        rows.append([*row[:after], _R.bounds(r) or "–", *row[after:]])
    yield from _aligned([head, *rows])
    weights = ", ".join(_distinct(main, "initial_weights")) or "–"
    yield _plain(f"intervals over blocks; initial weights: {weights}")


def _printed_stability(main: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    agreement = tables.get("agreement", pd.DataFrame())
    if agreement.empty:
        yield "no two models that differ in one thing alone share four classes: no agreement to tell"
    else:
        rows = [[c.value(r) for c in _AGREEMENT] for r in agreement.to_dict("records")]
        yield from _aligned([[c.label for c in _AGREEMENT], *rows], texts=2)
    for side in ("low", "high"):
        of_side = main[main["prediction"] == side] if len(main) else main
        for verdict in ("above 1", "below 1"):
            held = of_side[of_side["verdict"] == verdict] if len(of_side) else of_side
            names = [
                f"{_plain(c)} ({number(m)})"
                for c, m in zip(held.get("landcover_class", ()), held.get("mean", ()), strict=True)
            ]
            yield f"predicted {side}, {verdict} in all models: {', '.join(names) or 'none'}"


def _printed_matrix(matrix: pd.DataFrame) -> Iterator[str]:
    write = _writer(_R)
    head = ["Pearson r", *(squeeze(_plain(c), 14) for c in matrix.columns)]
    rows = [
        [str(name), *map(write, values)]
        for name, values in zip(matrix.index, matrix.to_numpy(), strict=True)
    ]
    yield from _aligned([head, *rows])
    yield "rows: trained on; columns: tested on, with its classes"


def _plain(text: object) -> str:
    """On one line, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def _aligned(rows: Sequence[Sequence[str]], texts: int = 1) -> Iterator[str]:
    """Columns of equal width: so many to the left, the others to the right."""
    cells = [[squeeze(_plain(cell), 40) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        pairs = zip(row, widths, strict=True)
        padded = [c.ljust(w) if k < texts else c.rjust(w) for k, (c, w) in enumerate(pairs)]
        yield "  ".join(padded).rstrip()
