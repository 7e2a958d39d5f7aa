"""What every command shares: options, exit status, and the run behind it.

Exit status: 0 done; 1 done, but some pixels could not be read or some tasks failed; 2 it cannot be done
as asked (the message says why); 3 a defect of the software; 130, 143 and 129 stopped by Ctrl-C, SIGTERM or
the end of its terminal.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesgrid.errors import MAX_MESSAGE, SesgridError, SesgridWarning, one_line
from sesgrid.foreign import cause_of
from sesgrid.run.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from distributed import Client

    from sesgrid.run.config import Config

__all__ = [
    "Command",
    "bring_up_to_date",
    "config_argument",
    "end",
    "loaded",
    "needed_config",
    "of_run",
    "scheduler_option",
]

# set before TensorFlow is imported, here and in the workers: its start-up lines are no news
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

DEBUG = "SESGRID_DEBUG"
"""Environment variable; where it is set, an error is told with the lines that it came from."""

Summaries = Mapping[str, Mapping[str, Any]]

config_argument = click.argument("config", type=click.Path(path_type=Path, readable=False))
scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="A running Dask scheduler; or 'local': this machine, whatever [cluster] says.",
)


of_run = click.option(
    "--config",
    metavar="TOML",
    type=click.Path(path_type=Path, readable=False),
    help="Configuration of the cube's run: it alone says where sources are, and where to compute.",
)


def loaded(path: Path | None) -> Config | None:
    """The configuration, where one was given."""
    from sesgrid.run.config import load_config

    return None if path is None else load_config(path)


def needed_config(path: Path | None, command: str) -> Config:
    """The configuration that a command cannot do without.

    Raises
    ------
    ConfigError
        None was given.
    """
    from sesgrid.errors import ConfigError

    config = loaded(path)
    if config is None:
        raise ConfigError(
            "this needs the run's sources or cluster, which a cube does not tell: type "
            f"`sesgrid {command} --config city.toml`, with the run's own configuration"
        )
    return config


class Command(click.Command):
    """A command that ends in one line where it cannot do what was asked, and never in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # names of files may be no text
        if not os.environ.get(DEBUG):
            # of several reads that fail together, it tells all that nobody waited for
            logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
        try:
            with stoppable(), warnings.catch_warnings():
                warnings.showwarning = _tell_warning
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Stopped, Exception) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever read what is told here is gone
            if os.environ.get(DEBUG):
                traceback.print_exc()
            told, status = _told(error)
            for line in getattr(error, "others", ()):
                click.echo(one_line(f"error: {line}"), err=True)
            click.echo(told, err=True)
            sys.exit(status)


def _told(error: BaseException) -> tuple[str, int]:
    """An error in one line, and the exit status that it ends in."""
    if isinstance(error, Stopped):
        return str(error), error.status
    if isinstance(error, SesgridError):
        return one_line(f"error: {error}"), 2
    if isinstance(error, OSError):
        about = f"{error.filename}: " if error.filename is not None else ""
        return one_line(
            f"error: {about}{cause_of(error)}: make room or give access, then try again"
        ), 2
    if isinstance(error, MemoryError):
        return "error: there is not enough memory: give fewer threads, or a larger machine", 2
    return (
        one_line(
            f"error: unexpected {cause_of(error)}; this is a defect of sesgrid: please report it, with what "
            f"it tells where {DEBUG}=1 is set in the environment"
        ),
        3,
    )


def _tell_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: Any = None, line: str | None = None,
) -> None:  # fmt: skip
    """Ours are notes to whoever typed the command; others' are of no use to them."""
    if issubclass(category, SesgridWarning) or os.environ.get(DEBUG):
        click.echo(one_line(f"note: {message}"), err=True)


def bring_up_to_date(
    config: Config, client: Client, last: str, only: frozenset[str] | None = None
) -> Summaries:
    """Run the stages up to ``last`` that are not up to date, of some départements, and tell what happens.

    Returns
    -------
    mapping
        Summary per stage, for `end`.
    """
    from sesgrid.run.engine import run_stages

    click.echo(f"dashboard: {client.dashboard_link}")
    return run_stages(config, client, last, click.echo, only)


def end(*runs: Summaries) -> None:
    """Exit with the status of the runs: 1, and a line each, where something could not be read or done."""
    told = [
        ("errors", "read failures; those pixels are marked 'read failed'"),
        (
            "failures",
            "tasks failed; what they would have made is missing, and the next run tries them again",
        ),
    ]
    failed = False
    for kind, what in told:
        lines = [e for run in runs for summary in run.values() for e in summary.get(kind, [])]
        if lines:
            failed = True
            click.echo(f"{len(lines)} {what}:", err=True)
        for line in lines:
            click.echo(f"  {one_line(line, MAX_MESSAGE - 2)}", err=True)
    if failed:
        sys.exit(1)
