"""Batches of placed work: computed on the cluster, recorded as parts, resumed as plan minus parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import dask.array as da
import pandas as pd
from distributed import Client, as_completed
from tqdm import tqdm

from sesgrid.store.parts import Parts

__all__ = ["in_batches", "progress_bar", "run_batches"]


def in_batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Consecutive batches by fixed index.

    >>> in_batches([1, 2, 3], 2)
    [[1, 2], [3]]
    """
    return [items[i : i + size] for i in range(0, len(items), size)]


def progress_bar(label: str, total: int, unit: str) -> tqdm:
    """The one look of a progress bar."""
    return tqdm(total=total, desc=f"  {label}", unit=unit, leave=False, dynamic_ncols=True)


def run_batches(
    client: Client,
    parts: Parts,
    label: str,
    batches: Sequence[Sequence[Any]],
    make: Callable[[Sequence[Any]], da.Array],
    split: Callable[[list[Any]], tuple[list[dict[str, Any]], dict[str, Any]]],
    *,
    unit: str,
    size: Callable[[Any], int] = lambda item: 1,
    resources: Mapping[str, float] | None = None,
) -> tuple[pd.DataFrame, list[dict[str, Any]], int]:
    """Compute what is not recorded yet.

    Parameters
    ----------
    client : Client
    parts : Parts
    label : str
        Shown on the progress bar.
    batches : sequence
        The plan, from `in_batches`.
    make : callable
        A batch → the placed graph: object ``(item,)``.
    split : callable
        The batch's results → rows (one per cell) and what its record keeps.
    unit : str
        What the progress bar counts.
    size : callable
        Units in an item.
    resources : mapping, optional
        What a worker must have for a task; see `sesgrid.run.cluster.on_gpus`.

    Returns
    -------
    rows : DataFrame
        Of all batches, also those of earlier runs.
    records : list of dict
    resumed : int
        Units that were recorded before.
    """
    parts.clear(len(batches))
    resumed = 0
    with progress_bar(label, sum(size(item) for batch in batches for item in batch), unit) as bar:
        for number, batch in enumerate(batches):
            sizes = [size(item) for item in batch]
            if parts.record(number) is not None:
                resumed += sum(sizes)
                bar.update(sum(sizes))
                continue
            started = time.perf_counter()
            results = [
                r for chunk in _computed(client, make(batch), sizes, bar, resources) for r in chunk
            ]
            rows, record = split(results)
            record = {"items": sum(sizes), "seconds": time.perf_counter() - started, **record}
            parts.write(number, pd.DataFrame(rows), record)
    rows_of_all, records = parts.read(len(batches))
    return rows_of_all, records, resumed


def _computed(
    client: Client,
    results: da.Array,
    sizes: Sequence[int],
    bar: tqdm,
    resources: Mapping[str, float] | None,
) -> Iterator[Sequence[Any]]:
    """Chunks of a placed graph in order; the bar moves as they finish, in any order."""
    futures = client.compute(list(results.to_delayed().ravel()), resources=resources)
    ends = [0, *accumulate(results.chunks[0])]
    done = {f.key: sum(sizes[a:b]) for f, (a, b) in zip(futures, pairwise(ends), strict=True)}
    for future in as_completed(futures):
        if future.status == "error":
            error = future.exception()  # a cancelled future would only say that it was
            client.cancel(futures)
            raise error
        bar.update(done[future.key])
    yield from client.gather(futures)
