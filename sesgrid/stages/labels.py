"""Labels: which cells bear a socioeconomic class, how much they weigh, and where the classes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sesgrid.errors import ConfigError, FormatError, MissingInputError, TooFewCellsError

__all__ = [
    "LABELS",
    "Thresholds",
    "classify",
    "income_thresholds",
    "incomes_of",
    "label_weights",
    "quantile_thresholds",
    "require_classes",
]

LABELS = ("observed", "all", "weighted")
"""Which cells are labelled: those that INSEE observed, all alike, or all, the imputed ones weighing less."""

QUANTILE_WEIGHTS = ("cells", "individuals")
"""What quantiles count."""

_SHOWN = 3
"""Cells that a message names."""


@dataclass(frozen=True)
class Thresholds:
    """Where socioeconomic classes part, and where these incomes come from.

    Examples
    --------
    >>> Thresholds((15_000.0, 25_000.0)).classes
    3
    """

    incomes: tuple[float, ...]
    """K − 1 incomes (euros a year), strictly increasing; class k is (threshold k−1, threshold k]."""
    of: str = "given"
    """Whose quantiles they are: "city", "cities: …", "nation"; "given" = the user's own."""
    weight: str | None = None
    """What the quantiles count: "cells" or "individuals"; None = not quantiles."""

    def __post_init__(self) -> None:
        values = np.asarray(self.incomes, dtype=np.float64)
        if not (values.ndim == 1 and values.size and np.isfinite(values).all()) or np.any(
            np.diff(values) <= 0
        ):
            raise ConfigError(
                "thresholds must be incomes in euros a year, each above the one before, received "
                f"{list(self.incomes)!r}"
            )
        object.__setattr__(self, "incomes", tuple(values.tolist()))

    @property
    def classes(self) -> int:
        """K."""
        return len(self.incomes) + 1

    def range_of(self, ses: int) -> str:
        """The incomes of class ``ses`` (1…K), in words.

        >>> Thresholds((15_000.0, 25_000.0)).range_of(2)
        'above 15,000.00 and up to 25,000.00 €'
        """
        bounds = (None, *self.incomes, None)
        low, high = bounds[ses - 1 : ses + 1]
        above = f"above {low:,.2f}" if low is not None else ""
        upto = f"up to {high:,.2f}" if high is not None else ""
        return " and ".join(part for part in (above, upto) if part) + " €"


def income_thresholds(
    *tables: pd.DataFrame,
    of: str,
    classes: int = 5,
    labels: str = "observed",
    weight: str = "cells",
) -> Thresholds:
    """The incomes that part the labelled cells of one or more census tables into K equal classes.

    Maps of several cities, or of several vintages, can be compared when all were labelled with the
    same thresholds: those of the nation's table, or of all the cities'.

    Parameters
    ----------
    *tables : DataFrame
        From `sesgrid.read_filosofi`. A cell that several tables hold with the same income counts once.
    of : str
        Whose quantiles these are; kept with every result.
    classes : int
        K.
    labels : {"observed", "all", "weighted"}
        Which cells enter: "observed" leaves the imputed ones out, the others take all alike.
    weight : {"cells", "individuals"}
        Whether every class holds as many cells, or as many people; see `quantile_thresholds`.

    Raises
    ------
    ConfigError
        An unknown choice, or fewer than 2 classes.
    FormatError
        Incomes missing, or so alike that quantiles coincide.

    Examples
    --------
    >>> census = pd.DataFrame({"income": [10.0, 20.0, 30.0], "individuals": [1.0, 1.0, 5.0],
    ...                        "imputed": False}, index=["a", "b", "c"])
    >>> income_thresholds(census, of="here", classes=2)
    Thresholds(incomes=(20.0,), of='here', weight='cells')
    >>> income_thresholds(census, of="here", classes=2, weight="individuals").incomes
    (30.0,)
    """
    _require_choice("quantile_weight", weight, QUANTILE_WEIGHTS)
    if not tables:
        raise ConfigError("thresholds need at least one table of census cells, received none")
    if len(tables) == 1:
        entering = _entering(tables[0], labels)
    else:
        entering = pd.concat([_entering(table, labels) for table in tables]).drop_duplicates()
    weights = entering["individuals"].to_numpy() if weight == "individuals" else None
    quantiles = quantile_thresholds(entering["income"].to_numpy(), classes, weights)
    return Thresholds(tuple(quantiles.tolist()), of, weight)


def _entering(table: pd.DataFrame, labels: str) -> pd.DataFrame:
    chosen = label_weights(table, labels) > 0
    columns = {
        "cell_id": table.index,
        "income": incomes_of(table),
        "individuals": table["individuals"].to_numpy(dtype=np.float64, na_value=np.nan),
    }
    return pd.DataFrame(columns)[chosen]


def incomes_of(census: pd.DataFrame) -> np.ndarray:
    """Income of every cell, float64 ``(cell,)``, euros a year.

    Raises
    ------
    MissingInputError
        There is no such column.
    FormatError
        Some are missing, NaN or infinite; the first cells are named.
    """
    if "income" not in census:
        raise MissingInputError(
            f"the census has no column 'income', only {list(census.columns)}: expected a table as "
            "sesgrid.read_filosofi returns it"
        )
    income = pd.to_numeric(census["income"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~np.isfinite(income)
    if wrong.any():
        first = ", ".join(map(str, census.index[wrong][:_SHOWN]))
        raise FormatError(
            f"{int(wrong.sum())} of {len(census)} cells have no finite income (first: {first}): "
            "expected euros a year for every cell; leave these cells out of the census"
        )
    return income


def label_weights(
    census: pd.DataFrame, labels: str, imputed_weight: float | None = None
) -> np.ndarray:
    """How much every cell's label weighs, float64 ``(cell,)``: 0 = not labelled.

    Parameters
    ----------
    census : DataFrame
        With ``imputed`` (boolean; NA = not flagged, taken as observed).
    labels : {"observed", "all", "weighted"}
    imputed_weight : float, optional
        Of imputed cells where labels are "weighted"; in (0, 1). Without it they weigh 1.

    Raises
    ------
    ConfigError
        Unknown labels, or a weight out of range.

    Examples
    --------
    >>> census = pd.DataFrame({"imputed": pd.array([True, False, None], dtype="boolean")})
    >>> [label_weights(census, labels, 0.25).tolist() for labels in LABELS]
    [[0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.25, 1.0, 1.0]]
    """
    _require_choice("labels", labels, LABELS)
    if imputed_weight is not None and not 0 < imputed_weight < 1:
        raise ConfigError(
            f"imputed_weight must lie between 0 and 1, both excluded, received {imputed_weight!r}; "
            "labels = 'observed' leaves imputed cells out, labels = 'all' takes them for observed"
        )
    of_imputed = {"observed": 0.0, "all": 1.0, "weighted": imputed_weight or 1.0}[labels]
    imputed = census["imputed"].fillna(False).to_numpy(dtype=bool)
    return np.where(imputed, of_imputed, 1.0)


def _require_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        choices = ", ".join(map(repr, known))
        raise ConfigError(f"{name} must be one of {choices}, received {value!r}")


def quantile_thresholds(
    income: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """The K − 1 inner quantiles of income, float64, strictly increasing.

    Parameters
    ----------
    income : np.ndarray
        float ``(cell,)``, finite.
    classes : int
        K, at least 2.
    weights : np.ndarray, optional
        float ``(cell,)``, not negative: each income counts as often as its weight says.

    Raises
    ------
    ConfigError
        Fewer than 2 classes.
    FormatError
        Incomes so alike that quantiles coincide; weights that are no weights.

    Notes
    -----
    Quantiles interpolate linearly between order statistics (definition 7 of Hyndman & Fan 1996,
    NumPy's default). With whole weights they are those of the sample in which every income is
    repeated as often as its weight; between whole numbers the same rule goes on: income i fills the
    ranks from W(i−1) to W(i) − 1, W being the running sum of weights, and the ranks between are
    interpolated.

    Examples
    --------
    >>> quantile_thresholds(np.arange(1.0, 12.0), 5).tolist()
    [3.0, 5.0, 7.0, 9.0]
    >>> quantile_thresholds(np.array([1.0, 2.0, 3.0]), 2, np.array([1.0, 1.0, 3.0])).tolist()
    [3.0]
    """
    if classes < 2:
        raise ConfigError(f"at least 2 classes are needed, received {classes}")
    if income.size == 0:
        raise FormatError("no cell is labelled: there are no incomes to take quantiles of")
    if np.ptp(income) == 0:
        raise FormatError(
            f"all {income.size} labelled cells have the same income, {income[0]:.2f} €: there are no "
            "classes to tell apart; check the census file, or choose a wider area"
        )
    shares = np.arange(1, classes) / classes
    if weights is None:
        quantiles = np.quantile(income, shares)
    else:
        quantiles = _weighted_quantiles(income, weights, shares)
    # rounded to a millionth of a euro: interpolation leaves 25.000000000000004 where 25 is meant,
    # and a cell on the threshold would change its class
    thresholds = np.round(quantiles, 6)
    if np.any(np.diff(thresholds) <= 0):
        raise FormatError(
            f"incomes are too alike for {classes} classes: the quantiles are "
            f"{', '.join(f'{t:.2f}' for t in thresholds)}; choose fewer classes"
        )
    return thresholds


def _weighted_quantiles(income: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise FormatError(
            "weights of incomes must be finite, not negative and not all zero; received "
            f"{int((~(weights >= 0)).sum())} negative or missing of {weights.size}: check 'individuals'"
        )
    order = np.argsort(income, kind="stable")
    order = order[weights[order] > 0]
    upper = np.cumsum(weights[order])
    lower = np.concatenate([[0.0], upper[:-1]])
    ranks = np.stack([lower, np.maximum(lower, upper - 1)], axis=1).ravel()
    return np.interp(shares * (upper[-1] - 1), ranks, np.repeat(income[order], 2))


def classify(income: np.ndarray, thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    """Class 1…K of every income; class k is (threshold k−1, threshold k].

    >>> classify(np.array([1.0, 2.0, 3.0]), np.array([2.0])).tolist()
    [1, 1, 2]
    """
    return np.searchsorted(np.asarray(thresholds), income, side="left").astype(np.int64) + 1


def require_classes(income: np.ndarray, thresholds: Thresholds) -> None:
    """Check that labelled incomes, float ``(cell,)``, fall into every class.

    Raises
    ------
    TooFewCellsError
        Names the empty classes and their incomes.
    """
    counts = np.bincount(classify(income, thresholds.incomes), minlength=thresholds.classes + 1)
    empty = np.flatnonzero(counts[1:] == 0) + 1
    if len(empty):
        missing = ", ".join(f"class {k} ({thresholds.range_of(k)})" for k in empty.tolist())
        raise TooFewCellsError(
            f"no labelled cell falls into {missing}: the thresholds are of {thresholds.of!r}, the "
            f"{income.size} labelled incomes run from {income.min():,.2f} to {income.max():,.2f} €; "
            "choose thresholds that these incomes straddle, or a wider area"
        )
