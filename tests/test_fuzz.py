"""A few inputs of the fuzzing in each test run; `make test-fuzz` tries them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzz.campaign import families
from benchmarks.fuzz.judge import FAULTS, Verdict, judge
from benchmarks.fuzz.trial import Damage, Family, Input, Trial
from sesgrid.errors import FormatError, SesgridWarning

ROOT = Path(__file__).resolve().parents[1]


def campaign(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.robustness", "--json", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}


def test_a_few_inputs_of_every_family_end_as_they_must():
    result = campaign("--sources", "--inputs", "48")
    assert result["inputs"] >= 45
    assert result["healthy"] * 4 >= result["inputs"]
    names = ("tracebacks", "silent", "hangs", "lost_files", "executed", "wrongly_refused", "unmade")
    assert {name: result[name] for name in names} == dict.fromkeys(names, 0), result["log"]
    assert result["clear_share"] == 1.0


def _verdict(act, difference=lambda value, partly: "", damage: Damage | None = None) -> Verdict:
    family = Family("made up", lambda rng, folder: Trial(act, difference, folder), ())
    return judge(Input(family, 0, damage), Trial(act, difference, Path("a")))


def _raise(error: Exception):
    raise error


def _warn():
    import warnings

    warnings.warn("a row is left out", SesgridWarning, stacklevel=2)


BROKEN = Damage(lambda rng, trial: None, "broken")


@pytest.mark.parametrize(
    ("act", "differs", "damage", "outcome"),
    [
        (lambda: 1, "", None, "right"),
        (lambda: 1, "", BROKEN, "right"),
        (lambda: 1, "one row", BROKEN, "silent"),
        (lambda: 1, "one row", None, "silent"),
        (lambda: 1, "one row", Damage(BROKEN.do, "flip", detectable=False), "undetectable"),
        (lambda: 1, "the secret", Damage(BROKEN.do, "vrt", hostile=True), "executed"),
        (lambda: _raise(FormatError("cut: fetch it again")), "", BROKEN, "clear"),
        (lambda: _raise(FormatError("cut: fetch it again")), "", None, "wrongly_refused"),
        (lambda: _raise(KeyError("x")), "", BROKEN, "traceback"),
        (lambda: _raise(KeyError("x")), "", Damage(BROKEN.do, "f", detectable=False), "traceback"),
        (_warn, "", None, "warned"),
    ],
)  # fmt: skip
def test_the_judge_tells_the_outcomes_apart(act, differs, damage, outcome):
    assert _verdict(act, lambda value, partly: differs, damage).outcome == outcome


def test_rows_may_be_missing_only_where_that_was_told():
    missing = lambda value, partly: "" if partly else "a row"  # noqa: E731
    assert _verdict(_warn, missing, BROKEN).outcome == "warned"
    assert _verdict(lambda: 1, missing, BROKEN).outcome == "silent"
    assert _verdict(_warn, lambda value, partly: "another row", BROKEN).outcome == "silent"


def test_children_tell_hangs_and_changed_files_and_ends(tmp_path):
    code = f"""
import os, time
from pathlib import Path
from benchmarks.fuzz.children import Limits, run_all
from benchmarks.fuzz.trial import Family, Input, Trial
acts = {{
    "hang": lambda p: time.sleep(60),
    "traceback": lambda p: os._exit(9),
    "memory": lambda p: bytearray(1 << 40),
    "lost_files": lambda p: p.unlink(),
    "created": lambda p: p.with_suffix(".aux.xml").write_text("x"),
    "right": lambda p: None,
}}
def family(name):
    def write(rng, folder):
        path = folder / "a.csv"
        path.write_text("x")
        return Trial(lambda: acts[name](path), lambda value, partly: "", path)
    return Family(name, write, (), seconds=1.0)
inputs = [Input(family(name), 0) for name in acts]
for tried, verdict in run_all(inputs, beside=2, limits=Limits(), keep=Path({str(tmp_path)!r})):
    print(tried.family.name, verdict.outcome)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    got = dict(line.split() for line in done.stdout.splitlines())
    assert got == {
        "hang": "hang", "traceback": "traceback", "memory": "traceback", "lost_files": "lost_files",
        "created": "lost_files", "right": "right",
    }, done.stderr  # fmt: skip
    assert (tmp_path / "created-0" / "in" / "a.aux.xml").exists()


def test_an_input_is_the_same_each_time_and_its_twin_is_healthy(tmp_path):
    family = next(f for f in families(own=False) if f.name == "census-csv")
    written = []
    for k, number in enumerate((7, 7, 6)):
        folder = tmp_path / str(k)
        folder.mkdir()
        tried = Input.of(family, number)
        trial = family.write(Random(f"{family.name} {number // 3}"), folder)
        written.append((tried.damage, trial.path.read_bytes()))
    assert written[0] == written[1]
    assert written[0][1] == written[2][1]
    assert written[0][0] is not None
    assert written[2][0] is None
    assert set(FAULTS) == {
        "traceback", "hang", "silent", "lost_files", "executed", "wrongly_refused"
    }  # fmt: skip
