"""Parts: a batch of blocks or cells writes one Parquet file, which is also its own record.

The file appears by a rename, after everything it vouches for has been written. What is left to do is
the plan minus the parts that carry the stage's key.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sesgrid.errors import FormatError, StoreError

__all__ = ["BATCH", "Parts", "write_atomically"]

BATCH = 256
"""Blocks in one part, by fixed index in the sorted plan: a resumed run forms the same batches."""

_RECORD = b"sesgrid"


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
    """The parts of one stage."""

    directory: Path
    key: str
    """Hash of the stage's settings and inputs; parts with another key are not ours."""

    def path(self, batch: int) -> Path:
        """Where a batch's part lies."""
        return self.directory / f"part-{batch:06d}.parquet"

    def write(self, batch: int, rows: pd.DataFrame, record: dict[str, Any]) -> None:
        """Write the part of a batch, atomically."""
        table = pa.Table.from_pandas(rows, preserve_index=False)
        note = json.dumps({**record, "key": self.key, "batch": batch})
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _RECORD: note})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write_atomically(self.path(batch), sink.getvalue().to_pybytes())

    def record(self, batch: int) -> dict[str, Any] | None:
        """The record of a finished batch with this key, or None."""
        path = self.path(batch)
        if not path.exists():
            return None
        try:
            metadata = pq.read_schema(path).metadata or {}
        except pa.ArrowInvalid as error:
            raise FormatError(f"{path} is not a readable part ({error}): delete it") from error
        record = json.loads(metadata.get(_RECORD, b"{}"))
        return record if record.get("key") == self.key else None

    def read(self, batches: int) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
        """Rows and records of batches 0 … batches − 1.

        Raises
        ------
        FormatError
            A part is missing or has another key.
        """
        frames, records = [], []
        for batch in range(batches):
            record = self.record(batch)
            if record is None:
                raise FormatError(f"{self.path(batch)}: this part has not been written by this run")
            records.append(record)
            frames.append(pq.read_table(self.path(batch)).to_pandas())
        rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        return rows, records

    def clear(self, batches: int) -> None:
        """Remove parts that are no longer in the plan or carry another key."""
        for path in self.directory.glob("part-*.parquet"):
            batch = int(path.stem.removeprefix("part-"))
            if batch >= batches or self.record(batch) is None:
                path.unlink()
