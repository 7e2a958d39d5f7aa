"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sesgrid import __version__
from sesgrid.commands.command import (
    Command,
    bring_up_to_date,
    config_argument,
    end,
    loaded,
    needed_config,
    of_run,
    scheduler_option,
)
from sesgrid.commands.study import STUDY_COMMANDS

__all__ = ["main"]

_STAGES = ("cells", "mosaic", "landcover", "train", "predict", "explain", "analyse", "report")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sesgrid")
def main() -> None:
    """Explained maps of socioeconomic status from aerial images, census cells and land cover."""


def _run(
    config_path: Path, scheduler: str | None, last: str, only: frozenset[str] | None = None
) -> None:
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import load_config

    config = load_config(config_path)
    with connected(config.cluster, scheduler) as client:
        summaries = bring_up_to_date(config, client, last, only)
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


def _part_command(name: str, text: str) -> None:
    @main.command(name, cls=Command, help=text)
    @config_argument
    @click.option(
        "--only", multiple=True, metavar="CODE",
        help="A département, such as 75; may be given several times. Jobs of different ones fill one cube "
        "side by side; the run without this option then finds their pixels there, and goes on.",
    )  # fmt: skip
    @scheduler_option
    def command(config: Path, only: tuple[str, ...], scheduler: str | None) -> None:
        _run(config, scheduler, name, frozenset(only) or None)


@main.command(cls=Command)
@config_argument
def check(config: Path) -> None:
    """Open every source of CONFIG and tell what it holds and where; nothing is written.

    Where sources.check asks for it, files are compared with the .md5 beside them first.
    """
    from sesgrid.run.check import check_sources
    from sesgrid.run.config import load_config
    from sesgrid.run.delivered import check_delivered

    loaded = load_config(config)
    check_delivered(loaded, click.echo)
    check_sources(loaded, click.echo, lambda told: click.echo(f"  note: {told}"))


_stage_command("run", "report", "Run every stage that is not up to date.")
for _name in _STAGES:
    _text = f"Bring the stage '{_name}' up to date, with all that it needs."
    if _name in ("mosaic", "landcover"):
        _part_command(_name, _text)
    else:
        _stage_command(_name, _name, _text)


@main.command(cls=Command)
@click.argument("directory", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--cells",
    default=20,
    show_default=True,
    type=click.IntRange(4, 1000),
    help="Cells along one side of the city.",
)
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
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, readable=False))
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
@of_run
@scheduler_option
def audit(cube: str, config: Path | None, cells: int, seed: int, scheduler: str | None) -> None:
    """Test whether the explanations of a finished run, by its CUBE, show what the models look at."""
    from sesgrid.run.audit import figures, finished_run, run_audit
    from sesgrid.run.cluster import connected
    from sesgrid.run.workspace import Workspace

    settings = finished_run(cube, needed_config(config, f"audit {cube}"))
    with connected(settings.cluster, scheduler) as client:
        click.echo(f"dashboard: {client.dashboard_link}")
        result = run_audit(settings, client, cells, seed)
    lines = list(figures(result))
    width = max(len(what) for what, _ in lines)
    for what, value in lines:
        click.echo(f"{what:{width}}   {value}")
    files = Workspace.of(settings)
    click.echo(f"audit: {files.audit}")
    if files.report.exists():
        click.echo(f"report: {files.report}")


@main.command(cls=Command)
@config_argument
@click.option(
    "--processors", type=click.IntRange(1), help="Of the cluster; default: this machine's."
)
@click.option(
    "--gpus", default=0, show_default=True, type=click.IntRange(0), help="Of the cluster."
)
@click.option("--threads", type=click.IntRange(1), help="Of a worker; default: as the run would.")
@click.option("--memory", help='Of a worker, such as "8GB"; default: cluster.memory.')
@click.option("--price", default=0.0, show_default=True, help="Of a processor for an hour.")
@click.option("--gpu-price", default=0.0, show_default=True, help="Of a GPU for an hour.")
@click.option(
    "--rates",
    "rates_path",
    type=click.Path(path_type=Path, readable=False),
    help="What a cell costs, as JSON.",
)
@click.option("--calibrate", is_flag=True, help="Measure that again on this machine.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def plan(
    config: Path, processors: int | None, gpus: int, threads: int | None, memory: str | None, price: float,
    gpu_price: float, rates_path: Path | None, calibrate: bool, as_json: bool,
) -> None:  # fmt: skip
    """Tell what a run will take: blocks, tasks, bytes, memory, hours, cost, and what is missing.

    What a cell costs is measured once, in a minute or two, and kept in the output folder, or in the file of
    --rates. Exit status 2: a worker would need more memory than it has.
    """
    import json
    import os

    from sesgrid.run.cluster import local_size
    from sesgrid.run.config import load_config
    from sesgrid.run.plan import Machines, lines, make_plan, memory_of
    from sesgrid.run.rates import measure_rates, read_rates, require_replaceable
    from sesgrid.run.workspace import Workspace

    settings = load_config(config)
    path = rates_path or settings.output / "work" / "rates.json"
    if calibrate or not path.exists():
        if rates_path is None:
            Workspace.of(settings).take(settings)  # only where something is written there
        else:
            require_replaceable(path)
        click.echo(f"measuring what a cell costs on this machine, into {path}", err=True)
        measure_rates(settings).write(path)
    processors = processors or len(os.sched_getaffinity(0))
    machines = Machines(
        processors, gpus, threads or local_size(settings.cluster, processors)[1],
        memory_of(memory or settings.cluster.memory), price, gpu_price,
    )  # fmt: skip
    made = make_plan(settings, read_rates(path), machines)
    if as_json:
        click.echo(json.dumps(made.as_dict()))
    else:
        for line in lines(made):
            click.echo(line)
    made.require_fits()


@main.command(cls=Command)
@click.argument("cube")
@of_run
def status(cube: str, config: Path | None) -> None:
    """Tell how far the run of CUBE is, while it runs and after."""
    from sesgrid.run.found import files_of_cube
    from sesgrid.run.status import lines, status_of

    for line in lines(status_of(files_of_cube(cube, loaded(config)))):
        click.echo(line)


@main.command(cls=Command)
@click.argument("cube")
@click.option(
    "--redo",
    is_flag=True,
    help="Make the blocks and files with faults again, and no others; with --config.",
)
@of_run
@scheduler_option
def verify(cube: str, redo: bool, config: Path | None, scheduler: str | None) -> None:
    """Compare CUBE, shard by shard, and the files of its run with the checksums that the run recorded."""
    from sesgrid.run.cluster import connected
    from sesgrid.run.found import config_of_cube, files_of_cube
    from sesgrid.run.repair import look_at, repair

    known = needed_config(config, f"verify {cube} --redo") if redo else loaded(config)
    faults = 0
    for fault in look_at(files_of_cube(cube, known)):
        click.echo(str(fault))
        faults += 1
    click.echo(f"{faults} faults")
    if faults and redo and known is not None:
        settings = config_of_cube(cube, known)
        with connected(settings.cluster, scheduler) as client:
            faults = repair(settings, client, click.echo)
    if faults:
        sys.exit(1)


for _command in STUDY_COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main()
