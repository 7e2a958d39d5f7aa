"""A plan that does not fit a worker is refused with the numbers; what is freed goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pyarrow as pa
import pytest

from sesgrid.errors import ConfigError
from sesgrid.grid import Grid
from sesgrid.run.memory import WORKER_BASE_BYTES, require_mosaic_fits, sparing
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


def test_arrow_has_its_own_pool_again_afterwards():
    before = pa.default_memory_pool().backend_name
    with sparing():
        assert pa.default_memory_pool().backend_name == "system"
        kept = pa.array(range(1000))
    assert pa.default_memory_pool().backend_name == before
    assert kept.to_pylist() == list(range(1000))
    with pytest.raises(ZeroDivisionError), sparing():
        print(1 / 0)
    assert pa.default_memory_pool().backend_name == before


HELD = """
import ctypes
from contextlib import nullcontext
from pathlib import Path
import numpy as np
from sesgrid.run.memory import sparing

def held_mb():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) >> 10

with {context}:
    large = np.ones(3 << 20)
    del large  # from here on the C library keeps pieces of this size
    before = held_mb()
    many, few = zip(*[(np.ones(2 << 20), np.ones(60_000)) for _ in range(8)])
    del many
    print(held_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other ways")
def test_what_is_freed_goes_back_though_pieces_between_are_held():
    def kept_mb(context: str) -> int:
        # who starts Dask's workers sets such variables while it does
        plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        command = [sys.executable, "-c", HELD.format(context=context)]
        done = subprocess.run(command, capture_output=True, check=True, env=plain)
        return int(done.stdout)

    assert kept_mb("sparing()") < 20
    assert kept_mb("nullcontext()") > 100
