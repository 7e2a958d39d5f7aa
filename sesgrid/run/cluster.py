"""Where the work runs: a running Dask cluster, or a local one sized to the machine.

A worker that says that it has a GPU (``dask worker --resources GPU=1``, or one process per GPU of a local
cluster where dask-cuda is installed) gets the tasks that run models, and the others none of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster, WorkerPlugin

from sesgrid.errors import ConfigError
from sesgrid.run.config import ClusterSettings

__all__ = ["TRAINING", "connected", "local_size", "on_gpus"]

TASKS_PER_GPU = 3
"""At once: one computes while the others read and sum."""

EXPLAINING, TRAINING = round(1 / TASKS_PER_GPU - 0.005, 2), 1.0
"""Shares of a GPU that a task of the model stages takes."""

_PATIENCE_S = 60
"""How long a scheduler may have no worker."""

_LOCAL = {
    # a training holds the interpreter for seconds at a time: that is no sign of trouble
    "distributed.worker.memory.pause": False,
    "distributed.admin.tick.limit": "1h",
    "distributed.scheduler.worker-saturation": 1.0,
    # Dask's workers give memory back to the system at every turn, and look at every thread a hundred
    # times a second; a training, which allocates all the time, pays for both in system time
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 28,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 25,
    "distributed.worker.profile.interval": "200ms",
}


def local_size(settings: ClusterSettings, cpus: int | None = None) -> tuple[int, int]:
    """(workers, threads per worker) of a local cluster.

    One process holds one copy of the network and of its libraries (half a gigabyte), so a laptop gets
    one process with all threads; a larger machine one per eight cores.

    >>> local_size(ClusterSettings(), cpus=2), local_size(ClusterSettings(), cpus=32)
    ((1, 2), (4, 8))
    """
    cpus = cpus or len(os.sched_getaffinity(0))
    workers = settings.workers or max(1, cpus // 8)
    return workers, settings.threads or max(1, cpus // workers)


class GdalPlugin(WorkerPlugin):
    """GDAL's block cache is per process and takes 5 % of the memory unless told otherwise."""

    name = "sesgrid-gdal"

    def __init__(self, cache_mb: int) -> None:
        self.cache_mb = cache_mb

    def setup(self, worker: object) -> None:
        """Set the environment before the first raster is opened."""
        os.environ["GDAL_CACHEMAX"] = str(self.cache_mb)


def _wait_for_workers(client: Client, scheduler: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE_S)
    except TimeoutError as error:
        raise ConfigError(
            f"the Dask scheduler at {scheduler!r} has no workers after {_PATIENCE_S} s: start some with "
            f"`dask worker {scheduler}`"
        ) from error


@contextmanager
def connected(settings: ClusterSettings, scheduler: str | None) -> Iterator[Client]:
    """A client of a running scheduler, or of a local cluster that ends with the block.

    Raises
    ------
    ConfigError
        The scheduler cannot be reached, or has no workers.
    """
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at {scheduler!r} ({error}): start one with "
                "`dask scheduler`, or leave --scheduler out for a local cluster"
            ) from error
        with client:
            _wait_for_workers(client, scheduler)
            client.register_plugin(GdalPlugin(settings.gdal_cache_mb))
            yield client
        return
    with (
        dask.config.set(_LOCAL),
        _local_cluster(settings) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(GdalPlugin(settings.gdal_cache_mb))
        yield client


def _local_cluster(settings: ClusterSettings) -> LocalCluster:
    """One process per GPU where there are some and dask-cuda is installed; else by processors."""
    common: dict[str, Any] = {
        "memory_limit": settings.memory,
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
        "silence_logs": logging.ERROR,
    }
    gpus = _gpus()
    if gpus:
        from dask_cuda import LocalCUDACluster

        gpus = min(gpus, settings.workers or gpus)
        workers, threads = local_size(settings.model_copy(update={"workers": gpus}))
        # TensorFlow and JAX keep their own memory: there is none of Dask's to spill
        return LocalCUDACluster(
            n_workers=workers, threads_per_worker=max(threads, TASKS_PER_GPU), resources={"GPU": 1},
            device_memory_limit=None, **common,
        )  # fmt: skip
    workers, threads = local_size(settings)
    return LocalCluster(n_workers=workers, threads_per_worker=threads, **common)


def _gpus() -> int:
    """GPUs that dask-cuda sees; 0 where it is not installed, or where they are hidden."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return 0
    try:
        from dask_cuda.utils import get_gpu_count, get_n_gpus
    except ImportError:
        return 0
    try:
        get_gpu_count()  # the number of the variable's entries says nothing of a driver
        return int(get_n_gpus())
    except Exception:  # whatever a machine without a driver makes NVIDIA's library raise
        return 0


def on_gpus(client: Client, share: float = EXPLAINING) -> dict[str, float] | None:
    """Resources for ``client.compute`` of a task that runs a model; None: no worker says it has a GPU."""

    def any_gpu(dask_scheduler: Any) -> bool:
        return any(w.resources.get("GPU") for w in dask_scheduler.workers.values())

    return {"GPU": share} if client.run_on_scheduler(any_gpu) else None
