"""The files that a finished stage leaves, by the run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.run.cell_stages import OTHER_FOLDS
from sesgrid.run.claims import model_paths
from sesgrid.run.config import Config
from sesgrid.run.job import folds_kind, protocol_of
from sesgrid.run.workspace import Workspace
from sesgrid.stages.folds import FOLD_KINDS
from sesgrid.store.cube import Cube
from sesgrid.store.sealed import checksum_of, is_sound
from sesgrid.store.sealed_cells import fault_of_cells

__all__ = ["missing_outputs", "written_by"]


def _outputs(
    config: Config, files: Workspace, stage: str, summary: Mapping[str, Any]
) -> list[Path]:
    """Files without which a stage that ended with a summary is not finished."""
    own, n = folds_kind(config), config.cells.folds
    kinds = FOLD_KINDS if summary.get("models", 0) > n else (own,)
    models = [path for kind in kinds for path in model_paths(files.models, kind, n)]
    if config.models is not None:
        models = []
    others = [files.table("predict-other")] if OTHER_FOLDS in summary else []
    explained = config.sources.landcover is not None or config.explain.maps != "none"
    sums = [files.table("explain")] if explained else []
    tables = [files.table("activation"), files.table("pairs")]
    return {
        "cells": [files.table("cells")],
        "mosaic": [files.table("mosaic")],
        "landcover": [],
        "train": models,
        "predict": [files.table("predict"), *others],
        "explain": [*sums, *([files.fragments] if config.explain.fragments else [])],
        "analyse": [files.cells, files.activation, files.pairs, files.metrics, *tables],
        "report": [files.report],
    }[stage]


def written_by(
    config: Config, files: Workspace, stage: str, summary: Mapping[str, Any]
) -> dict[str, list[int]]:
    """What a stage that has just ended wrote: bytes and crc32c of each of its files, by their names.

    Names begin at the output folder.
    """
    there = [p for p in _outputs(config, files, stage, summary) if p.is_file()]
    if stage == "analyse":
        # it is the last to write into them; what others put beside them is not the run's
        trained = files.record("train").read().get("summary", {})
        cards = [p.with_suffix(".json") for p in _outputs(config, files, "train", trained)]
        there += [p for p in cards if p.is_file() and files.mark.covers(p)]
    return {p.relative_to(files.output).as_posix(): [*checksum_of(p)] for p in there}


def missing_outputs(config: Config, files: Workspace, stage: str) -> list[str]:
    """Names of files without which a stage is not finished, and which are not there or damaged."""
    done = files.record(stage).read().get("summary", {})
    missing = [p.name for p in _outputs(config, files, stage, done) if not is_sound(p)]
    if stage == "mosaic" and not _is_of(files):
        missing.append(PurePath(files.cube).name)
    at_random = "random" in done.get("initial weights", ())
    if stage == "train" and not missing and at_random and _could_start_better(config):
        missing.append("models from ImageNet's weights, which are at hand now")
    keeping = config.explain.maps != "none"
    if stage == "explain" and keeping and not Cube.open(files.cube).has_activation:
        missing.append(f"{PurePath(files.cube).name}/pixels/activation")
    if stage == "analyse" and done and fault_of_cells(files.cube) is not None:
        missing.append(f"{PurePath(files.cube).name}/cells")
    return missing


def _could_start_better(config: Config) -> bool:
    """Whether models that had to start from random weights could now start from ImageNet's."""
    if protocol_of(config).weights != "imagenet":
        return False
    from sesgrid.kernels.backbones import backbone_named, imagenet_at_hand

    return imagenet_at_hand(backbone_named(protocol_of(config).backbone))


def _is_of(files: Workspace) -> bool:
    """Whether the cube of the mosaic's record lies there: another run may have put its own in the place."""
    try:
        token = Cube.open(files.cube).token
    except (FormatError, MissingInputError):
        return False
    return files.record("mosaic").read().get("summary", {}).get("cube") == token
