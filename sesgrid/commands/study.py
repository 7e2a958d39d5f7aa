"""The commands that compare trainings: compare, resolution, stability, transfer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesgrid.commands.command import (
    Command,
    bring_up_to_date,
    config_argument,
    end,
    scheduler_option,
)

if TYPE_CHECKING:
    from sesgrid.studies.comparisons import Study

__all__ = ["STUDY_COMMANDS"]


class _ListCommand(Command):
    """A command whose options take several values: ``--seeds 0 1 2``, ``--seeds 0,1,2``, or repeated."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write the option before each of its values.

        Its values end at the next option, or at a configuration's name (``….toml``).
        """
        several = {o for p in self.params if p.multiple for o in getattr(p, "opts", ())}
        groups: list[tuple[str | None, list[str]]] = [(None, [])]
        for arg in args:
            option, _, value = arg.partition("=")
            if option in several:
                groups.append((option, _listed(value)))
            elif arg.startswith("-") or arg.endswith(".toml"):
                groups.append((None, [arg]))
            else:
                groups[-1][1].extend(_listed(arg) if groups[-1][0] else [arg])
        out: list[str] = []
        for name, values in groups:
            if name is not None and not values:
                raise click.BadOptionUsage(name, f"Option {name!r} requires an argument.", ctx)
            out += values if name is None else [x for v in values for x in (name, v)]
        return super().parse_args(ctx, out)


def _listed(text: str) -> list[str]:
    return [value.strip() for value in text.split(",") if value.strip()]


_seeds = click.option(
    "--seeds", multiple=True, type=click.IntRange(0, 2**32 - 1), help="Of weights and shuffles."
)
_backbones = click.option(
    "--backbones", multiple=True, help="By name, of keras.applications; default: the run's."
)


def _run(
    config_path: Path, scheduler: str | None, last: str, name: str, **asked: Sequence[Any]
) -> None:
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import load_config
    from sesgrid.run.job import protocol_of
    from sesgrid.run.workspace import Workspace
    from sesgrid.studies import comparisons

    config = load_config(config_path)
    protocol = protocol_of(config)
    usual = {
        "backbones": [protocol.backbone],
        "heads": [protocol.head],
        "seeds": [config.train.seed],
    }
    settings: dict[str, Any] = {k: list(v) or usual[k] for k, v in asked.items()}
    comparisons.planned(config, name, **settings)
    with connected(config.cluster, scheduler) as client:
        summaries = bring_up_to_date(config, client, last)
        study = getattr(comparisons, name)(config, client, click.echo, **settings)
    _tell(study, Workspace.of(config).studies / name)
    end(summaries)


def _tell(study: Study, folder: Path) -> None:
    from sesgrid.report.study import print_lines, write_study

    for line in print_lines(study.name, study.tables):
        click.echo(line)
    click.echo(f"tables: {folder}")
    click.echo(f"page: {write_study(folder / 'index.html', study.name, study.tables)}")


@click.command(cls=_ListCommand)
@config_argument
@_backbones
@click.option("--heads", multiple=True, help="binomial, softmax, ordinal; default: the run's.")
@_seeds
@scheduler_option
def compare(config: Path, scheduler: str | None, **asked: Sequence[Any]) -> None:
    """Compare backbones and heads on the cells of CONFIG, beside two baselines."""
    _run(config, scheduler, "landcover", "compare", **asked)


@click.command(cls=_ListCommand)
@config_argument
@click.option("--pixels", multiple=True, type=click.IntRange(min=32), required=True,
              help="Sides of the image of a cell, such as 800 400 200 100.")  # fmt: skip
@scheduler_option
def resolution(config: Path, scheduler: str | None, pixels: Sequence[int]) -> None:
    """Train and test on the cells of CONFIG at several resolutions."""
    _run(config, scheduler, "mosaic", "resolution", pixels=pixels)


@click.command(cls=_ListCommand)
@config_argument
@_backbones
@_seeds
@scheduler_option
def stability(config: Path, scheduler: str | None, **asked: Sequence[Any]) -> None:
    """Ask whether the findings of CONFIG hold across folds, seeds and backbones."""
    _run(config, scheduler, "landcover", "stability", **asked)


@click.command(cls=Command)
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, readable=False),
    help="A folder.",
)
@scheduler_option
def transfer(configs: Sequence[Path], output: Path, scheduler: str | None) -> None:
    """Train on each of CONFIGS and test on every other: cities, or years of one city."""
    from sesgrid.run.cluster import connected
    from sesgrid.run.config import load_config
    from sesgrid.run.mark import Mark
    from sesgrid.run.training import train_together
    from sesgrid.studies.transfer import require_alike
    from sesgrid.studies.transfer import transfer as run_transfer

    loaded = [load_config(path) for path in configs]
    require_alike(loaded)
    Mark(output).take("transfer")  # before the work, not after it
    summaries = []
    with connected(loaded[0].cluster, scheduler) as client:
        for last in ("mosaic", "predict"):
            if last == "predict":
                click.echo("== training the models of all runs")
                train_together(loaded, client)
            for path, config in zip(configs, loaded, strict=True):
                click.echo(f"== {path}")
                summaries.append(bring_up_to_date(config, client, last))
        study = run_transfer(loaded, client, output, click.echo)
    _tell(study, output)
    end(*summaries[len(loaded) :])


STUDY_COMMANDS = (compare, resolution, stability, transfer)
