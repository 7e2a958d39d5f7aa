"""The benchmarks run, compare equals, and end with one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import (
    burn,
    class_sums,
    codec,
    france_on_paper,
    loader,
    mosaic,
    nation,
    planted_truth,
)
from benchmarks.rounds import interleave, lower_quartile_ratio


def last_json(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_quick_burn_ends_with_a_json_object(capsys):
    burn.main(["--quick", "--json"])
    result = last_json(capsys)
    assert result["rounds"] >= 5
    assert set(result["ratio"]) < set(result["median_ms"])
    assert all(ratio > 0 for ratio in result["ratio"].values())


@pytest.mark.long
def test_a_quick_run_of_the_sums_ends_with_its_ratios(capsys):
    class_sums.main(["--quick", "--json"])
    names = {
        "burn_vs_gdal", "sums_vs_bincount", "sums_over_read", "zonal_vs_exactextract",
        "zonal_vs_reference",
    }  # fmt: skip
    result = last_json(capsys)
    assert names < set(result)
    assert all(result[name] > 0 for name in names)


@pytest.mark.long
def test_a_quick_explanation_ends_with_its_ratios():
    """In a process of its own: the backend is chosen there."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.explain", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    for name in ("explain_vs_naive", "explain_vs_reference", "explain_over_fwd_bwd"):
        assert result[name] > 0


@pytest.mark.long
def test_a_small_nation_and_small_cities_end_with_their_figures():
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scale", "--json"]
    small = ["--cells", "4000", "--sides", "6", "8", "10", "--rounds", "1"]
    done = subprocess.run([*command, *small], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["cells"] == 4000
    assert 0 < result["scheduler_ms_per_block"] < result["stages_ms_per_block"]
    assert result["rate_late_over_early"] is None  # there are not as many blocks
    assert result["cells_of_cities"] == [36, 64, 100]  # people in every cell
    for name in (
        "driver_peak_gb",
        "plan_s",
        "slope_spread",
        "worker_peak_growth",
    ):
        assert result[name] > 0


def test_late_over_early_is_by_stage_and_of_all_together():
    """A block a second at first, later twice that in one of the stages; of two rounds and an odd one."""
    ends = np.arange(1.0, 101.0)
    faster = np.concatenate([ends[:50], 50 + np.arange(1, 51) / 2])
    even = {stage: ends.tolist() for stage in nation.STAGES}
    rates = nation._rates([even, even, even | {"mosaic": faster.tolist()}], ((10, 20), (70, 90)))
    assert rates == pytest.approx(dict.fromkeys([*nation.STAGES, "all"], 1.0))
    rates = nation._rates([even | {"mosaic": faster.tolist()}], ((10, 20), (70, 90)))
    assert rates["mosaic"] == pytest.approx(2)
    assert rates["explain"] == pytest.approx(1)
    # 20 blocks of each stage took 10 + 3 · 20 seconds, 10 of them 4 · 10 before
    assert rates["all"] == pytest.approx((20 / 70) / (10 / 40))


def test_france_on_paper_names_what_bounds_each_stage():
    rates = nation._RATES
    scale = {"seconds": dict.fromkeys((*nation.STAGES, "cells", "analyse", "report"), 36.0)}
    text = "\n".join(france_on_paper.page(rates, scale))
    hours = france_on_paper.CELLS * rates.mosaic_s / 96 / 3600
    assert f"| mosaic | {hours:.2f} | 0.010 |" in text
    # one GPU is slower than 96 processors; 1,000 processors burn faster than a driver writes down
    one, many = text.split("**1,000 processors")
    assert one.count("| GPUs |") == 2
    assert "| landcover | 0.00 | 0.010 |" in many
    assert many.count("| driver |") == 1


def test_without_json_the_last_line_is_for_people(capsys):
    burn.main(["--quick"])
    assert "× as fast as rasterio.features.rasterize" in capsys.readouterr().out.splitlines()[-1]


def test_the_mosaic_decodes_each_pixel_about_once(capsys):
    found = mosaic.decoded_over_needed()
    assert 1 <= found["decoded_over_needed"] <= 1.1
    assert found["held_bytes"] < 150e6  # of a tile of 1.9 GB


def test_codecs_are_compared(capsys):
    codec.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(codec.CODECS)
    assert all("× smaller" in line for line in lines[1:])


@pytest.mark.slow
@pytest.mark.long
def test_a_quick_run_of_the_loader_ends_with_its_ratios(capsys):
    loader.main(["--quick", "--json"])
    result = last_json(capsys)
    for name in ("loader_vs_png", "loader_vs_png_cast", "loader_vs_png_flipped", "jpegxl_vs_png"):
        assert result[name] > 0
    assert abs(result["epoch_memory_growth"]) < 0.05


def test_shuffling_by_blocks_costs_what_its_window_says(monkeypatch):
    from sesgrid.stages import cell_batches

    whole = loader.shuffle_figures(100, 5)
    assert whole["blocks_variance"] == pytest.approx(1, abs=0.15)
    plain = cell_batches.shuffled
    monkeypatch.setattr(cell_batches, "shuffled", lambda *a: plain(*a, window=2))
    near = loader.shuffle_figures(100, 5)
    assert near["blocks_variance"] > 1.5
    assert near["blocks_distance"] < 0.8


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


def test_the_planted_truth_is_told_by_factor():
    """Two cells, two classes; the CAM looks at the left half, the gradient at both."""
    size, rng = 32, np.random.default_rng(0)
    left = np.zeros((2, 2, 4, 4), dtype=np.float32)
    left[..., :2] = 1
    classes = np.repeat([[2] * (size // 2) + [3] * (size // 2)], size, axis=0).astype(np.uint8)
    guided = rng.uniform(0.9, 1.1, (2, 2, size, size)).astype(np.float32)
    factors = planted_truth.Factors(
        left, left, guided, np.stack([classes] * 2), np.array([1, 5]), n_classes=5
    )
    table, profiles = planted_truth.compare(factors, {"dense urban fabric"})
    # one cell a side is too few for a mean: the table leaves such classes out
    assert table.empty
    both = planted_truth.Factors(
        np.repeat(left, 2, 0), np.repeat(left, 2, 0), np.repeat(guided, 2, 0),
        np.stack([classes] * 4), np.array([1, 2, 4, 5]), 5,
    )  # fmt: skip
    table, profiles = planted_truth.compare(both, {"dense urban fabric"})
    low = table[table["predicted"] == "low"].set_index("class")
    assert low["bears"].tolist() == [True, False]
    # 4 columns enlarged to 32: 12 px of 1, then a ramp of 8 px, half of it on each side
    assert low.loc["dense urban fabric", "Grad-CAM alone"] == pytest.approx(1.875, abs=0.02)
    assert low.loc["dense urban fabric", "guided alone"] == pytest.approx(1.0, abs=0.02)
    assert low.loc["dense urban fabric", "guided Grad-CAM"] == pytest.approx(1.875, abs=0.03)
    assert low["… weighted by area"].sum() == pytest.approx(2.0, abs=1e-6)
    assert profiles.loc["low, guided alone"].to_numpy() == pytest.approx(1.0, abs=0.05)


def test_enlarging_is_the_explainers_bilinear_rule():
    import keras

    cams = np.random.default_rng(1).random((3, 8, 8)).astype(np.float32)
    expected = keras.ops.image.resize(cams[..., None], (100, 100), interpolation="bilinear")
    ours = planted_truth.enlarged(cams, 100, 0.0)
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(expected)[..., 0], atol=1e-5)


def test_the_verdict_is_the_csvs():
    rows = [("low", "dense", 1.4, 1.2), ("low", "roads", 1.1, 1.0), ("high", "dense", 1.2, 0.9)]
    table = pd.DataFrame(
        rows, columns=["prediction", "landcover_class", "activation_ratio", "ci_low"]
    ).assign(ci_high=2.0)
    table.loc[len(table)] = ("high", "roads", 0.4, 0.3, 0.5)
    found, missed = planted_truth.verdict(table, {"dense"})
    assert found.startswith("found   low   dense")
    assert missed.startswith("missed  high  dense")
