"""Time rivals in interleaved rounds and compare them round by round.

A shared machine drifts: a rival timed a minute later meets another machine. So every round
times each rival once, in turn, and a ratio is taken between neighbours of one round. The
ratio reported is the **lower quartile** over the rounds: three rounds in four were at least
that good.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["arguments", "describe_machine", "interleave", "lower_quartile_ratio", "report"]

Rivals = Mapping[str, Callable[[], object]]


def interleave(rivals: Rivals, rounds: int, repeats: int) -> dict[str, np.ndarray]:
    """Time each rival once a round.

    Parameters
    ----------
    rivals : mapping of name to callable
        Called without arguments, on inputs made beforehand. Each is called once before the
        first round, untimed: compilation and caches.
    rounds : int
        Number of rounds, at least 5 for a ratio that means something.
    repeats : int
        Calls per timing; the shortest of them counts.

    Returns
    -------
    dict of str to np.ndarray
        Seconds of one call, float64 ``(round,)``.
    """
    for call in rivals.values():
        call()
    seconds = {name: np.empty(rounds) for name in rivals}
    for i in range(rounds):
        for name, call in rivals.items():
            seconds[name][i] = min(_seconds(call) for _ in range(repeats))
    return seconds


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def lower_quartile_ratio(peer: np.ndarray, ours: np.ndarray) -> float:
    """Lower quartile of peer / ours, paired by round: how many times faster we are.

    >>> lower_quartile_ratio(np.array([2.0, 4.0, 6.0, 8.0, 10.0]), np.full(5, 2.0))
    2.0
    """
    return float(np.quantile(peer / ours, 0.25))


def arguments(doc: str | None, argv: list[str] | None = None) -> argparse.Namespace:
    """``--json`` prints one JSON object as the last line, ``--quick`` runs on tiny inputs."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, to see that it runs")
    return parser.parse_args(argv)


def describe_machine() -> str:
    """Processor, cores and Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {len(models) or '?'} cores; Python {platform.python_version()}"


def report(
    what: str, seconds: dict[str, np.ndarray], ours: str, packages: list[str], as_json: bool
) -> dict[str, Any]:
    """Print the absolute times with their spread, then the ratios; return them.

    Parameters
    ----------
    what : str
        What was computed, on which input.
    seconds : dict
        As :func:`interleave` gives them.
    ours : str
        The rival that the others are divided by.
    packages : list of str
        Distributions whose versions are printed.
    """
    versions = {name: version(name) for name in packages}
    print(f"{what}\n{describe_machine()}; " + ", ".join(f"{n} {v}" for n, v in versions.items()))
    quartiles = {n: np.quantile(s * 1e3, [0.25, 0.5, 0.75]) for n, s in seconds.items()}
    for name, (low, middle, high) in quartiles.items():
        print(f"  {name:<36} {middle:8.3f} ms   (quartiles {low:.3f} to {high:.3f})")
    ratios = {n: lower_quartile_ratio(s, seconds[ours]) for n, s in seconds.items() if n != ours}
    for name, ratio in ratios.items():
        print(f"  {ours} is {ratio:.1f} × as fast as {name} (lower quartile of paired rounds)")
    result = {
        "what": what,
        "median_ms": {name: round(float(q[1]), 4) for name, q in quartiles.items()},
        "ratio": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "rounds": len(next(iter(seconds.values()))),
        "versions": versions,
    }
    if as_json:
        print(json.dumps(result))
    return result
