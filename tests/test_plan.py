"""What a run will take, told before it begins."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from click.testing import CliRunner
from pyproj import Transformer

from benchmarks.france import draw_france, write_census, write_tiles
from sesgrid.commands.cli import main
from sesgrid.errors import ConfigError, FormatError, MissingInputError
from sesgrid.run.config import load_config
from sesgrid.run.inside import inside
from sesgrid.run.plan import Machines, _driver_bytes, lines, make_plan, memory_of
from sesgrid.run.rates import Rates, measure_rates, read_rates, require_replaceable
from sesgrid.run.settings import ModelSettings

RATES = Rates(
    machine="a test", measured="2026-01-01", pixels_per_cell=800, backbone="efficientnetb0", codec="zstd",
    mosaic_s=0.1, landcover_s=0.01, predict_s=0.5, explain_s=1.0, train_s=2.0, on_gpu=False,
    image_bytes=1000, landcover_bytes=10, model_peak_mb=1500,
)  # fmt: skip


@pytest.fixture(scope="module")
def nation(tmp_path_factory):
    """A small made-up nation, the east of which has no imagery."""
    folder = tmp_path_factory.mktemp("nation")
    france = draw_france(4000, seed=3)
    write_census(france, folder / "census_2019.parquet")
    shown = france.easting_m < np.quantile(france.easting_m, 0.6)
    tiles = write_tiles(
        replace(france, northing_m=france.northing_m[shown], easting_m=france.easting_m[shown]),
        folder / "ortho",
    )
    (folder / "run.toml").write_text(
        'name = "Nation"\noutput = "result"\n[sources]\ncensus = "census_2019.parquet"\northo = "ortho"\n'
        '[cells]\nrule = "all"\n'
    )
    RATES.write(folder / "rates.json")
    return folder, france, tiles


def test_blocks_and_what_is_missing_are_those_of_the_census(nation):
    folder, france, tiles = nation
    config = load_config(folder / "run.toml")
    plan = make_plan(config, RATES, Machines(96))
    rows, cols = -(france.northing_m // 200) - 1, france.easting_m // 200
    blocks = set(zip((rows // 8).tolist(), (cols // 8).tolist(), strict=True))
    assert (plan.cells, plan.blocks, plan.tiles) == (4000, len(blocks), tiles)
    # by the tiles' own grid, whose names are their corners in kilometres
    names = {tuple(map(int, p.name.split("-")[2:4])) for p in (folder / "ortho").iterdir()}
    to_tiles = Transformer.from_crs("EPSG:3035", "EPSG:2154", always_xy=True)
    x, y = to_tiles.transform(france.easting_m + 100, france.northing_m + 100)
    at = zip((x // 5000 * 5).astype(int), (y // 5000 * 5 + 5).astype(int), strict=True)
    dark = np.array([corner not in names for corner in at])
    assert 500 < dark.sum() < 2000
    assert plan.missing["cells without imagery"] == dark.sum()
    census = pd.read_parquet(folder / "census_2019.parquet")
    by = pd.Series(dark).groupby(census["lcog_geo"].str[:2]).agg(["all", "size"])
    assert plan.missing["départements without imagery"] == by.loc[by["all"], "size"].to_dict() != {}
    assert plan.missing["cells without land cover"] is None
    assert plan.missing["cells without a model"] == 0
    assert any(f"cells without imagery: {dark.sum()}" in line for line in lines(plan))


def test_the_driver_holds_more_where_both_kinds_of_folds_are_analysed(nation):
    config = load_config(nation[0] / "run.toml")
    elsewhere = ModelSettings(cities=[nation[0]])
    alone = config.model_copy(
        update={"cells": config.cells.model_copy(update={"compare_folds": False})}
    )
    both, one, trained_elsewhere = (
        _driver_bytes(c, 1_000_000, 1_000_000) / 1e6
        for c in (config, alone, config.model_copy(update={"models": elsewhere}))
    )
    assert 800 < one == trained_elsewhere < both - 100
    # "at most": not less than what a run of France was measured to take, nor more than is promised
    assert 1.44e9 <= _driver_bytes(alone, 2_300_000, 2_300_000) <= 1.5e9
    # where some are not explained, the others' ids lie there a second time: 38 bytes each
    more = _driver_bytes(alone, 2_300_000, 2_000_000) - _driver_bytes(alone, 2_300_000, 2_300_000)
    assert more >= 38 * 2_000_000


def test_hours_and_cost_are_rates_times_cells_by_the_machines(nation):
    config = load_config(nation[0] / "run.toml")
    one = make_plan(config, RATES, Machines(1, price=0.05))
    many = make_plan(config, RATES, Machines(10, price=0.05))
    mosaic = next(s for s in one.stages if s.stage == "mosaic")
    assert mosaic.hours == pytest.approx(4000 * 0.1 / 3600)
    predict = next(s for s in one.stages if s.stage == "predict")
    shown = 4000 - one.missing["cells without imagery"]
    assert predict.processor_hours == pytest.approx(shown * 0.5 / 3600)
    assert many.hours == pytest.approx(one.hours / 10)
    assert one.cost == pytest.approx(one.hours * 0.05)
    assert many.cost == pytest.approx(one.cost)
    # with a GPU's rates the models wait for GPUs and the mosaic does not
    gpu = make_plan(config, replace(RATES, on_gpu=True), Machines(10, gpus=2, gpu_price=2.0))
    assert next(s for s in gpu.stages if s.stage == "predict").hours == pytest.approx(
        predict.processor_hours / 2
    )
    assert gpu.cost == pytest.approx(gpu.hours * 2 * 2.0)


def test_a_plan_over_the_memory_budget_is_refused_with_the_numbers(nation):
    folder = nation[0]
    asked = ["plan", str(folder / "run.toml"), "--rates", str(folder / "rates.json")]
    small = CliRunner().invoke(main, [*asked, "--threads", "2", "--memory", "1GB"])
    assert small.exit_code == 2
    assert "predict needs " in small.output
    assert "in a worker of 2 threads, which has 1.0 GB" in small.output
    assert CliRunner().invoke(main, [*asked, "--memory", "64GB"]).exit_code == 0
    assert memory_of("auto") is None
    assert memory_of("2GB") == 2_000_000_000
    for amount in ("lots", "inf", "-", ""):
        with pytest.raises(ConfigError, match="an amount such as '4GB'"):
            memory_of(amount)
    assert not load_config(folder / "run.toml").output.exists(), "with --rates nothing is written"


def test_rates_are_not_written_over_a_file_of_another_kind(nation, tmp_path):
    mine = tmp_path / "census.csv"
    mine.write_text("mine")
    asked = ["plan", str(nation[0] / "run.toml"), "--rates", str(mine), "--calibrate"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert "holds no rates that `sesgrid plan` measured" in done.output
    assert mine.read_text() == "mine"
    require_replaceable(nation[0] / "rates.json")
    require_replaceable(tmp_path / "none.json")


def test_as_json_it_can_be_read_again(nation):
    folder = nation[0]
    done = CliRunner().invoke(
        main,
        ["plan", str(folder / "run.toml"), "--rates", str(folder / "rates.json"), "--json"],
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert {s["stage"] for s in told["stages"]} == {"mosaic", "train", "predict"}
    assert told["rates"]["machine"] == "a test"
    assert np.isfinite(told["hours"])


def test_rates_of_other_cells_or_of_nothing_are_refused(nation, tmp_path):
    config = load_config(nation[0] / "run.toml")
    with pytest.raises(ConfigError, match="measured for cells of 400 pixels"):
        make_plan(config, replace(RATES, pixels_per_cell=400), Machines(1))
    whole = (nation[0] / "rates.json").read_text()
    for text in (
        '{"machine": "x"}', "[]", "", whole[:-9], whole.replace("0.01", "NaN"), whole.replace("0.01", '"1"'),
        whole.replace("false", "0"), whole.replace("0.01", "-1"), whole.replace("800", "1e300"),
    ):  # fmt: skip
        assert text != whole
        (tmp_path / "rates.json").write_text(text)
        with pytest.raises(FormatError, match=r"rates\.json.* --calibrate"):
            read_rates(tmp_path / "rates.json")
    with pytest.raises(MissingInputError):
        read_rates(tmp_path / "gone.json")
    assert read_rates(nation[0] / "rates.json") == RATES


@pytest.mark.long
def test_rates_are_measured(nation, tmp_path):
    config = load_config(nation[0] / "run.toml")
    small = config.grid.model_copy(update={"pixels_per_cell": 64})
    rates = measure_rates(config.model_copy(update={"grid": small}))
    assert 0 < rates.predict_s < rates.explain_s
    assert rates.mosaic_s > rates.landcover_s > 0
    # 64 × 64 pixels of three bands, and their coverage
    assert 1000 < rates.image_bytes < 4 * 64 * 64
    assert rates.model_peak_mb > 300
    rates.write(tmp_path / "rates.json")
    assert read_rates(tmp_path / "rates.json") == rates


@pytest.mark.parametrize("seed", range(4))
def test_cells_inside_are_those_whose_centres_each_polygon_is_asked_for(seed):
    rng = np.random.default_rng(seed)
    east = 18_000 + rng.integers(-60, 60, 4000)
    south = -15_000 + rng.integers(-60, 60, 4000)
    cells = pd.DataFrame({"row": south, "col": east}).drop_duplicates()
    x, y = (cells["col"] + 0.5) * 200, -(cells["row"] + 0.5) * 200
    middles = cells.sample(7, random_state=seed)
    polygons = gpd.GeoSeries(
        [
            shapely.Point(col * 200 + 7, -row * 200 + 3).buffer(rng.integers(200, 6000))
            for row, col in middles.to_numpy()
        ]
    )
    expected = np.any([shapely.contains_xy(p, x, y) for p in polygons], axis=0)
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(inside(cells, polygons), expected)
