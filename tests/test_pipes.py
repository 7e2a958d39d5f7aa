"""A pipe or a device in the place of a file is told, and not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zarr

from sesgrid.batches.leases import Leases
from sesgrid.errors import FormatError, ReadError
from sesgrid.foreign import reading, writing
from sesgrid.grid import Extent, Grid
from sesgrid.store.checkpoint import Checkpoint
from sesgrid.store.cube import Cube, open_cube
from sesgrid.store.location import get, open_group
from sesgrid.store.models import file_sha256
from sesgrid.store.sealed import check_path, is_sound, replace_sealed, require_sound

# a test that waits fails
pytestmark = pytest.mark.timeout(60)


def _read(path: Path) -> object:
    with reading(path):
        return path.read_bytes()


def _write(path: Path) -> object:
    with writing(path):
        return path.write_bytes(b"x")


@pytest.mark.parametrize(
    "act", [_read, _write, file_sha256, Checkpoint.load, lambda p: get(str(p.parent), p.name)]
)
def test_a_pipe_is_not_waited_for(tmp_path, act):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="pipe is a pipe or a device: expected a file"):
        act(tmp_path / "pipe")


@pytest.mark.parametrize("device", ["zero", "null"])
def test_nor_is_a_device_read(tmp_path, device):
    (tmp_path / "link").symlink_to(f"/dev/{device}")
    with pytest.raises(ReadError, match="link is a pipe or a device"):
        _read(tmp_path / "link")


def test_nor_are_the_files_of_a_store(tmp_path):
    path = str(tmp_path / "a.zarr")
    zarr.open_group(path, mode="w").create_array("x", shape=(4,), dtype="u1")[:] = 1
    for key in ("x/c/0", "x/zarr.json"):
        (tmp_path / "a.zarr" / key).unlink()
        os.mkfifo(tmp_path / "a.zarr" / key)
        with pytest.raises(ReadError, match="is a pipe or a device"):
            open_group(path, "r")["x"][:]


def test_nor_are_those_of_a_cube(tmp_path):
    extent = Extent.of_cells(Grid(10, 4), [0, 9], [0, 9])
    cube = Cube.create(tmp_path / "c.zarr", extent, {})
    told = tmp_path / "c.zarr" / "pixels" / "image" / "zarr.json"
    told.unlink()
    os.mkfifo(told)
    with pytest.raises((ReadError, FormatError), match="pipe or a device"):
        open_cube(cube.path)


def test_nor_is_a_lease(tmp_path):
    with Leases(tmp_path) as ours, Leases(tmp_path) as theirs:
        ours.take("mosaic", ["a"])
        (lease,) = tmp_path.glob("mosaic/a*")
        lease.unlink()
        os.mkfifo(lease)
        with pytest.raises(ReadError, match="is a pipe or a device"):
            theirs.holder(["mosaic"])
        lease.unlink()


def test_a_checksum_that_is_none_is_written_again(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"x")
    os.mkfifo(check_path(path))
    assert not is_sound(path)
    with pytest.raises(FormatError, match="is damaged"):
        require_sound(path)
    (tmp_path / "partial").write_bytes(b"y")
    replace_sealed(tmp_path / "partial", path)
    assert is_sound(path)
    assert path.read_bytes() == b"y"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "a.parquet.crc32c"]
