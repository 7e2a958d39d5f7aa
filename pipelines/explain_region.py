"""Explain a region with a model that was trained elsewhere.

``python -m pipelines.explain_region region.toml --model build/paris/models/random-0.keras``
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
from sesgrid.run.region import explain_with


@click.command(cls=Command)
@config_argument
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@scheduler_option
def main(config: Path, model: Path, scheduler: str | None) -> None:
    """Explain the covered cells of CONFIG with one model."""
    settings = load_config(config)
    with connected(settings.cluster, scheduler) as client:
        done = bring_up_to_date(settings, client, "landcover")
        table = explain_with(settings, client, model)
    click.echo(f"{len(table)} cells explained: {settings.output / 'region.parquet'}")
    end(done)


if __name__ == "__main__":
    main()
