"""Explain a region with a model that was trained elsewhere.

``python -m pipelines.explain_region region.toml --model build/paris/models/fold-0.keras``
"""

from __future__ import annotations

from pathlib import Path

import click

from sesgrid.run.cluster import connected
from sesgrid.run.config import load_config
from sesgrid.run.engine import run_stages
from sesgrid.run.region import explain_with


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--scheduler", metavar="ADDRESS")
def main(config: Path, model: Path, scheduler: str | None) -> None:
    """Explain the covered cells of CONFIG with one model."""
    settings = load_config(config)
    with connected(settings.cluster, scheduler) as client:
        run_stages(settings, client, "landcover", click.echo)
        table = explain_with(settings, client, model)
    click.echo(f"{len(table)} cells explained: {settings.output / 'region.parquet'}")


if __name__ == "__main__":
    main()
