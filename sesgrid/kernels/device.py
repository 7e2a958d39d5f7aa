"""One lock around the device, and how much it is given at a time."""

from __future__ import annotations

import threading

from sesgrid.kernels.backend import gpu_bytes

__all__ = ["DEVICE_LOCK", "batch_size_for"]

DEVICE_LOCK = threading.RLock()
"""Held by whoever runs the network in this process: other tasks of a worker read and sum meanwhile."""

_CPU_BYTES = 1 << 30
_BYTES_PER_PIXEL = 1 << 11
"""Activations of EfficientNetB0 and their gradients, by the image's pixel, with room to spare."""


def batch_size_for(pixels_per_cell: int, budget: int | None = None) -> int:
    """Cells in one batch: near a gigabyte of activations on a CPU, a third of the memory of a GPU.

    >>> batch_size_for(128, 1 << 30), batch_size_for(800, 1 << 30)
    (32, 1)
    """
    if budget is None:
        budget = gpu_bytes() // 3 or _CPU_BYTES
    return min(max(1, budget // (_BYTES_PER_PIXEL * pixels_per_cell**2)), 64)
