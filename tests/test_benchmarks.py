"""The benchmarks run, compare equals, and end with one JSON object."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import burn, class_sums
from benchmarks.rounds import interleave, lower_quartile_ratio


@pytest.mark.parametrize("benchmark", [burn, class_sums])
def test_a_quick_run_ends_with_a_json_object(benchmark, capsys):
    benchmark.main(["--quick", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["rounds"] >= 5
    assert set(result["ratio"]) < set(result["median_ms"])
    assert len(result["ratio"]) == len(result["median_ms"]) - 1
    assert all(ratio > 0 for ratio in result["ratio"].values())


def test_without_json_the_last_line_is_for_people(capsys):
    burn.main(["--quick"])
    assert "× as fast as rasterio.features.rasterize" in capsys.readouterr().out.splitlines()[-1]


def test_rounds_are_interleaved_and_warmed():
    calls = []
    rivals = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = interleave(rivals, rounds=3, repeats=2)
    assert calls == ["a", "b"] + ["a", "a", "b", "b"] * 3
    assert all((s >= 0).all() and s.shape == (3,) for s in seconds.values())


def test_a_ratio_is_paired_and_its_lower_quartile():
    # the machine was ten times slower in the last round: the pairs do not see it
    ours, peer = np.array([1.0, 1, 1, 1, 10]), np.array([2.0, 3, 4, 5, 60])
    assert lower_quartile_ratio(peer, ours) == 3.0
