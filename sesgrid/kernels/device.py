"""One lock around the device: several tasks of a worker read and sum while one of them computes."""

from __future__ import annotations

import threading

__all__ = ["DEVICE_LOCK", "batch_size_for"]

DEVICE_LOCK = threading.RLock()
"""Held by whoever runs the network in this process."""


def batch_size_for(pixels_per_cell: int) -> int:
    """Cells in one batch that keep the activations of a CPU run near a gigabyte.

    >>> batch_size_for(128), batch_size_for(800)
    (32, 1)
    """
    return max(1, int(32 * (128 / pixels_per_cell) ** 2))
