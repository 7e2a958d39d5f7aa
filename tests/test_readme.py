"""The README's example runs as it stands, on a tiny city."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import sesgrid
from sesgrid.run.config import Config

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
