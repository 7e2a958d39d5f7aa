"""Comparisons of trainings on a run in miniature: what the tables hold, and what is not done again."""

from __future__ import annotations

import json

import keras
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

import sesgrid
from sesgrid import __version__
from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.kernels.scores import SCORES
from sesgrid.run.trainings import run_trainings
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import Cube
from sesgrid.store.models import ModelRef
from sesgrid.studies import trials
from sesgrid.studies.comparisons import compare, planned, resolution, stability
from sesgrid.studies.trials import run_variants, variant_of
from tests.small_run import CLASSES, FOLDS, PX, configure, small_backbones, write_run

pytestmark = pytest.mark.slow


def quiet(_: str) -> None:
    """Hear nothing."""


@pytest.fixture(scope="module")
def client(scheduler):
    with small_backbones(), Client(scheduler) as one:
        yield one


@pytest.fixture(scope="module")
def ville(client, tmp_path_factory):
    """A run, its cells, and the comparison of two heads on it."""
    config = configure(tmp_path_factory.mktemp("ville"), "Ville")
    cells = write_run(config, dark=2)
    heads = ["binomial", "softmax"]
    return (
        config,
        cells,
        compare(config, client, quiet, backbones=["pinhole"], heads=heads, seeds=[0]),
    )


@pytest.fixture
def submitted(monkeypatch) -> list[tuple[str, int]]:
    """(variant, fold) of every trial that was submitted."""
    out: list[tuple[str, int]] = []

    def noting(client, label, work, *args):
        out.extend((t.variant, t.fold.fold) for t in work)
        return run_trainings(client, label, work, *args)

    monkeypatch.setattr(trials, "run_trainings", noting)
    return out


def models(config) -> dict[str, int]:
    found = Workspace.of(config).studies.glob("models/*/*.keras")
    return {str(p): p.stat().st_mtime_ns for p in found}


def fold_means(cells: pd.DataFrame) -> dict[str, float]:
    """Scores by scikit-learn and scipy, each the mean over folds."""
    found = []
    scored = cells[cells["ses_predicted"].notna()]
    for _, part in scored.groupby("fold"):
        true, said = (part[c].to_numpy(int) for c in ("ses_true", "ses_predicted"))
        constant = len(set(true)) == 1 or len(set(said)) == 1
        found.append(
            {
                "pearson_r": 0.0 if constant else pearsonr(true, said).statistic,
                "spearman_r": 0.0 if constant else spearmanr(true, said).statistic,
                "quadratic_weighted_kappa": cohen_kappa_score(true, said, weights="quadratic"),
                "accuracy": accuracy_score(true, said),
                "accuracy_within_one": float((np.abs(true - said) <= 1).mean()),
                "mae": mean_absolute_error(true, said),
            }
        )
    return pd.DataFrame(found).mean().to_dict()


def test_the_comparison_scores_what_was_predicted(ville, client, submitted):
    config, cells, study = ville
    table = study.tables["compare"].set_index("model")
    assert table.index.tolist() == [
        "baseline: majority", "baseline: gradient boosting", "pinhole binomial", "pinhole softmax",
    ]  # fmt: skip
    for score in SCORES:
        assert {score, f"{score}_low", f"{score}_high"} <= set(table)
    usable = cells["labelled"] & ~cells.index.isin(cells.index[-2:])
    assert (table["n"] == usable.sum()).all()
    variants = [variant_of(config, h, head=h) for h in ("binomial", "softmax")]
    outcomes = run_variants(config, client, variants, quiet)
    assert submitted == []
    for outcome in outcomes:
        row = table.loc[f"pinhole {outcome.variant.name}"]
        for score, value in fold_means(outcome.cells).items():
            assert row[score] == pytest.approx(value), score
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        told = outcome.cells["ses_predicted"].notna()
        assert told.sort_index().tolist() == usable[cells["labelled"]].sort_index().tolist()
    # the commonest class of the other folds, by hand
    hits = []
    for fold in range(FOLDS):
        elsewhere = cells.loc[usable & (cells["fold"] != fold), "ses_true"]
        own = cells.loc[usable & (cells["fold"] == fold), "ses_true"]
        hits.append((own == elsewhere.value_counts().sort_index().idxmax()).mean())
    assert table.loc["baseline: majority", "accuracy"] == pytest.approx(np.mean(hits))
    assert table["parameters"].iloc[:2].isna().all()


def test_what_a_model_costs(ville):
    config, _, study = ville
    table = study.tables["compare"].set_index("model")
    row = table.loc["pinhole binomial"]
    # five convolutions of 3 × 3 to six channels on halved grids, and the one logit
    sides, bands = [32, 16, 8, 4, 2], [3, 6, 6, 6, 6]
    by_hand = sum(2 * s * s * 9 * b * 6 for s, b in zip(sides, bands, strict=True)) + 2 * 6
    assert row["flops"] == by_hand
    assert row["parameters"] == sum(9 * b * 6 + 6 for b in bands) + 6 + 1
    assert table.loc["pinhole softmax", "parameters"] == row["parameters"] + 2 * 7
    assert row["metres_per_pixel"] == 200 / PX
    assert (table["cells_per_s"].iloc[2:] > 1).all()
    assert (table["training_s"].iloc[2:] > 0).all()
    assert row["initial_weights"] == "random"
    cards = [
        json.loads(p.read_text()) for p in Workspace.of(config).studies.glob("models/*/*.json")
    ]
    for name in ("binomial", "softmax"):
        spent = [c["training_s"] for c in cards if c["head"] == name]
        assert table.loc[f"pinhole {name}", "training_s"] == pytest.approx(sum(spent))


def test_results_name_configuration_software_and_seed(ville):
    config, _, study = ville
    folder = Workspace.of(config).studies / "compare"
    results = pd.read_parquet(folder / "results.parquet")
    assert results[["variant", "fold"]].values.tolist() == [
        [f"pinhole {h}", f] for h in ("binomial", "softmax") for f in range(FOLDS)
    ]
    assert (results["software"] == f"sesgrid {__version__}").all()
    assert (results["seed"] == config.train.seed).all()
    assert (results["city"] == "Ville").all()
    assert results["configuration"].nunique() == 2
    for _, row in results.iterrows():
        path = Workspace.of(config).studies / "models" / row["configuration"]
        ref = ModelRef.open(path / f"random-{row['fold']}.keras")
        assert ref.sha256 == row["model_sha256"]
        assert json.loads((path / f"random-{row['fold']}.json").read_text())["head"] == row["head"]
    means = results.groupby("variant")["accuracy"].mean()
    table = study.tables["compare"].set_index("model")
    assert means.to_dict() == pytest.approx(table["accuracy"].iloc[2:].to_dict())
    written = pd.read_csv(folder / "compare.csv")
    assert written["model"].tolist() == table.index.tolist()
    np.testing.assert_allclose(written["mae"], table["mae"])


@pytest.mark.long
def test_only_what_changed_is_trained(ville, client, submitted):
    config, _, study = ville
    before = models(config)
    asked = {"backbones": ["pinhole"], "heads": ["binomial", "softmax"], "seeds": [0]}
    again = compare(config, client, quiet, **asked)
    assert submitted == []
    pd.testing.assert_frame_equal(again.tables["compare"], study.tables["compare"])
    variant = variant_of(config, "one")
    # other draws of the intervals train nothing, another head only itself
    drawn = config.model_copy(update={"analyse": config.analyse.model_copy(update={"seed": 1})})
    (redrawn,) = run_variants(drawn, client, [variant], quiet)
    row = study.tables["compare"].set_index("model").loc["pinhole binomial"]
    assert redrawn.scores["accuracy"] == row["accuracy"]
    assert submitted == []
    run_variants(config, client, [variant, variant_of(config, "other", head="ordinal")], quiet)
    assert submitted == [("other", 0), ("other", 1)]
    submitted.clear()
    # a change of the protocol is of all variants, and the old ones stand when it is taken back
    shorter = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})})
    run_variants(shorter, client, [variant_of(shorter, "one")], quiet)
    assert [f for _, f in submitted] == [0, 1]
    submitted.clear()
    run_variants(config, client, [variant], quiet)
    assert submitted == []
    assert before.items() <= models(config).items()
    # a study of other cells or another mosaic is another study
    record = Workspace.of(config).record("cells")
    kept = record.path.read_text()
    record.write({"made for": "tests"}, {}, "cells-2")
    run_variants(config, client, [variant], quiet)
    assert [f for _, f in submitted] == [0, 1]
    record.path.write_text(kept)


def test_a_lost_record_is_made_from_the_model_that_is_there(ville, client, submitted):
    config, _, _ = ville
    before = models(config)
    (outcome,) = run_variants(config, client, [variant_of(config, "one")], quiet)
    part = Workspace.of(config).studies / "models" / outcome.key / "predicted" / "1.parquet"
    part.unlink()
    (again,) = run_variants(config, client, [variant_of(config, "one")], quiet)
    assert submitted == [("one", 1)]
    assert models(config) == before
    pd.testing.assert_frame_equal(again.cells, outcome.cells)
    assert again.facts[1]["training_s"] == outcome.facts[1]["training_s"]


def test_resolutions_are_those_asked_for(ville, client, submitted):
    config, _, _ = ville
    study = resolution(config, client, quiet, pixels=[32, 64, 32])
    table = study.tables["resolution"]
    assert table["pixels"].tolist() == [64, 32]
    assert table["metres_per_pixel"].tolist() == [3.125, 6.25]
    # that of the cube's own size was trained by the comparison
    assert submitted == [("32 px", 0), ("32 px", 1)]
    results = study.tables["results"].set_index(["pixels", "fold"])
    (coarse,) = run_variants(config, client, [variant_of(config, "32 px", pixels=32)], quiet)
    pixels = Cube.open(Workspace.of(config).cube).pixels()
    extent = sesgrid.grid.Extent.from_attributes(pixels.attrs)
    image = pixels["image"].values
    for fold in range(FOLDS):
        folder = Workspace.of(config).studies / "models" / results.loc[(32, fold), "configuration"]
        card = json.loads((folder / f"random-{fold}.json").read_text())
        assert card["pixels_per_cell"] == 32
        # means of 2 × 2 pixels, halves up, through the model itself
        model = ModelRef.open(folder / f"random-{fold}.keras").load()
        own = coarse.cells[(coarse.cells["fold"] == fold) & coarse.cells["p"].notna()]
        batch = []
        for row, col in zip(own["row"], own["col"], strict=True):
            cell = image[(slice(None), *extent.cell_slices(row, col))].astype(int)
            small = (cell.reshape(3, 32, 2, 32, 2).sum((2, 4)) + 2) // 4
            batch.append(np.moveaxis(small, 0, -1))
        shares = np.exp(keras.ops.convert_to_numpy(model(np.array(batch, np.float32))))
        np.testing.assert_allclose(shares @ [0, 0.5, 1], own["p"], atol=1e-5)
        assert (shares.argmax(1) + 1 == own["ses_predicted"].to_numpy(int)).all()


@pytest.mark.long
def test_stability_explains_what_each_model_had_not_seen(ville, client, submitted):
    config, cells, _ = ville
    before = models(config)
    study = stability(config, client, quiet, backbones=["pinhole", "keyhole"], seeds=[0])
    assert [n for n, _ in submitted] == ["pinhole binomial seed 0"] * 2 + [
        "keyhole binomial seed 0"
    ] * 2
    # the comparison's models are explained, not trained again
    assert before.items() <= models(config).items()
    assert len(models(config)) == len(before) + FOLDS
    findings = study.tables["findings"]
    assert set(findings["fold"]) == set(range(FOLDS))
    assert set(findings["backbone"]) == {"pinhole", "keyhole"}
    variant = variant_of(config, "one")
    (outcome,) = run_variants(config, client, [variant], quiet)
    folder = Workspace.of(config).studies / "models" / outcome.key
    refs = [ModelRef.open(folder / f"random-{k}.keras") for k in range(FOLDS)]
    pixels = Cube.open(Workspace.of(config).cube).pixels()
    pixels.attrs |= Cube.open(Workspace.of(config).cube).extent.attributes()
    for fold in range(FOLDS):
        own = outcome.cells[(outcome.cells["fold"] == fold) & outcome.cells["p"].notna()].copy()
        own.attrs = dict(cells.attrs)
        own["model_id"] = refs[fold].model_id
        sums = sesgrid.explain(
            own, pixels, {refs[fold].model_id: refs[fold]}, sesgrid.class_names()
        )
        ours = findings[(findings["fold"] == fold) & (findings["backbone"] == "pinhole")]
        for _, row in ours.iterrows():
            # mean over cells of (share of the map) / (share of the area)
            side, name = row["prediction"], row["landcover_class"]
            chosen = own.index[own["ses_predicted"] == (1 if side == "low" else CLASSES)]
            ratios = []
            for cell in chosen:
                known = sums.sel(cell=cell).isel(landcover_class=slice(1, None))
                area = known["area"].values
                of_map = known["activation"].sel(map=side).values
                k = list(known["landcover_class"].values).index(name)
                if area[k] and of_map.sum() > 0:
                    ratios.append((of_map[k] / of_map.sum()) / (area[k] / area.sum()))
            assert row["n_cells"] == len(ratios)
            if ratios:
                assert row["activation_ratio"] == pytest.approx(np.mean(ratios), rel=1e-3)
    assert findings["n_cells"].max() > 5
    table = study.tables["stability"]
    assert len(table)
    assert 2 <= table["models"].max() <= 2 * FOLDS
    assert set(study.tables["agreement"]["differ_in"]) == {"backbone", "fold"}
    submitted.clear()
    stability(config, client, quiet, backbones=["pinhole", "keyhole"], seeds=[0])
    assert submitted == []


def test_tables_of_cells_that_are_made_again_are_withdrawn(tmp_path):
    files = Workspace(tmp_path)
    files.mark.take("Nice")
    for name in ("compare", "resolution", "stability", "models"):
        files.mark.enter(files.studies / name / "a")
        (files.studies / name).mkdir(parents=True)
        (files.studies / name / "a").touch()
    for stage in ("train", "predict", "explain", "analyse", "report"):
        files.withdraw(stage)
    assert len(list(files.studies.iterdir())) == 4
    (files.studies / "compare" / "thesis.tex").touch()
    files.withdraw("cells")
    assert sorted(p.name for p in files.studies.iterdir()) == ["compare", "models"]
    assert [p.name for p in (files.studies / "compare").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("study", "asked", "message"),
    [
        ("resolution", {"pixels": [64, 48]}, "divisors of the cube's 64 pixels.*received 48"),
        ("resolution", {"pixels": [128]}, "received 128"),
        ("resolution", {"pixels": [16]}, "at least 32, received 16"),
        ("compare", {"backbones": ["vgg61"], "seeds": [0]}, "backbone must be one of.*'vgg61'"),
        ("compare", {"heads": ["tanh"], "seeds": [0]}, "head must be one of.*'tanh'"),
    ],
)
def test_what_cannot_be_compared_is_said_first(tmp_path, study, asked, message):
    with small_backbones(), pytest.raises(ConfigError, match=message):
        planned(configure(tmp_path, "Ville"), study, **asked)


def test_what_is_planned(tmp_path):
    with small_backbones():
        config = configure(tmp_path, "Ville")
        asked = {"backbones": ["Pin-Hole", "pinhole", "keyhole"], "seeds": [0, 1, 0]}
        found = planned(config, "compare", heads=["softmax", "binomial"], **asked)
        assert [(v.protocol.backbone, v.protocol.head, v.seed) for v in found] == [
            (b, h, s)
            for b in ("pinhole", "keyhole")
            for h in ("softmax", "binomial")
            for s in (0, 1)
        ]
        assert len({v.name for v in found}) == 8
        found = planned(config, "stability", **asked)
        assert [(v.protocol.head, v.seed) for v in found] == [("binomial", 0), ("binomial", 1)] * 2
        bare = configure(tmp_path / "bare", "Ville", landcover=False)
        with pytest.raises(MissingInputError, match=r"sources\.landcover is missing"):
            planned(bare, "stability", **asked)
        (tmp_path / "w.h5").touch()
        own = configure(tmp_path, "Ville", ("epochs", 'weights = "w.h5"\nepochs'))
        with pytest.raises(ConfigError, match=r"w\.h5 holds the weights of one backbone, and 2"):
            planned(own, "compare", **asked)
        assert len(planned(own, "compare", backbones=["pinhole"], seeds=[0, 1])) == 2
