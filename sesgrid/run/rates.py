"""What a cell costs on this machine: measured in a minute on a made-up city, and kept as JSON.

The stages' own code runs on cells of the run's size, with its network and its codec; only the imagery is
another's. Times are of processors (all threads of a process together), or of the GPU where there is one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from sesgrid.batches.flight import peak_mb
from sesgrid.errors import ClusterError, ConfigError, FormatError, MissingInputError, one_line
from sesgrid.foreign import reading, scratch
from sesgrid.grid import Extent, Grid, rowcol_of_ids
from sesgrid.run.config import Config
from sesgrid.run.job import protocol_of
from sesgrid.run.stopping import deferred
from sesgrid.store.parts import write_atomically

__all__ = ["Rates", "measure_rates", "read_rates", "require_replaceable"]

_CITY_CELLS, _RESOLUTION_M = 5, 0.2
_ENDLESS = 1e15
"""No cell takes as many seconds or bytes."""
_CALLS = 4
"""Of the network, after the first."""


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes of a cell."""

    machine: str
    measured: str
    """Day."""
    pixels_per_cell: int
    backbone: str
    codec: str
    mosaic_s: float
    """Processor seconds: decoding, warping, encoding and writing."""
    landcover_s: float
    """Processor seconds."""
    predict_s: float
    """Processor seconds of a forward pass; of the GPU where ``on_gpu``."""
    explain_s: float
    """The same of an explanation: passes, maps, sums."""
    train_s: float
    """The same of one cell in one epoch of training."""
    on_gpu: bool
    image_bytes: int
    """In the store, image and coverage."""
    landcover_bytes: int
    model_peak_mb: int
    """Of a process that explains."""

    def write(self, path: Path) -> None:
        """Keep them as JSON."""
        write_atomically(path, json.dumps(asdict(self), indent=1))


def read_rates(path: Path) -> Rates:
    """Rates that were kept.

    Raises
    ------
    FormatError
        The file holds something else.
    """
    advice = "expected the rates that `sesgrid plan` measures: measure again with --calibrate"
    with reading(path, FormatError, advice):
        known = json.loads(path.read_text(encoding="utf-8"))
        found = {f.name: known[f.name] for f in fields(Rates)}
    for name, kind in get_type_hints(Rates).items():
        value = found[name]
        if kind in (int, float):
            right = type(value) in (int, float) and 0 <= value < _ENDLESS
        else:
            right = type(value) is kind
        if not right:
            raise FormatError(f"{path}: {name} is {one_line(repr(value), 60)}; {advice}")
    return Rates(**found)


def require_replaceable(path: Path) -> None:
    """Before minutes of measuring: refuse to write rates over a file that holds something else.

    Raises
    ------
    ConfigError
    """
    try:
        read_rates(path)
    except MissingInputError:
        return
    except FormatError as error:
        raise ConfigError(
            f"{path} holds no rates that `sesgrid plan` measured, and would be replaced: give --rates "
            "another name, or move this file away"
        ) from error


def measure_rates(config: Config) -> Rates:
    """Measure what cells cost with a run's settings, in processes of their own."""
    found: dict[str, Any] = {}
    for measure in (_pixels, _models):
        found |= _apart(measure, config)
    return Rates(
        machine=f"{platform.machine()}, {multiprocessing.cpu_count()} processors",
        measured=date.today().isoformat(),
        pixels_per_cell=config.grid.pixels_per_cell,
        backbone=protocol_of(config).backbone,
        codec=config.cube.codec,
        **found,
    )


def _apart(measure: Callable[[Config], dict[str, Any]], config: Config) -> dict[str, Any]:
    """What is measured in a fresh process, whose peak is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            with deferred():
                measured = pool.submit(measure, config)
            return measured.result()
        except BrokenProcessPool as error:
            raise ClusterError(
                "the process that measured what a cell costs has died: most likely there is not enough "
                "memory; measure on a larger machine, or give --rates"
            ) from error
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.kill()  # it would be waited for
            raise


def _pixels(config: Config) -> dict[str, Any]:
    # the whole city would fit into GDAL's own: nothing would be decoded the second time
    os.environ["GDAL_CACHEMAX"] = "16"
    from sesgrid.batches.blocks import plan_batches
    from sesgrid.sources import RasterReader, read_filosofi, read_ortho, read_urban_atlas
    from sesgrid.stages.landcover import Landcover, LandcoverIndex
    from sesgrid.stages.mosaic import Mosaic, TileIndex
    from sesgrid.store.codec import PixelCodec
    from sesgrid.store.cube import Cube
    from sesgrid.synth import write_city

    grid = Grid(config.grid.pixels_per_cell, config.grid.cells_per_block)
    with scratch() as folder:
        city = write_city(folder / "city", cells=_CITY_CELLS, resolution_m=_RESOLUTION_M)
        cells = read_filosofi(city.census)
        at = rowcol_of_ids(cells.index)
        cells["row"], cells["col"] = at[:, 0], at[:, 1]
        groups = [group for batch in plan_batches(grid, cells) for group in batch.groups]
        extent = Extent.of_cells(grid, cells["row"], cells["col"])
        codec = PixelCodec(config.cube.codec, config.cube.quality)
        cube = Cube.create(folder / "cube.zarr", extent, {}, codec)
        tiles = TileIndex(grid, read_ortho(city.ortho))
        polygons = LandcoverIndex(grid, read_urban_atlas(city.landcover))
        out: dict[str, Any] = {}
        stages: list[tuple[str, Any, Any]] = [
            ("mosaic", Mosaic(grid, RasterReader()), tiles),
            ("landcover", Landcover(grid), polygons),
        ]
        for name, stage, index in stages:
            work = [index.items(group) for group in groups]
            for warm in (True, False):  # the first time compiles the kernels
                started, written = time.process_time(), 0
                for items in work[:1] if warm else work:
                    for result in stage.each(items):
                        block = result.block
                        shards = cube.write_block(block.block_row, block.block_col, result.arrays)
                        written += sum(size for size, _ in shards.values())
            out[f"{name}_s"] = (time.process_time() - started) / len(cells)
            out["image_bytes" if name == "mosaic" else "landcover_bytes"] = round(
                written / len(cells)
            )
    return out


def _models(config: Config) -> dict[str, Any]:
    from sesgrid.kernels.backend import gpu_bytes, start_backend
    from sesgrid.kernels.device import batch_size_for
    from sesgrid.run.cell_stages import explain_stage
    from sesgrid.stages.fit import network_spec
    from sesgrid.stages.predict import CellTask, Predict
    from sesgrid.store.models import save_model

    start_backend()
    import keras

    from sesgrid.kernels.network import build_network

    p, classes, on_gpu = config.grid.pixels_per_cell, config.cells.classes, gpu_bytes() > 0
    clock = time.perf_counter if on_gpu else time.process_time
    keras.utils.set_random_seed(0)
    model = build_network(network_spec(protocol_of(config), p, classes), weights=None)
    n = batch_size_for(p)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (n, 3, p, p), dtype=np.uint8)
    explaining = explain_stage(config)
    coverage = np.ones((n, p, p), np.uint8)
    landcover = rng.integers(0, explaining.n_values, (n, p, p), np.uint8)
    out: dict[str, Any] = {"on_gpu": on_gpu}
    with scratch() as folder:
        ref = save_model(
            model,
            folder / "model.keras",
            model_id="calibration",
            card={"pixels_per_cell": p, "n_classes": classes},
        )
        tasks = [CellTask(f"cell {k}", 0, 0, ref) for k in range(n)]
        for name, look in (
            ("predict", lambda: Predict()(tasks, image, coverage)),
            ("explain", lambda: explaining(tasks, image, coverage, landcover)),
        ):
            look()
            started = clock()
            for _ in range(_CALLS):
                look()
            out[f"{name}_s"] = (clock() - started) / (_CALLS * n)
    out["model_peak_mb"] = peak_mb()
    out["train_s"] = _training(model, image, clock)
    return out


def _training(model: Any, image: np.ndarray, clock: Any) -> float:
    """One step of gradients, the loss of which does not matter to its cost."""
    model.compile(optimizer="adam", loss="mean_squared_error", jit_compile=False)
    batch = np.moveaxis(image, 1, -1).astype(np.float32)
    target = np.zeros((len(batch), *model.output_shape[1:]), np.float32)
    model.train_on_batch(batch, target)
    started = clock()
    for _ in range(_CALLS):
        model.train_on_batch(batch, target)
    return float((clock() - started) / (_CALLS * len(batch)))
