"""Files of a run that are cut, changed or gone are named, and made again from what others tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sesgrid.batches.journal import plan_path
from sesgrid.commands.command import Command
from sesgrid.errors import ConfigError, FormatError, SesgridError
from sesgrid.run.audit import planted
from sesgrid.run.found import config_of_cube, files_of_cube
from sesgrid.run.outputs import missing_outputs
from sesgrid.run.own_files import CUBE, MARK, find_file_faults
from sesgrid.run.restore import restore
from sesgrid.run.status import status_of
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store.cube import Cube, open_cube, owner_of
from sesgrid.store.metadata import damaged_keys
from tests.small_run import configure, write_run

PLAN = {
    "time": "2026-01-01T00:00:00+00:00",
    "driver": "host-1",
    "batches": {"75-0": {"key": "k", "blocks": 3, "cells": 9}},
}
LINE = {
    "time": "2026-01-01T00:00:01+00:00", "stage": "mosaic", "batch": "75-0", "block": [1, 2],
    "state": "done", "seconds": 0.5,
}  # fmt: skip


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def garbage(data: bytes) -> bytes:
    return np.random.default_rng(len(data)).bytes(len(data))


DAMAGE: list[Callable[[bytes], bytes]] = [half, flipped, garbage, lambda data: b"", None]


def damage(path: Path, how: Callable[[bytes], bytes] | None) -> None:
    if how is None:
        path.unlink()
    else:
        path.write_bytes(how(path.read_bytes()))


@pytest.fixture
def run(tmp_path):
    """A run as its stages up to the land cover leave it, and its files."""
    config = configure(tmp_path, "Ville")
    write_run(config)
    files = Workspace.of(config)
    made = Cube.open(files.cube)
    # the cube of a run says whose it is
    made.describe({"sesgrid_run": files.mark.run_id(), "title": "Ville"})
    facts = {
        "sesgrid": "0.2", "grid.pixels_per_cell": 64, "grid.cells_per_block": 4, "cube.codec": "zstd",
        "cube.quality": 90,
    }  # fmt: skip
    files.record("mosaic").write(facts, {"cube": made.token})
    files.journals.mkdir()
    plan_path(files.journals, "mosaic").write_text(json.dumps(PLAN))
    (files.journals / "host-1.jsonl").write_text((json.dumps(LINE) + "\n") * 3)
    return config, files


@pytest.mark.parametrize("how", DAMAGE, ids=["cut", "flipped", "garbage", "empty", "gone"])
def test_what_follows_from_other_files_is_named_and_written_again(run, how):
    config, files = run
    before = open_cube(files.cube)["pixels"].to_dataset().compute()
    owner = owner_of(files.cube)
    assert find_file_faults(files) == []
    root = Path(files.cube)
    keys = [
        "zarr.json", "pixels/zarr.json", "pixels/image/zarr.json", "pixels/landcover/zarr.json",
        "pixels/x/c/0", "pixels/spatial_ref/zarr.json",
    ]  # fmt: skip
    for key in keys:
        damage(root / key, how)
    damage(files.mark.path, how)
    found = find_file_faults(files)
    # of a mark that is gone, and of a cube that does not say whose it is, nothing tells that it was there
    named = [f.name for f in found if f.made_by == CUBE]
    assert sorted(named) == sorted(f"cube.zarr/{key}" for key in keys)
    assert [f.made_by for f in found if f.made_by != CUBE] == ([MARK] if how is not None else [])
    assert all("\n" not in str(f) and len(str(f)) < 300 for f in found)
    assert config_of_cube(files.cube, config).output == config.output
    left, stages = restore(config, found, print)
    assert (left, stages) == ([], [])
    if how is None:
        files.mark.restore("Ville", owner)
    assert find_file_faults(files) == []
    after = open_cube(files.cube)["pixels"].to_dataset().compute()
    assert after.identical(before)
    assert owner_of(files.cube) in (files.mark.run_id(), owner, None)


@pytest.mark.parametrize("how", DAMAGE, ids=["cut", "flipped", "garbage", "empty", "gone"])
@pytest.mark.parametrize(
    ("name", "made_by"),
    [
        ("work/cells.parquet", "cells"),
        ("work/cells.parquet.crc32c", "cells"),
        ("work/mosaic.parquet", "mosaic"),
        ("work/stages/mosaic.json", "mosaic"),
        ("work/journal/mosaic.plan.json", "mosaic"),
    ],
)
def test_what_a_stage_makes_again_is_removed_and_its_stage_forgotten(run, name, made_by, how):
    config, files = run
    # what the records tell of the tables, as a run's do
    for stage in ("cells", "mosaic"):
        record = files.record(stage)
        known = record.read()
        sums = {f"work/{stage}.parquet": _sums(files.table(stage))}
        record.write(known["facts"], known["summary"], None, sums)
    assert find_file_faults(files) == []
    damage(files.output / name, how)
    found = find_file_faults(files)
    unseen = how is None and not name.endswith((".parquet", "stages/mosaic.json"))
    if unseen or (how is flipped and name.endswith("plan.json")):
        assert [f for f in found if f.made_by != made_by] == []
        return
    assert {f.made_by for f in found} == {made_by}
    assert list(status_of(files)) is not None
    _, stages = restore(config, found, print)
    assert stages == [made_by]
    assert not files.record(made_by).read()
    assert not [f for f in find_file_faults(files) if Path(f.name).suffix != ".json"]


def _sums(path: Path) -> list[int]:
    from sesgrid.store.sealed import checksum_of

    return [*checksum_of(path)]


def test_a_run_seals_cells_again_that_are_gone_or_damaged(run):
    config, files = run
    cells = load_table(files.table("cells"))
    Cube.open(files.cube).seal(cells.__getitem__, ["income"], {"sealed": "key"})
    files.record("analyse").write({}, {"notes": []})
    assert "cube.zarr/cells" not in missing_outputs(config, files, "analyse")
    damage(Path(files.cube) / "cells/y/zarr.json", None)
    assert "cube.zarr/cells" in missing_outputs(config, files, "analyse")


def test_models_of_others_are_none_of_the_run(run):
    _, files = run
    files.models.mkdir()
    (files.models / "mine.keras").write_bytes(b"of another software")
    assert find_file_faults(files) == []
    files.mark.enter(files.models / "own.keras")
    (files.models / "own.keras").write_bytes(b"cut")
    assert [(f.made_by, f.name) for f in find_file_faults(files)] == [("train", "models/own.json")]


def test_damaged_lines_of_a_journal_are_counted_and_left_out(run):
    config, files = run
    path = files.journals / "host-1.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"time": "2026-01-01T00:0\n\xff\xfe\n[]\n' + json.dumps(LINE).encode())
    (fault,) = find_file_faults(files)
    assert "3 damaged lines" in str(fault)
    assert status_of(files)[0].blocks == 3
    assert restore(config, [fault], print) == ([], [])
    assert find_file_faults(files) == []
    assert path.read_text().count("\n") == 3
    assert len(path.read_text().splitlines()) == 4


def test_a_damaged_list_of_results_is_restored_from_the_records_and_from_nothing_else(run):
    config, files = run
    files.mark.enter(files.cells)
    files.cells.write_bytes(b"ours")
    (files.output / "mine.csv").write_text("mine")
    record = files.record("analyse")
    mine = {"mine.csv": [4, 1], "../run.toml": [1, 1]}
    record.write({}, {}, None, {"cells.parquet": _sums(files.cells), **mine})
    entries = files.output / "work" / "written"
    entries.write_bytes(b"\xff\xfe garbage")
    named = {f.name: f for f in find_file_faults(files)}
    assert named["work/written"].what == "does not list cells.parquet, which the run wrote"
    # no stage writes such, whatever a record says
    assert not {"mine.csv", "../run.toml"}.intersection(named)
    restore(config, list(named.values()), print)
    assert (files.output / "mine.csv").read_text() == "mine"
    assert files.mark.covers(files.cells)
    assert not files.mark.covers(files.output / "mine.csv")


def test_a_run_without_a_mark_is_one_of_an_earlier_version_and_no_fault(run):
    _, files = run
    Cube.open(files.cube).describe({"sesgrid_run": None})
    files.mark.path.unlink()
    assert find_file_faults(files) == []


def test_the_files_of_another_run_are_not_those_of_a_cube(run):
    _, files = run
    Cube.open(files.cube).describe({"sesgrid_run": "somebody's"})
    with pytest.raises(FormatError, match="not the cube of the run"):
        files_of_cube(files.cube)


@pytest.mark.parametrize("codec", ["jpeg", "jpegxl"])
def test_metadata_of_image_codecs_are_compared_too(tmp_path, codec):
    pytest.importorskip("imagecodecs")
    from sesgrid.grid import Extent, Grid
    from sesgrid.store.codec import PixelCodec

    extent = Extent.of_cells(Grid(16, 2), np.array([3, 9]), np.array([4, 4]))
    cube = Cube.create(tmp_path / "c.zarr", extent, {}, PixelCodec(codec, 80))
    assert damaged_keys(cube) == []
    other = Cube(cube.path, extent, cube.token, PixelCodec(codec, 81))
    assert "pixels/image/zarr.json" in damaged_keys(other)


def test_verify_is_a_command_that_ends_in_one_line(run, monkeypatch):
    from click.testing import CliRunner

    from sesgrid.commands.cli import main

    assert issubclass(type(main.commands["verify"]), Command)
    _, files = run
    damage(Path(files.cube) / "zarr.json", half)
    result = CliRunner().invoke(main, ["verify", files.cube])
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == "cube.zarr/zarr.json: missing or damaged"
    assert lines[1].startswith("shards: cannot be looked at while that is so")
    assert lines[2] == "2 faults"


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, "[]", '{"bearing_classes": [1e999]}', '{"bearing_classes": 3}', None],
)
def test_a_truth_that_is_none_is_named(run, text):
    config, _ = run
    truth = config.sources.landcover.with_name("truth.json")
    truth.mkdir() if text is None else truth.write_text(text)
    with pytest.raises(SesgridError, match=r"truth\.json"):
        planted(config)
    truth.rmdir() if text is None else truth.unlink()
    truth.write_text('{"bearing_classes": [11100]}')
    assert len(planted(config)) == 1


def test_a_place_of_the_cube_is_its_own(tmp_path):
    places = (
        "result", ".", "result/work", "result/work/parts", "result/models", "result/report.html",
        "result/cells.parquet/a.zarr", "census.csv", "ortho/cube.zarr", "result/studies",
    )  # fmt: skip
    folder = "[sources]", '[cube]\npath = "PLACE"\n[sources]'
    for place in places:
        config = configure(tmp_path, "Ville", (folder[0], folder[1].replace("PLACE", place)))
        with pytest.raises(
            ConfigError, match=r"cube\.path: .* expected a place for the cube alone"
        ):
            Workspace.of(config).take(config)
    assert not (tmp_path / "result").exists()
    for place in ("result/cube.zarr", "result/a/b.zarr", "cube", "s3://bucket/models"):
        config = configure(tmp_path, "Ville", (folder[0], folder[1].replace("PLACE", place)))
        assert Workspace.of(config).take(config)


def test_results_do_not_lie_in_a_source(tmp_path):
    at = ('"ortho"', '["ortho", "tiles"]')
    (tmp_path / "tiles" / "result").mkdir(parents=True)
    config = configure(tmp_path, "Ville", at, ('"result"', '"tiles/result/2020"'))
    with pytest.raises(ConfigError, match=r"tiles/result/2020 lies in .*tiles, all of which"):
        Workspace.of(config).take(config)
    config = configure(tmp_path, "Ville", at, ('"result"', '"tiles-result"'))
    assert Workspace.of(config).take(config)
