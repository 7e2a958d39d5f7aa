"""Batches on a cluster: in flight, tried again, given up, recorded, taken up; and what is told of them."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, Nanny
from distributed.core import Status

from sesgrid.batches import flight as flying
from sesgrid.batches import running as batching
from sesgrid.batches.blocks import plan_batches
from sesgrid.batches.failures import Failure, is_transient, wait_before
from sesgrid.batches.flight import Flight, Noted, pack_rows, slots
from sesgrid.batches.journal import Journal, read_journals
from sesgrid.batches.leases import Leases
from sesgrid.batches.running import Batch, Outcome, Task, run_batches
from sesgrid.errors import ClusterError, ConfigError, FormatError, SesgridError, StoreError
from sesgrid.run import redo as making_again
from sesgrid.run.status import lines, status_of
from sesgrid.run.workspace import Workspace
from sesgrid.stages.place import BlockCells, place
from sesgrid.store.parts import Parts
from tests.processes import cluster as processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client():
    options = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
        Client(cluster) as c,
    ):
        yield c


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(batching, "wait_before", lambda attempt: 0.05)


@dataclass(frozen=True)
class Squares:
    """Squares numbers; fails as its folder says: ``<number>.<error>`` holds how often."""

    folder: str
    seconds: float = 0.0

    def __call__(self, items):
        out = []
        for n in items:
            for error in (OSError, ConfigError, ZeroDivisionError):
                note = Path(self.folder) / f"{n}.{error.__name__}"
                if note.exists() and int(note.read_text()) > 0:
                    note.write_text(str(int(note.read_text()) - 1))
                    raise error(f"no {n}")
            time.sleep(self.seconds)
            with open(Path(self.folder) / "seen", "a") as file:
                file.write(f"{n}\n")
            out.append({"cell_id": f"c{n}", "square": n * n})
        return out


def plan(n=12, per_task=2, per_batch=3, key="k"):
    tasks = [
        Task(list(range(a, a + per_task)), tuple((0, i) for i in range(a, a + per_task)), per_task)
        for a in range(0, n, per_task)
    ]
    return [
        Batch.of(f"{k:06d}", f"{key}{k}", tasks[a : a + per_batch])
        for k, a in enumerate(range(0, len(tasks), per_batch))
    ]


def counted(results):
    return replace(pack_rows(results), extra=(len(results),))


def run(client, folder, batches, seconds=0.0, **options):
    def make(tasks):
        items = [i for t in tasks for i in t.items]
        group = tuple(len(t.items) for t in tasks)
        stage = Noted(Squares(str(folder), seconds), counted)
        return place(stage, items, group=group, name="squares")

    parts = Parts(folder / "work" / "parts" / "mosaic")
    return run_batches(
        client, parts, "mosaic", batches, make, lambda counts: {"n": sum(counts)}, **options
    ), parts


def seen(folder) -> list[int]:
    path = folder / "seen"
    found = sorted(map(int, path.read_text().split())) if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def test_what_is_recorded_is_not_done_again(client, tmp_path):
    outcome, parts = run(client, tmp_path, plan())
    assert (outcome.done, outcome.resumed, outcome.failures) == (["000000", "000001"], 0, [])
    rows = parts.read(outcome.done)
    assert rows["square"].tolist() == [n * n for n in range(12)]
    record = parts.record("000001")
    assert (record["n"], record["cells"], record["batch"], record["key"]) == (6, 6, "000001", "k1")
    assert [t["attempt"] for t in record["tasks"]] == [1, 1, 1]
    assert seen(tmp_path) == list(range(12))
    outcome, _ = run(client, tmp_path, plan())
    assert (outcome.resumed, seen(tmp_path)) == (2, [])
    # another key, another batch
    changed = plan()
    changed[1] = Batch.of("000001", "other", changed[1].tasks())
    outcome, _ = run(client, tmp_path, changed)
    assert (outcome.resumed, seen(tmp_path)) == (1, list(range(6, 12)))
    # a damaged part is made again
    parts.path("000000").write_bytes(b"PAR1")
    outcome, _ = run(client, tmp_path, changed)
    assert seen(tmp_path) == list(range(6))


def test_an_older_part_does_not_vouch_for_pixels_that_were_touched(client, tmp_path):
    """Inputs change, a task fails, the inputs are put back: what was begun in between is done again."""
    outcome, _ = run(client, tmp_path, plan(n=18))
    assert outcome.done == ["000000", "000001", "000002"]
    seen(tmp_path)
    changed = [Batch.of(b.name, f"new{b.name}", b.tasks()) for b in plan(n=18)[:2]]
    (tmp_path / "3.ConfigError").write_text("1")
    outcome, parts = run(client, tmp_path, changed)
    assert [f.batch for f in outcome.failures] == ["000000"]
    assert parts.names() == ["000001", "000002"]
    assert {0, 1, 4, 5} < set(seen(tmp_path))  # what these drew lies there now
    outcome, parts = run(client, tmp_path, plan(n=18))
    assert (outcome.resumed, seen(tmp_path)) == (1, list(range(12)))
    assert parts.read(outcome.done)["square"].tolist() == [n * n for n in range(18)]


def test_what_passes_is_tried_again_and_what_does_not_is_listed(client, tmp_path):
    for name, times in (("3.OSError", 2), ("8.ConfigError", 1), ("0.OSError", 99)):
        (tmp_path / name).write_text(str(times))
    journal = Journal.of_driver(tmp_path / "work" / "journal")
    outcome, parts = run(client, tmp_path, plan(n=24), journal=journal, attempts=4)
    # 3 came right, 8 is for good, 0 was given up; all others are done
    assert {(f.batch, f.cause, f.attempts, f.defect) for f in outcome.failures} == {
        ("000000", "OSError", 4, False),
        ("000001", "ConfigError", 1, False),
    }
    assert outcome.done == ["000002", "000003"]
    assert parts.names() == outcome.done
    assert set(seen(tmp_path)) == set(range(24)) - {0, 1, 8, 9}
    with pytest.raises(ClusterError, match=r"2 tasks failed.*no 0 \(after 4 attempts\)"):
        outcome.require_whole("mosaic")
    found = list(read_journals(tmp_path / "work" / "journal"))
    state = {tuple(line["block"]): line["state"] for line in found}
    assert {b[1] for b, s in state.items() if s == "failed"} == {0, 1, 8, 9}
    assert max(line["attempt"] for line in found if line["state"] == "done") == 3
    (status,) = status_of(Workspace(tmp_path))
    assert (status.blocks, status.done_blocks, status.failed_blocks) == (24, 12, 4)
    assert status.failures == {"OSError": 2, "ConfigError": 2}
    (tmp_path / "0.OSError").unlink()
    outcome, parts = run(client, tmp_path, plan(n=24), journal=journal)
    assert (outcome.resumed, outcome.failures) == (2, [])
    assert parts.read(outcome.done)["square"].tolist() == [n * n for n in range(24)]
    (status,) = status_of(Workspace(tmp_path))
    assert (status.done_blocks, status.failed_blocks, status.left_blocks) == (24, 0, 0)
    assert next(lines([status])).startswith("mosaic: 24 of 24 blocks done, 0 failed, 0 left")


def test_blocks_that_are_made_again_are_tried_again_one_by_one(client, tmp_path, monkeypatch):
    """One that fails for good does not take the others along."""
    for name, times in (("3.OSError", 1), ("5.ConfigError", 1)):
        (tmp_path / name).write_text(str(times))

    def place_written(work, cube, groups, name):
        def told(rows):
            return replace(pack_rows(rows), extra=tuple((0, r["square"], {}, 0) for r in rows))

        return place(Noted(Squares(str(tmp_path)), told), [n for (n,) in groups], name=name)

    monkeypatch.setattr(making_again, "place_written", place_written)
    monkeypatch.setattr(making_again, "wait_before", lambda attempt: 0.05)
    monkeypatch.setattr(making_again.Cube, "open", lambda path: None)
    job = SimpleNamespace(client=client, files=SimpleNamespace(cube=""))
    blocks = [BlockCells(0, n, ((0, n),)) for n in range(8)]
    work = SimpleNamespace(items=lambda some: [b.block_col for b in some])
    asked = {(0, n) for n in (2, 3, 5)}
    made, failed = making_again._made_again(
        job, "mosaic", [SimpleNamespace(blocks=blocks)], work, asked
    )
    assert made == {(0, 4): {}, (0, 9): {}}  # squares
    assert failed == {(0, 5): "ConfigError: no 5"}
    assert seen(tmp_path) == [2, 3]


def test_a_defect_is_told_from_bad_luck(client, tmp_path):
    (tmp_path / "3.ZeroDivisionError").write_text("9")
    outcome, _ = run(client, tmp_path, plan())
    (failure,) = outcome.failures
    assert failure.defect
    assert failure.attempts == 1
    assert "batch 000000, 2 blocks ((0, 2), (0, 3)): ZeroDivisionError: no 3" in str(failure)


def test_a_stage_of_which_everything_fails_is_stopped(client, tmp_path):
    for n in range(0, 100, 2):
        (tmp_path / f"{n}.ConfigError").write_text("9")
    with pytest.raises(ClusterError, match="the first 21 tasks failed and none succeeded"):
        run(client, tmp_path, plan(n=100))


def test_no_more_is_in_flight_than_the_workers_take(client, tmp_path, monkeypatch):
    """Two a slot: what is computed, and what waits for it; more only of what takes no time."""
    most, plain = [], Flight._launch

    def counting(self):
        plain(self)
        most.append(len(self._flying))

    monkeypatch.setattr(Flight, "_launch", counting)
    run(client, tmp_path, plan(n=40), seconds=0.2)
    assert max(most) == 2 * slots(client, None) == 4
    most.clear()
    run(client, tmp_path, plan(n=400, key="again"))
    assert 8 < max(most) <= flying._MOST_A_SLOT * slots(client, None)


def test_slots_are_threads_or_shares_of_gpus():
    class Fake:
        def scheduler_info(self, n_workers):
            return {
                "workers": {
                    "a": {"nthreads": 4, "resources": {"GPU": 1}},
                    "b": {"nthreads": 2, "resources": {"GPU": 2}},
                    "c": {"nthreads": 8, "resources": {}},
                }
            }

    assert slots(Fake(), None) == 14
    assert slots(Fake(), {"GPU": 0.33}) == 3 + 2
    assert slots(Fake(), {"GPU": 1.0}) == 1 + 2


def test_which_failures_may_pass():
    for error in (StoreError("away"), ConnectionResetError(), MemoryError(), TimeoutError()):
        assert is_transient(error), error
    # obstore's are none of the system's; a gateway answers 403 while it starts
    for name in ("GenericError", "PermissionDeniedError"):
        error = getattr(pytest.importorskip("obstore").exceptions, name)("503")
        assert is_transient(error), error
        assert not Failure.of(error, "b", [(0, 1)], 4).defect
    denied = StoreError("read-only")
    denied.__cause__ = PermissionError(13, "denied")
    taken = StoreError("a folder of others lies there")
    taken.__cause__ = OSError(errno.ENOTEMPTY, "not empty")
    for error in (
        denied,
        taken,
        FileNotFoundError(),
        ConfigError("x"),
        FormatError("x"),
        KeyError("x"),
    ):
        assert not is_transient(error), error
    # a store that is away for a minute is outlasted
    assert sum(wait_before(n) for n in range(2, batching.ATTEMPTS + 1)) > 60


def test_batches_are_the_same_for_any_order_and_hold_every_block(tmp_path):
    from sesgrid.grid import Grid

    rng = np.random.default_rng(0)
    cells = pd.DataFrame(np.unique(rng.integers(0, 900, (3000, 2)), axis=0), columns=["row", "col"])
    # borders that no group of blocks keeps to
    cells["departement"] = np.select([cells["row"] < 333, cells["col"] < 500], ["01", "2A"], "none")
    cells["departement"] = cells["departement"].replace("none", None)
    grid = Grid(100, 8)
    whole = plan_batches(grid, cells)
    mixed = cells.sample(frac=1, random_state=1)
    for one, other in zip(whole, plan_batches(grid, mixed), strict=True):
        assert one.groups == other.groups
        assert (mixed[["row", "col"]].to_numpy()[other.members] == one.cells).all()
    blocks = [(b.block_row, b.block_col) for batch in whole for b in batch.blocks]
    assert len(blocks) == len(set(blocks))
    assert set(blocks) == set(zip(cells["row"] // 8, cells["col"] // 8, strict=True))
    assert max(len(batch.blocks) for batch in whole) <= 256
    assert {batch.name[:-5] for batch in whole} == {"01", "2A", "none"}
    for batch in whole:
        for group in batch.groups:
            of = Counter(
                cells.set_index(["row", "col"])["departement"].fillna("none")[c]
                for block in group
                for c in block.cells
            )
            assert of[batch.departement] == max(of.values())
    assert len({batch.name for batch in whole}) == len(whole) > 1


def test_a_second_driver_is_refused_with_the_firsts_name_and_only_where_they_meet(client, tmp_path):
    batches = plan(n=24)
    with Leases(tmp_path / "leases") as first, Leases(tmp_path / "leases") as second:
        first.take("mosaic", ["000001"])
        with pytest.raises(ClusterError, match=f"process {os.getpid()} on .* does batch 000001"):
            run(client, tmp_path, batches, leases=second)
        assert seen(tmp_path) == []
        # none of the others stayed taken; disjoint ones run side by side
        first.take("mosaic", ["000000"])
        outcome, _ = run(client, tmp_path, batches[2:], leases=second)
        assert outcome.failures == []
        first.release_all()
        outcome, _ = run(client, tmp_path, batches, leases=second)
        assert outcome.resumed == 2
    assert not list((tmp_path / "leases").rglob("*.lease"))


def test_the_lease_of_a_driver_that_is_gone_expires(tmp_path):
    folder = tmp_path / "leases"
    pid = os.fork()
    if pid == 0:
        Leases(folder).__enter__().take("mosaic", ["000001"])
        time.sleep(60)
        os._exit(0)
    lease = folder / "mosaic" / "000001.lease"
    while not lease.exists() or not lease.read_text():
        time.sleep(0.02)
    with Leases(folder) as ours:
        with pytest.raises(ClusterError, match=f"process {pid} on"):
            ours.take("mosaic", ["000001"])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.take("mosaic", ["000001"])
        # of another machine only its heartbeat tells, by the file server's clock
        elsewhere = json.loads(lease.read_text()) | {
            "name": "far-1-x",
            "host": "far",
            "pid": 1,
            "machine": "m",
        }
        other = folder / "mosaic" / "000002.lease"
        other.write_text(json.dumps(elsewhere))
        heart = folder / "drivers" / "far-1-x"
        heart.touch()
        with pytest.raises(ClusterError, match="process 1 on far"):
            ours.take("mosaic", ["000002"])
        old = heart.stat().st_mtime - 61
        os.utime(heart, (old, old))
        ours.take("mosaic", ["000002"])
        assert json.loads(other.read_text())["pid"] == os.getpid()


def test_a_container_of_the_same_name_is_another_machine(tmp_path):
    """Its processes are not seen, and their numbers are others' here."""
    folder = tmp_path / "leases"
    with Leases(folder) as ours:
        lives = vars(ours.me) | {"name": "twin", "pid": 4_000_000, "machine": "another boot"}
        (folder / "mosaic").mkdir()
        (folder / "mosaic" / "000001.lease").write_text(json.dumps(lives))
        (folder / "drivers" / "twin").touch()
        with pytest.raises(ClusterError, match="process 4000000 on"):
            ours.take("mosaic", ["000001"])
        assert ours.holder(["mosaic"]) is not None
        (folder / "drivers" / "twin").unlink()
        ours.take("mosaic", ["000001"])
        # so is a driver of another version, whose lease says less, or more
        older = {"name": "old", "host": ours.me.host, "pid": os.getpid(), "born": "1", "new": 2}
        (folder / "mosaic" / "000002.lease").write_text(json.dumps(older))
        (folder / "drivers" / "old").touch()
        with pytest.raises(ClusterError, match=f"process {os.getpid()} on"):
            ours.take("mosaic", ["000002"])
        (folder / "drivers" / "old").unlink()
        ours.take("mosaic", ["000002"])


def test_a_part_that_goes_under_a_driver_is_not_made_without_its_lease(client, tmp_path):
    batches = plan(n=18)
    run(client, tmp_path, batches)
    seen(tmp_path)

    class Gone(Journal):
        def plan(self, *_):
            Parts(tmp_path / "work" / "parts" / "mosaic").remove("000001")

    with Leases(tmp_path / "leases") as leases:
        outcome, parts = run(
            client, tmp_path, batches, leases=leases, again=["000002"], journal=Gone(tmp_path / "j")
        )
    assert seen(tmp_path) == list(range(12, 18))
    with pytest.raises(SesgridError, match="000001"):
        parts.merge(outcome.done, tmp_path / "merged.parquet")


def test_of_many_that_take_an_expired_lease_one_gets_it(tmp_path):
    folder = tmp_path / "leases"
    (folder / "mosaic").mkdir(parents=True)
    gone = {"name": "gone", "host": "far", "pid": 1, "machine": "m", "born": "1"}
    for turn in range(20):
        (folder / "mosaic" / f"{turn}.lease").write_text(json.dumps(gone))
        drivers = [Leases(folder).__enter__() for _ in range(4)]
        won, gate = [], threading.Barrier(len(drivers))

        def take(driver, turn=turn, won=won, gate=gate):
            gate.wait()
            try:
                driver.take("mosaic", [str(turn)])
                won.append(driver)
            except ClusterError:
                pass

        threads = [threading.Thread(target=take, args=(d,)) for d in drivers]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(won) == 1
        for driver in drivers:
            driver.__exit__()


def test_the_status_goes_by_time_not_by_the_names_of_journals(tmp_path):
    files = Workspace(tmp_path)
    files.journals.mkdir(parents=True)
    early = Journal(files.journals / "host-9999.jsonl")
    early.plan("mosaic", {"75-0000": {"key": "k", "blocks": 1, "cells": 2}})
    told = {"stage": "mosaic", "batch": "75-0000", "block": [0, 0]}
    failed = {**told, "time": "2026-01-01T00:00:00+00:00", "state": "failed", "cause": "OSError"}
    done = {**told, "time": "2026-01-02T00:00:00+00:00", "state": "done", "seconds": 1.0}
    early.path.write_text(json.dumps(failed) + "\n")
    later = files.journals / "host-10001.jsonl"
    later.write_text(json.dumps(done) + "\n")
    (status,) = status_of(files)
    assert (status.failed_blocks, status.left_blocks) == (0, 1)  # its batch is not recorded yet
    later.unlink()
    (status,) = status_of(files)
    assert (status.failed_blocks, status.left_blocks) == (1, 0)
    Parts(files.parts("mosaic")).write("75-0000", "k", pd.DataFrame({"n": [1]}), {})
    (status,) = status_of(files)
    assert (status.failed_blocks, status.left_blocks, status.done_blocks) == (0, 0, 1)


def test_the_rate_is_that_of_the_drivers_at_work_each_by_its_own_clock(tmp_path):
    files = Workspace(tmp_path)
    files.journals.mkdir(parents=True)
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def ended(driver: str, minute: float, batch: str) -> None:
        """All hundred lines of a batch within some milliseconds, as they are written."""
        with open(files.journals / f"{driver}.jsonl", "a") as file:
            for k in range(100):
                at = start + timedelta(minutes=minute, milliseconds=k / 10)
                line = {"stage": "mosaic", "batch": batch, "block": [0, k], "state": "done"}
                file.write(json.dumps({"time": at.isoformat(), **line, "seconds": 1.0}) + "\n")

    def planned(driver: str, minute: float, batches: str, stage: str = "mosaic") -> None:
        plan = {f"{batches}{k}": {"key": "k", "blocks": 100, "cells": 1} for k in range(50)}
        told = {"driver": driver, "batches": plan}
        told["time"] = (start + timedelta(minutes=minute)).isoformat()
        (files.journals / f"{stage}.{driver}.plan.json").write_text(json.dumps(told))

    def rate() -> float | None:
        status = status_of(files)[0]
        if status.blocks_per_s is not None:
            assert status.seconds_left == status.left_blocks / status.blocks_per_s
        return status.blocks_per_s

    planned("a", 0, "a")
    assert rate() is None
    ended("a", 2, "a0")
    assert rate() == pytest.approx(100 / 120, rel=1e-3)
    ended("a", 4, "a1")
    assert rate() == pytest.approx(100 / 120, rel=1e-3)
    # six batches by a burst, every twelve minutes
    for burst in range(1, 5):
        for k in range(6):
            ended("a", 4 + 12 * burst + k / 20, f"a{6 * burst + k}")
    assert rate() == pytest.approx(600 / 720, rel=0.01)
    # slow ones
    ended("a", 102, "a40")
    ended("a", 152, "a41")
    slow = 100 / 3000
    assert rate() == pytest.approx(slow, rel=0.01)
    # another, whose clock is hours ahead
    planned("b", 1000, "b")
    ended("b", 1002, "b0")
    assert rate() == pytest.approx(slow + 100 / 120, rel=0.01)
    # killed, and another in its place, with the same batches
    planned("c", 1003, "b")
    ended("c", 1004, "b1")
    assert rate() == pytest.approx(slow + 100 / 60, rel=0.01)
    # who goes on to the next stage is at this one no more
    planned("a", 153, "a", stage="landcover")
    assert rate() == pytest.approx(100 / 60, rel=0.01)
    planned("a", 154, "a")
    ended("a", 155, "a42")
    assert rate() == pytest.approx(2 * 100 / 60, rel=0.01)
    # nor who has not written for long, by the file server's clock
    old = (files.journals / "a.jsonl").stat().st_mtime - 3600
    os.utime(files.journals / "a.jsonl", (old, old))
    assert rate() == pytest.approx(100 / 60, rel=0.01)


def test_a_store_that_is_away_is_not_asked_for_everything(client, tmp_path, monkeypatch):
    """Tasks that wait for another attempt keep others from being begun."""
    for n in range(60):
        (tmp_path / f"{n}.OSError").write_text("1")
    monkeypatch.setattr(batching, "wait_before", lambda attempt: 0.5)
    monkeypatch.setattr(flying, "_AHEAD_S", 0)  # two tasks a slot, however short
    waiting, plain = [], Flight.again

    def counting(self, *args):
        plain(self, *args)
        waiting.append(len(self._later))

    monkeypatch.setattr(Flight, "again", counting)
    outcome, _ = run(client, tmp_path, plan(n=60))
    assert outcome.failures == []
    # those in flight when it began, and what of the batches begun was ready
    assert 0 < max(waiting) <= 2 * slots(client, None) + 3


def at_work(nanny: Nanny, known: Collection[str]) -> bool:
    started = nanny.process is not None and nanny.process.status is Status.running
    return nanny.status is Status.running and started and nanny.worker_address in known


def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path, monkeypatch):
    monkeypatch.setattr(flying, "_LOOK_S", 0.2)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set(
            {"distributed.deploy.lost-worker-timeout": "1h"}
        ),  # as on a cluster of ours
        LocalCluster(**options, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        stop, killed = threading.Event(), []

        def kill():
            rng = np.random.default_rng(0)
            # no more than some: a new one takes seconds to come, and is killed within one
            while len(killed) < 8 and not stop.wait(0.7):
                # one at work: a nanny whose worker dies while it starts gives up
                known = client.scheduler_info(n_workers=-1)["workers"]
                pids = [n.pid for n in cluster.workers.values() if at_work(n, known)]
                if pids:
                    with suppress(ProcessLookupError):
                        os.kill(int(rng.choice(pids)), signal.SIGKILL)
                        killed.append(pids)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            outcome, parts = run(
                client, tmp_path, plan(n=240, per_task=4, per_batch=4), 0.02, attempts=99
            )
        finally:
            stop.set()
            killer.join()
    assert len(killed) >= 3
    assert outcome.failures == []
    assert parts.read(outcome.done)["square"].tolist() == [n * n for n in range(240)]


def test_an_outcome_without_failures_is_whole():
    Outcome(done=["a"]).require_whole("mosaic")
    assert isinstance(Failure.of(OSError("x\ny"), "b", [(0, 1)], 2), Failure)


def test_workers_that_all_stay_paused_end_the_run_with_advice(client, tmp_path, monkeypatch):
    """As Dask leaves those whose memory is nearly full: nothing would ever go on."""
    plain = Client.scheduler_info

    def paused(self, **options):
        told = plain(self, **options)
        for worker in told["workers"].values():
            worker["status"] = "paused"
        return told

    monkeypatch.setattr(Client, "scheduler_info", paused)
    monkeypatch.setattr(flying, "_LOOK_S", 0.1)
    monkeypatch.setattr(flying, "_PAUSED_S", 0.5)
    with pytest.raises(ClusterError, match="all 2 workers have been paused"):
        run(client, tmp_path, plan(n=4), seconds=3)


@pytest.mark.parametrize("back", [True, False])
def test_results_lost_with_the_last_worker_are_made_again_by_the_next(tmp_path, monkeypatch, back):
    """Nothing is fetched before all workers are gone; without another the run ends, and says so."""
    monkeypatch.setattr(flying, "_LOOK_S", 0.1)
    monkeypatch.setattr(flying, "_FETCH_S", 2.0)
    monkeypatch.setattr(flying, "_ALONE_S", 120 if back else 1.0)
    plain, found = Flight._fetch, []
    with processes(tmp_path, workers=1) as cluster, Client(cluster.address) as client:
        client.wait_for_workers(1)

        def lonely(flight, futures):
            if futures and not found:
                cluster.kill("worker-0")
                while client.scheduler_info(n_workers=-1)["workers"]:
                    time.sleep(0.05)
                begun = time.monotonic()
                found.append(plain(flight, futures))
                # not one after the other
                assert time.monotonic() - begun < 2.5 * flying._FETCH_S
                if back:
                    cluster.mend()
                return found[0]
            return plain(flight, futures)

        monkeypatch.setattr(Flight, "_fetch", lonely)
        if back:
            outcome, parts = run(client, tmp_path, plan(n=8), attempts=1)
            assert parts.read(outcome.done)["square"].tolist() == [n * n for n in range(8)]
        else:
            with pytest.raises(ClusterError, match="there has been no worker for"):
                run(client, tmp_path, plan(n=8), attempts=1)
        assert found[0] == {}
