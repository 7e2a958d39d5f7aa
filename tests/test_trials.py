"""Trainings as tasks: what travels, what is cancelled, who may run at once, and workers that die."""

from __future__ import annotations

import json
import os
import time
import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import (
    Client,
    LocalCluster,
    Scheduler,
    SpecCluster,
    Worker,
    WorkerPlugin,
    get_worker,
)

from sesgrid.errors import SesgridError, SesgridWarning, TooFewCellsError
from sesgrid.run import trainings
from sesgrid.run.trainings import run_trainings
from sesgrid.run.workspace import Workspace
from sesgrid.store.checkpoint import Checkpoint
from sesgrid.store.models import ModelRef
from sesgrid.studies import trials
from sesgrid.studies.trials import run_variants, variant_of
from tests.small_run import Register, configure, small_backbones, write_cells, write_run

SPANS: list[tuple[str, float, float]] = []
"""Of the fake work in this process: the worker's name, begin and end."""


def note_span(work: int, progress) -> int:
    begun = time.perf_counter()
    for epoch in range(2):
        progress(f"model {work}", epoch, {"val_loss": 0.5, "loss": 1.0})
        warnings.warn(f"work {work}, epoch {epoch}", SesgridWarning, stacklevel=1)
        warnings.warn("no business of ours", UserWarning, stacklevel=1)
        time.sleep(0.05)
    SPANS.append((str(get_worker().name), begun, time.perf_counter()))
    return work**2


BEGUN: list[int] = []


def second_fails(work: int, progress) -> int:
    BEGUN.append(work)
    time.sleep(0.1)
    if work == 1:
        raise TooFewCellsError("too few")
    return work


def overlaps(spans: list[tuple[str, float, float]]) -> int:
    ordered = sorted(spans, key=lambda s: s[1])
    return sum(b[1] < a[2] for k, a in enumerate(ordered) for b in ordered[k + 1 :])


class Bar:
    """In the place of the progress bar: what it was told."""

    def __init__(self, label, total, unit):
        self.told, self.total, self.count = [], total, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, n):
        self.count += n

    def set_postfix_str(self, text):
        self.told.append(text)


def in_process(**options) -> LocalCluster:
    return LocalCluster(processes=False, dashboard_address="127.0.0.1:0", **options)


@pytest.mark.filterwarnings("always:no business")
def test_results_and_warnings_arrive_and_epochs_count(monkeypatch):
    bars = []
    monkeypatch.setattr(trainings, "progress_bar", lambda *a: bars.append(Bar(*a)) or bars[-1])
    SPANS.clear()
    with in_process(n_workers=1, threads_per_worker=3) as cluster, Client(cluster) as client:
        found = {
            w: (r, notes) for w, r, notes in run_trainings(client, "x", [3, 4, 5], note_span, 6)
        }
        time.sleep(0.2)
    assert found == {w: (w**2, [f"work {w}, epoch {e}" for e in (0, 1)]) for w in (3, 4, 5)}
    (bar,) = bars
    assert bar.total == 6
    assert sorted(bar.told) == sorted(f"model {w} val_loss 0.500" for w in (3, 4, 5) for _ in "ab")
    # three threads, one process: one at a time, or warnings and seeds would be each other's
    assert len(SPANS) == 3
    assert overlaps(SPANS) == 0


def test_no_work_needs_no_cluster():
    assert list(run_trainings(None, "x", [], note_span, 0)) == []


def test_an_error_is_the_tasks_own_and_cancels_the_rest():
    BEGUN.clear()
    with in_process(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        with pytest.raises(TooFewCellsError, match="too few") as caught:
            list(run_trainings(client, "x", list(range(12)), second_fails, 12))
        time.sleep(0.5)
        assert caught.tb is not None  # its frames hold the futures: only cancelling ends the rest
    assert BEGUN[:2] == [0, 1]
    assert len(BEGUN) < 6


def test_a_gpu_is_given_to_one_training_at_a_time(monkeypatch):
    monkeypatch.setattr(trainings, "DEVICE_LOCK", nullcontext())  # the resources alone must do it
    SPANS.clear()
    workers = {
        name: {"cls": Worker, "options": {"nthreads": 3, "resources": {"GPU": 1} if gpu else {}}}
        for name, gpu in (("cpu", False), ("gpu-a", True), ("gpu-b", True))
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(workers, scheduler, asynchronous=False) as some, Client(some) as client:
        client.wait_for_workers(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # threads of one process share what is caught
            done = {w for w, _, _ in run_trainings(client, "x", list(range(8)), note_span, 16)}
    assert done == set(range(8))
    assert {name for name, _, _ in SPANS} == {"gpu-a", "gpu-b"}
    for name in ("gpu-a", "gpu-b"):
        assert overlaps([s for s in SPANS if s[0] == name]) == 0
    assert overlaps(SPANS) > 0


def dying(marker: str, always: bool = False):
    """Work that takes its first worker with it, or every one; a worker need not import this file for it."""

    def work(k: int, progress) -> int:
        if always or not os.path.exists(marker):
            with open(marker, "w") as file:
                file.write(str(os.getpid()))
            os._exit(1)
        return os.getpid()

    return work


class DiesAfterAnEpoch(WorkerPlugin):
    """One worker ends at once after the first checkpoint that it writes."""

    name = "dies"

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def setup(self, worker: object) -> None:
        save, marker = Checkpoint.save, self.marker

        def save_and_die(checkpoint: Checkpoint, path: Path) -> None:
            save(checkpoint, path)
            try:
                open(marker, "x").close()
            except FileExistsError:
                return
            os._exit(1)

        Checkpoint.save = save_and_die


@pytest.fixture(scope="module")
def processes():
    """A client of two workers, each a process with a nanny."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(processes=True, silence_logs=50, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
def test_work_whose_worker_dies_is_done_by_another(processes, tmp_path):
    marker = tmp_path / "died"
    ((_, pid, _),) = run_trainings(processes, "x", [1], dying(str(marker)), 1)
    assert pid != int(marker.read_text())


@pytest.mark.slow
def test_work_that_kills_every_worker_is_an_error_with_advice(processes, tmp_path):
    processes.run_on_scheduler(
        lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0)
    )
    try:
        with pytest.raises(SesgridError, match=r"every worker .* died \(1\).*memory"):
            list(run_trainings(processes, "x", [1], dying(str(tmp_path / "died"), True), 1))
    finally:
        processes.run_on_scheduler(
            lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3)
        )


@pytest.mark.slow
@pytest.mark.long
def test_a_study_whose_worker_is_killed_ends_as_an_undisturbed_one(processes, tmp_path):
    marker = tmp_path / "died"
    for plugin in (Register(), DiesAfterAnEpoch(str(marker))):
        processes.register_plugin(plugin)
    exact = ("[analyse]", "deterministic = true\n[analyse]")
    outcomes, resumed, weights = [], [], []
    with small_backbones():
        for name in ("killed", "calm"):
            config = configure(tmp_path / name, "Ville", exact, ("epochs = 2", "epochs = 3"))
            write_run(config)
            assert marker.exists() == (name == "calm")
            (outcome,) = run_variants(
                config, processes, [variant_of(config, "one")], lambda _: None
            )
            folder = Workspace.of(config).studies / "models" / outcome.key
            cards = [json.loads((folder / f"random-{k}.json").read_text()) for k in (0, 1)]
            resumed.append(sorted(str(c["resumed_at"]) for c in cards))
            assert [len(c["history"]["loss"]) for c in cards] == [3, 3]
            assert [f["training_s"] is None for f in outcome.facts] == [
                c["resumed_at"] is not None for c in cards
            ]
            models = [ModelRef.open(folder / f"random-{k}.keras").load() for k in (0, 1)]
            weights.append([w for m in models for w in m.get_weights()])
            outcomes.append(outcome)
    assert resumed == [["1", "None"], ["None", "None"]]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    killed, calm = (o.cells for o in outcomes)
    pd.testing.assert_frame_equal(killed, calm)
    assert killed["p"].std() > 0.01
    assert outcomes[0].scores == outcomes[1].scores


# variants, on a cluster in this process


@pytest.fixture(scope="module")
def client(scheduler):
    with small_backbones(), Client(scheduler) as one:
        yield one


@pytest.fixture
def submitted(monkeypatch) -> list[tuple[str, int]]:
    """(variant, fold) of every trial that was submitted."""
    out: list[tuple[str, int]] = []

    def noting(client, label, work, *args):
        out.extend((t.variant, t.fold.fold) for t in work)
        return run_trainings(client, label, work, *args)

    monkeypatch.setattr(trials, "run_trainings", noting)
    return out


@pytest.mark.long
def test_variants_of_equal_settings_train_once(client, submitted, tmp_path):
    config = configure(tmp_path, "Ville")
    write_run(config)
    variants = [
        variant_of(config, "one"),
        variant_of(config, "two", backbone="Pin-Hole"),
        variant_of(config, "other", seed=1),
    ]
    one, two, other = run_variants(config, client, variants, lambda _: None)
    assert submitted == [("one", 0), ("one", 1), ("other", 0), ("other", 1)]
    assert one.key == two.key != other.key
    pd.testing.assert_frame_equal(one.cells, two.cells)
    assert not np.allclose(one.cells["p"], other.cells["p"])


def test_the_key_holds_all_that_a_model_depends_on(tmp_path):
    with small_backbones():
        weights = tmp_path / "first.weights.h5"
        weights.write_bytes(b"1")
        config = configure(tmp_path, "Ville")
        made_from = {"cells": "c", "mosaic": "m"}
        variant = variant_of(config, "one")
        ours = replace(variant, protocol=replace(variant.protocol, weights=str(weights)))
        key = partial(trials._key, config)
        keys = {key(variant, made_from), key(ours, made_from)}
        for field, value in {"seed": 5, "pixels": 32}.items():
            keys.add(key(replace(variant, **{field: value}), made_from))
        changes = {
            "backbone": "keyhole", "head": "softmax", "epochs": 9, "batch_size": 3,
            "learning_rate": 0.5, "crop_share": 0.75, "validation_share": 0.4, "flips": False,
            "deterministic": True, "schedule": "step", "patience": 3, "scaling": "minmax",
        }  # fmt: skip
        for field, value in changes.items():
            keys.add(key(variant_of(config, "one", **{field: value}), made_from))
        for stage in made_from:
            keys.add(key(variant, {**made_from, stage: "another"}))
        keys.add(key(replace(variant, protocol=replace(variant.protocol, max_void=0.5)), made_from))
        poorer = config.model_copy(
            update={"cells": config.cells.model_copy(update={"min_coverage": 0.5})}
        )
        keys.add(trials._key(poorer, variant, made_from))
        weights.write_bytes(b"22")  # the same name, other weights
        keys.add(key(ours, made_from))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trials, "__version__", "9.9")
            keys.add(key(variant, made_from))
        assert len(keys) == 2 + 2 + len(changes) + 2 + 1 + 3
        # what it is called does not matter
        assert key(replace(variant, name="other"), made_from) in keys


def test_no_cell_that_is_held_out_was_seen(client, submitted, monkeypatch, tmp_path):
    """Not with a buffer, nor where imputed cells or cells without imagery stand by."""
    seen = []

    def noting(client, label, work, *args):
        seen.extend(work)
        return run_trainings(client, label, [], *args)

    config = configure(tmp_path, "Ville", ("folds = 2", "folds = 3"))
    cells = write_run(config, dark=7, folds_kind="spatial", buffer_cells=1)
    monkeypatch.setattr(trials, "run_trainings", noting)
    monkeypatch.setattr(trials, "_outcome", lambda *a: None)
    run_variants(config, client, [variant_of(config, "one")], lambda _: None)
    assert [t.fold.fold for t in seen] == [0, 1, 2]
    dark = set(cells.index[-7:])
    where = {(r, c): i for i, r, c in zip(cells.index, cells["row"], cells["col"], strict=True)}
    for trial in seen:
        trained = [where[tuple(rc)] for rc in trial.fold.cells.tolist()]
        held = [i for i, _, _ in trial.held_out]
        assert all(where[r, c] == i for i, r, c in trial.held_out)
        fold = cells["fold"] == trial.fold.fold
        assert set(held) == set(cells.index[fold & cells["labelled"]]) - dark
        assert cells.loc[trained, "labelled"].all()
        assert not dark & set(trained)
        for i in cells.index[fold]:  # also those that are not labelled
            gap = (cells.loc[trained, ["row", "col"]] - cells.loc[i, ["row", "col"]]).abs()
            assert gap.max(axis=1).min() > 1
    assert sum(len(t.held_out) for t in seen) == (cells["labelled"][:-7]).sum()


@pytest.mark.slow
def test_a_fold_without_imagery_is_not_scored_and_one_without_a_class_not_trained(client, tmp_path):
    config = configure(tmp_path, "Ville", ("folds = 2", "folds = 3"))
    cells = write_run(config)
    files = Workspace.of(config)
    imagery = pd.read_parquet(files.table("mosaic")).reindex(cells.index)
    write_cells(files, "mosaic", imagery.assign(coverage=np.where(cells["fold"] == 2, 0.0, 1.0)))
    variant = variant_of(config, "one")
    (outcome,) = run_variants(config, client, [variant], lambda _: None)
    nothing = cells["fold"] == 2
    labelled = outcome.cells
    assert labelled["p"].isna().tolist() == nothing.reindex(labelled.index).tolist()
    assert outcome.scores["n"] == (cells["labelled"] & ~nothing).sum()
    results = trials.write_results(config, [outcome], tmp_path / "results.parquet")
    assert results["fold"].tolist() == [0, 1, 2]
    assert results["n"].isna().tolist() == [False, False, True]
    assert results["cells_per_s"].isna().tolist() == [False, False, True]
    # class 1 has imagery in fold 0 alone: the model of fold 0 would not know it
    lost = (cells["ses_true"] == 1) & (cells["fold"] != 0)
    write_cells(files, "mosaic", imagery.assign(coverage=np.where(lost, 0.0, 1.0)))
    config = config.model_copy(
        update={"cells": config.cells.model_copy(update={"min_coverage": 0.9})}
    )
    with pytest.raises(TooFewCellsError, match=r"random fold 0 of Ville.* holds 2 of 3 classes"):
        run_variants(config, client, [variant], lambda _: None)
