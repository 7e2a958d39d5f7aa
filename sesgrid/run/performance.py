"""Dask's performance report of a run: what every worker did when, on one page."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, performance_report

from sesgrid.store.location import writing

__all__ = ["reported"]

_WORTH_S = 60.0
"""A run that takes less tells nothing of a cluster."""


@contextmanager
def reported(client: Client, path: Path) -> Iterator[None]:
    """Keep a performance report of what is done inside, if that takes a minute and more.

    Parameters
    ----------
    client : Client
    path : Path
        Of the page, HTML.
    """
    started = time.monotonic()
    report = performance_report(filename=str(path))
    with client.as_current():
        report.__enter__()
    yield
    # not after an error: a cluster that is gone cannot tell
    if time.monotonic() - started >= _WORTH_S:
        path.parent.mkdir(parents=True, exist_ok=True)
        with client.as_current(), writing(str(path), "the performance report"):
            report.__exit__(None, None, None)
            _without_places(path)


def _without_places(path: Path) -> None:
    """The profile names the files of every function: leave out where this machine keeps them."""
    page = path.read_text(encoding="utf-8")
    places = {
        sys.prefix,
        sys.base_prefix,
        os.path.expanduser("~"),
        os.getcwd(),
        str(Path(__file__).parents[2]),
    }
    for place in sorted(places - {"/", "~"}, key=len, reverse=True):
        page = page.replace(place, "")
    path.write_text(page, encoding="utf-8")
