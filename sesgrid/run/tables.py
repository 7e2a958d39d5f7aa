"""Tables of a run's cells: in the order of its batches, a row group a batch, no geometry.

A cell's square follows from its row and column, and 2.3 million squares would take a gigabyte; they are
drawn where a file leaves the run. Tables are written, joined and read a batch at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS

from sesgrid.errors import FormatError, MissingInputError, StoreError
from sesgrid.foreign import reading, writing
from sesgrid.grid import CELL_M
from sesgrid.grid import CRS as GRID_CRS
from sesgrid.store.sealed import replace_sealed, require_sound

_REMAKE = "run the stage that writes it again"

__all__ = ["CellTable", "TableWriter", "write_table"]

_ATTRS = b"sesgrid"


class TableWriter:
    """Writes a table a batch at a time; it appears when it is whole.

    Parameters
    ----------
    path : Path
    attrs : mapping
        Of the table; kept as JSON.
    squares : bool
        Whether the squares of the cells are written too, as GeoParquet 1.1 (EPSG:3035): for files that
        leave the run. The id is then a column, for every reader.

    Raises
    ------
    StoreError
        The disk is full or read-only; what was there stays.
    """

    def __init__(self, path: Path, attrs: Mapping[Any, Any], *, squares: bool = False) -> None:
        self.path, self._attrs, self._squares = path, dict(attrs), squares
        self._partial = path.with_name(f".{path.name}.partial")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> TableWriter:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, rows: pd.DataFrame) -> None:
        """Add a batch; indexed by ``cell_id``, with the columns and dtypes of the first."""
        bare = rows.copy(deep=False)
        bare.attrs = {}
        if self._squares:
            bare = bare.reset_index()
            bare["geometry"] = _wkb(bare["row"], bare["col"])
        try:
            if self._writer is None:
                first = pa.Table.from_pandas(bare, preserve_index=not self._squares)
                self._schema = first.schema.with_metadata(self._metadata(first.schema.metadata))
                self._writer = pq.ParquetWriter(self._partial, self._schema)
            table = pa.Table.from_pandas(
                bare, schema=self._schema, preserve_index=not self._squares
            )
            self._writer.write_table(table, row_group_size=max(len(bare), 1))
        except OSError as error:
            raise self._refused(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
                if kind is None:
                    replace_sealed(self._partial, self.path)
        except OSError as refused:
            if kind is None:
                raise self._refused(refused) from refused
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self.path} cannot be written ({error.strerror or error}): make room or give write access, "
            "then run again"
        )

    def _metadata(self, known: Mapping[bytes, bytes] | None) -> dict[bytes, bytes]:
        said = {**(known or {}), _ATTRS: json.dumps(self._attrs, default=str).encode()}
        if self._squares:
            column = {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": CRS.from_user_input(GRID_CRS).to_json_dict(),
            }
            geo = {
                "version": "1.1.0",
                "primary_column": "geometry",
                "columns": {"geometry": column},
            }
            said[b"geo"] = json.dumps(geo).encode()
        return said


def write_table(path: Path, table: pd.DataFrame, members: Iterable[np.ndarray]) -> None:
    """Write a table that is in memory.

    Parameters
    ----------
    path : Path
    table : DataFrame
        Indexed by ``cell_id``; geometry is left out.
    members : iterable of np.ndarray
        Positions of the rows of each batch; see `sesgrid.batches.blocks.members_of`.
    """
    bare = pd.DataFrame(table.drop(columns="geometry", errors="ignore"))
    with TableWriter(path, table.attrs) as writer:
        for at in members:
            writer.write(bare.iloc[at])


def _wkb(row: pd.Series, col: pd.Series) -> np.ndarray:
    west, south = col.to_numpy(np.int64) * CELL_M, (-row.to_numpy(np.int64) - 1) * CELL_M
    return shapely.to_wkb(shapely.box(west, south, west + CELL_M, south + CELL_M))


class CellTable:
    """A table that `TableWriter` wrote.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MissingInputError
        The stage that writes it has not run.
    FormatError
        The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            require_sound(path)
            with reading(path, advice=_REMAKE):
                self.path, self._file = path, pq.ParquetFile(path)
        except MissingInputError as error:
            raise MissingInputError(f"{path} is missing: run the stage that writes it") from error

    def __reduce__(self) -> tuple[type[CellTable], tuple[Path]]:
        return CellTable, (self.path,)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    @property
    def attrs(self) -> dict[Any, Any]:
        """Attributes of the table."""
        return dict(json.loads((self._file.schema_arrow.metadata or {}).get(_ATTRS, b"{}")))

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each batch."""
        told = self._file.metadata
        return [told.row_group(k).num_rows for k in range(told.num_row_groups)]

    @property
    def columns(self) -> list[str]:
        """Names, the index not among them."""
        return [n for n in self._file.schema_arrow.names if n not in ("cell_id", "geometry")]

    def dtype(self, names: Iterable[str]) -> np.dtype[Any]:
        """That of an array of some columns."""
        names = list(names)
        self._require(names)
        kinds = [self._file.schema_arrow.field(n).type.to_pandas_dtype() for n in names]
        return np.result_type(*kinds)

    def rows(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        """Rows [start, stop) of some columns of numbers, ``(row, column)``; NaN where a real one is missing.

        Raises
        ------
        FormatError
            A whole number is missing.
        """
        self._require(names)
        ends = np.cumsum(self.sizes)
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        table = self._file.read_row_groups(range(first, last + 1), list(names))
        skipped = ends[first] - self.sizes[first]
        columns = [table[n].slice(start - skipped, stop - start) for n in names]
        for name, column in zip(names, columns, strict=True):
            if column.null_count and pa.types.is_integer(column.type):
                raise FormatError(
                    f"{self.path}: expected a whole number in every row of {name}, {column.null_count} of "
                    f"{len(column)} are missing: run the stage that writes it again"
                )
        return np.column_stack([column.to_numpy() for column in columns])

    def read(self, columns: Sequence[str] | None = None, *, with_id: bool = True) -> pd.DataFrame:
        """All rows, of some columns; where only the order counts, without the ids: they are most of it."""
        names = self.columns if columns is None else columns
        # one by one: Arrow holds on to memory that it needs no longer, and would to a second table's
        index = (
            pd.Index(self._column("cell_id"), name="cell_id")
            if with_id
            else pd.RangeIndex(len(self))
        )
        frame = pd.DataFrame({n: self._column(n) for n in names}, index, copy=False)
        frame.attrs = self.attrs
        pa.default_memory_pool().release_unused()
        return frame

    def _column(self, name: str) -> Any:
        self._require([name])
        frame = self._file.read([name]).to_pandas()
        return (frame[name] if name in frame.columns else frame.index).array

    def _require(self, names: Iterable[str]) -> None:
        # Arrow reads what is there and says nothing of the rest
        missing = sorted(set(names) - set(self._file.schema_arrow.names))
        if missing:
            raise MissingInputError(
                f"{self.path} has no column {', '.join(missing)}, but {', '.join(self.columns)}: run the "
                "stage that writes it again"
            )

    def take(self, positions: Sequence[int]) -> pd.DataFrame:
        """Rows of all columns, by their positions."""
        ends = np.cumsum(self.sizes)
        groups = np.searchsorted(ends, positions, side="right")
        parts = [
            self._group(k).iloc[[at - (ends[k] - self.sizes[k])]]
            for at, k in zip(positions, groups.tolist(), strict=True)
        ]
        rows = pd.concat(parts or [self.read().iloc[:0]])
        rows.attrs = self.attrs
        return rows

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The rows of each batch in turn."""
        for k in range(self._file.num_row_groups):
            yield self._group(k, columns)

    def _group(self, k: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of one batch."""
        names = [*(self.columns if columns is None else columns), "cell_id"]
        self._require(names)
        frame = self._file.read_row_group(k, names).to_pandas()
        if "cell_id" in frame.columns:
            frame = frame.set_index("cell_id")
        frame.attrs = self.attrs
        return frame
