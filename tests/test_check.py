"""Before a run: what its sources hold and where, all that is wrong with them, and nothing written."""

from __future__ import annotations

import re
from contextlib import nullcontext

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.transform import from_origin

from sesgrid.commands.cli import main
from sesgrid.errors import SesgridError
from sesgrid.run.check import check_sources
from sesgrid.run.config import load_config
from sesgrid.run.demo import write_demo_config
from sesgrid.run.engine import run_stages
from sesgrid.synth import write_city


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    made = write_city(tmp_path_factory.mktemp("city") / "here", cells=4, seed=1, resolution_m=4.0)
    write_demo_config(made)
    return made


@pytest.fixture(scope="module")
def elsewhere(city, tmp_path_factory):
    """Imagery, and the city's own land cover, 40 km to the north."""
    folder = tmp_path_factory.mktemp("elsewhere")
    place = {"crs": "EPSG:3035", "transform": from_origin(3_600_000, 2_541_000, 10, 10)}
    with rasterio.open(
        folder / "ortho.tif",
        "w",
        driver="GTiff",
        width=99,
        height=99,
        count=3,
        dtype="uint8",
        **place,
    ) as raster:
        raster.write(np.full((3, 99, 99), 90, np.uint8))
    layer = next(n for n in pyogrio.list_layers(city.landcover)[:, 0] if "oundary" not in n)
    land = gpd.read_file(city.landcover, layer=layer)
    path = folder / city.landcover.name
    land.set_geometry(land.translate(0, 40_000)).to_file(path, layer=layer)
    return {"ortho": folder / "ortho.tif", "landcover": path}


def written(folder):
    return sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*"))


def configured(city, tmp_path, **changes):
    text = (city.directory / "city.toml").read_text()
    for name in ("census", "ortho", "landcover"):
        given = changes.pop(name, getattr(city, name))
        text = re.sub(rf"^{name} = .*$", f'{name} = "{given}"', text, flags=re.MULTILINE)
    (tmp_path / "run.toml").write_text(text)
    return tmp_path / "run.toml"


def test_each_source_is_a_line_and_nothing_is_written(city, tmp_path):
    path = configured(city, tmp_path)
    before = written(city.directory), written(tmp_path)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert next(iter(lines)) == "settings"
    cells = len(city.census.read_text().splitlines()) - 1
    census = lines[f"census, {city.census.name}"]
    assert census.startswith(f"{cells} cells of 2019, E ")
    tiles = len(list(city.ortho.rglob("*.jp2")))
    ortho = lines[f"ortho, {city.ortho.name}"]
    assert ortho.startswith(f"{tiles} tiles in EPSG:2154, pixels of ")
    for name in (f"ortho, {city.ortho.name}", f"landcover, {city.landcover.name}"):
        assert lines[name].endswith(f" {cells} of {cells} cells")
    assert (written(city.directory), written(tmp_path)) == before


def test_all_faults_are_told_a_line_each(city, tmp_path):
    (tmp_path / "cells.csv").write_text("idcar_200m,ind\nx,1\n")
    (tmp_path / "land.gpkg").write_bytes(b"SQLite format 3\0" + bytes(200))
    (tmp_path / "tile.jp2").write_bytes(b"no raster")
    path = configured(
        city, tmp_path, census=tmp_path / "cells.csv", ortho=tmp_path / "tile.jp2",
        landcover=tmp_path / "land.gpkg",
    )  # fmt: skip
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 2
    told = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in told)
    assert [name for name in ("cells.csv", "tile.jp2") if not any(name in t for t in told)] == []
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("name", ["ortho", "landcover"])
def test_sources_of_another_city_are_refused_with_both_places(city, elsewhere, tmp_path, name):
    path = configured(city, tmp_path, **{name: elsewhere[name]})
    if name == "landcover":  # whose boundary would choose the cells
        text = path.read_text().replace("[cells]", '[cells]\nrule = "all"')
        path.write_text(text)
    with pytest.raises(SesgridError, match=r"none of the \d+ cells: it lies in E .*, they in E "):
        check_sources(load_config(path), lambda _: None)


def test_a_run_checks_before_its_first_stage(city, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr("sesgrid.run.engine.reported", lambda *_: nullcontext())
    path = configured(city, tmp_path, ortho=elsewhere["ortho"])
    config = load_config(path)
    with pytest.raises(SesgridError, match=r"sources\.ortho covers none"):
        run_stages(config, _NobodyAsked(), "cells", lambda _: None)
    assert not (config.output / "work" / "cells.parquet").exists()


class _NobodyAsked:
    """In the place of a client."""

    def __getattr__(self, name):
        raise AssertionError(f"client.{name} before the sources were looked at")
