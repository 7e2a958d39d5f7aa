"""All of France: every département's TOML in a folder, explained with the model of one city.

``python -m pipelines.france departements/ --model build/paris/models/random-0.keras``

One cube per département: blocks are anchored to the projection's origin, so the cubes join without
a gap. A département that fails is reported at the end and the others go on; run it again to do what is left.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sesgrid.errors import SesgridError
from sesgrid.run.cluster import connected
from sesgrid.run.command import Command, bring_up_to_date, end, scheduler_option
from sesgrid.run.config import load_config
from sesgrid.run.region import explain_with


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@scheduler_option
def main(folder: Path, model: Path, scheduler: str | None) -> None:
    """Explain every TOML in FOLDER."""
    done, failed = [], []
    configs = [(path, load_config(path)) for path in sorted(folder.glob("*.toml"))]
    for path, settings in configs:
        click.echo(f"== {path.name}")
        try:
            with connected(settings.cluster, scheduler) as client:
                done.append(bring_up_to_date(settings, client, "landcover"))
                explain_with(settings, client, model)
        except SesgridError as error:
            failed.append(f"{path.name}: {error}")
    if failed:
        for line in failed:
            click.echo(f"failed: {line}", err=True)
        sys.exit(2)
    end(*done)


if __name__ == "__main__":
    main()
