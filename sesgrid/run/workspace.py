"""Where a run keeps its files: results on top, everything else under ``work``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from sesgrid.errors import MissingInputError
from sesgrid.run.config import Config
from sesgrid.run.freshness import StageRecord

__all__ = ["Workspace", "load_cells", "load_table", "save_rows", "save_table"]

_ATTRS = "sesgrid"


@dataclass(frozen=True)
class Workspace:
    """Paths of one run."""

    output: Path
    cube_path: str | None = None
    """Where the cube lies if not in the output folder."""

    @classmethod
    def of(cls, config: Config) -> Workspace:
        """The workspace of a run."""
        return cls(config.output, config.cube.path)

    @property
    def cube(self) -> str:
        """Pixels and, at the end, cells on the grid."""
        return self.cube_path or str(self.output / "cube.zarr")

    @property
    def cells(self) -> Path:
        """The result per cell, GeoParquet."""
        return self.output / "cells.parquet"

    @property
    def activation(self) -> Path:
        """Findings per land-cover class."""
        return self.output / "activation.csv"

    @property
    def pairs(self) -> Path:
        """Findings per pair of land-cover classes."""
        return self.output / "pairs.csv"

    @property
    def fragments(self) -> Path:
        """Statistics of every polygon in every cell, where asked for."""
        return self.output / "fragments.parquet"

    @property
    def metrics(self) -> Path:
        """How good the predictions are."""
        return self.output / "metrics.json"

    @property
    def audit(self) -> Path:
        """Whether the explanations are right, where that was asked."""
        return self.output / "audit.json"

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.output / "report.html"

    @property
    def models(self) -> Path:
        """Model files and their cards."""
        return self.output / "models"

    @property
    def studies(self) -> Path:
        """Comparisons of trainings, a folder each, and their models."""
        return self.output / "studies"

    def withdraw(self, stage: str) -> None:
        """Remove the results that rest on a stage, before it is done again.

        What lies beside a cube or a model must have been made from it, also if the run stops here.
        """
        findings = [self.cells, self.activation, self.pairs, self.metrics, self.audit]
        if stage not in ("analyse", "report"):
            findings.append(self.fragments)
        if stage in ("cells", "mosaic", "landcover"):
            # their models stay, named after what they were made from
            for study in ("compare", "resolution", "stability"):
                shutil.rmtree(self.studies / study, ignore_errors=True)
        for path in [self.report] if stage == "report" else [self.report, *findings]:
            path.unlink(missing_ok=True)

    def table(self, stage: str) -> Path:
        """A stage's table of cells."""
        return self.output / "work" / f"{stage}.parquet"

    def parts(self, stage: str) -> Path:
        """A stage's parts."""
        return self.output / "work" / "parts" / stage

    def record(self, stage: str) -> StageRecord:
        """What a finished stage recorded."""
        return StageRecord(self.output / "work" / "stages" / f"{stage}.json")


def save_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write Parquet atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    rows.to_parquet(temporary)
    temporary.replace(path)


def save_table(table: gpd.GeoDataFrame, path: Path) -> None:
    """Write GeoParquet atomically, with the table's attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    bare = table.copy()
    bare.attrs = {_ATTRS: json.dumps(dict(table.attrs), default=str)}
    bare.to_parquet(temporary)
    temporary.replace(path)


def load_cells(files: Workspace) -> gpd.GeoDataFrame:
    """The labelled cells with what the mosaic tells of their imagery.

    Raises
    ------
    MissingInputError
        One of the stages ``cells`` and ``mosaic`` has not run.
    """
    cells, imagery = load_table(files.table("cells")), _existing(files.table("mosaic"))
    out = cells.join(pd.read_parquet(imagery))
    out.attrs = dict(cells.attrs)
    return out


def _existing(path: Path) -> Path:
    if not path.exists():
        raise MissingInputError(f"{path} is missing: run the stage that writes it")
    return path


def load_table(path: Path) -> gpd.GeoDataFrame:
    """Read what `save_table` wrote.

    Raises
    ------
    MissingInputError
        The stage that writes it has not run.
    """
    table = gpd.read_parquet(_existing(path))
    attributes: Mapping[str, Any] = table.attrs
    table.attrs = json.loads(attributes.get(_ATTRS, "{}"))
    return table
