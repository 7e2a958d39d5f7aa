"""The stages that run the models over cells: predict, explain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sesgrid.batches.blocks import BlockBatch, members_of, plan_batches
from sesgrid.batches.flight import Noted, Packed, pack_rows, slots
from sesgrid.batches.running import Batch, Outcome, Task, run_batches
from sesgrid.batches.turns import CellColumns, InTurns, cells_per_task
from sesgrid.errors import ConfigError, StoreError
from sesgrid.run.cluster import on_gpus
from sesgrid.run.config import Config
from sesgrid.run.freshness import digest, fingerprint
from sesgrid.run.job import (
    Job,
    about,
    class_table,
    land_polygons,
    load_models,
    method_of,
    protocol_of,
)
from sesgrid.run.pixel_blocks import list_layers
from sesgrid.run.tables import CellTable, TableWriter
from sesgrid.run.trained import assign_trained, trained_cities
from sesgrid.run.workspace import load_cells, load_places, load_table, save_rows
from sesgrid.sources import class_names
from sesgrid.stages.activation import MAPS
from sesgrid.stages.cells import usable
from sesgrid.stages.explain import Explain, fragments_table
from sesgrid.stages.folds import other_kind
from sesgrid.stages.fragments import with_polygons
from sesgrid.stages.landcover import PolygonIndex
from sesgrid.stages.place import place
from sesgrid.stages.predict import (
    CellTask,
    Predict,
    assign_models,
    join_predictions,
    require_models,
)
from sesgrid.store.cube import Cube
from sesgrid.store.cube_layout import ACTIVATION
from sesgrid.store.models import ModelRef
from sesgrid.store.written import forget_written

__all__ = [
    "OTHER_FOLDS",
    "explain_stage",
    "rows_over_cells",
    "run_explain",
    "run_over_cells",
    "run_predict",
]

OTHER_FOLDS = "of these by the other kind of folds too"
"""In the summary of ``predict``, where both kinds were trained."""


@dataclass(frozen=True)
class KeptMaps:
    """Explain some blocks, and write their maps into the cube from the task that made them."""

    stage: Explain
    cube: Cube

    def __call__(self, items: Sequence[CellTask], *inputs: np.ndarray) -> list[dict[str, Any]]:
        """The rows of the stage without their maps; the items are all cells of their blocks."""
        rows, grid = self.stage(items, *inputs), self.cube.extent.grid
        kept: dict[tuple[int, int], list[tuple[CellTask, dict[str, Any]]]] = {}
        for task, row in zip(items, rows, strict=True):
            if "maps" in row:
                kept.setdefault(grid.block_of(task.row, task.col), []).append((task, row))
        p = grid.pixels_per_cell
        for block, members in kept.items():
            maps = np.zeros((len(MAPS), grid.block_px, grid.block_px), np.uint8)
            top, left = (k * grid.cells_per_block for k in block)
            for task, row in members:
                y, x = (task.row - top) * p, (task.col - left) * p
                maps[:, y : y + p, x : x + p] = row.pop("maps")
            shards = self.cube.write_block(*block, {ACTIVATION: maps})
            members[0][1][_WRITTEN] = (*block, shards)
        return rows


_WRITTEN = "written"
"""Of a block's first row: what was written of the block, for the record."""


def pack_written(rows: Sequence[dict[str, Any]]) -> Packed:
    """Rows, and the shards of the blocks whose maps were kept."""
    written = tuple(row.pop(_WRITTEN) for row in rows if _WRITTEN in row)
    return replace(pack_rows(rows), extra=written)


def _shards_written(written: list[Any]) -> dict[str, Any]:
    """What a batch's record keeps of its maps."""
    return {"shards": [list(block) for block in written]} if written else {}


def run_over_cells(
    job: Job,
    name: str,
    stage: Any,
    named: pd.DataFrame,
    models: Mapping[str, ModelRef],
    layers: Sequence[str],
    dress: Callable[[Iterable[CellTask]], Iterable[CellTask]] | None = None,
    *,
    by_block: bool = False,
) -> Outcome:
    """Run a stage over every cell that has a model; its parts have one row a cell.

    A batch whose pixels, or land cover where the stage looks at it, were not made is left out.

    Parameters
    ----------
    job : Job
    name : str
        Of the parts.
    stage : Stage
    named : DataFrame
        ``row``, ``col`` and ``model_id`` of some or all of the run's cells.
    models : mapping
    layers : sequence of str
    dress : callable, optional
        Gives the cells of a task what else they need.
    by_block : bool
        A task is given all cells of its blocks, so that it may write these into the cube.
    """
    side = job.config.grid.cells_per_block
    # these may be some of the city's cells: each must lie in the cube, which its slices make sure of
    whole = InTurns.of(stage, Cube.open(job.files.cube).pixels(), layers, by_block)
    require_models(models, job.grid, named)
    plan = plan_batches(job.grid, load_places(job.files))
    makers = [s for s in _MAKERS if set(layers) & set(_MAKERS[s]) and not job.parts(s).is_empty]

    model, resources = pd.Categorical(named["model_id"]), on_gpus(job.client)
    size = cells_per_task(int((model.codes >= 0).sum()), slots(job.client, resources))
    refs = [models[m] for m in model.categories]
    rowcol = named[["row", "col"]].to_numpy(np.int64)
    at_blocks = rowcol // side

    def tasks_of(at: np.ndarray) -> list[Task]:
        if not by_block:
            # by model, so that the device's batches fill; the cube is read cell by cell anyway
            at = at[np.argsort(model.codes[at], kind="stable")]
        blocks = at_blocks[at]
        sizes = _whole_blocks(blocks, size) if by_block else _even(len(at), size)
        marks = pairwise(accumulate(sizes, initial=0))
        return [Task(at[a:b], _distinct(blocks[a:b]), b - a) for a, b in marks]

    batches = []
    for batch, at in zip(plan, _with_model(plan, named), strict=True):
        seen = [_pixels_of_batch(job, maker, batch.name) for maker in makers]
        if not len(at) or None in seen:
            continue
        shown = [refs[k].sha256 for k in model.codes[at]]
        key = digest([job.key, named.index[at].tolist(), shown, *seen])
        n = len(_distinct(at_blocks[at]))
        batches.append(Batch(batch.name, key, n, len(at), partial(tasks_of, at)))

    def make(tasks: Sequence[Task]) -> Any:
        sent: list[Iterable[CellTask]] = [
            CellColumns.of(named.index[at].tolist(), rowcol[at], model.codes[at], refs)
            for at in (task.items for task in tasks)
        ]
        dressed = sent if dress is None else [dress(cells) for cells in sent]
        return place(Noted(whole, pack_written), dressed, name=name)

    return run_batches(
        job.client,
        job.parts(name),
        name,
        batches,
        make,
        _shards_written,
        journal=job.journal,
        leases=job.leases,
        keep=[b.name for b in batches],
        resources=resources,
    )


_MAKERS = {"mosaic": ("image", "coverage"), "landcover": ("landcover",)}
"""Stages that make pixels, and their layers."""


def _pixels_of_batch(job: Job, maker: str, name: str) -> str | None:
    """Names what a stage wrote of a batch; None: it failed.

    Raises
    ------
    StoreError
        The stage had made it, and its part is gone or damaged since.
    """
    parts = job.parts(maker)
    record = parts.sound(name)
    if record is not None:
        return str(record["pixels"])
    stage = job.files.record(maker)
    known = stage.read()
    if known and not any(f.startswith(f"batch {name},") for f in known["summary"]["failures"]):
        parts.remove(name)
        stage.forget()
        raise StoreError(
            f"{parts.path(name)} is gone or damaged since {maker} wrote it: run again, and its batch "
            "is made again"
        )
    return None


def _with_model(plan: Sequence[BlockBatch], named: pd.DataFrame) -> Iterator[np.ndarray]:
    """Positions in the table of each batch's cells that have a model, in the batch's order."""
    known = np.flatnonzero(named["model_id"].notna().to_numpy())
    places = pd.DataFrame({name: named[name].to_numpy()[known] for name in ("row", "col")})
    return (known[at] for at in members_of(plan, places))


def rows_over_cells(job: Job, name: str, *args: Any) -> pd.DataFrame:
    """As `run_over_cells`: the rows, all of them.

    Raises
    ------
    ClusterError
        A task failed.
    """
    outcome = run_over_cells(job, name, *args)
    outcome.require_whole(name)
    return job.parts(name).read(outcome.done)


def _even(n: int, size: int) -> tuple[int, ...]:
    """Sizes of groups of so many, the last with what is left."""
    return (size,) * (n // size) + ((n % size,) if n % size else ())


def _whole_blocks(blocks: np.ndarray, least: int) -> tuple[int, ...]:
    """Sizes of groups of at least so many cells, each of whole blocks ``(cell, 2)``, which lie together."""
    sizes, filled = [], True
    for _, members in groupby(map(tuple, blocks.tolist())):
        n = len(list(members))
        if filled:
            sizes.append(n)
        else:
            sizes[-1] += n
        filled = sizes[-1] >= least
    return tuple(sizes)


def _distinct(blocks: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Each block once, in order of appearance."""
    return tuple(dict.fromkeys((row, col) for row, col in blocks.tolist()))


def run_predict(job: Job) -> dict[str, Any]:
    """Pixels and models → the class of every covered cell, and of labelled ones by the other folds."""
    c = job.config
    models = load_models(job)
    named, enough = _with_models(job, load_cells(job.files, _TO_ASSIGN), models)
    outcome = run_over_cells(job, "predict", Predict(), named, models, Predict.layers)
    predicted = _write_predictions(job, "predict", named, outcome)
    summary = {
        "cells predicted": predicted,
        "cells without enough imagery": int((~enough).sum()),
        "cells without a model": int((named["model_id"].isna().to_numpy() & enough).sum()),
    }
    failures = outcome.told()
    other = other_kind(load_cells(job.files, _TO_ASSIGN)) if c.cells.compare_folds else None
    models = {} if other is None else load_models(job, other.attrs["folds_kind"])
    if other is None or not models:
        # not wanted, or there were too few cells to train them
        job.files.table("predict-other").unlink(missing_ok=True)
        return {**summary, "failures": failures}
    other = other[other["labelled"].fillna(False).astype(bool)]
    named, _ = _with_models(job, other, models)
    outcome = run_over_cells(job, "predict-other", Predict(), named, models, Predict.layers)
    summary[OTHER_FOLDS] = _write_predictions(job, "predict-other", named, outcome)
    return {**summary, "failures": [*failures, *outcome.told()]}


_TO_ASSIGN = (
    "row", "col", "fold", "fold_random", "fold_spatial", "labelled", "coverage", "void_share",
)  # fmt: skip
"""What decides which model looks at a cell."""


def _with_models(
    job: Job, cells: pd.DataFrame, models: Mapping[str, ModelRef]
) -> tuple[pd.DataFrame, np.ndarray]:
    """The cells with the models that do not know them, and which have enough imagery."""
    least, voids = job.config.cells.min_coverage, protocol_of(job.config).max_void
    given = job.config.models
    if given is None:
        named = assign_models(cells, models, min_coverage=least, max_void=voids)
    else:
        named = assign_trained(
            cells, trained_cities(given.cities), given.elsewhere,
            cells_per_block=job.config.grid.cells_per_block, min_coverage=least, max_void=voids,
        )  # fmt: skip
    named = named[["row", "col", "fold", "model_id"]]
    named.attrs = dict(cells.attrs)
    return named, usable(cells, least, voids)


def _members(job: Job, named: pd.DataFrame) -> Iterator[tuple[BlockBatch, np.ndarray]]:
    """The run's batches, each with the positions of its cells in a table."""
    plan = plan_batches(job.grid, load_places(job.files))
    return zip(plan, members_of(plan, named), strict=True)


def _write_predictions(job: Job, name: str, named: pd.DataFrame, outcome: Outcome) -> int:
    """Write the table of a prediction, a batch at a time; how many cells have one.

    It holds what is known of the cells of ``named``, whose fold and model go before the table's, and what
    the model says: NA where there is none, or where its batch failed.
    """
    files, parts, done = job.files, job.parts(name), set(outcome.done)
    cells, imagery = (CellTable(files.table(stage)) for stage in ("cells", "mosaic"))
    predicted = 0
    tables = zip(_members(job, named), cells.batches(), imagery.batches(), strict=True)
    with TableWriter(files.table(name), cells.attrs | dict(named.attrs)) as writer:
        for (batch, at), of_cells, of_pixels in tables:
            own = named.iloc[at]
            table = of_cells.loc[own.index].join(of_pixels)
            table = table.assign(fold=own["fold"], model_id=own["model_id"])
            table.attrs.update(cells.attrs)
            rows = parts.rows(batch.name) if batch.name in done else pd.DataFrame()
            writer.write(join_predictions(table, rows))
            predicted += len(rows)
    return predicted


def run_explain(job: Job) -> dict[str, Any]:
    """Pixels, class pixels and models → class sums of the activation maps, and the maps where asked."""
    c, keeping = job.config, job.config.explain.maps != "none"
    named = load_table(job.files.table("predict"), ["row", "col", "model_id"])
    cube = job.cube(named)
    keep = _cells_to_keep(c, named)
    room = cube.keep_activation(job.key if keeping else None)
    if c.sources.landcover is None and not keeping:
        return {"explain": "skipped: no land cover given"}
    # parts that speak of maps belong to the room that these were written into
    job = replace(job, key=f"{job.key}-{room}") if room else job
    stage = replace(explain_stage(c), keep=keep)
    polygons = land_polygons(c, job.grid, named) if c.explain.fragments else None
    dress: Callable[[Iterable[CellTask]], Iterable[CellTask]] | None = None
    if polygons is not None:
        # parts tell of polygons by their rows: those of the whole file, or of what lies about the cells
        read = [] if class_table(c) is None else [len(polygons), about(job.grid, named)]
        job = replace(
            job, key=digest([job.key, fingerprint(Path(str(c.sources.landcover))), *read])
        )
        dress = partial(with_polygons, grid=job.grid, polygons=PolygonIndex(polygons))
    forget_written(cube.path, ACTIVATION)
    outcome = run_over_cells(
        job, "explain", KeptMaps(stage, cube) if keeping else stage, named, load_models(job),
        Explain.layers, dress, by_block=keeping,
    )  # fmt: skip
    parts, at = job.parts("explain"), {b.name: at for b, at in _members(job, named)}
    # tasks go by model; the table's order is that of the others, so that they are read side by side
    merged = parts.merge(
        outcome.done, job.files.table("explain"), _OF_POLYGONS, lambda name: named.index[at[name]]
    )
    summary = {
        "cells explained": merged,
        "preset": stage.method.name,
        "failures": outcome.told(),
    }
    if keeping:
        list_layers(parts, "explain", cube, outcome.done)
        peaks = parts.read(outcome.done, ["peak_low"])
        summary["maps kept"] = int(peaks["peak_low"].notna().sum()) if "peak_low" in peaks else 0
    if polygons is not None:
        rows = parts.read(outcome.done, ["cell_id", "model_id", "fragments"])
        table = fragments_table(rows, polygons)
        job.files.mark.enter(job.files.fragments)
        save_rows(table, job.files.fragments)
        summary["fragments"] = len(table)
    return summary


_OF_POLYGONS = ("fragments",)
"""What of the rows goes into a table of its own."""


def _cells_to_keep(config: Config, cells: pd.DataFrame) -> Any:
    """Whose maps are kept, as `Explain` takes it."""
    asked = config.explain.maps
    if isinstance(asked, str):
        return asked
    strangers = sorted(set(asked) - set(cells.index))
    if strangers:
        raise ConfigError(
            f"explain.maps: {len(strangers)} cells are not of this city, the first {strangers[0]!r}: give "
            "ids as in cells.parquet"
        )
    return frozenset(asked)


def explain_stage(config: Config) -> Explain:
    """The explaining stage as the run's settings ask for it."""
    names = class_names(class_table(config))
    return Explain(len(names) + 1, method_of(config), config.explain.precision)
