"""One training: it goes on exactly where it was cut short, says what it did, and names what is wrong."""

from __future__ import annotations

import dataclasses
import random
import threading

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import xarray as xr

from sesgrid.errors import ModelMismatchError, SesgridError, SesgridWarning, StoreError
from sesgrid.grid import Extent, Grid
from sesgrid.kernels import backend
from sesgrid.kernels.backbones import MIN_PX
from sesgrid.kernels.network import NetworkSpec, build_network
from sesgrid.stages import fit as fitting
from sesgrid.stages.cell_batches import CellBatches
from sesgrid.stages.fit import fit
from sesgrid.stages.protocol import protocol_named
from sesgrid.store.cell_reader import CellReader
from sesgrid.store.checkpoint import Checkpoint
from tests.conftest import fill

EPOCHS = 6
SETTINGS = {
    # at this rate a loss soon worsens, so that the best epoch, patience and restarts all come in
    "restarts": {
        "schedule": "plateau", "schedule_epochs": 1, "schedule_factor": 0.5, "patience": 1,
        "restarts": 2, "learning_rate": 0.3, "flip_validation": True, "epochs": 12,
    },
    "step": {
        "schedule": "step", "schedule_epochs": 2, "patience": 99, "shuffle": "blocks",
        "workers": 2, "epochs": 4,
    },
}  # fmt: skip
DEFAULTS = {"epochs": EPOCHS, "batch_size": 4, "samples_per_epoch": 11, "deterministic": True}


class Cut(SesgridError):
    """What stops a training."""


class Faulty(CellReader):
    """A reader that fails at its n-th batch."""

    def __init__(self, image, fails_at=None):
        super().__init__(image)
        self.fails_at, self.batches = fails_at, 0

    def read(self, *args, **kwargs):
        self.batches += 1
        if self.fails_at is not None and self.batches >= self.fails_at:
            raise Cut
        return super().read(*args, **kwargs)


@pytest.fixture(scope="module")
def scene():
    """Sixteen cells of three classes, whose colours tell a little, and their image."""
    rng = np.random.default_rng(0)
    cells = np.stack(np.divmod(np.arange(16), 4), axis=1).astype(np.int64)
    ses = np.arange(16) % 3
    extent = Extent.of_cells(Grid(MIN_PX, 2), *cells.T)
    image = rng.integers(0, 180, (3, *extent.shape_px), dtype=np.uint8)
    for (row, col), k in zip(cells, ses, strict=True):
        image[(slice(None), *extent.cell_slices(row, col))] += np.uint8(30 * k)
    array = xr.DataArray(image, dims=("band", "y", "x"), attrs=extent.attributes())
    return cells, ses, array


@pytest.fixture(autouse=True)
def deterministic_for_once():
    """Determinism holds for a process; take it back, so that other tests run as they would."""
    yield
    if backend.make_deterministic.cache_info().currsize:
        from tensorflow.python.framework import config

        config.disable_op_determinism()
        backend.make_deterministic.cache_clear()


@pytest.fixture
def train(scene, tiny_backbone, tmp_path):
    """Train on twelve cells, validate on four."""
    cells, ses, image = scene

    def run(
        name="a", *, fails_at=None, weights=None, facts=None, folder=tmp_path, held=slice(12, 16),
        head="binomial", seed=3, **changes,
    ):  # fmt: skip
        on_epoch = changes.pop("on_epoch", lambda epoch, logs: None)
        workers = changes.pop("workers", 1)
        initial = changes.pop("initial", None)
        logs = changes.pop("logs", folder / "logs" / name)
        protocol = protocol_named("scratch", **{**DEFAULTS, **changes}, backbone=tiny_backbone)
        protocol = dataclasses.replace(protocol, weights=initial)
        common = {"n_classes": 3, "batch_size": protocol.batch_size, "seed": 5, "workers": workers}
        picked = [np.delete(np.arange(16), held), np.arange(16)[held]]
        parts = [
            CellBatches(
                Faulty(image, fails_at if k == 0 else None), cells[at], ses[at],
                sample_weight=None if weights is None else weights[at],
                augment=k == 0, shuffle=protocol.shuffle, crop_share=protocol.crop_share,
                samples_per_epoch=protocol.samples_per_epoch if k == 0 else None,
                flips=protocol.flips if k == 0 else protocol.flip_validation, **common,
            )
            for k, at in enumerate(picked)
        ]  # fmt: skip
        spec = NetworkSpec(MIN_PX, 3, backbone=tiny_backbone, head=head)
        fitted = fit(
            spec, protocol, *parts, seed=seed, checkpoint=folder / f"{name}.npz",
            facts=facts or {"model_id": "x"}, logs=logs, on_epoch=on_epoch,
        )  # fmt: skip
        # the model is another's after the next training
        return fitted, [np.array(v) for v in fitted.model.variables]

    return run


def stop_after(last):
    def on_epoch(epoch, logs):
        if epoch == last:
            raise Cut

    return on_epoch


def assert_same(run, other, path, path_of_other):
    """Nothing tells two trainings apart, to the last bit."""
    (fitted, weights), (theirs, their_weights) = run, other
    assert fitted.history == theirs.history
    assert (fitted.best_epoch, fitted.restarts) == (theirs.best_epoch, theirs.restarts)
    for a, b in zip(weights, their_weights, strict=True):
        np.testing.assert_array_equal(a, b)
    ours, others = Checkpoint.load(path), Checkpoint.load(path_of_other)
    assert ours.facts == others.facts
    for a, b in zip([*ours.last, *ours.best], [*others.last, *others.best], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_cut_after_any_epoch_it_ends_as_if_it_had_not_been(train, tmp_path, setting):
    changes = SETTINGS[setting]
    whole = train("whole", **changes)
    fitted = whole[0]
    assert fitted.resumed_at is None
    epochs = len(fitted.history["loss"])
    assert len(set(fitted.history["learning_rate"])) > 1
    if setting == "restarts":
        assert fitted.restarts == 2
        assert fitted.best_epoch < epochs - 1
    for last in range(epochs):
        with pytest.raises(Cut):
            train(f"cut{last}", on_epoch=stop_after(last), **changes)
        # something else is trained in between, with the same compiled network
        if last == 2:
            train("between", seed=9, epochs=1)
        again = train(f"cut{last}", **changes)
        assert again[0].resumed_at == last + 1
        assert_same(again, whole, tmp_path / f"cut{last}.npz", tmp_path / "whole.npz")


@pytest.mark.slow
def test_cut_within_any_epoch_it_ends_as_if_it_had_not_been(train, tmp_path):
    """Three batches an epoch, which two threads read ahead."""
    changes = SETTINGS["restarts"] | {"workers": 2}
    whole = train("whole", **changes)
    begun = []
    for batch in range(3, 3 * len(whole[0].history["loss"]), 5):
        with pytest.raises(Cut):
            train(f"cut{batch}", fails_at=batch, **changes)
        again = train(f"cut{batch}", **changes)
        begun.append(again[0].resumed_at or 0)
        assert_same(again, whole, tmp_path / f"cut{batch}.npz", tmp_path / "whole.npz")
    assert begun[0] == 0 < begun[-1]


def test_cut_again_and_again(train, tmp_path):
    changes = SETTINGS["restarts"]
    whole = train("whole", **changes)
    epochs = len(whole[0].history["loss"])
    for last in range(epochs):
        with pytest.raises(Cut):
            train("cut", on_epoch=stop_after(last), **changes)
    again = train("cut", **changes)
    assert again[0].resumed_at == epochs
    assert_same(again, whole, tmp_path / "cut.npz", tmp_path / "whole.npz")


def test_the_same_seed_the_same_weights_and_another_seed_others(train):
    one, other = train("one"), train("other")
    assert one[0].history == other[0].history
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)
    third = train("third", seed=4)
    assert third[0].history["loss"] != one[0].history["loss"]


def test_other_threads_that_draw_random_numbers_change_no_first_weights(tiny_backbone):
    """As Dask's do, in a worker: Keras takes the seeds of its initialisers from Python's own generator."""
    spec = NetworkSpec(MIN_PX, 3, backbone=tiny_backbone)
    quiet = fitting.first_weights(spec, None, 5)
    stop = threading.Event()

    def draw():
        while not stop.wait(0.004):
            random.random()

    noisy = threading.Thread(target=draw)
    noisy.start()
    try:
        for _ in range(20):
            fitting._first_weights.cache_clear()
            for a, b in zip(fitting.first_weights(spec, None, 5), quiet, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        stop.set()
        noisy.join()


def test_the_model_has_its_best_weights(train, scene):
    """The best epoch is not the last, and what the model says of the validation part is what was logged."""
    cells, ses, image = scene
    fitted, _ = train(**SETTINGS["restarts"] | {"flip_validation": False})
    val_loss = fitted.history["val_loss"]
    assert fitted.best_epoch == int(np.argmin(val_loss)) < len(val_loss) - 1
    said = fitted.model(CellReader(image).read(cells[12:])).numpy()
    naive = -said[np.arange(4), ses[12:]].mean()
    assert naive == pytest.approx(min(val_loss), rel=1e-5)


def test_a_restart_begins_with_the_best_weights_and_a_new_optimiser(train, tmp_path):
    worse = []

    def on_epoch(epoch, logs):
        saved = Checkpoint.load(tmp_path / "a.npz")
        course = saved.facts["course"]
        if course["restart"] and course["leg_start"] == course["epoch"] and not course["finished"]:
            worse.append(course["best_epoch"] < epoch)
            of_network, of_optimiser = np.split(np.arange(len(saved.last)), [len(saved.best)])
            for k in of_network:
                np.testing.assert_array_equal(saved.last[k], saved.best[k])
            # but for its learning rate, Adam is at nought
            assert sum(np.any(saved.last[k] != 0) for k in of_optimiser) == 1

    train(on_epoch=on_epoch, **SETTINGS["restarts"])
    assert worse == [True, True]


def test_every_epoch_has_its_own_learning_rate(train):
    fitted, _ = train(**SETTINGS["step"] | {"epochs": EPOCHS})
    expected = 1e-3 * 0.1 ** (np.arange(EPOCHS) // 2)
    np.testing.assert_allclose(fitted.history["learning_rate"], expected)


def test_the_optimiser_steps_at_the_rate_that_is_logged(train, tmp_path):
    """Adam's first step moves every number by the learning rate, whatever its gradient."""
    before = build_network(NetworkSpec(MIN_PX, 3, backbone="tiny"), None)
    assert before.get_layer("logit").bias.numpy() == 0
    train(epochs=1, batch_size=16, learning_rate=0.07, schedule="constant")
    last = Checkpoint.load(tmp_path / "a.npz").last
    names = [v.path for v in before.variables]
    bias = last[next(i for i, n in enumerate(names) if n.endswith("logit/bias"))]
    assert abs(bias[0]) == pytest.approx(0.07, rel=1e-3)


def test_the_logs_hold_a_row_and_an_event_an_epoch(train, tmp_path):
    changes = SETTINGS["restarts"]
    with pytest.raises(Cut):
        train(on_epoch=stop_after(2), **changes)
    table = pd.read_csv(tmp_path / "logs" / "a.csv")
    assert table["epoch"].tolist() == [0, 1, 2]
    fitted, _ = train(**changes)
    epochs = range(len(fitted.history["loss"]))
    log = tmp_path / "logs" / "a.csv"
    table = pd.read_csv(log, index_col="epoch")
    assert table.index.tolist() == list(epochs)
    assert set(table) == set(fitted.history)
    for name, values in fitted.history.items():
        # pandas 2 reads the last digit otherwise
        assert table[name].tolist() == pytest.approx(values, rel=1e-12)
    for part, names in (("train", ("loss", "learning_rate")), ("validation", ("val_loss",))):
        events = scalars(tmp_path / "logs" / "a" / part)
        for name in names:
            written = events[f"epoch_{name.removeprefix('val_')}"]
            assert sorted(written) == list(epochs), name
            np.testing.assert_allclose(
                [written[k] for k in epochs], fitted.history[name], rtol=1e-6, err_msg=name
            )


def scalars(folder):
    """What event files hold: name → epoch → value."""
    found = {}
    for file in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                at = found.setdefault(value.tag, {})
                at[event.step] = float(tf.make_ndarray(value.tensor))
    return found


def test_a_loss_that_is_no_number_is_named(train, tmp_path):
    seen = []
    with pytest.raises(SesgridError, match=r"NaN in epoch \d+: lower train.learning_rate .*1e\+38"):
        train(learning_rate=1e38, on_epoch=lambda epoch, logs: seen.append(logs["loss"]))
    assert np.isfinite(seen).all()
    saved = Checkpoint.load(tmp_path / "a.npz")
    assert (0 if saved is None else saved.facts["course"]["epoch"]) == len(seen)


def test_a_checkpoint_of_another_training_is_left_aside(train, tmp_path):
    for other, named in (
        ({"facts": {"model_id": "y"}}, "model_id"),
        ({"learning_rate": 5e-4}, "protocol"),
        ({"seed": 4}, "seed"),
        ({"head": "ordinal"}, "network"),
    ):
        with pytest.raises(Cut):
            train(named, epochs=2, on_epoch=stop_after(0))
        with pytest.warns(
            SesgridWarning, match=rf"another training \({named} differ\).*begins anew"
        ):
            fitted, _ = train(named, epochs=2, **other)
        assert fitted.resumed_at is None
        assert len(fitted.history["loss"]) == 2
        # its logs are its own
        assert len(pd.read_csv(tmp_path / "logs" / f"{named}.csv")) == 2
        events = scalars(tmp_path / "logs" / named / "train")["epoch_loss"]
        assert events[0] == pytest.approx(fitted.history["loss"][0])
        # with the settings back, the first goes on
        with pytest.warns(SesgridWarning, match="another training"):
            again, _ = train(named, epochs=2)
        assert again.resumed_at == 1


def test_what_began_from_imagenet_is_not_thrown_away_where_that_cannot_be_had(
    train, monkeypatch, tmp_path
):
    had = ["imagenet"]
    monkeypatch.setattr(fitting, "obtainable_weights", lambda *a: had[0])
    # the tiny network has no weights of ImageNet: stand in for them
    plain = fitting.build_network
    monkeypatch.setattr(fitting, "build_network", lambda spec, weights: plain(spec, None))
    with pytest.raises(Cut):
        train(initial="imagenet", on_epoch=stop_after(1))
    kept = (tmp_path / "a.npz").read_bytes()
    had[0] = None
    with pytest.raises(SesgridError, match="began from ImageNet's weights, which cannot be had"):
        train(initial="imagenet")
    assert (tmp_path / "a.npz").read_bytes() == kept
    had[0] = "imagenet"
    again, _ = train(initial="imagenet")
    assert (again.resumed_at, again.initial_weights) == (2, "imagenet")
    # the other way round it begins anew, with the better start
    had[0] = None
    with pytest.raises(Cut):
        train("b", initial="imagenet", on_epoch=stop_after(1))
    had[0] = "imagenet"
    with pytest.warns(SesgridWarning, match="initial_weights differ"):
        better, _ = train("b", initial="imagenet")
    assert (better.resumed_at, better.initial_weights) == (None, "imagenet")


def test_a_checkpoint_that_does_not_fit_is_refused(train, tmp_path):
    with pytest.raises(Cut):
        train(on_epoch=stop_after(1))
    path = tmp_path / "a.npz"
    saved = Checkpoint.load(path)
    for change in (
        {"last": saved.last[:-1]},
        {"best": saved.best[1:]},
        {"last": [*saved.last[:-1], np.zeros((3, 1))]},
        {"last": saved.last[::-1]},
    ):
        dataclasses.replace(saved, **change).save(path)
        with pytest.raises(ModelMismatchError, match=r"a\.npz: .* another network .*delete it"):
            train()


def test_a_finished_training_is_not_done_again(train):
    once = train()
    seen = []
    again = train(on_epoch=lambda *a: seen.append(a), fails_at=1)
    assert not seen
    assert again[0].history == once[0].history
    assert (again[0].best_epoch, again[0].resumed_at) == (once[0].best_epoch, EPOCHS)
    for a, b in zip(again[1], once[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_cut_training_leaves_nothing_to_the_next(train):
    """The compiled network is shared; the cells that judge it are not."""
    alone, _ = train("alone", held=slice(0, 5), epochs=2)
    with pytest.raises(Cut):
        train("cut", on_epoch=stop_after(1))
    after, _ = train("after", held=slice(0, 5), epochs=2)
    assert after.history == alone.history


def test_a_full_disk_costs_an_epoch(train, small_disk, tmp_path):
    whole = train("whole", logs=None)

    def on_epoch(epoch, logs):
        if epoch == 3:
            fill(small_disk, leave=4096)

    with pytest.raises(StoreError, match="the epoch before is still at"):
        train("full", folder=small_disk, logs=None, on_epoch=on_epoch)
    assert Checkpoint.load(small_disk / "full.npz").facts["course"]["epoch"] == 4
    assert {p.name for p in small_disk.iterdir()} == {"filler", "full.npz"}
    (small_disk / "filler").unlink()
    again = train("full", folder=small_disk, logs=None)
    assert again[0].resumed_at == 4
    assert_same(again, whole, small_disk / "full.npz", tmp_path / "whole.npz")


def test_weights_of_cells_are_keras_own(train, scene):
    cells, ses, image = scene
    weights = np.random.default_rng(1).uniform(0.2, 3, 16).astype(np.float32)
    options = {"epochs": 1, "batch_size": 5, "samples_per_epoch": 12, "flips": False}
    plain, _ = train("plain", **options)
    fitted, _ = train("weighted", weights=weights, **options)
    assert fitted.history["loss"] != plain.history["loss"]
    model = keras.Model(fitted.model.inputs, fitted.model.outputs)
    # log-probabilities are logits of themselves
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    images = keras.ops.convert_to_tensor(CellReader(image).read(cells[12:]), "float32")
    expected = model.evaluate(
        images, np.eye(3)[ses[12:]], sample_weight=weights[12:], batch_size=5, verbose=0
    )
    assert fitted.history["val_loss"][0] == pytest.approx(expected, rel=1e-5)
    naive = -(weights[12:] * model(images).numpy()[np.arange(4), ses[12:]]).mean()
    assert fitted.history["val_loss"][0] == pytest.approx(naive, rel=1e-5)


def test_a_cell_without_weight_does_not_train(train, scene):
    """One batch an epoch, and all its weights nought: Adam does not move."""
    options = {"epochs": 1, "batch_size": 12, "samples_per_epoch": 12}
    fitted, after = train("nought", weights=np.zeros(16, np.float32), **options)
    assert fitted.history["loss"] == [0]
    before = fitting.first_weights(NetworkSpec(MIN_PX, 3, backbone="tiny"), None, 3)
    kinds = [v.path for v in fitted.model.variables]
    for name, a, b in zip(kinds, after, before, strict=True):
        if "moving" not in name and "seed" not in name:
            np.testing.assert_array_equal(a, b)


def test_a_file_of_weights_that_has_changed_is_read_anew(train, tmp_path):
    """In one process, as in a notebook: what a path held before is no matter."""
    file = tmp_path / "backbone.weights.h5"
    kernels = []
    for value in (0.25, 0.5):
        source = build_network(NetworkSpec(MIN_PX, 3, backbone="tiny"), None)
        backbone = keras.Model(source.input, source.get_layer("top_conv").output)
        backbone.get_layer("stem").set_weights(
            [np.full_like(w, value) for w in backbone.get_layer("stem").get_weights()]
        )
        backbone.save_weights(file)
        options = {"weights": None, "epochs": 1, "learning_rate": 1e-12}
        fitted = fit_from(train, file, options, f"w{value}")
        kernels.append(fitted.model.get_layer("stem").kernel.numpy().mean())
        assert fitted.initial_weights == str(file)
    np.testing.assert_allclose(kernels, [0.25, 0.5], atol=1e-6)


def fit_from(train, file, options, name):
    """Train from a file of weights; its hash names it."""
    from sesgrid.store.models import file_sha256

    facts = {"model_id": name, "initial_weights_sha256": file_sha256(file)}
    return train(name, facts=facts, initial=str(file), **options)[0]
