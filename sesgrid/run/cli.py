"""The command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from sesgrid import __version__
from sesgrid.errors import SesgridError

__all__ = ["main"]

# set before TensorFlow is imported, here and in the workers: its start-up lines are no news
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_STAGES = ("cells", "mosaic", "landcover", "train", "predict", "explain", "analyse", "report")


class _Group(click.Group):
    """Expected errors become one line and exit status 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SesgridError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sesgrid")
def main() -> None:
    """Explained maps of socioeconomic status from aerial images, census cells and land cover."""


def _run(config_path: Path, scheduler: str | None, last: str) -> None:
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import load_config
    from sesgrid.run.engine import run_stages

    config = load_config(config_path)
    with connected(config.cluster, scheduler) as client:
        click.echo(f"dashboard: {client.dashboard_link}")
        summaries = run_stages(config, client, last, click.echo)
    failures = [e for s in summaries.values() for e in s.get("errors", [])]
    if last == "report":
        _tell_results(config.output, summaries["analyse"])
    if failures:
        click.echo(
            f"{len(failures)} read failures; those pixels are marked 'read failed':", err=True
        )
        for failure in failures:
            click.echo(f"  {failure}", err=True)
        sys.exit(1)


def _tell_results(output: Path, scores: dict) -> None:
    def figure(name: str) -> str:
        value = scores.get(name)
        return "undefined" if value is None else f"{value:.3f}"

    click.echo("")
    click.echo(f"Pearson r, unseen cells, mean of folds   {figure('pearson_r')}")
    click.echo(f"Pearson r of mean colour (baseline)      {figure('pearson_r_colour_baseline')}")
    click.echo(f"accuracy                                 {figure('accuracy')}")
    click.echo(f"accuracy within one class                {figure('accuracy_within_one')}")
    click.echo(f"mean absolute error, classes             {figure('mae')}")
    click.echo(f"report: {output / 'report.html'}")


def _stage_command(name: str, last: str, text: str) -> None:
    @main.command(name, help=text)
    @click.argument("config", type=click.Path(path_type=Path))
    @click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler.")
    def command(config: Path, scheduler: str | None) -> None:
        _run(config, scheduler, last)


_stage_command("run", "report", "Run every stage that is not up to date.")
for _name in _STAGES:
    _stage_command(_name, _name, f"Bring the stage '{_name}' up to date, with all that it needs.")


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--cells", default=20, show_default=True, help="Cells along one side of the city.")
@click.option("--seed", default=0, show_default=True)
@click.option("--resolution-m", default=0.8, show_default=True, help="Of the aerial tiles.")
@click.option("--imputed-share", default=0.1, show_default=True, help="Share of imputed cells.")
@click.option("--output", default="result", show_default=True, help="Of the run, in city.toml.")
def synth(
    directory: Path, cells: int, seed: int, resolution_m: float, imputed_share: float, output: str
) -> None:
    """Write a synthetic city in the formats of the real sources, with a city.toml to run it."""
    from sesgrid.run.demo import write_demo_config
    from sesgrid.synth import write_city

    city = write_city(
        directory,
        cells=cells,
        seed=seed,
        resolution_m=resolution_m,
        imputed_share=imputed_share,
    )
    path = write_demo_config(city, output)
    click.echo(f"wrote a city of {cells} × {cells} cells; next: sesgrid run {path}")


if __name__ == "__main__":
    main()
