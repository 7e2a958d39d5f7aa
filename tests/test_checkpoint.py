"""Checkpoints: whole or absent, never pickled, and the one before survives."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sesgrid.errors import FormatError, StoreError
from sesgrid.store.checkpoint import Checkpoint, fits
from tests.conftest import fill

FACTS = {"training": {"model_id": "Nîmes-0", "seed": 3}, "course": {"best": 0.25, "none": None}}


def example(seed=0, scale=1):
    """Arrays of all kinds that networks and optimisers hold, a dozen of one, so that order is by number."""
    rng = np.random.default_rng(seed)
    last = [rng.normal(0, 1, (3, 2)).astype(np.float32) for _ in range(12)]
    last += [np.int64(7 + seed), np.zeros((0,), np.float32), np.array([1, 2], np.uint32)]
    best = [rng.normal(0, 1, (scale, 5)).astype(np.float32), np.float32([np.nan, np.inf, -0.0])]
    return Checkpoint(FACTS, [np.asarray(a) for a in last], best)


def assert_equal(a, b):
    assert a.facts == b.facts
    for ours, theirs in ((a.last, b.last), (a.best, b.best)):
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs, strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            assert x.tobytes() == y.tobytes()


def test_it_comes_back_as_it_was(tmp_path):
    path = tmp_path / "deep" / "a.checkpoint.npz"
    assert Checkpoint.load(path) is None
    for seed in (0, 1):
        example(seed).save(path)
        assert_equal(Checkpoint.load(path), example(seed))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_plain_numpy_reads_it_and_nothing_in_it_is_pickled(tmp_path):
    path = tmp_path / "a.npz"
    example().save(path)
    with np.load(path, allow_pickle=False) as file:
        kinds = {file[n].dtype.kind for n in file.files}
    assert "O" not in kinds


def test_pickles_are_not_loaded(tmp_path):
    """Neither in the place of the file, nor of one of its arrays."""
    path, ran = tmp_path / "a.npz", tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        Checkpoint.load(path)
    for name in ("facts", "last_00000"):
        arrays = {"facts": np.array("{}"), name: np.array([Evil()], dtype=object)}
        np.savez(path, allow_pickle=True, **arrays)
        with pytest.raises(FormatError, match="not a readable checkpoint"):
            Checkpoint.load(path)
    with pytest.raises(TypeError):
        example().__class__({"x": Evil()}, [], []).save(path)
    assert not ran.exists()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_named_or_does_no_harm(tmp_path, data):
    """Bytes changed anywhere, or the end cut off."""
    path = tmp_path / "a.npz"
    example().save(path)
    whole = path.read_bytes()
    broken = bytearray(whole)
    if data.draw(st.booleans(), "cut"):
        del broken[data.draw(st.integers(0, len(whole) - 1), "length") :]
    else:
        for _ in range(data.draw(st.integers(1, 3), "changes")):
            at = data.draw(st.integers(0, len(whole) - 1), "at")
            broken[at] ^= data.draw(st.integers(1, 255), "by")
    path.write_bytes(broken)
    with contextlib.suppress(FormatError):
        loaded = Checkpoint.load(path)
        # a time stamp, say; or the name of an array, which is then missing, and the rest does not fit
        if len(loaded.last) == len(example().last) and len(loaded.best) == len(example().best):
            assert_equal(loaded, example())


def test_what_is_no_checkpoint_is_named(tmp_path):
    path = tmp_path / "a.npz"
    for content in (b"", b"PK", b"not a file of arrays"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"a\.npz is not a readable checkpoint .*delete it"):
            Checkpoint.load(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        Checkpoint.load(path)
    np.savez(path, last_00000=np.zeros(3))
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        Checkpoint.load(path)
    # an entry that says it is encrypted
    example().save(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        first = file.infolist()[0]
    struct.pack_into("<H", content, first.header_offset + 6, 1)
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<H", content, central + 8, 1)
    path.write_bytes(content)
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        Checkpoint.load(path)


@pytest.mark.parametrize("leave", [0, 512, 8192])
def test_on_a_full_disk_the_one_before_stays(small_disk, leave):
    path = small_disk / "a.npz"
    before = example(1, scale=1000)
    before.save(path)
    fill(small_disk, leave=leave)
    with pytest.raises(StoreError, match=r"No space left on device\); that of the epoch before is"):
        example(2, scale=1000).save(path)
    assert_equal(Checkpoint.load(path), before)
    assert {p.name for p in small_disk.iterdir()} == {"a.npz", "filler"}
    (small_disk / "filler").unlink()
    example(2, scale=1000).save(path)
    assert_equal(Checkpoint.load(path), example(2, scale=1000))


def test_on_a_full_disk_the_first_leaves_nothing(small_disk):
    fill(small_disk)
    with pytest.raises(StoreError, match="none before"):
        example().save(small_disk / "a.npz")
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
    assert Checkpoint.load(small_disk / "a.npz") is None


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path):
    path = tmp_path / "a.npz"
    (tmp_path / ".a.npz.elsewhere-1.partial").write_bytes(b"half")
    assert Checkpoint.load(path) is None
    example().save(path)
    assert_equal(Checkpoint.load(path), example())


def test_two_writers_do_not_mix_what_they_write(tmp_path):
    """Of two processes that write the same checkpoint at once, one comes last, and is whole."""
    path = tmp_path / "a.npz"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_save_often, args=(path, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = Checkpoint.load(path)
    assert_equal(found, example(int(found.last[12]) - 7, scale=1000))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def _save_often(path, seed):
    checkpoint = example(seed, scale=1000)
    for _ in range(30):
        checkpoint.save(path)


def test_what_fits():
    saved = example()
    assert fits(saved.last, saved.last)
    assert not fits(saved.last[:-1], saved.last)
    assert not fits(saved.last, saved.last[:-1])
    assert not fits([a.T for a in saved.last], saved.last)
    assert fits([], [])
    assert dataclasses.replace(saved, best=[]).best == []
