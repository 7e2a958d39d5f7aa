"""Arrays that are filled again once nobody holds them: the pages of fresh memory cost as much as copying."""

from __future__ import annotations

import sys
import threading

import numpy as np

__all__ = ["Rooms"]

_MINE = 3
"""References that an idle array has while it is looked at: the list, the loop and the count itself."""


class Rooms:
    """Room for arrays of uint8, for any number of threads.

    An array is handed out again only when no other reference to it is left, be it a view of it, a queue's
    or a tensor's that shares its memory.

    Parameters
    ----------
    most : int
        Arrays that are kept.

    Examples
    --------
    >>> rooms = Rooms()
    >>> first = rooms.take((2, 3))
    >>> part, address = first[1:], first.ctypes.data
    >>> del first
    >>> rooms.take((2, 3)).ctypes.data == address  # a view of it lives
    False
    >>> del part
    >>> rooms.take((2, 3)).ctypes.data == address
    True
    """

    def __init__(self, most: int = 16) -> None:
        self._most, self._lock = most, threading.Lock()
        self._arrays: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 with arbitrary content."""
        with self._lock:
            for array in self._arrays:
                if array.shape == shape and sys.getrefcount(array) == _MINE:
                    return array
            fresh = np.empty(shape, np.uint8)
            # the oldest goes, so that another size of batches finds room as well
            self._arrays = [*self._arrays[1 - self._most :], fresh]
            return fresh
