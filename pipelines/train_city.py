"""Train a city: one model per fold of one TOML, on its cube.

``python -m pipelines.train_city city.toml [--scheduler tcp://host:8786]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sesgrid.run.cluster import connected
from sesgrid.run.config import load_config
from sesgrid.run.engine import run_stages


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--scheduler", metavar="ADDRESS")
def main(config: Path, scheduler: str | None) -> None:
    """Bring the models of CONFIG up to date."""
    settings = load_config(config)
    with connected(settings.cluster, scheduler) as client:
        done = run_stages(settings, client, "train", click.echo)
    if done["mosaic"].get("errors"):
        sys.exit(1)


if __name__ == "__main__":
    main()
