"""What several test files share: quiet TensorFlow, the real extracts, a small trained-shape model."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest

REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the real extracts; tests that need it skip where it is absent."""
    if not REALDATA.is_dir():
        pytest.skip("the folder of real extracts (shared/realdata) is absent")
    return REALDATA


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
