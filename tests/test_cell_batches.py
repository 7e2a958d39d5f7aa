"""Batches for training: which cells, in which order, flipped and cropped how, by how many threads."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import ConfigError
from sesgrid.grid import Extent, Grid
from sesgrid.stages.cell_batches import CellBatches, shuffled
from sesgrid.store.cell_reader import CellReader

ROW, COL = -12, 7


def city(n=10, px=4, seed=0):
    """Pixels uint8 ``(cell, band, y, x)``, their reader, and where the cells are, `n` in a row."""
    rng = np.random.default_rng(seed)
    cells = np.stack([np.full(n, ROW), COL + np.arange(n)], axis=1)
    extent = Extent.of_cells(Grid(px, 4), *cells.T)
    pixels = rng.integers(0, 256, (n, 3, px, px)).astype(np.uint8)
    image = np.zeros((3, *extent.shape_px), np.uint8)
    for one, (row, col) in zip(pixels, cells, strict=True):
        image[(slice(None), *extent.cell_slices(row, col))] = one
    array = xr.DataArray(image, dims=("band", "y", "x"), attrs=extent.attributes())
    return pixels, CellReader(array), cells


def batches(n=10, px=4, batch_size=4, **options):
    pixels, reader, cells = city(n, px)
    return pixels, CellBatches(reader, cells, np.arange(n) % 3, 3, batch_size, **options)


def flipped(cell):
    """The four flips of a cell ``(band, y, x)``, each ``(y, x, band)``."""
    source = np.moveaxis(cell, 0, -1)
    return [source[::v, ::h] for v in (1, -1) for h in (1, -1)]


def which(one, kinds):
    (kind,) = [k for k, other in enumerate(kinds) if np.array_equal(one, other)]
    return kind


def test_unaugmented_batches_are_the_cells_in_order():
    pixels, data = batches()
    assert len(data) == 3
    images, classes = zip(*(data[k] for k in range(3)), strict=True)
    assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate(images), np.moveaxis(pixels, 1, -1))
    np.testing.assert_array_equal(np.concatenate(classes).argmax(1), np.arange(10) % 3)


@settings(max_examples=30, deadline=None)
@given(
    samples=st.integers(1, 37),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 9),
    shuffle=st.sampled_from(["full", "blocks"]),
)
def test_every_cell_comes_equally_often(samples, epochs, seed, shuffle):
    _, data = batches(augment=True, samples_per_epoch=samples, seed=seed, shuffle=shuffle)
    seen = []
    for _ in range(epochs):
        seen.append(data.indices())
        assert len(seen[-1]) == samples
        data.on_epoch_end()
    counts = np.bincount(np.concatenate(seen), minlength=10)
    assert np.ptp(counts) <= 1


def test_augmented_images_are_flips_and_repeat_with_the_seed():
    pixels, data = batches(augment=True, seed=5)
    image, _ = data[0]
    kinds = set()
    for k in range(3):
        for one, label, index in zip(*data[k], data.indices()[k * 4 :], strict=False):
            kinds.add(which(one, flipped(pixels[index])))
            assert label.argmax() == index % 3
    assert len(kinds) >= 3
    again = batches(augment=True, seed=5)[1][0][0]
    np.testing.assert_array_equal(image, again)
    data.on_epoch_end()
    assert not np.array_equal(image, data[0][0])


def test_a_training_taken_up_again_sees_what_it_would_have_seen():
    options = {"augment": True, "seed": 3, "samples_per_epoch": 7}
    _, whole = batches(**options)
    for _ in range(5):
        whole.on_epoch_end()
    _, resumed = batches(**options)
    resumed[1]  # whatever was asked before
    resumed.epoch = 5
    for k in (1, 0):
        for a, b in zip(whole[k], resumed[k], strict=True):
            np.testing.assert_array_equal(a, b)


def test_validation_may_be_flipped_without_being_shuffled():
    pixels, data = batches(n=40, batch_size=40, flips=True, seed=1)
    kinds = [which(one, flipped(cell)) for one, cell in zip(data[0][0], pixels, strict=True)]
    assert np.bincount(kinds, minlength=4).min() >= 4
    data.on_epoch_end()
    later = [which(one, flipped(cell)) for one, cell in zip(data[0][0], pixels, strict=True)]
    assert 0.5 < np.mean(np.array(later) != kinds) < 1  # other flips in another epoch
    _, plain = batches(n=40, batch_size=40, augment=True, flips=False, seed=1)
    for one, index in zip(plain[0][0], plain.indices(), strict=True):
        np.testing.assert_array_equal(one, np.moveaxis(pixels[index], 0, -1))


def test_crops_are_parts_of_their_flipped_cell():
    pixels, data = batches(n=6, px=64, batch_size=6, augment=True, crop_share=0.75, seed=1)
    image, _ = data[0]
    assert image.shape == (6, 48, 48, 3)
    places = set()
    for one, index in zip(image, data.indices(), strict=True):
        found = [
            (kind, y, x)
            for kind, source in enumerate(flipped(pixels[index]))
            for y in range(17)
            for x in range(17)
            if (source[y : y + 48, x : x + 48] == one).all()
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 3
    data.crop_share = 0.1
    assert data[0][0].shape == (6, 32, 32, 3)


def test_weights_travel_with_their_cells():
    weight = np.linspace(0, 1, 10)
    _, data = batches(augment=True, sample_weight=weight)
    _, _, found = data[1]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, weight[data.indices()[4:8]], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 200), side=st.integers(1, 12), seed=st.integers(0, 5))
def test_a_shuffle_of_blocks_is_a_permutation_that_stays_in_its_window(n, side, seed):
    at = np.random.default_rng(seed).integers(0, 60, (n, 2))
    blocks = at // side
    order = shuffled(blocks, "blocks", [seed], window=16)
    assert sorted(order.tolist()) == list(range(n))
    # the blocks of a window are all read before those of the next
    names = [tuple(b) for b in blocks[order].tolist()]
    first, last = {}, {}
    for place, name in enumerate(names):
        first.setdefault(name, place)
        last[name] = place
    for place in range(n):
        open_now = {b for b in first if first[b] <= place <= last[b]}
        assert len(open_now) <= 16


def test_a_shuffle_of_blocks_mixes_them():
    blocks = np.repeat(np.stack([np.arange(64), np.zeros(64, int)], axis=1), 20, axis=0)
    order = shuffled(blocks, "blocks", [0], window=16)
    here = blocks[order, 0].reshape(-1, 10)
    # ten out of sixteen blocks alike: 7.6 different ones are expected, of all sixteen blocks 9.3
    assert np.mean([len(set(b)) for b in here.tolist()]) == pytest.approx(7.6, abs=0.2)
    assert not np.array_equal(order, shuffled(blocks, "blocks", [1], window=16))
    with pytest.raises(ConfigError, match="full, blocks; received 'none'"):
        shuffled(blocks, "none", [0])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_does_not_depend_on_the_threads(workers):
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    _, expected = batches(n=40, augment=True, seed=2)
    _, data = batches(n=40, augment=True, seed=2, workers=workers)
    adapter = PyDatasetAdapter(data)
    for epoch in range(2):
        adapter.on_epoch_begin()
        seen = list(adapter.get_tf_dataset())
        adapter.on_epoch_end()
        assert len(seen) == 10
        expected.epoch = epoch
        for k, (image, classes) in enumerate(seen):
            np.testing.assert_array_equal(image.numpy(), expected[k][0])
            np.testing.assert_array_equal(classes.numpy(), expected[k][1])


def test_fit_takes_bytes_for_the_numbers_they_are():
    """A network that only adds up sees the same with uint8 as with float32, weights and all."""

    def losses(data):
        inputs = keras.Input((4, 4, 3))
        keras.utils.set_random_seed(0)
        outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inputs))
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(1e-5), "mse")
        return model.fit(data, epochs=3, verbose=0, shuffle=False).history["loss"]

    class Floats(CellBatches):
        def __getitem__(self, batch):
            image, *rest = super().__getitem__(batch)
            return image.astype(np.float32), *rest

    _, reader, cells = city()
    options = {"augment": True, "sample_weight": np.linspace(0.5, 1, 10)}
    made = (cells, np.arange(10) % 3, 3, 4)
    ours = losses(CellBatches(reader, *made, workers=2, **options))
    assert ours == pytest.approx(losses(Floats(reader, *made, **options)), rel=1e-6)
    assert ours[0] != ours[1]


@pytest.mark.parametrize("augment", [True, False])
def test_devices_share_every_batch_equally(augment):
    """The last batch is filled up with cells that come again; no cell is left out."""
    _, data = batches(9, batch_size=4, multiple=2, augment=augment)
    sizes = [len(data[k][0]) for k in range(len(data))]
    assert sizes == [4, 4, 2]
    assert set(data.indices().tolist()) == set(range(9))
    with pytest.raises(ConfigError, match="a multiple of the 3 devices, received 4"):
        batches(9, batch_size=4, multiple=3)
