"""Runs every script of a folder of inputs that the software once got wrong, and tells which still fail.

``python -m tests.cases FOLDER``: the scripts of the folder and of ``runs`` in it, with ``S`` the `sesgrid`
command, ``PY`` its python and ``B`` a small finished city, which the first of them makes. The exit status is
1 where one fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(folder: Path) -> int:
    """Run them all; how many fail."""
    folder = folder.resolve()  # each runs in a folder of its own
    scripts = sorted(folder.glob("*.py")) + sorted(p for p in (folder / "runs").glob("[0-9]*"))
    failed = []
    with tempfile.TemporaryDirectory(prefix="cases-") as temporary:
        command = Path(sys.executable).with_name("sesgrid")
        places = {
            "S": str(command),
            "PY": sys.executable,
            "B": f"{temporary}/city",
            "TMPDIR": temporary,
        }
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **places}
        common = folder / "runs" / "common.sh"
        subprocess.run(["bash", "-c", f". {common}"], env=environment, check=True)
        for script in scripts:
            started = time.perf_counter()
            program = [sys.executable] if script.suffix == ".py" else ["bash"]
            done = subprocess.run(
                [*program, str(script)],
                env=environment,
                capture_output=True,
                text=True,
                cwd=temporary,
            )
            seconds = time.perf_counter() - started
            print(
                f"{'ok   ' if done.returncode == 0 else 'FAULT'}  {seconds:6.1f} s  {script.name}",
                flush=True,
            )
            if done.returncode:
                failed.append(script.name)
                print(
                    "".join(
                        f"       {line}\n" for line in (done.stdout + done.stderr).splitlines()[-6:]
                    ),
                    end="",
                )
    print(f"{len(scripts) - len(failed)} of {len(scripts)} right")
    return len(failed)


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1])) else 0)
