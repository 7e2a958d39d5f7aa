"""What is wrong with a configuration, told by its keys in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["faults_of"]

_TOLD = 5
"""Faults that are told; of the others how many there are."""

_SHOWN = 60
"""Characters of what was received that are shown."""

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a table of settings",
    "path_type": "a path",
    "string_type": "text",
}
"""In the words of TOML, by pydantic's name of the fault."""


def faults_of(error: ValidationError, root: type[BaseModel]) -> str:
    """The faults that pydantic found, in one line.

    Parameters
    ----------
    error : ValidationError
    root : type of BaseModel
        Of what was validated; its keys are offered in the place of misspelt ones.

    Examples
    --------
    >>> class Cells(BaseModel, extra="forbid", strict=True):
    ...     folds: int
    ...     labels: str = "all"
    >>> try:
    ...     Cells.model_validate({"folds": "many", "label": 3})
    ... except ValidationError as error:
    ...     faults_of(error, Cells)
    "'folds': expected a whole number, received 'many'; unknown key 'label': did you mean 'labels'?"
    """
    told: dict[str, str] = {}
    expected: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False):
        key, section = _place(fault["loc"], root)
        if fault["type"] == "extra_forbidden":
            told[key] = f"unknown key {_short(key)}: {_hint(str(fault['loc'][-1]), section)}"
        elif fault["type"] == "missing":
            told[key] = f"missing key {_short(key)}"
        else:
            # a union tells a fault for each of its kinds
            expected.setdefault(key, []).append(_expected(fault["type"], fault["msg"]))
            kinds = " or ".join(dict.fromkeys(expected[key]))
            told[key] = f"{_short(key)}: expected {kinds}, received {_short(fault['input'])}"
    more = [f"and {len(told) - _TOLD} more"] if len(told) > _TOLD else []
    return "; ".join([*list(told.values())[:_TOLD], *more])


def _place(loc: Sequence[int | str], root: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """The key of a fault as the TOML writes it, and the section that it lies in."""
    names: list[str] = []
    section = root
    inner: type[BaseModel] | None = root
    for part in loc:
        if isinstance(part, int):
            names[-1:] = [f"{names[-1]}[{part}]"]
        elif inner is not None:
            section, names = inner, [*names, part]
            field = section.model_fields.get(part)
            inner = None if field is None else next(_models(field.annotation), None)
        # else the name of one of a union's kinds, which is none of a key
    return ".".join(names), section


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _hint(name: str, section: type[BaseModel]) -> str:
    known = sorted(section.model_fields)
    near = difflib.get_close_matches(name[:_SHOWN], known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"


def _expected(kind: str, message: str) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    told = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return told[:1].lower() + told[1:]


def _short(value: object) -> str:
    try:
        shown = repr(value) if isinstance(value, str | int | float | list | dict) else str(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too long to be shown"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
