"""Memory: projected before a stage runs, where a plan that does not fit is refused; held, and given back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pyarrow as pa
from distributed import Client

from sesgrid.errors import ConfigError
from sesgrid.stages.mosaic import Mosaic, TiledBlock

__all__ = ["WORKER_BASE_BYTES", "give_back", "mosaic_bytes", "require_mosaic_fits", "sparing"]

WORKER_BASE_BYTES = 450 << 20
"""A worker that has imported what the stage needs and compiled its kernels."""


def mosaic_bytes(
    stage: Mosaic, fullest: Sequence[TiledBlock], threads: int, gdal_cache_mb: int
) -> int:
    """Project the memory of a worker that draws blocks.

    Every thread draws a group of its own; the fullest group stands for all.

    Parameters
    ----------
    stage : Mosaic
    fullest : sequence of TiledBlock
        The group with the most cells, from `sesgrid.batches.blocks.fullest_group`.
    threads : int
        Of the worker.
    gdal_cache_mb : int
        GDAL's block cache in each worker.

    Returns
    -------
    int
        Bytes.
    """
    return WORKER_BASE_BYTES + (gdal_cache_mb << 20) + threads * stage.peak_bytes(fullest)


def require_mosaic_fits(
    client: Client, stage: Mosaic, fullest: Sequence[TiledBlock], gdal_cache_mb: int
) -> int:
    """Refuse a plan that a worker could not hold; see `mosaic_bytes`.

    Returns
    -------
    int
        Bytes of the busiest worker.

    Raises
    ------
    ConfigError
        It is more than a worker may take.
    """
    fixed = mosaic_bytes(stage, fullest, 0, gdal_cache_mb)
    of_group = mosaic_bytes(stage, fullest, 1, gdal_cache_mb) - fixed
    worst = 0
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        threads, limit = int(worker["nthreads"]), int(worker["memory_limit"] or 0)
        needed = fixed + threads * of_group
        worst = max(worst, needed)
        if limit and needed > limit:
            raise ConfigError(
                f"the mosaic needs {needed / 1e9:.1f} GB in a worker ({address}: {threads} threads × "
                f"{of_group / 1e9:.2f} GB a group of blocks + {fixed / 1e9:.2f} GB), which may take "
                f"{limit / 1e9:.1f} GB: give workers fewer threads (cluster.threads) or more memory, "
                "or make blocks smaller (grid.cells_per_block)"
            )
    return worst


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt``."""


@contextmanager
def sparing() -> Iterator[None]:
    """Let what this process frees go back to the system, as far as that can be had.

    Arrow's own pool keeps freed memory for later, and the C library raises by itself, for good, how large a
    piece must be to be handed back: of a nation's tables they keep some hundred megabytes. Arrow takes its
    memory from the C library meanwhile; the latter hands back pieces of a megabyte from now on.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    with suppress(OSError, AttributeError):  # there is no such thing but in glibc
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        # whatever is smaller is wanted again at once by a run's batches: that much of it is kept
        library.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def give_back() -> None:
    """Hand this process' freed memory back to the system: what lies between pieces that are still held."""
    with suppress(OSError, AttributeError):  # there is no such thing but in glibc
        ctypes.CDLL(None).malloc_trim(0)
