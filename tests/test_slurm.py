"""A run on a real SLURM, one of whose jobs is cancelled in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.elsewhere import configure, finish, make
from tests.processes import cluster, result_of, same
from tests.slurm import missing, slurm

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    pytest.importorskip("dask_jobqueue")
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def jobs(environment: dict[str, str]) -> list[str]:
    told = subprocess.run(
        ["squeue", "-h", "-t", "running", "-o", "%i"],
        env=environment,
        capture_output=True,
        text=True,
    )
    return told.stdout.split()


def test_a_cancelled_job_is_replaced_and_changes_nothing(site, tmp_path):
    city = make(tmp_path / "site")
    plain = configure(city, tmp_path / "plain")
    with cluster(tmp_path / "plain" / "logs") as machines:
        finish(machines, plain)
    options = (
        f'interface = "lo"\npython = "{sys.executable}"\ncores = 1\nprocesses = 1\nmemory = "3GB"\n'
        f'walltime = "00:30:00"\nlog_directory = "{tmp_path}/joblogs"\n'
        f'job_script_prologue = ["export PYTHONPATH={Path(__file__).parents[1]}"]\n'
    )
    toml = configure(
        city,
        tmp_path / "slurm",
        f'[cluster]\nkind = "dask_jobqueue.SLURMCluster"\npatience_s = 120\n[cluster.adapt]\nminimum = 2\n'
        f"maximum = 2\n[cluster.options]\n{options}",
    )
    environment = {**os.environ, **site, "PYTHONPATH": str(Path(__file__).parents[1])}
    log, cancelled = tmp_path / "driver.log", ""
    with open(log, "wb") as out:
        command = [sys.executable, "-m", "sesgrid.commands.cli", "explain", str(toml)]
        driver = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        try:
            until = time.monotonic() + 400
            while driver.poll() is None:
                assert time.monotonic() < until, log.read_text()[-3000:]
                time.sleep(0.2)
                begun = list((tmp_path / "slurm" / "result" / "work" / "journal").glob("*.jsonl"))
                if begun and not cancelled and jobs(site):
                    cancelled = jobs(site)[0]
                    subprocess.run(["scancel", cancelled], env=site, check=True)
        finally:
            driver.kill()
    assert driver.returncode == 0, log.read_text()[-3000:]
    assert cancelled
    undisturbed = result_of(tmp_path / "plain" / "result")
    assert same(result_of(tmp_path / "slurm" / "result"), undisturbed) == []
