"""Train on one city, test on another: every ordered pair of runs, cities or years of one city."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from distributed import Client

from sesgrid import __version__
from sesgrid.errors import ConfigError
from sesgrid.kernels.scores import SCORES
from sesgrid.run.cell_stages import rows_over_cells
from sesgrid.run.config import Config
from sesgrid.run.freshness import key_of
from sesgrid.run.job import Job, load_models, protocol_of, scores_of
from sesgrid.run.job import folds_kind as folds_kind_of
from sesgrid.run.mark import Mark
from sesgrid.run.workspace import Workspace, load_table, save_rows
from sesgrid.stages.cells import usable
from sesgrid.stages.folds import near, training_cells
from sesgrid.stages.leakage import kind_of_folds
from sesgrid.stages.predict import Predict, join_predictions
from sesgrid.stages.scored_cells import scorable
from sesgrid.store.csv_text import csv_text
from sesgrid.store.models import ModelRef
from sesgrid.store.parts import write_atomically
from sesgrid.studies.comparisons import Study, score_row

__all__ = ["require_alike", "transfer"]


_NAMED = [
    "protocol",
    "backbone",
    "head",
    "seed",
    "folds_kind",
    "thresholds_of",
    "configuration",
    "software",
]
"""What names a pair beside its scores."""


def transfer(
    configs: Sequence[Config], client: Client, folder: Path, tell: Callable[[str], None]
) -> Study:
    """Score every run's models on every run's cells.

    A run's own cells are scored as always, each by the model that did not see it. Another run's cells are
    scored by each of the fold models, and the scores averaged, so that both come from models of as many
    cells. Where the two share places (years of one city), a place is left to the model that did not see it,
    and with spatial folds a place within the buffer of training cells is left out. Classes are those of the
    run that is tested.

    Parameters
    ----------
    configs : sequence of Config
        Each up to date with its stage ``predict``; equal cell size and number of classes.
    client : Client
    folder : Path
        Gets ``transfer.csv`` (a row a pair; ``n`` counts cells, however many models score each),
        ``results.parquet`` (the same with what the models were trained with, what parts the classes,
        ``configuration``, a hash of all that the pair depends on, and ``software``), and matrices of four
        scores, such as ``pearson_r.csv``.
    tell : callable
        Receives a line per event.

    Raises
    ------
    ConfigError
        Fewer than two runs, a run twice, or runs that differ in cell size or number of classes.
    """
    require_alike(configs)
    names = _names(configs)
    rows = []
    for trained, train_on in zip(configs, names, strict=True):
        for tested, test_on in zip(configs, names, strict=True):
            tell(f"trained on {train_on}, tested on {test_on}")
            table = _own(trained) if trained is tested else _foreign(trained, tested, client)
            rows.append(
                {
                    "train_on": train_on,
                    "test_on": test_on,
                    **score_row(scores_of(tested, table)),
                    "n": scorable(table).index.nunique(),
                    **_made_from(trained, tested),
                }
            )
    results = pd.DataFrame(rows)
    found = results.drop(columns=_NAMED)
    matrices = {
        name: found.pivot(index="train_on", columns="test_on", values=name).loc[names, names]
        for name in SCORES[:4]
    }
    _enter(folder, [*matrices, "transfer"])
    save_rows(results, folder / "results.parquet")
    write_atomically(folder / "transfer.csv", csv_text(found))
    for name, matrix in matrices.items():
        write_atomically(folder / f"{name}.csv", csv_text(matrix, index=True))
    return Study("transfer", {"transfer": found, **matrices, "results": results})


def _enter(folder: Path, titles: Sequence[str]) -> None:
    """See that the folder is that of a transfer study, and that only such a study's files are replaced."""
    mark = Mark(folder)
    mark.take("transfer")
    mark.enter(
        *(folder / f"{t}.csv" for t in titles), folder / "results.parquet", folder / "index.html"
    )


def require_alike(configs: Sequence[Config]) -> None:
    """Refuse runs whose models cannot be tried on each other's cells; see `transfer`."""
    if len(configs) < 2:
        raise ConfigError(f"transfer needs at least two configurations, received {len(configs)}")
    for what, places in (
        ("output", [str(c.output) for c in configs]),
        ("cube.path", [Workspace.of(c).cube for c in configs]),
    ):
        twice = sorted({p for p in places if places.count(p) > 1})
        if twice:
            raise ConfigError(
                f"transfer needs each run once, received {twice[0]} ({what}) several times: give every "
                "configuration an output folder and a cube of its own"
            )
    for what, values in (
        ("grid.pixels_per_cell", {c.grid.pixels_per_cell for c in configs}),
        ("cells.classes", {c.cells.classes for c in configs}),
    ):
        if len(values) > 1:
            raise ConfigError(
                f"{what} must be the same in all configurations, received {sorted(values)}: a model takes "
                "cells of one size and tells one number of classes"
            )


def _names(configs: Sequence[Config]) -> list[str]:
    """The cities' names, with the census' year, or else the run's folder, where a city comes twice."""
    plain = [c.name for c in configs]
    if len(set(plain)) == len(plain):
        return plain
    vintages = [load_table(Workspace.of(c).table("cells")).attrs.get("vintage") for c in configs]
    dated = [f"{n} {v}" for n, v in zip(plain, vintages, strict=True)]
    if len(set(dated)) == len(dated):
        return dated
    # the tables and the page are passed on: not where on this machine the runs lie
    common = os.path.commonpath([c.output.parent for c in configs])
    folders = [c.output.relative_to(common).as_posix() for c in configs]
    return [f"{n} ({folder})" for n, folder in zip(plain, folders, strict=True)]


def _made_from(trained: Config, tested: Config) -> dict[str, Any]:
    """What names the models and the cells of a pair."""
    trained_by, tested_by = Workspace.of(trained), Workspace.of(tested)
    facts: dict[str, Any] = {"sesgrid": __version__, "analyse": tested.analyse}
    facts["trained"] = trained_by.record("train").read()["result_id"]
    facts |= {s: tested_by.record(s).read()["result_id"] for s in ("cells", "mosaic", "predict")}
    named = {"configuration": key_of(facts), "software": f"sesgrid {__version__}"}
    protocol = protocol_of(trained)
    attrs = load_table(tested_by.table("cells")).attrs
    return {
        "protocol": protocol.name,
        "backbone": protocol.backbone,
        "head": protocol.head,
        "seed": trained.train.seed,
        "folds_kind": folds_kind_of(trained),
        "thresholds_of": attrs.get("thresholds_of"),
        **named,
    }


def _own(config: Config) -> gpd.GeoDataFrame:
    return load_table(Workspace.of(config).table("predict"))


def _foreign(trained: Config, tested: Config, client: Client) -> gpd.GeoDataFrame:
    """The tested run's labelled cells as each of the other's models predicts them, one under the other."""
    theirs, cells = _own(trained), _own(tested)
    attrs = dict(cells.attrs)
    files = Workspace.of(trained)
    models = load_models(Job(trained, files, client, ""))
    enough = usable(cells, tested.cells.min_coverage, protocol_of(tested).max_void)
    cells = cells[enough & cells["labelled"]]
    seen_by = theirs["fold"].reindex(cells.index).to_numpy(np.float64, na_value=np.nan)
    place, parts = ["row", "col"], []
    for fold, ref in enumerate(models[k] for k in _in_order(models)):
        seen = theirs.loc[training_cells(theirs, fold), place].to_numpy(np.int64)
        leaks = near(cells[place].to_numpy(np.int64), seen, _buffer(theirs))
        part = cells[(np.isnan(seen_by) & ~leaks) | (seen_by == fold)].copy()
        part["model_id"], part["fold"] = ref.model_id, fold
        part.attrs = attrs
        rows = _rows(tested, part, ref, client)
        parts.append(join_predictions(part, rows))
    table = pd.concat(parts)
    table.attrs = attrs
    return table


def _buffer(cells: pd.DataFrame) -> int:
    """How far from a training cell, in cells, a model counts as having seen a place."""
    return int(cells.attrs["buffer_cells"]) if kind_of_folds(cells.attrs) == "spatial" else 0


def _in_order(models: dict[str, ModelRef]) -> list[str]:
    """Ids by fold: "…-random2" before "…-random10"."""
    return sorted(models, key=lambda name: (len(name), name))


def _rows(tested: Config, part: gpd.GeoDataFrame, ref: ModelRef, client: Client) -> pd.DataFrame:
    files = Workspace.of(tested)
    if part.empty:
        return pd.DataFrame()
    facts: dict[str, Any] = {"sesgrid": __version__, "model": ref.sha256, "cells": list(part.index)}
    facts["mosaic"] = files.record("mosaic").read()["result_id"]
    job = Job(tested, files, client, key_of(facts))
    stage = Predict()
    name = f"transfer-{ref.sha256[:12]}"
    return rows_over_cells(job, name, stage, part, {ref.model_id: ref}, Predict.layers)
