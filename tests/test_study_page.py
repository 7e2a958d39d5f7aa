from __future__ import annotations

import math
import re
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.kernels.scores import SCORES
from sesgrid.report.study import print_lines, write_study
from sesgrid.report.study_charts import (
    matrix_chart,
    model_chart,
    resolution_chart,
    squeeze,
    stability_chart,
)
from sesgrid.run.studies import score_row
from sesgrid.stages.stability import Finding, stability_of_pairs, stability_table
from tests.fake_city import GROUPS
from tests.test_report import Page

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("x")</script>&amp;\'"'
NAMES = ("compare", "resolution", "stability", "transfer")
CITIES = ("Paris", "Lyon", "Marseille", "Nice", "Lille", "Bordeaux", "Toulouse", "Nantes", "Metz")
CITIES += ("Saint-Étienne-du-Rouvray 2015", "Saint-Étienne-du-Rouvray 2019", EVIL)


def scores(r, n=1234):
    """As of `sesgrid.run.studies.score_row`, around a correlation."""
    values = dict(
        zip(
            SCORES,
            (r, r - 0.01, r - 0.02, 0.2 + r / 2, 0.6 + r / 4, 1.4 - r, r * r, 0.03, 0.21),
            strict=True,
        )
    )
    bounds = {k: {"cells": None, "blocks": [v - 0.061, v + 0.052]} for k, v in values.items()}
    return score_row({"n": n, **values, "intervals": bounds})


def trained(name, k, r, pixels=800, weights="random"):
    cost = {"parameters": 4_050_852 + k, "flops": 10_240_000_000 // (800 // pixels) ** 2}
    return {
        "model": name, "pixels": pixels, "metres_per_pixel": 200 / pixels, **scores(r), **cost,
        "cells_per_s": 12.34 + k, "training_s": 3600.0, "initial_weights": weights,
    }  # fmt: skip


def results(variants, folds=5, city="Nice", weights="random", backbone="efficientnetb0"):
    return pd.DataFrame(
        {
            "variant": name, "city": city, "vintage": 2015, "backbone": backbone, "head": "binomial",
            "protocol": "scratch", "seed": k, "pixels": 800, "metres_per_pixel": 0.25,
            "folds_kind": "random", "configuration": f"{k:02d}abcdef0123456789", "fold": fold,
            "software": "sesgrid 0.1.0", "n": 246, **{s: 0.5 for s in SCORES}, "parameters": 4_050_852,
            "flops": 10_240_000_000, "cells_per_s": 12.3, "epochs": 8, "best_epoch": 6,
            "initial_weights": weights, "model_sha256": f"{k}{fold}" * 32, "seconds": 720.0,
        }
        for (k, name), fold in product(enumerate(variants), range(folds))
    )  # fmt: skip


def compared(names=("efficientnetb0 binomial", "vgg16 binomial", "resnet50 softmax"), **more):
    lost = {k: math.nan for k in scores(0)}
    rows = [
        {"model": "baseline: commonest class", **scores(0.0), "pearson_r_low": None, "pearson_r_high": None},
        {"model": "baseline: boosting", **scores(0.41)},
        *(trained(name, k, 0.62 - 0.17 * k) for k, name in enumerate(names)),
    ]  # fmt: skip
    rows[-1] |= lost if len(names) > 3 else {}
    return {"compare": pd.DataFrame(rows), "results": results(names, **more)}


def resolved(sizes=(800, 400, 200, 100)):
    rows = [trained(f"{p} px", 0, 0.65 - 0.3 * (k / 8) ** 2, p) for k, p in enumerate(sizes)]
    return {"resolution": pd.DataFrame(rows), "results": results([r["model"] for r in rows])}


def found(classes=tuple(GROUPS), seeds=(0, 1), folds=5, spread=0.15):
    rng = np.random.default_rng(7)
    mean = {side: np.exp(rng.normal(0, 0.35, len(classes))) for side in ("low", "high")}
    for seed, fold in product(seeds, range(folds)):
        parts = [
            pd.DataFrame({"prediction": side, "landcover_class": classes,
                          "activation_ratio": m * np.exp(rng.normal(0, spread, len(classes))),
                          "n_cells": rng.integers(3, 90, len(classes))})
            for side, m in mean.items()
        ]  # fmt: skip
        yield Finding("efficientnetb0", seed, fold, pd.concat(parts, ignore_index=True))


def stable(**more):
    findings = list(found(**more))
    every = [f.ratios.assign(backbone=f.backbone, seed=f.seed, fold=f.fold) for f in findings]
    variants = sorted({f"efficientnetb0 binomial seed {f.seed}" for f in findings})
    return {
        "stability": stability_table(findings),
        "agreement": stability_of_pairs(findings),
        "findings": pd.concat(every, ignore_index=True),
        "results": results(variants, len({f.fold for f in findings})),
    }


def transferred(cities=CITIES[:5]):
    rng = np.random.default_rng(3)
    rows = [
        {"train_on": a, "test_on": b, **scores(0.66 if a == b else rng.uniform(-0.05, 0.6))}
        for a, b in product(cities, cities)
    ]
    table = pd.DataFrame(rows)
    names = list(cities)
    matrices = {
        s: table.pivot(index="train_on", columns="test_on", values=s).loc[names, names] for s in SCORES[:4]
    }  # fmt: skip
    return {"transfer": table, **matrices}


MADE = {"compare": compared, "resolution": resolved, "stability": stable, "transfer": transferred}
