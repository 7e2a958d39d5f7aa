"""Batches of cells for training: read when they are needed, flipped and cropped at random."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np

from sesgrid.errors import ConfigError, SesgridError
from sesgrid.kernels.backbones import MIN_PX
from sesgrid.store.cell_reader import CellReader

__all__ = ["WINDOW", "CellBatches", "Shuffle", "shuffled"]

Shuffle = Literal["full", "blocks"]

WINDOW = 64
"""Blocks whose cells are shuffled together, unless all are."""


class CellBatches(keras.utils.PyDataset):
    """Batches of cells, read when they are needed; the same order for the same seed.

    What a batch holds depends on the seed, `epoch` and its number alone, so that several threads may make
    batches at once, and a training that is taken up again sees what it would have seen.

    Parameters
    ----------
    reader : CellReader
    cells : np.ndarray
        Global (row, col), int64 ``(cell, 2)``.
    ses : np.ndarray
        Class 0 … K−1 of every cell, int ``(cell,)``.
    n_classes, batch_size : int
    samples_per_epoch : int, optional
        Default: each cell once.
    augment : bool
        Shuffle, flip at random in both directions, and crop.
    flips : bool, optional
        Flip at random; default: as `augment`.
    crop_share : float
        Side of the random crop, as a share of the cell's; at least `MIN_PX` pixels.
    shuffle : {"full", "blocks"}
        How, where `augment`: see `shuffled`.
    sample_weight : np.ndarray, optional
        float ``(cell,)``; then a batch has a third item.
    seed : int
    workers : int, optional
        Threads that make batches while the network trains; default: one per processor, at most 4.
    multiple : int
        Devices that share a batch: every batch is cut in so many equal parts, and the last one filled up with
        cells that come again.

    Attributes
    ----------
    epoch : int
        Which window of the shuffle comes next; set it to take up a training again.
    failure : SesgridError or None
        Why a batch could not be made. What `Model.fit` raises then is its backend's error, with the text
        of this one.
    """

    def __init__(
        self,
        reader: CellReader,
        cells: np.ndarray,
        ses: np.ndarray,
        n_classes: int,
        batch_size: int,
        *,
        samples_per_epoch: int | None = None,
        augment: bool = False,
        flips: bool | None = None,
        crop_share: float = 1.0,
        shuffle: Shuffle = "full",
        sample_weight: np.ndarray | None = None,
        seed: int = 0,
        workers: int | None = None,
        multiple: int = 1,
    ) -> None:
        workers = workers or min(4, len(os.sched_getaffinity(0)))
        # a batch or two ahead of each thread keep a device busy, more only take memory
        super().__init__(workers=workers, max_queue_size=2 * workers)
        self.reader, self.cells = reader, np.asarray(cells, np.int64)
        self.ses, self.n_classes, self.batch_size = np.asarray(ses), n_classes, batch_size
        self.augment, self.shuffle, self.crop_share = augment, shuffle, crop_share
        self.flips = augment if flips is None else flips
        self.sample_weight = sample_weight
        self.failure: SesgridError | None = None
        self.seed, self.epoch = seed, 0
        if batch_size % multiple:
            raise ConfigError(
                f"batch_size must be a multiple of the {multiple} devices, received {batch_size}"
            )
        samples = samples_per_epoch or len(self.ses)
        self.samples = -(-samples // multiple) * multiple
        self._blocks = self.cells // reader.extent.grid.cells_per_block
        self._order: tuple[int, np.ndarray] = (-1, np.arange(0))

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def indices(self) -> np.ndarray:
        """The cells of this epoch in order: a window on an endless run of permutations."""
        if not self.augment:
            return np.resize(np.arange(len(self.ses)), self.samples)
        epoch, order = self._order
        if epoch != self.epoch:
            epoch, order = self._order = self.epoch, self._order_of(self.epoch)
        return order

    def _order_of(self, epoch: int) -> np.ndarray:
        n = len(self.ses)
        start = epoch * self.samples
        rounds = range(start // n, (start + self.samples - 1) // n + 1)
        order = [shuffled(self._blocks, self.shuffle, [self.seed, 0, r]) for r in rounds]
        return np.concatenate(order)[start % n :][: self.samples]

    def __getitem__(self, batch: int) -> tuple[np.ndarray, ...]:
        at = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        index = self.indices()[at]
        rng = np.random.default_rng([self.seed, 1, self.epoch, batch])
        flips, corners, side = self._variations(len(index), rng)
        try:
            image = self.reader.read(self.cells[index], flips=flips, corners=corners, side=side)
        except SesgridError as error:
            self.failure = error
            raise
        classes = np.eye(self.n_classes, dtype=np.float32)[self.ses[index]]
        if self.sample_weight is None:
            return image, classes
        return image, classes, np.asarray(self.sample_weight[index], np.float32)

    def _variations(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """Flips and corners of the crops, ``(cell, 2)`` each, and the crops' side."""
        size = self.reader.size
        flips, corners = np.zeros((n, 2), bool), np.zeros((n, 2), np.int64)
        side = min(size, max(MIN_PX, round(self.crop_share * size))) if self.augment else size
        for k in range(n):
            if self.flips:
                flips[k] = rng.integers(0, 2, 2)
            if self.augment:
                corners[k] = rng.integers(0, size - side + 1, 2)
        return flips, corners, side

    def on_epoch_end(self) -> None:
        """Move on to the next window of the shuffle."""
        self.epoch += 1


def shuffled(
    blocks: np.ndarray, how: Shuffle, seed: Sequence[int], *, window: int = WINDOW
) -> np.ndarray:
    """A permutation of cells.

    Parameters
    ----------
    blocks : np.ndarray
        Block (row, col) of every cell, int ``(cell, 2)``.
    how : {"full", "blocks"}
        "full": any order is as likely as any other. "blocks": the blocks are taken in random order, some at a
        time, and their cells shuffled together, so that few shards are read at once. Neighbours earn alike,
        hence batches vary more; how much ``python -m benchmarks.loader`` measures.
    seed : sequence of int
    window : int
        Blocks at a time.

    Returns
    -------
    np.ndarray
        int64 ``(cell,)``.

    Raises
    ------
    ConfigError
        There is no such shuffle.

    Examples
    --------
    >>> blocks = np.repeat(np.arange(64), 2)[:, np.newaxis] * [1, 0]
    >>> order = shuffled(blocks, "blocks", [0], window=16)
    >>> len(set(order.tolist())), len(set(blocks[order[:32], 0].tolist()))
    (128, 16)
    """
    rng = np.random.default_rng(seed)
    if how == "full":
        return rng.permutation(len(blocks))
    if how != "blocks":
        raise ConfigError(f"shuffle must be one of full, blocks; received {how!r}")
    kinds, block = np.unique(blocks, axis=0, return_inverse=True)
    turn = rng.permutation(len(kinds))[block.ravel()] // window
    # by window, and within it by lot
    return np.lexsort((rng.permutation(len(blocks)), turn))
