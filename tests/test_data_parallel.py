"""Two devices that share every batch train as one does; on a processor cut in two, with JAX."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sesgrid.errors import ConfigError
from sesgrid.kernels.backend import share_batches

SCRIPT = """
import json, sys
import numpy as np
import xarray as xr
from sesgrid.grid import Extent, Grid
from sesgrid.kernels.backend import share_batches
from sesgrid.stages.protocol import protocol_named
from sesgrid.stages.train import Fold, train_fold
from sesgrid.store.models import history_of

rng = np.random.default_rng(0)
rows = np.stack([np.arange(13) // 4, np.arange(13) % 4], axis=1)
extent = Extent.of_cells(Grid(32, 4), rows[:, 0], rows[:, 1])
image = rng.integers(0, 256, (3, *extent.shape_px), dtype=np.uint8)
image = xr.DataArray(image, dims=("band", "y", "x"), attrs=extent.attributes())
protocol = protocol_named(
    "scratch", backbone="vgg16", epochs=2, batch_size=4, crop_share=1.0, data_parallel=True
)
fold = Fold(
    "x-random0", 0, sys.argv[1], rows, np.arange(13) % 3, np.ones(13, np.float32),
    np.arange(13) >= 8, 3, protocol, 1,
)
ref = train_fold(fold, image)
import jax
print(json.dumps([share_batches(), len(jax.devices()), history_of(ref)["loss"]]))
"""


def trained(folder, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(folder / f"{devices}.keras")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.long
def test_two_devices_train_as_one(tmp_path):
    one, two = trained(tmp_path, 1), trained(tmp_path, 2)
    assert one[:2] == [1, 1]
    assert two[:2] == [2, 2]
    assert two[2] == pytest.approx(one[2], rel=1e-3)


def test_other_backends_are_refused():
    with pytest.raises(ConfigError, match="KERAS_BACKEND=jax"):
        share_batches()
