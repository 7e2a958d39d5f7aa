"""Where the work runs."""

from __future__ import annotations

import pytest

from sesgrid.errors import ConfigError
from sesgrid.run import cluster
from sesgrid.run.cluster import connected, local_size
from sesgrid.run.config import ClusterSettings
from sesgrid.stages.place import place


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
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(
            ConfigError, match=r"has no workers after 0\.2 s: start some with `dask worker"
        ),
        connected(ClusterSettings(), empty.scheduler_address),
    ):
        pass


def test_gpus_get_a_process_each(monkeypatch):
    """dask-cuda's part is played by a stand-in: what it is asked for, and when."""
    import sys
    import types

    asked = {}

    class Cuda:
        def __init__(self, **options):
            asked.update(options)

    package, inner = types.ModuleType("dask_cuda"), types.ModuleType("dask_cuda.utils")
    package.LocalCUDACluster, package.utils = Cuda, inner
    inner.get_gpu_count = inner.get_n_gpus = lambda: 4
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "dask_cuda", package)
    monkeypatch.setitem(sys.modules, "dask_cuda.utils", inner)
    assert isinstance(cluster._local_cluster(ClusterSettings()), Cuda)
    assert asked["n_workers"] == 4
    assert asked["resources"] == {"GPU": 1}
    assert asked["threads_per_worker"] >= cluster.TASKS_PER_GPU
    assert cluster.TASKS_PER_GPU * cluster.EXPLAINING <= 1 < 4 * cluster.EXPLAINING

    cluster._local_cluster(ClusterSettings(workers=2))
    assert asked["n_workers"] == 2
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert cluster._gpus() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    def no_driver():
        raise RuntimeError("NVML Shared Library Not Found")

    inner.get_gpu_count = no_driver
    assert cluster._gpus() == 0


def test_models_run_where_the_gpus_are():
    from distributed import Client, Scheduler, SpecCluster, Worker, get_worker

    workers = {
        name: {"cls": Worker, "options": {"nthreads": 2, "resources": resources}}
        for name, resources in (("cpu", {}), ("gpu", {"GPU": 1}))
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}}

    def where(items):
        return [get_worker().name for _ in items]

    with SpecCluster(workers, scheduler, asynchronous=False) as both, Client(both) as client:
        client.wait_for_workers(2)
        assert cluster.on_gpus(client) == {"GPU": cluster.EXPLAINING}
        assert cluster.on_gpus(client, cluster.TRAINING) == {"GPU": 1.0}
        placed = place(where, list(range(12)))
        assert set(client.compute(placed, resources=cluster.on_gpus(client)).result()) == {"gpu"}
        several = client.compute(list(placed.to_delayed()), resources=cluster.on_gpus(client))
        assert {n for part in client.gather(several) for n in part} == {"gpu"}


def test_without_gpus_any_worker_will_do(scheduler):
    from distributed import Client

    with Client(scheduler) as client:
        assert cluster.on_gpus(client) is None
