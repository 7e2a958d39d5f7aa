"""The audit of a finished run, which is found by its cube."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from distributed import Client

from sesgrid.errors import MissingInputError
from sesgrid.foreign import reading
from sesgrid.run.cluster import on_gpus
from sesgrid.run.config import Config
from sesgrid.run.engine import unfinished
from sesgrid.run.found import config_of_cube
from sesgrid.run.freshness import fingerprint, key_of
from sesgrid.run.job import Job, class_table, load_models, method_of
from sesgrid.run.outputs import written_by
from sesgrid.run.results import run_report
from sesgrid.run.workspace import Workspace, load_sealed, load_table
from sesgrid.sources import class_names, landcover_classes
from sesgrid.stages.audit import audit_stage, place_audit
from sesgrid.stages.audit_figures import summarise
from sesgrid.store.cube import Cube
from sesgrid.store.parts import write_atomically

__all__ = ["figures", "finished_run", "run_audit"]


def finished_run(path: str, config: Config) -> Config:
    """The configuration of the finished run whose a cube is; see `sesgrid.run.found.config_of_cube`.

    Raises
    ------
    MissingInputError
        No cube, none that a run has finished, or the run's tables are gone or of another run.
    ConfigError
        The configuration is another run's.
    """
    sealed = Cube.open(path).attribute("sealed")
    if sealed is None:
        raise MissingInputError(
            f"{path} is not of a finished run: bring it to its end with `sesgrid run`, then audit it"
        )
    config = config_of_cube(path, config)
    files = Workspace.of(config)
    reasons = unfinished(config, files, "analyse")
    if files.record("analyse").read().get("key") != sealed or reasons:
        raise MissingInputError(
            f"the run of {path} has gone on since the cube was sealed"
            f"{f' ({reasons[0]})' if reasons else ''}: bring it to its end with `sesgrid run`, then audit it"
        )
    return config


def run_audit(config: Config, client: Client, cells: int, seed: int) -> dict[str, Any]:
    """Audit a finished run: write ``audit.json``, and make the report again with it.

    Parameters
    ----------
    config : Config
        From `finished_run`.
    client : Client
    cells : int
        Size of the sample.
    seed : int

    Returns
    -------
    dict
        See `sesgrid.stages.audit_figures.summarise`.
    """
    files = Workspace.of(config)
    job = Job(config, files, client, key_of({"cells": cells, "seed": seed}))
    table, models = load_table(files.table("predict")), load_models(job)
    names = class_names(class_table(config))
    stage = audit_stage(models, len(names) + 1, method_of(config), seed)
    placed = place_audit(stage, table, cells, job.cube(table).pixels(), models)
    with_landcover = config.sources.landcover is not None
    truth = planted(config)
    activation = load_sealed(files.table("activation")) if with_landcover else None
    rows = list(client.compute(placed, resources=on_gpus(client)).result())
    result = summarise(
        rows, stage.settings, names if with_landcover else [], truth=truth, activation=activation
    )
    files.mark.enter(files.audit)
    write_atomically(files.audit, json.dumps(result, indent=1, allow_nan=False))
    _redo_report(job)
    return result


def planted(config: Config) -> list[str]:
    """Classes that bear income: of a synthetic city, from the ``truth.json`` beside its land cover."""
    landcover = config.sources.landcover
    path = landcover.with_name("truth.json") if landcover is not None else None
    if path is None or not path.exists():
        return []
    advice = "expected the truth of a synthetic city, with 'bearing_classes' by code: move it away"
    with reading(path, advice=advice):
        codes = [int(code) for code in json.loads(path.read_bytes())["bearing_classes"]]
    known = class_table(config)
    known = landcover_classes() if known is None else known
    if known.index.nlevels > 1:
        return []  # the truth is told by codes of the Urban Atlas
    # several codes may share one of the study's classes
    return list(dict.fromkeys(known.loc[known.index.isin(codes), "landcover_class"].dropna()))


def _redo_report(job: Job) -> None:
    """The report of what was found; the run's imagery and census need not be there any more."""
    record = job.files.record("report")
    known = record.read()
    if not known:
        return
    record.forget()
    job.files.withdraw("report")
    facts = known["facts"] | {"audit": fingerprint(job.files.audit)}
    summary = run_report(job)
    record.write(facts, summary, written=written_by(job.config, job.files, "report", summary))


def figures(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The audit in a few lines: what, and how much."""

    def mean(of: Mapping[str, Any]) -> str:
        if of["mean"] is None:
            return "undefined"
        return f"{of['mean']:.3f} [{of['ci'][0]:.3f}, {of['ci'][1]:.3f}]"

    yield "cells looked at, predicted low / high", f"{result['low']} / {result['high']}"
    truth = result["planted_truth"]
    if truth is not None:
        for name, of in (("pointing game", "pointing_game"), ("activation on the truth", "energy")):
            yield f"{name} (chance {_or_none(truth['chance'])})", mean(truth[of])
        for side, ranking in truth["ranking"].items():
            yield f"class ranking, {side} (chance 0.5)", _or_none(ranking["auc"])
    for test in ("deletion", "insertion"):
        yield f"{test}, gain over chance", mean(result[test]["gain"])
    steps = result["randomisation"]["steps"]
    unrelated = _or_none(result["randomisation"]["unrelated"]["mean"])
    for step in (steps[0], steps[-1]):
        what = f"{step['layers']} layer{'s' if step['layers'] > 1 else ''}"
        yield f"similarity after {what} drawn anew (other cells {unrelated})", mean(step)
    if result["folds"] is not None:
        yield (
            f"similarity between folds (other cells {unrelated})",
            mean(result["folds"]["similarity"]),
        )


def _or_none(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
