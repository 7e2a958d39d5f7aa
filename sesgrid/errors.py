"""One error root; every error says what was expected, what was received, and what to do.

Each class also inherits the built-in that a caller would reach for, so
``except ValueError`` and ``except SesgridError`` both work. What an error or a warning says is one line
of at most `MAX_MESSAGE` characters, whatever it echoes of a file: see `one_line`.
"""

from __future__ import annotations

import re

__all__ = [
    "MAX_MESSAGE",
    "CellIdError",
    "ClusterError",
    "CodecError",
    "ConfigError",
    "FormatError",
    "GridMismatchError",
    "MissingInputError",
    "ModelMismatchError",
    "ReadError",
    "SesgridError",
    "SesgridWarning",
    "StoreError",
    "TooFewCellsError",
    "UnsafePathError",
    "one_line",
    "redacted",
]

MAX_MESSAGE = 500
"""Characters of what an error says, at most."""

_WORD = re.compile(r"(?:[^\s'\"]|'(?=\w))+")

_CREDENTIAL = re.compile(
    r"""(?isx)
    (?P<key>
        (?: token | secret | passw(?:or)?d | passphrase | pwd | credential | signature | authorization
          | cookie
          | (?:api|access|account|auth|private|shared|session|subscription) [_-]? key
          | (?<![a-z]) sig (?![a-z])
        )
        [\w-]{0,64} \\*['"]? \s{0,9} (?: =>? | : | %3[ad] ) \s{0,9}
    )
    (?: [bru]{0,2} (?P<escapes>\\+) (?P<inner>['"]) .*? (?: (?<!\\)(?P=escapes)(?P=inner) | \Z )
      | [bru]{0,2} (?P<quote>['"]) (?: \\. | (?P=quote){2} | (?!(?P=quote))[^\\] )* (?: (?P=quote) | \\?\Z )
      # a bracket or comma ends it only before white space, or where another key follows
      | (?: (?:basic|bearer|digest|negotiate|sharedkey|aws4-hmac-sha256) \s+ )?
        (?: [^\s,;&)}\]] | [,;&)}\]](?! \s | \Z | [\\'"]*[\w.-]{1,64}\\*['"]?[=:] ) )+
    )
    """
)
_PASSWORD = re.compile(r"[^/:]*:.")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[^\s,;'\"]+")


def redacted(text: str) -> str:
    """The text without what looks like a credential: the user of a URL, the value of a token or password.

    A user's password may hold any character but white space and quotes, so all up to the last ``@`` of a
    URL is left out.

    >>> redacted("s3://me:hunter2@host/x?X-Amz-Signature=ab1&y=2")
    's3://***@host/x?X-Amz-Signature=***&y=2'
    >>> redacted("tls://***@host: invalid address me:hunter2@host")
    'tls://***@host: invalid address ***@host'
    >>> redacted("{'env': {'GATEWAY_TOKEN': 'hunter2'}}")
    "{'env': {'GATEWAY_TOKEN': ***}}"
    """
    told = _CREDENTIAL.sub(lambda match: f"{match['key']}***", _WORD.sub(_without_user, text))
    return _BEARER.sub(r"\1***", told)


def _without_user(word: re.Match[str]) -> str:
    scheme, separator, rest = word[0].partition("://")
    if not separator:
        # others tell a URL without its scheme
        scheme, rest = "", word[0]
    user, at, host = rest.rpartition("@")
    told = at and (separator or _PASSWORD.match(user))
    return f"{scheme}{separator}***@{host}" if told else word[0]


def one_line(text: object, limit: int = MAX_MESSAGE) -> str:
    r"""What somebody can be shown of a text from anywhere: one line, not too long, without credentials.

    White space is one space, any other character that is not printable is escaped. Of a longer text the
    middle is left out: its beginning tells what is wrong, its end what to do.

    >>> one_line("a\n  b\x1b[31m")
    'a b\\x1b[31m'
    >>> len(one_line("x" * 1000)), one_line("abcdefghijklmnopqrstuvwxyz", 11)
    (500, 'abcdef … yz')
    """
    line = " ".join(redacted(str(text)).split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    if len(line) <= limit:
        return line
    tail = (limit - 3) // 3
    return f"{line[: limit - 3 - tail]} … {line[len(line) - tail :]}"


class SesgridError(Exception):
    """Root of every error that sesgrid raises on purpose."""

    others: tuple[str, ...] = ()
    """What else is wrong, where several faults were found before any was told."""

    def __str__(self) -> str:
        return one_line(self.args[0]) if self.args else ""


class ConfigError(SesgridError, ValueError):
    """A setting is unknown, misspelt or out of range."""


class MissingInputError(SesgridError, FileNotFoundError):
    """A file, folder, layer or column that was asked for is not there."""


class FormatError(SesgridError, ValueError):
    """A file is not what its reader expects, or its content breaks the format's rules."""


class CellIdError(FormatError):
    """A cell id is malformed, off the 200 m lattice, or of another CRS."""


class GridMismatchError(SesgridError, ValueError):
    """Two things that must lie on the same grid do not."""


class ModelMismatchError(SesgridError, ValueError):
    """A model was made for another cell size, number of classes or version."""


class ReadError(SesgridError, OSError):
    """A raster that should be readable is truncated, damaged or gone."""


class StoreError(SesgridError, OSError):
    """A cube cannot be written or reached: read-only, full, or no such store."""


class CodecError(SesgridError, ImportError):
    """A package that reads or writes the cube's pixels is not installed."""


class ClusterError(SesgridError, RuntimeError):
    """The machines that a run needs are gone, or fail whatever they are given."""


class TooFewCellsError(SesgridError, ValueError):
    """Fewer labelled cells than the folds and classes need."""


class UnsafePathError(SesgridError, ValueError):
    """A name inside an archive or an index leads out of its folder, or a file tells to read another one."""


class SesgridWarning(UserWarning):
    """Something was repaired or left out, and counted; the run goes on."""

    def __str__(self) -> str:
        return one_line(self.args[0]) if self.args else ""
