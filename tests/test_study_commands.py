"""The commands that compare trainings: their options, what they refuse, and all of them on a tiny city."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pandas as pd
import pytest
from click.testing import CliRunner

import sesgrid
from sesgrid.commands import study as study_commands
from sesgrid.commands.cli import main
from sesgrid.run import cluster
from sesgrid.run.config import load_config
from sesgrid.run.trainings import run_trainings
from sesgrid.run.workspace import Workspace
from sesgrid.studies import comparisons as studies
from sesgrid.studies import trials
from tests.small_run import SETTINGS, configure, small_backbones


@pytest.mark.parametrize(
    "args",
    [
        ["--seeds", "0", "1", "2"],
        ["--seeds", "0,1,2"],
        ["--seeds", "0", "--seeds", "1", "--seeds", "2"],
        ["--seeds=0,1", "2"],
        ["--seeds", "0, 1", "--scheduler", "x", "--seeds", "2"],
    ],
)
def test_options_take_lists(monkeypatch, args):
    told = []
    monkeypatch.setattr(study_commands, "_run", lambda *a, **asked: told.append((a, asked)))
    heads = ["--heads=softmax", "--backbones", "a", "b"]
    at = "x" if "--scheduler" in args else "y"
    others = [*heads, *([] if at == "x" else ["--scheduler", "y"])]
    for words in (
        ["c.toml", *args, *others],
        [*others, "c.toml", *args],
        [*others, *args, "c.toml"],
    ):
        result = CliRunner().invoke(main, ["compare", *words])
        assert result.exit_code == 0, result.output
        ((path, scheduler, _, name), asked) = told.pop()
        assert (str(path), scheduler, name) == ("c.toml", at, "compare")
        assert asked == {"backbones": ("a", "b"), "heads": ("softmax",), "seeds": (0, 1, 2)}
    result = CliRunner().invoke(main, ["resolution", "c.toml", "--pixels", "800", "400,200"])
    assert result.exit_code == 0, result.output
    assert told.pop()[1] == {"pixels": (800, 400, 200)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compare", "c.toml", "--seeds"], "'--seeds' requires an argument"),
        (["compare", "--backbones", "--heads", "softmax", "c.toml"], "'--backbones' requires an"),
        (["compare", "c.toml", "--seeds", "0", "-1"], "No such option"),
        (["compare", "c.toml", "--seeds", "one"], "'one' is not a valid integer"),
        (["compare", "--seeds", "0"], "Missing argument 'CONFIG'"),
        (["resolution", "c.toml"], "Missing option '--pixels'"),
        (["resolution", "c.toml", "--pixels", "16"], "16 is not in the range"),
        (["transfer", "a.toml", "b.toml"], "Missing option '-o'"),
    ],
)
def test_options_that_lack_something_are_refused(args, message):
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert message in result.output


def test_a_command_refuses_before_anything_is_started(monkeypatch, tmp_path):
    @contextmanager
    def never(*args):
        raise AssertionError("a cluster was started")
        yield

    monkeypatch.setattr(cluster, "connected", never)
    with small_backbones():
        configure(tmp_path, "Ville", landcover=False)
        path, other = str(tmp_path / "run.toml"), str(tmp_path / "b" / "run.toml")
        configure(tmp_path / "b", "Bourg")
        for args, message in (
            (["resolution", path, "--pixels", "64", "48"], "received 48"),
            (["compare", path, "--heads", "tanh"], "head must be one of"),
            (["stability", path], "sources.landcover is missing"),
            (["transfer", path, path, "-o", str(tmp_path / "t")], "needs each run once"),
            (["transfer", path, other, "-o", path], "is no folder: name another one"),
        ):
            result = CliRunner().invoke(main, args)
            assert result.exit_code == 2, result.output
            assert message in result.output


def test_a_command_prints_its_table_and_tells_unread_imagery(scheduler, monkeypatch, tmp_path):
    scores = {"pearson_r": 0.25, "pearson_r_low": 0.1, "pearson_r_high": 0.5}
    table = pd.DataFrame([{"model": "pinhole softmax", **scores}])
    study = studies.Study("compare", {"compare": table})
    read = {"mosaic": {"errors": ["a.jp2: broken"]}}
    monkeypatch.setattr(study_commands, "bring_up_to_date", lambda *a: read)
    monkeypatch.setattr(studies, "compare", lambda *a, **asked: study)
    with small_backbones():
        config = configure(tmp_path, "Ville")
        args = [str(tmp_path / "run.toml"), "--heads", "binomial", "softmax"]
        result = CliRunner().invoke(main, ["compare", *args, "--scheduler", scheduler])
    assert result.exit_code == 1, result.output
    assert "pinhole softmax" in result.output
    assert "a.jp2: broken" in result.output
    page = Workspace.of(config).studies / "compare" / "index.html"
    assert "pinhole softmax" in page.read_text()


@pytest.mark.slow
@pytest.mark.long
def test_all_commands_on_a_tiny_city(scheduler, monkeypatch, tmp_path):
    city = sesgrid.write_city(tmp_path / "data", cells=6, seed=3, imputed_share=0.1)
    sources = "\n".join(f'{n} = "{getattr(city, n)}"' for n in ("census", "ortho", "landcover"))
    for name in ("a", "b"):
        text = f'name = "Tiny"\noutput = "{name}"\n[sources]\n{sources}\n{SETTINGS}'
        (tmp_path / f"{name}.toml").write_text(text)
    trained = []

    def noting(client, label, work, *args):
        trained.extend(work)
        return run_trainings(client, label, work, *args)

    monkeypatch.setattr(trials, "run_trainings", noting)

    def command(*args: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, [*args, "--scheduler", scheduler])
        assert result.exit_code == status, (result.output, result.exception)
        return result.output

    one, other = (str(tmp_path / f"{n}.toml") for n in ("a", "b"))
    with small_backbones():
        said = command("compare", one, "--heads", "binomial", "softmax", "--seeds", "0")
        assert "mosaic: not done yet" in said
        assert "baseline" in said
        assert len(trained) == 4
        command("compare", one, "--heads", "binomial,softmax")
        command("resolution", "--pixels", "64", "32", one)
        assert len(trained) == 6
        said = command("stability", one, "--backbones", "pinhole", "--seeds", "0")
        assert "mosaic: up to date" in said
        # the same run elsewhere: all of it is up to date
        command("predict", one)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        said = command("transfer", one, other, "-o", str(tmp_path / "transfer"))
        assert f"page: {tmp_path / 'transfer' / 'index.html'}" in said
        assert "train: not done yet" not in said
        # fewer blocks than folds
        wide = 'fold_block_cells = 50\nfolds_kind = "spatial"'
        text = (tmp_path / "a.toml").read_text().replace("fold_block_cells = 2", wide)
        (tmp_path / "c.toml").write_text(text.replace('output = "a"', 'output = "c"'))
        said = command("compare", str(tmp_path / "c.toml"), status=2)
        assert "2 spatial folds need as many blocks" in said
        assert "cells.fold_block_cells" in said
    studies_of = Workspace.of(load_config(tmp_path / "a.toml")).studies
    for folder in (
        *(studies_of / n for n in ("compare", "resolution", "stability")),
        tmp_path / "transfer",
    ):
        results = pd.read_parquet(folder / "results.parquet")
        assert results[["configuration", "software", "seed"]].notna().all(axis=None)
        assert (folder / "index.html").stat().st_size > 1000
    found = pd.read_csv(tmp_path / "transfer" / "transfer.csv")
    assert found["train_on"].nunique() == 2
    assert found["n"].nunique() == 1
