"""Départements as jobs of their own, side by side, that end in one cube."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from sesgrid.batches.blocks import plan_batches
from sesgrid.batches.leases import Leases
from sesgrid.grid import Grid
from sesgrid.run.workspace import Workspace, load_table
from tests.elsewhere import PX, SIDE, configure, make
from tests.processes import result_of, same

pytestmark = pytest.mark.long

DEPARTEMENTS = ("2A", "75", "92")


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A city of which three départements have a third each."""
    folder, made = make(tmp_path_factory.mktemp("joining"), cells=12)
    census = pd.read_csv(made.census, dtype={"lcog_geo": str})
    east = census["idcar_200m"].str.extract(r"E(\d+)", expand=False).astype(int)
    third = pd.qcut(east.rank(method="first"), 3, labels=False)
    census["lcog_geo"] = [f"{DEPARTEMENTS[k]}001" for k in third]
    census.to_csv(made.census, index=False)
    return folder, made


def start(toml, *command: str) -> subprocess.Popen:
    """A driver with a cluster of its own."""
    with open(toml.parent / f"{'-'.join(command)}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sesgrid.commands.cli", command[0], str(toml), *command[1:]],
            stdout=log,
            stderr=log,
        )


def said(toml, *command: str) -> str:
    return (toml.parent / f"{'-'.join(command)}.log").read_text()


def test_jobs_side_by_side_end_in_one_cube(city, tmp_path):
    alone = configure(city, tmp_path / "alone")
    assert start(alone, "explain").wait(300) == 0, said(alone, "explain")
    joint = configure(city, tmp_path / "joint")
    files = Workspace(tmp_path / "joint" / "result")
    jobs = [("landcover", "--only", "2A", "--only", "92"), ("landcover", "--only", "75")]
    started = [start(joint, *job) for job in jobs]
    for job, driver in zip(jobs, started, strict=True):
        assert driver.wait(300) == 0, said(joint, *job)
        # a part of the pixels is no stage that others may rest on
        assert "batches left to other jobs" in said(joint, *job)
    assert not files.record("mosaic").read()
    assert not files.table("mosaic").exists()
    plan = plan_batches(Grid(PX, SIDE), load_table(files.table("cells")))
    assert {b.departement for b in plan} == set(DEPARTEMENTS)
    assert start(joint, "explain").wait(300) == 0, said(joint, "explain")
    # the last one joins, and draws nothing
    assert said(joint, "explain").count(f"batches kept: {len(plan)}\n") == 2
    assert same(result_of(files.output), result_of(tmp_path / "alone" / "result")) == []


def test_what_cannot_be_done_in_parts_is_refused(city, tmp_path):
    toml = configure(city, tmp_path)
    assert start(toml, "mosaic", "--only", "13").wait(120) == 2
    assert "no cells in 13; there are 2A, 75, 92" in said(toml, "mosaic", "--only", "13")
    assert start(toml, "mosaic", "--only", "75").wait(120) == 0
    # a département is taken before anybody looks for what there is to do in it
    with Leases(Workspace(tmp_path / "result").leases) as leases:
        leases.take("mosaic", ["75"])
        assert start(toml, "mosaic", "--only", "75").wait(120) == 2
        assert "does batch 75 of mosaic; wait for it" in said(toml, "mosaic", "--only", "75")
    # a run whose cube would be another one must not take away what a job is writing
    files = Workspace(tmp_path / "result")
    with Leases(files.leases) as leases:
        leases.take("mosaic", ["75-0000"])
        toml.write_text(toml.read_text().replace(f"pixels_per_cell = {PX}", "pixels_per_cell = 32"))
        assert start(toml, "mosaic", "--only", "92").wait(120) == 2
        told = said(toml, "mosaic", "--only", "92")
        assert "does batch 75-0000 of mosaic: wait for it" in told, told
