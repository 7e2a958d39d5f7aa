"""How long all of France takes on two parks of machines, and what bounds it there.

``python -m benchmarks.france_on_paper RATES SCALE``, with what ``sesgrid plan … --calibrate --rates RATES``
measured and what ``python -m benchmarks.scale --json`` printed.

Work over machines, beside the seconds that the driver spends on the stage's graphs, parts and tables with
nothing to compute: whichever is longer bounds the stage, as both go on at once. What the store must give
meanwhile is told, not known. The rate of a GPU is an assumption; its share of predicting is that of the
processor that was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sesgrid.run.rates import Rates, read_rates

__all__ = ["main"]

CELLS = 2_300_000

GPU_CELLS_PER_S = 320
"""Cells that an H100 is assumed to explain in a second; none could be had."""

SOURCE_BYTES = 3 * (200 / 0.2) ** 2 / 8
"""Read of the orthophotos for a cell: 20 cm, three bands, as JP2 eight times smaller than its pixels."""

PARKS = ((96, 1), (1000, 16))


@dataclass(frozen=True)
class Work:
    """What a stage asks for a cell."""

    stage: str
    seconds: float
    on_gpu: bool
    read: float
    """Bytes."""
    written: float


def work_of(rates: Rates) -> list[Work]:
    """The stages of a national run, with models at hand."""
    explain = 1 / GPU_CELLS_PER_S
    predict = explain * rates.predict_s / rates.explain_s
    image, classes = rates.image_bytes, rates.landcover_bytes
    return [
        Work("mosaic", rates.mosaic_s, False, SOURCE_BYTES, image),
        Work("landcover", rates.landcover_s, False, 0, classes),
        Work("predict", predict, True, image, 0),
        Work("explain", explain, True, image + classes, 0),
    ]


def page(rates: Rates, scale: Mapping[str, Any]) -> Iterator[str]:
    """The tables as Markdown."""
    for processors, gpus in PARKS:
        yield f"**{processors:,} processors, {gpus} GPU{'s' if gpus > 1 else ''}**"
        yield ""
        yield "| stage | hours of work | driver's hours | store reads | store writes | bound by |"
        yield "|---|---|---|---|---|---|"
        whole = 0.0
        for w in work_of(rates):
            computed = CELLS * w.seconds / (gpus if w.on_gpu else processors) / 3600
            driven = scale["seconds"][w.stage] / 3600
            hours = max(computed, driven)
            whole += hours
            bound = "driver" if driven > computed else "GPUs" if w.on_gpu else "processors"
            read, written = (CELLS * b / hours / 3600 / 1e6 for b in (w.read, w.written))
            store = f"{read:,.0f} MB/s | {written:,.0f} MB/s"
            yield f"| {w.stage} | {computed:.2f} | {driven:.3f} | {store} | {bound} |"
        around = sum(scale["seconds"][s] for s in ("cells", "analyse", "report")) / 3600
        yield f"| all, with cells, analysis and report ({around:.3f}) | {whole + around:.2f} | | | | |"
        yield ""
    seconds = ", ".join(f"{w.stage} {w.seconds:.4f}" for w in work_of(rates))
    yield f"Seconds a cell: {seconds}; measured {rates.measured} on {rates.machine}."


@click.command()
@click.argument("rates", type=click.Path(path_type=Path, exists=True))
@click.argument("scale", type=click.Path(path_type=Path, exists=True))
def main(rates: Path, scale: Path) -> None:
    """Print the tables of RATES and SCALE."""
    for line in page(read_rates(rates), json.loads(scale.read_text())):
        click.echo(line)


if __name__ == "__main__":
    main()
