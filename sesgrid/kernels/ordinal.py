"""The ordinal head: a logit z and K − 1 thresholds, K ordered classes.

Cumulative logits with proportional odds (McCullagh 1980): ``P(class > k) = σ(z − θ_k)``, k = 0 … K−2, so
``P(k) = σ(z − θ_{k−1}) − σ(z − θ_k)``. Unlike the binomial layer, whose classes have their places on one
curve of p, it learns how wide each class is. P(0) falls with z and P(K−1) grows, as the binomial's do.
"""

from __future__ import annotations

import numpy as np

__all__ = ["even_thresholds", "ordinal_log_probabilities"]


def even_thresholds(n_classes: int) -> np.ndarray:
    """Thresholds, float64 ``(class − 1,)``, between which a logistic z falls equally often.

    >>> even_thresholds(2).tolist()
    [0.0]
    """
    share = np.arange(1, n_classes) / n_classes
    return np.log(share / (1 - share))


def ordinal_log_probabilities(logit: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Log-probabilities of every class.

    Parameters
    ----------
    logit : np.ndarray
        float ``(...,)``: z.
    thresholds : np.ndarray
        float ``(class − 1,)``, strictly increasing.

    Returns
    -------
    np.ndarray
        float64 ``(..., class)``.

    Examples
    --------
    >>> np.exp(ordinal_log_probabilities(np.array(0.0), even_thresholds(4))).round(12).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    above = np.asarray(logit, np.float64)[..., None] - np.asarray(thresholds, np.float64)
    log_over, log_under = -np.logaddexp(0, -above), -np.logaddexp(0, above)
    steps = np.diff(np.asarray(thresholds, np.float64))
    # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)): no difference of numbers close to one
    between = log_over[..., :-1] + log_under[..., 1:] + np.log(-np.expm1(-steps))
    return np.concatenate([log_under[..., :1], between, log_over[..., -1:]], axis=-1)
