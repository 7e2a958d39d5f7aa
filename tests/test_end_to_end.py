"""A whole run on a tiny synthetic city, through the command line; then again, changed, and broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from click.testing import CliRunner
from distributed import Client
from scipy.ndimage import binary_dilation

import sesgrid
from sesgrid.batches import blocks, running
from sesgrid.batches.leases import Leases
from sesgrid.commands.cli import main
from sesgrid.errors import ClusterError, FormatError
from sesgrid.grid import rowcol_of_ids
from sesgrid.run import redo as making_again
from sesgrid.run import verify as verifying
from sesgrid.run.config import load_config
from sesgrid.run.engine import _require_idle
from sesgrid.run.found import config_of_cube, files_of_cube
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store import cube as cube_store
from sesgrid.store.cube import Cube
from tests.conftest import fill
from tests.small_run import small_backbones

pytestmark = pytest.mark.slow

SETTINGS = """
[grid]
pixels_per_cell = 32
cells_per_block = 4
[cells]
classes = 3
folds = 2
[train]
protocol = "scratch"
epochs = 2
backbone = "pinhole"
[analyse]
bootstrap = 200
[cluster]
workers = 1
threads = 2
"""


@dataclass
class Ville:
    folder: Path
    city: object
    scheduler: str

    @property
    def toml(self) -> Path:
        return self.folder / "city.toml"

    @property
    def result(self) -> Path:
        return self.folder / "result"

    def configure(self, *changes: tuple[str, str], landcover: bool = True) -> None:
        text = "\n".join(
            [
                'name = "Tiny"',
                'output = "result"',
                "[sources]",
                f'census = "{self.city.census}"',
                f'ortho = "{self.city.ortho}"',
                f'landcover = "{self.city.landcover}"' if landcover else "",
                SETTINGS,
            ]
        )
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.toml.write_text(text)

    def sesgrid(self, command: str = "run", *options: str, status: int = 0) -> str:
        options = options or ("--scheduler", self.scheduler)
        result = CliRunner().invoke(main, [command, str(self.toml), *options])
        shown = result.output + (str(result.exception) if result.exception else "")
        assert result.exit_code == status, shown
        return result.output


@pytest.fixture(scope="module")
def ville(tmp_path_factory, scheduler) -> Iterator[Ville]:
    folder = tmp_path_factory.mktemp("ville")
    city = sesgrid.write_city(folder / "data", cells=8, seed=3, imputed_share=0.2)
    v = Ville(folder, city, scheduler)
    v.configure()
    with small_backbones():
        v.sesgrid()
        yield v


@pytest.mark.long
def test_the_studys_network_gives_such_results_too(ville, tmp_path):
    own = Ville(tmp_path, ville.city, ville.scheduler)
    own.configure(('\nbackbone = "pinhole"', ""))
    own.sesgrid()
    look_at_results(own, protocol="scratch, changed: epochs=2")
    test_every_cell_is_predicted_by_a_model_that_did_not_see_it(own)


def result_cells(ville: Ville) -> gpd.GeoDataFrame:
    return gpd.read_parquet(ville.result / "cells.parquet").set_index("cell_id")


def test_the_results_are_what_their_names_promise(ville):
    look_at_results(ville, protocol="scratch, changed: backbone=pinhole, epochs=2")


def look_at_results(ville: Ville, protocol: str) -> None:
    metrics = json.loads((ville.result / "metrics.json").read_text())
    for name in (
        "pearson_r",
        "pearson_r_colour_baseline",
        "accuracy",
        "accuracy_within_one",
        "mae",
    ):
        assert isinstance(metrics[name], float), name
    assert len(metrics["folds"]) == 2
    files = Workspace(ville.result)
    explained = pd.read_parquet(files.table("explain"), columns=["cell_id", "model_id"])
    predicted = load_table(files.table("predict"), ["model_id"]).dropna()
    # tasks go by model, the tables by place
    assert explained["cell_id"].tolist() == predicted.index.tolist()
    assert explained["model_id"].tolist() == predicted["model_id"].tolist()
    assert not explained["model_id"].is_monotonic_increasing
    assert metrics["run"]["protocol"] == protocol
    # both kinds of folds, the gap between them, and what any result must beat
    both = metrics["by_folds"]
    gap = both["random"]["mae"] - both["spatial"]["mae"]
    assert both["leakage_gap"]["mae"]["value"] == pytest.approx(gap)
    assert set(metrics["baselines"]) == {"majority", "gradient_boosting"}
    for kind, scores in (("random", metrics), ("spatial", both["spatial"])):
        for fold in scores["folds"]:
            card = ville.result / "models" / f"{kind}-{fold['fold']}.json"
            told = json.loads(card.read_text())
            assert told["metrics"]["accuracy"] == fold["accuracy"]
            assert "allocation of resources" in told["limits"][0]
            assert told.get("buffer_cells") == (1 if kind == "spatial" else None)
            log = pd.read_csv(ville.result / "models" / "logs" / f"{kind}-{fold['fold']}.csv")
            assert len(log) == len(told["history"]["loss"]) == 2
    activation = pd.read_csv(ville.result / "activation.csv")
    assert {
        "prediction", "landcover_class", "n_cells", "activation_ratio", "ci_low", "ci_high",
        "probability", "probability_ci_low", "probability_ci_high",
    } <= set(activation)  # fmt: skip
    cells = result_cells(ville)
    assert cells.crs.to_epsg() == 3035
    wanted = ["income", "ses_true", "ses_predicted", "p", "fold", "model_id", "imputed", "coverage"]
    assert set(wanted) <= set(cells)
    assert cells["ses_predicted"].between(1, 3).all()
    assert cells["coverage"].between(0.999, 1).all()
    page = (ville.result / "report.html").read_text()
    assert "Tiny" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_every_cell_is_predicted_by_a_model_that_did_not_see_it(ville):
    cells = result_cells(ville)
    assert (cells["model_id"] == [f"Tiny-random{f}" for f in cells["fold"]]).all()
    for card in sorted((ville.result / "models").glob("random-*.json")):
        assert json.loads(card.read_text())["n_classes"] == 3
    from sesgrid.run.config import load_config
    from sesgrid.run.job import protocol_of
    from sesgrid.run.workspace import load_cells
    from sesgrid.stages.train import plan_folds

    table = load_cells(Workspace(ville.result))
    for fold in plan_folds(table, "models", protocol_of(load_config(ville.toml))):
        seen = {tuple(rc) for rc in fold.cells.tolist()}
        tested = cells[cells["model_id"] == fold.model_id]
        assert not seen & {tuple(rc) for rc in rowcol_of_ids(tested.index).tolist()}
        assert not table.loc[table["imputed"].fillna(False).astype(bool), "labelled"].any()


def test_the_cube_and_the_python_api_hold_the_same_bytes(ville):
    tree = sesgrid.open_cube(ville.result / "cube.zarr")
    pixels = tree["pixels"].to_dataset()
    census = sesgrid.read_filosofi(ville.city.census)
    cells = sesgrid.cells(census, city="Tiny", classes=3, folds=2, cells_per_block=4)
    tiles = sesgrid.read_ortho(ville.city.ortho)
    drawn = sesgrid.mosaic(
        cells, tiles, sesgrid.RasterReader(), pixels_per_cell=32, cells_per_block=4
    )
    land = sesgrid.read_urban_atlas(ville.city.landcover)
    drawn["landcover"] = sesgrid.landcover(drawn, cells, land)
    loaded = drawn.compute(scheduler="threads")
    for name in ("image", "coverage", "landcover"):
        np.testing.assert_array_equal(pixels[name].values, loaded[name].values)
    assert loaded["landcover"].values.any()
    models = {
        ref.model_id: ref
        for ref in map(sesgrid.ModelRef.open, sorted((ville.result / "models").glob("*.keras")))
    }
    predicted = sesgrid.predict(cells, loaded, models)
    stored = result_cells(ville).reindex(predicted.index)
    np.testing.assert_allclose(predicted["p"], stored["p"], rtol=1e-5)
    sums = sesgrid.explain(predicted, loaded, models, sesgrid.class_names())
    rows = pd.read_parquet(ville.result / "work" / "explain.parquet").set_index("cell_id")
    rows = rows.reindex(sums["cell"].values)
    for name in ("low", "high"):
        ours = sums["activation"].sel(map=name).values
        np.testing.assert_allclose(ours, rows[[f"{name}_{c}" for c in range(20)]], rtol=1e-3)
    assert (sums["area"].sum("landcover_class") == 32 * 32).all()
    assert (ours.sum() > 0) or (sums["activation"].sel(map="low").values.sum() > 0)
    sealed = tree["cells"]["ses_predicted"].values
    assert np.isfinite(sealed).sum() == len(stored)


def test_a_finished_run_is_not_done_again_and_a_change_redoes_what_depends_on_it(ville):
    before = {p: p.stat().st_mtime_ns for p in ville.result.rglob("*") if p.is_file()}
    said = ville.sesgrid()
    assert said.count("up to date") == 8
    assert before == {p: p.stat().st_mtime_ns for p in ville.result.rglob("*") if p.is_file()}
    ville.configure(("bootstrap = 200", "bootstrap = 300"))
    said = ville.sesgrid()
    assert said.count("up to date") == 6
    assert "analyse: analyse.bootstrap changed from 200 to 300" in said
    assert "report: stage analyse changed" in said
    (ville.result / "report.html").unlink()
    said = ville.sesgrid()
    assert "report: output report.html is missing" in said
    assert said.count("up to date") == 7
    ville.configure()
    ville.sesgrid()


@pytest.mark.long
def test_the_audit_finds_the_run_of_a_cube(ville, tmp_path):
    page = ville.result / "report.html"
    assert "Not tested yet" in page.read_text()
    moved = tmp_path / "moved"
    shutil.copytree(ville.result, moved)

    def audit(cube: Path, status: int = 0) -> str:
        options = ["--cells", "6", "--config", str(ville.toml), "--scheduler", ville.scheduler]
        result = CliRunner().invoke(main, ["audit", str(cube), *options])
        assert result.exit_code == status, result.output
        return result.output

    said = audit(moved / "cube.zarr")
    assert "pointing game (chance" in said
    assert "Not tested yet" in page.read_text()
    assert not (ville.result / "audit.json").exists()
    result = json.loads((moved / "audit.json").read_text())
    # the truth lies beside the land cover: the study's names of the three classes that bear income
    assert len(result["planted_truth"]["classes"]) == 3
    assert result["low"] + result["high"] == result["cells"]
    assert 3 <= result["cells"] <= 6
    assert result["folds"]["models"] == 2
    assert result["randomisation"]["steps"][-1]["layer"] == "conv_0"
    assert "Taking away what was learnt" in (moved / "report.html").read_text()
    audit(ville.result / "cube.zarr")
    first = (ville.result / "audit.json").read_text()
    assert json.loads(first)["settings"] == result["settings"]
    # the run knows of it, and a change of what it rests on takes it away
    assert ville.sesgrid().count("up to date") == 8
    assert "Not tested yet" not in page.read_text()
    ville.configure(("bootstrap = 200", "bootstrap = 300"))
    ville.sesgrid()
    assert not (ville.result / "audit.json").exists()
    assert "Not tested yet" in page.read_text()
    ville.configure()
    ville.sesgrid()
    # beside other tables its own are still found where the run had them; the path given is the one read
    alone = tmp_path / "alone"
    shutil.copytree(ville.result / "cube.zarr", alone / "cube.zarr")
    from sesgrid.run.audit import finished_run

    config = finished_run(str(alone / "cube.zarr"), load_config(ville.toml))
    assert config.output == ville.result
    assert config.cube.path == str(alone / "cube.zarr")
    # a run that went on, a cube without its run, and one that no run has finished
    shutil.copy(moved / "work" / "stages" / "train.json", tmp_path / "kept.json")
    (moved / "work" / "stages" / "train.json").unlink()
    assert "has gone on since the cube was sealed (train: not done)" in audit(
        moved / "cube.zarr", status=2
    )
    shutil.copy(tmp_path / "kept.json", moved / "work" / "stages" / "train.json")
    (moved / "activation.csv").unlink()
    assert "activation.csv is missing" in audit(moved / "cube.zarr", status=2)
    root = alone / "cube.zarr" / "zarr.json"
    described = json.loads(root.read_text())
    described["attributes"]["sealed"] = "of another run"
    root.write_text(json.dumps(described))
    assert "has gone on since the cube was sealed" in audit(alone / "cube.zarr", status=2)
    # what the cube does not tell is asked for, and another run's configuration is refused
    bare = CliRunner().invoke(main, ["audit", str(moved / "cube.zarr")])
    assert bare.exit_code == 2
    assert f"sesgrid audit {moved / 'cube.zarr'} --config city.toml" in bare.output
    ville.configure(('name = "Tiny"', 'name = "Other"'))
    assert "--config is of the run 'Other'" in audit(moved / "cube.zarr", status=2)
    ville.configure()
    root = moved / "cube.zarr" / "zarr.json"
    described = json.loads(root.read_text())
    del described["attributes"]["sealed"]
    root.write_text(json.dumps(described))
    assert "is not of a finished run" in audit(moved / "cube.zarr", status=2)
    assert "no cube at" in audit(tmp_path / "nothing", status=2)


def shards(ville: Ville) -> dict[Path, int]:
    files = (ville.result / "cube.zarr" / "pixels" / "image").rglob("*")
    return {p: p.stat().st_mtime_ns for p in files if p.is_file() and p.name != "zarr.json"}


def test_an_interrupted_stage_goes_on_where_it_stopped(ville):
    record = ville.result / "work" / "stages" / "mosaic.json"
    kept = record.read_text()
    cube = shards(ville)
    assert len(cube) >= 4
    record.unlink()
    said = ville.sesgrid("mosaic")
    assert "mosaic: not done yet" in said
    assert f"batches kept: {json.loads(kept)['summary']['batches']}" in said
    assert cube == shards(ville)
    # the results were withdrawn before the cube was touched
    assert not (ville.result / "report.html").exists()
    assert not (ville.result / "activation.csv").exists()
    # the same cube: the models and all that was made from it still hold
    said = ville.sesgrid()
    assert said.count("up to date") == 6
    assert "analyse: output cells.parquet is missing" in said


def test_pixels_are_not_drawn_again_for_other_labels_or_folds(ville, tmp_path):
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    copy.configure()
    copy.sesgrid("landcover")
    drawn = shards(copy)
    copy.configure(("folds = 2", 'folds = 3\nfolds_kind = "spatial"\nfold_block_cells = 2'))
    said = copy.sesgrid("landcover")
    assert "cells: cells.fold_block_cells changed from 8 to 2; cells.folds changed" in said
    assert "mosaic: up to date" in said
    assert "landcover: up to date" in said
    assert shards(copy) == drawn
    from sesgrid.run.workspace import load_cells

    cells = load_cells(Workspace(copy.result))
    assert cells.attrs["folds_kind"] == "spatial"
    assert sorted(set(cells["fold"])) == [0, 1, 2]
    assert (cells["coverage"] > 0.999).all()


def test_a_lost_cube_redoes_all_that_lay_in_it(ville, tmp_path):
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    copy.configure()
    copy.sesgrid("landcover")
    first = sesgrid.open_cube(copy.result / "cube.zarr")["pixels"]["landcover"].values
    shutil.rmtree(copy.result / "cube.zarr")
    said = copy.sesgrid("landcover")
    assert "mosaic: output cube.zarr is missing" in said
    assert "landcover: stage mosaic changed" in said
    again = sesgrid.open_cube(copy.result / "cube.zarr")["pixels"]["landcover"].values
    assert first.any()
    np.testing.assert_array_equal(again, first)
    # another grid and back: neither finds the other's pixels
    copy.configure(("pixels_per_cell = 32", "pixels_per_cell = 40"))
    copy.sesgrid("mosaic")
    copy.configure()
    copy.sesgrid("landcover")
    again = sesgrid.open_cube(copy.result / "cube.zarr")["pixels"]["landcover"].values
    np.testing.assert_array_equal(again, first)


def test_polygons_keep_statistics_of_their_own(ville, tmp_path):
    shutil.copytree(ville.result, tmp_path / "result")
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    copy.configure(("[analyse]", '[explain]\npreset = "reference"\nfragments = true\n[analyse]'))
    said = copy.sesgrid("explain")
    assert said.count("up to date") == 5
    assert "explain.fragments changed from False to True" in said
    assert "preset: reference" in said
    fragments = pd.read_parquet(copy.result / "fragments.parquet")
    sums = pd.read_parquet(copy.result / "work" / "explain.parquet").set_index("cell_id")
    assert "fragments" not in sums
    assert {"cell_id", "model_id", "code", "landcover_class", "polygon", "low_median",
            "high_score", "total_variation", "symmetric_kl"} <= set(fragments)  # fmt: skip
    # the fragments of a class are the class; what has no class has fragments too (airports)
    classed = fragments[fragments["value"] > 0]
    for name in ("low", "high"):
        by_class = classed.pivot_table(
            index="cell_id", columns="value", values=f"{name}_sum", aggfunc="sum", fill_value=0
        )
        for value in by_class:
            np.testing.assert_allclose(
                by_class[value], sums.loc[by_class.index, f"{name}_{value}"], rtol=1e-5, atol=1e-9
            )
    counts = classed.groupby("cell_id")["count"].sum()
    areas = sums.loc[counts.index, [f"area_{k}" for k in range(1, 20)]].sum(axis=1)
    np.testing.assert_array_equal(counts, areas)
    assert (fragments["area_m2"] == fragments["count"] * (200 / 32) ** 2).all()
    # a region's classes are the network's answer to what it was trained on, not to swapped colours
    from pipelines import explain_region

    model = ["--model", str(copy.result / "models" / "random-1.keras")]
    done = CliRunner().invoke(
        explain_region.main, [str(copy.toml), *model, "--scheduler", copy.scheduler]
    )
    assert done.exit_code == 0, done.output
    region = gpd.read_parquet(copy.result / "region.parquet").set_index("cell_id")
    own = result_cells(ville)
    same = (own["model_id"] == "Tiny-random1").reindex(region.index)
    np.testing.assert_allclose(region["p"][same], own["p"].reindex(region.index)[same], rtol=1e-5)
    assert region["low_1"].notna().all()
    # made again without them, the old ones do not stay
    copy.configure()
    copy.sesgrid("explain")
    assert not (copy.result / "fragments.parquet").exists()


def test_maps_are_kept_in_the_cube(ville, tmp_path):
    shutil.copytree(ville.result, tmp_path / "result")
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    cube = copy.result / "cube.zarr"
    ids = result_cells(ville).index
    copy.configure(("[analyse]", '[explain]\nmaps = "all"\n[analyse]'))
    said = copy.sesgrid()
    assert f"maps kept: {len(ids)}" in said
    tree = sesgrid.open_cube(cube)
    kept = sesgrid.kept_maps(tree)
    assert sorted(kept["cell"].values) == sorted(ids)
    # they are the maps of the models, to half a step of the root's scale
    named = load_table(copy.result / "work" / "predict.parquet").loc[kept["cell"].values[:9]]
    named.attrs = {"n_classes": 3}
    models = [sesgrid.ModelRef.open(m) for m in (copy.result / "models").glob("*.keras")]
    pixels = sesgrid.open_cube(cube, chunked=False)["pixels"].to_dataset()
    made = sesgrid.explain_maps(named, pixels, {m.model_id: m for m in models}).values
    peaks = made.max((2, 3), keepdims=True)
    assert (peaks > 0).sum() > 5
    share = [np.sqrt(m / np.where(peaks > 0, peaks, 1)) for m in (kept[:9].values, made)]
    assert np.abs(share[0] - share[1]).max() <= 0.5001 / 255 + 1e-4
    # summed per class they give what the table holds, and the table is that of a run without maps
    sums, before = (
        pd.read_parquet(v.result / "work" / "explain.parquet").set_index("cell_id")
        for v in (copy, ville)
    )
    columns = [c for c in before if c != "model_id"]
    np.testing.assert_allclose(
        sums.loc[before.index, columns], before[columns], rtol=1e-4, atol=1e-7
    )
    totals = kept.sum(("y", "x")).to_pandas()
    for m in ("low", "high"):
        whole = sums.loc[totals.index, [f"{m}_{k}" for k in range(20)]].sum(axis=1)
        np.testing.assert_allclose(totals[m], whole, rtol=0.02, atol=1e-6)
    # QGIS gets them too
    done = CliRunner().invoke(
        main, ["export", str(cube), "-o", str(tmp_path / "a.tif"), "--variable", "activation"]
    )
    assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.count == 2
        assert raster.read(1).max() == 255
    # a shard of theirs that is not what was written is found, and its batch explained again
    files = [p for p in (cube / "pixels" / "activation" / "c").rglob("*") if p.is_file()]
    shard = max(files, key=lambda p: p.stat().st_size)
    whole = shard.read_bytes()
    shard.write_bytes(flipped(whole, len(whole) // 2))
    redo = ["--redo", "--config", str(copy.toml), "--scheduler", ville.scheduler]
    for options in ([], redo):
        done = CliRunner().invoke(main, ["verify", str(cube), *options])
        assert done.exit_code == 1
        assert "explain: block (" in done.output
        assert "1 faults" in done.output
    copy.sesgrid("explain")
    assert shard.read_bytes() == whole
    # nor explained again for what could not be looked at
    shard.unlink()
    shard.mkdir()
    done = CliRunner().invoke(main, ["verify", str(cube), *redo])
    assert done.exit_code == 1, done.output
    shard.rmdir()
    shard.write_bytes(whole)
    assert CliRunner().invoke(main, ["verify", str(cube)]).output == "0 faults\n"
    # the array gone, or made again: the maps are too
    (cube / "pixels" / "activation" / "zarr.json").write_text("{")
    cube_store._array.cache_clear()
    done = CliRunner().invoke(main, ["verify", str(cube)])
    assert done.exit_code == 1
    assert "the metadata of pixels/activation are gone or damaged" in done.output
    assert "explain again" in done.output
    with pytest.raises(FormatError, match="`sesgrid verify` tells of which"):
        sesgrid.open_cube(cube)
    said = copy.sesgrid("explain")
    assert "output cube.zarr/pixels/activation is missing" in said
    np.testing.assert_array_equal(sesgrid.kept_maps(sesgrid.open_cube(cube)).values, kept.values)
    # of one cell only, and no other's that lay there; of a stranger; of none
    (cube / "pixels" / "activation" / "zarr.json").unlink()
    one = str(ids[3])
    copy.configure(("[analyse]", f'[explain]\nmaps = ["{one}"]\n[analyse]'))
    assert "maps kept: 1" in copy.sesgrid("analyse")
    tree = sesgrid.open_cube(cube, chunked=False)
    np.testing.assert_array_equal(sesgrid.kept_maps(tree)["cell"].values, [one])
    assert len([p for p in (cube / "pixels" / "activation" / "c").rglob("*") if p.is_file()]) == 1
    with pytest.raises(sesgrid.SesgridError, match=f"no maps of cell {ids[4]}"):
        sesgrid.kept_maps(tree, [ids[4]])
    copy.configure(("[analyse]", '[explain]\nmaps = ["CRS3035RES200mN0E0"]\n[analyse]'))
    assert "1 cells are not of this city" in copy.sesgrid("explain", status=2)
    copy.configure()
    copy.sesgrid("explain")
    with pytest.raises(sesgrid.SesgridError, match="holds no maps"):
        sesgrid.kept_maps(sesgrid.open_cube(cube))
    assert not (cube / "pixels" / "activation").exists()
    # where the cube was made anew, no maps are missed before they are explained
    keeping = ("[analyse]", f'[explain]\nmaps = ["{one}"]\n[analyse]')
    copy.configure(keeping)
    copy.sesgrid("explain")
    copy.configure(keeping, ("pixels_per_cell = 32", "pixels_per_cell = 40"))
    copy.sesgrid("mosaic")
    assert Workspace(copy.result).record("explain").read()
    said = CliRunner().invoke(main, ["verify", str(cube)]).output
    assert "landcover: part" in said
    assert "explain" not in said


def test_a_cube_on_s3_in_an_image_codec(ville, tmp_path, s3):
    there = Ville(tmp_path, ville.city, ville.scheduler)
    url = f"{s3[0]}/tiny.zarr"
    there.configure(("[grid]", f'[cube]\npath = "{url}"\ncodec = "jpegxl"\nquality = 100\n[grid]'))
    there.sesgrid("landcover")
    one, other = sesgrid.open_cube(url), sesgrid.open_cube(ville.result / "cube.zarr")
    for name in ("image", "coverage", "landcover"):
        np.testing.assert_array_equal(one["pixels"][name].values, other["pixels"][name].values)
    assert one.attrs["image_codec"] == "jpegxl"
    assert not (there.result / "cube.zarr").exists()
    assert "mosaic: up to date" in there.sesgrid("landcover")


def test_a_disk_that_runs_full_stops_the_run_and_keeps_what_was_finished(
    ville, tmp_path, small_disk, monkeypatch
):
    monkeypatch.setattr(running, "wait_before", lambda _: 0.1)  # it will not pass by itself
    full = Ville(tmp_path / "run", ville.city, ville.scheduler)
    full.folder.mkdir()
    path = small_disk / "cube.zarr"
    fill(small_disk, leave=140_000)  # the cube without a pixel takes half of it
    full.configure(("[grid]", f'[cube]\npath = "{path}"\n[grid]'))
    said = full.sesgrid("mosaic", status=2)
    assert "No space left on device" in said
    assert "run again, and it goes on from there" in said
    # what lies there is whole
    found = sesgrid.open_cube(path)["pixels"].to_dataset().load()
    whole = sesgrid.open_cube(ville.result / "cube.zarr")["pixels"].to_dataset()
    written = found["coverage"].values > 0
    assert written.any()
    assert not written.all()
    np.testing.assert_array_equal(
        found["coverage"].values[written], whole["coverage"].values[written]
    )
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    full.sesgrid("mosaic")
    for name in ("image", "coverage"):
        np.testing.assert_array_equal(
            sesgrid.open_cube(path)["pixels"][name].values, whole[name].values
        )


def test_a_truncated_tile_is_listed_and_the_run_goes_on(ville, tmp_path):
    broken = Ville(tmp_path, ville.city, ville.scheduler)
    ortho = tmp_path / Path(ville.city.ortho).name
    shutil.copytree(ville.city.ortho, ortho)
    tile = sorted(ortho.rglob("*.jp2"))[5]
    tile.write_bytes(tile.read_bytes()[: tile.stat().st_size // 2])
    broken.configure((str(ville.city.ortho), str(ortho)))
    said = broken.sesgrid("mosaic", status=1)
    assert tile.name in said
    assert "read failures" in said
    pixels = sesgrid.open_cube(broken.result / "cube.zarr")["pixels"]
    whole = sesgrid.open_cube(ville.result / "cube.zarr")["pixels"]
    failed = pixels["coverage"].values == 3
    assert failed.sum() > 100
    # those pixels, and only those, are missing: inside the tile, and nothing else changed
    np.testing.assert_array_equal(
        np.where(failed, 1, pixels["coverage"].values), whole["coverage"].values
    )
    y, x = np.nonzero(failed)
    centres = gpd.points_from_xy(pixels["x"].values[x], pixels["y"].values[y], crs=3035)
    tiles = sesgrid.read_ortho(ville.city.ortho)
    (footprint,) = tiles.geometry[tiles["path"].str.endswith(tile.name)]
    assert centres.within(footprint.buffer(1)).all()
    # colours next to the gap are interpolated from one side only; two pixels off they agree
    near = binary_dilation(failed, iterations=2)
    np.testing.assert_array_equal(pixels["image"].values[:, ~near], whole["image"].values[:, ~near])
    # tried again the second time, and still not a success
    said = broken.sesgrid("mosaic", status=1)
    assert "mosaic: 1 files could not be read, which is tried again" in said
    assert tile.name in said
    # the tile comes whole, as it was before: the cube is that of a run that was never disturbed
    shutil.copy2(sorted(Path(ville.city.ortho).rglob("*.jp2"))[5], tile)
    broken.sesgrid("mosaic")
    pixels = sesgrid.open_cube(broken.result / "cube.zarr")["pixels"]
    for layer in ("image", "coverage"):
        np.testing.assert_array_equal(pixels[layer].values, whole[layer].values)


def test_a_tile_that_changes_redoes_what_rests_on_it(ville, tmp_path, monkeypatch):
    """A batch a group of blocks: of the others nothing is done again, in no stage."""
    monkeypatch.setattr(blocks, "BATCH_BLOCKS", 16)
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    ortho = tmp_path / Path(ville.city.ortho).name
    shutil.copytree(ville.city.ortho, ortho)
    # blocks of one cell, so that there are several groups
    copy.configure(
        (str(ville.city.ortho), str(ortho)), ("cells_per_block = 4", "cells_per_block = 1")
    )
    copy.sesgrid("predict")
    work = copy.result / "work"

    def parts(stage):
        return {p.name: p.stat().st_mtime_ns for p in (work / "parts" / stage).glob("*.parquet")}

    before = {stage: parts(stage) for stage in ("mosaic", "landcover", "predict")}
    assert len(before["mosaic"]) >= 4
    models = {p.name: p.read_bytes() for p in (copy.result / "models").glob("*.keras")}
    pixels = stored(copy)
    # touched, not changed: its batches are drawn again, and nothing rests on other pixels
    tile = sorted(ortho.rglob("*.jp2"))[5]
    os.utime(tile)
    said = copy.sesgrid("predict")
    assert "mosaic: input ortho changed" in said
    again = parts("mosaic")
    redone = {name for name in again if again[name] != before["mosaic"][name]}
    assert 0 < len(redone) < len(again)
    assert stored(copy) == pixels
    assert "folds kept from an earlier run: 4" in said
    assert parts("predict") == before["predict"]
    assert parts("landcover") == before["landcover"]
    assert models == {p.name: p.read_bytes() for p in (copy.result / "models").glob("*.keras")}


@pytest.mark.long
def test_what_is_broken_in_a_cube_is_found_and_made_again(ville, tmp_path, monkeypatch):
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    copy.configure()
    copy.sesgrid("landcover")
    cube = copy.result / "cube.zarr"

    def verify(*options, status=0):
        result = CliRunner().invoke(main, ["verify", str(cube), *options])
        assert result.exit_code == status, result.output
        return result.output

    redo = ["--redo", "--config", str(copy.toml), "--scheduler", ville.scheduler]
    assert "0 faults" in verify()
    assert "--redo --config city.toml" in verify("--redo", status=2)
    whole = stored(copy)
    files = sorted(
        p for p in (cube / "pixels").rglob("c/**/*") if p.is_file() and p.stat().st_size > 2000
    )
    images = [p for p in files if "image" in p.parts]
    landcover = next(p for p in files if "landcover" in p.parts)
    said = {}
    for path, data in (
        (images[0], None),
        (images[1], images[1].read_bytes()[:1000]),
        (images[2], b""),
        (landcover, flipped(landcover.read_bytes(), 700)),
    ):
        path.unlink() if data is None else path.write_bytes(data)
    said = verify(status=1)
    for what in ("missing", "1000 bytes instead of", "empty", "its bytes are not those written"):
        assert said.count(what) == 1
    assert "4 faults" in said
    assert "landcover: block (" in said
    untouched = {p: p.stat().st_mtime_ns for p in files if p not in (*images[:3], landcover)}
    said = verify(*redo)
    assert said.count("made again") == 4
    assert stored(copy) == whole
    assert untouched == {p: p.stat().st_mtime_ns for p in untouched}
    # what cannot be read is named, whatever the reason; a layer without metadata is no part's fault
    shard = images[0].read_bytes()
    images[0].unlink()
    images[0].mkdir()
    (images[0] / "mine").touch()
    assert "image: cannot be read (" in verify(status=1)
    # what cannot be made again for now does not cost the part of what is well; nor a store that is away
    monkeypatch.setattr(making_again, "wait_before", lambda _: 0.0)
    said = verify(*redo, status=1)
    assert re.search(
        "image: cannot be read .*: StoreError: .* cannot be written .*; left as it is, try again",
        said,
    )
    assert "run again to make" not in said
    monkeypatch.setattr(verifying, "_AWAY", 1)
    assert "1 faults" in verify(status=1)
    with monkeypatch.context() as away:
        away.setattr(Cube, "attribute", mock.Mock(side_effect=OSError("gone")))
        assert "neither 1 shards in a row can be read nor anything else" in verify(status=2)
    # nor does a run call that up to date
    said = copy.sesgrid("landcover", status=2)
    assert "1 blocks whose shards are lost cannot be made again now (first: mosaic: block (" in said
    (images[0] / "mine").unlink()
    # an empty folder in its place is nobody's
    assert "image: missing: made again" in copy.sesgrid("landcover")
    assert images[0].read_bytes() == shard
    assert "0 faults" in verify()
    metadata = cube / "pixels" / "image" / "zarr.json"
    kept = metadata.read_bytes()
    metadata.write_bytes(b"")
    cube_store._array.cache_clear()  # of this process; a command of its own has looked at nothing
    said = verify(status=1)
    assert "cube.zarr/pixels/image/zarr.json: missing or damaged" in said
    assert "shards: cannot be looked at while that is so" in said
    assert "cube.zarr/pixels/image/zarr.json: was damaged, and is written again" in verify(*redo)
    assert metadata.read_bytes() == kept
    # nothing that rests on the cube has to be done again
    assert "landcover: up to date" in copy.sesgrid("landcover")
    # a run makes what was lost again before anything reads it
    images[1].unlink()
    said = copy.sesgrid("landcover")
    assert "mosaic: 1 shards are not there as they were written" in said
    assert "made again" in said
    assert stored(copy) == whole
    # a stage that was begun anew and stopped is not one that was never begun
    run = Workspace(copy.result)
    shutil.copytree(run.parts("mosaic"), tmp_path / "parts")
    shutil.rmtree(run.parts("mosaic"))
    run.record("mosaic").forget()
    assert re.search(r"mosaic: part \S+: missing", verify(status=1))
    before = list(verifying.find_faults(files_of_cube(str(cube))))
    shutil.move(tmp_path / "parts", run.parts("mosaic"))
    copy.sesgrid("landcover")
    # what a run has made since is not taken away
    with Client(ville.scheduler) as client:
        told = []
        config = config_of_cube(str(cube), load_config(copy.toml))
        assert making_again.redo(config, client, before, told.append) == []
    assert told == [f"{fault}: no more" for fault in before] != []
    assert "mosaic: up to date" in copy.sesgrid("landcover")
    part = next((copy.result / "work" / "parts" / "mosaic").glob("*.parquet"))
    kept = part.read_bytes()
    for at in range(20, len(kept), len(kept) // 5):
        part.write_bytes(flipped(kept, at))
        assert f"part {part.stem}: damaged" in verify(status=1)
    verify(*redo, status=1)
    copy.sesgrid("landcover")
    assert "0 faults" in verify()
    assert stored(copy) == whole
    status = CliRunner().invoke(main, ["status", str(cube)])
    assert status.exit_code == 0
    assert "mosaic: " in status.output
    assert "0 failed, 0 left" in status.output
    # sources that were added since are those that blocks are made from again
    one, second = ville.city.ortho, tmp_path / "second" / ville.city.ortho.name
    shutil.copytree(one, second)
    copy.configure((f'ortho = "{one}"', f'ortho = ["{one}", "{second}"]'))
    copy.sesgrid("mosaic")
    assert Cube.open(cube).attribute("sources")["ortho"] == [one.name, one.name]
    other = tmp_path / "other.gpkg"
    shutil.copy(ville.city.landcover, other)
    copy.configure(
        (f'ortho = "{one}"', f'ortho = ["{one}", "{second}"]'),
        (str(ville.city.landcover), str(other)),
    )
    assert "mosaic: up to date" in copy.sesgrid("landcover")
    assert Cube.open(cube).attribute("sources")["landcover"] == "other.gpkg"
    copy.configure(landcover=False)
    copy.sesgrid("landcover")
    assert "0 faults" in verify()


def test_a_stage_is_recorded_before_its_lease_is_given_back(ville, tmp_path, monkeypatch):
    """Whoever waits for it would else find it not done, and do it again under those who go on."""
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    copy.configure()
    files, found, plain = Workspace(copy.result), [], Leases.release_all

    def looking(self):
        held = [s for s in ("cells", "mosaic") if (self.directory / s / f"{s}.lease").exists()]
        found.extend((stage, files.record(stage).read()["summary"]) for stage in held)
        plain(self)

    monkeypatch.setattr(Leases, "release_all", looking)
    copy.sesgrid("mosaic")
    assert [stage for stage, _ in found] == ["cells", "mosaic"]
    assert found[0][1]["cells"] == len(load_table(files.table("cells")))
    assert found[1][1]["tiles"] > 0


def test_a_run_is_refused_before_it_touches_what_another_driver_works_on(
    ville, tmp_path, monkeypatch
):
    shutil.copytree(ville.result, tmp_path / "result")
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    copy.configure(("folds = 2", "folds = 3"))
    files = Workspace(copy.result)
    with Leases(files.leases) as other:
        other.take("explain", ["none-0000"])
        before = {
            p: p.read_bytes()
            for p in copy.result.rglob("*")
            if p.is_file() and "leases" not in p.parts
        }
        said = copy.sesgrid("explain", status=2)
        assert "does batch none-0000 of explain; wait for it" in said
        assert before == {p: p.read_bytes() for p in before}
        verified = CliRunner().invoke(main, ["verify", str(copy.result / "cube.zarr")])
        assert verified.output == "0 faults\n"
        # also where all batches are done, and their tables are being written
        other.release_all()
        other.take("landcover", ["landcover"])
        taken, plain = [], Leases.take
        monkeypatch.setattr(
            Leases, "take", lambda me, *what: (taken.append(what), plain(me, *what))
        )
        assert "does all of landcover; wait for it" in copy.sesgrid("explain", status=2)
        copy.configure()
        files.record("landcover").forget()
        taken.clear()
        assert "does all of landcover; wait for it" in copy.sesgrid("landcover", status=2)
        assert taken == []  # nor did it stand in anybody's way


def test_which_drivers_stand_in_each_others_way(tmp_path):
    with Leases(tmp_path) as ours, Leases(tmp_path) as other:
        some = frozenset({"92"})
        other.take("mosaic", ["75-0000"])
        for stage in ("cells", "mosaic", "predict", "report"):
            with pytest.raises(ClusterError, match="does batch 75-0000 of mosaic"):
                _require_idle(ours, stage, None)
        _require_idle(ours, "mosaic", some)
        _require_idle(ours, "landcover", some)
        other.take("landcover", ["landcover"])
        for stage in ("mosaic", "landcover"):
            with pytest.raises(ClusterError, match="does all of landcover"):
                _require_idle(ours, stage, some)
        other.release_all()
        other.take("predict-other", ["75-0000"])
        for stage in ("train", "predict", "explain"):
            with pytest.raises(ClusterError, match="does batch 75-0000 of predict-other"):
                _require_idle(ours, stage, None)
        other.release_all()
        other.take("cells", ["cells"])  # as another job does that looks whether they are done
        _require_idle(ours, "mosaic", some)


def test_a_part_that_is_gone_is_missed_and_made_again(ville, tmp_path):
    shutil.copytree(ville.result, tmp_path / "result")
    copy = Ville(tmp_path, ville.city, ville.scheduler)
    copy.configure(("[cells]", "[cells]\nmin_coverage = 0.98"))
    part = next((copy.result / "work" / "parts" / "mosaic").glob("*.parquet"))
    part.write_bytes(flipped(part.read_bytes(), 100))
    copy.configure(("[analyse]", '[explain]\npreset = "reference"\n[analyse]'))
    said = copy.sesgrid("explain", status=2)
    assert "is gone or damaged since mosaic wrote it: run again" in said
    said = copy.sesgrid("explain")
    assert "mosaic: not done yet" in said
    assert f"cells explained: {len(result_cells(ville))}" in said


def stored(ville: Ville) -> dict[Path, bytes]:
    files = (ville.result / "cube.zarr" / "pixels").rglob("c/**/*")
    return {p: p.read_bytes() for p in files if p.is_file()}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


@pytest.mark.long
def test_without_land_cover_the_report_says_so(ville, tmp_path):
    bare = Ville(tmp_path, ville.city, ville.scheduler)
    bare.configure(landcover=False)
    said = bare.sesgrid()
    assert "none given" in said
    assert "vintage: 2019" in said  # told by the folder alone
    assert pd.read_csv(bare.result / "activation.csv").empty
    assert "No land cover was given" in (bare.result / "report.html").read_text()


def test_without_a_scheduler_a_local_cluster_is_started(ville, tmp_path, monkeypatch):
    monkeypatch.setattr("sesgrid.run.performance._WORTH_S", 0.0)
    alone = Ville(tmp_path, ville.city, ville.scheduler)
    alone.configure()
    result = CliRunner().invoke(main, ["landcover", str(alone.toml)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "dashboard: http://127.0.0.1:" in result.output
    page = (alone.result / "work" / "performance.html").read_text()
    assert "Dask Performance Report" in page
    assert sys.prefix not in page
    one, other = (sesgrid.open_cube(v.result / "cube.zarr")["pixels"] for v in (ville, alone))
    np.testing.assert_array_equal(one["image"].values, other["image"].values)


def test_other_workers_give_the_same_bytes(ville, tmp_path):
    from distributed import LocalCluster

    elsewhere = Ville(tmp_path, ville.city, ville.scheduler)
    elsewhere.configure()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        said = elsewhere.sesgrid("landcover", "--scheduler", cluster.scheduler_address)
    assert "landcover: not done yet" in said
    one, other = (sesgrid.open_cube(v.result / "cube.zarr")["pixels"] for v in (ville, elsewhere))
    for name in ("image", "coverage", "landcover"):
        np.testing.assert_array_equal(one[name].values, other[name].values)


def test_the_pipelines_do_what_the_command_line_does(ville):
    from pipelines import build_cube, explain_region, train_city

    for job in (build_cube, train_city):
        result = CliRunner().invoke(job.main, [str(ville.toml), "--scheduler", ville.scheduler])
        assert result.exit_code == 0, result.output
        assert "mosaic: up to date" in result.output
    model = ["--model", str(ville.result / "models" / "random-1.keras")]
    asked = [str(ville.toml), *model, "--scheduler", ville.scheduler]
    result = CliRunner().invoke(explain_region.main, asked)
    assert result.exit_code == 0, result.output
    region = gpd.read_parquet(ville.result / "region.parquet").set_index("cell_id")
    assert (region["model_id"] == "Tiny-random1").all()
    own = result_cells(ville).reindex(region.index)
    same = own["model_id"] == "Tiny-random1"
    np.testing.assert_allclose(region["p"][same], own["p"][same], rtol=1e-5)
    assert same.any()
    assert not same.all()
    areas = region[[f"area_{c}" for c in range(20)]].sum(axis=1)
    assert (areas == 32 * 32).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("folds = 2", "folds = 40"), "40 folds × 3 classes need at least 120"),
        (("classes = 3", "clases = 3"), "did you mean 'classes'"),
        (('protocol = "scratch"', 'protocol = "fast"'), "train.protocol"),
    ],
)
def test_what_cannot_run_says_why_and_leaves_nothing(ville, tmp_path, change, message):
    bad = Ville(tmp_path, ville.city, ville.scheduler)
    bad.configure(change)
    said = bad.sesgrid(status=2)
    assert message in said
    assert "Traceback" not in said
    names = ("report.html", "metrics.json", "cells.parquet", "activation.csv", "cube.zarr")
    assert not any((bad.result / name).exists() for name in names)
