"""Comparisons of trainings of one city: backbones and heads, resolutions, and whether findings hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
from distributed import Client

from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.kernels.scores import SCORES
from sesgrid.run.baselines import run_baselines
from sesgrid.run.config import Config
from sesgrid.run.job import class_table, method_of, protocol_of
from sesgrid.run.workspace import Workspace, load_cells
from sesgrid.sources import class_names
from sesgrid.stages.activation import activation_dataset
from sesgrid.stages.analyse import activation_table
from sesgrid.stages.protocol import Protocol
from sesgrid.stages.stability import Finding, stability_of_pairs, stability_table
from sesgrid.store.csv_text import csv_text
from sesgrid.store.parts import write_atomically
from sesgrid.studies.trials import Outcome, Variant, run_variants, variant_of, write_results

__all__ = ["Study", "compare", "planned", "resolution", "score_row", "stability"]

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Study:
    """What a comparison found, by name of its tables."""

    name: str
    tables: dict[str, pd.DataFrame]


def compare(
    config: Config,
    client: Client,
    tell: Tell,
    *,
    backbones: Sequence[str],
    heads: Sequence[str],
    seeds: Sequence[int],
) -> Study:
    """The study's comparison table: every backbone with every head, beside two baselines.

    Returns
    -------
    Study
        Table ``compare``: a row per model, scores as means over folds with intervals over blocks,
        parameters, FLOPs of a forward pass, cells predicted per second; see also ``results.parquet``.
    """
    variants = planned(config, "compare", backbones=backbones, heads=heads, seeds=seeds)
    outcomes = run_variants(config, client, variants, tell)
    rows = [*_baseline_rows(config, client), *map(_summary, outcomes)]
    return _written(config, "compare", outcomes, {"compare": pd.DataFrame(rows)})


def resolution(config: Config, client: Client, tell: Tell, *, pixels: Sequence[int]) -> Study:
    """The same cells at several resolutions, from the same cube: scores against metres per pixel."""
    variants = planned(config, "resolution", pixels=pixels)
    outcomes = run_variants(config, client, variants, tell)
    return _written(
        config, "resolution", outcomes, {"resolution": pd.DataFrame(map(_summary, outcomes))}
    )


def stability(
    config: Config, client: Client, tell: Tell, *, backbones: Sequence[str], seeds: Sequence[int]
) -> Study:
    """Whether the findings, activation ratios per class, hold across folds, seeds and backbones.

    Returns
    -------
    Study
        ``stability``: a row per side and class; ``agreement``: rank correlation of the ratios of two
        models, by what they differ in; ``findings``: every ratio of every model.
    """
    variants = planned(config, "stability", backbones=backbones, seeds=seeds)
    outcomes = run_variants(config, client, variants, tell, explain=True)
    findings = [f for o in outcomes for f in _findings(config, o)]
    tables = {
        "stability": stability_table(findings),
        "agreement": stability_of_pairs(findings),
        "findings": pd.concat(
            [f.ratios.assign(backbone=f.backbone, seed=f.seed, fold=f.fold) for f in findings],
            ignore_index=True,
        ),
    }
    return _written(config, "stability", outcomes, tables)


def planned(
    config: Config,
    study: str,
    *,
    backbones: Sequence[str] = (),
    heads: Sequence[str] = (),
    seeds: Sequence[int] = (),
    pixels: Sequence[int] = (),
) -> list[Variant]:
    """What a study trains, each once; refuses what could only fail hours later.

    Raises
    ------
    ConfigError
        No such backbone or head; initial weights of one backbone for several; a size that does not divide
        the cube's, or is too small for a network.
    MissingInputError
        The run has no land cover, which stability is about.
    """
    if study == "resolution":
        _require_sizes(config, pixels)
        sizes = sorted(set(pixels), reverse=True)
        return [variant_of(config, f"{p} px", pixels=p) for p in sizes]
    if study == "stability" and config.sources.landcover is None:
        raise MissingInputError(
            "findings are about land cover, and sources.landcover is missing: add it to the configuration"
        )
    own, several = protocol_of(config), len(set(seeds)) > 1 or study == "stability"
    names = _backbones(own, backbones)
    _require_heads(heads)
    return [
        variant_of(
            config, f"{b} {h}" + (f" seed {s}" if several else ""), backbone=b, head=h, seed=s
        )
        for b, h, s in product(names, dict.fromkeys(heads or [own.head]), dict.fromkeys(seeds))
    ]


def _require_sizes(config: Config, pixels: Sequence[int]) -> None:
    from sesgrid.kernels.backbones import MIN_PX

    stored = config.grid.pixels_per_cell
    for size in pixels:
        if not MIN_PX <= size <= stored or stored % size:
            raise ConfigError(
                f"pixels: expected divisors of the cube's {stored} pixels per cell, at least {MIN_PX}, "
                f"received {size}"
            )


def _require_heads(heads: Sequence[str]) -> None:
    from sesgrid.kernels.heads import HEADS

    for head in heads:
        if head not in HEADS:
            raise ConfigError(f"head must be one of {', '.join(HEADS)}, received {head!r}")


def _backbones(own: Protocol, asked: Sequence[str]) -> list[str]:
    """Their names, each once."""
    from sesgrid.kernels.backbones import backbone_named

    names = list(dict.fromkeys(backbone_named(b).name for b in asked))
    if len(names) > 1 and own.weights not in (None, "imagenet"):
        raise ConfigError(
            f"train.weights: {own.weights} holds the weights of one backbone, and {len(names)} are asked "
            f"for ({', '.join(names)}): choose 'imagenet' or 'random', or one backbone"
        )
    return names


def _summary(outcome: Outcome) -> dict[str, Any]:
    """Means over the folds, with intervals over blocks, and what the model costs."""
    v, facts = outcome.variant, pd.DataFrame([dict(f) for f in outcome.facts])
    return {
        "model": v.name,
        "pixels": v.pixels,
        "metres_per_pixel": 200 / v.pixels,
        **score_row(outcome.scores),
        "parameters": int(facts["parameters"].iloc[0]),
        "flops": int(facts["flops"].iloc[0]),
        "cells_per_s": float(facts["cells_per_s"].median()),
        "training_s": float(facts["training_s"].astype("float64").sum(skipna=False)),
        "initial_weights": ", ".join(sorted(set(facts["initial_weights"]))),
    }


def score_row(scores: dict[str, Any]) -> dict[str, Any]:
    """Means over folds with their intervals over blocks, flat; of `sesgrid.stages.score.metrics`."""
    out: dict[str, Any] = {"n": scores["n"]}
    for name in SCORES:
        bounds = (scores["intervals"].get(name) or {}).get("blocks") or (None, None)
        out |= {name: scores[name], f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
    return out


def _baseline_rows(config: Config, client: Client) -> Iterator[dict[str, Any]]:
    """What any result must beat."""
    for name, scores in run_baselines(config, client, load_cells(Workspace.of(config))).items():
        yield {"model": f"baseline: {name.replace('_', ' ')}", **score_row(scores)}


def _findings(config: Config, outcome: Outcome) -> Iterator[Finding]:
    """The activation ratios that each fold's model gives on the cells that it did not see."""
    names = class_names(class_table(config))
    attributes = {"preset": method_of(config).name, "precision": config.explain.precision}
    sums = activation_dataset(outcome.rows, names, attributes)
    v, explained = outcome.variant, set(sums["cell"].values)
    for number in range(outcome.cells.attrs["n_folds"]):
        part = outcome.cells[outcome.cells["fold"] == number]
        part.attrs = dict(outcome.cells.attrs)
        chosen = sums.sel(cell=[c for c in part.index if c in explained])
        ratios = activation_table(
            part, chosen, n_bootstrap=config.analyse.bootstrap, seed=config.analyse.seed
        )
        yield Finding(v.protocol.backbone, v.seed, number, ratios)


def _written(
    config: Config, name: str, outcomes: Sequence[Outcome], tables: dict[str, pd.DataFrame]
) -> Study:
    files = Workspace.of(config)
    folder = files.studies / name
    titles = [*tables, "results"]
    files.mark.enter(
        *(folder / f"{t}.csv" for t in titles), folder / "results.parquet", folder / "index.html"
    )
    folder.mkdir(parents=True, exist_ok=True)
    tables = {**tables, "results": write_results(config, outcomes, folder / "results.parquet")}
    for title, table in tables.items():
        write_atomically(folder / f"{title}.csv", csv_text(table))
    return Study(name, tables)
