"""Before a run: what its sources hold and where, all that is wrong with them, and nothing written."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.transform import from_origin
from shapely import box

from sesgrid.commands.cli import main
from sesgrid.errors import SesgridError
from sesgrid.run.check import check_sources
from sesgrid.run.config import load_config
from sesgrid.run.engine import run_stages

SIDE = 3  # cells, from (3600000, 2500000) eastward and northward
LAYER = "FR099L1_VILLE_UA2018"


def draw(folder, north=2_500_000):
    """A census, a tile and land cover of one square, and the square's size in metres."""
    folder.mkdir(parents=True)
    size = SIDE * 200
    rows = [
        f"CRS3035RES200mN{north + 200 * i}E{3_600_000 + 200 * j},0,99001,{10 + i},5,{10_000 * (10 + i + j)}"
        for i in range(SIDE)
        for j in range(SIDE)
    ]
    names = "idcar_200m,i_est_200,lcog_geo,ind,men,ind_snv"
    (folder / "Filosofi2019.csv").write_text("\n".join([names, *rows, ""]))
    place = {"crs": "EPSG:3035", "transform": from_origin(3_600_000, north + size, 10, 10)}
    shape = {"width": size // 10, "height": size // 10, "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "tile.tif", "w", driver="GTiff", **shape, **place) as raster:
        raster.write(
            np.random.default_rng(0).integers(1, 255, (3, size // 10, size // 10), np.uint8)
        )
    square = [box(3_600_000, north, 3_600_000 + size, north + size)]
    land = gpd.GeoDataFrame({"code_2018": ["11100"]}, geometry=square, crs="EPSG:3035")
    land.to_file(folder / f"{LAYER}.gpkg", layer=LAYER)
    return {
        "census": folder / "Filosofi2019.csv",
        "ortho": folder / "tile.tif",
        "landcover": folder / f"{LAYER}.gpkg",
    }


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("city") / "here")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The same, 40 km to the north."""
    return draw(tmp_path_factory.mktemp("city") / "there", 2_540_000)


def written(folder):
    return sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*"))


def configured(city, tmp_path, rule="all", **changes):
    sources = "".join(f'{name} = "{path}"\n' for name, path in (city | changes).items())
    text = f'name = "Ville"\noutput = "result"\n[sources]\n{sources}[cells]\nrule = "{rule}"\n'
    (tmp_path / "run.toml").write_text(text)
    return tmp_path / "run.toml"


@pytest.mark.parametrize("rule", ["all", "centre"])
def test_each_source_is_a_line_and_nothing_is_written(city, tmp_path, rule):
    path = configured(city, tmp_path, rule)
    folder = city["census"].parent
    before = written(folder), written(tmp_path)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = [line for line in result.stdout.splitlines() if "note: " not in line]
    place = "E 3600–3600.6 km, N 2500–2500.6 km"
    origin = "none (every cell of the census)" if rule == "all" else f"{LAYER}.gpkg"
    assert lines[1:] == [
        f"census, Filosofi2019.csv: 9 cells of 2019, {place}",
        f"boundary: {origin}: 9 of the cells, {place}",
        "ortho, tile.tif: 1 tiles in EPSG:3035, pixels of 10 m, of no year told; 9 of 9 cells",
        f"landcover, {LAYER}.gpkg: 1 polygons; 9 of 9 cells",
    ]
    assert lines[0].startswith("settings: paper; paper")
    assert (written(folder), written(tmp_path)) == before


def test_what_was_delivered_is_compared_where_it_is_asked_for(city, tmp_path):
    census = tmp_path / "Filosofi2019.csv"
    census.write_bytes(city["census"].read_bytes())
    said = subprocess.run(["md5sum", census.name], cwd=tmp_path, capture_output=True, check=True)
    (tmp_path / "Filosofi2019.csv.md5").write_bytes(said.stdout)

    def checked(*, asked: bool):
        path = configured(city, tmp_path, census=census)
        if asked:
            path.write_text(path.read_text().replace("[sources]", "[sources]\ncheck = true"))
        return CliRunner().invoke(main, ["check", str(path)])

    assert "check: 1 files are what their .md5 says\n" in checked(asked=True).stdout
    census.write_text(census.read_text().replace(",99001,", ",99002,"))
    assert (
        "check: 1 files have a .md5 beside them that is not compared" in checked(asked=False).stdout
    )
    result = checked(asked=True)
    assert result.exit_code == 2
    assert "Filosofi2019.csv.md5 says MD5" in result.stderr


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
    with pytest.raises(SesgridError, match=r"none of the \d+ cells: it lies in E .*, they in E "):
        check_sources(load_config(path), lambda _: None, lambda _: None)


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


@pytest.mark.parametrize(("name", "status"), [("EfficientNet-V2B0", 0), ("nowhere", 2)])
def test_an_unknown_backbone_is_told_before_anything_is_made(city, tmp_path, name, status):
    path = configured(city, tmp_path)
    path.write_text(path.read_text() + f'[train]\nbackbone = "{name}"\n')
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == status
    told = "error: backbone must be one of efficientnetb0, "
    assert [line[: len(told)] for line in result.stderr.splitlines()] == [told] * (status == 2)


def test_a_table_of_classes_that_a_raster_cannot_have_is_told(city, tmp_path):
    size = SIDE * 20
    at = from_origin(3_600_000, 2_500_000 + SIDE * 200, 10, 10)
    shape = {"width": size, "height": size, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "oso.tif", "w", crs="EPSG:3035", transform=at, **shape) as raster:
        raster.write(np.ones((1, size, size), np.uint8))
    (tmp_path / "classes.csv").write_text("code,landcover_class,group\n1.0,a,x\n")
    path = configured(
        city, tmp_path, landcover=tmp_path / "oso.tif", landcover_classes=tmp_path / "classes.csv",
        boundary=city["landcover"],
    )  # fmt: skip
    told: list[str] = []
    check_sources(load_config(path), told.append, told.append)
    assert "landcover, oso.tif: 1 rasters in 1 classes; 9 of 9 cells" in told
    (tmp_path / "classes.csv").write_text("code_cs,code_us,landcover_class\nCS1,US1,a\n")
    with pytest.raises(
        SesgridError, match=r"classes\.csv: a raster's codes are one column of whole"
    ):
        check_sources(load_config(path), told.append, told.append)
