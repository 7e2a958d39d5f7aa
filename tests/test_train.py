"""Training: what a fold may see, batches, schedules, and the whole of one small training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import sesgrid
from sesgrid.errors import (
    ConfigError,
    MissingInputError,
    ModelMismatchError,
    SesgridWarning,
    TooFewCellsError,
)
from sesgrid.grid import Extent, Grid
from sesgrid.kernels.backbones import backbone_named
from sesgrid.stages.predict import assign_models
from sesgrid.stages.protocol import PROTOCOLS, protocol_named
from sesgrid.stages.train import card_of, finished, plan_folds, train_fold
from sesgrid.store.georeference import georeference
from sesgrid.store.models import history_of
from tests.test_cells import census


def labelled(n=90, **options):
    table = sesgrid.cells(census(n, imputed=15), classes=3, folds=3, city="Ville", **options)
    table["coverage"] = 1.0
    return table


def test_no_fold_sees_its_own_cells():
    table = labelled()
    protocol = PROTOCOLS["scratch"]
    folds = plan_folds(table, "models", protocol, seed=1)
    assert [f.model_id for f in folds] == ["Ville-random0", "Ville-random1", "Ville-random2"]
    for fold in folds:
        own = table[table["fold"] == fold.fold]
        seen = set(map(tuple, fold.cells.tolist()))
        assert not seen & set(zip(own["row"], own["col"], strict=True))
        assert len(seen) == (table["labelled"] & (table["fold"] != fold.fold)).sum()
        # the inner validation part holds its share of every class, and none of it trains
        for k in range(3):
            members = fold.ses == k
            share = fold.validation[members].mean()
            assert share == pytest.approx(protocol.validation_share, abs=1 / members.sum())
    again = plan_folds(table, "models", protocol, seed=1)
    assert all((a.validation == b.validation).all() for a, b in zip(folds, again, strict=True))


def test_cells_without_imagery_do_not_train():
    table = labelled()
    table.loc[table.index[::2], "coverage"] = 0.5
    folds = plan_folds(table, "models", PROTOCOLS["scratch"])
    covered = table[table["coverage"] == 1]
    assert all(
        set(map(tuple, f.cells.tolist())) <= set(zip(covered["row"], covered["col"], strict=True))
        for f in folds
    )
    table["coverage"] = 0.5
    with pytest.raises(TooFewCellsError, match=r"0 of 90 cells .* 99% covered .*min_coverage"):
        plan_folds(table, "models", PROTOCOLS["scratch"])


def test_every_cell_names_a_model_that_did_not_see_it():
    table = labelled()
    table.loc[table.index[3], "coverage"] = 0.2
    models = dict.fromkeys(["Ville-random0", "Ville-random1", "Ville-random2"])
    named = assign_models(table, models, min_coverage=0.99)
    assert named["model_id"].isna().sum() == 1
    rest = named.drop(index=table.index[3])
    assert (rest["model_id"] == [f"Ville-random{f}" for f in rest["fold"]]).all()
    del models["Ville-random1"]
    with pytest.raises(ModelMismatchError, match="missing Ville-random1"):
        assign_models(table, models, min_coverage=0.99)


def test_protocols_are_the_papers_numbers():
    paper, reference = PROTOCOLS["paper"], PROTOCOLS["reference"]
    assert (paper.learning_rate, paper.epochs, paper.patience) == (8e-5, 30, 10)
    assert (paper.samples_per_epoch, paper.validation_share) == (2500, 0.25)
    assert (paper.max_pool, paper.scaling, paper.flip_validation) == (True, "backbone", False)
    assert (reference.samples_per_epoch, reference.batch_size) == (2500, 10)
    assert (reference.max_pool, reference.scaling, reference.flip_validation) == (
        False,
        "minmax",
        True,
    )
    assert protocol_named("scratch", epochs=None) == PROTOCOLS["scratch"]
    assert protocol_named("scratch", epochs=3, weights="/a/b.h5").name == (
        "scratch, changed: epochs=3, weights=b.h5"
    )
    with pytest.raises(ConfigError, match="paper, reference, scratch"):
        protocol_named("quick")
    with pytest.raises(ConfigError, match="schedule must be one of"):
        protocol_named("paper", schedule="steps")
    with pytest.raises(ConfigError, match="patience must be at least 1, received 0"):
        protocol_named("paper", patience=0)


@pytest.mark.slow
@pytest.mark.long
def test_a_fold_learns_what_is_plain_to_see_and_repeats_itself(tmp_path):
    """Brightness tells the class; after a few epochs unseen cells are ranked by it."""
    table = sesgrid.cells(census(60), classes=3, folds=2, city="Ville")
    extent = Extent.of_cells(Grid(32, 8), table["row"], table["col"])
    rng = np.random.default_rng(0)
    image = np.zeros((3, *extent.shape_px), dtype=np.uint8)
    for row, col, ses in zip(table["row"], table["col"], table["ses_true"], strict=True):
        noise = rng.integers(0, 60, (3, 32, 32))
        image[(slice(None), *extent.cell_slices(row, col))] = noise + (ses - 1) * 90
    pixels = georeference(
        xr.Dataset(
            {
                "image": (("band", "y", "x"), image),
                "coverage": (("y", "x"), (image[0] > 0).astype(np.uint8)),
            }
        ),
        extent,
    )
    pixels["coverage"][:] = 1
    events = []
    protocol = protocol_named("scratch", epochs=11, batch_size=4)
    models = sesgrid.train(
        table, pixels, tmp_path / "a", protocol=protocol, progress=lambda *a: events.append(a)
    )
    assert list(models) == ["Ville-random0", "Ville-random1"]
    assert [(m, e) for m, e, _ in events[:2]] == [("Ville-random0", 0), ("Ville-random0", 1)]
    predicted = sesgrid.predict(table, pixels, models)
    assert np.corrcoef(predicted["ses_true"].astype(float), predicted["p"])[0, 1] > 0.8
    means = [
        image[(0, *extent.cell_slices(r, c))].mean()
        for r, c in zip(predicted["row"], predicted["col"], strict=True)
    ]
    np.testing.assert_allclose(predicted["mean_red"], means)
    card = json.loads(Path(models["Ville-random0"].path).with_suffix(".json").read_text())
    assert card["protocol"]["name"] == "scratch, changed: epochs=11, batch_size=4"
    assert card["thresholds"] == table.attrs["thresholds"]
    assert not list((tmp_path / "a").glob("*.weights.h5"))
    assert card["initial_weights"] == "random"
    short = protocol_named("scratch", epochs=1, batch_size=4)
    image = pixels["image"].assign_attrs(pixels.attrs)
    fold = plan_folds(table.assign(coverage=1.0), tmp_path / "b", short)[0]
    first, second = (history_of(train_fold(fold, image))["val_loss"] for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=0.01)


@pytest.fixture
def fold_of(tiny_backbone):
    """Plan the first fold of a small city of noise, and give its image."""
    table = labelled().assign(void_share=0.0)
    extent = Extent.of_cells(Grid(32, 8), table["row"], table["col"])
    noise = np.random.default_rng(0).integers(0, 256, (3, *extent.shape_px), dtype=np.uint8)
    image = xr.DataArray(noise, dims=("band", "y", "x"), attrs=extent.attributes())

    def plan(folder, **changes):
        settings = {"epochs": 3, "backbone": tiny_backbone, "learning_rate": 0.05, **changes}
        return plan_folds(table, folder, protocol_named("scratch", **settings))[0], image

    return plan


def test_a_fold_that_was_cut_short_ends_as_it_would_have(fold_of, tmp_path):
    """The model, and a card that says where it went on; the checkpoint goes, the logs stay."""

    class Cut(Exception):
        pass

    def cut(model_id, epoch, logs):
        if epoch == 1:
            raise Cut

    fold, image = fold_of(tmp_path / "whole", deterministic=True)
    whole = train_fold(fold, image)
    fold, image = fold_of(tmp_path / "cut", deterministic=True)
    fold = dataclasses.replace(fold, card={**fold.card, "key": "of the run"})
    with pytest.raises(Cut):
        train_fold(fold, image, cut)
    assert finished(fold) is None
    assert (tmp_path / "cut" / "random-0.checkpoint.npz").exists()
    again = train_fold(fold, image)
    assert finished(fold) == again
    assert finished(dataclasses.replace(fold, card={"key": "of another run"})) is None
    assert (card_of(fold)["resumed_at"], json.loads(card_text(whole))["resumed_at"]) == (2, None)
    assert history_of(again) == history_of(whole)
    for a, b in zip(again.load().weights, whole.load().weights, strict=True):
        np.testing.assert_array_equal(a, b)
    names = {p.name for p in (tmp_path / "cut").iterdir()}
    assert names == {"random-0.keras", "random-0.json", "logs"}
    assert len((tmp_path / "cut" / "logs" / "random-0.csv").read_text().splitlines()) == 4


def test_a_training_does_not_go_on_with_other_imagery(fold_of, tmp_path):
    class Cut(Exception):
        pass

    def cut(model_id, epoch, logs):
        raise Cut

    fold, image = fold_of(tmp_path)
    with pytest.raises(Cut):
        train_fold(fold, image, cut)
    with pytest.warns(SesgridWarning, match=r"another training \(pixels differ\)"):
        ref = train_fold(fold, (image // 2).assign_attrs(image.attrs))
    assert json.loads(card_text(ref))["resumed_at"] is None
    # nor where the run says that its pixels are others, which a few cells do not show
    keyed = [dataclasses.replace(fold, card={**fold.card, "key": k}) for k in ("a", "b")]
    with pytest.raises(Cut):
        train_fold(keyed[0], image, cut)
    with pytest.warns(SesgridWarning, match=r"another training \(key differ\)"):
        train_fold(keyed[1], image)
    assert not list(tmp_path.glob("*.npz"))
    # what is finished is not done again
    seen = []
    train_fold(keyed[1], image, lambda *a: seen.append(a))
    assert not seen


def test_cells_are_predicted_as_their_models_were_trained(fold_of, tmp_path):
    """The void filter of the training holds for the prediction, unless another is asked for."""
    table = labelled()
    fold, image = fold_of(tmp_path, max_void=0.01, epochs=1)
    image = image.copy()
    extent = Extent.from_attributes(image.attrs)
    image[(slice(None), *extent.cell_slices(*table[["row", "col"]].to_numpy()[0]))] = 0
    ref = train_fold(fold, image)
    pixels = xr.Dataset({"image": image, "coverage": image[0].drop_attrs() * 0 + 1})
    pixels.attrs = extent.attributes()
    models = {f"Ville-random{f}": ref for f in range(3)}
    for asked, without in ((None, 1), (1.0, 0)):
        predicted = sesgrid.predict(table.drop(columns="coverage"), pixels, models, max_void=asked)
        assert predicted["p"].isna().sum() == without


def card_text(ref):
    return Path(ref.path).with_suffix(".json").read_text()


def test_a_file_of_weights_must_be_the_one_that_was_named(fold_of, tmp_path):
    file = tmp_path / "backbone.weights.h5"
    backbone_named("tiny").build(None).save_weights(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for wrong in ("0" * 64, digest[:-1] + ("0" if digest[-1] != "0" else "1")):
        fold, image = fold_of(tmp_path / "a", weights=str(file), weights_sha256=wrong)
        with pytest.raises(ModelMismatchError, match=f"expected sha256 {wrong}.*has {digest}"):
            train_fold(fold, image)
        assert not (tmp_path / "a").exists()
    for right in (None, digest, digest.upper()):
        fold, image = fold_of(tmp_path / "b", epochs=1, weights=str(file), weights_sha256=right)
        train_fold(fold, image)
        card = card_of(fold)
        assert (card["initial_weights"], card["initial_weights_sha256"]) == (str(file), digest)
    fold, image = fold_of(tmp_path / "c", weights=str(tmp_path / "absent.weights.h5"))
    with pytest.raises(MissingInputError, match=r"absent\.weights\.h5: .*train\.weights"):
        train_fold(fold, image)
    with pytest.raises(ConfigError, match="weights_sha256 is of a file, received weights = None"):
        protocol_named("scratch", weights_sha256=digest)
