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
