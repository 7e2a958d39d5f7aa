"""The census of the synthetic city, as INSEE's Filosofi 2019 file has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sesgrid.grid import format_cell_id

__all__ = ["COLUMNS", "Census", "census_table", "count_people", "write_census"]

# fmt: off
COLUMNS = (
    "idcar_200m", "idcar_1km", "idcar_nat", "i_est_200", "i_est_1km", "lcog_geo", "ind", "men",
    "men_pauv", "men_1ind", "men_5ind", "men_prop", "men_fmp", "ind_snv", "men_surf", "men_coll",
    "men_mais", "log_av45", "log_45_70", "log_70_90", "log_ap90", "log_inc", "log_soc", "ind_0_3",
    "ind_4_5", "ind_6_10", "ind_11_17", "ind_18_24", "ind_25_39", "ind_40_54", "ind_55_64",
    "ind_65_79", "ind_80p", "ind_inc",
)
# fmt: on
"""INSEE's columns in INSEE's order (2019, lower case)."""

_COMMUNE = "99001"
_SECRET_HOUSEHOLDS = 11
"""Below this INSEE publishes no values of the cell's own."""
_AGES = {
    "0_3": 0.045,
    "4_5": 0.025,
    "6_10": 0.062,
    "11_17": 0.085,
    "18_24": 0.085,
    "25_39": 0.200,
    "40_54": 0.195,
    "55_64": 0.120,
    "65_79": 0.125,
    "80p": 0.050,
    "inc": 0.008,
}
_BUILT = {"av45": 0.22, "45_70": 0.24, "70_90": 0.26, "ap90": 0.26, "inc": 0.02}


@dataclass(frozen=True)
class Census:
    """The people of the inhabited cells, one entry a cell."""

    northing_m: np.ndarray
    """int64, south-west corner."""
    easting_m: np.ndarray
    """int64, south-west corner."""
    income: np.ndarray
    """float64, the true living standard, euros a year."""
    households: np.ndarray
    """float64, whole in observed cells, tenths in imputed ones."""
    individuals: np.ndarray
    """float64, halves in observed cells, tenths in imputed ones."""
    imputed: np.ndarray
    """bool."""

    @property
    def ids(self) -> list[str]:
        """Cell ids."""
        pairs = zip(self.northing_m, self.easting_m, strict=True)
        return [format_cell_id(int(n), int(e)) for n, e in pairs]

    @property
    def published_income(self) -> np.ndarray:
        """The true income, but in imputed cells the mean of their square kilometre.

        INSEE spreads a group's total over its small cells; the group here is the square of 1 km,
        weighted by people.
        """
        square = (self.northing_m // 1000) * 1_000_000 + self.easting_m // 1000
        _, group = np.unique(square, return_inverse=True)
        people = np.bincount(group, self.individuals)
        mean = np.bincount(group, self.individuals * self.income) / people
        return np.where(self.imputed, mean[group], self.income)


def count_people(
    expected_households: np.ndarray, imputed_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Households, people and imputation of inhabited cells.

    Parameters
    ----------
    expected_households : np.ndarray
        float64 ``(cell,)``, from the area and density of its homes.
    imputed_share : float
        Share of cells, those with the fewest households, that fall below INSEE's threshold.

    Returns
    -------
    households, individuals : np.ndarray
        float64 ``(cell,)``.
    imputed : np.ndarray
        bool ``(cell,)``.
    """
    n = len(expected_households)
    households = expected_households * rng.lognormal(0, 0.22, n)
    few = round(imputed_share * n)
    order = np.argsort(households, kind="stable")
    imputed = np.zeros(n, dtype=bool)
    imputed[order[:few]] = True
    households[order[:few]] = np.linspace(1.2, _SECRET_HOUSEHOLDS - 0.6, few)
    households = np.where(
        imputed,
        np.round(households, 1),
        np.maximum(np.round(households), _SECRET_HOUSEHOLDS),
    )
    people = households * rng.uniform(1.9, 2.6, n)
    return households, np.where(imputed, np.round(people, 1), np.round(2 * people) / 2), imputed


def census_table(census: Census, rng: np.random.Generator) -> pd.DataFrame:
    """All columns of the 2019 file, one row a cell, from the north-west."""
    n, men, ind = len(census.income), census.households, census.individuals
    income = census.published_income
    # INSEE's own decile of wealth, for the columns that go with it
    wealth = (np.argsort(np.argsort(income)) + 0.5) / n
    km = [
        f"CRS3035RES1000mN{y // 1000 * 1000}E{x // 1000 * 1000}"
        for y, x in zip(census.northing_m, census.easting_m, strict=True)
    ]
    table = {
        "idcar_200m": census.ids,
        "idcar_1km": km,
        "idcar_nat": [
            k if i else c for k, c, i in zip(km, census.ids, census.imputed, strict=True)
        ],
        "i_est_200": census.imputed.astype(int),
        "i_est_1km": np.zeros(n, dtype=int),
        "lcog_geo": [_COMMUNE] * n,
        "ind": ind,
        "men": men,
        "ind_snv": np.round(income * ind, 1),
        "men_surf": np.round(men * rng.uniform(70, 105, n), 0),
    }
    step = np.where(census.imputed, 0.1, 1.0)
    table |= _households(men, wealth, step, rng)
    table |= _parts("log_", _BUILT, men, step, rng)
    table |= _parts("ind_", _AGES, ind, np.where(census.imputed, 0.1, 0.5), rng)
    frame = pd.DataFrame(table)[list(COLUMNS)]
    return frame.sort_values("idcar_200m", ignore_index=True)


def _households(
    men: np.ndarray, wealth: np.ndarray, step: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Columns that count some of the households, in multiples of ``step``."""
    n = len(men)
    shares = {
        "men_pauv": 0.34 * (1 - wealth) ** 1.5,
        "men_1ind": rng.uniform(0.25, 0.42, n),
        "men_5ind": rng.uniform(0.03, 0.1, n),
        "men_prop": 0.3 + 0.5 * wealth,
        "men_fmp": 0.17 - 0.1 * wealth,
        "men_coll": rng.uniform(0.1, 0.8, n),
        "log_soc": 0.35 * (1 - wealth) ** 2,
    }
    table = {}
    for name, share in shares.items():
        table[name] = np.round(np.round(men * share * rng.uniform(0.8, 1.1, n) / step) * step, 1)
    table["men_mais"] = np.round(men - table["men_coll"], 1)
    return table


def _parts(
    prefix: str,
    shares: dict[str, float],
    total: np.ndarray,
    step: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Columns that add up to ``total``, in multiples of ``step``; the largest takes the rest."""
    names = list(shares)
    weights = np.array(list(shares.values())) * rng.uniform(0.7, 1.3, (len(total), len(names)))
    weights /= weights.sum(axis=1, keepdims=True)
    parts = np.floor(total[:, None] * weights / step[:, None]) * step[:, None]
    largest = int(np.argmax(list(shares.values())))
    parts[:, largest] += total - parts.sum(axis=1)
    return {prefix + name: np.round(parts[:, i], 1) for i, name in enumerate(names)}


def write_census(folder: Path, table: pd.DataFrame) -> Path:
    """Write the CSV as INSEE delivers it; returns its path."""
    target = folder / "Filosofi2019_carreaux_200m_csv" / "carreaux_200m_met.csv"
    target.parent.mkdir(parents=True)
    table.to_csv(target, index=False, lineterminator="\n")
    return target
