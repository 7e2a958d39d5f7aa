"""Right, damaged and hostile inputs by seed: what becomes of them.

``--json`` ends with one object: ``inputs``, and how many of them came out ``right``, ``clear`` (one line of
ours), ``warned``, ``undetectable``, and the faults ``tracebacks``, ``silent``, ``hangs``, ``lost_files``,
``executed``, ``wrongly_refused``; ``clear_share``, the share of the inputs whose damage matters that end in
an error or a warning of ours; ``families``; ``causes``, the classes of what others raised. `benchmarks.fuzz`
tells what is expected of which input. A fault is tried again by ``--only FAMILY:NUMBER``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.fuzz.campaign import Tally
    from benchmarks.fuzz.hostile import Listener
    from benchmarks.fuzz.trial import Input

__all__ = ["main"]

# before anything is imported: no library may start threads in what is forked
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; the status is 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=1500)
    parser.add_argument("--only", action="append", default=[], metavar="FAMILY[:NUMBER]")
    parser.add_argument(
        "--failures", type=Path, metavar="FOLDER", help="keep the inputs of faults there"
    )
    parser.add_argument(
        "--beside", type=int, default=len(os.sched_getaffinity(0)), help="inputs at once"
    )
    parser.add_argument(
        "--stage", default="report", help="up to which the run is brought whose files are tried"
    )
    parser.add_argument(
        "--sources", action="store_true", help="readers and configuration only: no run"
    )
    given = parser.parse_args(arguments)
    started = time.perf_counter()
    from benchmarks.fuzz.campaign import Tally, chosen, digest, families, table
    from benchmarks.fuzz.city import prepared
    from benchmarks.fuzz.hostile import Listener
    from benchmarks.fuzz.trial import inputs_of

    inputs = chosen(
        families(own=not given.sources), given.only, given.seed, given.inputs, inputs_of
    )
    tally, listener = Tally(), Listener()
    with ExitStack() as stack:
        if any(i.family.name.startswith("run-") for i in inputs):
            folder = stack.enter_context(TemporaryDirectory(prefix="fuzz-city-"))
            stack.enter_context(prepared(Path(folder), given.stage))
        _try(inputs, given, tally, listener)
    for line in (*digest(tally), *table(tally)):
        print(line)
    summary = {
        "seconds": round(time.perf_counter() - started, 1),
        "seed": given.seed,
        **tally.summary(),
    }
    if given.json:
        print(json.dumps(summary))
    return 1 if tally.faults else 0


def _try(inputs: list[Input], given: argparse.Namespace, tally: Tally, listener: Listener) -> None:
    from benchmarks.fuzz.children import Limits, run_all

    for tried, verdict in run_all(
        inputs, beside=given.beside, limits=Limits(), keep=given.failures, listener=listener
    ):
        tally.add(tried, verdict)
        if verdict.outcome not in ("right", "clear", "warned", "undetectable") or given.only:
            what = tried.damage.name if tried.damage else "healthy"
            print(
                f"{verdict.outcome}: --only {tried.name} ({what}): {verdict.told[:300]} {verdict.where}",
                file=sys.stderr, flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
