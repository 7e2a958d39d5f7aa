"""Feeding a training: cells from a cube, against Keras' directory of PNG files.

As many threads each as there are processors, at most 4, batches of 10, 800 px, shuffled, from a warm page
cache. Both are iterated as ``Model.fit`` does, and give what it is given: bytes from the cube, which the
network casts on its device, float32 from the directory. ``--json`` ends with one object:

- ``loader_vs_png``: images a second from the lossless cube over those of
  ``keras.utils.image_dataset_from_directory``;
- ``processor_vs_png``: the same, but processor seconds an image: what other programs leave unchanged;
- ``loader_vs_png_cast``: the cube's batches cast to float32 on the processor as well;
- ``loader_vs_png_flipped``: both flip at random, the directory by ``keras.layers.RandomFlip``;
- ``jpeg_vs_png``, ``jpegxl_vs_png``: cubes with an image codec;
- ``epoch_memory_growth``: resident memory after the last of eight epochs over that after the first, less
  one;
- ``blocks_variance``, ``blocks_distance``: ``shuffle="blocks"`` over "full", the variance of the classes'
  shares in a batch, and the mean distance of its cells, in a city whose incomes vary smoothly.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from scipy import ndimage

from benchmarks.rounds import arguments, interleave, lower_quartile_ratio, report
from benchmarks.scene import aerial_texture
from sesgrid.grid import Extent, Grid
from sesgrid.store.codec import CodecName, PixelCodec
from sesgrid.store.cube import Cube

THREADS = min(4, len(os.sched_getaffinity(0)))
BATCH = 10
N_CLASSES = 5
CODECS: tuple[CodecName, ...] = ("zstd", "jpeg", "jpegxl")
SIDE = 8
"""Cells along a block."""
PASSES = {"png, flips": 1, "zstd, flips": 4, "jpegxl": 4}
"""How often a contender's epoch shows each cell, else 8 times: 1,024 images, where the study's epochs have
2,500. Ending an epoch costs Keras a tenth of a second."""


def draw(blocks: int, px: int) -> Iterator[np.ndarray]:
    """Blocks uint8 ``(band, y, x)`` of a synthetic city, fixed by a seed; small ones of texture."""
    n = SIDE * px
    if px < 800:
        for k in range(blocks):
            yield np.ascontiguousarray(aerial_texture(n, n, np.random.default_rng(k)))
        return
    from sesgrid.synth.city import make_city

    scene = make_city(SIDE * blocks, 0, 0.1).scene(0)
    for k in range(blocks):
        picture = scene.window(k * n * 0.25, (k + 1) * n * 0.25, 0.25, n)
        yield np.ascontiguousarray(picture.transpose(2, 0, 1))


class Inputs:
    """The same cells in cubes and as PNG files in class folders."""

    def __init__(self, folder: Path, blocks: int, px: int) -> None:
        self.folder, self.px = folder, px
        grid = Grid(px, SIDE)
        self.cells = np.argwhere(np.ones((SIDE, SIDE * blocks), bool))
        self.ses = np.random.default_rng(1).integers(0, N_CLASSES, len(self.cells))
        extent = Extent.of_cells(grid, *self.cells.T)
        cubes = [Cube.create(folder / f"{c}.zarr", extent, {}, PixelCodec(c)) for c in CODECS]
        for k in range(N_CLASSES):
            (folder / "png" / str(k)).mkdir(parents=True)
        for k, block in enumerate(draw(blocks, px)):
            for cube in cubes:
                cube.write_block(0, k, {"image": block})
            for i in np.flatnonzero(self.cells[:, 1] // SIDE == k):
                y, x = grid.cell_slices(*(self.cells[i] % SIDE))
                path = folder / "png" / str(self.ses[i]) / f"{i}.png"
                image = np.ascontiguousarray(block[:, y, x].transpose(1, 2, 0))
                path.write_bytes(imagecodecs.png_encode(image))

    def cube(self, codec: str, passes: int, **options: Any) -> Any:
        """Our batches."""
        from sesgrid.stages.cell_batches import CellBatches
        from sesgrid.store.cell_reader import CellReader

        reader = CellReader(Cube.open(self.folder / f"{codec}.zarr").pixels()["image"])
        options = {"augment": True, "flips": False, "workers": THREADS, **options}
        options["samples_per_epoch"] = passes * len(self.cells)
        return CellBatches(reader, self.cells, self.ses, N_CLASSES, BATCH, **options)

    def directory(self, passes: int, *, flips: bool = False) -> Any:
        """Keras' batches."""
        import keras
        import tensorflow as tf

        data = keras.utils.image_dataset_from_directory(
            self.folder / "png", label_mode="categorical", batch_size=BATCH, seed=0, verbose=False,
            image_size=(self.px, self.px),
        )  # fmt: skip
        if flips:
            layer = keras.layers.RandomFlip(seed=0)
            data = data.map(lambda x, y: (layer(x, training=True), y), tf.data.AUTOTUNE)
        data, options = data.repeat(passes), tf.data.Options()
        options.threading.private_threadpool_size = THREADS
        return data.with_options(options).prefetch(tf.data.AUTOTUNE)


def ignore(image: Any) -> None:
    """What a network without layers does."""


def cast(image: Any) -> None:
    """What a network does first."""
    import tensorflow as tf

    tf.cast(image, tf.float32)


class OfCube:
    """A cube's batches as fit takes them: one adapter and one dataset for all epochs."""

    def __init__(self, batches: Any) -> None:
        from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

        self.adapter = PyDatasetAdapter(batches)
        self.data = self.adapter.get_tf_dataset()

    def __call__(self, each: Callable[[Any], None] = ignore) -> None:
        """One epoch."""
        self.adapter.on_epoch_begin()
        for image, _ in self.data:
            each(image)
        self.adapter.on_epoch_end()


def epoch_of_directory(data: Any, each: Callable[[Any], None] = ignore) -> None:
    """One epoch; tf.data is iterated as it is."""
    for image, _ in data:
        each(image)


def rivals_of(inputs: Inputs) -> dict[str, Callable[..., None]]:
    def cube(codec: str, name: str, **options: Any) -> Callable[..., None]:
        return OfCube(inputs.cube(codec, passes(name), **options))

    def directory(name: str, **options: Any) -> Callable[..., None]:
        return partial(epoch_of_directory, inputs.directory(passes(name), **options))

    return {
        "zstd": cube("zstd", "zstd"),
        "png": directory("png"),
        "zstd, cast": partial(cube("zstd", "zstd, cast"), cast),
        "jpeg": cube("jpeg", "jpeg"),
        "jpegxl": cube("jpegxl", "jpegxl"),
        "zstd, flips": cube("zstd", "zstd, flips", flips=True),
        "png, flips": directory("png, flips", flips=True),
    }


def passes(name: str) -> int:
    return PASSES.get(name, 8)


def require_equal(rivals: dict[str, Callable[..., None]]) -> None:
    """The lossless cube and the files hold the same images."""

    def sums(name: str) -> list[float]:
        found: list[float] = []
        rivals[name](lambda image: found.extend(image.numpy().sum((1, 2, 3), np.float64).tolist()))
        return sorted(found)

    if sums("zstd") != sums("png"):
        raise AssertionError("the contenders give different images")


def processor_seconds(rivals: dict[str, Callable[..., None]], name: str) -> float:
    """Of all threads, for one epoch; the lesser of three."""

    def once() -> float:
        start = time.process_time()
        rivals[name]()
        return (time.process_time() - start) / passes(name)

    return min(once() for _ in range(3))


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_after_epochs(inputs: Inputs, epochs: int) -> list[int]:
    """Resident bytes after each epoch from the cube, in a process of its own."""
    epoch, found = OfCube(inputs.cube("zstd", 4, flips=True)), []
    for _ in range(epochs):
        epoch()
        found.append(resident_bytes())
    return found


def shuffle_figures(side: int, rounds: int) -> dict[str, float]:
    """What reading by blocks costs in randomness: a city with 3 cells in 10 inhabited, in patches."""
    from sesgrid.stages.cell_batches import WINDOW, shuffled

    rng = np.random.default_rng(0)
    income, homes = (ndimage.gaussian_filter(rng.normal(size=(side, side)), s) for s in (5, 4))
    inhabited = homes > np.quantile(homes, 0.7)
    cells = np.argwhere(inhabited)
    values = income[inhabited] + rng.normal(0, 0.3 * income.std(), len(cells))
    ses = np.digitize(values, np.quantile(values, [0.2, 0.4, 0.6, 0.8]))

    def figures(how: Any) -> np.ndarray:
        found = []
        for k in range(rounds):
            order = shuffled(cells // SIDE, how, [0, k])
            batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
            shares = np.eye(N_CLASSES)[ses[batches]].mean(axis=1)
            apart = cells[batches][:, :, np.newaxis] - cells[batches][:, np.newaxis]
            found.append((shares.var(axis=0).sum(), np.hypot(*np.moveaxis(apart, -1, 0)).mean()))
        return np.mean(found, axis=0)

    variance, distance = figures("blocks") / figures("full")
    return {
        "blocks_variance": float(variance), "blocks_distance": float(distance), "window": WINDOW,
        "cells_per_block": len(cells) / len(np.unique(cells // SIDE, axis=0)),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    blocks, px, rounds = (1, 32, 5) if options.quick else (2, 800, 7)
    with tempfile.TemporaryDirectory() as name:
        inputs = Inputs(Path(name), blocks, px)
        rivals = rivals_of(inputs)
        require_equal(rivals)
        seconds = interleave(rivals, rounds, repeats=1)
        processor = {name: processor_seconds(rivals, name) for name in ("zstd", "png")}
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            held = process.submit(memory_after_epochs, inputs, 3 if options.quick else 8).result()
    each = {key: s / (passes(key) * len(inputs.cells)) for key, s in seconds.items()}
    what = f"an image of {px} px of {len(inputs.cells)} cells, {THREADS} threads"
    report(what, each, "zstd", ["keras", "tensorflow", "numcodecs", "imagecodecs"], False)
    rates = {key: 1 / float(np.median(s)) for key, s in each.items()}
    print("images a second: " + ", ".join(f"{key} {rate:.0f}" for key, rate in rates.items()))
    pairs = {
        "loader_vs_png": ("png", "zstd"),
        "loader_vs_png_cast": ("png", "zstd, cast"),
        "loader_vs_png_flipped": ("png, flips", "zstd, flips"),
        "jpeg_vs_png": ("png", "jpeg"),
        "jpegxl_vs_png": ("png", "jpegxl"),
    }
    result: dict[str, Any] = {
        **{key: lower_quartile_ratio(each[a], each[b]) for key, (a, b) in pairs.items()},
        "processor_vs_png": processor["png"] / processor["zstd"],
        "epoch_memory_growth": held[-1] / held[0] - 1,
        "resident_mb": [round(b / 1e6) for b in held],
        "images_per_second": {key: round(rate, 1) for key, rate in rates.items()},
        **shuffle_figures(60 if options.quick else 200, 3 if options.quick else 30),
        "threads": THREADS,
        "rounds": rounds,
    }
    for key, value in result.items():
        print(f"  {key}: {value:.3f}" if isinstance(value, float) else f"  {key}: {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
