"""The constraints fit setup.cfg and name releases alone; the coverage counts compiled kernels."""

from __future__ import annotations

import inspect
import re
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from constraints import pins
from sesgrid.kernels import class_sums, lanes
from tests.compiled_lines import compiled_lines

FILES = sorted(pins.HERE.glob("3.*.txt"))
SETUP = ConfigParser()
SETUP.read(pins.HERE.parent / "setup.cfg", encoding="utf-8")


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pinned(file: Path) -> dict[str, str]:
    return dict(line.split("==") for line in lines_of(file.read_text()))


@pytest.fixture(scope="module")
def required() -> list[Requirement]:
    extras = SETUP["options.extras_require"]
    texts = [SETUP["options"]["install_requires"], *(extras[name] for name in pins.EXTRAS)]
    return [Requirement(line) for text in texts for line in lines_of(text)]


def test_each_python_that_is_classified_has_its_file():
    classified = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert [file.stem for file in FILES] == classified
    assert set(classified) >= {"3.11", "3.12", "3.13"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_requirement_is_pinned_within_its_bounds(file, required):
    found = pinned(file)
    asked = [
        r for r in required if not r.marker or r.marker.evaluate({"python_version": file.stem})
    ]
    assert len(asked) > 40
    for each in asked:
        name = pins.canonical(each.name)
        assert each.specifier.contains(found[name]), f"{name} {found[name]} in {file.name}"


@pytest.mark.parametrize("file", [*FILES, pins.HERE / "floors.txt"], ids=lambda file: file.stem)
def test_a_file_names_releases_alone(file):
    lines = lines_of(file.read_text())
    assert len(lines) > 40
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", line)


def test_the_floors_are_those_of_the_requirements(required):
    floors = pinned(pins.HERE / "floors.txt")
    bounds = {pins.canonical(each.name): str(each.specifier) for each in required if each.specifier}
    assert bounds == {name: f">={floors[name]}" for name in bounds}


def test_a_release_that_is_not_the_pinned_one_is_named(tmp_path, monkeypatch, capsys):
    text = pins.own_file().read_text() if pins.own_file() in FILES else ""
    changed = tmp_path / "3.99.txt"
    changed.write_text(re.sub(r"(?m)^numpy==.*\n", "numpy==1.0\n", text))
    monkeypatch.setattr(pins, "own_file", lambda: changed)
    with pytest.raises(SystemExit, match="make constraints"):
        pins.check()
    assert f"numpy {np.__version__} is installed, 3.99.txt has 1.0" in capsys.readouterr().out


def test_a_kernel_that_was_called_counts_as_covered():
    file = Path(inspect.getfile(class_sums))
    body = next(
        i for i, line in enumerate(file.read_text().splitlines(), 1) if "stretch_sum(" in line
    )
    class_sums(np.ones((1, 2, 2), np.float32), np.ones((2, 2), np.uint8), 2, 2)
    assert body in compiled_lines()[str(file)]
    # inlined: it has no signature of its own
    assert compiled_lines()[lanes.__file__]
