"""Sum a map over the pixels of each class, cell by cell, reading the map once.

Land cover is piecewise constant, so a row of a cell falls into **runs** of one class
(`sesgrid.kernels.runs`). A run is summed by `sesgrid.kernels.lanes` and added to its class; several maps
share the runs.

**The order of summation is fixed and belongs to the cell alone**: rows downward, runs from left to right, a
run in the order of `stretch_sum`, all in float64. A whole block and each of its cells alone give equal bits,
on any processor.
"""

from __future__ import annotations

import numba
import numpy as np

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.kernels.lanes import stretch_sum
from sesgrid.kernels.runs import run_ends

__all__ = ["class_areas", "class_sums"]


def class_sums(
    activation: np.ndarray, classes: np.ndarray, pixels_per_cell: int, n_classes: int
) -> np.ndarray:
    """Sum of the activation over the pixels of each class in each cell.

    Parameters
    ----------
    activation : np.ndarray
        float32 or float64 ``(y, x)``, or ``(map, y, x)`` for several maps of the same pixels.
    classes : np.ndarray
        uint8 ``(y, x)``, values 0 to ``n_classes - 1``; 0 = unclassified, a column like others.
    pixels_per_cell : int
        Side of a cell; both sides of the array are multiples of it.
    n_classes : int
        Number of columns, the unclassified one included: 1 to 256.

    Returns
    -------
    np.ndarray
        float64 ``(cell_y, cell_x, n_classes)``, or ``(map, cell_y, cell_x, n_classes)``. The sum
        over classes is the sum over the cell.

    Raises
    ------
    FormatError
        A class is ≥ `n_classes`, or an activation is NaN or infinite (the pixel is named); a
        wrong dtype or number of dimensions.
    GridMismatchError
        The arrays' shapes differ, or are not whole cells.

    Examples
    --------
    >>> activation = np.arange(8, dtype=np.float32).reshape(2, 4)
    >>> classes = np.array([[0, 1, 1, 1], [0, 1, 1, 2]], np.uint8)
    >>> class_sums(activation, classes, 2, 3).tolist()
    [[[4.0, 6.0, 0.0], [0.0, 11.0, 7.0]]]
    """
    maps = _checked_activation(activation)
    classes = _checked_classes(classes, pixels_per_cell, n_classes)
    if maps.shape[1:] != classes.shape:
        raise GridMismatchError(
            f"activation has (y, x) = {maps.shape[1:]} pixels, classes {classes.shape}: expected "
            "two arrays of the same pixels"
        )
    out = np.zeros((len(maps), *_cells(classes, pixels_per_cell), n_classes))
    if not _sum_cells(maps, classes, pixels_per_cell, out):
        raise _unknown_class(classes, n_classes)
    if not np.isfinite(out).all():
        raise _not_finite(maps, activation.ndim)
    return out if activation.ndim == 3 else out[0]


def class_areas(classes: np.ndarray, pixels_per_cell: int, n_classes: int) -> np.ndarray:
    """Number of pixels of each class in each cell.

    Parameters and errors as in :func:`class_sums`.

    Returns
    -------
    np.ndarray
        int64 ``(cell_y, cell_x, n_classes)``; the classes of a cell add up to its pixels.

    Examples
    --------
    >>> class_areas(np.array([[0, 1, 1, 1], [0, 1, 1, 2]], np.uint8), 2, 3).tolist()
    [[[2, 2, 0], [0, 3, 1]]]
    """
    classes = _checked_classes(classes, pixels_per_cell, n_classes)
    out = np.zeros((*_cells(classes, pixels_per_cell), n_classes), np.int64)
    if not _count_cells(classes, pixels_per_cell, out):
        raise _unknown_class(classes, n_classes)
    return out


def _checked_activation(activation: np.ndarray) -> np.ndarray:
    """C-contiguous ``(map, y, x)``."""
    dtype = getattr(activation, "dtype", type(activation).__name__)
    if dtype not in (np.float32, np.float64):
        raise FormatError(f"activation: expected a float32 or float64 array, received {dtype}")
    if activation.ndim not in (2, 3):
        raise FormatError(
            f"activation: expected (y, x) or (map, y, x), received shape {activation.shape}"
        )
    maps = activation if activation.ndim == 3 else activation[np.newaxis]
    return np.ascontiguousarray(maps)


def _checked_classes(classes: np.ndarray, pixels_per_cell: int, n_classes: int) -> np.ndarray:
    """C-contiguous ``(y, x)``."""
    dtype = getattr(classes, "dtype", type(classes).__name__)
    if dtype != np.uint8:
        raise FormatError(f"classes: expected a uint8 array, received {dtype}")
    if not 1 <= n_classes <= 256:
        raise FormatError(f"n_classes: expected 1 to 256, received {n_classes}")
    p = pixels_per_cell
    if classes.ndim != 2 or p < 1 or classes.shape[0] % p or classes.shape[1] % p:
        raise GridMismatchError(
            f"classes: expected (y, x) in whole cells of {p} × {p} pixels, received shape "
            f"{classes.shape}"
        )
    return np.ascontiguousarray(classes)


def _cells(classes: np.ndarray, pixels_per_cell: int) -> tuple[int, int]:
    return classes.shape[0] // pixels_per_cell, classes.shape[1] // pixels_per_cell


def _unknown_class(classes: np.ndarray, n_classes: int) -> FormatError:
    y, x = np.argwhere(classes >= n_classes)[0].tolist()
    return FormatError(
        f"classes: expected values below n_classes = {n_classes}, received {classes[y, x]} at "
        f"pixel (y, x) = ({y}, {x}); burn with the class table that n_classes was taken from"
    )


def _not_finite(maps: np.ndarray, ndim: int) -> FormatError:
    where = np.argwhere(~np.isfinite(maps))
    if not where.size:
        return FormatError("activation: the values are finite but a sum of them exceeds float64")
    m, y, x = where[0].tolist()
    return FormatError(
        f"activation: expected finite values, received {maps[m, y, x]} at pixel (y, x) = ({y}, {x})"
        + (f" of map {m}" if ndim == 3 else "")
        + f" ({len(where)} in all); the map was not computed there, or its computation overflowed"
    )


@numba.njit(nogil=True)
def _sum_cells(maps, classes, p, out):
    """Sum into `out` ``(map, cell_y, cell_x, class)``; False when a class has no column.

    Whole rows are walked, not cell by cell: memory is read in the order it lies in."""
    ends = np.empty(p, np.int64)
    for y in range(classes.shape[0]):
        for cell_x in range(out.shape[2]):
            x = cell_x * p
            for k in range(run_ends(classes[y], x, x + p, ends)):
                value = classes[y, x]
                if value >= out.shape[3]:
                    return False
                for m in range(maps.shape[0]):
                    out[m, y // p, cell_x, value] += stretch_sum(maps[m, y], x, ends[k])
                x = ends[k]
    return True


@numba.njit(nogil=True)
def _count_cells(classes, p, out):
    """Count into `out` ``(cell_y, cell_x, class)``; False when a class has no column."""
    ends = np.empty(p, np.int64)
    for y in range(classes.shape[0]):
        for cell_x in range(out.shape[1]):
            x = cell_x * p
            for k in range(run_ends(classes[y], x, x + p, ends)):
                value = classes[y, x]
                if value >= out.shape[2]:
                    return False
                out[y // p, cell_x, value] += ends[k] - x
                x = ends[k]
    return True
