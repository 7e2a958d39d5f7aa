"""A configuration from somebody else runs no program: which clusters and options it may name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sesgrid.errors import ConfigError
from sesgrid.run.cluster import connected
from sesgrid.run.cluster_kind import require_known
from sesgrid.run.cluster_options import require_harmless
from sesgrid.run.settings import ClusterSettings

SHARED = sorted((Path(__file__).parents[1] / "pipelines").rglob("*.toml"))
LOCAL, SSH, SLURM = (
    "distributed.LocalCluster",
    "distributed.SSHCluster",
    "dask_jobqueue.SLURMCluster",
)


@pytest.mark.parametrize(
    "name",
    [
        "distributed.SpecCluster",
        "distributed.deploy.spec.SpecCluster",
        "distributed.deploy.Cluster",
        "distributed.deploy.subprocess.SubprocessCluster",
        "distributed.Client",
        "distributed.deploy.local.os.system",
        "dask_jobqueue.core.JobQueueCluster",
        "dask_jobqueue.LocalCluster",
    ],
)
def test_classes_that_are_told_what_to_make_are_not_started(name):
    with pytest.raises(ConfigError, match="no class of clusters"):
        require_known(name)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LOCAL, {"preload": ["evil.py"]}),
        (LOCAL, {"preload_nanny": "evil.py"}),
        (LOCAL, {"worker_class": "evil.Worker"}),
        (LOCAL, {"scheduler_kwargs": {"preload": "evil.py"}}),
        (LOCAL, {"env": {"LD_PRELOAD": "evil.so"}}),
        (LOCAL, {"env": {"PythonPath": "evil"}}),
        (LOCAL, {"env": {"DASK_DISTRIBUTED__WORKER__PRELOAD": "evil"}}),
        (SSH, {"worker_options": {"env": {"GDAL_DRIVER_PATH": "evil"}}}),
        (LOCAL, {"config": {"distributed.worker.preload": ["evil.py"]}}),
        ("dask_cuda.LocalCUDACluster", {"pre_import": "evil"}),
        (SSH, {"scheduler_options": {"Preload": "evil.py"}}),
        (SSH, {"worker_options": {"plugins": ["evil"]}}),
        (SSH, {"connect_options": [{"proxy_command": "touch x"}]}),
        (SSH, {"connect_options": {"config": "evil.conf"}}),
        (SSH, {"remote_python": "evil"}),
        (SLURM, {"job_cls": "evil.Job"}),
        (SLURM, {"scheduler_cls": "evil.Scheduler"}),
        (SLURM, {"scheduler_options": {"config": {"distributed.scheduler.preload-argv": []}}}),
        ("dask_cloudprovider.aws.FargateCluster", {"worker_module": "evil"}),
        ("dask_gateway.GatewayCluster", {"auth": "evil.Auth"}),
    ],
)
def test_options_that_name_code_are_refused(kind, options):
    with pytest.raises(ConfigError, match=r"cannot be started with cluster\.options"):
        require_harmless(kind, options)


def test_a_cluster_runs_no_file_of_its_options(tmp_path):
    evil, done = tmp_path / "evil.py", tmp_path / "done"
    evil.write_text(f"open({str(done)!r}, 'w')")
    options = {"n_workers": 1, "processes": False, "preload": [str(evil)]}
    program = {"cls": "subprocess.Popen", "options": {"args": ["touch", str(done)]}}
    for settings in (
        ClusterSettings(kind=LOCAL, options=options),
        ClusterSettings(kind="distributed.SpecCluster", options={"scheduler": program}),
    ):
        with pytest.raises(ConfigError), connected(settings, None):
            pass
    assert not done.exists()


@pytest.mark.parametrize("path", SHARED, ids=lambda p: p.stem)
def test_our_own_configurations_are_taken(path):
    given = tomllib.loads(path.read_text()).get("cluster", {})
    if "kind" in given:
        require_known(given["kind"])
        require_harmless(given["kind"], given.get("options", {}))


def test_what_honest_clusters_need_is_taken():
    require_harmless(
        SLURM,
        {
            "job_script_prologue": ["module load gdal"],
            "job_extra_directives": ["--gres=gpu:1"],
            "worker_extra_args": ["--resources", "GPU=1"],
            "python": "/opt/bin/python",
            "submit_command_extra": ["--hold"],
        },
    )
    require_harmless(SSH, {"hosts": ["a", "b"], "connect_options": {"username": "me", "port": 22}})
    require_harmless(
        "dask_kubernetes.operator.KubeCluster", {"image": "a", "env": {"GDAL_CACHEMAX": "64"}}
    )
    variables = {"GATEWAY_TOKEN": "a", "OMP_NUM_THREADS": "1", "AWS_REGION": "b"}
    require_harmless(LOCAL, {"n_workers": 1, "env": variables})
    require_harmless("dask_gateway.GatewayCluster", {"auth": "jupyterhub"})
