"""The binomial layer: one number p, K ordered classes.

``P(k) = C(K-1, k) p^k (1-p)^(K-1-k)``, k = 0 … K−1 (Suel et al. 2019). The study prints K trials
instead of K−1, which does not sum to one. Everything is computed in log space from the logit z
of p: written with powers of p, the gradient is NaN as soon as p saturates.
"""

from __future__ import annotations

import math

import numpy as np

from sesgrid.errors import ConfigError

__all__ = [
    "binomial_log_probabilities",
    "binomial_probabilities",
    "binomial_slopes",
    "log_binomials",
]


def log_binomials(n_classes: int) -> np.ndarray:
    """``log C(K-1, k)`` for k = 0 … K−1, float64 ``(class,)``.

    Raises
    ------
    ConfigError
        Fewer than two classes.

    Examples
    --------
    >>> np.exp(log_binomials(5)).round().astype(int).tolist()
    [1, 4, 6, 4, 1]
    """
    if n_classes < 2:
        raise ConfigError(f"the binomial layer needs at least 2 classes, received {n_classes}")
    n = n_classes - 1
    return np.array([math.log(math.comb(n, k)) for k in range(n_classes)])


def binomial_log_probabilities(logit: np.ndarray, n_classes: int) -> np.ndarray:
    """Log-probabilities of every class.

    Parameters
    ----------
    logit : np.ndarray
        float ``(...,)``: log(p / (1 − p)).
    n_classes : int
        K.

    Returns
    -------
    np.ndarray
        float64 ``(..., class)``.

    Examples
    --------
    >>> binomial_log_probabilities(np.array(0.0), 3).tolist() == np.log([0.25, 0.5, 0.25]).tolist()
    True
    """
    z = np.asarray(logit, dtype=np.float64)[..., None]
    k = np.arange(n_classes, dtype=np.float64)
    log_p, log_q = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    return log_binomials(n_classes) + k * log_p + (n_classes - 1 - k) * log_q


def binomial_probabilities(logit: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities of every class, float64 ``(..., class)``; they sum to one.

    >>> binomial_probabilities(np.array([0.0]), 3).tolist()
    [[0.25, 0.5, 0.25]]
    """
    return np.exp(binomial_log_probabilities(logit, n_classes))


def binomial_slopes(logit: np.ndarray, n_classes: int) -> np.ndarray:
    """dP(k)/dz = P(k) · (k − (K−1)·p), float64 ``(..., class)``.

    The factor between an explanation of the logit and one of a class: its sign says whether the class' map is
    the low or the high one (it vanishes at p = k / (K−1)).

    Examples
    --------
    >>> binomial_slopes(np.array([0.0]), 3).tolist()
    [[-0.25, 0.0, 0.25]]
    """
    z = np.asarray(logit, np.float64)[..., np.newaxis]
    k = np.arange(n_classes)
    return binomial_probabilities(logit, n_classes) * (k - (n_classes - 1) / (1 + np.exp(-z)))
