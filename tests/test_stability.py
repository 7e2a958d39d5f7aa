"""Do findings hold: tables against naive loops and scipy."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from sesgrid.stages.stability import Finding, stability_of_pairs, stability_table

CLASSES = [f"class {k}" for k in range(7)]


def finding(rng, backbone: str, seed: int, fold: int) -> Finding:
    """Ratios of seven classes on both sides; some undefined, some of few cells, some exactly 1."""
    rows = [
        {
            "prediction": side,
            "landcover_class": name,
            "activation_ratio": float(rng.choice([np.nan, 1.0, *rng.uniform(0.2, 2.5, 8)])),
            "n_cells": int(rng.integers(2, 20)),
        }
        for side in ("low", "high")
        for name in CLASSES
    ]
    return Finding(backbone, seed, fold, pd.DataFrame(rows).sample(frac=1, random_state=fold))


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    rng = np.random.default_rng(4)
    return [
        finding(rng, backbone, seed, fold)
        for backbone in ("a", "b")
        for seed in (0, 1, 2)
        for fold in (0, 1)
    ]


def known(f: Finding, side: str, name: str) -> float | None:
    """The ratio that a model has of a class in at least five cells."""
    for _, row in f.ratios.iterrows():
        if (row["prediction"], row["landcover_class"]) == (side, name):
            enough = row["n_cells"] >= 5 and not math.isnan(row["activation_ratio"])
            return row["activation_ratio"] if enough else None
    return None


def test_the_table_is_the_naive_loop(findings):
    table = stability_table(findings).set_index(["prediction", "landcover_class"])
    assert len(table) == 14
    for (side, name), row in table.iterrows():
        values = [r for f in findings if (r := known(f, side, name)) is not None]
        above = [v > 1 for v in values]
        assert row["models"] == len(values)
        assert row["mean"] == pytest.approx(sum(values) / len(values))
        assert (row["lowest"], row["highest"]) == (min(values), max(values))
        square = sum((v - sum(values) / len(values)) ** 2 for v in values) / (len(values) - 1)
        assert row["spread"] == pytest.approx(math.sqrt(square))
        assert row["share_above_1"] == pytest.approx(sum(above) / len(above))
        assert row["holds"] == (all(above) or not any(above))


def test_a_finding_holds_where_two_models_at_least_agree():
    rows = pd.DataFrame(
        {
            "prediction": ["low"] * 4,
            "landcover_class": CLASSES[:4],
            "activation_ratio": [1.5, 0.5, 1.5, np.nan],
            "n_cells": [5, 9, 9, 9],
        }
    )
    other = rows.assign(activation_ratio=[1.1, 0.9, 0.7, 2.0])
    table = stability_table([Finding("a", 0, 0, rows), Finding("a", 0, 1, other)])
    table = table.set_index("landcover_class")
    assert table["holds"].to_dict() == dict(
        zip(CLASSES[:4], [True, True, False, False], strict=True)
    )
    assert table["models"].tolist() == [2, 2, 2, 1]
    assert math.isnan(table.loc[CLASSES[3], "spread"])
    few = rows.assign(n_cells=4)
    for none in ([], [Finding("a", 0, 0, few)]):
        empty = stability_table(none)
        assert empty.empty
        assert list(empty) == list(stability_table([Finding("a", 0, 0, rows)]))


def test_pairs_are_spearmans_of_models_that_differ_in_one_thing(findings):
    expected: dict[tuple[str, str], list[float]] = {}
    for a, b in combinations(findings, 2):
        differs = [n for n in ("backbone", "seed", "fold") if getattr(a, n) != getattr(b, n)]
        for side in ("low", "high"):
            pairs = [(known(a, side, n), known(b, side, n)) for n in CLASSES]
            pairs = [(x, y) for x, y in pairs if x is not None and y is not None]
            if len(differs) == 1 and len(pairs) >= 4:
                r = spearmanr(*zip(*pairs, strict=True)).statistic
                expected.setdefault((differs[0], side), []).append(float(r))
    table = stability_of_pairs(findings)
    assert {(r["differ_in"], r["prediction"]) for _, r in table.iterrows()} == set(expected)
    for _, row in table.iterrows():
        values = expected[row["differ_in"], row["prediction"]]
        assert row["pairs"] == len(values)
        assert row["rank_correlation"] == pytest.approx(np.mean(values))
        assert row["lowest"] == pytest.approx(min(values))
        assert row["highest"] == pytest.approx(max(values))


def test_pairs_that_say_nothing_are_left_out():
    base = pd.DataFrame(
        {
            "prediction": "low",
            "landcover_class": CLASSES[:5],
            "activation_ratio": [0.5, 1.0, 1.5, 2.0, 2.5],
            "n_cells": 9,
        }
    )
    one = Finding("a", 0, 0, base)
    # three classes in common; no order among equals; another fold and seed at once; the same model
    three = base.assign(n_cells=[9, 9, 9, 1, 1])
    even = base.assign(activation_ratio=1.25)
    for other in (Finding("a", 0, 1, three), Finding("a", 0, 1, even), Finding("a", 1, 1, base),
                  Finding("a", 0, 0, base)):  # fmt: skip
        table = stability_of_pairs([one, other])
        assert table.empty
        assert "rank_correlation" in table
    four = base.assign(n_cells=[9, 9, 9, 9, 1], activation_ratio=[4.0, 3.0, 2.0, 1.0, 9.0])
    (row,) = stability_of_pairs([one, Finding("b", 0, 0, four)]).to_dict("records")
    assert row["differ_in"] == "backbone"
    assert row["rank_correlation"] == pytest.approx(-1)
