"""Compiled kernels count in the coverage, which sees no compiled code.

A kernel's lines count once it was compiled, which is to say called. Numba's own ``NUMBA_JIT_COVERAGE``
counts the same way, but through private attributes of coverage: a release without them (7.17.5) made
every test fail.
"""

from __future__ import annotations

import sys
from types import CodeType

import pytest


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop():
    """When the tests have ended, and before pytest-cov, around this, saves what was covered."""
    result = yield
    coverage = sys.modules.get("coverage")
    active = coverage and coverage.Coverage.current()
    if active:
        active.get_data().add_lines(compiled_lines())
    return result


def compiled_lines() -> dict[str, set[int]]:
    """Lines of the compiled functions of sesgrid, by file."""
    lines: dict[str, set[int]] = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "sesgrid":
            for value in list(vars(module).values()):
                if getattr(value, "signatures", None) and hasattr(value, "py_func"):
                    _add(value.py_func, lines, set())
    return lines


def _add(function, lines: dict[str, set[int]], seen: set) -> None:
    """The function's lines and, since one that is inlined has no signature, those of what it calls."""
    if function in seen:
        return
    seen.add(function)
    own = lines.setdefault(function.__code__.co_filename, set())
    own |= _lines(function.__code__)
    for name in function.__code__.co_names:
        called = getattr(function.__globals__.get(name), "py_func", None)
        if called is not None:
            _add(called, lines, seen)


def _lines(code: CodeType) -> set[int]:
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return {line for *_, line in code.co_lines() if line}.union(*map(_lines, inner))
