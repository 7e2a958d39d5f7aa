"""The run's configuration, freshness, parts and batches."""

from __future__ import annotations

import json
import os

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

from sesgrid.commands.command import Command, end
from sesgrid.errors import ConfigError, FormatError, MissingInputError, StoreError
from sesgrid.run.config import load_config
from sesgrid.run.freshness import StageRecord, fingerprint, key_of
from sesgrid.run.job import protocol_of
from sesgrid.run.workspace import Workspace
from sesgrid.stages.protocol import PROTOCOLS
from sesgrid.store.parts import Parts, write_atomically

MINIMAL = """
name = "Ville"
output = "out"
[sources]
census = "census.csv"
ortho = "ortho"
"""


@pytest.fixture
def toml(tmp_path):
    (tmp_path / "census.csv").touch()
    (tmp_path / "ortho").mkdir()
    (tmp_path / "weights.h5").touch()

    def write(text):
        path = tmp_path / "city.toml"
        path.write_text(text)
        return path

    return write


def test_paths_are_relative_to_the_file_and_defaults_are_the_studys(toml, tmp_path, monkeypatch):
    path = toml(MINIMAL)
    monkeypatch.chdir("/")
    config = load_config(path)
    assert config.sources.census == tmp_path / "census.csv"
    assert config.sources.ortho == [tmp_path / "ortho"]
    assert config.output == tmp_path / "out"
    assert (config.grid.pixels_per_cell, config.cells.classes, config.cells.folds) == (800, 5, 5)
    assert config.train.protocol == "paper"
    several = load_config(toml(MINIMAL.replace('"ortho"', '["ortho", "."]')))
    assert several.sources.ortho == [tmp_path / "ortho", tmp_path]
    weights = load_config(toml(MINIMAL + '[train]\nweights = "weights.h5"\n'))
    assert weights.train.weights == str(tmp_path / "weights.h5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINIMAL + "[grid]\npixel_per_cell = 100\n",
            "'grid.pixel_per_cell': did you mean 'pixels_per_cell'",
        ),
        (MINIMAL + "[gird]\n", "'gird': did you mean 'grid'"),
        (MINIMAL + "[explain]\nzzz = 1\n", "'explain.zzz': known keys: cam"),
        (MINIMAL + "[explain]\nfragments = true\n", "sources.landcover is missing"),
        (MINIMAL.replace('name = "Ville"\n', ""), "missing key 'name'"),
        (MINIMAL + "[grid]\npixels_per_cell = 0\n", "'grid.pixels_per_cell': .*received 0"),
        (MINIMAL + '[grid]\npixels_per_cell = "many"\n', "received 'many'"),
        (MINIMAL + "[train]\nseed = -1\n", "'train.seed': .*received -1"),
        (MINIMAL + "[cells]\nseed = 4294967296\n", "'cells.seed': .*received 4294967296"),
        (
            MINIMAL + '[cluster]\naddress = "tcp://a:1"\nkind = "distributed.LocalCluster"\n',
            "give one of them",
        ),
        (MINIMAL + "[cluster.options]\nn_workers = 1\n", "cluster.kind: name the class"),
        (MINIMAL + '[cells]\nrule = "near"\n', "'cells.rule': .*received 'near'"),
        (MINIMAL.replace('"Ville"', '"../Ville"'), "'name'"),
        (MINIMAL.replace('"Ville"', '"  "'), "'name'"),
        ("name = ", "not valid TOML"),
    ],
)
def test_bad_settings_name_the_key(toml, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(toml(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("census.csv", "gone.csv"), r"sources.census: .*gone.csv does not exist"),
        (MINIMAL.replace('ortho = "ortho"', 'ortho = ["ortho", "gone"]'), "sources.ortho: .*gone"),
        (MINIMAL + 'landcover = "gone.gpkg"\n', "sources.landcover: .*gone.gpkg"),
        (
            MINIMAL + '[cluster.tls]\nca = "a.pem"\ncert = "a.pem"\nkey = "a.pem"\n',
            "cluster.tls.ca: .*a.pem does not exist",
        ),
        (MINIMAL + '[train]\nweights = "gone.h5"\n', "train.weights: .*gone.h5"),
    ],
)
def test_missing_files_are_named(toml, text, message):
    with pytest.raises(MissingInputError, match=message):
        load_config(toml(text))


def test_what_a_protocol_leaves_open_can_be_asked_for(toml):
    def protocol(settings):
        return protocol_of(load_config(toml(f"{MINIMAL}[train]\n{settings}\n")))

    assert protocol('samples_per_epoch = "all"').samples_per_epoch is None
    assert protocol("").samples_per_epoch == 2500
    scratch = 'protocol = "scratch"\n'
    assert protocol(scratch + 'batch_norm_momentum = "own"').batch_norm_momentum is None
    same = 'weights = "random"\nsamples_per_epoch = "all"'
    assert protocol(scratch + same) == protocol(scratch) == PROTOCOLS["scratch"]
    assert protocol('weights = "random"').weights is None


def test_missing_configuration(tmp_path):
    with pytest.raises(MissingInputError, match=r"gone\.toml: there is no configuration"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


def test_a_full_or_closed_folder_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written .*make room or give write access"):
        write_atomically(tmp_path / "file" / "a.json", "{}")


def test_fingerprints_follow_content_not_order(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")
    before = fingerprint(folder)
    assert before == fingerprint(folder)
    assert fingerprint(folder / "a") != fingerprint(folder / "b")
    os.utime(folder / "b", ns=(1, 1))
    changed = fingerprint(folder)
    assert changed != before
    (folder / "a.md5").write_text("x")
    assert fingerprint(folder) != changed
    # companions of a file count: the parts of a shapefile, a world file
    alone = fingerprint(folder / "b")
    (folder / "b.prj").write_text("2154")
    assert fingerprint(folder / "b") != alone
    # where it lies does not
    before, alone = fingerprint(folder), fingerprint(folder / "b")
    moved = folder.rename(tmp_path / "moved")
    assert (fingerprint(moved), fingerprint(moved / "b")) == (before, alone)


def test_the_fingerprint_of_a_vrt_follows_what_it_names(tmp_path):
    vrt, part = tmp_path / "oso.vrt", tmp_path / "tiles" / "a.tif"
    part.parent.mkdir()
    part.write_bytes(b"1")
    vrt.write_text(
        '<VRTDataset><SourceFilename relativeToVRT="1">tiles/a.tif</SourceFilename>'
        "<SourceFilename>/etc/passwd</SourceFilename></VRTDataset>"
    )
    before = fingerprint(vrt)
    (tmp_path / "tiles" / "other.tif").write_bytes(b"1")
    assert fingerprint(vrt) == before
    part.write_bytes(b"12")
    assert fingerprint(vrt) != before
    vrt.write_text("<VRT")
    assert fingerprint(vrt) != before


def test_a_record_tells_what_changed(tmp_path):
    record = StageRecord(tmp_path / "deep" / "mosaic.json")
    facts = {"grid.pixels_per_cell": 128, "input ortho": {"a": "1"}, "stage cells": "k"}
    assert record.reasons(facts, []) == ["not done yet"]
    record.write(facts, {"blocks": 3})
    assert record.reasons(facts, []) == []
    assert record.reasons(facts, ["cube"]) == ["output cube is missing"]
    changed = {**facts, "grid.pixels_per_cell": 160, "input ortho": {"a": "2"}}
    assert record.reasons(changed, []) == [
        "grid.pixels_per_cell changed from 128 to 160",
        "input ortho changed",
    ]
    assert record.read()["key"] == key_of(facts)
    assert record.write(facts, {}) == key_of(facts)
    assert record.write(facts, {}, "weights-1") != record.write(facts, {}, "weights-2")
    # results that were withdrawn are nobody's any more; the stage is what it was
    named = record.write(facts, {"n": 1}, "weights-3", {"cells.parquet": [3, 4]})
    before = record.read()
    record.without_files()
    assert record.read() == {**before, "written": {}}
    assert record.read()["result_id"] == named
    record.forget()
    assert record.reasons(facts, []) == ["not done yet"]
    record.path.write_text("{half")
    assert record.reasons(facts, []) == ["not done yet"]


def test_parts_are_ours_only_with_our_key(tmp_path):
    parts = Parts(tmp_path)
    rows = pd.DataFrame({"cell_id": ["a", "b"], "coverage": [1.0, 0.5]})
    parts.write("000000", "key-1", rows, {"errors": ["tile x"]})
    parts.write("000001", "key-1", rows, {"errors": []})
    assert len(parts.read(["000000", "000001"])) == 4
    assert parts.record("000000")["errors"] == ["tile x"]
    assert parts.has("000000", "key-1")
    assert not parts.has("000000", "key-2")
    assert not parts.has("000002", "key-1")
    with pytest.raises(FormatError, match="000002"):
        parts.read(["000002"])
    parts.keep_only(["000000"])
    assert parts.names() == ["000000"]
    parts.path("000000").write_bytes(b"PAR1")
    assert not parts.has("000000", "key-1")
    with pytest.raises(FormatError, match="is damaged"):
        parts.record("000000")


def test_a_flipped_byte_in_a_part_is_noticed(tmp_path):
    parts = Parts(tmp_path)
    rows = pd.DataFrame({"cell_id": [f"c{k}" for k in range(500)], "p": np.linspace(0, 1, 500)})
    parts.write("a", "key", rows, {})
    data = parts.path("a").read_bytes()
    assert_frame_equal(parts.rows("a"), rows)
    for at in range(0, len(data), 97):
        parts.path("a").write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        with pytest.raises(FormatError, match="damaged"):
            parts.rows("a")


def test_parts_whose_columns_are_empty_in_places_are_one_table(tmp_path):
    parts = Parts(tmp_path)
    whole = [
        pd.DataFrame({"year": [None, None], "name": ["x", None]}),
        pd.DataFrame(),
        pd.DataFrame({"year": [2019, 2020], "name": [None, None], "more": [0.5, np.nan]}),
    ]
    for k, rows in enumerate(whole):
        parts.write(str(k), "key", rows, {})
    table = parts.read(["0", "1", "2"])
    assert table["year"].tolist()[2:] == [2019, 2020]
    assert table["year"].isna().tolist() == [True, True, False, False]
    assert table["more"].isna().tolist() == [True, True, False, True]
    assert parts.merge(["0", "1", "2"], tmp_path / "merged.parquet") == 4
    assert_frame_equal(pd.read_parquet(tmp_path / "merged.parquet"), table)
    assert parts.merge(["1"], tmp_path / "none.parquet") == 0
    assert pd.read_parquet(tmp_path / "none.parquet").empty


def test_rows_follow_the_cells_of_their_batch(tmp_path):
    parts = Parts(tmp_path)
    cells = {"0": ["c", "a", "b"], "1": [], "2": ["z", "x", "y", "w"]}
    for name, ids in cells.items():
        rows = pd.DataFrame({"cell_id": sorted(ids), "n": range(len(ids))})
        parts.write(name, "key", rows if ids else pd.DataFrame(), {})
    # a cell without a row is passed over
    asked = cells | {"2": ["z", "none", "x", "y", "w"]}
    path = tmp_path / "merged.parquet"
    assert parts.merge(["0", "1", "2"], path, order=asked.__getitem__) == 7
    merged = pd.read_parquet(path)
    assert merged["cell_id"].tolist() == [c for ids in cells.values() for c in ids]
    assert merged["n"].tolist() == [2, 0, 1, 3, 1, 2, 0]


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, "first")

    def full(fd):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, json.dumps({"second": 1}))
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError("no such key"), 2, "error: no such key"),
        (ZeroDivisionError("of ours"), 3, "defect of sesgrid"),
        (None, 0, ""),
    ],
)
def test_a_defect_is_told_from_bad_input(error, status, told):
    @click.command(cls=Command)
    def command():
        if error is not None:
            raise error

    result = CliRunner().invoke(command)
    assert result.exit_code == status
    assert told in result.output
    assert CliRunner().invoke(command, ["--no-such"]).exit_code == 2


def test_read_failures_end_with_status_1(capsys):
    end({"mosaic": {"errors": []}}, {"cells": {}})
    with pytest.raises(SystemExit) as caught:
        end({"mosaic": {"errors": ["tile.jp2: broken"]}})
    assert caught.value.code == 1
    assert "1 read failures" in (err := capsys.readouterr().err)
    assert "tile.jp2" in err


def test_results_are_withdrawn_before_what_they_rest_on_changes(tmp_path):
    files = Workspace(tmp_path)
    results = [files.report, files.metrics, files.activation, files.pairs, files.cells]
    files.mark.take("Nice")
    files.mark.enter(*results)
    for path in results:
        path.touch()
    files.withdraw("report")
    assert [p.exists() for p in results] == [False, True, True, True, True]
    files.withdraw("cells")
    assert not any(p.exists() for p in results)
