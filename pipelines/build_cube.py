"""Build a cube: cells, pixels and land cover of one TOML.

``python -m pipelines.build_cube city.toml [--scheduler tcp://host:8786]``
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
    """Bring the cube of CONFIG up to date."""
    settings = load_config(config)
    with connected(settings.cluster, scheduler) as client:
        done = run_stages(settings, client, "landcover", click.echo)
    if done["mosaic"].get("errors"):
        sys.exit(1)


if __name__ == "__main__":
    main()
