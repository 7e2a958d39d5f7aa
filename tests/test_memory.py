"""A plan that does not fit a worker is refused with the numbers, before a byte is written."""

from __future__ import annotations

import pytest

from sesgrid.errors import ConfigError
from sesgrid.grid import Grid
from sesgrid.run.memory import WORKER_BASE_BYTES, require_mosaic_fits
from sesgrid.stages.mosaic import Mosaic, plan_mosaic
from sesgrid.stages.place import group_blocks
from tests.test_mosaic import FakeReader, around, cells, tiles


class Cluster:
    """What is asked of a Dask client."""

    def __init__(self, *workers: tuple[int, int]) -> None:
        self.workers = workers

    def scheduler_info(self, n_workers: int) -> dict:
        assert n_workers == -1
        return {
            "workers": {
                f"tcp://w{k}": {"nthreads": threads, "memory_limit": limit}
                for k, (threads, limit) in enumerate(self.workers)
            }
        }


@pytest.fixture(scope="module")
def plan():
    grid = Grid(50, 4)
    return Mosaic(grid, FakeReader()), group_blocks(plan_mosaic(grid, cells(9), tiles(around(8))))[
        0
    ]


def test_the_busiest_worker_decides(plan):
    stage, group = plan
    fixed = WORKER_BASE_BYTES + (64 << 20)
    one = require_mosaic_fits(Cluster((1, 0)), stage, group, 64)
    three = require_mosaic_fits(Cluster((1, 0), (3, 0)), stage, group, 64)
    assert three - fixed == 3 * (one - fixed)
    # at least the block and what it is made of
    assert one - fixed > 7 * stage.grid.block_px**2


def test_a_worker_that_is_too_small_is_named(plan):
    stage, group = plan
    needed = require_mosaic_fits(Cluster((2, 0)), stage, group, 64)
    require_mosaic_fits(Cluster((2, needed)), stage, group, 64)
    with pytest.raises(
        ConfigError, match=r"tcp://w1: 2 threads .*cluster\.threads.*cells_per_block"
    ):
        require_mosaic_fits(Cluster((1, needed), (2, needed - 1)), stage, group, 64)


def test_larger_blocks_take_more(plan):
    _, group = plan
    small = Mosaic(Grid(50, 4), FakeReader())
    large = Mosaic(Grid(50, 16), FakeReader())
    whole = group_blocks(plan_mosaic(large.grid, cells(9), tiles(around(8))))
    assert large.peak_bytes(whole[0]) > 2 * small.peak_bytes(group)
