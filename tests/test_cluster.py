"""Where the work runs."""

from __future__ import annotations

import gc
import os
import signal
import time

import dask
import pytest

from sesgrid.errors import ClusterError, ConfigError, MissingInputError
from sesgrid.run import cluster
from sesgrid.run.cluster import connected, local_size
from sesgrid.run.settings import ClusterSettings
from sesgrid.stages.place import place
from tests import processes


def test_local_clusters_use_all_cores_once():
    for cpus in (1, 2, 3, 8, 16, 64):
        workers, threads = local_size(ClusterSettings(), cpus)
        assert cpus - workers < workers * threads <= cpus
    assert local_size(ClusterSettings(workers=3, threads=2), 2) == (3, 2)


@pytest.mark.slow
def test_a_worker_of_this_machine_comes_back_however_long_it_takes_to_start():
    """Dask drops one for good that is not back in time, and a run would go on without any."""
    settings = ClusterSettings(workers=1, threads=1)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),
        connected(settings, None) as client,
    ):
        (known,) = client.scheduler_info()["workers"]
        os.kill(client.run(os.getpid)[known], signal.SIGKILL)
        while known in client.scheduler_info()["workers"]:
            time.sleep(0.05)
        time.sleep(0.2)
        client.wait_for_workers(1, timeout=60)


@pytest.mark.slow
def test_a_scheduler_that_dies_is_an_error_with_advice_whatever_it_was_asked(tmp_path):
    def lose(machines, asked):
        with connected(ClusterSettings(), machines.address) as client:
            machines.kill("scheduler")
            asked(client)

    def own_error(_):
        raise MissingInputError("a table is missing")

    with processes.cluster(tmp_path / "logs", workers=1) as machines:
        lost = r"connection to the Dask scheduler broke .* run again"
        with pytest.raises(ClusterError, match=lost):
            lose(machines, lambda client: client.run_on_scheduler(os.getpid))
        machines.mend()
        with pytest.raises(MissingInputError, match="a table"):
            lose(machines, own_error)


def test_a_silent_scheduler_is_an_error_with_advice(monkeypatch):
    import distributed

    real = distributed.Client

    def impatient(address, timeout, **options):
        return real(address, timeout="0.3s", **options)

    monkeypatch.setattr("sesgrid.run.cluster.Client", impatient)
    with (
        pytest.raises(ConfigError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:1'"),
        connected(ClusterSettings(), "tcp://127.0.0.1:1"),
    ):
        pass


def test_a_wrong_address_leaves_nothing_behind():
    import dask

    before = dask.config.get("scheduler", None)
    with (
        pytest.raises(ConfigError, match=r"no Dask scheduler answers at 'host-without-port'"),
        connected(ClusterSettings(), "host-without-port"),
    ):
        pass
    assert dask.config.get("scheduler", None) == before


def test_a_scheduler_without_workers_is_an_error_with_advice():
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(
            ConfigError, match=r"has no workers after 0\.2 s .*: start some with `dask worker"
        ),
        connected(ClusterSettings(patience_s=0.2), empty.scheduler_address),
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
    assert isinstance(cluster._local_cluster(ClusterSettings(), None), Cuda)
    assert asked["n_workers"] == 4
    assert asked["resources"] == {"GPU": 1}
    assert asked["threads_per_worker"] >= cluster.TASKS_PER_GPU
    assert cluster.TASKS_PER_GPU * cluster.EXPLAINING <= 1 < 4 * cluster.EXPLAINING

    cluster._local_cluster(ClusterSettings(workers=2), None)
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


def test_local_is_this_machine_whatever_the_settings_say():
    settings = ClusterSettings(kind="nowhere.Cluster", workers=1, threads=1)
    with connected(settings, "local") as client:
        assert client.submit(abs, -5).result() == 5
        assert "127.0.0.1" in client.scheduler.address


def test_any_class_of_cluster_is_started_by_its_name():
    options = {"n_workers": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    settings = ClusterSettings(kind="distributed.LocalCluster", options=options)
    with connected(settings, None) as client:
        assert client.submit(abs, -3).result() == 3
    adaptive = ClusterSettings(
        kind="distributed.LocalCluster",
        options={**options, "n_workers": 0},
        adapt={"minimum": 1, "maximum": 2},
    )
    with connected(adaptive, None) as client:
        assert client.submit(abs, -3).result() == 3


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("distributed.NoCluster", {}, "there is no class of clusters 'distributed.NoCluster'"),
        ("LocalCluster", {}, "expected a full name"),
        (
            "dask_cuda.X",
            {},
            "no class of clusters 'dask_cuda.X' .* of dask_cuda: LocalCUDACluster;",
        ),
        (
            "dask_databricks.DatabricksCluster",
            {},
            "needs the package dask_databricks .*: pip install dask-d",
        ),
        (
            "dask_cuda.LocalCUDACluster",
            {},
            r"needs the package dask_cuda .*: pip install 'sesgrid\[gpu\]'",
        ),
        (
            "distributed.LocalCluster",
            {"wings": 2},
            "cannot be started with cluster.options wings",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cluster_that_cannot_be_had_is_named(kind, options, message):
    with (
        pytest.raises(ConfigError, match=message),
        connected(ClusterSettings(kind=kind, options=options), None),
    ):
        pass
    gc.collect()  # a LocalCluster that fails in its making leaves its sockets to the collector


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Of two authorities: ours, and another."""
    import trustme

    folder, found = tmp_path_factory.mktemp("tls"), []
    for name in ("ours", "other"):
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        paths = {what: folder / f"{name}-{what}.pem" for what in ("ca", "cert", "key")}
        authority.cert_pem.write_to_path(paths["ca"])
        issued.cert_chain_pems[0].write_to_path(paths["cert"])
        issued.private_key_pem.write_to_path(paths["key"])
        found.append(paths)
    return found


def test_a_certificate_that_is_none_is_named(tmp_path):
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").write_text("garbage")
    tls = {n: tmp_path / f"{n}.pem" for n in ("ca", "cert", "key")}
    with (
        pytest.raises(ConfigError, match=r"no local cluster .*cluster\.tls"),
        connected(ClusterSettings(tls=tls, workers=1, threads=1), None),
    ):
        pass


def test_without_its_certificate_nobody_is_let_in(certificates, monkeypatch):
    real = cluster._Client
    monkeypatch.setattr(cluster, "_Client", lambda *a, **k: real(*a, **{**k, "timeout": "2s"}))
    ours, other = certificates
    with connected(ClusterSettings(tls=ours, workers=1, threads=1), None) as client:
        address = client.scheduler.address
        assert address.startswith("tls://")
        assert client.submit(abs, -3).result() == 3
        workers = client.scheduler_info()["workers"]
        assert all(w.startswith("tls://") for w in workers)
        with connected(ClusterSettings(tls=ours, address=address), None) as second:
            assert second.submit(abs, -4).result() == 4
        for settings in (ClusterSettings(tls=other), ClusterSettings()):
            for scheme in ("tls://", "tcp://"):
                asked = scheme + address.removeprefix("tls://")
                with (
                    pytest.raises(ConfigError, match="no Dask scheduler answers"),
                    connected(settings, asked),
                ):
                    pass
