"""The class sums of a run as a dataset, read as they are looked at: a nation's fill gigabytes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core.indexing import (
    ExplicitIndexer,
    IndexingSupport,
    LazilyIndexedArray,
    explicit_indexing_adapter,
)

from sesgrid.run.config import Config
from sesgrid.run.job import class_table, method_of
from sesgrid.run.tables import CellTable
from sesgrid.run.workspace import Workspace
from sesgrid.sources import class_names
from sesgrid.stages.activation import activation_dataset, class_sums, sum_columns

__all__ = ["load_activation"]


def load_activation(config: Config, files: Workspace, cells: pd.Index) -> xr.Dataset | None:
    """The class sums of a run, lazy, as of `sesgrid.stages.activation.class_sums`; None without land cover.

    Parameters
    ----------
    config : Config
    files : Workspace
    cells : Index
        Ids of the run's cells; where all were explained, the dataset has these, and not a nation's once more.

    Raises
    ------
    MissingInputError
        The stage `explain` has not run.
    FormatError
        A row lacks an area.
    """
    if config.sources.landcover is None:
        return None
    table, names = CellTable(files.table("explain")), class_names(class_table(config))
    named = {"preset": method_of(config).name, "precision": config.explain.precision}
    if not len(table):  # without rows there are no columns
        return activation_dataset(pd.DataFrame(), names, named)
    sums, area = (LazilyIndexedArray(_Columns(table, n)) for n in sum_columns(1 + len(names)))
    ids = cells if _names(table, cells) else table.read([]).index
    return class_sums(ids, sums, area, names, named)


def _names(table: CellTable, cells: pd.Index) -> bool:
    """Whether the rows of a table are these cells, all and in this order; a batch at a time."""
    stops = np.cumsum([0, *table.sizes])
    return len(table) == len(cells) and all(
        rows.index.equals(cells[a:b])
        for rows, (a, b) in zip(table.batches([]), pairwise(stops), strict=True)
    )


class _Columns(BackendArray):
    """Columns of a table as an array ``(row, …)``.

    Parameters
    ----------
    table : CellTable
    names : np.ndarray
        Of the columns, in the shape of the other axes.
    """

    def __init__(self, table: CellTable, names: np.ndarray) -> None:
        self._table, self._names = table, names
        self.shape = (len(table), *names.shape)
        self.dtype = table.dtype(names.ravel())

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[slice | int, ...]) -> np.ndarray:
        names, at = np.asarray(self._names[key[1:]]), np.asarray(range(len(self._table))[key[0]])
        if not at.size or not names.size:
            return np.empty((*at.shape, *names.shape), self.dtype)
        first = int(at.min())
        values = self._table.rows(first, int(at.max()) + 1, names.ravel().tolist())
        # of some of the columns the type may be narrower than that of all
        return values[at - first].reshape((*at.shape, *names.shape)).astype(self.dtype, copy=False)
