"""Folds: which cells a model may see, and which it is tested on.

Two kinds stand side by side. **Random** folds are stratified by class, as in the study: a cell's
neighbours train the model that is tested on it, so a model that knows the place looks as if it knew
the income. **Spatial** folds are squares of cells, with a buffer between what trains and what is
tested. The difference between the two scores is the leakage gap.
"""

from __future__ import annotations

import hashlib

import geopandas as gpd
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from sesgrid.errors import ConfigError, TooFewCellsError
from sesgrid.kernels.balance import balanced_groups

__all__ = [
    "FOLD_KINDS",
    "default_buffer",
    "fold_of_block",
    "near",
    "other_kind",
    "random_folds",
    "require_training_parts",
    "spatial_folds",
    "stratified_folds",
    "training_cells",
]

FOLD_KINDS = ("random", "spatial")


def default_buffer(certain: bool) -> int:
    """Cells between what trains and what is tested, where none is asked for.

    One where every labelled cell is known to be observed: images of cells do not overlap, but a roof or a
    road goes on in the next one. Four where some may be imputed: INSEE gives the cells of a group one
    income, and most groups lie in one square of 1 km, five cells wide.

    >>> default_buffer(certain=True), default_buffer(certain=False)
    (1, 4)
    """
    return 1 if certain else 4


def random_folds(
    rowcol: np.ndarray,
    ses: np.ndarray,
    labelled: np.ndarray,
    folds: int,
    *,
    cells_per_block: int,
    seed: int,
) -> np.ndarray:
    """The study's folds: labelled cells by lot within their class, the others by their block.

    Parameters
    ----------
    rowcol : np.ndarray
        int64 ``(cell, 2)``: global row and col.
    ses : np.ndarray
        int ``(cell,)``, 1…K.
    labelled : np.ndarray
        bool ``(cell,)``.
    folds : int
    cells_per_block : int
        Of the blocks by which unlabelled cells are spread.
    seed : int

    Returns
    -------
    np.ndarray
        int64 ``(cell,)``, 0 … folds − 1.

    Examples
    --------
    >>> rowcol, ses = np.array([[0, 0], [0, 1], [0, 2], [0, 3]]), np.array([1, 1, 2, 2])
    >>> fold = random_folds(rowcol, ses, np.full(4, True), 2, cells_per_block=8, seed=0)
    >>> sorted(fold[:2].tolist()), sorted(fold[2:].tolist())
    ([0, 1], [0, 1])
    """
    fold = fold_of_block(rowcol, cells_per_block, folds)
    fold[labelled] = stratified_folds(ses[labelled], folds, seed)
    return fold


def stratified_folds(ses: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every cell: sizes, overall and per class, differ by at most one.

    >>> np.bincount(stratified_folds(np.array([1, 1, 1, 2, 2, 2]), 3, 0)).tolist()
    [2, 2, 2]
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ses))
    order = order[np.argsort(ses[order], kind="stable")]
    fold = np.empty(len(ses), dtype=np.int64)
    fold[order] = np.arange(len(ses)) % folds
    return fold


def fold_of_block(rowcol: np.ndarray, cells_per_block: int, folds: int) -> np.ndarray:
    """Fold of every cell by a hash of its block: neighbours share it, in any city and any order.

    >>> fold_of_block(np.array([[0, 0], [0, 1]]), 8, 3).tolist()
    [2, 2]
    """
    at = rowcol // cells_per_block
    _, first, block = np.unique((at[:, 0] << 32) + at[:, 1], return_index=True, return_inverse=True)
    digests = [hashlib.sha256(f"{row},{col}".encode()).digest() for row, col in at[first].tolist()]
    fold = np.array([int.from_bytes(d[:8], "big") % folds for d in digests], dtype=np.int64)
    return fold[block]


def spatial_folds(
    rowcol: np.ndarray,
    ses: np.ndarray,
    labelled: np.ndarray,
    folds: int,
    *,
    block_cells: int,
    seed: int,
) -> np.ndarray:
    """Folds of whole squares of cells, as equal in size and classes as the squares allow.

    Parameters
    ----------
    rowcol, ses, labelled, folds
        As for `random_folds`.
    block_cells : int
        Cells along the side of a square; squares are anchored to the global grid (row // side,
        col // side), so the same city has the same squares in every run.
    seed : int
        Decides between equals.

    Returns
    -------
    np.ndarray
        int64 ``(cell,)``, 0 … folds − 1: one fold a square. Numbers of labelled cells differ between
        folds by no more than the fullest square's.

    Raises
    ------
    TooFewCellsError
        Fewer squares with labelled cells than folds.

    Examples
    --------
    >>> rowcol, ses = np.array([[0, 0], [0, 1], [0, 2], [0, 3]]), np.array([1, 2, 1, 2])
    >>> spatial_folds(rowcol, ses, np.full(4, True), 2, block_cells=2, seed=0).tolist()
    [0, 0, 1, 1]
    """
    _, block = np.unique(rowcol // block_cells, axis=0, return_inverse=True)
    block = block.reshape(-1)
    n_blocks, n_classes = int(block.max()) + 1, int(ses.max())
    counts = np.zeros((n_blocks, n_classes + 1), dtype=np.int64)
    # the last column: cells without a label, which are predicted all the same
    np.add.at(counts, (block, np.where(labelled, ses - 1, n_classes)), 1)
    bearing = int((counts[:, :-1].sum(axis=1) > 0).sum())
    if bearing < folds:
        raise TooFewCellsError(
            f"{folds} spatial folds need as many blocks of labelled cells, received {bearing} of "
            f"{block_cells} × {block_cells} cells; choose fewer folds, smaller blocks "
            "(cells.fold_block_cells), or a wider area"
        )
    return balanced_groups(counts[:, :-1], counts[:, -1], folds, seed)[block]


def near(rowcol: np.ndarray, of: np.ndarray, distance: int) -> np.ndarray:
    """Which cells lie within a distance of any of some cells.

    Parameters
    ----------
    rowcol, of : np.ndarray
        int ``(cell, 2)``: row and col of the cells asked about, and of the others.
    distance : int
        In cells, the larger of the two axes (Chebyshev): 0 = the same cell, 1 = it and its eight
        neighbours.

    Returns
    -------
    np.ndarray
        bool ``(cell,)``.

    Examples
    --------
    >>> near(np.array([[0, 0], [0, 1], [2, 2]]), np.array([[1, 1]]), 1).tolist()
    [True, True, True]
    >>> near(np.array([[0, 0], [0, 1], [2, 2]]), np.array([[0, 0]]), 1).tolist()
    [True, True, False]
    """
    if not len(rowcol) or not len(of):
        return np.zeros(len(rowcol), dtype=bool)
    found, _ = cKDTree(of).query(rowcol, p=np.inf, distance_upper_bound=distance + 0.5)
    return np.isfinite(found)


def training_cells(cells: pd.DataFrame, fold: int, kind: str | None = None) -> np.ndarray:
    """Which cells may train the model that is tested on a fold.

    Parameters
    ----------
    cells : DataFrame
        From `sesgrid.cells`.
    fold : int
        0 … n_folds − 1.
    kind : {"random", "spatial"}, optional
        Default: the table's own, in its column ``fold``.

    Returns
    -------
    np.ndarray
        bool ``(cell,)``: labelled and of another fold; with spatial folds also farther than the buffer
        (``attrs["buffer_cells"]``, Chebyshev) from every cell of the fold, labelled or not.

    Raises
    ------
    ConfigError
        The table has no folds of that kind.

    Examples
    --------
    >>> cells = pd.DataFrame({"row": 0, "col": range(4), "labelled": True,
    ...                       "fold_random": [0, 1, 0, 1], "fold_spatial": [0, 0, 1, 1]})
    >>> cells.attrs["buffer_cells"] = 1
    >>> [training_cells(cells, 0, kind).tolist() for kind in FOLD_KINDS]
    [[False, True, False, True], [False, False, False, True]]
    """
    column = "fold" if kind is None else f"fold_{kind}"
    kind = kind or cells.attrs.get("folds_kind", "random")
    if kind not in FOLD_KINDS or column not in cells or cells[column].isna().any():
        raise ConfigError(
            f"the table of cells has no {kind!r} folds: expected a column {column!r} without gaps; "
            "make the table again with sesgrid.cells, where need be with smaller fold_block_cells"
        )
    tested = (cells[column] == fold).to_numpy(dtype=bool)
    allowed = cells["labelled"].fillna(False).to_numpy(dtype=bool) & ~tested
    if kind == "spatial":
        rowcol = cells[["row", "col"]].to_numpy(dtype=np.int64)
        allowed[allowed] = ~near(rowcol[allowed], rowcol[tested], int(cells.attrs["buffer_cells"]))
    return allowed


def require_training_parts(cells: pd.DataFrame, kind: str) -> None:
    """Check that every fold is tested on some labelled cell and trained on every class.

    Raises
    ------
    TooFewCellsError
        Names the first fold and the classes that it lacks.
    """
    attrs = cells.attrs
    everything = set(range(1, attrs["n_classes"] + 1))
    tested = set(cells.loc[cells["labelled"], f"fold_{kind}"])
    for fold in range(attrs["n_folds"]):
        trained = cells.loc[training_cells(cells, fold, kind), "ses_true"]
        missing = sorted(everything - set(trained))
        if missing or fold not in tested:
            lacks = "no labelled cell to be tested on"
            if missing:
                lacks = (
                    f"{len(trained)} training cells, none of class {', '.join(map(str, missing))}"
                )
            squares = ""
            if kind == "spatial":
                squares = (
                    f"; its blocks are of {attrs['fold_block_cells']} × {attrs['fold_block_cells']} "
                    f"cells with a buffer of {attrs['buffer_cells']}: larger blocks or a smaller buffer "
                    "leave more cells to train on"
                )
            raise TooFewCellsError(
                f"{kind} fold {fold} of {attrs['n_folds']} has {lacks} ({int(cells['labelled'].sum())} "
                f"cells are labelled): choose fewer folds or classes, or a wider area{squares}"
            )


def other_kind(cells: gpd.GeoDataFrame) -> gpd.GeoDataFrame | None:
    """The same cells with the other kind of folds, for the leakage gap.

    Parameters
    ----------
    cells : GeoDataFrame
        From `sesgrid.cells`.

    Returns
    -------
    GeoDataFrame or None
        With ``fold`` and ``attrs["folds_kind"]`` of the other kind; None where the cells have none.

    Examples
    --------
    >>> cells = pd.DataFrame({"fold": [0, 1], "fold_random": [0, 1], "fold_spatial": [1, 0]})
    >>> other_kind(cells)["fold"].tolist()
    [1, 0]
    """
    kind = "random" if cells.attrs.get("folds_kind", "random") == "spatial" else "spatial"
    column = f"fold_{kind}"
    if column not in cells or cells[column].isna().any():
        return None
    out = cells.copy()
    out["fold"] = cells[column]
    out.attrs = {**cells.attrs, "folds_kind": kind}
    return out
