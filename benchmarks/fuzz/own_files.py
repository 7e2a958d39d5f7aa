"""Families of a finished run: each of its files damaged, and a command that meets it.

A command must tell in one line, or do what it does as if nothing were wrong (a file that it does not read,
or makes again). `verify` must find what is covered by a checksum; an export must hold the pixels that were
drawn; after a run the cube must be as it was.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import zarr

from benchmarks.fuzz.city import ADDRESS, AUDITED, CITY
from benchmarks.fuzz.commands import Said, command
from benchmarks.fuzz.damage import damage_file, flip
from benchmarks.fuzz.own_hostile import OWN_HOSTILE, out_of
from benchmarks.fuzz.trial import Damage, Family, Trial

__all__ = ["FAMILIES", "pixels_of"]

_LAYERS = ("image", "coverage", "landcover")


def pixels_of(cube: Path) -> dict[str, np.ndarray]:
    """All pixels of a cube, by zarr alone."""
    group: Any = zarr.open_group(cube, mode="r")["pixels"]
    return {name: group[name][:] for name in _LAYERS}


def _copy(rng: Random, folder: Path) -> Path:
    """The run in the input's folder, now and then its sources too, with files of others in it."""
    city = Path(os.environ[CITY])
    if rng.random() < 0.2:  # moved as a whole
        shutil.copytree(city, folder, dirs_exist_ok=True)
    else:
        shutil.copytree(city / "out", folder / "out")
        told = (city / "city.toml").read_text()
        for name in ("census", "ortho", "landcover"):
            told = told.replace(f'{name} = "', f'{name} = "{city}/')
        (folder / "city.toml").write_text(told)
    for path in _mine(folder / "out") if rng.random() < 0.5 else ():
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    return folder / "out"


def _mine(out: Path) -> tuple[Path, ...]:
    """Where the user's own files may lie among the results."""
    return out / "notes.txt", out / "models" / "mine.keras", out / "models" / "random-mine.json"


def _wanted() -> Path:
    return Path(os.environ[CITY]) / "out"


# -- what the commands must end with


def _status(rng: Random, folder: Path) -> Trial:
    out = _copy(rng, folder)

    def words(where: Path) -> tuple[str | Path, ...]:
        return "status", where / "cube.zarr"

    def difference(result: object, partly: bool) -> str:
        # what of a damaged run is done and what is not is told by the counts
        told = result.out if isinstance(result, Said) else ""
        return "" if "blocks done" in told else f"said {told[:200]!r}"

    return Trial(
        lambda: command(*words(out)), difference, out / "cube.zarr" / "zarr.json", out, _mine(out)
    )


def _verify(rng: Random, folder: Path) -> Trial:
    out = _copy(rng, folder)

    def difference(result: object, partly: bool) -> str:
        assert isinstance(result, Said)
        return "" if result.out.strip() == "0 faults" else f"said {result.out[:200]!r}"

    act = partial(command, "verify", out / "cube.zarr")
    return Trial(act, difference, out / "cube.zarr" / "zarr.json")


def _export(rng: Random, folder: Path) -> Trial:
    out = _copy(rng, folder)
    target = folder / "exported" / rng.choice(["image.tif", "landcover.tif", "coverage.tif"])
    target.parent.mkdir()

    def difference(result: object, partly: bool) -> str:
        with rasterio.open(target) as raster:
            got = raster.read().squeeze()
        wanted = pixels_of(_wanted() / "cube.zarr")[target.stem].squeeze()
        if got.shape[-2:] != wanted.shape[-2:]:
            return f"{got.shape} instead of {wanted.shape}"
        # an image may have its mask as another band
        off = got.reshape(-1, *wanted.shape[-2:])[: 3 if wanted.ndim == 3 else 1] != wanted
        return f"{int(off.sum())} pixels differ" if off.any() else ""

    act = partial(command, "export", out / "cube.zarr", "-o", target, "--variable", target.stem)
    return Trial(act, difference, out / "cube.zarr" / "zarr.json", target.parent)


def _again(rng: Random, folder: Path, last: str) -> Trial:
    out = _copy(rng, folder)

    def difference(result: object, partly: bool) -> str:
        wanted, got = pixels_of(_wanted() / "cube.zarr"), pixels_of(out / "cube.zarr")
        for name, pixels in wanted.items():
            if (off := got[name] != pixels).any():
                return f"{int(off.sum())} of {off.size} pixels of {name} differ"
        results = ("cells.parquet", "work/activation.parquet") if last == "run" else ()
        for name in ("work/cells.parquet", "work/mosaic.parquet", *results):
            a, b = (pd.read_parquet(where / name) for where in (_wanted(), out))
            if not a.equals(b):
                return f"{name} differs"
        return ""

    act = partial(command, last, folder / "city.toml", "--scheduler", os.environ[ADDRESS])
    return Trial(act, difference, out / "cube.zarr" / "zarr.json", out, _mine(out))


def _audit(rng: Random, folder: Path) -> Trial:
    out = _copy(rng, folder)

    def difference(result: object, partly: bool) -> str:
        got, wanted = (json.loads((w / "audit.json").read_text()) for w in (out, _wanted()))
        return next((f"{n} differs" for n in wanted if got.get(n) != wanted[n]), "")

    (out / "audit.json").unlink()  # or a command that does nothing would do
    act = partial(
        command, "audit", out / "cube.zarr", "--config", folder / "city.toml",
        "--cells", str(AUDITED), "--scheduler", os.environ[ADDRESS],
    )  # fmt: skip
    return Trial(act, difference, out / "cube.zarr" / "zarr.json", out, _mine(out))


# -- damages

_KINDS = {
    "shard": "cube.zarr/pixels/*/c/**/*",
    "zarr.json": "cube.zarr/**/zarr.json",
    "table": "work/*.parquet",
    "checksum": "work/*.crc32c",
    "part": "work/parts/*/*.parquet",
    "plan": "work/journal/*.plan.json",
    "journal": "work/journal/*.jsonl",
    "record": "work/stages/*.json",
    "mark": "work/run.json",
    "entries": "work/written",
    "card": "models/*.json",
    "model": "models/*.keras",
    "result": "*.parquet",
}


def _some(rng: Random, out: Path, kind: str) -> Path | None:
    found = sorted(p for p in out.glob(_KINDS[kind]) if p.is_file() and "mine" not in p.name)
    return rng.choice(found) if found else None


def _on(kind: str, way: str, *, detectable: bool = True) -> Damage:
    def do(rng: Random, trial: Trial) -> Trial | None:
        path = _some(rng, out_of(trial), kind)
        if path is None:
            return None
        if way == "gone":
            path.unlink()
        elif way == "pipe":
            path.unlink()
            os.mkfifo(path)
        elif way == "folder":
            path.unlink()
            path.mkdir()
            (path / "mine.txt").write_text("mine")
            return replace(trial, path=path, mine=(*trial.mine, path / "mine.txt"))
        elif way == "json":
            _other_json(rng, path)
        elif way == "flip":
            flip(rng, path, 0, path.stat().st_size)
        else:
            damage_file(rng, path, way)
        return replace(trial, path=path)

    return Damage(do, f"{kind} {way}", detectable)


_VALUES: tuple[Any, ...] = (
    None, "", "x" * 3000, -1, 0, 1e308, float("nan"), float("inf"), 2**70, [], {}, [[]], True,
    "../../../etc/passwd", "\u0000", {"name": "os.system", "configuration": {"command": "x"}}, [None],
)  # fmt: skip


def _other_json(rng: Random, path: Path) -> None:
    """One value of a JSON file becomes another, or goes."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    at = rng.randrange(len(lines))
    content = json.loads(lines[at])
    holder, keys = content, list[Any]()
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.3:
            break
        holder = holder[key]
    if rng.random() < 0.25:
        del holder[key]
    else:
        holder[key] = rng.choice(_VALUES)
    lines[at] = json.dumps(content)
    path.write_text("\n".join(lines))


_WAYS = ("cut", "empty", "noise", "replaced", "gone")
_JSON = [
    _on(k, "json", detectable=False)
    for k in ("zarr.json", "plan", "journal", "record", "mark", "card")
]
# what no command of these reads, or what is but a hint, may be damaged without a word
_UNREAD = [
    _on(k, w, detectable=False)
    for k in ("journal", "plan", "record", "mark", "entries", "card", "model", "result", "checksum")
    for w in _WAYS
]
# in the place of a file: nobody waits for a pipe, and what lies in a folder is somebody's
_OTHER = [_on(k, w, detectable=False) for k in _KINDS for w in ("pipe", "folder")]
_CUBE = [_on("zarr.json", w, detectable=w != "gone") for w in _WAYS]
_SHARDS = [_on("shard", w) for w in (*_WAYS, "flip")]
_TABLES = [_on(k, w) for k in ("table", "part") for w in (*_WAYS, "flip")]
_LOOSE_TABLES = [replace(d, detectable=False) for d in _TABLES]
_LOOSE_SHARDS = [replace(d, detectable=False) for d in _SHARDS]

_RUN = (
    *(d for d in _SHARDS if "flip" not in d.name),
    *_CUBE,
    *_TABLES,
    *_UNREAD,
    *_JSON,
    *_OTHER,
    *OWN_HOSTILE,
)

FAMILIES = (
    Family(
        "run-status", _status,
        (*_CUBE, *_UNREAD, *_JSON, *_LOOSE_TABLES, *_LOOSE_SHARDS, *_OTHER, *OWN_HOSTILE), share=2,
    ),
    Family(
        "run-verify", _verify,
        (*_SHARDS, *_CUBE, *_TABLES, *_UNREAD, *_JSON, *_OTHER, *OWN_HOSTILE), share=3,
    ),
    Family("run-export", _export, (*_SHARDS, *_CUBE, *_JSON, *_LOOSE_TABLES, *_OTHER, *OWN_HOSTILE), share=2),
    Family("run-audit", _audit, (*_SHARDS, *_TABLES, *_UNREAD, *_JSON, *_OTHER, *OWN_HOSTILE), seconds=120),
    Family("run-landcover", partial(_again, last="landcover"), _RUN, share=2, seconds=120),
    Family("run-report", partial(_again, last="run"), _RUN, share=3, seconds=240),
)  # fmt: skip
