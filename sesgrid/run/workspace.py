"""Where a run keeps its files: results on top, everything else under ``work``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sesgrid.batches.blocks import PLACES
from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.foreign import reading, writing
from sesgrid.run.config import Config
from sesgrid.run.freshness import StageRecord
from sesgrid.run.mark import Mark
from sesgrid.run.tables import CellTable
from sesgrid.store.location import is_remote
from sesgrid.store.sealed import replace_sealed, require_sound

__all__ = [
    "Workspace",
    "load_cells",
    "load_places",
    "load_sealed",
    "load_table",
    "save_rows",
    "save_sealed",
]


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

    def take(self, config: Config) -> str:
        """Take the output folder for a run, as `Mark.take` does; the run's id.

        Raises
        ------
        ConfigError
            As `Mark.take`; or the cube would lie where the run writes or reads something else.
        """
        s = config.sources
        given = [s.census, s.landcover, s.landcover_classes, s.boundary, *s.ortho, *s.cities]
        sources = [p for p in given if isinstance(p, Path)]
        if self.cube_path is not None and not is_remote(self.cube_path):
            self._require_free(Path(self.cube_path), sources)
        return self.mark.take(config.name, sources)

    def _require_free(self, cube: Path, sources: Sequence[Path]) -> None:
        """Refuse a place for the cube that is, holds or lies in that of something else."""
        held = [self.output, *sources]
        folders = [
            self.cells, self.activation, self.pairs, self.fragments, self.metrics, self.audit, self.report,
            self.models, self.studies, self.output / "work", *sources,
        ]  # fmt: skip
        others = [p for p in held if p.is_relative_to(cube)]
        others += [p for p in folders if cube.is_relative_to(p)]
        if others:
            raise ConfigError(
                f"cube.path: {cube} is, holds or lies in {others[0]}, where something else of the run lies: "
                "expected a place for the cube alone, such as cube.zarr in the output folder"
            )

    @property
    def mark(self) -> Mark:
        """Whose the folder is, and what of it the run wrote."""
        return Mark(self.output)

    def withdraw(self, stage: str) -> None:
        """Remove the results that rest on a stage, before it is done again, as far as the run wrote them.

        What lies beside a cube or a model must have been made from it, also if the run stops here.
        """
        findings = [self.cells, self.activation, self.pairs, self.metrics, self.audit]
        if stage not in ("analyse", "report"):
            findings.append(self.fragments)
        if stage in ("cells", "mosaic", "landcover"):
            # their models stay, named after what they were made from
            findings += [self.studies / study for study in ("compare", "resolution", "stability")]
        self.mark.remove(self.report, *([] if stage == "report" else findings))
        for made in ("report",) if stage == "report" else ("analyse", "report"):
            self.record(made).without_files()

    def table(self, stage: str) -> Path:
        """A stage's table of cells."""
        return self.output / "work" / f"{stage}.parquet"

    def parts(self, stage: str) -> Path:
        """A stage's parts."""
        return self.output / "work" / "parts" / stage

    @property
    def leases(self) -> Path:
        """Who is doing what."""
        return self.output / "work" / "leases"

    @property
    def journals(self) -> Path:
        """A file of JSON lines per driver: every block that ended, and how."""
        return self.output / "work" / "journal"

    @property
    def performance(self) -> Path:
        """Dask's report of the last run that took a minute and more."""
        return self.output / "work" / "performance.html"

    def record(self, stage: str) -> StageRecord:
        """What a finished stage recorded."""
        return StageRecord(self.output / "work" / "stages" / f"{stage}.json")


def save_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write Parquet atomically.

    Raises
    ------
    StoreError
        The disk is full or read-only; what was there stays.
    """
    _save(rows, path, Path.replace)


def save_sealed(rows: pd.DataFrame, path: Path) -> None:
    """As `save_rows`, with its checksum beside it, for a later stage."""
    _save(rows, path, replace_sealed)


def _save(rows: pd.DataFrame, path: Path, replace: Callable[[Path, Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(temporary)
            replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def load_sealed(path: Path) -> pd.DataFrame:
    """Read what `save_sealed` wrote.

    Raises
    ------
    MissingInputError, FormatError
        It is gone, or damaged.
    """
    require_sound(path)
    with reading(path, advice="run the stage that writes it again"):
        return pd.read_parquet(path)


def load_cells(files: Workspace, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The labelled cells with what the mosaic tells of their imagery, or some columns of that.

    Raises
    ------
    MissingInputError
        One of the stages ``cells`` and ``mosaic`` has not run.
    """

    def read(table: CellTable, with_id: bool) -> pd.DataFrame:
        wanted = None if columns is None else [n for n in columns if n in table.columns]
        return table.read(wanted, with_id=with_id)

    of_cells, of_pixels = (CellTable(files.table(stage)) for stage in ("cells", "mosaic"))
    if of_cells.sizes != of_pixels.sizes:
        raise MissingInputError(
            f"{files.table('mosaic')} is not of the cells in {files.table('cells')}: run the stage mosaic "
            "again"
        )
    # row by row: both lie in the order of the batches
    cells, imagery = read(of_cells, True), read(of_pixels, False)
    out = pd.concat([cells, imagery.set_axis(cells.index)], axis=1)
    out.attrs = dict(cells.attrs)
    return out


def load_places(files: Workspace) -> pd.DataFrame:
    """What decides in which batch each of the run's cells is, in the order of its tables, without ids.

    Raises
    ------
    MissingInputError
        The stage ``cells`` has not run.
    """
    return CellTable(files.table("cells")).read(PLACES, with_id=False)


def load_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a stage's table of cells, or some of its columns.

    Raises
    ------
    MissingInputError
        The stage that writes it has not run.
    """
    return CellTable(path).read(columns)
