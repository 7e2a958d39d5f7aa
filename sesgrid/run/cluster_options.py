"""Which options a configuration may give to a cluster: none that name code.

A configuration may come from somebody else. What it says of a batch system or a cloud is run there, under
the account of whoever runs it: lines of a batch script (``job_script_prologue``, ``env_extra``, ``python``
of dask-jobqueue) and images of pods and virtual machines are what such a cluster is made of. So
``[cluster]`` of somebody else's configuration is to be read before it is used where there is one. Nothing
of a configuration runs on any other machine: of clusters on this one only the options listed here are
taken, and of no cluster one that has Dask import modules or classes, or call another program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sesgrid.errors import ConfigError

__all__ = ["require_harmless"]

_SIZES = """
    n_workers threads_per_worker nthreads processes host ip port scheduler_port interface protocol name env
    dashboard_address worker_dashboard_address dashboard http_prefix memory_limit local_directory resources
    silence_logs death_timeout lifetime lifetime_stagger lifetime_restart heartbeat_interval
    scheduler_sync_interval CUDA_VISIBLE_DEVICES device_memory_limit enable_cudf_spill cudf_spill_stats
    shared_filesystem jit_unspill log_spilling enable_tcp_over_ucx enable_infiniband enable_nvlink
    enable_rdmacm rmm_pool_size rmm_maximum_pool_size rmm_initial_pool_size rmm_managed_memory rmm_async
    rmm_release_threshold rmm_log_directory rmm_track_allocations
"""
_LOCAL = frozenset(_SIZES.split())
"""Of a cluster on this machine: numbers, sizes, addresses, folders, variables."""

_CODE = re.compile(
    r"(?i)(.*[^a-z])?(preload(_.*)?|.*cls|.*class|plugins?|.*_modules?|extensions?|pre_import|jupyter|executor"
    r"|.*_command|services|callbacks?)"
)
"""Names of options that have Dask or a cluster's package import code, or call a program."""

_VARIABLE = re.compile(
    r"(LD|DYLD|PYTHON|DASK|BASH|GCONV|GIO|OPENSSL|TF|XLA|KERAS|NUMBA|GDAL_VRT|GDAL_PYTHON)(_.*)?|PYTHON.*"
    r"|.*(PATH|HOME|DIR|CONF|CONFIG|ENV|FLAGS|OPTIONS|MODULES?)|.*(PRELOAD|PLUGIN|INJECTION|DRIVER).*"
)
"""Variables that have a process load code, or look for it in other places."""

_PROGRAM = re.compile(r"(?i)(remote_)?python|config|proxy.*|pkcs11.*")
"""Over SSH too: programs, and files in which one may be named."""

_DIRECT = ("LocalCluster", "LocalCUDACluster", "SSHCluster")
"""Clusters whose workers are processes that Dask starts itself."""


def require_harmless(kind: str, options: dict[str, Any]) -> None:
    """Refuse options of a cluster that name code, at any depth.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> require_harmless("dask_jobqueue.SLURMCluster", {"job_script_prologue": ["module load gdal"]})
    >>> require_harmless("distributed.LocalCluster", {"preload": ["a.py"]})
    Traceback (most recent call last):
    sesgrid.errors.ConfigError: cluster.kind = 'distributed.LocalCluster' cannot be started with \
cluster.options preload: a configuration may name no code to be run; start such a cluster by hand, and give \
its scheduler as cluster.address
    """
    name = kind.rpartition(".")[2]
    refused = [k for k in _names(options) if _CODE.fullmatch(k)]
    if name in _DIRECT:
        refused += [k for k in _names(_below(options, "env")) if _VARIABLE.fullmatch(k.upper())]
    if name == "SSHCluster":
        refused += [k for k in _names(options) if _PROGRAM.fullmatch(k)]
    if name == "GatewayCluster" and not str(options.get("auth", "basic")).isidentifier():
        refused.append("auth")  # else a class by its full name
    if refused:
        raise ConfigError(
            f"cluster.kind = {kind!r} cannot be started with cluster.options {_listed(refused)}: a "
            "configuration may name no code to be run; start such a cluster by hand, and give its scheduler "
            "as cluster.address"
        )
    if name != "SSHCluster" and name in _DIRECT and (unknown := set(options) - _LOCAL):
        raise ConfigError(
            f"cluster.kind = {kind!r} cannot be started with cluster.options {_listed(unknown)}: expected "
            "numbers and addresses of it, such as n_workers, threads_per_worker, memory_limit; start any "
            "other by hand, and give its scheduler as cluster.address"
        )


def _listed(names: Any) -> str:
    return ", ".join(sorted(set(names))[:5])


def _names(options: Any) -> Iterator[str]:
    """Keys of mappings at any depth; a key with dots is one of Dask's configuration."""
    if isinstance(options, dict):
        for key, value in options.items():
            yield from (part.replace("-", "_") for part in str(key).split("."))
            yield from _names(value)
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _names(value)


def _below(options: Any, name: str) -> list[Any]:
    """What stands under a key of mappings, at any depth."""
    if isinstance(options, dict):
        inner = [v for value in options.values() for v in _below(value, name)]
        return inner + [v for k, v in options.items() if str(k).lower() == name]
    return (
        [v for value in options for v in _below(value, name)] if isinstance(options, list) else []
    )
