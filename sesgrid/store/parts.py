"""Parts: a batch of blocks writes one Parquet file, which is also its own record.

The file appears by a rename, after everything it vouches for has been written. Its key names what it was
made from: what is left to do is the plan minus the parts that carry their batch's key.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sesgrid.errors import FormatError, MissingInputError, StoreError
from sesgrid.foreign import reading
from sesgrid.store.sealed import replace_sealed
from sesgrid.store.shard import checksum

__all__ = ["Parts", "concatenated", "write_atomically"]

_RECORD = b"sesgrid"
_REMAKE = "delete it, and run the stage again"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either whole or absent, also after a crash.

    Raises
    ------
    StoreError
        The disk is full or read-only; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(
                f"{path} cannot be written ({error.strerror or error}): make room or give write access, then "
                "run again"
            ) from error
        raise


@dataclass(frozen=True)
class Parts:
    """The parts of one stage, by the names of their batches."""

    directory: Path

    def path(self, batch: str) -> Path:
        """Where a batch's part lies."""
        return self.directory / f"{batch}.parquet"

    def names(self) -> list[str]:
        """Batches of which there is a part, whatever its key."""
        return sorted(p.stem for p in self.directory.glob("*.parquet"))

    def orphans(self) -> list[str]:
        """Batches of whose part only the checksum is left."""
        return sorted({p.stem for p in self.directory.glob("*.crc32c")} - set(self.names()))

    @property
    def is_empty(self) -> bool:
        """Whether there is no part at all."""
        return next(self.directory.glob("*.parquet"), None) is None

    def write(
        self, batch: str, key: str, rows: pd.DataFrame | pa.Table, record: dict[str, Any]
    ) -> None:
        """Write the part of a batch, atomically, and beside it the crc32c of its file.

        Parameters
        ----------
        batch : str
        key : str
            Hash of all that the part was made from.
        rows : DataFrame or pyarrow.Table
        record : dict
            What else is worth keeping, as JSON.
        """
        table = rows
        if not isinstance(table, pa.Table):
            table = pa.Table.from_pandas(table, preserve_index=False)
        note = json.dumps({**record, "key": key, "batch": batch})
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _RECORD: note})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        data = sink.getvalue().to_pybytes()
        # Parquet knows checksums of pages only; a flipped byte of the footer would pass
        write_atomically(self._check_path(batch), checksum(data).hex())
        write_atomically(self.path(batch), data)

    def remove(self, batch: str) -> None:
        """Forget a batch."""
        for path in (self.path(batch), self._check_path(batch)):
            path.unlink(missing_ok=True)

    def _check_path(self, batch: str) -> Path:
        return self.path(batch).with_suffix(".crc32c")

    def _bytes(self, batch: str) -> pa.BufferReader | None:
        """The file of a part, as it was written; None: there is none."""
        try:
            with reading(self.path(batch), advice=_REMAKE):
                data = self.path(batch).read_bytes()
        except MissingInputError:
            return None
        try:
            with reading(self._check_path(batch), advice=_REMAKE):
                written = self._check_path(batch).read_bytes()
        except MissingInputError:
            written = b""
        if checksum(data).hex().encode() != written:
            raise FormatError(f"{self.path(batch)} is damaged: {_REMAKE}")
        return pa.BufferReader(data)

    def record(self, batch: str) -> dict[str, Any] | None:
        """The record of a finished batch; None: there is no part.

        Raises
        ------
        FormatError
            The file is damaged.
        """
        file = self._bytes(batch)
        if file is None:
            return None
        with reading(self.path(batch), advice=_REMAKE):
            metadata = pq.read_schema(file).metadata or {}
            return dict(json.loads(metadata.get(_RECORD, b"{}")))

    def has(self, batch: str, key: str) -> bool:
        """Whether there is a readable part of a batch that was made from this."""
        record = self.sound(batch)
        return record is not None and record.get("key") == key

    def sound(self, batch: str) -> dict[str, Any] | None:
        """The record of a finished batch; None: there is no part, or it is damaged and to be made again."""
        try:
            return self.record(batch)
        except FormatError:
            return None

    def rows(self, batch: str) -> pd.DataFrame:
        """Rows of a part.

        Raises
        ------
        FormatError
            There is none, or it is damaged.
        """
        return self.table(batch).to_pandas()

    def table(self, batch: str) -> pa.Table:
        """As `rows`, an Arrow table."""
        file = self._existing(batch)
        with reading(self.path(batch), advice=_REMAKE):
            return pq.read_table(file)

    def _existing(self, batch: str) -> pa.BufferReader:
        file = self._bytes(batch)
        if file is None:
            raise FormatError(f"{self.path(batch)} is missing: run the stage again")
        return file

    def tables(self, batches: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of each part, all of one schema: a column may be empty in some of them.

        Raises
        ------
        FormatError
            A part is missing or damaged.
        """
        schema: pa.Schema | None = None
        for batch in batches:
            file = self._existing(batch)
            with reading(self.path(batch), advice=_REMAKE):
                found = pq.read_schema(file).remove_metadata()
            schema = found if schema is None else _unified(schema, found)
        for batch in batches:
            table = self.table(batch).replace_schema_metadata(None)
            yield table if schema is None else _cast(table, schema)

    def read(self, batches: Sequence[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of some parts, in order, in memory; of some columns, as far as the parts have them."""

        def some(table: pa.Table) -> pa.Table:
            return table.select([c for c in columns or () if c in table.column_names])

        tables = [t if columns is None else some(t) for t in self.tables(batches)]
        return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame()

    def merge(
        self,
        batches: Sequence[str],
        path: Path,
        without: Sequence[str] = (),
        order: Callable[[str], Iterable[str]] | None = None,
    ) -> int:
        """Write the rows of parts as one Parquet file, one part in memory at a time; how many there are.

        Parameters
        ----------
        batches : sequence of str
        path : Path
            Without any row it has no columns either: a part that has no row says nothing of them.
        without : sequence of str
            Columns that are left out.
        order : callable, optional
            Name of a batch → its cells: its rows, whose order is that of its tasks, follow these.
        """
        temporary, writer, n = path.with_name(f".{path.name}.partial"), None, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            for batch, table in zip(batches, self.tables(batches), strict=True):
                if not len(table):
                    continue
                if order is not None:
                    table = table.take(_places(table["cell_id"], order(batch)))
                table = table.drop_columns([c for c in without if c in table.column_names])
                writer = writer or pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
                n += len(table)
            writer = writer or pq.ParquetWriter(temporary, pa.schema([]))
        finally:
            if writer is not None:
                writer.close()
        replace_sealed(temporary, path)
        return n

    def keep_only(self, batches: Sequence[str]) -> None:
        """Remove parts of batches that are no longer in the plan."""
        for name in set(self.names()) - set(batches):
            self.remove(name)


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one below the other; a column may be empty, or missing, in some of them."""
    bare = [t.replace_schema_metadata(None) for t in tables if len(t)]
    return pa.concat_tables(bare, promote_options="permissive") if bare else pa.table({})


def _places(ids: pa.ChunkedArray, order: Iterable[str]) -> pa.Array:
    """The rows in the order that names them; what it does not name comes last."""
    return pc.sort_indices(pc.index_in(ids, value_set=pa.array(list(order), ids.type)))


def _unified(schema: pa.Schema, found: pa.Schema) -> pa.Schema:
    if not found.names:
        return schema
    return pa.unify_schemas([schema, found], promote_options="permissive")


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    def column(f: pa.Field) -> Any:
        if f.name not in table.column_names:
            return pa.nulls(len(table), f.type)
        return table[f.name] if table[f.name].type == f.type else table[f.name].cast(f.type)

    arrays = [column(f) for f in schema]
    return pa.table(arrays, schema=schema)
