"""How a command ends: one line and a status, whatever was raised."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sesgrid.commands.cli import main
from sesgrid.commands.command import DEBUG, Command
from sesgrid.errors import MAX_MESSAGE, ConfigError, SesgridWarning


def ended(error=None, warning=None):
    @click.command(cls=Command)
    def command():
        if warning is not None:
            warnings.warn(warning, stacklevel=1)
        if error is not None:
            raise error

    result = CliRunner().invoke(command)
    assert result.stdout == ""
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError("no such\nkey"), 2, "error: no such key"),
        (ConfigError("d" * 9000 + ": do this"), 2, "error: ddd"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device: make"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "error: a/b: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "c" * 5000), 2, "error: ccc"),
        (MemoryError(), 2, "error: there is not enough memory"),
        (ZeroDivisionError("of ours\nand more"), 3, "error: unexpected ZeroDivisionError: of ours; this"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), 3, "error: unexpected UnicodeDecodeError"),
        (RecursionError("x" * 9000), 3, "error: unexpected RecursionError"),
    ],
)  # fmt: skip
def test_an_error_is_a_line_and_a_status(monkeypatch, error, status, told):
    monkeypatch.delenv(DEBUG, raising=False)
    code, said = ended(error)
    assert code == status
    assert said.startswith(told)
    assert said.endswith("\n")
    assert said[:-1].isprintable()
    assert len(said) <= MAX_MESSAGE + len("\n")
    monkeypatch.setenv(DEBUG, "1")
    assert ended(error)[1].startswith("Traceback")


def test_without_an_error_nothing_is_said():
    assert ended() == (0, "")


def test_our_warnings_are_notes_and_others_are_not_told(monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert ended(warning=SesgridWarning("3 rows\nleft out")) == (0, "note: 3 rows left out\n")
        assert ended(warning=DeprecationWarning("np.float")) == (0, "")


SCRIPT = """
import click
from sesgrid.commands.command import Command

@click.command(cls=Command)
@click.argument("path", type=click.Path())
def main(path):
    for _ in range(20000):
        click.echo(f"wrote × {path}")

main()
"""


def run(arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment |= options.pop("env", {})
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, **options)


UNAWAITED = """
import asyncio, gc
import click
from sesgrid.commands.command import Command
from sesgrid.errors import ReadError

async def fail():
    raise ValueError("damaged")

async def several():
    tasks = [asyncio.ensure_future(fail()) for _ in range(3)]
    await asyncio.sleep(0.01)

@click.command(cls=Command)
def main():
    asyncio.run(several())
    gc.collect()
    raise ReadError("it is damaged")

main()
"""


def test_reads_that_fail_together_are_one_line():
    environment = {k: v for k, v in os.environ.items() if k != DEBUG}
    said = subprocess.run(
        [sys.executable, "-c", UNAWAITED], capture_output=True, text=True, env=environment
    )
    assert said.stderr == "error: it is damaged\n"
    debug = {**environment, DEBUG: "1"}
    said = subprocess.run(
        [sys.executable, "-c", UNAWAITED], capture_output=True, text=True, env=debug
    )
    assert said.stderr.count("Task exception was never retrieved") == 3


def test_names_that_are_no_text_are_shown_and_readers_may_go():
    for environment in ({}, {"PYTHONIOENCODING": "ascii"}):
        done = run([b"\xff.tif"], env=environment, stdout=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.splitlines()[0].endswith(b".tif")
    reading, writing = os.pipe()
    os.close(reading)
    done = run(["a"], stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_below_what_is_told_is_a_line():
    with open("/dev/full", "wb") as full:
        done = run(["a"], stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_may_not_be_read_is_told_by_its_reader():
    """Click looks at once whether it may be read, and tells of it in three lines."""
    commands = [main, *main.commands.values()]
    paths = [p.type for c in commands for p in c.params if isinstance(p.type, click.Path)]
    assert len(paths) > 10
    assert not any(kind.readable for kind in paths)
