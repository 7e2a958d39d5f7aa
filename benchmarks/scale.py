"""Whether a run grows as its cells do: all of France without kernels, and real kernels on growing cities.

``python -m benchmarks.scale --json``

**The nation**, see `benchmarks.nation`.

``plan_s``, ``plan_peak_gb``
    ``sesgrid plan`` of the nation, its rates given.
``scheduler_ms_per_block``
    Seconds on the clock from the first task to the last record, of all stages that go by blocks, over the
    blocks: scheduler, driver and the idle workers share two cores, so this is more than a scheduler with a
    core of its own needs.
``stages_ms_per_block``
    The same with all that stands before and after: reading catalogue and tables, keys, tables written.
``driver_peak_gb``, ``scheduler_peak_gb``
    Most memory that the processes ever held, from the census to the report; a GB is 10⁹ bytes.
``analyse_s``
    What scores, baselines, findings and report of all cells take.
``rate_late_over_early``
    Of all stages together: blocks 190,000–200,000 by those 2,000–12,000, blocks a second, each the median of
    the rounds.
``rates``
    The same by stage. Such a window of one stage takes two seconds, in which batches end by bursts and
    collections of garbage pause: it differs by a sixth from its neighbours, which is why
``rate_second_half_over_first``
    tells of all blocks, in halves, by stage.

**The cells**, see `benchmarks.growth`.

``slope_spread``
    Seconds a cell from each size of city to the next, over their median: the largest deviation.
``worker_peak_growth``
    Peak of a worker at the largest size over that at the second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.france import CELLS
from benchmarks.growth import SIDES, run_growth
from benchmarks.nation import drive, run_nation
from benchmarks.rounds import describe_machine

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Run the nation and the cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--part", choices=("nation", "cells"), help="default: both")
    parser.add_argument("--cells", type=int, default=CELLS, help="inhabited cells of the nation")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=SIDES, help="of the cities, in cells"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of both")
    parser.add_argument("--folder", type=Path, help="empty; what was made is kept there")
    parser.add_argument(
        "--drive", nargs=3, metavar=("TOML", "ADDRESS", "STAGE"), help=argparse.SUPPRESS
    )
    given = parser.parse_args(argv)
    if given.drive:
        print(json.dumps(drive(Path(given.drive[0]), *given.drive[1:])))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.part != "cells":
            figures |= run_nation(folder / "nation", given.cells, given.rounds)
        if given.part != "nation":
            figures |= run_growth(folder / "cities", given.sides, given.rounds)
    figures["machine"] = describe_machine()
    if given.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    # by its name: what lies in __main__ would travel to the workers as source, task by task
    from benchmarks import scale

    scale.main()
