"""Numbers that tell whether a map shows what the network looks at.

Deletion and insertion: Petsiuk et al. 2018 (*RISE*, BMVC), with whole squares in the place of pixels as in
Samek et al. 2017 (*Evaluating the visualization of what a deep neural network has learned*, IEEE TNNLS):
single pixels taken out at random are a noise that blinds any network, and no fair rival.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, stats

from sesgrid.kernels.statistics import pearson_r

__all__ = ["area_under", "blurred", "rank_correlation", "ranks_of", "revealed", "square_means"]

_BLUR = 5 / 224
"""Standard deviation of the blur, in sides of the image (RISE: 5 of 224 px)."""


def square_means(maps: np.ndarray, n: int) -> np.ndarray:
    """Mean of maps over n × n squares; a square is a pixel wider where the side is no multiple of n.

    Parameters
    ----------
    maps : np.ndarray
        float ``(…, y, x)``, at least n × n.
    n : int

    Returns
    -------
    np.ndarray
        float64 ``(…, n, n)``.

    Examples
    --------
    >>> square_means(np.arange(16.0).reshape(4, 4), 2).tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    y, x = (_edges(size, n) for size in maps.shape[-2:])
    sums = np.add.reduceat(np.add.reduceat(maps, y[:-1], -2, dtype=np.float64), x[:-1], -1)
    return sums / (np.diff(y)[:, None] * np.diff(x))


def _edges(size: int, n: int) -> np.ndarray:
    return np.arange(n + 1) * size // n


def ranks_of(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Place of every value, 0 the largest; ties are broken by lot.

    >>> ranks_of(np.array([[3.0, 1.0], [2.0, 5.0]]), np.random.default_rng(0)).tolist()
    [[1, 3], [2, 0]]
    """
    order = np.lexsort((rng.random(values.size), -values.ravel()))
    ranks = np.empty(values.size, np.int64)
    ranks[order] = np.arange(values.size)
    return ranks.reshape(values.shape)


def revealed(below: np.ndarray, above: np.ndarray, ranks: np.ndarray, steps: int) -> np.ndarray:
    """One image laid over another, square by square.

    Parameters
    ----------
    below, above : np.ndarray
        ``(band, y, x)``, of one type.
    ranks : np.ndarray
        int ``(n, n)``: which square comes first (0).
    steps : int

    Returns
    -------
    np.ndarray
        ``(steps + 1, band, y, x)``: the first is `below`, the last is `above`, with equal shares of the
        squares between them.
    """
    y, x = (
        np.searchsorted(_edges(size, len(ranks)), np.arange(size), side="right") - 1
        for size in below.shape[-2:]
    )
    rank = ranks[y][:, x]
    shown = [rank < round(k / steps * ranks.size) for k in range(steps + 1)]
    return np.stack([np.where(mask, above, below) for mask in shown])


def blurred(image: np.ndarray) -> np.ndarray:
    """An image without its detail; uint8 ``(band, y, x)``."""
    sigma = _BLUR * image.shape[-1]
    soft = ndimage.gaussian_filter(image.astype(np.float32), (0, sigma, sigma), mode="nearest")
    return soft.round().astype(np.uint8)


def area_under(curves: np.ndarray) -> np.ndarray:
    """Mean height of curves ``(…, step)`` at equal distances, by trapezoids.

    >>> area_under(np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])).tolist()
    [0.25, 0.75]
    """
    return ((curves[..., 1:] + curves[..., :-1]) / 2).mean(axis=-1)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of two arrays of one shape; NaN where one is constant.

    >>> round(rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.0, 0.1, 0.2])), 12)
    1.0
    """
    return pearson_r(stats.rankdata(a), stats.rankdata(b))
