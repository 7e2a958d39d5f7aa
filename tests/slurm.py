"""A SLURM of two virtual nodes on this machine: munge, slurmctld and slurmd, started by hand."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["missing", "slurm"]

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")


def missing() -> str | None:
    """Why there can be no SLURM here; None: there can."""
    absent = [p for p in _PROGRAMS if shutil.which(p) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root"


def _configuration(folder: Path) -> str:
    host = socket.gethostname()
    nodes = "\n".join(
        f"NodeName=n{k} NodeHostname={host} NodeAddr=127.0.0.1 Port={17000 + k} CPUs=1 RealMemory=4000"
        for k in (1, 2)
    )
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SchedulerParameters=batch_sched_delay=0,sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort=17100
{nodes}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; the environment in which its commands find it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(folder))
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    started: list[subprocess.Popen] = []

    def start(*command: str) -> None:
        with open(folder / f"{Path(command[0]).name}.out", "ab") as log:
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    munge = Path("/run/munge")
    munge.mkdir(exist_ok=True)
    shutil.chown(munge, "munge", "munge")
    munge.chmod(0o755)
    if not Path("/etc/munge/munge.key").exists():
        subprocess.run(["mungekey", "--create"], check=False)
        shutil.chown("/etc/munge/munge.key", "munge", "munge")
    running = subprocess.run(["munge", "-n"], capture_output=True).returncode == 0
    if not running:
        start("runuser", "-u", "munge", "--", "munged", "--foreground", "--force")
    try:
        _wait(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0, folder)
        start("slurmctld", "-D")
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-N", node)
        _wait(lambda: _idle(environment) == 2, folder)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(20)


def _idle(environment: dict[str, str]) -> int:
    told = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%T"], env=environment, capture_output=True, text=True
    )
    return told.stdout.split().count("idle")


def _wait(ready, folder: Path, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            logs = {
                p.name: p.read_text(errors="replace")[-800:]
                for p in folder.glob("*.*")
                if p.is_file()
            }
            raise TimeoutError(f"SLURM does not come up: {logs}")
        time.sleep(0.2)
