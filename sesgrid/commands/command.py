"""What every command shares: options, exit status, and the run behind it.

Exit status: 0 done; 1 done, but some pixels could not be read or some tasks failed; 2 it cannot be done
as asked (the message says why); 3 a defect of the software.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesgrid.errors import SesgridError

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

Summaries = Mapping[str, Mapping[str, Any]]

config_argument = click.argument("config", type=click.Path(path_type=Path))
scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="A running Dask scheduler; or 'local': this machine, whatever [cluster] says.",
)


of_run = click.option(
    "--config",
    metavar="TOML",
    type=click.Path(path_type=Path),
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
    """A command whose expected errors are one line and status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SesgridError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            traceback.print_exc()
            click.echo(
                "this is a defect of sesgrid: please report it with the lines above", err=True
            )
            sys.exit(3)


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
            click.echo(f"  {line}", err=True)
    if failed:
        sys.exit(1)
