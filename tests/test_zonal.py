"""Statistics per fragment, against numpy and scipy polygon by polygon."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.kernels.zonal import FRAGMENT_STATISTICS, fragment_statistics


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 9), st.booleans())
def test_every_statistic_is_numpys(seed, height, width, sparse):
    rng = np.random.default_rng(seed)
    maps = rng.gamma(0.5, size=(2, height, width)).astype(np.float32)
    if sparse:
        maps *= rng.random(maps.shape) < 0.5
    ids = rng.choice(np.array([0, 3, 4, 90], np.uint32), (height, width))
    known, counts, table = fragment_statistics(maps, ids)
    assert known.tolist() == sorted(set(ids.ravel().tolist()) - {0})
    for fragment, count, row in zip(known, counts, table, strict=True):
        found = dict(zip(FRAGMENT_STATISTICS, row, strict=True))
        inside = maps[:, ids == fragment].astype(np.float64)
        assert count == inside.shape[1]
        for name, values in zip(("low", "high"), inside, strict=True):
            for statistic in ("sum", "min", "max", "mean", "median"):
                expected = getattr(np, statistic)(values)
                assert found[f"{name}_{statistic}"] == pytest.approx(expected, rel=1e-6), statistic
        if not inside.sum(axis=1).all():
            assert np.isnan(found["total_variation"])
            assert np.isnan(found["symmetric_kl"])
            continue
        p, q = (values / values.sum() for values in inside)
        assert found["total_variation"] == pytest.approx(abs(p - q).sum() / 2, abs=1e-7)
        assert found["symmetric_kl"] == pytest.approx(entropy(p, q) + entropy(q, p), abs=1e-6)


def test_no_polygon_no_row():
    known, counts, table = fragment_statistics(
        np.ones((2, 3, 3), np.float32), np.zeros((3, 3), np.uint32)
    )
    assert known.size == counts.size == 0
    assert table.shape == (0, len(FRAGMENT_STATISTICS))


def test_what_is_wrong_is_named():
    maps, ids = np.ones((2, 3, 3), np.float32), np.ones((3, 3), np.uint32)
    with pytest.raises(FormatError, match="float32 and ids as uint32"):
        fragment_statistics(maps, ids.astype(np.int64))
    with pytest.raises(GridMismatchError, match="same pixels"):
        fragment_statistics(maps[:, :2], ids)
    for bad in (np.nan, -1.0, np.inf):
        broken = maps.copy()
        broken[1, 2, 0] = bad
        with pytest.raises(FormatError, match=r"\(y, x\) = \(2, 0\)"):
            fragment_statistics(broken, ids)
        # outside every polygon nothing is asked
        fragment_statistics(broken, np.triu(ids))
