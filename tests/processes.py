"""A scheduler, workers and a driver as processes of their own, which a test may kill."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sesgrid.run.workspace import Workspace
from sesgrid.store.parts import Parts

STAGES = ("mosaic", "landcover", "predict", "explain")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Cluster:
    """Started processes by name; whatever dies is started again by `mend`."""

    folder: Path
    workers: int = 2
    memory: str = "0"
    host: str = "127.0.0.1"
    environment: dict[str, str] = field(default_factory=dict)
    before_worker: Sequence[str] = ()
    """What a worker is started through, such as ``ip netns exec``."""
    port: int = field(default_factory=free_port)
    running: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def start(self, name: str, *command: str, through: Sequence[str] = ()) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "10",
            **self.environment,
        }
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [*through, sys.executable, "-m", *command],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running[name] = process
        return process

    def mend(self) -> None:
        """Start the scheduler and the workers that are not there."""
        if self._gone("scheduler"):
            self.start(
                "scheduler", "distributed.cli.dask_scheduler", "--host", self.host, "--port",
                str(self.port), "--no-dashboard",
            )  # fmt: skip
        for k in range(self.workers):
            if self._gone(f"worker-{k}"):
                self.start(
                    f"worker-{k}", "distributed.cli.dask_worker", self.address, "--nthreads", "1",
                    "--no-dashboard", "--death-timeout", "20", "--memory-limit", self.memory,
                    *(() if self.memory != "0" else ("--no-nanny",)), through=self.before_worker,
                )  # fmt: skip

    def _gone(self, name: str) -> bool:
        return name not in self.running or self.running[name].poll() is not None

    def drive(self, *command: str) -> subprocess.Popen:
        """A driver: a command of sesgrid on this cluster."""
        return self.start("driver", "sesgrid.commands.cli", *command, "--scheduler", self.address)

    def said(self, name: str = "driver") -> str:
        """All that the processes of a name wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        """SIGKILL a process and its children, as a machine that is switched off does."""
        process = self.running[name]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def cluster(folder: Path, **options) -> Iterator[Cluster]:
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder, **options)
    made.mend()
    try:
        yield made
    finally:
        for name in list(made.running):
            made.kill(name)


_OF_THE_DAY = ("seconds", "tasks", "block_seconds", "key")
"""Of a record: what differs between two runs of the same; keys name the cube, which is another."""


def result_of(output: Path) -> dict[str, object]:
    """All that a run made, for comparison: bytes of pixels, rows, records but for times and hosts."""
    files = Workspace(output)
    pixels = Path(files.cube) / "pixels"
    found: dict[str, object] = {
        str(p.relative_to(pixels)): p.read_bytes()
        for p in pixels.rglob("c/**/*")
        if p.is_file() and not p.name.startswith(".") and "partial" not in p.name
    }
    for stage in STAGES:
        parts = Parts(files.parts(stage))
        for name in parts.names():
            record = parts.record(name) or {}
            kept = {k: v for k, v in record.items() if k not in _OF_THE_DAY}
            found[f"record {stage} {name}"] = json.dumps(kept, sort_keys=True)
        rows = pd.read_parquet(files.table(stage)) if files.table(stage).exists() else None
        found[f"table {stage}"] = None if rows is None else rows.to_json(double_precision=15)
    return found


def same(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Names of what differs."""
    return [k for k in sorted({*one, *other}) if one.get(k) != other.get(k)]
