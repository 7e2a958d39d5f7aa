"""What errors say is one line, not too long, without credentials; and what others raise becomes ours."""

from __future__ import annotations

import errno

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
    ],
)
def test_credentials_are_not_told(text):
    assert "hunter2" not in redacted(text)
    for cls in CLASSES:
        assert "hunter2" not in str(cls(text))


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
