"""Trained on one run, tested on another: who may score what, and where the figures stand."""

from __future__ import annotations

import geopandas as gpd
import keras
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score

from sesgrid import __version__
from sesgrid.errors import ConfigError
from sesgrid.run.job import protocol_of, scores_of
from sesgrid.run.settings import CubeSettings
from sesgrid.run.workspace import Workspace, load_cells, load_table
from sesgrid.stages.score import metrics
from sesgrid.stages.train import plan_folds
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef
from sesgrid.studies import transfer as module
from sesgrid.studies.transfer import require_alike, transfer
from tests.small_run import (
    FOLDS,
    configure,
    small_backbones,
    train_and_predict,
    write_cells,
    write_run,
)
from tests.test_cells import census

pytestmark = pytest.mark.slow

SPATIAL = ("compare_folds = false", 'compare_folds = false\nfolds_kind = "spatial"')


def year(n: int, vintage: str, seed: int, imputed: int = 0) -> gpd.GeoDataFrame:
    """The first cells of a place, in a year; the last of them imputed."""
    table = census(n, seed=seed)
    table["imputed"] = pd.array(np.arange(n) >= n - imputed, dtype="boolean")
    table.attrs = {"vintage": vintage}
    return table


@pytest.fixture(scope="module")
def client(scheduler):
    with small_backbones(), Client(scheduler) as one:
        yield one


@pytest.fixture(scope="module")
def years(client, tmp_path_factory):
    """A city in two years, the later with more cells; a row of blocks holds imputed cells alone."""
    root = tmp_path_factory.mktemp("years")
    configs = []
    for vintage, n, seed, imputed in (("2015", 40, 1, 0), ("2019", 60, 2, 10)):
        config = configure(root / vintage, "Ville")
        write_run(config, year(n, vintage, seed, imputed))
        train_and_predict(config, client)
        configs.append(config)
    return configs


@pytest.fixture(scope="module")
def found(years, client, tmp_path_factory):
    """The study, its folder, and the tables that were scored by (trained, tested)."""
    folder, scored, told = tmp_path_factory.mktemp("found"), [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "scores_of", lambda c, t: scored.append(t.copy()) or scores_of(c, t))
        study = transfer(years, client, folder, told.append)
    pairs = [(a, b) for a in (0, 1) for b in (0, 1)]
    assert told[1] == "trained on Ville 2015, tested on Ville 2019"
    return study, folder, dict(zip(pairs, scored, strict=True))


def places(fold) -> set[tuple[int, int]]:
    return {tuple(rc) for rc in fold.cells.tolist()}


def plans(config):
    return plan_folds(load_cells(Workspace.of(config)), "models", protocol_of(config))


def models_of(config, kind: str = "random") -> list[ModelRef]:
    return [ModelRef.open(Workspace.of(config).models / f"{kind}-{k}.keras") for k in range(FOLDS)]


def test_a_place_is_scored_by_models_that_did_not_see_it(years, found):
    _, _, scored = found
    for trained, tested in ((0, 1), (1, 0)):
        table = scored[trained, tested]
        own = load_cells(Workspace.of(years[tested]))
        known = load_cells(Workspace.of(years[trained]))
        assert set(table.index) == set(own.index[own["labelled"]])
        seen = [places(fold) for fold in plans(years[trained])]
        for cell, rows in table.groupby(level=0):
            if cell in known.index:
                assert rows["fold"].tolist() == [known.loc[cell, "fold"]]
            else:
                assert sorted(rows["fold"]) == list(range(FOLDS))
            for _, row in rows.iterrows():
                assert (row["row"], row["col"]) not in seen[row["fold"]]
                assert row["model_id"] == f"Ville-random{row['fold']}"
    assert scored[0, 1].index.has_duplicates
    assert not scored[1, 0].index.has_duplicates


def test_classes_are_those_of_the_tested_and_predictions_those_of_the_models(years, found):
    _, _, scored = found
    for trained, tested in ((0, 1), (1, 0)):
        table, files = scored[trained, tested], Workspace.of(years[tested])
        own = load_cells(files)
        assert (table["ses_true"] == own["ses_true"].reindex(table.index)).all()
        assert table.attrs["thresholds"] == own.attrs["thresholds"]
        pixels, extent = (
            Cube.open(files.cube).pixels()["image"].values,
            Cube.open(files.cube).extent,
        )
        for fold, ref in enumerate(models_of(years[trained])):
            part = table[table["fold"] == fold]
            slices = [
                extent.cell_slices(r, c) for r, c in zip(part["row"], part["col"], strict=True)
            ]
            batch = np.stack([np.moveaxis(pixels[:, y, x], 0, -1) for y, x in slices])
            shares = np.exp(keras.ops.convert_to_numpy(ref.load()(batch.astype(np.float32))))
            np.testing.assert_allclose(shares @ [0, 0.5, 1], part["p"], atol=1e-5)
            assert (shares.argmax(1) + 1 == part["ses_predicted"].to_numpy(int)).all()
    both = scored[0, 1].index.intersection(scored[1, 1].index)
    assert (
        scored[0, 1].loc[both, "p"].groupby(level=0).mean() - scored[1, 1].loc[both, "p"]
    ).abs().max() > 0


def test_the_diagonal_is_the_runs_own(years, found):
    study, _, scored = found
    table = study.tables["transfer"].set_index(["train_on", "test_on"])
    for k, config in enumerate(years):
        own = load_table(Workspace.of(config).table("predict"))
        pd.testing.assert_frame_equal(scored[k, k], own)
        scores = metrics(own, n_bootstrap=100)
        name = f"Ville {('2015', '2019')[k]}"
        row = table.loc[(name, name)]
        assert (row["pearson_r"], row["mae"], row["n"]) == (
            scores["pearson_r"],
            scores["mae"],
            scores["n"],
        )


def test_tables_and_matrices_agree(years, found):
    study, folder, scored = found
    names = ["Ville 2015", "Ville 2019"]
    results = pd.read_parquet(folder / "results.parquet").set_index(["train_on", "test_on"])
    written = pd.read_csv(folder / "transfer.csv").set_index(["train_on", "test_on"])
    for a, train_on in enumerate(names):
        for b, test_on in enumerate(names):
            table = scored[a, b]
            table = table[table["ses_predicted"].notna() & table["labelled"]]
            values = {"pearson_r": [], "accuracy": []}
            for _, part in table.groupby("fold"):
                true, said = (part[c].to_numpy(int) for c in ("ses_true", "ses_predicted"))
                values["accuracy"].append(accuracy_score(true, said))
                flat = len(set(said)) == 1
                values["pearson_r"].append(0.0 if flat else pearsonr(true, said).statistic)
            for score, of_folds in values.items():
                for place in (
                    written.loc[(train_on, test_on), score],
                    results.loc[(train_on, test_on), score],
                    study.tables[score].loc[train_on, test_on],
                    pd.read_csv(folder / f"{score}.csv", index_col=0).loc[train_on, test_on],
                ):
                    assert place == pytest.approx(np.mean(of_folds))
            assert written.loc[(train_on, test_on), "n"] == table.index.nunique()
    assert list(study.tables["pearson_r"].index) == list(study.tables["pearson_r"].columns) == names
    assert results["configuration"].nunique() == 4
    assert (results["software"] == f"sesgrid {__version__}").all()
    assert (results["seed"] == 0).all()


def test_what_was_predicted_is_not_predicted_again(years, found, client, tmp_path):
    study, _, _ = found

    def parts() -> dict[str, int]:
        return {
            str(p): p.stat().st_mtime_ns
            for c in years
            for p in c.output.glob("work/parts/transfer-*/*.parquet")
        }

    before = parts()
    assert len(before) == 2 * FOLDS
    again = transfer(years, client, tmp_path, lambda _: None)
    assert parts() == before
    pd.testing.assert_frame_equal(again.tables["transfer"], study.tables["transfer"])
    # another mosaic, other pixels: the parts are no longer ours
    record = Workspace.of(years[0]).record("mosaic")
    kept = record.path.read_text()
    record.write({}, {}, "mosaic-2")
    transfer(years, client, tmp_path, lambda _: None)
    record.path.write_text(kept)
    now = parts()
    assert [now[p] != before[p] for p in before] == ["/2015/" in p for p in before]


def test_a_buffer_holds_across_years(client, tmp_path):
    """A new cell beside one that trained is left out, as it would have been in the run itself."""
    configs = []
    for vintage, n, seed in (("2015", 40, 1), ("2019", 60, 2)):
        config = configure(tmp_path / vintage, "Ville", SPATIAL)
        write_run(config, year(n, vintage, seed), folds_kind="spatial", buffer_cells=1)
        configs.append(config)
    train_and_predict(configs[0], client)
    write_cells(Workspace.of(configs[1]), "predict", load_cells(Workspace.of(configs[1])))
    table = module._foreign(*configs, client)
    known = load_cells(Workspace.of(configs[0])).index
    dropped = 0
    for fold, plan in enumerate(plans(configs[0])):
        own = table[table["fold"] == fold]
        assert len(own)
        trained = np.array(sorted(places(plan)))
        later = load_cells(Workspace.of(configs[1]))
        for cell, row in later.iterrows():
            gap = np.abs(trained - [row["row"], row["col"]]).max(axis=1).min()
            if cell in own.index:
                assert gap > 1
            elif cell not in known:
                assert gap <= 1
                dropped += 1
    assert dropped > 0


def test_runs_must_be_alike_and_different(tmp_path):
    def at(name: str, *changes: tuple[str, str]):
        return configure(tmp_path / name, "Ville", *changes)

    one = at("a")
    for others, message in (
        ([], "at least two configurations, received 1"),
        ([at("a")], "each run once.*several times"),
        ([at("b", ("classes = 3", "classes = 4"))], r"cells\.classes must be the same.*\[3, 4\]"),
        ([at("c", ("cell = 64", "cell = 32"))], r"grid\.pixels_per_cell must be.*\[32, 64\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            require_alike([one, *others])
    require_alike([one, at("d")])


def test_runs_must_not_share_a_cube(tmp_path):
    configs = [configure(tmp_path / n, n) for n in ("a", "b")]
    shared = CubeSettings(path=str(tmp_path / "cube.zarr"))
    with pytest.raises(ConfigError, match=r"cube\.zarr \(cube\.path\) several times"):
        require_alike([c.model_copy(update={"cube": shared}) for c in configs])


def test_runs_are_named_apart(tmp_path):
    same = [configure(tmp_path / n, "Ville") for n in ("a", "b")]
    for config in same:
        write_run(config, year(30, "2019", 1))
    # as folders beside each other: the tables are passed on, and tell nothing of this machine
    assert module._names(same) == ["Ville (a/result)", "Ville (b/result)"]
    inner = same[0].model_copy(update={"output": same[1].output / "inner"})
    write_run(inner, year(30, "2019", 1))
    assert module._names([same[1], inner]) == ["Ville (result)", "Ville (result/inner)"]
    assert module._names([same[0], configure(tmp_path / "c", "Nice")]) == ["Ville", "Nice"]
