"""Where the work runs: a running Dask cluster, or a local one sized to the machine.

A worker that says that it has a GPU (``dask worker --resources GPU=1``, or one process per GPU of a local
cluster where dask-cuda is installed) gets the tasks that run models, and the others none of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.comm.core import CommClosedError
from distributed.security import Security

from sesgrid.errors import ClusterError, ConfigError, SesgridError
from sesgrid.foreign import cause_of
from sesgrid.run.cluster_kind import cluster_class
from sesgrid.run.cluster_options import require_harmless
from sesgrid.run.settings import ClusterSettings, TlsSettings
from sesgrid.run.stopping import deferred

__all__ = ["TRAINING", "connected", "local_size", "on_gpus"]

TASKS_PER_GPU = 3
"""At once: one computes while the others read and sum."""

EXPLAINING, TRAINING = round(1 / TASKS_PER_GPU - 0.005, 2), 1.0
"""Shares of a GPU that a task of the model stages takes."""

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

_HERE = {"distributed.deploy.lost-worker-timeout": "1h"}
"""Dask gives up a process that is not back 15 s after it was lost, as on a busy laptop; others' jobs it must
give up, so that they are replaced."""


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


def _wait_for_workers(client: Client, scheduler: str, patience_s: float) -> None:
    try:
        client.wait_for_workers(1, timeout=patience_s)
    except TimeoutError as error:
        raise ConfigError(
            f"the Dask scheduler at {scheduler!r} has no workers after {patience_s:g} s "
            f"(cluster.patience_s): start some with `dask worker {scheduler}`"
        ) from error


@contextmanager
def connected(settings: ClusterSettings, scheduler: str | None) -> Iterator[Client]:
    """A client of a running scheduler, or of a cluster that is started here and ends with the block.

    Parameters
    ----------
    settings : ClusterSettings
    scheduler : str or None
        Address of a running scheduler, or "local"; goes before the settings' own.

    Raises
    ------
    ConfigError
        The scheduler cannot be reached, or has no workers; the class of cluster does not exist, is not
        installed, or cannot be made with these options; a certificate is refused.
    ClusterError
        The scheduler was lost on the way.
    """
    if scheduler == "local":
        settings, scheduler = settings.model_copy(update={"kind": None, "address": None}), None
    address, security = scheduler or settings.address, _security(settings.tls)
    with ExitStack() as stack:
        if address is not None:
            client = stack.enter_context(_client_of(address, security))
        else:
            patient = _HERE if settings.kind is None else {}
            stack.enter_context(dask.config.set(_LOCAL | patient))
            with deferred():
                cluster = stack.enter_context(_started(settings, security))
            if settings.adapt is not None:
                cluster.adapt(minimum=settings.adapt.minimum, maximum=settings.adapt.maximum)
            client = stack.enter_context(_client_of_cluster(cluster, security))
        try:
            if address is not None or settings.kind is not None:
                _wait_for_workers(client, address or client.scheduler.address, settings.patience_s)
            client.register_plugin(GdalPlugin(settings.gdal_cache_mb))
            yield client
        except OSError as error:
            # whatever is asked of a scheduler may come when it has just died
            lost = isinstance(error, CommClosedError) or client.status != "running"
            if lost and not isinstance(error, SesgridError):
                raise ClusterError(
                    f"the connection to the Dask scheduler broke ({error}): what was finished is kept; see "
                    "the scheduler's own logs, and run again"
                ) from error
            raise


class _Client(Client):
    """A client that is closed at once where it cannot be made.

    Else the garbage collector closes it, and waits for ever where it comes while Dask makes another client.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except BaseException:
            with suppress(Exception):
                self.close()
            raise


def _client_of(address: str, security: Security | None) -> Client:
    before = dask.config.get("scheduler", None)
    # what a client finds here it leaves here, and one that cannot be made is closed who knows when
    dask.config.set(scheduler=None)
    try:
        return _Client(address, timeout="10s", **_secured(security))
    except (OSError, ValueError, TimeoutError, TypeError, RuntimeError) as error:
        dask.config.set(scheduler=before)
        raise ConfigError(
            f"no Dask scheduler answers at {address!r} ({error}): start one with `dask scheduler`, check the "
            "address and, where it speaks TLS, cluster.tls; or leave the address out for a local cluster"
        ) from error


def _client_of_cluster(cluster: Any, security: Security | None) -> Client:
    try:
        return _Client(cluster, **_secured(security))
    except (OSError, TimeoutError) as error:
        raise ConfigError(
            f"the cluster that was started does not answer ({error}): see its own logs and, where it is "
            "given, cluster.tls"
        ) from error


def _security(tls: TlsSettings | None) -> Security | None:
    """The same certificate for all that runs here; whoever has none is refused."""
    if tls is None:
        return None
    pair = {
        f"tls_{role}_{what}": str(path)
        for role in ("client", "scheduler", "worker")
        for what, path in (("cert", tls.cert), ("key", tls.key))
    }
    return Security(tls_ca_file=str(tls.ca), require_encryption=True, **pair)


def _secured(security: Security | None) -> dict[str, Any]:
    return {} if security is None else {"security": security}


def _started(settings: ClusterSettings, security: Security | None) -> Any:
    """A cluster that is started here."""
    if settings.kind is None:
        try:
            return _local_cluster(settings, security)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no local cluster can be started ({error}): check cluster.workers, threads and memory and, "
                "where it is given, cluster.tls"
            ) from error
    cls = cluster_class(settings.kind)
    require_harmless(settings.kind, settings.options)
    try:
        return cls(**settings.options, **_secured(security))
    except Exception as error:  # whatever a cluster's own package raises of options or machines
        raise ConfigError(
            # not what they are: keys and passwords may be among them
            f"cluster.kind = {settings.kind!r} cannot be started with cluster.options "
            f"{', '.join(sorted(settings.options)) or '(none)'} ({cause_of(error)}): see what the class takes"
        ) from error


def _local_cluster(settings: ClusterSettings, security: Security | None) -> LocalCluster:
    """One process per GPU where there are some and dask-cuda is installed; else by processors."""
    common: dict[str, Any] = {
        "memory_limit": settings.memory,
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
        "silence_logs": logging.ERROR,
        **_secured(security),
    }
    if security is not None:
        common["protocol"] = "tls://"
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
