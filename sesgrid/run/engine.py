"""The run: stages in order, each done only when its inputs or settings changed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client

from sesgrid import __version__
from sesgrid.batches.blocks import departements_of
from sesgrid.batches.leases import Leases
from sesgrid.errors import ClusterError, ConfigError, SesgridWarning, StoreError
from sesgrid.run.cell_stages import run_explain, run_predict
from sesgrid.run.check import check_sources
from sesgrid.run.config import Config
from sesgrid.run.delivered import check_delivered
from sesgrid.run.freshness import digest, fingerprint, key_of
from sesgrid.run.job import Job, class_table, method_of, protocol_of
from sesgrid.run.memory import give_back, sparing
from sesgrid.run.outputs import missing_outputs, written_by
from sesgrid.run.own_cube import CubeDamage
from sesgrid.run.performance import reported
from sesgrid.run.pixel_stages import run_cells, run_landcover, run_mosaic
from sesgrid.run.published import placeless
from sesgrid.run.redo import make_again
from sesgrid.run.results import run_analyse, run_report
from sesgrid.run.training import run_train
from sesgrid.run.verify import KEPT, PIXEL_STAGES, find_lost
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store.cube import CUBE_VERSION, Cube

__all__ = ["STAGES", "facts_of", "run_stages", "unfinished"]


@dataclass(frozen=True)
class StageSpec:
    """A stage of a run: what it needs, and what makes it stale."""

    run: Callable[[Job], Mapping[str, Any]]
    needs: tuple[str, ...]
    """Stages whose results it reads."""
    settings: tuple[str, ...] = ()
    """Dotted keys of the configuration."""
    inputs: tuple[str, ...] = ()
    """Keys of ``sources``."""


STAGES: dict[str, StageSpec] = {
    "cells": StageSpec(
        run_cells,
        (),
        (
            "name",
            "cells.rule",
            "cells.classes",
            "cells.thresholds",
            "cells.quantiles",
            "cells.quantile_weight",
            "cells.imputed_weight",
            "cells.folds",
            "cells.folds_kind",
            "cells.fold_block_cells",
            "cells.buffer_cells",
            "cells.compare_folds",
            "cells.seed",
            "sources.census_layer",
            "sources.vintage",
            "sources.boundary_layer",
            "sources.ortho_crs",
            "grid.cells_per_block",
        ),
        ("census", "boundary", "cities"),
    ),
    "mosaic": StageSpec(
        run_mosaic,
        ("cells",),
        (
            "grid.pixels_per_cell",
            "grid.cells_per_block",
            "cube.path",
            "cube.codec",
            "cube.quality",
            "mosaic.prefer",
            "mosaic.fill_values",
            "sources.ortho_crs",
        ),
        ("ortho",),
    ),
    "landcover": StageSpec(
        run_landcover,
        ("mosaic", "cells"),
        ("sources.landcover_layer",),
        ("landcover", "landcover_classes"),
    ),
    "train": StageSpec(
        run_train, ("mosaic", "cells"), ("cells.min_coverage", "cells.compare_folds", "train.seed")
    ),
    "predict": StageSpec(run_predict, ("train",), ("cells.min_coverage", "cells.compare_folds")),
    "explain": StageSpec(run_explain, ("predict", "landcover")),
    "analyse": StageSpec(
        run_analyse, ("predict", "explain"), ("analyse.bootstrap", "analyse.seed")
    ),
    "report": StageSpec(run_report, ("analyse",)),
}
"""In the order of the data flow."""


def facts_of(stage: str, config: Config, results: Mapping[str, str]) -> dict[str, Any]:
    """Everything that a stage's results depend on, flat, for hashing and for telling what changed.

    Parameters
    ----------
    stage : str
    config : Config
    results : mapping
        Names of the results (``result_id``) of the stages that it needs.
    """
    spec = STAGES[stage]
    facts: dict[str, Any] = {"sesgrid": __version__}
    for dotted in spec.settings:
        value: Any = config
        for name in dotted.split("."):
            value = getattr(value, name)
        facts[dotted] = value
    if stage == "cells":
        facts["cells.labels"] = config.cells.labels or protocol_of(config).labels
    if stage == "explain":
        facts |= {f"explain.{k}": v for k, v in vars(method_of(config)).items()}
        facts["explain.precision"] = config.explain.precision
        facts["explain.fragments"] = config.explain.fragments
        facts["explain.maps"] = config.explain.maps
    table = class_table(config) if stage in ("landcover", "explain") else None
    if table is not None:
        # what pixels are named after: their batches depend on it, not only the stage
        facts["landcover classes"] = digest([table.to_csv()])
    if stage == "train":
        facts |= {f"train.{k}": v for k, v in vars(protocol_of(config)).items()}
    inputs = list(spec.inputs)
    if stage == "cells" and config.sources.boundary is None:
        # the boundary is then taken from the land cover, or from the imagery's footprint
        polygons = config.sources.landcover is not None and config.sources.landcover_classes is None
        inputs.append("landcover" if polygons else "ortho")
    for name in inputs:
        value = getattr(config.sources, name)
        paths = value if isinstance(value, list) else [value]
        # a table that goes by its name is told of above
        facts[f"input {name}"] = [[p.name, fingerprint(p)] for p in paths if isinstance(p, Path)]
    if stage == "report":
        facts["audit"] = fingerprint(Workspace.of(config).audit)
    if stage == "mosaic":
        facts["cube version"] = CUBE_VERSION
    if stage == "train" and config.models is not None:
        for k, path in enumerate(config.models.cities, 1):
            facts[f"input models of city {k}"] = fingerprint(path / "models")
            facts[f"input cells of city {k}"] = fingerprint(Workspace(path).table("cells"))
    if stage == "predict" and config.models is not None:
        facts["models.cities"] = [p.name for p in config.models.cities]
        facts["models.elsewhere"] = config.models.elsewhere
    if stage == "train" and facts["train.weights"] not in (None, "imagenet"):
        weights = Path(facts["train.weights"])
        facts |= {"train.weights": weights.name, "input weights": fingerprint(weights)}
    facts |= {f"stage {name}": _result_for(stage, name, results) for name in spec.needs}
    return facts


_BY_BATCHES = ("mosaic", "landcover", "predict", "explain")


def settings_key(stage: str, facts: Mapping[str, Any]) -> str:
    """Hash of what every batch of a stage depends on; what it reads is in each batch's own key.

    Of a stage that does not go by batches, of everything that it depends on.
    """
    if stage not in _BY_BATCHES:
        return key_of(facts)
    whole = {"stage cells"} if stage == "mosaic" else set()
    return key_of(
        {k: v for k, v in facts.items() if k in whole or not k.startswith(("input ", "stage "))}
    )


def _result_for(stage: str, needed: str, results: Mapping[str, str]) -> str:
    """What a stage depends on of another one's result: pixels are drawn for places, whatever their labels."""
    # and classes are burnt into a cube, whatever its imagery
    places_only = needed in ("cells", "mosaic") and stage in ("mosaic", "landcover")
    return results[needed].rpartition("-")[2] if places_only else results[needed]


def unfinished(config: Config, files: Workspace, last: str) -> list[str]:
    """Why the results of a stage do not stand as a run made them; empty when they do.

    Looks at the run's own files only, not at its inputs or settings.
    """
    results: dict[str, str] = {}
    for name in _closure(last):
        record = files.record(name).read()
        if not record:
            return [f"{name}: not done"]
        for needed in STAGES[name].needs:
            if record["facts"].get(f"stage {needed}") != _result_for(name, needed, results):
                return [f"{name}: {needed} was done again after it"]
        missing = missing_outputs(config, files, name)
        if missing:
            return [f"{name}: {', '.join(missing)} is missing"]
        results[name] = record["result_id"]
    return []


def _closure(last: str) -> list[str]:
    """A stage and all that it needs, in order."""
    wanted = {last}
    for name in reversed(STAGES):
        if name in wanted:
            wanted.update(STAGES[name].needs)
    return [name for name in STAGES if name in wanted]


PARTLY = ("cells", "mosaic", "landcover")
"""Stages that jobs of several départements may do side by side; the rest needs all pixels, or all models."""


def run_stages(
    config: Config,
    client: Client,
    last: str,
    tell: Callable[[str], None],
    only: frozenset[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Bring a stage up to date, and before it every stage that it needs.

    Parameters
    ----------
    config : Config
    client : Client
    last : str
        A key of `STAGES`.
    tell : callable
        Receives a line per event.
    only : frozenset of str, optional
        Départements whose pixels are made, for jobs that make one cube side by side. Such a job ends no
        stage but ``cells``: a run without it finds all batches there, and goes on. With a stage of `PARTLY`.

    Returns
    -------
    dict
        Summary per stage; ``errors`` lists what could not be read and ``failures`` what could not be done,
        neither of which stopped the run.

    Raises
    ------
    ConfigError
        ``only`` names départements without cells, or goes with a stage that needs all.
    ReadError
        A source is not what was delivered, where ``sources.check`` asks.
    """
    if only is not None and last not in PARTLY:
        raise ConfigError(f"{last} needs all départements: give --only to {' or '.join(PARTLY)}")
    if only is None:
        check_delivered(config, tell)
    files = Workspace.of(config)
    files.take(config)
    with sparing(), Leases(files.leases) as leases, reported(client, files.performance):
        return _run_stages(config, client, last, tell, files, leases, only)


def _run_stages(
    config: Config,
    client: Client,
    last: str,
    tell: Callable[[str], None],
    files: Workspace,
    leases: Leases,
    only: frozenset[str] | None,
) -> dict[str, dict[str, Any]]:
    results: dict[str, str] = {}
    summaries: dict[str, dict[str, Any]] = {}
    checked = False
    for name in _closure(last):
        facts = facts_of(name, config, results)
        record = files.record(name)
        if name == "mosaic" and only is None:
            _mend_metadata(config, files, leases, tell)
        reasons = _reasons(config, files, name, facts)
        if not reasons and only is None:
            _mend_pixels(config, client, name, tell, files, leases)
            reasons = _reasons(config, files, name, facts)
        partly = only is not None and name in _BY_BATCHES
        if reasons and not partly:
            # also where batches have leases of their own: before the first and after the last are tables
            if name in _BY_BATCHES:
                _require_idle(leases, name, only)  # who will be refused must be in nobody's way
            if only is None:
                leases.take(name, [name])
            else:
                leases.wait(name, name)
            # another driver may have done it just before
            reasons = _reasons(config, files, name, facts)
        if not reasons:
            leases.release_all()
            tell(f"{name}: up to date")
            summaries[name], results[name] = record.read()["summary"], record.read()["result_id"]
            continue
        tell(f"{name}: {'; '.join(reasons)}")
        if name in PARTLY and not checked:
            # hours before the stage that would find what is wrong; notes are the stages' to tell
            check_sources(config, lambda line: tell(f"  {line}"), lambda _: None)
            checked = True
        if only is not None and name in _BY_BATCHES:
            _require_departements(files, only)
            leases.take(name, sorted(only))
        _require_idle(leases, name, only)
        record.forget()
        files.withdraw(name)
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SesgridWarning)
            job = Job(config, files, client, settings_key(name, facts), leases, only)
            summary = dict(STAGES[name].run(job))
        give_back()
        notes = [str(w.message) for w in caught if issubclass(w.category, SesgridWarning)]
        summary["notes"] = list(dict.fromkeys([*summary.get("notes", []), *notes]))
        for told in ("notes", "errors", "failures"):
            summary[told] = [placeless(text, config) for text in summary.get(told, [])]
        if partly:
            results[name] = "some départements"
        else:
            result = summary.pop("result_id", None)
            written = written_by(config, files, name, summary)
            results[name] = record.write(facts, summary, result, written)
        # only now: whoever waits for the stage must find it done
        leases.release_all()
        summaries[name] = summary
        _tell_summary(summary, time.perf_counter() - started, tell)
    return summaries


def _mend_metadata(
    config: Config, files: Workspace, leases: Leases, tell: Callable[[str], None]
) -> None:
    """Before a cube is opened: write what of it is no pixel again, where that is gone or damaged."""
    if CubeDamage.of(files) is None:
        return
    _require_idle(leases, "mosaic", None)
    leases.take("mosaic", ["mosaic"])
    damage = CubeDamage.of(files)  # another driver may have mended it just before
    if damage is not None:
        key = settings_key("mosaic", files.record("mosaic").read()["facts"])
        damage.mend(config, files, key, lambda line: tell(f"  {line}"))
    leases.release_all()


def _mend_pixels(
    config: Config,
    client: Client,
    stage: str,
    tell: Callable[[str], None],
    files: Workspace,
    leases: Leases,
) -> None:
    """Before a finished stage's pixels are read: make the blocks again whose shards are gone or cut.

    Raises
    ------
    StoreError
        Some cannot be made now.
    """
    kept = stage == KEPT and Cube.open(files.cube).keeps_activation
    lost = find_lost(files, stage) if kept or stage in PIXEL_STAGES else []
    if not lost:
        return
    tell(
        f"{stage}: {len(lost)} shards are not there as they were written (first: {lost[0]}); their blocks "
        "are made again, and what read them"
    )
    _require_idle(leases, stage, None)
    leases.take(stage, [stage])
    make_again(config, client, lost, lambda line: tell(f"  {line}"))
    leases.release_all()
    left = find_lost(files, stage) if files.record(stage).read() else []
    if left:
        raise StoreError(
            f"{files.cube}: {len(left)} blocks whose shards are lost cannot be made again now (first: "
            f"{left[0]}), for the reasons told above: see to these, then run again"
        )


def _reasons(config: Config, files: Workspace, stage: str, facts: Mapping[str, Any]) -> list[str]:
    """Why a stage has to be done; empty: it is up to date."""
    record = files.record(stage)
    reasons = record.reasons(dict(facts), missing_outputs(config, files, stage))
    known = record.read().get("summary", {})
    for kind, what in (("errors", "files could not be read"), ("failures", "tasks failed")):
        if not reasons and known.get(kind):
            reasons = [f"{len(known[kind])} {what}, which is tried again"]
    return reasons


def _require_idle(leases: Leases, stage: str, only: frozenset[str] | None) -> None:
    """Refuse to do a stage under a driver that does it, what it rests on, or what rests on it.

    Raises
    ------
    ClusterError
    """
    resting = {n for n, s in _LEASED.items() if stage in _closure(s)}
    if only is not None and stage in _BY_BATCHES:
        # jobs of other départements do batches of these
        beside = resting.intersection(PARTLY)
        busy = leases.holder(resting - beside) or leases.holder(beside, whole=True)
    else:
        needed = {n for n, s in _LEASED.items() if s in _closure(stage)}
        busy = leases.holder(resting | needed)
    if busy is not None:
        raise ClusterError(
            f"{stage} is to be done, and another driver does it, what it rests on, or what rests on it: "
            f"{busy}; wait for it, or give this run an output of its own"
        )


_LEASED = {name: name for name in STAGES} | {"predict-other": "predict"}
"""Names that leases are taken under, and their stages."""


def _require_departements(files: Workspace, only: frozenset[str]) -> None:
    """Refuse départements of which the run has no cells, before anything is done."""
    there = set(departements_of(load_table(files.table("cells"), ["departement"])))
    strangers = sorted(only - there)
    if strangers:
        raise ConfigError(
            f"--only: no cells in {', '.join(strangers)}; there are {', '.join(sorted(there))}"
        )


def _tell_summary(summary: Mapping[str, Any], seconds: float, tell: Callable[[str], None]) -> None:
    shown = {k: v for k, v in summary.items() if k not in ("notes", "errors", "failures")}
    for key, value in shown.items():
        tell(f"  {key}: {_short(value)}")
    for note in summary.get("notes", []):
        tell(f"  note: {note}")
    for failure in (*summary.get("errors", []), *summary.get("failures", [])):
        tell(f"  failed: {failure}")
    tell(f"  took {seconds:.1f} s")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(_short(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_short(v)}" for k, v in value.items())
    return str(value)
