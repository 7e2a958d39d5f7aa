"""The releases that `make demo` and `make test` install: a file for each Python, of lines ``name==version``.

``python constraints/pins.py write``    resolve today's newest releases for the Python that runs this
``python constraints/pins.py floors``   resolve the oldest that ``setup.cfg`` allows; needs uv
``python constraints/pins.py check``    compare what is installed with this Python's file
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXTRAS = ("image", "slurm", "test", "bench", "check")
"""Those that the Makefile's targets install."""

TOOLS = ("pip", "setuptools")
"""What installs and builds the rest."""


def canonical(name: str) -> str:
    """A distribution's name as indexes spell it (PEP 503).

    >>> canonical("Jinja2"), canonical("typing_extensions")
    ('jinja2', 'typing-extensions')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def own_file() -> Path:
    """The constraints of the Python that runs this."""
    return HERE / "{}.{}.txt".format(*sys.version_info)


def write() -> None:
    """Let pip resolve the newest releases, without installing them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
        ]
        own = f"{HERE.parent}[{','.join(EXTRAS)}]"
        subprocess.run([*command, "--report", report, own, *TOOLS], check=True)
        found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    pins = {canonical(each["name"]): each["version"] for each in found}
    del pins["sesgrid"]
    _save(own_file(), f"demo and tests run with on Python {own_file().stem}", pins)


def write_floors() -> None:
    """Let uv resolve the oldest releases that ``setup.cfg`` allows, and what these need, for Python 3.11.

    pip would look for an hour for releases that go together with the oldest of others.
    """
    floors = dict[str, str]()
    for requirement in requirements():
        name, _, version = requirement.partition(">=")
        if version:
            floors[canonical(name.partition("[")[0])] = version
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "setup.cfg", "--quiet"),
        *("--no-header", "--no-annotate", "--python-version", "3.11"),
        *("--resolution", "lowest-direct", "--constraint", "-"),
        *(word for name in EXTRAS for word in ("--extra", name)),
    ]
    asked = "".join(f"{name}=={version}\n" for name, version in floors.items())
    done = subprocess.run(
        command, input=asked, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE.parent
    )
    found = dict(line.split("==") for line in done.stdout.splitlines())
    pins = {canonical(name): version for name, version in found.items() if name not in TOOLS}
    _save(HERE / "floors.txt", "setup.cfg names as the oldest, and what these need", pins | floors)


def requirements() -> Iterator[str]:
    """What ``setup.cfg`` requires for use and for `EXTRAS`, without environment markers."""
    settings = ConfigParser()
    settings.read(HERE.parent / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]
    for text in (settings["options"]["install_requires"], *(extras[name] for name in EXTRAS)):
        for line in text.splitlines():
            if line and not line.startswith("#"):
                yield line.partition(";")[0].strip()


def check() -> None:
    """End with status 1 where an installed release is not the pinned one."""
    file = own_file()
    pins = dict(line.split("==") for line in file.read_text().splitlines() if "==" in line)
    installed = {canonical(each.name): each.version for each in distributions()}
    del installed["sesgrid"]
    different = {n: v for n, v in installed.items() if pins.get(n) != v}
    for name, version in sorted(different.items()):
        print(f"{name} {version} is installed, {file.name} has {pins.get(name, 'none')}")
    if different:
        sys.exit(f"make the environment again (rm -r {sys.prefix}), or the file (make constraints)")
    print(f"{len(installed)} installed releases are those of constraints/{file.name}")


def _save(file: Path, what: str, pins: dict[str, str]) -> None:
    lines = [f"{name}=={version}" for name, version in sorted(pins.items())]
    file.write_text(
        "\n".join([f"# Releases that {what}; made by constraints/pins.py.", *lines, ""])
    )
    print(f"{len(pins)} releases in {file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = {"write": write, "floors": write_floors, "check": check}
    parser.add_argument("command", choices=commands)
    commands[parser.parse_args().command]()
