"""The stage ``train``: which folds are trained, and which are kept."""

from __future__ import annotations

import json

import pytest
from distributed import Client

from sesgrid.errors import ModelMismatchError, SesgridWarning
from sesgrid.run import training
from sesgrid.run.cell_stages import OTHER_FOLDS, run_predict
from sesgrid.run.job import Job, protocol_of
from sesgrid.run.outputs import missing_outputs
from sesgrid.run.training import _clear, check_explainable, run_train, train_together
from sesgrid.run.workspace import Workspace
from tests.small_run import FOLDS, configure, small_backbones, write_run

pytestmark = pytest.mark.slow

BOTH = ("compare_folds = false", "compare_folds = true")


@pytest.fixture(scope="module")
def client(scheduler):
    with small_backbones(), Client(scheduler) as one:
        yield one


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Ids of the folds that were given to workers."""
    ids, run = [], training.run_trainings

    def noting(client, label, work, *args):
        ids.extend(fold.model_id for _, fold in work)
        return run(client, label, work, *args)

    monkeypatch.setattr(training, "run_trainings", noting)
    return ids


def train(config, client) -> dict:
    return run_train(Job(config, Workspace.of(config), client, "key"))


def test_asking_for_the_other_folds_later_keeps_the_models(client, trained, tmp_path):
    config = configure(tmp_path, "Ville")
    write_run(config)
    train(config, client)
    assert sorted(trained) == ["Ville-random0", "Ville-random1"]
    trained.clear()
    both = configure(tmp_path, "Ville", BOTH)
    # another buffer is nothing to random folds
    write_run(both, compare_folds=True, buffer_cells=0)
    assert train(both, client)["folds kept from an earlier run"] == FOLDS
    assert sorted(trained) == ["Ville-spatial0", "Ville-spatial1"]
    trained.clear()
    again = configure(tmp_path, "Ville", BOTH, ("epochs = 2", "epochs = 1"))
    train(again, client)
    assert len(trained) == 2 * FOLDS


def test_too_few_cells_for_the_folds_nobody_asked_for_stop_nothing(client, trained, tmp_path):
    config = configure(tmp_path, "Ville", BOTH)
    # imagery for two squares alone, which are one spatial fold each: it has nothing to learn from
    cells = write_run(config, compare_folds=True, buffer_cells=0, dark=46)
    assert cells["fold_spatial"].notna().any()
    with pytest.warns(SesgridWarning, match="models of spatial folds are not trained"):
        summary = train(config, client)
    assert summary["models"] == FOLDS
    files = Workspace.of(config)
    files.record("train").write({}, summary)
    done = run_predict(Job(config, files, client, "key"))
    assert OTHER_FOLDS not in done
    assert not files.table("predict-other").exists()
    files.record("predict").write({}, done)
    assert (
        missing_outputs(config, files, "train") == missing_outputs(config, files, "predict") == []
    )


def test_a_lost_model_or_table_of_the_other_folds_is_missed(client, tmp_path):
    config = configure(tmp_path, "Ville", BOTH)
    write_run(config, compare_folds=True, buffer_cells=0)
    files = Workspace.of(config)
    for stage, run in (("train", run_train), ("predict", run_predict)):
        summary = run(Job(config, files, client, "key"))
        files.record(stage).write({}, summary, summary.get("result_id"))
        assert missing_outputs(config, files, stage) == []
    files.table("predict-other").unlink()
    assert missing_outputs(config, files, "predict") == ["predict-other.parquet"]
    (files.models / "spatial-1.keras").unlink()
    assert missing_outputs(config, files, "train") == ["spatial-1.keras"]


def test_random_weights_stay_only_while_imagenets_are_not_at_hand(
    client, trained, monkeypatch, tmp_path
):
    imagenet = ('schedule = "constant"', 'schedule = "constant"\nweights = "imagenet"')
    config = configure(tmp_path, "Ville", imagenet)
    write_run(config)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    summary = train(config, client)
    assert "all models start from random weights" in summary["notes"][0]
    files = Workspace.of(config)
    files.record("train").write({}, summary)
    # nothing is trained again, and the note stays
    trained.clear()
    assert train(config, client)["notes"] == summary["notes"]
    assert trained == []
    assert missing_outputs(config, files, "train") == []
    card = files.models / "random-1.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"initial_weights": "imagenet"}))
    assert train(config, client)["notes"][0].startswith("random-0 start from random weights")
    # another note is no sign of random weights, nor are they where they were asked for
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / "pin-hole_notop.h5").touch()
    files.record("train").write({}, {**summary, "initial weights": ["imagenet"]})
    assert missing_outputs(config, files, "train") == []
    files.record("train").write({}, summary)
    assert missing_outputs(configure(tmp_path, "Ville"), files, "train") == []
    # Keras' file is there: the model that did not have it is made again
    assert "ImageNet" in missing_outputs(config, files, "train")[0]
    train(config, client)
    assert trained == ["Ville-random0"]


def test_runs_are_trained_together(client, trained, tmp_path):
    configs = [configure(tmp_path / name, name) for name in ("Nice", "Lyon")]
    for config in configs:
        write_run(config)
        files = Workspace.of(config)
        files.mark.enter(files.report)
        files.report.touch()
    train_together(configs, client)
    assert sorted(trained) == ["Lyon-random0", "Lyon-random1", "Nice-random0", "Nice-random1"]
    for config in configs:
        assert not Workspace.of(config).report.exists()
        assert train(config, client)["folds kept from an earlier run"] == FOLDS


def test_what_could_not_be_explained_is_refused_before_it_is_trained(client, trained, tmp_path):
    config = configure(tmp_path, "Ville", ("[analyse]", '[explain]\nlayer = "nowhere"\n[analyse]'))
    write_run(config)
    with pytest.raises(ModelMismatchError, match="nowhere"):
        check_explainable(config, client, protocol_of(config))
    with pytest.raises(ModelMismatchError, match="nowhere"):
        train(config, client)
    assert trained == []


def test_a_list_that_names_files_of_others_costs_none(tmp_path):
    config = configure(tmp_path, "A")
    write_run(config)
    files = Workspace.of(config)
    files.models.mkdir(exist_ok=True)
    mine, old = files.models / "random-mine.json", files.models / "random-7.json"
    for path in (mine, old):
        path.write_text("{}")
    files.mark.enter_again(mine, old)
    _clear(files, [])
    assert mine.exists()
    assert not old.exists()
