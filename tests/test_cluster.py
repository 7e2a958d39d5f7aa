"""Where the work runs."""

from __future__ import annotations

import pytest

from sesgrid.errors import ConfigError
from sesgrid.run.cluster import connected, local_size
from sesgrid.run.config import ClusterSettings


def test_local_clusters_use_all_cores_once():
    for cpus in (1, 2, 3, 8, 16, 64):
        workers, threads = local_size(ClusterSettings(), cpus)
        assert cpus - workers < workers * threads <= cpus
    assert local_size(ClusterSettings(workers=3, threads=2), 2) == (3, 2)


def test_a_silent_scheduler_is_an_error_with_advice(monkeypatch):
    import distributed

    real = distributed.Client

    def impatient(address, timeout):
        return real(address, timeout="0.3s")

    monkeypatch.setattr("sesgrid.run.cluster.Client", impatient)
    with (
        pytest.raises(ConfigError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:1'"),
        connected(ClusterSettings(), "tcp://127.0.0.1:1"),
    ):
        pass


def test_a_scheduler_without_workers_is_an_error_with_advice(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr("sesgrid.run.cluster._PATIENCE_S", 0.2)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(
            ConfigError, match=r"has no workers after 0\.2 s: start some with `dask worker"
        ),
        connected(ClusterSettings(), cluster.scheduler_address),
    ):
        pass
