"""What training from the cube costs over Keras' own ``fit`` on arrays already in memory.

``python -m benchmarks.training --json``

The synthetic city of `make demo`, five folds, one after the other: each is trained by `sesgrid` (cells read
from the cube, flipped, cropped; course, logs and a checkpoint after every epoch, the model and its card
saved) and by ``Model.fit`` with early stopping on float32 arrays that hold as many crops of the same size,
and nothing else. Both use one network, compiled before, and the same number of epochs; who goes first
changes from fold to fold. ``training_over_fit`` is the upper quartile of the five ratios of seconds: three
folds in four cost no more.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.noisy_labels import city_cube
from benchmarks.rounds import arguments, describe_machine
from sesgrid.run.workspace import load_cells
from sesgrid.stages.protocol import protocol_named
from sesgrid.stages.train import Fold, plan_folds, train_fold
from sesgrid.store.cube import Cube


def in_memory(fold: Fold, pixels: Any) -> tuple[np.ndarray, ...]:
    """Crops of the training cells, whole validation cells, and their classes, as ``fit`` takes them."""
    import keras

    from sesgrid.stages.cell_batches import CellBatches
    from sesgrid.store.cell_reader import CellReader

    reader, out = CellReader(pixels["image"].assign_attrs(pixels.attrs)), []
    for members, augment in ((~fold.validation, True), (fold.validation, False)):
        index = np.flatnonzero(members)
        crop = fold.protocol.crop_share if augment else 1.0
        data = CellBatches(
            reader, fold.cells[index], fold.ses[index], fold.n_classes, len(index),
            augment=augment, crop_share=crop,
        )  # fmt: skip
        image, classes = data[0][:2]
        out += [image.astype(np.float32), classes]
    keras.backend.clear_session(free_memory=False)
    return tuple(out)


def fit_in_memory(fold: Fold, arrays: tuple[np.ndarray, ...]) -> None:
    """Keras' own way, on the network that the other way has compiled."""
    import keras

    from sesgrid.stages.fit import first_weights, network_spec, trainer

    image, classes, val_image, val_classes = arrays
    p = fold.protocol
    spec = network_spec(p, fold.pixels or val_image.shape[1], fold.n_classes)
    model = trainer(spec, None).reset(first_weights(spec, None, fold.seed))
    model.fit(
        image,
        classes,
        batch_size=p.batch_size,
        epochs=p.epochs,
        validation_data=(val_image, val_classes),
        verbose=0,
        callbacks=[keras.callbacks.EarlyStopping(patience=p.patience, restore_best_weights=True)],
    )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Command line."""
    options = arguments(__doc__, argv)
    print(describe_machine())
    side, pixels_per_cell, epochs = (10, 64, 1) if options.quick else (22, 256, 3)
    ratios, told = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, _ = city_cube(folder, side, pixels_per_cell, 2 if options.quick else 5, 0)
        cells, pixels = load_cells(files), Cube.open(files.cube).pixels()
        protocol = protocol_named("scratch", epochs=epochs)
        folds = plan_folds(cells, folder / "models", protocol, seed=0)
        image = pixels["image"].assign_attrs(pixels.attrs)
        warm = plan_folds(cells, folder / "warm", protocol_named("scratch", epochs=1), seed=0)[0]
        # both compile, each for its own kind of arrays
        train_fold(warm, image)
        fit_in_memory(warm, in_memory(warm, pixels))
        for turn, fold in enumerate(folds):
            arrays = in_memory(fold, pixels)
            took = {}
            for name in ("ours", "fit") if turn % 2 == 0 else ("fit", "ours"):
                started = time.perf_counter()
                if name == "ours":
                    train_fold(fold, image)
                else:
                    fit_in_memory(fold, arrays)
                took[name] = time.perf_counter() - started
            ours, theirs = took["ours"], took["fit"]
            ratios.append(ours / theirs)
            told.append({"fold": fold.fold, "seconds": ours, "fit_seconds": theirs})
            print(
                f"fold {fold.fold}: {ours:.1f} s, fit {theirs:.1f} s, {ratios[-1]:.3f}", flush=True
            )
    found = {
        "training_over_fit": float(np.quantile(ratios, 0.75)),
        "training_over_fit_median": float(np.median(ratios)),
        "folds": told,
    }
    print(f"training_over_fit {found['training_over_fit']:.3f}")
    if options.json:
        print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
