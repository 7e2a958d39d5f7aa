"""Train a city: one model per fold of one TOML, on its cube.

``python -m pipelines.train_city city.toml [--scheduler tcp://host:8786]``
"""

from __future__ import annotations

from pathlib import Path

import click

from sesgrid.commands.command import (
    Command,
    bring_up_to_date,
    config_argument,
    end,
    scheduler_option,
)
from sesgrid.run.cluster import connected
from sesgrid.run.config import load_config


@click.command(cls=Command)
@config_argument
@scheduler_option
def main(config: Path, scheduler: str | None) -> None:
    """Bring the models of CONFIG up to date."""
    settings = load_config(config)
    with connected(settings.cluster, scheduler) as client:
        done = bring_up_to_date(settings, client, "train")
    end(done)


if __name__ == "__main__":
    main()
