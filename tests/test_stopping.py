"""Ctrl-C and SIGTERM: a status, a line, and nothing left behind."""

from __future__ import annotations

import logging
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sesgrid.run.stopping import Stopped, deferred, stoppable

COMMAND = """
import sys, time
from pathlib import Path
import click
from sesgrid.batches.leases import Leases
from sesgrid.commands.command import Command

@click.command(cls=Command)
@click.argument("folder")
@click.option("--cluster", is_flag=True)
def main(folder, cluster):
    with Leases(Path(folder)) as leases:
        leases.take("mosaic", ["1", "2"])
        if cluster:
            from sesgrid.run.cluster import connected
            from sesgrid.run.settings import ClusterSettings

            with connected(ClusterSettings(workers=1, threads=1), None) as client:
                at_work = client.submit(time.sleep, 60)
                print("pid", *client.run(__import__("os").getpid).values(), flush=True)
                at_work.result()
        print("ready", flush=True)
        time.sleep(60)

if __name__ == "__main__":
    main()
"""


def start(folder, *options):
    script = folder / "command.py"
    script.write_text(COMMAND)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "leases"), *options],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["SIGINT", "SIGTERM", "SIGHUP"]
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_is_a_line_and_a_status(tmp_path, number, times):
    process = start(tmp_path)
    assert process.stdout.readline() == "ready\n"
    assert len(list((tmp_path / "leases").rglob("*.lease"))) == 2
    for _ in range(times):
        process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert told == f"{Stopped(number)}\n"
    assert [p for p in (tmp_path / "leases").rglob("*") if p.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_its_workers_go_with_it_and_say_nothing(tmp_path, number):
    """A terminal's Ctrl-C, and a batch system's SIGTERM, come to every process of a command."""
    process = start(tmp_path, "--cluster")
    worker = int(process.stdout.readline().split()[1])
    assert alive(worker)
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert told == f"{Stopped(number)}\n"
    assert not alive(worker)


def test_what_must_not_be_cut_short_is_not(monkeypatch):
    done = []
    # the end that comes by itself would be this test's process', half a minute later
    monkeypatch.setattr("sesgrid.run.stopping._end", lambda status: None)
    logger = logging.getLogger("distributed")
    monkeypatch.setattr(logger, "level", logger.level)
    child = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"

    def work():
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("all of it")
            ran = subprocess.run([sys.executable, "-c", child], capture_output=True, check=True)
            done.append(ran.stdout)
        done.append("never")

    with pytest.raises(Stopped, match="SIGTERM") as caught, stoppable():
        work()
    for number in (signal.SIGINT, signal.SIGTERM):  # a process ends here, and this one does not
        assert signal.getsignal(number) == signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert done == ["all of it", b"True\n"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert caught.value.status == 143


def test_without_a_signal_everything_is_as_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable(), deferred(), stoppable(), deferred():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    with pytest.raises(ValueError, match="of ours"), stoppable():
        raise ValueError("of ours")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with deferred():
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_command_outlives_its_terminal_where_it_was_told_to():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


LOST = """
import sys, time
from sesgrid.run.stopping import Stopped, stoppable
try:
    with stoppable():
        print("ready", flush=True)
        time.sleep(60)
except Stopped as stopped:
    print(stopped, file=sys.stderr, flush=True)
    sys.exit(stopped.status)
"""


def test_a_terminal_that_is_closed_ends_it_in_order():
    """Whatever is told to it fails then."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", LOST])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
