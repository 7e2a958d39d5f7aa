"""Training: what a fold may see, batches, schedules, and the whole of one small training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import sesgrid
from sesgrid.errors import ConfigError, ModelMismatchError, TooFewCellsError
from sesgrid.grid import Extent, Grid
from sesgrid.stages.predict import assign_models
from sesgrid.stages.protocol import PROTOCOLS, protocol_named
from sesgrid.stages.train import plan_folds, train_fold
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
    paper = PROTOCOLS["paper"]
    assert (paper.learning_rate, paper.epochs, paper.patience) == (8e-5, 30, 10)
    assert (paper.samples_per_epoch, paper.validation_share) == (2500, 0.25)
    assert [paper.learning_rate_at(e) for e in (0, 2, 3, 6)] == pytest.approx(
        [8e-5, 8e-5, 8e-6, 8e-7]
    )
    scratch = protocol_named("scratch", epochs=4)
    rates = [scratch.learning_rate_at(e) for e in range(4)]
    assert rates == sorted(rates, reverse=True)
    assert protocol_named("scratch", epochs=None) == PROTOCOLS["scratch"]
    with pytest.raises(ConfigError, match="paper, scratch"):
        protocol_named("quick")


def batches(**options):
    from sesgrid.stages.cell_batches import CellBatches

    pixels = np.arange(10 * 3 * 4 * 4, dtype=np.uint8).reshape(10, 3, 4, 4)
    ses = np.arange(10) % 3
    return pixels, CellBatches(lambda i: pixels[i], ses, 3, 4, **options)


def test_unaugmented_batches_are_the_cells_in_order():
    pixels, data = batches()
    assert len(data) == 3
    images, classes = zip(*(data[k] for k in range(3)), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), np.moveaxis(pixels, 1, -1))
    np.testing.assert_array_equal(np.concatenate(classes).argmax(1), np.arange(10) % 3)


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 37), epochs=st.integers(1, 4), seed=st.integers(0, 9))
def test_every_cell_comes_equally_often(samples, epochs, seed):
    _, data = batches(augment=True, samples_per_epoch=samples, seed=seed)
    seen = []
    for _ in range(epochs):
        seen.append(data.indices())
        assert len(seen[-1]) == samples
        data.on_epoch_end()
    counts = np.bincount(np.concatenate(seen), minlength=10)
    assert np.ptp(counts) <= 1


def test_augmented_images_are_flips_and_repeat_with_the_seed():
    pixels, data = batches(augment=True, seed=5)
    image, classes = data[0]
    kinds = set()
    for one, label, index in zip(image, classes, data.indices(), strict=False):
        source = np.moveaxis(pixels[index], 0, -1)
        flips = [source[::v, ::h] for v in (1, -1) for h in (1, -1)]
        (kind,) = [k for k, f in enumerate(flips) if (f == one).all()]
        kinds.add(kind)
        assert label.argmax() == index % 3
    for k in range(1, 3):
        for one, index in zip(data[k][0], data.indices()[k * 4 :], strict=False):
            source = np.moveaxis(pixels[index], 0, -1)
            flips = [source[::v, ::h] for v in (1, -1) for h in (1, -1)]
            kinds.add(next(i for i, f in enumerate(flips) if (f == one).all()))
    assert len(kinds) >= 3
    again = batches(augment=True, seed=5)[1][0][0]
    np.testing.assert_array_equal(image, again)
    data.on_epoch_end()
    assert not np.array_equal(image, data[0][0])


def test_crops_are_parts_of_their_cell():
    from sesgrid.stages.cell_batches import CellBatches

    pixels = np.random.default_rng(0).integers(0, 255, (6, 3, 64, 64)).astype(np.uint8)
    data = CellBatches(
        lambda i: pixels[i], np.zeros(6, int), 2, 6, augment=True, crop_share=0.75, seed=1
    )
    image, _ = data[0]
    assert image.shape == (6, 48, 48, 3)
    places = set()
    for one, index in zip(image, data.indices(), strict=True):
        source = np.moveaxis(pixels[index], 0, -1)
        found = [
            (v, h, y, x)
            for v in (1, -1)
            for h in (1, -1)
            for y in range(17)
            for x in range(17)
            if (source[::v, ::h][y : y + 48, x : x + 48] == one).all()
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 3
    data.crop_share = 0.1
    assert data[0][0].shape == (6, 32, 32, 3)


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
    assert card["protocol"]["name"] == "scratch"
    assert card["thresholds"] == table.attrs["thresholds"]
    assert not list((tmp_path / "a").glob("*.weights.h5"))
    assert card["initial_weights"] == "random"
    short = protocol_named("scratch", epochs=1, batch_size=4)
    image = pixels["image"].assign_attrs(pixels.attrs)
    fold = plan_folds(table.assign(coverage=1.0), tmp_path / "b", short)[0]
    first, second = (history_of(train_fold(fold, image))["val_loss"] for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=0.01)
