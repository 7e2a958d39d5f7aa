"""The last stages of a run: findings, the result files, the sealed cube, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from sesgrid import __version__
from sesgrid.foreign import reading, refuse_pipe
from sesgrid.report import SHOWN, CellThumbnail, write_report
from sesgrid.run.activation import load_activation
from sesgrid.run.baselines import run_baselines
from sesgrid.run.cluster import on_gpus
from sesgrid.run.job import Job, class_table, load_models, method_of, protocol_of
from sesgrid.run.memory import give_back
from sesgrid.run.published import published
from sesgrid.run.tables import CellTable, TableWriter
from sesgrid.run.workspace import load_sealed, save_sealed
from sesgrid.sources import class_groups, class_names
from sesgrid.stages.activation import MAPS
from sesgrid.stages.analyse import Findings, analyse
from sesgrid.stages.evidence import UNCLASSIFIED
from sesgrid.stages.explain import explain_maps
from sesgrid.stages.folds import FOLD_KINDS
from sesgrid.stages.leakage import kind_of_folds
from sesgrid.stages.scored_cells import TOLD
from sesgrid.store.csv_text import csv_text
from sesgrid.store.cube import Cube
from sesgrid.store.models import record_metrics
from sesgrid.store.parts import write_atomically

__all__ = ["run_analyse", "run_report"]

_GALLERY = 6
"""Cells shown with their activation."""

_TABLES = ("activation", "pairs")
"""Tables of the findings."""

_LEARNT = (*(n for n in TOLD if n != "ses_predicted"), "weight", "coverage", "void_share")
"""Columns that the baselines are learnt from and scored with."""

_SEALED = (
    "income",
    "individuals",
    "ses_true",
    "ses_predicted",
    "p",
    "fold",
    "coverage",
    "imputed",
    "ortho_year",
    "ortho_gap_years",
    "ortho_source",
)


def run_analyse(job: Job) -> dict[str, Any]:
    """Predictions and class sums → metrics, findings, and the result files."""
    c, files, table = job.config, job.files, CellTable(job.files.table("predict"))
    files.mark.enter(files.cells, files.activation, files.pairs, files.metrics)
    colours = [n for n in table.columns if n.startswith("mean_")]
    cells = _cells(table, *TOLD, "probability_", "mean_")
    findings = analyse(
        cells,
        load_activation(c, job.files, cells.index),
        groups=class_groups(class_table(c)),
        n_bootstrap=c.analyse.bootstrap,
        seed=c.analyse.seed,
        mean_colour=cells[colours],
        other_folds=_other_folds(job, cells),
        cells_per_block=c.cells.fold_block_cells,
    )
    del cells  # a nation's are half a gigabyte, and the baselines look at others of their columns
    give_back()
    findings.metrics["baselines"] = run_baselines(c, job.client, _cells(table, *_LEARNT))
    give_back()
    names = _write_cells(job, colours)
    for name in _TABLES:
        found = getattr(findings, name)
        write_atomically(getattr(job.files, name), csv_text(found))
        save_sealed(found, job.files.table(name))  # with its attributes, for the report
    write_atomically(
        job.files.metrics,
        json.dumps(
            {**findings.metrics, "run": _named(job, table.attrs)}, indent=1, allow_nan=False
        ),
    )
    _write_cards(job, findings.metrics)
    Cube.open(job.files.cube).seal(
        partial(CellTable(job.files.cells).read, with_id=False), names, _sealed(job, table.attrs)
    )
    m = findings.metrics
    summary = {
        k: m.get(k)
        for k in (
            "pearson_r",
            "pearson_r_colour_baseline",
            "accuracy",
            "accuracy_within_one",
            "mae",
        )
    }
    boosting = m["baselines"]["gradient_boosting"]["pearson_r"]
    summary["pearson_r_boosting_baseline"] = boosting
    if m["by_folds"] is not None:
        summary |= {f"pearson_r, {k} folds": m["by_folds"][k]["pearson_r"] for k in FOLD_KINDS}
        summary["leakage gap in r"] = m["by_folds"]["leakage_gap"]["pearson_r"]["value"]
    return summary


def _cells(table: CellTable, *names: str) -> pd.DataFrame:
    """Some columns of a stage's table of cells, of those that it has: by their names, or ``start_``."""
    starts = tuple(n for n in names if n.endswith("_"))
    return table.read([n for n in table.columns if n in names or (starts and n.startswith(starts))])


def _write_cells(job: Job, without: Sequence[str]) -> list[str]:
    """Write the result per cell, a batch at a time; names of the columns that the cube is sealed with."""
    c, peaks = job.config, [f"peak_{m}" for m in MAPS]
    table = CellTable(job.files.table("predict"))
    columns = [n for n in table.columns if n not in without]
    if c.explain.maps == "none":
        kept, names = None, list(_SEALED)
    else:
        explained = CellTable(job.files.table("explain"))
        kept = explained.read([n for n in peaks if n in explained.columns])
        # where no map was kept there is no such column
        kept, names = kept.reindex(columns=peaks).astype("float64"), [*_SEALED, *peaks]
    with TableWriter(job.files.cells, table.attrs, squares=True) as writer:
        for rows in table.batches(columns):
            writer.write(rows if kept is None else rows.join(kept.reindex(rows.index)))
    return names


def _other_folds(job: Job, cells: pd.DataFrame) -> pd.DataFrame | None:
    """The cells as predicted by the models of the other kind of fold, where these were trained too."""
    path = job.files.table("predict-other")
    if not path.exists():
        return None
    other = _cells(CellTable(path), *TOLD, "probability_")
    same = all(other.attrs.get(k) == cells.attrs.get(k) for k in ("city", "thresholds", "labels"))
    return other if same and kind_of_folds(other.attrs) != kind_of_folds(cells.attrs) else None


def _write_cards(job: Job, scores: Mapping[str, Any]) -> None:
    """Every model's card tells how well it did on the cells that it had not seen."""
    if job.config.models is not None:
        return  # they are other runs'
    compared = scores["by_folds"] or {}
    for kind in FOLD_KINDS:
        of_kind = scores if kind == scores["folds_kind"] else compared.get(kind)
        if of_kind is None:
            continue
        by_fold = {f["fold"]: f for f in of_kind["folds"]}
        for model_id, ref in load_models(job, kind).items():
            number = int(model_id.removeprefix(f"{job.config.name}-{kind}"))
            if number in by_fold:
                record_metrics(ref, by_fold[number])


def _named(job: Job, attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """The choices by name that every output carries."""
    c = job.config
    return {
        "software": f"sesgrid {__version__}",
        "protocol": protocol_of(c).name,
        "backbone": protocol_of(c).backbone,
        "head": protocol_of(c).head,
        "thresholds_of": attributes.get("thresholds_of"),
        "explain_preset": method_of(c).name,
        "explain_precision": c.explain.precision,
        "labels": c.cells.labels or protocol_of(c).labels,
        "folds_kind": kind_of_folds(attributes),
        "seed": c.train.seed,
    }


def _sealed(job: Job, attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """What a finished cube says of its run."""
    return {"sealed": job.key, **published(job.config), **_named(job, attributes)}


def _load_findings(job: Job) -> Findings:
    """What `run_analyse` found."""
    with reading(job.files.output, advice="delete metrics.json, and run again"):
        refuse_pipe(job.files.metrics)
        metrics = json.loads(job.files.metrics.read_bytes())
        metrics.pop("run")
        tables = {name: load_sealed(job.files.table(name)) for name in _TABLES}
    known = class_table(job.config)
    used = job.config.sources.landcover is not None
    names = (UNCLASSIFIED, *class_names(known)) if used else ()
    return Findings(metrics, **tables, landcover_classes=names, groups=class_groups(known))


def run_report(job: Job) -> dict[str, Any]:
    """Everything → one HTML page."""
    c, table = job.config, CellTable(job.files.table("predict"))
    job.files.mark.enter(job.files.report)
    cells = table.read(SHOWN, with_id=False)
    made = ("cells", "mosaic", "landcover", "train", "predict", "explain")
    notes = [n for stage in made for n in _notes(job, stage)]
    write_report(
        job.files.report,
        cells,
        _load_findings(job),
        title=f"Socioeconomic map of {c.name}",
        thumbnails=_thumbnails(job, table),
        provenance={
            "city": c.name,
            "date": date.today().isoformat(),
            **_named(job, cells.attrs),
            "sources": {
                "census": f"{c.sources.census.name} (vintage {cells.attrs.get('vintage')})",
                "ortho": ", ".join(p.name for p in c.sources.ortho),
                "landcover": c.sources.landcover.name if c.sources.landcover else "none",
            },
            "settings": json.loads(
                c.model_dump_json(
                    include={"grid", "cells", "mosaic", "train", "explain", "analyse"}
                )
            ),
        },
        notes=notes,
        audit=_audit(job),
    )
    return {"report": job.files.report.name}


def _audit(job: Job) -> dict[str, Any] | None:
    """What an audit found, where there was one."""
    if not job.files.audit.exists():
        return None
    with reading(job.files.audit, advice="delete it, and audit again"):
        return dict(json.loads(job.files.audit.read_bytes()))


def _notes(job: Job, stage: str) -> list[str]:
    summary = job.files.record(stage).read().get("summary", {})
    return [n for kind in ("notes", "errors", "failures") for n in summary.get(kind, [])]


def _thumbnails(job: Job, table: CellTable) -> list[CellThumbnail]:
    """The cells that the models are surest of, half of them low and half high."""
    p = table.read(["p"], with_id=False)["p"].to_numpy(np.float64, na_value=np.nan)
    surest = _surest(p)
    if not surest:
        return []
    chosen = table.take(surest)
    pixels = Cube.open(job.files.cube).pixels()
    lazy = explain_maps(chosen, pixels, load_models(job), method_of(job.config))
    maps = job.client.compute(lazy.data, resources=on_gpus(job.client)).result()
    extent = Cube.open(job.files.cube).extent
    out = []
    for (cell_id, cell), (low, high) in zip(chosen.iterrows(), maps, strict=True):
        y, x = extent.cell_slices(int(cell["row"]), int(cell["col"]))
        true, predicted = cell["ses_true"], cell["ses_predicted"]
        classes = np.asarray(pixels["landcover"].variable[y, x])
        out.append(
            CellThumbnail(
                str(cell_id),
                None if pd.isna(true) else int(true),
                None if pd.isna(predicted) else int(predicted),
                float(cell["p"]),
                np.moveaxis(np.asarray(pixels["image"].variable[:, y, x]), 0, -1),
                low,
                high,
                classes if job.config.sources.landcover is not None else None,
            )
        )
    return out


def _surest(p: np.ndarray) -> list[int]:
    """Positions of the lowest and, as many, the highest of what is known; each cell once."""
    known = np.flatnonzero(np.isfinite(p))
    half = min(_GALLERY // 2, len(known) // 2)
    order = known[np.argsort(p[known], kind="stable")].tolist()
    return [*order[:half], *order[len(order) - half :]]
