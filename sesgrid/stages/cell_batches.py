"""Batches of cells for training: read when they are needed, flipped and cropped at random."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from sesgrid.kernels.backbones import MIN_PX

__all__ = ["CellBatches"]


class CellBatches(keras.utils.PyDataset):
    """Batches of cells, read when they are needed; the same order for the same seed.

    Parameters
    ----------
    read : callable
        Index ``(batch,)`` → uint8 ``(batch, band, y, x)``.
    ses : np.ndarray
        Class 0 … K−1 of every cell, int ``(cell,)``.
    n_classes, batch_size : int
    samples_per_epoch : int, optional
        Default: each cell once.
    augment : bool
        Shuffle, flip at random in both directions, and crop.
    crop_share : float
        Side of the random crop, as a share of the cell's; at least `MIN_PX` pixels.
    seed : int
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        ses: np.ndarray,
        n_classes: int,
        batch_size: int,
        *,
        samples_per_epoch: int | None = None,
        augment: bool = False,
        crop_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.read, self.ses, self.n_classes = read, np.asarray(ses), n_classes
        self.batch_size, self.augment, self.seed = batch_size, augment, seed
        self.crop_share = crop_share
        self.samples = samples_per_epoch or len(self.ses)
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def indices(self) -> np.ndarray:
        """The cells of this epoch in order: a window on an endless run of permutations."""
        if not self.augment:
            return np.arange(len(self.ses))
        n = len(self.ses)
        start = self.epoch * self.samples
        rounds = range(start // n, (start + self.samples - 1) // n + 1)
        order = [np.random.default_rng([self.seed, 0, r]).permutation(n) for r in rounds]
        return np.concatenate(order)[start % n :][: self.samples]

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        at = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        index = self.indices()[at]
        image = np.moveaxis(self.read(index), 1, -1).astype(np.float32)
        if self.augment:
            rng = np.random.default_rng([self.seed, 1, self.epoch, batch])
            image = np.stack([self._vary(one, rng) for one in image])
        return image, np.eye(self.n_classes, dtype=np.float32)[self.ses[index]]

    def _vary(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        vertical, horizontal = rng.integers(0, 2, 2)
        image = image[:: 1 - 2 * vertical, :: 1 - 2 * horizontal]
        size = min(image.shape[0], max(MIN_PX, round(self.crop_share * image.shape[0])))
        y, x = rng.integers(0, image.shape[0] - size + 1, 2)
        return image[y : y + size, x : x + size]

    def on_epoch_end(self) -> None:
        """Move on to the next window of the shuffle."""
        self.epoch += 1
