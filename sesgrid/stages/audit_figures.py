"""The figures of an audit: from its rows to what the report says, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sesgrid.errors import ConfigError
from sesgrid.kernels.bootstrap import percentile_interval
from sesgrid.kernels.faithfulness import area_under, rank_correlation
from sesgrid.kernels.statistics import ColumnSums, activation_ratios
from sesgrid.stages.activation import MAPS
from sesgrid.stages.evidence import UNCLASSIFIED

__all__ = ["require_known", "summarise"]

_FEW = 10
"""Land-cover classes in fewer cells take no part in a ranking."""
_RESAMPLES = 2000


def summarise(
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    class_names: Sequence[str],
    *,
    truth: Sequence[str] = (),
    activation: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """The figures of an audit, as JSON takes them (None where something is not defined).

    Parameters
    ----------
    rows : sequence of mapping
        Of `sesgrid.stages.audit.Audit`.
    settings : mapping
        How the rows were made: ``Audit.settings``.
    class_names : sequence of str
        Names of the land-cover values 1, 2, …
    truth : sequence of str
        Land-cover classes that are known to bear what the models predict; empty: not known.
    activation : DataFrame, optional
        Findings of `sesgrid.stages.analyse.activation_table`, for the ranking.

    Returns
    -------
    dict
        ``cells``, ``low``, ``high``, ``settings``; ``planted_truth`` (None without truth) with
        ``pointing_game``, ``energy`` and ``ranking``; ``deletion`` and ``insertion``; ``randomisation``;
        ``folds`` (None with one model). Means come with ``ci``, a bootstrap 95 % interval over ``cells``.

    Raises
    ------
    ConfigError
        No land-cover class has a name of the truth.
    """
    require_known(truth, class_names)
    side = np.array([row["side"] for row in rows])
    return _plain(
        {
            "cells": len(rows),
            **{name: int((side == s).sum()) for s, name in enumerate(MAPS)},
            "settings": dict(settings),
            "planted_truth": _planted_truth(rows, class_names, truth, activation) if truth else None,
            **_curves_of(rows, side),
            "randomisation": _randomisation(rows),
            "folds": _folds(rows, side, class_names) if len(rows[0]["of_models"]) > 1 else None,
        }
    )  # fmt: skip


def require_known(truth: Sequence[str], class_names: Sequence[str]) -> None:
    """Refuse names that no land-cover class has.

    Raises
    ------
    ConfigError
    """
    strangers = sorted(set(truth) - set(class_names))
    if strangers:
        raise ConfigError(f"no land-cover class is called {', '.join(strangers)}: check the truth")


def _mean(values: Any) -> dict[str, Any]:
    """Mean of what is known, its interval, and of how many cells."""
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    if not len(known):
        return {"mean": np.nan, "ci": [np.nan, np.nan], "cells": 0}
    sums = ColumnSums(len(known), 1, np.random.default_rng(0))
    sums.add(np.arange(len(known)), known[:, None])
    low, high = percentile_interval(sums.means(_RESAMPLES).resamples[:, 0])
    return {"mean": known.mean(), "ci": [float(low), float(high)], "cells": len(known)}


def _planted_truth(
    rows: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    truth: Sequence[str],
    activation: pd.DataFrame | None,
) -> dict[str, Any]:
    names = [UNCLASSIFIED, *class_names]
    bears = np.isin(names, list(truth))
    area, sums = (np.array([row[k] for row in rows], dtype=float) for k in ("area", "sums"))
    share = area[:, bears].sum(axis=1) / area.sum(axis=1)
    total = sums.sum(axis=1)
    # a cell that is all truth, or has none, decides nothing; nor does a map of zeros
    plays = (share > 0) & (share < 1) & (total > 0)
    hit = np.array([row["peak"][bears].sum() for row in rows])[plays]
    energy, chance = sums[plays][:, bears].sum(axis=1) / total[plays], share[plays]
    ranking = {} if activation is None else {
        side: _ranking(activation[activation["prediction"] == side], truth) for side in MAPS
    }  # fmt: skip
    return {
        "classes": list(truth),
        "chance": chance.mean() if plays.any() else np.nan,
        "pointing_game": {**_mean(hit), "gain": _mean(hit - chance)},
        "energy": {**_mean(energy), "gain": _mean(energy - chance)},
        "ranking": ranking,
    }  # fmt: skip


def _ranking(table: pd.DataFrame, truth: Sequence[str]) -> dict[str, Any]:
    """Whether classes that bear the truth have the larger ratios; ``auc``: of how many pairs."""
    table = table[(table["n_cells"] >= _FEW) & table["activation_ratio"].notna()]
    table = table.sort_values("activation_ratio", ascending=False)
    bears = table["landcover_class"].isin(list(truth)).to_numpy()
    ratio = table["activation_ratio"].to_numpy(dtype=float)
    auc = np.nan
    if bears.any() and not bears.all():
        pairs = stats.mannwhitneyu(ratio[bears], ratio[~bears], method="asymptotic").statistic
        auc = pairs / (bears.sum() * (~bears).sum())
    ranked = zip(table["landcover_class"], ratio, bears, strict=True)
    return {
        "auc": auc,
        "classes": [{"landcover_class": c, "ratio": r, "bears": b} for c, r, b in ranked],
    }


def _curves_of(rows: Sequence[Mapping[str, Any]], side: np.ndarray) -> dict[str, Any]:
    curves = np.array([row["curves"] for row in rows])
    out = {}
    for test, (name, sign) in enumerate((("deletion", -1), ("insertion", 1))):
        ordered, by_lot = curves[:, test, 0], curves[:, test, 1:].mean(axis=1)
        gain = sign * (area_under(ordered) - area_under(by_lot))
        out[name] = {
            "gain": _mean(gain),
            "better": float((gain > 0).mean()),
            "area": {"map": area_under(ordered).mean(), "random": area_under(by_lot).mean()},
            "curves": {
                of: {"map": ordered[side == s].mean(axis=0), "random": by_lot[side == s].mean(axis=0)}
                for s, of in enumerate(MAPS)
                if (side == s).any()
            },
        }  # fmt: skip
    return out


def _randomisation(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps, unrelated = [], np.array([row["unrelated"] for row in rows])
    # folds of one architecture go through the same steps
    for of_step in zip(*(row["similar"] for row in rows), strict=True):
        name, n_layers, _ = of_step[0]
        similar = np.array([v for *_, v in of_step])
        gain = _mean(similar - unrelated)
        steps.append({"layer": name, "layers": n_layers, **_mean(similar), "gain": gain})
    return {"steps": steps, "unrelated": _mean(unrelated)}


def _folds(
    rows: Sequence[Mapping[str, Any]], side: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Agreement of maps, and of what is said of the classes."""
    area = np.array([row["area"] for row in rows])[:, 1:]
    sums = np.array([row["of_models"] for row in rows])[:, :, 1:]
    classes, agree = [], []
    for s, name in enumerate(MAPS):
        mine = side == s
        ratios = np.array(
            [activation_ratios(of[mine], area[mine]) for of in sums.transpose(1, 0, 2)]
        )
        enough = np.isfinite(ratios).sum(axis=1).min(axis=0) >= min(_FEW, max(1, mine.sum() // 4))
        if not enough.any():
            continue
        x_u = np.nanmean(ratios[:, :, enough], axis=1)
        if enough.sum() > 2:
            agree += [rank_correlation(a, b) for a, b in combinations(x_u, 2)]
        classes += [
            {"side": name, "landcover_class": class_names[k], "ratios": x_u[:, j].tolist()}
            for j, k in enumerate(np.flatnonzero(enough).tolist())
        ]
    return {
        "models": sums.shape[1],
        "similarity": {
            **_mean([row["agreement"] for row in rows]),
            "gain": _mean([row["agreement"] - row["unrelated"] for row in rows]),
        },
        "unrelated": _mean([row["unrelated"] for row in rows]),
        "ranking": float(np.nanmean(agree)) if np.isfinite(agree).any() else np.nan,
        "classes": classes,
    }


def _plain(value: Any) -> Any:
    """Python's own types; None for what is not a number."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
