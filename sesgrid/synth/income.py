"""The smooth income field, and the incomes of cells.

The field is a gradient plus a sum of plane waves (random Fourier features of a Gaussian
covariance; Rahimi and Recht 2007): a closed form, so that a house asks for it where it stands.
It is then turned into a **rank** in [0, 1], of which income is a monotone function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["IncomeField", "choose_field", "income_of_rank"]

_N_WAVES = 96
_RANKS = (0.0, 0.02, 0.2, 0.4, 0.6, 0.8, 0.98, 1.0)
_EUROS = (12_000.0, 15_800.0, 20_785.0, 23_576.0, 26_058.0, 28_692.0, 36_500.0, 40_700.0)
"""Bordeaux 2015 (INSEE): extremes and P20 to P80."""


def income_of_rank(rank: np.ndarray) -> np.ndarray:
    """Living standard (euros a year) at a rank in [0, 1].

    >>> income_of_rank(np.array([0.0, 0.4, 1.0])).tolist()
    [12000.0, 23576.0, 40700.0]
    """
    return np.interp(rank, _RANKS, _EUROS)


@dataclass(frozen=True)
class IncomeField:
    """Rank of wealth at any point, smooth in space."""

    waves: np.ndarray
    """float64 ``(wave, 4)``: wave vector x, y (radians a metre), phase, amplitude."""
    gradient: np.ndarray
    """float64 ``(2,)``, per metre."""
    quantiles: np.ndarray
    """float64 ``(101,)``: the raw field's percentiles over the city, strictly increasing."""

    @classmethod
    def random(cls, rng: np.random.Generator, side_m: float) -> IncomeField:
        """A random field for a square city of ``side_m`` metres whose corner is (0, 0)."""
        length_m = float(np.clip(0.16 * side_m, 250.0, 800.0))
        waves = np.column_stack(
            [
                rng.normal(size=(_N_WAVES, 2)) / length_m,
                rng.uniform(0, 2 * np.pi, _N_WAVES),
                np.full(_N_WAVES, np.sqrt(2 / _N_WAVES)),
            ]
        )
        heading = rng.uniform(0, 2 * np.pi)
        gradient = np.array([np.cos(heading), np.sin(heading)]) * 2.0 / side_m
        raw = cls(waves, gradient, np.zeros(0))
        steps = (np.arange(100) + 0.5) * side_m / 100
        x, y = np.meshgrid(steps, steps)
        quantiles = np.percentile(raw._raw(x.ravel(), y.ravel()), np.arange(101))
        return cls(waves, gradient, quantiles)

    def _raw(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        total = self.gradient[0] * x + self.gradient[1] * y
        for kx, ky, phase, amplitude in self.waves:
            total = total + amplitude * np.cos(kx * x + ky * y + phase)
        return total

    def rank(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Rank in [0, 1] at local metres (x east, y north); uniform over the city."""
        return np.interp(self._raw(x, y), self.quantiles, np.linspace(0, 1, 101))


def choose_field(
    rng: np.random.Generator, side_m: float, x: np.ndarray, y: np.ndarray, shares: np.ndarray
) -> IncomeField:
    """The field, of 24 random ones, that the land cover tells least about.

    A smooth field has few degrees of freedom, hence by chance a notable correlation with where
    the river or the park lies. The layout is never fitted to the income, nor the picture.

    Parameters
    ----------
    x, y : np.ndarray
        ``(cell,)`` centres, local metres.
    shares : np.ndarray
        ``(cell, class)`` share of each class in each cell.
    """
    varying = shares[:, shares.std(axis=0) > 0]
    design = np.column_stack([np.ones(len(x)), varying])

    def told(field: IncomeField) -> float:
        """Share of the rank's variance that a linear fit on the class shares explains."""
        rank = field.rank(x, y)
        fitted = design @ np.linalg.lstsq(design, rank, rcond=None)[0]
        return float(fitted.var() / rank.var())

    return min((IncomeField.random(rng, side_m) for _ in range(24)), key=told)
