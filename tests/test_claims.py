"""What a run takes for its own in its output folder: what its stages write, and nothing of others."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zipfile
from pathlib import Path

import h5py
import pandas as pd
import pytest

from sesgrid.batches.journal import damaged_lines, is_plan
from sesgrid.batches.leases import Leases
from sesgrid.errors import ConfigError, FormatError, SesgridError, StoreError
from sesgrid.run.check import _look_at_tls, _look_at_weights
from sesgrid.run.found import config_of_cube
from sesgrid.run.freshness import StageRecord
from sesgrid.run.job import Job, load_models
from sesgrid.run.mark import Mark
from sesgrid.run.outputs import written_by
from sesgrid.run.own_files import MARK, find_file_faults
from sesgrid.run.own_parts import damaged_parts
from sesgrid.run.redo import make_again
from sesgrid.run.restore import restore
from sesgrid.run.settings import TlsSettings
from sesgrid.run.status import lines, status_of
from sesgrid.run.verify import find_faults
from sesgrid.run.workspace import Workspace
from sesgrid.store.parts import Parts
from tests.test_own_files import LINE, PLAN, damage, flipped, half, run  # noqa: F401


def model(files, stem: str, content: bytes = b"weights") -> Path:
    """A model and its card, as any training leaves them."""
    files.models.mkdir(exist_ok=True)
    path = files.models / f"{stem}.keras"
    path.write_bytes(content)
    card = {"model_id": stem, "sha256": hashlib.sha256(content).hexdigest()}
    card |= {"pixels_per_cell": 64, "n_classes": 3}
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def own_models(files) -> list[Path]:
    paths = [files.models / f"random-{k}{s}" for k in (0, 1) for s in (".keras", ".json")]
    files.mark.enter(*paths)
    for k in (0, 1):
        model(files, f"random-{k}")
    files.record("train").write({}, {"models": 2})
    return paths


def test_models_of_others_are_neither_recorded_nor_entered_nor_removed(run):  # noqa: F811
    config, files = run
    own_models(files)
    theirs = [model(files, name) for name in ("mine", "random-mine", "random-2", "spatial-0")]
    (files.models / "notes.json").write_text("{}")
    told = written_by(config, files, "analyse", {})
    assert sorted(told) == ["models/random-0.json", "models/random-1.json"]
    assert list(load_models(Job(config, files, None, ""))) == ["random-0", "random-1"]
    # a record that claims them all the same, and a list that was lost
    mine = {f"models/{p.name}": [1, 1] for p in files.models.iterdir() if "mine" in p.name}
    files.record("analyse").write({}, {}, None, told | mine | {"models/notes.json": [2, 0]})
    (files.output / "work" / "written").unlink()
    restore(config, find_file_faults(files), print)
    assert files.mark.covers(files.models / "random-0.json")
    for path in theirs:
        assert path.exists()
        assert not files.mark.covers(path)
    assert (files.models / "notes.json").exists()


def test_nothing_behind_a_link_out_of_the_folder_is_removed(run, tmp_path):  # noqa: F811
    config, files = run
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    for name in ("random-0.json", "thesis.docx", "cells.parquet"):
        (victim / name).write_text("theirs")
    (victim / "host-1.jsonl").write_text("theirs")
    files.models.symlink_to(victim)
    (files.output / "work" / "evil").symlink_to(victim)
    told = {"models/random-0.json": [1, 2], "work/evil/thesis.docx": [1, 2]}
    files.record("analyse").write({}, {}, None, told | {"work/evil/../../x": [1, 2]})
    files.journals.rename(tmp_path / "journal")
    files.journals.symlink_to(victim)
    (files.output / "work" / "written").write_text('"models"\n"work/evil"\n"."\n')
    before = {p: p.read_bytes() for p in victim.iterdir() if p.is_file()}
    found, said = find_file_faults(files), list[str]()
    assert {"models/random-0.json", "work/journal/host-1.jsonl"} <= {f.name for f in found}
    left, _ = restore(config, found, said.append)
    assert {"models/random-0.json", "work/journal/host-1.jsonl"} <= {f.name for f in left}
    assert sum("behind a link" in line for line in said) >= 2
    # the links may go, what they lead to stays
    files.mark.remove(files.models / "thesis.docx", files.models, files.output / "work" / "evil")
    assert {p: p.read_bytes() for p in before} == before
    assert (victim / "sub").is_dir()


def test_a_run_behind_a_link_is_looked_at_like_any(run, tmp_path):  # noqa: F811
    config, files = run
    files.output.rename(tmp_path / "elsewhere")
    files.output.symlink_to(tmp_path / "elsewhere")
    (files.journals / "mosaic.plan.json").write_text("{")
    left, stages = restore(config, find_file_faults(files), print)
    assert (left, stages) == ([], ["mosaic"])
    assert not (files.journals / "mosaic.plan.json").exists()


ODD = [
    '"."',
    '""',
    '"/"',
    '".."',
    '"../x"',
    "5",
    "null",
    '["pairs.csv"]',
    r'"a\u0000b"',
    r'"\ud800"',
]


@pytest.mark.parametrize("entry", ODD)
def test_entries_that_name_nothing_in_the_folder_cover_nothing(tmp_path, entry):
    mark = Mark(tmp_path / "out")
    mark.take("Nice")
    (mark.output / "work" / "written").write_text(f'"cells.parquet"\n{entry}\n')
    (mark.output / "pairs.csv").write_text("mine")
    with pytest.raises(StoreError, match="was not written by this run"):
        mark.enter(mark.output / "pairs.csv")
    assert mark.entered(mark.output) == [mark.output / "cells.parquet"]


def test_a_folder_in_the_place_of_a_result_is_somebodys(tmp_path):
    mark, out = Mark(tmp_path / "out"), tmp_path / "out"
    mark.take("Ville")
    mark.enter(out / "pairs.csv", out / "models/logs/random-0")
    for mine in (out / "pairs.csv/mine.txt", out / "models/logs/random-0/events"):
        mine.parent.mkdir(parents=True)
        mine.write_text("")
    mark.remove(out / "pairs.csv", out / "models/logs/random-0")
    assert (out / "pairs.csv/mine.txt").exists()
    assert not (out / "models/logs/random-0").exists()


def test_a_list_that_is_a_folder_names_nothing(run):  # noqa: F811
    _, files = run
    files.mark.enter(files.cells)
    (files.output / "work" / "written").unlink()
    (files.output / "work" / "written").mkdir()
    assert not files.mark.covers(files.cells)
    find_file_faults(files)
    with pytest.raises(StoreError):
        files.mark.enter(files.pairs)


@pytest.fixture
def journals(tmp_path):
    """A folder that has journals and plans, and no more of a run."""
    files = Workspace(tmp_path)
    files.journals.mkdir(parents=True)
    (files.journals / "mosaic.plan.json").write_text(json.dumps(PLAN))
    (files.journals / "host-1.jsonl").write_text(json.dumps(LINE) + "\n")
    return files


@pytest.mark.parametrize(
    "changes",
    [
        {"time": "2026-01-01T00:00:01"},
        {"time": "0001-01-01T00:00:01+00:00"},
        {"time": 5},
        {"state": 5, "cause": "x"},
        {"state": "failed", "cause": None},
        {"seconds": 1e400},
        {"seconds": None},
        {"block": [1.5, 2]},
        {"batch": ["a"]},
    ],
)
def test_a_line_of_other_types_is_a_damaged_one(journals, changes):
    files = journals
    path = files.journals / "host-1.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({**LINE, **changes}) + "\n")
    assert damaged_lines(path) == 1
    assert list(lines(status_of(files)))


BATCH = PLAN["batches"]["75-0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"driver": ["a"]}, {"driver": {}}, {"time": "2026-01-01T00:00:00"}, {"time": None},
        {"batches": []}, {"batches": {"75-0": 5}}, {"batches": {"75-0": {**BATCH, "blocks": "3"}}},
        {"batches": {"75-0": {**BATCH, "cells": 1e400}}}, {"batches": {"75-0": {**BATCH, "blocks": -3}}},
        {"batches": {"75-0": {**BATCH, "key": 5}}},
    ],
)  # fmt: skip
def test_a_plan_of_other_types_is_a_damaged_one(journals, changes):
    files = journals
    path = files.journals / "mosaic.plan.json"
    assert is_plan(path)
    path.write_text(json.dumps({**PLAN, **changes}))
    assert not is_plan(path)
    assert list(lines(status_of(files))) == []
    assert [f.made_by for f in find_file_faults(files)] == ["mosaic"]


@pytest.mark.parametrize(
    "holder",
    [
        {"name": 5}, {"name": None}, {"name": "a\0b"}, {"name": "x" * 5000}, {"name": "../x"}, {"pid": "x"},
        {"host": [1]}, {"machine": 3}, {"name": "\ud800"},
    ],
)  # fmt: skip
def test_a_lease_of_other_types_is_nobodys(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    told = {"name": "a-1-b", "host": "a", "pid": 1, "machine": "m", "born": "1", **holder}
    (tmp_path / "mosaic").mkdir()
    (tmp_path / "mosaic" / "mosaic.lease").write_text(json.dumps(told))
    with Leases(tmp_path) as leases:
        assert leases.holder(["mosaic"]) is None
        leases.take("mosaic", ["mosaic"])
    with Leases(tmp_path) as ours, Leases(tmp_path) as theirs:
        ours.take("mosaic", ["mosaic"])
        assert theirs.holder(["mosaic"]) is not None


@pytest.mark.parametrize(
    "written", [[1], {"report.html": [1]}, {"report.html": ["a", "b"]}, {"a": 5}, "x", None]
)
def test_a_record_of_other_types_is_a_damaged_one(tmp_path, written):
    record = StageRecord(tmp_path / "report.json")
    record.write({"a": 1}, {}, None, {"report.html": [1, 2]})
    known = json.loads(record.path.read_text())
    known.pop("seal")
    record.path.write_text(json.dumps(known))
    assert record.read()["written"] == {"report.html": [1, 2]}
    record.path.write_text(json.dumps({**known, "written": written}))
    assert record.read() == {}


@pytest.mark.parametrize("mark", ["{", None])
def test_the_configuration_of_another_run_is_refused_also_without_a_mark(run, mark):  # noqa: F811
    config, files = run
    other = config.model_copy(update={"name": "Other"})
    for lost in (False, True):
        if lost and mark is None:
            files.mark.path.unlink()
        elif lost:
            files.mark.path.write_text(mark)
        assert config_of_cube(files.cube, config).name == "Ville"
        with pytest.raises(ConfigError, match=r"'Other'.*'Ville'"):
            config_of_cube(files.cube, other)
    # the cube tells it where the table is damaged too
    files.table("cells").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=r"'Other'.*'Ville'"):
        config_of_cube(files.cube, other)


DAMAGES = [(".parquet", half), (".parquet", None), (".crc32c", flipped), (".crc32c", None)]


@pytest.mark.parametrize(
    ("name", "stage"),
    [("predict", "predict"), ("predict-other", "predict"), ("explain", "explain"), ("features", "analyse")],
)  # fmt: skip
def test_parts_of_cells_are_looked_at(run, name, stage):  # noqa: F811
    config, files = run
    parts = Parts(files.parts(name))
    (files.journals / f"{name}.plan.json").write_text(json.dumps(PLAN))
    for kind, how in DAMAGES:
        for batch in ("75-0", "75-1"):
            parts.write(batch, "k", pd.DataFrame({"cell_id": ["a"]}), {})
        files.record(stage).write({}, {})
        assert list(damaged_parts(files)) == []
        damage(parts.path("75-0").with_suffix(kind), how)
        found = [f for f in find_file_faults(files) if "parts" in f.name]
        assert [(f.made_by, f.name) for f in found] == [(stage, f"work/parts/{name}/75-0.parquet")]
        assert restore(config, found, print) == ([], [stage])
        assert (parts.names(), parts.orphans()) == (["75-1"], [])
        assert not files.record(stage).read()


def test_parts_behind_a_link_out_of_the_folder_are_left(run, tmp_path):  # noqa: F811
    config, files = run
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "theirs.parquet").write_bytes(b"theirs")
    Path(files.parts("mosaic")).parent.mkdir()
    files.parts("mosaic").symlink_to(victim)
    faults, said = [f for f in find_faults(files) if f.batch == "theirs"], list[str]()
    assert len(faults) == 1
    assert make_again(config, None, faults, said.append) == faults
    assert "behind a link" in said[0]
    assert (victim / "theirs.parquet").read_bytes() == b"theirs"
    assert files.record("mosaic").read()


def test_a_plan_and_a_record_that_are_gone_are_named(run):  # noqa: F811
    _, files = run
    Parts(files.parts("mosaic")).write("75-0", "k", pd.DataFrame({"cell_id": ["a"]}), {})
    files.mark.enter(files.report)
    files.report.write_text("page")
    files.record("report").write({}, {})
    for stage in ("train", "predict", "explain", "analyse"):
        files.record(stage).write({}, {})
    assert [f for f in find_file_faults(files) if f.name.endswith(".json")] == []
    (files.journals / "mosaic.plan.json").unlink()
    files.record("report").forget()
    found = {f.name: f.made_by for f in find_file_faults(files)}
    assert found["work/journal/mosaic.plan.json"] == "mosaic"
    assert found["work/stages/report.json"] == "report"


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_folder_is_taken_where_there_are_no_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    mark = Mark(tmp_path / "out")
    taken = mark.take("Nice")
    assert mark.take("Nice") == taken == mark.run_id()
    assert [p.name for p in mark.path.parent.iterdir()] == ["run.json"]
    with pytest.raises(ConfigError, match="belongs to the run"):
        mark.take("Other")
    # the moment before it is whole
    mark.path.write_text("")
    with pytest.raises(FormatError):
        mark.take("Other")


@pytest.mark.parametrize("told", ["[1]", '{"run": 1, "name": "a"}', '{"run": null, "name": null}'])
def test_a_mark_of_other_types_is_a_damaged_one(run, told):  # noqa: F811
    _, files = run
    files.mark.path.write_text(told)
    assert [f.made_by for f in find_file_faults(files)] == [MARK]


def test_weights_are_opened_before_anything_is_done(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kernel"] = [1.0, 2.0]
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert _look_at_weights(tmp_path / "a.h5").startswith("HDF5")
    assert _look_at_weights(tmp_path / "b.keras").startswith("Keras")
    whole = (tmp_path / "a.h5").read_bytes()
    for name, content in (("c.h5", b"<html>"), ("d.h5", b""), ("e.h5", half(whole))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=name):
            _look_at_weights(tmp_path / name)
    for lost in (tmp_path, tmp_path / "gone.h5"):
        with pytest.raises(SesgridError, match=lost.name):
            _look_at_weights(lost)


def test_certificates_are_opened_before_anything_is_done(tmp_path):
    names = ("ca", "cert", "key")
    for name in names:
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\n")
    tls = TlsSettings(**{name: tmp_path / name for name in names})
    assert _look_at_tls(tls) == "ca, cert, key"
    (tmp_path / "key").write_bytes(b"0\x82")
    with pytest.raises(FormatError, match=r"cluster\.tls\.key"):
        _look_at_tls(tls)
    (tmp_path / "cert").unlink()
    with pytest.raises(SesgridError, match=r"cluster\.tls\.cert"):
        _look_at_tls(tls)


def test_a_cube_in_its_usual_place_is_not_taken_for_a_moved_one(run, tmp_path):  # noqa: F811
    config, files = run
    found = config_of_cube(files.cube, config)
    assert (found.cube.path, Workspace.of(found).cube) == (None, files.cube)
    moved = tmp_path / "elsewhere.zarr"
    Path(files.cube).rename(moved)
    found = config_of_cube(str(moved), config)
    assert (found.output, Workspace.of(found).cube) == (config.output, str(moved))
