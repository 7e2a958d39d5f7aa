"""The README's example runs as it stands, on a tiny city."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import sesgrid
from sesgrid.run.config import Config
from sesgrid.run.settings import ClusterSettings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


def test_the_toml_is_a_configuration():
    assert Config.model_validate(tomllib.loads(block("toml"))).name == "Nice"


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines" / "cities").glob("*.toml")), ids=str)
def test_the_studys_cities_are_configurations(path):
    config = Config.model_validate(tomllib.loads(path.read_text()))
    assert config.train.protocol == "paper"


def test_the_nation_is_a_configuration_and_a_job_for_each_departement():
    config = Config.model_validate(tomllib.loads((ROOT / "pipelines" / "france.toml").read_text()))
    assert config.cells.rule == "all"
    script = (ROOT / "pipelines" / "departements.sbatch").read_text()
    codes = re.search(r'codes="(.*?)"', script, re.DOTALL)[1].split()
    assert len(set(codes)) == len(codes) == int(re.search(r"--array=1-(\d+)", script)[1]) == 96


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines" / "clusters").glob("*.toml")), ids=str)
def test_the_ready_clusters_are_configurations(path):
    found = ClusterSettings.model_validate(tomllib.loads(path.read_text())["cluster"])
    assert (found.kind is None) != (found.address is None)


@pytest.mark.slow
@pytest.mark.long
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    city = sesgrid.write_city(tmp_path / "data", cells=6, seed=1, imputed_share=0.0)
    monkeypatch.chdir(tmp_path)
    Path("carreaux_200m_met.csv").symlink_to(city.census)
    Path("ORTHOHR").symlink_to(city.ortho)
    Path("urban_atlas.gpkg").symlink_to(city.landcover)
    names: dict = {}
    exec(compile(block("python"), "README.md", "exec"), names)
    assert names["predicted"]["p"].between(0, 1).all()
    assert names["pixels"].rio.crs.to_epsg() == 3035
    assert "landcover_class" in capsys.readouterr().out
