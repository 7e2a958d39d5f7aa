"""Family of configurations: TOMLs with settings drawn from a table, and mistakes in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.damage import ANY_FILE
from benchmarks.fuzz.trial import Damage, Family, Trial
from sesgrid.run.cluster import connected
from sesgrid.run.config import Config, load_config

__all__ = ["FAMILIES"]

_SETTINGS: dict[str, tuple[Any, ...]] = {
    "grid.pixels_per_cell": (32, 200, 800),
    "grid.cells_per_block": (1, 8),
    "cube.codec": ("zstd", "jpeg"),
    "cube.quality": (1, 90),
    "cells.rule": ("within", "centre", "touching", "all"),
    "cells.classes": (2, 5, 10),
    "cells.folds": (2, 5),
    "cells.folds_kind": ("random", "spatial"),
    "cells.buffer_cells": (0, 4),
    "cells.compare_folds": (True, False),
    "cells.min_coverage": (0.5, 1.0),
    "cells.seed": (0, 4_294_967_295),
    "mosaic.prefer": (["finest", "newest"], ["newest"]),
    "train.protocol": ("paper", "scratch"),
    "train.epochs": (1, 30),
    "train.learning_rate": (0.001, 1e-5),
    "train.samples_per_epoch": ("all", 100),
    "explain.maps": ("none", "all"),
    "explain.clip_percentile": (99.5, 100.0),
    "analyse.bootstrap": (100, 2000),
    "cluster.workers": (1, 4),
    "cluster.memory": ("4GB", "auto"),
}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False)


def _text(rng: Random, settings: dict[str, Any]) -> str:
    """The settings as TOML: sections in any order, dotted keys, comments."""
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, []).append(f"{name} = {_toml(value)}")
    top = sections.pop("", [])
    names = list(sections)
    rng.shuffle(names)
    if rng.random() < 0.3:
        # a section as dotted keys must come before the first header
        name = names.pop()
        top += [f"{name}.{line}" for line in sections[name]]
    lines = [*top, *(line for n in names for line in (f"[{n}]", *sections[n]))]
    if rng.random() < 0.5:
        lines.insert(0, "# la ville de Nîmes")
    return "\n".join(lines) + rng.choice(["", "\n"])


def _draw(rng: Random, folder: Path) -> dict[str, Any]:
    for name in ("census é.csv", "ortho", "land use.gpkg"):
        (folder / name).mkdir() if name == "ortho" else (folder / name).write_text("x")
    settings: dict[str, Any] = {
        "name": rng.choice(["Nîmes", "a b", "L'Haÿ"]),
        "output": rng.choice(["out", "../in/out", "résultats/2021"]),
        "sources.census": "census é.csv",
        "sources.ortho": rng.choice(["ortho", ["ortho"]]),
        "sources.landcover": "land use.gpkg",
    }
    for key in rng.sample(list(_SETTINGS), rng.randint(0, 9)):
        settings[key] = rng.choice(_SETTINGS[key])
    return settings


def _differs(settings: dict[str, Any], folder: Path) -> Callable[[object, bool], str]:
    def difference(result: object, partly: bool) -> str:
        assert isinstance(result, Config)
        for key, wanted in settings.items():
            got: Any = result
            for name in key.split("."):
                got = getattr(got, name)
            if key == "output" or key.startswith("sources."):
                listed = got if isinstance(got, list) else [got]
                names = wanted if isinstance(wanted, list) else [wanted]
                if listed != [(folder / n).resolve() for n in names]:
                    return f"{key} is {got}"
            elif got != wanted:
                return f"{key} is {got!r} instead of {wanted!r}"
        return ""

    return difference


def _trial(path: Path, settings: dict[str, Any]) -> Trial:
    return Trial(lambda: load_config(path), _differs(settings, path.parent), path)


def _write(rng: Random, folder: Path) -> Trial:
    settings = _draw(rng, folder)
    text = _text(rng, settings)
    path = folder / rng.choice(["city.toml", "ma ville é.toml", "a!b.TOML"])
    end = rng.choice(["\n", "\r\n"])
    path.write_bytes(rng.choice([b"", b"\xef\xbb\xbf"]) + text.replace("\n", end).encode())
    return _trial(path, settings)


def _wrong(name: str, *changes: str) -> Damage:
    """Append a line, or set a key to another value: ``key=TOML``."""

    def do(rng: Random, trial: Trial) -> Trial:
        folder = trial.path.parent / "other"
        folder.mkdir()
        settings = {
            k: v for k, v in _draw(rng, folder).items() if k.count(".") == 0 or "sources" in k
        }
        change = rng.choice(changes)
        key, _, value = change.partition("=")
        settings.pop(key.strip(), None)
        text = _text(Random(3), settings)
        section, _, last = key.strip().rpartition(".")
        if section == "sources":
            there = "[sources]" in text
            text = (
                text.replace("[sources]", f"[sources]\n{last} = {value}")
                if there
                else f"{key} = {value}\n{text}"
            )
        elif section:
            text += f"\n[{section}]\n{last} = {value}\n"
        else:
            text = f"{last} = {value}\n{text}"
        path = folder / "city.toml"
        path.write_text(text, encoding="utf-8")
        return replace(
            trial,
            act=lambda: load_config(path),
            path=path,
            difference=lambda value, partly: f"took {change[:80]}",
        )

    return Damage(do, name)


def _raw(name: str, content: bytes) -> Damage:
    def do(rng: Random, trial: Trial) -> Trial:
        trial.path.write_bytes(content)
        return replace(trial, difference=lambda value, partly: "took it")

    return Damage(do, name)


def _canary(name: str, kind: str, options: str = "") -> Damage:
    """A class of a cluster that is none: to name it must not run it."""

    def do(rng: Random, trial: Trial) -> Trial:
        folder = trial.path.parent
        touched = folder / "touched"
        (folder / "canary.py").write_text(
            f"open({str(touched)!r}, 'w').close()\nclass Cluster: pass\n"
        )
        filled = options.replace("{touched}", str(touched))
        trial.path.write_text(
            f'name = "a"\noutput = "out"\n[sources]\ncensus = "census é.csv"\northo = "ortho"\n'
            f'[cluster]\nkind = "{kind}"\n{filled}'
        )

        def act() -> object:
            sys.path.insert(0, str(folder))
            config = load_config(trial.path)
            with connected(config.cluster, None) as client:
                return str(client)

        return replace(trial, act=act, difference=lambda value, partly: f"made {kind}")

    return Damage(do, name, hostile=True)


_CHANGES = {
    "unknown key": (
        "census=1", "grid.pixel_per_cell=3", "models.citys=[]", "cluster.adapt.max=3", "sources.orto='a'",
    ),
    "wrong type": (
        "grid.pixels_per_cell='x'", "cells.classes=2.5", "name=3", "output=[]", "train.epochs=true",
        "sources.ortho={}", "sources.ortho=[]", "mosaic.prefer=3", "cells.thresholds='a'",
        "cluster.options=3",
    ),
    "out of range": (
        "grid.pixels_per_cell=1", "cells.classes=1", "cells.seed=-1", "train.learning_rate=0",
        "cells.min_coverage=nan", "train.learning_rate=inf", "grid.pixels_per_cell=99999999999999999999",
        "cube.quality=101", "cluster.patience_s=nan", "explain.clip_percentile=-inf",
    ),
    "no path": (
        "output='~nosuch/x'", 'output="a\\u0000b"', f"output='{'o' * 300}'", f"sources.census='{'c' * 300}'",
        "sources.census='nowhere.csv'", "sources.census=''", "sources.census='~nosuch/c.csv'",
        f"sources.census='{'d/' * 3000}'", "sources.landcover_classes='none.csv'",
        "sources.boundary='https://x/y'",
    ),
    "name": ("name=''", "name='a/b'", 'name="a\\u0000"', "name='   '"),
    "settings that do not go together": (
        "cells.quantiles='cities'", "cells.thresholds=[3.0,1.0]", "cells.thresholds=[nan,1.0,2.0,3.0]",
        "cells.thresholds=[1.0]", "cluster.options={a=1}", "cluster.tls.ca='a'", "train.weights='nowhere.h5'",
    ),
}  # fmt: skip

_DAMAGES = (
    *(d for d in ANY_FILE if d.name != "cut"),
    *(_wrong(name, *changes) for name, changes in _CHANGES.items()),
    _raw("cut in a string", b'name = "a'),
    _raw("deep", b"z = " + b"[" * 20_000),
    _raw("deep table", b"[" + b".".join([b"a"] * 5000) + b"]\n"),
    _raw("twice", b'name = "a"\nname = "b"\n'),
    _raw("latin-1", 'name = "Nîmes"\n'.encode("latin-1")),
    _raw("UTF-16", 'name = "a"\n'.encode("utf-16")),
    _raw("no sources", b'name = "a"\noutput = "o"\n'),
    _raw("sources of another kind", b'name = "a"\noutput = "o"\nsources = 3\n'),
    _raw("date", b"name = 1979-05-27\n"),
    _raw("control", b'name = "a\x1b[31m"\n'),
    _canary("module beside", "canary.Cluster"),
    _canary("function", "os.system", "[cluster.options]\ncommand = 'touch {touched}'\n"),
    _canary("Popen", "subprocess.Popen", "[cluster.options]\nargs = ['touch', '{touched}']\n"),
    _canary("eval", "builtins.exec", "[cluster.options]\nobject = \"open('{touched}','w')\"\n"),
    _canary("class of something else", "collections.OrderedDict"),
)  # fmt: skip

FAMILIES = (Family("config", _write, _DAMAGES, share=4),)
