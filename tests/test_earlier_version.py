"""A city, its run and its cube as sesgrid 0.1.0 left them: looked at as before, and written to no more."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import sesgrid
from sesgrid.commands.cli import main
from sesgrid.errors import ConfigError, FormatError
from sesgrid.run.config import load_config
from sesgrid.run.repair import repair
from sesgrid.run.trained import trained_cities
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import Cube

PIXELS = {
    "image": "a3626d24226671b6",
    "coverage": "21eae46aa15557bb",
    "landcover": "08ea1d7c8ca0126e",
}
"""Of each layer, what sesgrid 0.1.0 itself read of it."""


@pytest.fixture
def city(tmp_path) -> Path:
    with zipfile.ZipFile(Path(__file__).parent / "data" / "sesgrid-0.1.0.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "city"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def told(*arguments: object) -> tuple[int, list[str]]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    return result.exit_code, result.output.splitlines()


def test_its_cube_opens_with_the_same_pixels_and_cells(city):
    tree = sesgrid.open_cube(city / "out" / "cube.zarr", chunked=False)
    for name, digest in PIXELS.items():
        pixels = tree["pixels"][name].to_numpy()
        assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == digest
    cells = pd.read_parquet(city / "out" / "cells.parquet")
    sealed = tree["cells"]["income"].to_numpy()
    np.testing.assert_array_equal(np.sort(sealed[np.isfinite(sealed)]), np.sort(cells["income"]))


def test_its_run_is_looked_at(city):
    cube, before = city / "out" / "cube.zarr", contents(city)
    status, lines = told("status", cube)
    assert status == 0
    assert lines[0].startswith("mosaic: 1 of 1 blocks done, 0 failed, 0 left")
    assert told("verify", cube) == (0, ["0 faults"])
    assert contents(city) == before
    shard = cube / "pixels" / "image" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    status, lines = told("verify", cube)
    assert status == 1
    assert "bytes instead of" in lines[0]


def test_its_cube_is_exported(city, tmp_path):
    assert told("export", city / "out" / "cube.zarr", "-o", tmp_path / "x.tif")[0] == 0


def test_its_models_serve_another_city(city):
    (models,) = trained_cities([city / "out"])
    assert [ref.model_id for ref in models.models] == ["Syntheville-random0", "Syntheville-random1"]


def test_nothing_is_written_into_its_folder(city):
    before = contents(city)
    for command in ("run", "mosaic"):
        status, lines = told(command, city / "city.toml", "--scheduler", "local")
        assert status == 2
        (line,) = [line for line in lines if line.startswith("error:")]
        assert "holds results of sesgrid 0.1 and no mark of a run" in line
        assert "name another one, or move these files away" in line
        assert contents(city) == before


def test_its_cube_is_not_replaced_nor_made_again(city, tmp_path):
    config, before = load_config(city / "city.toml"), contents(city)
    with pytest.raises(ConfigError, match=r"results of sesgrid 0\.1.*run anew"):
        repair(config, None, print)
    cube = Cube.open(Workspace.of(config).cube)
    with pytest.raises(FormatError, match=r"made from Python, or by sesgrid 0\.1"):
        Cube.create(cube.path, cube.extent, {}, owner="another run")
    assert contents(city) == before
