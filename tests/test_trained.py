"""Models of other cities: which of them looks at which cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from distributed import Client

from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.run.cell_stages import run_predict
from sesgrid.run.job import Job
from sesgrid.run.settings import ModelSettings
from sesgrid.run.trained import TrainedCity, assign_trained, trained_cities
from sesgrid.run.training import run_train
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store.models import ModelRef
from tests.small_run import FOLDS, configure, small_backbones, write_run
from tests.test_cells import census


def cells_at(rows, cols, **columns):
    table = pd.DataFrame({"row": rows, "col": cols, "coverage": 1.0, "void_share": 0.0, **columns})
    table.index = [f"c{r}-{c}" for r, c in zip(rows, cols, strict=True)]
    return table


def city(name, rows, cols, folds, n=2):
    models = tuple(
        ModelRef(f"{name}-random{k}", f"{name}{k}.keras", "0" * 64, 64, 3) for k in range(n)
    )
    return TrainedCity(name, cells_at(rows, cols, fold=folds), models)


def assign(cells, cities, elsewhere):
    found = assign_trained(cells, cities, elsewhere, cells_per_block=8, min_coverage=0.9)
    return found["model_id"].astype(object).where(found["model_id"].notna(), None).tolist()


def test_a_cell_of_a_city_takes_the_model_that_did_not_see_it():
    a, b = city("A", [0, 0, 0], [0, 1, 2], [1, 0, 1]), city("B", [0, 50], [2, 50], [0, 1])
    cells = cells_at([0, 0, 0, 50], [0, 1, 2, 50])
    # the third is of both: the first city's
    assert assign(cells, [a, b], "none") == ["A-random1", "A-random0", "A-random1", "B-random1"]
    assert assign(cells, [b, a], "none") == ["A-random1", "A-random0", "B-random0", "B-random1"]


def test_other_cells_take_what_the_run_says():
    rng = np.random.default_rng(0)
    a, b = city("A", [0], [0], [0]), city("B", [100], [100], [1])
    at = np.unique(rng.integers(1, 100, (400, 2)), axis=0)
    cells = cells_at(*at.T)
    assert assign(cells, [a, b], "none") == [None] * len(cells)
    named = assign(cells, [a, b], "nearest")
    near = np.hypot(*at.T) <= np.hypot(*(at - 100).T)
    assert [n[0] for n in named] == ["A" if x else "B" for x in near]
    assert {n[-1] for n in named} == {"0", "1"}
    # of one block and one city one model, whatever else is in the table
    by = pd.DataFrame({"block": [tuple(x) for x in at // 8], "model": named, "city": near})
    assert (by.groupby(["block", "city"])["model"].nunique() == 1).all()
    few = cells.sample(50, random_state=1)
    assert assign(few, [a, b], "nearest") == [named[list(cells.index).index(i)] for i in few.index]
    assert {n[0] for n in assign(cells, [a, b], "B")} == {"B"}
    with pytest.raises(
        ConfigError, match=r"expected 'nearest', 'none' or one of A, B, received 'C'"
    ):
        assign(cells, [a, b], "C")


def test_a_cell_without_imagery_has_none():
    cells = cells_at([0, 0, 9], [0, 1, 9])
    cells["coverage"] = [1.0, 0.5, 0.5]
    assert assign(cells, [city("A", [0, 0], [0, 1], [0, 1])], "A") == ["A-random0", None, None]


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"models\.cities: .* has no work/cells\.parquet"):
        trained_cities([tmp_path])


@pytest.mark.slow
def test_a_run_with_models_of_others_trains_none(scheduler, tmp_path):
    with small_backbones(), Client(scheduler) as client:
        cities = [configure(tmp_path / name, name) for name in ("Nice", "Lyon")]
        for k, config in enumerate(cities):
            write_run(config, census(30, seed=k))
            files = Workspace.of(config)
            run_train(Job(config, files, client, "key"))
            of = {"stage cells": files.record("cells").read()["result_id"]}
            files.record("train").write(of, {})
        nation = configure(tmp_path / "nation", "France")
        folders = [Workspace.of(c).output for c in cities]
        nation = nation.model_copy(update={"models": ModelSettings(cities=folders[:1])})
        cells = write_run(nation, census(60, seed=5), dark=4)
        files = Workspace.of(nation)
        job = Job(nation, files, client, "key")
        summary = run_train(job)
        assert (summary["models"], summary["elsewhere"]) == (FOLDS, "nearest")
        assert not files.models.exists()
        summary = run_predict(job)
        assert summary["cells predicted"] == len(cells) - 4
        assert (summary["cells without enough imagery"], summary["cells without a model"]) == (4, 0)
        table = load_table(files.table("predict"))
        assert set(table["model_id"].dropna()) == {"Nice-random0", "Nice-random1"}
        nice = load_table(Workspace.of(cities[0]).table("cells"))
        both = table.index.intersection(nice.index)
        seen = table.loc[both, "model_id"].dropna()
        assert len(seen) > 10
        assert (seen == [f"Nice-random{f}" for f in nice.loc[seen.index, "fold"]]).all()
        none = nation.models.model_copy(update={"elsewhere": "none"})
        few = nation.model_copy(update={"models": none})
        summary = run_predict(Job(few, files, client, "key"))
        assert summary["cells without a model"] == len(cells) - 4 - len(seen)
        with pytest.raises(ConfigError, match="two runs are of 'Nice'"):
            trained_cities([folders[0], folders[0]])
        # its folds were drawn anew since: who saw what is not known any more
        Workspace.of(cities[1]).record("cells").write({"seed": 1}, {})
        with pytest.raises(
            MissingInputError, match="are not of the cells and folds that lie there"
        ):
            trained_cities(folders)
