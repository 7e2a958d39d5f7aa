"""The real Paris extract: real incomes × real BD ORTHO pixels, partial coverage, no land cover."""

from __future__ import annotations

import json

import geopandas as gpd
import pandas as pd
import pytest
from click.testing import CliRunner

from sesgrid.commands.cli import main

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_a_run_goes_through_and_says_what_is_missing(realdata, tmp_path, scheduler):
    toml = tmp_path / "paris.toml"
    toml.write_text(
        f'''
name = "Paris"
output = "result"
[sources]
census = "{realdata}/filosofi/paris_strip_filosofi2019_200m.csv"
ortho = "{realdata}/ortho/paris_patches"
[grid]
pixels_per_cell = 32
[cells]
classes = 3
folds = 2
min_coverage = 0.1
[train]
protocol = "scratch"
epochs = 1
[analyse]
bootstrap = 100
'''
    )
    result = CliRunner().invoke(main, ["run", str(toml), "--scheduler", scheduler])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "vintage: 2019" in result.output
    assert "none given" in result.output
    cells = gpd.read_parquet(tmp_path / "result" / "cells.parquet")
    partial = cells["coverage"].between(0.1, 0.9)
    assert partial.sum() > 20
    assert cells.loc[partial, "p"].between(0, 1).all()
    assert cells.loc[cells["coverage"] < 0.1, "model_id"].isna().all()
    # the patches are 100 m squares: a quarter of a cell each, cut by cell borders
    assert cells["coverage"].max() < 0.6
    assert pd.read_csv(tmp_path / "result" / "activation.csv").empty
    assert json.loads((tmp_path / "result" / "metrics.json").read_text())["folds"]
    page = (tmp_path / "result" / "report.html").read_text()
    assert "Paris" in page
