"""What errors say is one line, not too long, without credentials; and what others raise becomes ours."""

from __future__ import annotations

import errno
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesgrid import errors
from sesgrid.errors import (
    MAX_MESSAGE,
    FormatError,
    MissingInputError,
    ReadError,
    SesgridError,
    SesgridWarning,
    StoreError,
    one_line,
    redacted,
)
from sesgrid.foreign import cause_of, reading, writing

CLASSES = [
    c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)
]  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
@given(text=st.text())
def test_what_is_told_is_one_short_printable_line(cls, text):
    told = str(cls(text * 40))
    assert len(told) <= MAX_MESSAGE
    assert told == "" or (told.isprintable() and len(told.splitlines()) == 1)


def test_beginning_and_end_of_a_long_text_are_kept():
    told = one_line("what is wrong: " + "x" * 10_000 + "; do this")
    assert told.startswith("what is wrong: x")
    assert told.endswith("x; do this")


@pytest.mark.parametrize(
    "text",
    [
        "s3://user:hunter2@host/bucket",
        "https://hunter2@host",
        "GATEWAY_TOKEN=hunter2",
        '{"password": "hunter2"}',
        "env={'AWS_SECRET_ACCESS_KEY': 'hunter2'}, n=1",
        "https://x/y?sig=1&X-Amz-Signature=hunter2&z=3",
        "api_key: hunter2",
        "s3://AKIA:abc/hunter2+gh@bucket/c.zarr",
        "s3://u:p@hunter2@host/x",
        "s3://u:it's-hunter2@host/x",
        "https://a.blob.core.windows.net/c?sv=1&sig=hunter2%3D",
        "AccountName=a;AccountKey=hunter2==;EndpointSuffix=b",
        "Authorization: Bearer hunter2.a",
        "Authorization: Basic hunter2==",
        "headers=[('authorization', 'Bearer hunter2')]",
        "auth_key = hunter2",
        "pwd=hunter2",
        "passphrase=hunter2",
        '{"token":"a\\"hunter2"}',
        '"{\\"token\\":\\"a\\\\\\" hunter2\\"}"',
        "{'password': 'a hunter2",
        "token%3Dhunter2",
        "token=a,hunter2",
        "invalid address 'me:hunter2@127.0.0.1:1'; maybe: ipv6 needs brackets",
        "(host=me:hunter2@[::1]:1)",
    ],
)
def test_credentials_are_not_told(text):
    assert "hunter2" not in redacted(text)
    for cls in CLASSES:
        assert "hunter2" not in str(cls(text))


KEYS = st.sampled_from(
    [
        "token",
        "AWS_SECRET_ACCESS_KEY",
        "passwd",
        "pwd",
        "sig",
        "AccountKey",
        "x-api-key",
        "auth_key",
    ]
)
PLAIN = st.text("ABCxyz019+/=%._~-", max_size=30)
URL = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\""), max_size=30
)
LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize(
    ("secrets", "told"),
    [
        (LINE, lambda key, secret: json.dumps({"a": 1, key: secret, "b": "c"})),
        (LINE, lambda key, secret: json.dumps(json.dumps({key: secret}))),
        (LINE, lambda key, secret: f"cannot be made of { {key: secret}!r}: see there"),
        (PLAIN, lambda key, secret: f"GET https://h/x?a=1&{key}={secret}&b=2 failed"),
        (PLAIN, lambda key, secret: f"{key}: {secret}\nb: 2"),
        (PLAIN, lambda _, secret: f"Authorization: Bearer {secret}"),
        (
            URL,
            lambda _, secret: f"'s3://me:{secret}@host/b' is not there",
        ),
    ],
)  # fmt: skip
@given(data=st.data())
def test_no_part_of_a_secret_is_told(secrets, told, data):
    secret = f"{data.draw(secrets)}Zq9{data.draw(secrets)}"
    text = told(data.draw(KEYS), secret)
    assert "Zq9" in text
    assert "Zq9" not in redacted(text)
    assert "Zq9" not in str(SesgridError(text))


@pytest.mark.parametrize(
    "text",
    [
        "cells.csv: row 3: expected a number, received 'x'; write 2 (or leave it empty)",
        "https://host/a/b.tif?v=1: 404",
        "write to me@host.org, see https://host/a",
        "/data/a:b@c.tif",
        "design: 3 signals, keys = ['a', 'b']",
    ],
)
def test_what_is_no_credential_is_told(text):
    assert redacted(text) == text


@pytest.mark.parametrize("part", ["token", "://", "a-", "sig=", "'", "token='\\", "pwd=,", "@"])
def test_a_long_text_takes_no_time(part):
    begun = time.perf_counter()
    redacted(part * 30_000)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), MissingInputError),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), MissingInputError),
        (PermissionError(errno.EACCES, "Permission denied"), ReadError),
        (OSError(errno.EIO, "Input/output error"), ReadError),
        (OSError(errno.ENAMETOOLONG, "File name too long"), ReadError),
        (OSError("Parquet magic bytes not found"), FormatError),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte"), FormatError),
        (MemoryError(), FormatError),
        (RecursionError("maximum recursion depth exceeded"), FormatError),
        (KeyError("geo"), FormatError),
    ],
)
def test_what_reading_raises(raised, expected):
    with pytest.raises(expected, match=r"^the\.file\b") as caught, reading("the.file"):
        raise raised
    assert caught.value.__cause__ is raised


def test_ours_pass_as_they_are_and_the_users_stop_too():
    ours = FormatError("ours")
    with pytest.raises(FormatError) as caught, reading("x", StoreError):
        raise ours
    assert caught.value is ours
    with pytest.raises(KeyboardInterrupt), reading("x"):
        raise KeyboardInterrupt


def test_what_writing_raises():
    with (
        pytest.raises(StoreError, match=r"out/x cannot be written \(No space left"),
        writing("out/x"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(SesgridError), writing("x"):
        raise ReadError("ours")
    with pytest.raises(TypeError), writing("x"):
        raise TypeError("a mistake of ours")


def test_a_warning_is_one_line_too():
    assert str(SesgridWarning("a\nb")) == "a b"


def test_cause_without_a_text():
    assert cause_of(ValueError()) == "ValueError"
