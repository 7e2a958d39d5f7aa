"""Which classes of clusters a configuration may name: Dask's own and those of packages known for them.

A name is imported, and what it names is called with options of the configuration, which somebody may have
downloaded: ``subprocess.Popen`` would run whatever its options say. So a name must lie in one of `PACKAGES`,
which is looked at before anything is imported, and name a class of clusters. Any other cluster can be
started by hand and given by ``cluster.address``.
"""

from __future__ import annotations

import importlib
from typing import Any

from distributed.deploy import Cluster

from sesgrid.errors import ConfigError
from sesgrid.foreign import cause_of

__all__ = ["PACKAGES", "cluster_class", "require_known"]

PACKAGES = {
    "distributed": None,
    "dask_cuda": "gpu",
    "dask_jobqueue": "slurm",
    "dask_kubernetes": "kubernetes",
    "dask_cloudprovider": None,
    "dask_databricks": None,
    "dask_gateway": None,
    "dask_yarn": None,
    "coiled": None,
}
"""Packages of clusters, and what of sesgrid's extras brings them."""

_OTHERS = {
    "distributed.SSHCluster",
    "distributed.deploy.ssh.SSHCluster",
    "dask_gateway.GatewayCluster",
    "dask_yarn.YarnCluster",
}
"""Clusters that do not inherit from Dask's class of them, and the function that makes one over SSH."""

_EXPECTED = (
    "expected a full name such as 'distributed.LocalCluster' or 'dask_jobqueue.SLURMCluster'"
)


def require_known(name: str) -> None:
    """Refuse a name outside of `PACKAGES`, without importing anything.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> require_known("dask_jobqueue.SLURMCluster")
    >>> require_known("subprocess.Popen")
    Traceback (most recent call last):
    sesgrid.errors.ConfigError: cluster.kind = 'subprocess.Popen': only classes of clusters of distributed, \
dask_cuda, dask_jobqueue, dask_kubernetes, dask_cloudprovider, dask_databricks, dask_gateway, dask_yarn, \
coiled are started; start any other by hand, and give its scheduler as cluster.address
    """
    package, *inner = name.split(".")
    if not inner or not all(part.isidentifier() for part in [package, *inner]):
        raise ConfigError(f"cluster.kind: there is no class {name!r}; {_EXPECTED}")
    if package not in PACKAGES or any(part.startswith("_") for part in inner):
        raise ConfigError(
            f"cluster.kind = {name!r}: only classes of clusters of {', '.join(PACKAGES)} are started; start "
            "any other by hand, and give its scheduler as cluster.address"
        )


def cluster_class(name: str) -> Any:
    """What makes a cluster, by its full name.

    Raises
    ------
    ConfigError
        The name is not of a known package, the package is not installed, or it is no class of clusters.

    Examples
    --------
    >>> cluster_class("distributed.LocalCluster").__name__
    'LocalCluster'
    """
    require_known(name)
    module, _, attribute = name.rpartition(".")
    package = module.partition(".")[0]
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # a package may raise anything where it lacks a library or a licence
        if getattr(error, "name", None) == module != package:
            raise ConfigError(f"cluster.kind: there is no class {name!r}; {_EXPECTED}") from error
        extra = PACKAGES[package]
        how = f"'sesgrid[{extra}]'" if extra else package.replace("_", "-")
        raise ConfigError(
            f"cluster.kind = {name!r} needs the package {package} ({cause_of(error)}): pip install {how}"
        ) from error
    if isinstance(found, type) and issubclass(found, Cluster):
        return found
    if name in _OTHERS and callable(found):
        return found
    raise ConfigError(f"cluster.kind: there is no class of clusters {name!r}; {_EXPECTED}")
