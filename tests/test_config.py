"""A run's TOML: whatever it says, it is read as it stands or refused in one line."""

from __future__ import annotations

import json
import os
import random
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from sesgrid.errors import MAX_MESSAGE, ConfigError, MissingInputError, ReadError, SesgridError
from sesgrid.run.config import load_config
from sesgrid.run.settings import Config

PLAIN = """
name = "Ville"
output = "out"
[sources]
census = "census.csv"
ortho = ["ortho"]
[cells]
folds = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "census.csv").touch()
    (tmp_path / "ortho").mkdir()
    return tmp_path


def load(folder, text):
    path = folder / "city.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def refused(folder, text, error=ConfigError):
    with pytest.raises(error) as caught:
        load(folder, text)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'city.toml'}: ")
    assert len(message) <= MAX_MESSAGE
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    "written",
    [
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace("[cells]\nfolds = 3", "[cells] # three\n'folds' = 0x3").encode(),
        b'cells.folds = 3\nsources = { ortho = "ortho", census = "./census.csv" }\n'
        b'output = """out"""\nname = "\\u0056ille"\n',
    ],
)
def test_the_same_settings_in_other_words_are_the_same(folder, written):
    assert load(folder, written) == load(folder, PLAIN)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (PLAIN.encode("utf-16"), "UTF-16"),
        (PLAIN.replace("Ville", "Orléans").encode("latin-1"), "byte 0xe9 in line 2"),
        (b"", "missing key 'name'; missing key 'output'; missing key 'sources'"),
        (b"a" * (1 << 21), "larger than 1 MB"),
        (b"z = " + b"[" * 5000, "too deep"),
        (PLAIN + "folds = 4\n", "not valid TOML"),
        (PLAIN + "[sources]\n", "not valid TOML"),
        (PLAIN + "[[cells]]\n", "not valid TOML"),
        (PLAIN + "[[grid]]\n", "'grid': expected a table of settings"),
        (PLAIN.replace("3", "9" * 5000), "not valid TOML"),
        (PLAIN.replace("3", "0x" + "f" * 5000), "a int that is too long to be shown"),
        (PLAIN.replace("3", "2100-02-30"), "not valid TOML"),
        (PLAIN.replace("3", "2100-02-20"), "'cells.folds': expected a whole number, received 2100-"),
        (PLAIN.replace("3", "true"), "'cells.folds': expected a whole number, received True"),
        (PLAIN.replace("3", '"3"'), "'cells.folds': expected a whole number, received '3'"),
        (PLAIN + "thresholds = [1, nan, 3, 4]\n", "'cells.thresholds[1]': expected a finite number"),
        (PLAIN + "thresholds = [1, 3, 2, 4]\n", "each above the one before"),
        (PLAIN + "thresholds = [1, 2]\n", "cells.thresholds part 3 classes, and cells.classes is 5"),
        (PLAIN + "[train]\nlearning_rate = inf\n", "'train.learning_rate'"),
        (PLAIN + "[train]\nepochs = 10_000_000\n", "'train.epochs': expected less than or equal to"),
        (PLAIN + "[train]\nsamples_per_epoch = 1.5\n", "expected a whole number or 'all', received 1.5"),
        (PLAIN + '[models]\ncitys = ["a"]\n', "unknown key 'models.citys': did you mean 'cities'?"),
        (PLAIN + "[grid]\npixels_per_cell = 9000\n", "blocks of 72,000 pixels"),
        (PLAIN + '[cluster]\nmemory = "lots"\n', "'cluster.memory': expected 'auto' or an amount"),
        (PLAIN + '[cluster]\nkind = "subprocess.Popen"\noptions = { args = "true" }\n', "only classes"),
        (
            PLAIN + '[cluster]\nkind = "distributed.LocalCluster"\nadapt = { minimum = 3, maximum = 2 }\n',
            "minimum (3) of at most maximum (2)",
        ),
        (PLAIN.replace('"out"', '""'), "'output': expected a path, and not an empty one"),
        (PLAIN.replace('"out"', '"a\\u0000"'), "without NUL"),
        (PLAIN.replace('"out"', '"~nosuchuser/out"'), "there is no such user's home"),
        (PLAIN.replace("Ville", "a\\u001b[31m"), "control characters"),
        (PLAIN.replace("Ville", "a" * 101), "'name': "),
        (PLAIN.replace("[sources]", "x1=1\nx2=1\nx3=1\nx4=1\nx5=1\nx6=1\n[sources]"), "and 1 more"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(folder, written, told):
    assert told in refused(folder, written)


def test_paths_that_lead_nowhere_are_named(folder):
    long = PLAIN.replace("census.csv", "c" * 300)
    assert "File name too long" in refused(folder, long, ReadError)
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    looped = PLAIN.replace("census.csv", "a/census.csv")
    assert "sources.census" in refused(folder, looped, SesgridError)
    endless = PLAIN.replace('"out"', f'"{"o" * 300}"')
    assert "File name too long" in refused(folder, endless, SesgridError)
    below = PLAIN.replace("census.csv", "census.csv/x")
    assert "does not exist" in refused(folder, below, MissingInputError)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_configuration_that_may_not_be_read(folder):
    (folder / "city.toml").touch(0o000)
    with pytest.raises(ReadError, match="give read access"):
        load_config(folder / "city.toml")


def keys(model: type[BaseModel], before: str = "") -> dict[str, list[str]]:
    """All keys, dotted, sections among them, and values that are likely right."""
    found = {}
    for name, field in model.model_fields.items():
        inner = [field.annotation, *get_args(field.annotation)]
        fitting = [w for kind in inner for w in get_args(kind) if isinstance(w, str)]
        found[before + name] = [json.dumps(word) for word in fitting]
        found[before + name] += [v for kind in inner for v in FITTING.get(kind, ())]
        for section in inner:
            if isinstance(section, type) and issubclass(section, BaseModel):
                found |= keys(section, f"{before}{name}.")
    return found


FITTING = {int: ["2", "50", "100"], float: ["0.5", "0.25", "1"], bool: ["true", "false"]}


VALUES = [
    "true", "0", "1", "2", "-1", "7", "100", "0.5", "1.0", "-0.0", "nan", "inf", "-inf", "1e308", "1e400",
    "9" * 30, "9" * 400, "0x" + "f" * 4000, "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", '""', '" "',
    '"x"', '"ortho"', '"census.csv"', '"all"', '"none"', '"~"', '"~nosuchuser/x"', '"/"', '".."',
    '"a\\u0000b"', '"\\u001b[31m"', '"\\ud7ff\\U0010FFFF"', f'"{"c" * 300}"', f'"{"é/" * 9000}"',
    '"s3://me:secret@bucket/x"', '"""a\nb"""', "[]", "[1]", '["x"]', '["ortho", 2]', "[[]]", "[nan]", "{}",
    "{ a = 1 }", "{ a = { b = [1, { c = 2 }] } }", '"4GB"', '"subprocess.Popen"', '"a.B"',
]  # fmt: skip


def mutated(rng: random.Random, known: dict[str, list[str]]) -> bytes:
    """A configuration with a value in the place of others, or with some bytes changed."""
    lines = {
        "name": '"Ville"', "output": '"out"', "sources.census": '"census.csv"', "sources.ortho": '"ortho"',
    }  # fmt: skip
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(list(known))
        value = rng.choice(known[key] if known[key] and rng.random() < 0.7 else VALUES)
        if rng.random() < 0.1:
            key = key[:-1] + rng.choice("xyz")
        lines = {k: v for k, v in lines.items() if not k.startswith(f"{key}.")}
        lines[key] = value
    text = bytearray("".join(f"{k} = {v}\n" for k, v in lines.items()).encode())
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            change = [
                bytes([rng.randrange(256)]),
                b"",
                rng.choice([b"\0", b'"', b"[", b"\n", b"="]),
            ]
            text[at : at + rng.randint(0, 2)] = rng.choice(change)
    return bytes(text)


def said(raw: dict, dotted: str) -> object:
    for name in dotted.split("."):
        if not isinstance(raw, dict) or name not in raw:
            return None
        raw = raw[name]
    return raw


@pytest.mark.parametrize("seed", range(8))
def test_whatever_it_says_is_read_as_it_stands_or_refused_in_one_line(folder, seed):
    """Settings that are accepted are those that the standard library's parser finds in the file."""
    rng, known, accepted = random.Random(seed), keys(Config), 0
    scalars = [
        k for k in known if k.split(".")[0] in ("grid", "cells", "train", "explain", "cluster")
    ]
    for _ in range(150):
        text = mutated(rng, known)
        try:
            config = load(folder, text)
        except SesgridError as error:
            message = str(error)
            assert message.isprintable(), text
            assert "secret" not in message, text
            assert len(message) <= MAX_MESSAGE, text
            continue
        accepted += 1
        raw, held = tomllib.loads(text.decode("utf-8-sig")), config.model_dump()
        for key in scalars:
            value = said(raw, key)
            if isinstance(value, bool | int | float | list):
                assert said(held, key) == value, (key, text)
                assert isinstance(said(held, key), bool) == isinstance(value, bool), (key, text)
    assert accepted > 5


def test_no_file_in_its_place(folder):
    (folder / "city.toml").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(folder / "city.toml")
    with pytest.raises(MissingInputError, match="there is no configuration"):
        load_config(folder / "gone" / "city.toml")
    with pytest.raises(SesgridError, match=r"cannot be read"):
        load_config(Path("c" * 300))
    with pytest.raises(ConfigError, match="larger than"):
        load_config("/dev/zero")
