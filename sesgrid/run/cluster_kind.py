"""Which classes of clusters a configuration may name: Dask's own and those of packages known for them.

A name is imported, and what it names is called with options of the configuration, which somebody may have
downloaded: ``subprocess.Popen`` would run whatever its options say, and so would a class that is told by
its options what to make. So a name must be one of `KINDS`, and its options must name no code: see
`sesgrid.run.cluster_options`. Any other cluster can be started by hand and given by ``cluster.address``.
"""

from __future__ import annotations

import importlib
from typing import Any

from sesgrid.errors import ConfigError
from sesgrid.foreign import cause_of

__all__ = ["KINDS", "cluster_class", "require_known"]

_LISTED = """
    distributed: LocalCluster deploy.LocalCluster deploy.local.LocalCluster
        SSHCluster deploy.SSHCluster deploy.ssh.SSHCluster
    dask_cuda: LocalCUDACluster local_cuda_cluster.LocalCUDACluster
    dask_jobqueue: SLURMCluster PBSCluster SGECluster LSFCluster MoabCluster OARCluster HTCondorCluster
    dask_kubernetes: operator.KubeCluster KubeCluster HelmCluster
    dask_cloudprovider: aws.FargateCluster aws.ECSCluster aws.EC2Cluster gcp.GCPCluster azure.AzureVMCluster
        digitalocean.DropletCluster hetzner.HetznerCluster openstack.OpenStackCluster
        ibm.IBMCodeEngineCluster
    dask_databricks: DatabricksCluster
    dask_gateway: GatewayCluster
    dask_yarn: YarnCluster
    coiled: Cluster
"""


def _kinds() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in _LISTED.split():
        if word.endswith(":"):
            names = found.setdefault(word[:-1], [])
        else:
            names.append(word)
    return found


KINDS = _kinds()
"""Packages of clusters, and what makes one in each."""

_EXTRAS = {"dask_cuda": "gpu", "dask_jobqueue": "slurm", "dask_kubernetes": "kubernetes"}
"""Which of sesgrid's extras brings a package."""

_EXPECTED = (
    "expected a full name such as 'distributed.LocalCluster' or 'dask_jobqueue.SLURMCluster'"
)


def require_known(name: str) -> None:
    """Refuse a name that is not of `KINDS`, without importing anything.

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
    if package not in KINDS:
        raise ConfigError(
            f"cluster.kind = {name!r}: only classes of clusters of {', '.join(KINDS)} are started; start "
            "any other by hand, and give its scheduler as cluster.address"
        )
    if ".".join(inner) not in KINDS[package]:
        known = ", ".join(k for k in KINDS[package] if not k.startswith(("deploy", "local_")))
        raise ConfigError(
            f"cluster.kind: there is no class of clusters {name!r} that is started here; expected of "
            f"{package}: {known}; start any other by hand, and give its scheduler as cluster.address"
        )


def cluster_class(name: str) -> Any:
    """What makes a cluster, by its full name.

    Raises
    ------
    ConfigError
        The name is not of `KINDS`, or its package is not installed, or is another version without it.

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
        how = f"'sesgrid[{_EXTRAS[package]}]'" if package in _EXTRAS else package.replace("_", "-")
        raise ConfigError(
            f"cluster.kind = {name!r} needs the package {package} ({cause_of(error)}): pip install {how}"
        ) from error
    if callable(found):
        return found
    raise ConfigError(
        f"cluster.kind: there is no class {name!r} in the installed {package}; {_EXPECTED}"
    )
