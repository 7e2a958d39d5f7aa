"""Class sums against np.bincount, their laws, and the documented order of summation."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.kernels import class_areas, class_sums
from sesgrid.kernels.runs import run_ends


def land(rng, shape, n_classes, run_px):
    """Rows of random runs; `run_px` about their length."""
    y, x = shape
    starts = np.cumsum(rng.random((y, x)) < 1 / run_px, axis=1)
    colours = rng.integers(0, n_classes, (y, x + 1)).astype(np.uint8)
    return np.take_along_axis(colours, starts, axis=1)


def by_bincount(activation, classes, p, n):
    out = np.empty((classes.shape[0] // p, classes.shape[1] // p, n))
    for i, j in np.ndindex(out.shape[:2]):
        window = slice(i * p, (i + 1) * p), slice(j * p, (j + 1) * p)
        out[i, j] = np.bincount(classes[window].ravel(), activation[window].ravel(), n)
    return out


def stretch_in_lanes(values):
    """Sixteen lanes, halved until one is left."""
    padded = np.zeros(-(-len(values) // 16) * 16)
    padded[: len(values)] = values
    lanes = np.zeros(16)
    for row in padded.reshape(-1, 16):
        lanes = lanes + row
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return lanes[0]


def in_documented_order(activation, classes, n):
    """One cell: rows downward, runs of one class from left to right, a run in lanes."""
    sums = np.zeros(n)
    for values, row in zip(activation, classes, strict=True):
        ends = [0, *(np.flatnonzero(np.diff(row)) + 1), len(row)]
        for start, stop in itertools.pairwise(ends):
            if row[start] < n:
                sums[row[start]] += stretch_in_lanes(values[start:stop])
    return sums


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 30, 200]))
def test_runs_end_where_the_value_changes(seed, run_px):
    rng = np.random.default_rng(seed)
    row = land(rng, (1, int(rng.integers(1, 300))), 256, run_px)[0]
    start, stop = np.sort(rng.integers(0, len(row) + 1, 2)).tolist()
    ends = np.full(len(row) + 1, -7)
    n = run_ends(row, start, stop, ends)
    part = row[start:stop]
    expected = [*(np.flatnonzero(np.diff(part.astype(int))) + 1 + start), stop] if len(part) else []
    assert ends[:n].tolist() == expected
    assert (ends[n:] == -7).all()


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = draw(st.one_of(st.integers(1, 40), st.integers(60, 140)))
    shape = p * draw(st.integers(1, 3)), p * draw(st.integers(1, 3))
    n = draw(st.sampled_from([1, 2, 20, 256]))
    classes = land(rng, shape, n, draw(st.sampled_from([1, 3, 12, 1000])))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return rng.lognormal(0, 3, shape).astype(dtype), classes, p, n


@settings(max_examples=150, deadline=None)
@given(cases())
def test_sums_and_areas_as_bincount(case):
    activation, classes, p, n = case
    sums, areas = class_sums(*case), class_areas(classes, p, n)
    assert sums.dtype == np.float64
    assert areas.dtype == np.int64
    np.testing.assert_allclose(sums, by_bincount(activation, classes, p, n), rtol=1e-12)
    np.testing.assert_array_equal(areas, by_bincount(np.ones(classes.shape), classes, p, n))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_classes_add_up_to_the_cell(case):
    activation, classes, p, n = case
    cells = activation.astype(np.float64).reshape(classes.shape[0] // p, p, -1, p).sum((1, 3))
    np.testing.assert_allclose(class_sums(*case).sum(axis=-1), cells, rtol=1e-12)
    assert (class_areas(classes, p, n).sum(axis=-1) == p * p).all()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_a_cell_alone_gives_the_bits_of_the_whole(case):
    activation, classes, p, n = case
    whole = class_sums(*case)
    for i, j in np.ndindex(whole.shape[:2]):
        window = slice(i * p, (i + 1) * p), slice(j * p, (j + 1) * p)
        alone = class_sums(activation[window], classes[window], p, n)
        np.testing.assert_array_equal(alone[0, 0], whole[i, j])
        expected = in_documented_order(activation[window], classes[window], min(n, 20))
        np.testing.assert_array_equal(alone[0, 0, :20], expected)


def test_several_maps_share_a_pass():
    rng = np.random.default_rng(1)
    maps, classes = rng.random((3, 32, 48), np.float32), land(rng, (32, 48), 5, 9)
    together = class_sums(maps, classes, 16, 5)
    assert together.shape == (3, 2, 3, 5)
    for m in range(3):
        np.testing.assert_array_equal(together[m], class_sums(maps[m], classes, 16, 5))
    assert class_sums(maps[:0], classes, 16, 5).shape == (0, 2, 3, 5)


def test_float32_is_summed_in_float64():
    activation = np.full((1024, 1024), 0.1, np.float32)
    total = class_sums(activation, np.zeros((1024, 1024), np.uint8), 1024, 1)[0, 0, 0]
    assert total == pytest.approx(float(np.float32(0.1)) * 1024**2, rel=1e-13)


def test_views_read_only_and_transposed_arrays():
    rng = np.random.default_rng(2)
    activation, classes = rng.random((40, 24)), land(rng, (40, 24), 4, 5)
    expected = class_sums(activation, classes, 8, 4)
    turned = class_sums(np.asfortranarray(activation), np.asfortranarray(classes), 8, 4)
    np.testing.assert_array_equal(turned, expected)
    for array in (activation, classes):
        array.flags.writeable = False
    np.testing.assert_array_equal(class_sums(activation, classes, 8, 4), expected)
    np.testing.assert_array_equal(
        class_sums(activation[::-1, ::-1], classes[::-1, ::-1], 8, 4)[::-1, ::-1].round(9),
        expected.round(9),
    )


def test_no_cells():
    empty = np.zeros((0, 16), np.uint8)
    assert class_sums(empty.astype(np.float32), empty, 8, 3).shape == (0, 2, 3)
    assert class_areas(empty, 8, 3).shape == (0, 2, 3)


@pytest.mark.parametrize("run_px", [1, 50])
@pytest.mark.parametrize("pixel", [(0, 0), (13, 21), (23, 31)])
def test_a_class_without_a_column_is_named(pixel, run_px):
    classes = land(np.random.default_rng(3), (24, 32), 4, run_px)
    classes[pixel] = 4
    words = rf"n_classes = 4, received 4 at pixel \(y, x\) = \({pixel[0]}, {pixel[1]}\)"
    with pytest.raises(FormatError, match=words):
        class_sums(np.ones((24, 32)), classes, 8, 4)
    with pytest.raises(FormatError, match=words):
        class_areas(classes, 8, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pixel", [(0, 0), (13, 21), (23, 31)])
def test_an_activation_that_is_not_finite_is_named(pixel, value):
    maps = np.ones((2, 24, 32), np.float32)
    maps[1][pixel] = value
    classes = land(np.random.default_rng(3), (24, 32), 4, 5)
    words = rf"received -?(nan|inf) at pixel \(y, x\) = \({pixel[0]}, {pixel[1]}\)"
    with pytest.raises(FormatError, match=words + " of map 1"):
        class_sums(maps, classes, 8, 4)
    with pytest.raises(FormatError, match=words):
        class_sums(maps[1], classes, 8, 4)


def test_a_sum_beyond_float64_is_an_error():
    with pytest.raises(FormatError, match="exceeds float64"):
        class_sums(np.full((2, 2), 1e308), np.zeros((2, 2), np.uint8), 2, 1)


ZEROS = np.zeros((8, 8), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones((8, 8), int), ZEROS, 4, 2), FormatError, "float32 or float64.*int64"),
        (([[1.0]], ZEROS, 4, 2), FormatError, "received list"),
        ((np.ones(8), ZEROS, 4, 2), FormatError, r"\(map, y, x\)"),
        ((np.ones((8, 8)), ZEROS.astype(int), 4, 2), FormatError, "uint8.*int64"),
        ((np.ones((8, 8)), ZEROS, 4, 0), FormatError, "1 to 256"),
        ((np.ones((8, 8)), ZEROS, 4, 257), FormatError, "1 to 256"),
        ((np.ones((8, 8)), ZEROS, 3, 2), GridMismatchError, "whole cells of 3 × 3"),
        ((np.ones((8, 8)), ZEROS, 0, 2), GridMismatchError, "whole cells"),
        ((np.ones((8, 8)), ZEROS[0], 4, 2), GridMismatchError, "whole cells"),
        ((np.ones((8, 4)), ZEROS, 4, 2), GridMismatchError, "same pixels"),
    ],
)
def test_bad_input_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        class_sums(*arguments)


AT_THE_EDGE = """
import ctypes, mmap, numba, numpy as np
from sesgrid.kernels.lanes import stretch_sum
from sesgrid.kernels.runs import run_ends

memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
page = (ctypes.c_char * mmap.PAGESIZE).from_address(start)
values, codes = np.frombuffer(page, np.float32), np.frombuffer(page, np.uint8)
total = numba.njit(lambda row, a, b: stretch_sum(row, a, b))
ends = np.empty(300, np.int64)
for n in range(1, 200):
    row = values[-n:]
    assert all(total(row, a, n) == 0 for a in range(max(0, n - 40), n))
    assert run_ends(codes[-n:], 0, n, ends) == 1
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mprotect"), reason="needs mprotect")
@pytest.mark.parametrize("processor", ["this one", "generic"])
def test_nothing_is_read_beyond_a_row(processor):
    """The rows end where memory ends: a read beyond them is a fault of the process.

    Registers with masks of their own forgive it; the plainest processor does not.
    """
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    env = {**os.environ, **(plain if processor == "generic" else {})}
    command = [sys.executable, "-c", AT_THE_EDGE]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr or done.returncode
