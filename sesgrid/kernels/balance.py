"""Putting blocks into groups so that every group is a fair sample of the whole."""

from __future__ import annotations

import numpy as np

__all__ = ["balanced_groups"]

_ENOUGH = 1e-3
"""Groups whose shares are this near to equal, relative to 1 / groups, are not improved."""

_GAIN = 1e-12
"""What counts as a gain: more than rounding."""


def balanced_groups(
    counts: np.ndarray, unlabelled: np.ndarray, groups: int, seed: int
) -> np.ndarray:
    """Assign blocks to groups of nearly equal size and classes.

    A greedy start, the fullest block first and each into the emptiest group, then the best move or
    swap of a block, again and again until none brings a gain. What is made small is the squared
    difference, from 1 / groups, of the share of every class, of all labelled cells and of all
    cells that a group holds.

    Parameters
    ----------
    counts : np.ndarray
        int ``(block, class)``: labelled cells.
    unlabelled : np.ndarray
        int ``(block,)``: cells without a label.
    groups : int
    seed : int
        Decides between equals.

    Returns
    -------
    np.ndarray
        int64 ``(block,)``, 0 … groups − 1. Labelled cells per group differ by at most those of the
        fullest block.

    Examples
    --------
    >>> counts = np.array([[4, 0], [0, 4], [3, 1], [1, 3]])
    >>> group = balanced_groups(counts, np.zeros(4, int), 2, seed=0)
    >>> [counts[group == g].sum(axis=0).tolist() for g in range(2)]
    [[4, 4], [4, 4]]
    """
    labelled = counts.sum(axis=1)
    everything = labelled + unlabelled
    order = np.random.default_rng(seed).permutation(len(counts))
    group = _greedy(labelled, everything, groups, order)
    columns = np.column_stack([counts, labelled, everything]).astype(np.float64)
    shares = columns / np.maximum(columns.sum(axis=0), 1)
    return _improved(group, shares, labelled, groups, order)


def _greedy(
    labelled: np.ndarray, everything: np.ndarray, groups: int, order: np.ndarray
) -> np.ndarray:
    order = order[np.lexsort((-everything[order], -labelled[order]))]
    group = np.empty(len(order), dtype=np.int64)
    size = np.zeros((groups, 2), dtype=np.int64)
    for block in order:
        # blocks without labelled cells come last, and even out the rest
        by = 0 if labelled[block] else 1
        chosen = int(np.argmin(size[:, by]))
        group[block] = chosen
        size[chosen] += labelled[block], everything[block]
    return group


def _improved(
    group: np.ndarray, shares: np.ndarray, labelled: np.ndarray, groups: int, order: np.ndarray
) -> np.ndarray:
    """Swap each block with the best other block, or with nothing, until that brings no gain.

    With D the difference of a group's shares from 1 / groups, handing v from group f to group g changes
    the sum of squares by 2 |v|² + 2 v · (D_g − D_f).
    """
    # an empty block in every group, which never leaves it: swapping with that is a move
    group = np.concatenate([group, np.arange(groups)])
    shares = np.concatenate([shares, np.zeros((groups, shares.shape[1]))])
    sizes = np.concatenate([labelled, np.zeros(groups, dtype=labelled.dtype)])
    off = np.full((groups, shares.shape[1]), -1.0 / groups)
    np.add.at(off, group, shares)
    size = np.bincount(group, weights=sizes, minlength=groups)
    # sizes stay inside one interval as wide as the fullest block
    low = np.clip((size.sum() / groups) - sizes.max() / 2, size.max() - sizes.max(), size.min())
    high = low + sizes.max()
    gained = True
    while gained:
        gained = False
        for block in order:
            if np.abs(off).max() * groups < _ENOUGH:
                return group[: len(order)]
            here = group[block]
            handed = shares[block] - shares
            change = 2 * np.einsum("bc,bc->b", handed, handed + off[group] - off[here])
            moved = sizes[block] - sizes
            after = size[group] + moved, size[here] - moved
            inside = (np.minimum(*after) >= low) & (np.maximum(*after) <= high)
            change[~inside | (group == here)] = 0.0
            other = int(np.argmin(change))
            if change[other] < -_GAIN:
                there = group[other]
                off[here] -= handed[other]
                off[there] += handed[other]
                size[here] -= moved[other]
                size[there] += moved[other]
                group[block] = there
                if other < len(order):
                    group[other] = here
                gained = True
    return group[: len(order)]
