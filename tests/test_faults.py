"""What happens to a run when machines die: real processes, real signals, the same result to the last byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.elsewhere import configure, finish, make
from tests.processes import cluster, result_of, same
from tests.proxy import misbehave, proxy

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return make(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def undisturbed(city):
    folder = city[0] / "undisturbed"
    toml = configure(city, folder)
    with cluster(folder / "logs") as machines:
        finish(machines, toml)
    found = result_of(folder / "result")
    assert sum(k.startswith("record mosaic") for k in found) >= 3
    assert sum(k.startswith("image") for k in found) > 200
    return found


def test_twenty_kills_at_random_moments_change_nothing(city, undisturbed, tmp_path):
    """Workers, drivers and schedulers, one after the other, in the middle of whatever they do."""
    rng, killed = np.random.default_rng(0), []
    for turn in range(20):
        folder = tmp_path / str(turn)
        toml = configure(city, folder)
        with cluster(folder / "logs") as machines:
            while True:
                machines.mend()
                driver = machines.drive("explain", str(toml))
                next_kill = time.monotonic() + rng.uniform(2, 9)
                while driver.poll() is None:
                    time.sleep(0.05)
                    machines.mend()
                    if time.monotonic() > next_kill and len(killed) < 24:
                        names = ["worker-0", "worker-1", "driver", "scheduler"]
                        killed.append(str(rng.choice(names, p=[0.3, 0.3, 0.25, 0.15])))
                        machines.kill(killed[-1])
                        next_kill = time.monotonic() + rng.uniform(1, 6)
                if driver.returncode == 0:
                    break
                # killed, or it says that it lost the scheduler
                assert driver.returncode in (-9, 2), machines.said()[-3000:]
        assert same(result_of(folder / "result"), undisturbed) == []
        shutil.rmtree(folder)
        if len(killed) >= 20:
            break
    assert len(killed) >= 20
    assert {"worker-0", "worker-1", "driver", "scheduler"} <= set(killed)


def test_a_worker_over_its_memory_limit_is_told_and_the_rest_goes_on_later(
    city, undisturbed, tmp_path
):
    toml = configure(city, tmp_path)
    settings = {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
    }
    # enough for pixels, not for a network
    with cluster(tmp_path / "logs", workers=1, memory="640MB", environment=settings) as machines:
        driver = machines.drive("explain", str(toml))
        # each of four attempts takes a worker with it, and there are minutes between them
        assert driver.wait(600) == 2
        assert "KilledWorker" in machines.said()
        assert "landcover: not done yet" in machines.said()
    with cluster(tmp_path / "more") as machines:
        finish(machines, toml)
        assert "mosaic: up to date" in machines.said()
    assert same(result_of(tmp_path / "result"), undisturbed) == []


def test_a_tile_that_vanishes_in_the_middle_and_comes_back(city, undisturbed, tmp_path):
    base, made = city
    ortho = shutil.copytree(made.ortho, tmp_path / "ortho", copy_function=shutil.copy2)
    toml = configure((base, replace(made, ortho=ortho)), tmp_path)
    # of those that show the most the southernmost, which is read last
    fullest = sorted(ortho.rglob("*.jp2"), key=lambda p: p.stat().st_size)[-12:]
    tile = min(fullest, key=lambda p: p.name.split("-")[3])
    planned = tmp_path / "result" / "work" / "journal" / "mosaic.plan.json"
    with cluster(tmp_path / "logs") as machines:
        driver = machines.drive("landcover", str(toml))
        while not planned.exists():
            time.sleep(0.01)
        tile.rename(tmp_path / "away.jp2")
        assert driver.wait(200) == 1, machines.said()
        assert tile.name in machines.said()
        (tmp_path / "away.jp2").rename(tile)
        finish(machines, toml)
    found = result_of(tmp_path / "result")
    # the tiles lie elsewhere, which the records tell by nothing but their names
    assert same(found, undisturbed) == []


def test_a_store_that_refuses_breaks_off_or_is_away(city, undisturbed, tmp_path):
    """S3 behind a proxy: refusals that the client's own retries do not hide."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    stop = threading.Event()
    try:
        host, port = server.get_host_and_port()
        with proxy((host, port)) as between:
            url = f"http://127.0.0.1:{between.server_port}"
            settings = {**keys, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}
            direct = boto3.client(
                "s3",
                endpoint_url=f"http://{host}:{port}",
                aws_access_key_id="test",
                aws_secret_access_key="test",
                region_name="us-east-1",
            )
            direct.create_bucket(Bucket="cubes")
            toml = configure(city, tmp_path, '[cube]\npath = "s3://cubes/ville.zarr"\n')
            troubles = []
            script = [("well", 2), ("403", 6), ("well", 2), ("500", 6), ("well", 2), ("drop", 6),
                      ("well", 2), ("away", 14)]  # fmt: skip
            with cluster(tmp_path / "logs", environment=settings) as machines:
                # while blocks are written, and while cells are read
                for stage, first in (("landcover", "mosaic"), ("explain", "predict")):
                    stop.clear()
                    between.refused.clear()
                    driver = machines.drive(stage, str(toml))
                    while f"{first}: not done yet" not in machines.said():
                        time.sleep(0.05)
                    time.sleep(2)
                    trouble = threading.Thread(target=misbehave, args=(between, script, stop))
                    trouble.start()
                    assert driver.wait(900) in (0, 1, 2), machines.said()[-3000:]
                    stop.set()
                    trouble.join()
                    troubles.append(set(between.refused))
                    finish(machines, toml, stage)
            assert all(found & {"403", "500", "drop", "away"} for found in troubles)
            assert "Traceback" not in machines.said()
        pixels, found = "ville.zarr/pixels/", result_of(tmp_path / "result")
        pages = direct.get_paginator("list_objects_v2").paginate(Bucket="cubes", Prefix=pixels)
        for page in pages:
            for entry in page["Contents"]:
                if "/c/" in entry["Key"]:
                    body = direct.get_object(Bucket="cubes", Key=entry["Key"])["Body"].read()
                    found[entry["Key"].removeprefix(pixels)] = body
        assert same(found, undisturbed) == []
    finally:
        stop.set()
        server.stop()


@pytest.fixture
def small_disk(tmp_path):
    """A disk that holds a part of the results, and what gives it more room."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    mount("size=6m")
    try:
        yield folder, lambda: mount("remount,size=100m")
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def test_a_disk_that_is_full_and_is_given_room(city, undisturbed, small_disk, tmp_path):
    folder, more = small_disk
    toml = configure(city, folder)
    with cluster(tmp_path / "logs") as machines:
        driver = machines.drive("landcover", str(toml))
        assert driver.wait(300) in (1, 2), machines.said()[-3000:]
        assert "No space left on device" in machines.said()
        more()
        finish(machines, toml)
    assert same(result_of(folder / "result"), undisturbed) == []


@pytest.fixture
def other_side():
    """A network of its own, joined to this one by a cable: (its name, our address, the cable's end)."""
    name = f"sg{os.getpid() % 10000}"
    beside = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    ours, theirs = f"10.77.{31 + int(beside)}.1", f"10.77.{31 + int(beside)}.2"
    commands = [
        f"ip netns add {name}",
        f"ip link add {name}a type veth peer name {name}b",
        f"ip link set {name}b netns {name}",
        f"ip addr add {ours}/24 dev {name}a",
        f"ip link set {name}a up",
        f"ip netns exec {name} ip addr add {theirs}/24 dev {name}b",
        f"ip netns exec {name} ip link set {name}b up",
        f"ip netns exec {name} ip link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not to be had here: {done.stderr.strip()}")
        yield name, ours, f"{name}a"
    finally:
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.parametrize("cut_s", [20, 60])
def test_a_network_that_is_cut_between_worker_and_scheduler(
    city, undisturbed, tmp_path, other_side, cut_s
):
    """After 20 seconds nothing is lost; after 60 the worker is gone, and another one goes on."""
    name, address, cable = other_side
    toml = configure(city, tmp_path)
    through = ("ip", "netns", "exec", name)
    with cluster(tmp_path / "logs", workers=1, host=address, before_worker=through) as machines:
        driver = machines.drive("explain", str(toml))
        until = time.monotonic() + 120
        while not list((tmp_path / "result" / "work" / "journal").glob("*.jsonl")):
            assert time.monotonic() < until, machines.said()
            time.sleep(0.02)
        subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        time.sleep(cut_s)
        assert driver.poll() is None, machines.said()
        subprocess.run(["ip", "link", "set", cable, "up"], check=True)
        until = time.monotonic() + 300
        while driver.poll() is None:
            assert time.monotonic() < until, machines.said()[-2000:]
            time.sleep(0.2)
            machines.mend()
        assert driver.returncode == 0, machines.said()[-3000:]
        # the one that was there, or it and another in its place
        assert machines.said("worker-0").count("Start worker at") == (1 if cut_s == 20 else 2)
    assert same(result_of(tmp_path / "result"), undisturbed) == []
