"""Variants of a city's training, fold by fold: planned, run as tasks, resumed, gathered in one table.

A variant is named by what differs from the run's own settings. Its models lie in a folder named after the
hash of everything that they depend on, so that two comparisons share what they have in common, and a call
that was cut short goes on: a fold that is recorded is read, a fold that is trained is not trained again, and
one that was being trained goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
from distributed import Client

from sesgrid import __version__
from sesgrid.run.cell_stages import explain_stage
from sesgrid.run.config import Config
from sesgrid.run.freshness import fingerprint, key_of
from sesgrid.run.job import protocol_of, scores_of
from sesgrid.run.training import check_explainable
from sesgrid.run.trainings import run_trainings
from sesgrid.run.workspace import Workspace, load_cells, save_rows
from sesgrid.stages.cells import usable
from sesgrid.stages.predict import join_predictions
from sesgrid.stages.protocol import Protocol
from sesgrid.stages.train import Fold, Progress, plan_folds
from sesgrid.stages.trial import Trial, run_trial
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef, record_metrics
from sesgrid.store.parts import Parts

__all__ = ["Outcome", "Variant", "run_variants", "variant_of", "write_results"]


@dataclass(frozen=True)
class Variant:
    """One way to train a city."""

    name: str
    protocol: Protocol
    seed: int
    pixels: int
    """Side of the image that the network is shown."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a variant."""

    variant: Variant
    key: str
    """Hash of all that its models depend on."""
    cells: gpd.GeoDataFrame
    """The labelled cells with what the model of their own fold says."""
    rows: pd.DataFrame
    """As the trials gave them."""
    facts: tuple[Mapping[str, Any], ...]
    """Of each fold; see `sesgrid.stages.trial.run_trial`."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Of `sesgrid.stages.score.metrics`."""


def variant_of(config: Config, name: str, **changes: Any) -> Variant:
    """The run's own training but for some changes: settings of ``[train]``, or ``pixels``."""
    from sesgrid.kernels.backbones import backbone_named

    seed = changes.pop("seed", config.train.seed)
    pixels = changes.pop("pixels", config.grid.pixels_per_cell)
    train = config.train.model_copy(update=changes)
    protocol = protocol_of(config.model_copy(update={"train": train}))
    # however it was spelt: equal settings share their models
    protocol = replace(protocol, backbone=backbone_named(protocol.backbone).name)
    return Variant(name, protocol, seed, pixels)


def run_variants(
    config: Config,
    client: Client,
    variants: Sequence[Variant],
    tell: Callable[[str], None],
    *,
    explain: bool = False,
) -> list[Outcome]:
    """Train every fold of every variant that is not there yet, and predict (or explain) what it held out.

    Parameters
    ----------
    config : Config
        Its cube is up to date; with land cover where it is to explain.
    client : Client
    variants : sequence of Variant
    tell : callable
        Receives a line per event.
    explain : bool
        Whether the held-out cells are explained as well.

    Returns
    -------
    list of Outcome
        In the order of the variants; those of equal settings share their models.
    """
    files = Workspace.of(config)
    cells = load_cells(files)
    stage = explain_stage(config) if explain else None
    stages = ("cells", "mosaic", "landcover")[: 2 + explain]
    made_from = {name: files.record(name).read()["result_id"] for name in stages}
    trials: dict[Trial, tuple[Parts, str, int]] = {}
    planned, keys = [], set()
    for variant in variants:
        key = _key(config, variant, made_from)
        directory = files.studies / "models" / key
        files.mark.enter(directory)
        parts = Parts(directory / ("explained" if explain else "predicted"))
        part_key = key_of({"models": key, "made from": made_from, "stage": stage})
        folds = _folds(config, variant, cells, directory, key)
        planned.append((variant, key, parts, folds))
        known = {fold.fold for fold in folds if parts.has(str(fold.fold), part_key)}
        for fold in folds:
            # two tasks must not write the same model
            if fold.fold not in known and key not in keys:
                trial = Trial(variant.name, fold, _held_out(config, cells, variant, fold), stage)
                trials[trial] = (parts, part_key, fold.fold)
        keys.add(key)
        tell(f"{variant.name}: {len(known)} of {len(folds)} folds are done")
    if explain:
        for protocol in {t.fold.protocol.backbone: t.fold.protocol for t in trials}.values():
            check_explainable(config, client, protocol)
    epochs = sum(t.fold.protocol.epochs for t in trials)
    work = list(trials)
    for trial, (rows, facts), notes in run_trainings(
        client, "train", work, _RunTrial(files.cube), epochs
    ):
        parts, part_key, fold_number = trials[trial]
        parts.write(str(fold_number), part_key, pd.DataFrame(rows), {**facts, "notes": notes})
        for note in notes:
            tell(f"note: {trial.variant}, fold {fold_number}: {note}")
    return [_outcome(cells, *plan, config) for plan in planned]


def _key(config: Config, variant: Variant, made_from: Mapping[str, str]) -> str:
    facts = {"sesgrid": __version__, "min_coverage": config.cells.min_coverage}
    facts |= {name: made_from[name] for name in ("cells", "mosaic")}
    if variant.protocol.weights not in (None, "imagenet"):
        facts["input weights"] = fingerprint(Path(str(variant.protocol.weights)))
    # a name says how the settings were spelt; equal settings share their models
    settings = {k: v for k, v in asdict(variant.protocol).items() if k != "name"}
    return key_of({**facts, **settings, "seed": variant.seed, "px": variant.pixels})


def _folds(
    config: Config, variant: Variant, cells: gpd.GeoDataFrame, directory: Path, key: str
) -> list[Fold]:
    folds = plan_folds(
        cells,
        directory,
        variant.protocol,
        seed=variant.seed,
        min_coverage=config.cells.min_coverage,
        pixels=variant.pixels,
    )
    return [replace(f, card={**f.card, "key": key}) for f in folds]


def _held_out(
    config: Config, cells: gpd.GeoDataFrame, variant: Variant, fold: Fold
) -> tuple[tuple[str, int, int], ...]:
    enough = usable(cells, config.cells.min_coverage, variant.protocol.max_void)
    chosen = cells[enough & cells["labelled"] & (cells["fold"] == fold.fold)]
    return tuple(
        (str(i), int(r), int(c))
        for i, r, c in zip(chosen.index, chosen["row"], chosen["col"], strict=True)
    )


@dataclass(frozen=True)
class _RunTrial:
    """What a worker does with a trial."""

    cube: str

    def __call__(self, trial: Trial, progress: Progress) -> Any:
        return run_trial(trial, Cube.open(self.cube).pixels(), progress)


def _outcome(
    cells: gpd.GeoDataFrame,
    variant: Variant,
    key: str,
    parts: Parts,
    folds: Sequence[Fold],
    config: Config,
) -> Outcome:
    names = [str(fold.fold) for fold in folds]
    rows, facts = parts.read(names), [parts.record(name) or {} for name in names]
    labelled = cells[cells["labelled"]]
    labelled.attrs = dict(cells.attrs)
    predicted = join_predictions(labelled, rows)
    scores = scores_of(config, predicted)
    for found in scores["folds"]:
        record_metrics(ModelRef.open(folds[found["fold"]].path), found)
    return Outcome(variant, key, predicted, rows, tuple(facts), scores)


def write_results(config: Config, outcomes: Sequence[Outcome], path: Path) -> pd.DataFrame:
    """One row per variant and fold, as Parquet, under the rows of earlier calls with other configurations.

    Returns
    -------
    DataFrame
        This call's rows: ``variant``, ``city``, ``vintage``, ``backbone``, ``head``, ``seed``, ``pixels``,
        ``metres_per_pixel``, ``folds_kind``, ``fold``, ``n``, the scores of the fold, what the trial cost
        (``parameters``, ``flops``, ``cells_per_s``, ``epochs``, ``training_s``), ``initial_weights``,
        ``model_sha256``, ``configuration`` (hash) and ``software``.
    """
    rows = []
    for o in outcomes:
        v, attrs = o.variant, o.cells.attrs
        named = {
            "variant": v.name,
            "city": attrs["city"],
            "vintage": attrs.get("vintage"),
            "backbone": v.protocol.backbone,
            "head": v.protocol.head,
            "protocol": v.protocol.name,
            "seed": v.seed,
            "pixels": v.pixels,
            "metres_per_pixel": 200 / v.pixels,
            "folds_kind": attrs.get("folds_kind", "random"),
            "configuration": o.key,
            "software": f"sesgrid {__version__}",
        }
        by_fold = {f["fold"]: f for f in o.scores["folds"]}
        for number, facts in enumerate(o.facts):
            scored = {
                k: x
                for k, x in by_fold.get(number, {"fold": number}).items()
                if not isinstance(x, dict | list)
            }
            told = {k: x for k, x in facts.items() if k not in ("key", "batch", "notes")}
            rows.append({**named, **scored, **told})
    table = pd.DataFrame(rows)
    merged = [table]
    if path.exists():
        known = pd.read_parquet(path)
        merged.insert(0, known[~known["configuration"].isin(table["configuration"])])
    save_rows(pd.concat(merged, ignore_index=True) if len(merged[0]) else table, path)
    return table
