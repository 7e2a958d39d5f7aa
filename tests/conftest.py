"""What several test files share: quiet TensorFlow, the real extracts, a small trained-shape model."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest
from hypothesis import settings

from tests.compiled_lines import pytest_runtestloop  # noqa: F401  (a hook)

# a machine that others use too is no fault of the code's
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the real extracts; tests that need it skip where it is absent."""
    if not REALDATA.is_dir():
        pytest.skip("the folder of real extracts (shared/realdata) is absent")
    return REALDATA


@pytest.fixture(autouse=True, scope="module")
def own_threads():
    """After a module, Dask computes on threads again.

    Workers within this process make clients of their own, and whichever is closed last puts back what it
    found: a cluster that may be gone.
    """
    yield
    import dask

    dask.config.set(scheduler=None)


@pytest.fixture(scope="session")
def scheduler():
    """Address of one in-process cluster, so that runs share compiled networks."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def networks():
    """Two networks of one small architecture with different random weights."""
    import keras
    import numpy as np

    from sesgrid.kernels.network import NetworkSpec, build_network

    spec = NetworkSpec(64, 5, max_pool=True, batch_norm_momentum=0.5)
    models = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        model = build_network(spec, None)
        # batch statistics of real inputs, so that neither maps nor logits vanish or explode
        images = np.random.default_rng(seed).uniform(0, 255, (8, 64, 64, 3)).astype("float32")
        for _ in range(8):
            model(images, training=True)
        models.append(model)
    return spec, models


@pytest.fixture(scope="session")
def s3():
    """URL of a bucket on a real S3 server on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        client = boto3.client(
            "s3", endpoint_url=settings["AWS_ENDPOINT_URL"], region_name="us-east-1"
        )
        client.create_bucket(Bucket="maps")
        yield "s3://maps", client
    server.stop()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own, of 256 KB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Leave so many bytes of room on a disk."""
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - leave))


@pytest.fixture
def tiny_backbone(monkeypatch):
    """The name of a backbone of a few hundred numbers that trains in no time, with all that holds state."""
    import dataclasses

    import keras

    from sesgrid.kernels.backbones import BACKBONES, Backbone

    class Tiny(Backbone):
        def build(self, weights, scaling="backbone", drop_connect_rate=0.2):
            layers = keras.layers
            x = image = keras.Input((None, None, 3), name="image")
            x = layers.Rescaling(1 / 255)(x)
            x = layers.Conv2D(6, 5, 4, padding="same", name="stem")(x)
            x = layers.Activation("relu")(layers.BatchNormalization(name="stem_bn")(x))
            x = layers.Dropout(max(drop_connect_rate, 0.2), name="drop")(x)
            x = layers.Conv2D(8, 3, 4, padding="same", activation="relu", name="top_conv")(x)
            model = keras.Model(image, x)
            if weights is not None:
                model.load_weights(weights)
            return model

    tiny = Tiny(**dataclasses.asdict(dataclasses.replace(BACKBONES["vgg16"], name="tiny")))
    monkeypatch.setitem(BACKBONES, "tiny", tiny)
    return "tiny"
