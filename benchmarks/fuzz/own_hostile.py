"""Runs and cubes that are made to harm: what they name is not imported, opened, written or removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.trial import Damage, Trial

__all__ = ["OWN_HOSTILE", "out_of"]


def out_of(trial: Trial) -> Path:
    """The run's folder."""
    return next(p for p in trial.path.parents if p.name == "out")


def _touching(out: Path) -> str:
    """A command that leaves a file where the harness looks for new ones."""
    return f"touch {out.parent}/executed"


def _array(path: Path, codec: dict[str, Any]) -> None:
    told = json.loads(path.read_text())
    # of the shard's inside, and of the shard
    told["codecs"][0].setdefault("configuration", {})["codecs"] = [codec]
    path.write_text(json.dumps(told))


def _codec(name: str, **configuration: str) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        out = out_of(trial)
        filled = {k: v.replace("{touch}", _touching(out)) for k, v in configuration.items()}
        path = rng.choice(sorted((out / "cube.zarr" / "pixels").glob("*/zarr.json")))
        _array(path, {"name": name, "configuration": filled})

    return Damage(do, f"codec {name}", detectable=False, hostile=True)


def _attributes(name: str, make: Callable[[Path], dict[str, Any]]) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        out = out_of(trial)
        for path in (out / "cube.zarr" / "zarr.json", *(out / "work").glob("run.json")):
            told = json.loads(path.read_text())
            holder = told.get("attributes", told)
            holder |= make(out)
            for value in list(holder.values()):
                if isinstance(value, dict):
                    value |= make(out)
            path.write_text(json.dumps(told))

    return Damage(do, f"attributes: {name}", detectable=False, hostile=True)


def _cluster(out: Path) -> dict[str, Any]:
    options = {"args": _touching(out), "shell": True}
    return {
        "cluster": {"kind": "subprocess.Popen", "options": options},
        "scheduler": "tcp://[::1]:9",
    }


def _elsewhere(out: Path) -> dict[str, Any]:
    beside = str(out.parent / "aside")
    return {
        "output": beside,
        "sources": {"census": f"{beside}/mine.txt"},
        "path": beside,
        "run_folder": beside,
    }


def _entries(*names: str) -> Damage:
    """The list of what the run wrote names the user's files, here and elsewhere."""

    def do(rng: Random, trial: Trial) -> None:
        out = out_of(trial)
        aside = out.parent / "aside"
        aside.mkdir(exist_ok=True)
        (aside / "mine.txt").write_text("mine")
        told = [n.replace("{aside}", str(aside)) for n in names]
        with open(out / "work" / "written", "a", encoding="utf-8") as file:
            file.write("".join(f"\n{json.dumps(n)}\n" for n in told))
        _told_in_records(out, told)

    return Damage(do, f"entries {names[0]}", detectable=False, hostile=True)


def _told_in_records(out: Path, names: list[str]) -> None:
    for path in (out / "work" / "stages").glob("*.json"):
        told = json.loads(path.read_text())
        told.setdefault("written", {}).update({n: [4, 1] for n in names})
        told["inputs"] = {}  # so that it is done again
        path.write_text(json.dumps(told))


OWN_HOSTILE = (
    _codec("numcodecs.pickle"),
    _codec("os.system", command="{touch}"),
    _codec("subprocess.check_call", args="{touch}"),
    _codec("numcodecs.external", module="os", command="{touch}"),
    _attributes("a cluster", _cluster),
    _attributes("places", _elsewhere),
    _entries("../aside/mine.txt", "{aside}/mine.txt", "work/../../aside/mine.txt"),
    _entries("models/random-mine.json", "notes.txt"),
)  # fmt: skip
"""A command may tell, or do what it does: nothing else may happen."""
