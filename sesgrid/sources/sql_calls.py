"""Which functions a piece of SQLite's SQL calls that may reach outside of the database.

GDAL and SpatiaLite add hundreds of functions, some of which open files, run stored code or ask servers; so
what is harmless is listed, not what harms.
"""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["computes_columns", "foreign_calls", "module_of"]

# as SQLite has it: white space is ASCII's, and any other character past ASCII is one of a name
_TOKEN = re.compile(
    r"""(?sx)
    (?P<skip> [ \t\n\f\r]+ | /\*.*?(?:\*/|$) | --[^\n]* )
    | (?P<name> '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
        | [a-zA-Z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* )
    | (?P<other> . )
    """
)
_WORDS = """
    all and as between by case cast check default distinct else except exists filter from having if in
    intersect join key like limit materialized not on or over references select set then union unique using
    values when where
"""
_TYPES = "blob boolean char decimal double float int integer mediumint numeric real smallint text varchar"
_FUNCTIONS = """
    abs avg ceil ceiling char coalesce concat concat_ws count date datetime first_value floor format glob
    group_concat hex ifnull iif instr json_extract julianday lag last_value lead length lower ltrim max min
    nth_value nullif printf quote rank replace round row_number rtrim sign strftime string_agg substr
    substring sum time total trim typeof unicode unixepoch upper
"""
_HARMLESS = frozenset(f"{_WORDS} {_TYPES} {_FUNCTIONS}".split())
"""What may stand before a bracket: words, types, and functions that know nothing but their arguments."""

_GEOMETRIC = re.compile(
    r"st_(?!cutter|drape)\w+|area|centroid|geometrytype|perimeter|srid|(?:mbr)?m(?:in|ax)[xy]"
)


def _tokens(sql: str) -> list[re.Match[str]]:
    return [token for token in _TOKEN.finditer(sql) if not token["skip"]]


def module_of(sql: str) -> str | None:
    """The module that makes a virtual table, in small letters; None: it is no virtual table.

    >>> module_of('CREATE VIRTUAL TABLE "a using rtree" /* */ USING [VirtualText]("b.csv")')
    'virtualtext'
    >>> module_of("CREATE TABLE a (using_it)")
    """
    words = [token.group().lower() for token in _tokens(sql)]
    if words[:3] != ["create", "virtual", "table"]:
        return None
    after = words.index("using") + 1 if "using" in words else len(words)
    return words[after].strip("\"'[]`") if after < len(words) else ""


def computes_columns(sql: str) -> bool:
    """Whether a table has columns that are computed when it is read: ``AS (expression)``.

    >>> computes_columns("CREATE TABLE a (b, c AS /* */ (b + 1))")
    True
    """
    words = [token.group().lower() for token in _tokens(sql)]
    return ("as", "(") in pairwise(words)


def foreign_calls(sql: str) -> set[str]:
    """Names before a bracket, in small letters, that are not known to be harmless.

    A table's name before the list of its columns is no call.

    >>> sorted(foreign_calls("SELECT max(a), ST_Area(geom), ogr_x /* */ (1), [b](2), 'c (' FROM t"))
    ['b', 'ogr_x']
    """
    tokens = _tokens(sql)
    found = set()
    for at in range(1, len(tokens)):
        name = tokens[at - 1]["name"]
        if name and tokens[at]["other"] == "(" and not _is_declared(tokens, at):
            found.add(name.strip("\"'[]`").lower())
    return {n for n in found if n not in _HARMLESS and not _GEOMETRIC.fullmatch(n)}


def _is_declared(tokens: list[re.Match[str]], at: int) -> bool:
    """Whether the bracket at a place lists the columns of a table: ``VIEW v (a)``, ``WITH t (a) AS (``."""
    if at > 1 and tokens[at - 2].group().lower() in ("view", "table", "references"):
        return True
    end = at + 1
    while end + 1 < len(tokens) and tokens[end]["name"] and tokens[end + 1].group() == ",":
        end += 2
    after = " ".join(t.group().lower() for t in tokens[end + 1 : end + 6])
    return end + 1 < len(tokens) and bool(
        tokens[end]["name"] and re.match(r"\) as (?:(?:not )?materialized )?\(", after)
    )
