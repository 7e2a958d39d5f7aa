"""A made-up city for tests: plausible tables, no imagery and no model behind them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter
from scipy.stats import binom
from shapely import box

from sesgrid.grid import CELL_M, CRS, cell_id_of
from sesgrid.report import CellThumbnail

GROUPS = {
    "continuous urban fabric": "residential",
    "dense urban fabric": "residential",
    "medium-density urban fabric": "residential",
    "low-density urban fabric": "residential",
    "very-low-density urban fabric": "residential",
    "isolated structures": "residential",
    "commercial and industrial": "functional",
    "construction and dump": "functional",
    "no use": "no use",
    "motorways": "infrastructure",
    "roads": "infrastructure",
    "railways": "infrastructure",
    "port": "infrastructure",
    "green urban": "functional",
    "leisure": "functional",
    "agriculture and wetland": "functional",
    "natural areas": "nature",
    "open spaces": "nature",
    "water": "nature",
}
CLASSES = ("unclassified", *GROUPS)


def fake_cells(
    n_side: int = 30, n_classes: int = 5, n_folds: int = 3, seed: int = 0, skill: float = 0.8
) -> gpd.GeoDataFrame:
    """A round city with smooth income; predictions are the truth with ordinal noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:n_side, :n_side]
    inside = np.hypot(y - n_side / 2, x - n_side / 2) < n_side / 2
    field = gaussian_filter(rng.normal(size=(n_side, n_side)), 2.0)[inside]
    row, col = y[inside].astype(np.int64) - 14_400, x[inside].astype(np.int64) + 18_790
    income = 24_000 + 5_000 * (field - field.mean()) / field.std()
    thresholds = np.quantile(income, np.arange(1, n_classes) / n_classes)
    true = np.searchsorted(thresholds, income, side="right") + 1
    latent = skill * (true - 1) + (1 - skill) * rng.uniform(0, n_classes - 1, true.size)
    guess = np.clip(np.rint(latent + rng.normal(0, 0.7, true.size)), 0, n_classes - 1) + 1
    n = true.size
    predicted = pd.array(guess.astype(int), dtype="Int64")
    unseen = rng.random(n) < 0.02
    predicted[unseen] = pd.NA
    fold = rng.integers(0, n_folds, n)
    # the mode of a binomial of K − 1 trials is the whole part of K · p
    p = np.where(
        unseen, np.nan, (guess - 1 + np.random.default_rng([seed, 1]).random(n)) / n_classes
    )
    cells = gpd.GeoDataFrame(
        {
            "individuals": rng.uniform(20, 400, n).round(1),
            "households": pd.array(rng.integers(11, 90, n), dtype="Int64"),
            "income": income,
            "imputed": pd.array(rng.random(n) < 0.3, dtype="boolean"),
            "row": row,
            "col": col,
            "labelled": True,
            "ses_true": pd.array(true, dtype="Int64"),
            "fold": pd.array(fold, dtype="Int64"),
            "model_id": pd.array([f"fold-{f}" for f in fold], dtype="string"),
            "coverage": np.where(rng.random(n) < 0.05, 0.6, 1.0),
            "p": p,
            "ses_predicted": predicted,
            **{f"probability_{k + 1}": binom.pmf(k, n_classes - 1, p) for k in range(n_classes)},
        },
        geometry=[
            box(c * CELL_M, (-r - 1) * CELL_M, (c + 1) * CELL_M, -r * CELL_M)
            for r, c in zip(row, col, strict=True)
        ],
        crs=CRS,
        index=pd.Index([cell_id_of(r, c) for r, c in zip(row, col, strict=True)], name="cell_id"),
    )
    cells.attrs = {"n_classes": n_classes, "thresholds": thresholds.tolist(), "city": "Fakeville"}
    return cells


def fake_spatial_folds(cells: gpd.GeoDataFrame, seed: int = 1) -> gpd.GeoDataFrame:
    """The same cells in folds of 4 × 4 cells; three in ten have the prediction of another cell."""
    rng = np.random.default_rng(seed)
    other = cells.copy()
    other.attrs = {**cells.attrs, "folds_kind": "spatial"}
    n_folds = int(cells["fold"].max()) + 1
    other["fold"] = pd.array((cells["row"] // 4 * 7 + cells["col"] // 4) % n_folds, dtype="Int64")
    mixed = np.flatnonzero((rng.random(len(cells)) < 0.3) & cells["p"].notna())
    predicted = [n for n in cells if n in ("p", "ses_predicted") or n.startswith("probability_")]
    shuffled = cells.iloc[rng.permutation(mixed)]
    for name in predicted:
        other.iloc[mixed, other.columns.get_loc(name)] = shuffled[name].array
    return other


def fake_activation(
    cells: pd.DataFrame, names: tuple[str, ...] = CLASSES, seed: int = 0
) -> xr.Dataset:
    """Class sums in which residential classes draw more than their share."""
    rng = np.random.default_rng(seed)
    n, k = len(cells), len(names)
    lean = cells["ses_true"].to_numpy(float, na_value=3)[:, None] / 5
    preference = np.linspace(-1, 1, k)[None, :]
    chance = np.clip(0.3 + 0.25 * (1 - np.abs(lean * 2 - 1 - preference)), 0.02, 1)
    area = np.where(rng.random((n, k)) < chance, rng.gamma(1.0, 2000, (n, k)).astype(int) + 1, 0)
    area[:, 0] = rng.integers(0, 500, n)
    pull = np.array([1.6 if GROUPS.get(name) == "residential" else 0.7 for name in names])
    noise = rng.lognormal(0, 0.4, (n, 2, k))
    activation = np.where(area[:, None, :] > 0, area[:, None, :] * pull * noise, 0.0)
    return xr.Dataset(
        {
            "activation": (("cell", "map", "landcover_class"), activation),
            "area": (("cell", "landcover_class"), area.astype(np.int64)),
        },
        coords={
            "cell": cells.index.to_numpy(object),
            "map": ["low", "high"],
            "landcover_class": list(names),
        },
        attrs={"preset": "paper"},
    )


def fake_thumbnails(cells: pd.DataFrame, n: int = 3, px: int = 200) -> list[CellThumbnail]:
    """Pictures with a few roofs and a road, so that a person sees something."""
    rng = np.random.default_rng(1)
    shown = []
    for cell_id, row in cells.sample(n, random_state=2).iterrows():
        classes = np.full((px, px), 2, dtype=np.uint8)
        image = np.full((px, px, 3), (96, 116, 74), dtype=np.float64)
        y, x = px // 3, px // 2
        image[y : y + px // 16], classes[y : y + px // 16] = (128, 126, 124), 11
        classes[: px // 3, x:], image[: px // 3, x:] = 14, (70, 105, 60)
        heat = np.zeros((px, px))
        for _ in range(14):
            top, left = rng.integers(px // 3 + px // 12, px - 20), rng.integers(0, px - 24)
            image[top : top + 14, left : left + 20] = np.add((168, 96, 74), rng.normal(0, 14))
            heat[top : top + 14, left : left + 20] += rng.uniform(0.2, 1)
        image = np.clip(image + rng.normal(0, 9, (px, px, 1)), 0, 255).astype(np.uint8)
        noise = np.abs(rng.normal(size=(px, px)))
        shown.append(
            CellThumbnail(
                cell_id=str(cell_id),
                ses_true=None if pd.isna(row["ses_true"]) else int(row["ses_true"]),
                ses_predicted=None if pd.isna(row["ses_predicted"]) else int(row["ses_predicted"]),
                p=float(row["p"]),
                image=image,
                low=gaussian_filter(heat, 2) * noise,
                high=gaussian_filter(heat[::-1], 3) * noise,
                classes=classes,
            )
        )
    return shown
