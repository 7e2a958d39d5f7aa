"""Cells: from census squares to labelled, folded cells: the table that every later stage joins on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from sesgrid.errors import ConfigError, MissingInputError, SesgridWarning, TooFewCellsError
from sesgrid.grid import rowcol_of_ids
from sesgrid.stages.folds import (
    FOLD_KINDS,
    default_buffer,
    random_folds,
    require_training_parts,
    spatial_folds,
)
from sesgrid.stages.labels import (
    Thresholds,
    classify,
    income_thresholds,
    incomes_of,
    label_weights,
    require_classes,
)

__all__ = ["cells", "usable"]


def cells(
    census: gpd.GeoDataFrame,
    *,
    city: str = "city",
    classes: int = 5,
    thresholds: Thresholds | Sequence[float] | None = None,
    labels: str = "observed",
    imputed_weight: float = 0.25,
    folds: int = 5,
    folds_kind: str = "random",
    fold_block_cells: int = 8,
    buffer_cells: int | None = None,
    compare_folds: bool = True,
    cells_per_block: int = 8,
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Label census cells with their socioeconomic class and assign them to folds.

    Parameters
    ----------
    census : GeoDataFrame
        From `sesgrid.read_filosofi`: index ``cell_id``; ``individuals``, ``households``,
        ``income`` (euros a year), ``imputed``; squares in EPSG:3035.
    city : str
        Names the models.
    classes : int
        K.
    thresholds : Thresholds or sequence of float, optional
        K − 1 incomes that part the classes, rising: the user's own, or from
        `sesgrid.income_thresholds` (of several cities, of the nation, weighted by individuals).
        Default: quantiles of the labelled cells.
    labels : {"observed", "all", "weighted"}
        Which cells are labelled. Imputed cells were filled by INSEE from a group of cells, which all have
        one income: a fold that tests on one has seen its answer if it trained on another. "weighted"
        labels all, and has imputed ones count for less in training.
    imputed_weight : float
        Their weight there, in (0, 1).
    folds : int
    folds_kind : {"random", "spatial"}
        Which folds the column ``fold`` holds; see `sesgrid.stages.folds`.
    fold_block_cells : int
        Side of the squares that spatial folds are made of, in cells; 8 = 1.6 km.
    buffer_cells : int, optional
        With spatial folds, cells this near to a tested cell (Chebyshev) do not train its model. Default:
        1 where no labelled cell may be imputed, else 4; see `sesgrid.stages.folds.default_buffer`.
    compare_folds : bool
        Whether models are trained with the other kind of folds as well, to tell the leakage gap.
    cells_per_block : int
        Blocks by which unlabelled cells are spread over random folds.
    seed : int
        Of the fold assignments.

    Returns
    -------
    GeoDataFrame
        The census columns, and ``row``, ``col`` (int64, global), ``labelled`` (bool), ``weight``
        (float64, of the cell in training; 1 where not labelled), ``ses_true`` (Int64, 1…K),
        ``fold_random``, ``fold_spatial`` (Int64, the fold whose model does not see this cell; the
        latter NA throughout where the city is too small) and ``fold``, the one of the two that was
        chosen. ``attrs``: city, n_classes, n_folds, thresholds (K − 1 incomes, euros),
        thresholds_of, quantile_weight, vintage, labels, imputed_weight, folds_kind,
        fold_block_cells, buffer_cells, compare_folds.

    Raises
    ------
    TooFewCellsError
        Fewer labelled cells than folds × classes, a class without cells, a fold whose training part lacks
        a class, fewer blocks than folds where spatial folds were asked for.
    FormatError
        Incomes missing, or so alike that the quantiles coincide.
    ConfigError
        A setting out of range.

    Warns
    -----
    SesgridWarning
        The census does not flag imputed cells; the city is too small for spatial folds.

    Notes
    -----
    Class k holds the incomes in (threshold k−1, threshold k].
    """
    _require_settings(folds, folds_kind, fold_block_cells, buffer_cells)
    out = census.sort_index()
    weight = label_weights(out, labels, imputed_weight if labels == "weighted" else None)
    labelled, income = weight > 0, incomes_of(out)
    if labels != "all" and out["imputed"].isna().all():
        _warn_unflagged(labels)
    _require_enough(int(labelled.sum()), classes, folds, len(out), labels)
    parts = _thresholds(out, thresholds, classes, labels)
    require_classes(income[labelled], parts)
    rowcol = rowcol_of_ids(out.index)
    out["row"], out["col"] = rowcol[:, 0], rowcol[:, 1]
    out["labelled"], out["weight"] = labelled, np.where(labelled, weight, 1.0)
    out["ses_true"] = pd.array(classify(income, parts.incomes), dtype="Int64")
    certain = not out.loc[labelled, "imputed"].fillna(True).astype(bool).any()
    out.attrs = {
        **census.attrs,
        "city": city,
        "n_classes": classes,
        "n_folds": folds,
        "thresholds": list(parts.incomes),
        "thresholds_of": parts.of,
        "quantile_weight": parts.weight,
        "labels": labels,
        "imputed_weight": imputed_weight if labels == "weighted" else None,
        "folds_kind": folds_kind,
        "fold_block_cells": fold_block_cells,
        "buffer_cells": default_buffer(certain) if buffer_cells is None else buffer_cells,
        "compare_folds": compare_folds,
    }
    return _with_folds(out, cells_per_block, seed)


def _with_folds(table: gpd.GeoDataFrame, cells_per_block: int, seed: int) -> gpd.GeoDataFrame:
    """Add both kinds of folds, and the chosen one as ``fold``."""
    attrs = table.attrs
    of_cells: tuple[Any, ...] = (
        table[["row", "col"]].to_numpy(dtype=np.int64),
        table["ses_true"].to_numpy(dtype=np.int64),
        table["labelled"].to_numpy(dtype=bool),
        attrs["n_folds"],
    )
    by_lot = random_folds(*of_cells, cells_per_block=cells_per_block, seed=seed)
    table["fold_random"] = pd.array(by_lot, dtype="Int64")
    require_training_parts(table, "random")
    try:
        squares = spatial_folds(*of_cells, block_cells=attrs["fold_block_cells"], seed=seed)
        table["fold_spatial"] = pd.array(squares, dtype="Int64")
        require_training_parts(table, "spatial")
    except TooFewCellsError as error:
        if attrs["folds_kind"] == "spatial":
            raise
        table["fold_spatial"] = pd.array([pd.NA] * len(table), dtype="Int64")
        if attrs["compare_folds"]:
            warnings.warn(
                f"{attrs['city']} has no spatial folds, so the leakage of the random ones cannot be "
                f"told: {error}",
                SesgridWarning,
                stacklevel=3,
            )
    table["fold"] = table[f"fold_{attrs['folds_kind']}"]
    return table


def _thresholds(
    census: gpd.GeoDataFrame,
    thresholds: Thresholds | Sequence[float] | None,
    classes: int,
    labels: str,
) -> Thresholds:
    if thresholds is None:
        return income_thresholds(census, of="city", classes=classes, labels=labels)
    parts = thresholds if isinstance(thresholds, Thresholds) else Thresholds(tuple(thresholds))
    if parts.classes != classes:
        raise ConfigError(
            f"{classes} classes need {classes - 1} thresholds, received {len(parts.incomes)} "
            f"({', '.join(f'{t:,.2f}' for t in parts.incomes)}): set classes to {parts.classes}, or "
            "give as many thresholds as classes less one"
        )
    return parts


def _require_settings(
    folds: int, folds_kind: str, fold_block_cells: int, buffer_cells: int | None
) -> None:
    if folds_kind not in FOLD_KINDS:
        raise ConfigError(f"folds_kind must be 'random' or 'spatial', received {folds_kind!r}")
    for name, value, least in (
        ("folds", folds, 2),
        ("fold_block_cells", fold_block_cells, 1),
        ("buffer_cells", 0 if buffer_cells is None else buffer_cells, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, received {value!r}")


def _warn_unflagged(labels: str) -> None:
    effect = "all are labelled as if observed" if labels == "observed" else "all weigh the same"
    warnings.warn(
        f"the census has no flag of imputed cells, so {effect}; random folds leak where INSEE filled a "
        "cell from its neighbours",
        SesgridWarning,
        stacklevel=3,
    )


def _require_enough(n: int, classes: int, folds: int, total: int, labels: str) -> None:
    if classes < 2:
        raise ConfigError(f"at least 2 classes are needed, received {classes}")
    if n < folds * classes:
        hint = "; labels = 'all' would add the imputed ones" if labels == "observed" else ""
        raise TooFewCellsError(
            f"{folds} folds × {classes} classes need at least {folds * classes} labelled cells, "
            f"received {n} of {total} cells{hint}; choose fewer folds or classes, or a wider area"
        )


def usable(
    table: pd.DataFrame, min_coverage: float = 0.99, max_void: float | None = None
) -> np.ndarray:
    """Which cells have enough imagery to be trained on and predicted.

    Parameters
    ----------
    table : DataFrame
        With ``coverage`` (observed share, 0–1) and, where ``max_void`` is given, ``void_share``.
    min_coverage : float
        Cells with a smaller observed share are left out.
    max_void : float, optional
        Cells with a larger share of subpixels of value 0 are left out: the study's filter, at 0.01. It
        takes black roofs and shadow for missing imagery; None leaves that to the coverage.

    Returns
    -------
    np.ndarray
        bool ``(cell,)``; False where the shares are not known.

    Raises
    ------
    MissingInputError
        A share was not computed.

    Examples
    --------
    >>> table = pd.DataFrame({"coverage": [1.0, 0.5, 1.0], "void_share": [0.0, 0.5, 0.02]})
    >>> usable(table, 0.99).tolist(), usable(table, 0.99, 0.01).tolist()
    ([True, False, True], [True, False, False])
    """
    limits = {"coverage": min_coverage} | ({} if max_void is None else {"void_share": max_void})
    missing = [name for name in limits if name not in table]
    if missing:
        raise MissingInputError(
            f"the table of cells has no {' and no '.join(missing)}: expected the table that the stage "
            "`mosaic` made; run that stage again"
        )
    shares = {n: table[n].to_numpy(dtype=np.float64, na_value=np.nan) for n in limits}
    enough = shares["coverage"] >= min_coverage
    return enough if max_void is None else enough & (shares["void_share"] <= max_void)
