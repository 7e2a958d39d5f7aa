"""The command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sesgrid import __version__
from sesgrid.run.command import Command, bring_up_to_date, config_argument, end, scheduler_option
from sesgrid.run.study_commands import STUDY_COMMANDS

__all__ = ["main"]

_STAGES = ("cells", "mosaic", "landcover", "train", "predict", "explain", "analyse", "report")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sesgrid")
def main() -> None:
    """Explained maps of socioeconomic status from aerial images, census cells and land cover."""


def _run(config_path: Path, scheduler: str | None, last: str) -> None:
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import load_config

    config = load_config(config_path)
    with connected(config.cluster, scheduler) as client:
        summaries = bring_up_to_date(config, client, last)
    if last == "report":
        _tell_results(config.output, summaries["analyse"])
    end(summaries)


def _tell_results(output: Path, scores: Mapping[str, Any]) -> None:
    def figure(name: str) -> str:
        value = scores.get(name)
        return "undefined" if value is None else f"{value:.3f}"

    click.echo("")
    click.echo(f"Pearson r, unseen cells, mean of folds   {figure('pearson_r')}")
    click.echo(f"Pearson r of mean colour (baseline)      {figure('pearson_r_colour_baseline')}")
    click.echo(f"Pearson r of boosting (baseline)         {figure('pearson_r_boosting_baseline')}")
    click.echo(f"accuracy                                 {figure('accuracy')}")
    click.echo(f"accuracy within one class                {figure('accuracy_within_one')}")
    click.echo(f"mean absolute error, classes             {figure('mae')}")
    if "leakage gap in r" in scores:
        click.echo(f"Pearson r, random folds                  {figure('pearson_r, random folds')}")
        click.echo(f"Pearson r, spatial folds                 {figure('pearson_r, spatial folds')}")
        click.echo(f"leakage gap                              {figure('leakage gap in r')}")
    click.echo(f"report: {output / 'report.html'}")


def _stage_command(name: str, last: str, text: str) -> None:
    @main.command(name, cls=Command, help=text)
    @config_argument
    @scheduler_option
    def command(config: Path, scheduler: str | None) -> None:
        _run(config, scheduler, last)


_stage_command("run", "report", "Run every stage that is not up to date.")
for _name in _STAGES:
    _stage_command(_name, _name, f"Bring the stage '{_name}' up to date, with all that it needs.")


@main.command(cls=Command)
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


@main.command(cls=Command)
@click.argument("cube")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--variable", default="image", show_default=True, help="Of the pixels or the cells.")
@click.option(
    "--bbox", nargs=4, type=float, metavar="WEST SOUTH EAST NORTH", help="Metres in EPSG:3035."
)
def export(
    cube: str, output: Path, variable: str, bbox: tuple[float, float, float, float] | None
) -> None:
    """Write a part of CUBE as Cloud Optimized GeoTIFF (.tif) or its cells as GeoParquet (.parquet)."""
    from sesgrid.run.export import export

    click.echo(f"wrote {export(cube, output, variable, bbox)}")


@main.command(cls=Command)
@click.argument("cube")
@click.option(
    "--cells", default=48, show_default=True, type=click.IntRange(min=2), help="To look at."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of sample and chance."
)
@scheduler_option
def audit(cube: str, cells: int, seed: int, scheduler: str | None) -> None:
    """Test whether the explanations of a finished run, by its CUBE, show what the models look at."""
    from sesgrid.run.audit import config_of_cube, figures, run_audit
    from sesgrid.run.cluster import connected
    from sesgrid.run.workspace import Workspace

    config = config_of_cube(cube)
    with connected(config.cluster, scheduler) as client:
        click.echo(f"dashboard: {client.dashboard_link}")
        result = run_audit(config, client, cells, seed)
    lines = list(figures(result))
    width = max(len(what) for what, _ in lines)
    for what, value in lines:
        click.echo(f"{what:{width}}   {value}")
    files = Workspace.of(config)
    click.echo(f"audit: {files.audit}")
    if files.report.exists():
        click.echo(f"report: {files.report}")


for _command in STUDY_COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main()
