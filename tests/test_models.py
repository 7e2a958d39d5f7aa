"""Model files: hashed, matched with their card, loaded in safe mode."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from sesgrid.errors import MissingInputError, ModelMismatchError, StoreError
from sesgrid.kernels.backbones import CaffeScaling, MinMaxScaling
from sesgrid.kernels.heads import HEADS, add_head
from sesgrid.kernels.network import NetworkSpec, build_network
from sesgrid.stages.predict import trained_void
from sesgrid.store import models
from sesgrid.store.models import ModelRef, file_sha256, history_of, save_model
from tests.conftest import fill

CARD = {"pixels_per_cell": 64, "n_classes": 5, "city": "x"}


def test_a_saved_model_comes_back_the_same(networks, tmp_path):
    _, (model, _) = networks
    ref = save_model(model, tmp_path / "fold-0.keras", model_id="x-fold0", card=CARD)
    assert ModelRef.open(tmp_path / "fold-0.keras") == ref
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(
        ref.load()(image).numpy(), model(image).numpy(), rtol=1e-5, atol=1e-6
    )
    assert ref.load() is ref.load()
    assert not list(tmp_path.glob(".*"))


def test_card_and_weights_belong_together(networks, tmp_path):
    _, (model, other) = networks
    path = tmp_path / "fold-0.keras"
    save_model(model, path, model_id="x-fold0", card=CARD)
    other.save(path)
    with pytest.raises(ModelMismatchError, match="do not belong together"):
        ModelRef.open(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(MissingInputError, match=r"fold-0\.json is missing"):
        ModelRef.open(path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"model_id": "x"}',
        "null",
        "[" * 20_000,
        json.dumps({**CARD, "model_id": ["x"], "sha256": ""}),
        json.dumps({**CARD, "model_id": "x", "sha256": None}),
        json.dumps({**CARD, "model_id": "x", "sha256": "", "n_classes": 1e999}),
    ],
)
def test_a_broken_card_is_named(tmp_path, text):
    path = tmp_path / "fold-0.keras"
    path.touch()
    path.with_suffix(".json").write_text(text)
    with pytest.raises(ModelMismatchError, match=r"fold-0\.json .* it is not a model's card"):
        ModelRef.open(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"history": None},
        {"history": {"loss": [1.0]}},
        {"history": {"loss": [], "val_loss": []}},
        {"history": {"loss": [1.0], "val_loss": ["x"]}},
        {"history": {"loss": [1.0], "val_loss": [1.0]}, "protocol": [1]},
        {"history": {"loss": [1.0], "val_loss": [1.0]}, "protocol": {"max_void": "x"}},
    ],
)
def test_what_a_card_tells_of_the_training_is_no_traceback(networks, tmp_path, changes):
    ref = save_model(
        networks[1][0], tmp_path / "fold-0.keras", model_id="f", card={**CARD, **changes}
    )
    with pytest.raises(ModelMismatchError, match=r"fold-0\.json .* it is not a model's card"):
        _ = history_of(ref), trained_void(ref)


def test_a_model_for_another_size_or_number_of_classes_is_refused(networks, tmp_path):
    _, (model, _) = networks
    ref = save_model(model, tmp_path / "m.keras", model_id="x-fold0", card=CARD)
    ref.require(pixels_per_cell=64, n_classes=5)
    with pytest.raises(ModelMismatchError, match="pixels_per_cell = 64, expected 800"):
        ref.require(pixels_per_cell=800, n_classes=5)
    with pytest.raises(ModelMismatchError, match="n_classes = 5, expected 4"):
        ref.require(pixels_per_cell=64, n_classes=4)


def test_code_in_a_model_file_is_not_run(tmp_path):
    path = tmp_path / "evil.keras"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)])
    model.save(path)
    card = {**CARD, "model_id": "evil", "sha256": file_sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelMismatchError, match=r"evil\.keras cannot be read .*or holds code"):
        ModelRef.open(path).load()


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "other.keras"
    path.write_bytes(b"PK\x03\x04 and no more")
    card = {**CARD, "model_id": "other", "sha256": file_sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelMismatchError, match=r"other\.keras cannot be read"):
        ModelRef.open(path).load()


def test_a_card_of_another_number_of_classes_is_refused(tiny_backbone, tmp_path):
    model = build_network(NetworkSpec(64, 3, backbone=tiny_backbone), None)
    ref = save_model(model, tmp_path / "m.keras", model_id="x", card=CARD)
    with pytest.raises(ModelMismatchError, match=r"card says 5 classes, the network tells 3"):
        ref.load()


@pytest.mark.parametrize("module", ["builtins", "sesgrid_evil", "tests.sesgrid_evil"])
def test_no_module_is_imported_for_a_model_file(tmp_path, monkeypatch, module):
    """A layer's class may be named by its module, which a file must not choose."""
    ran = tmp_path / "ran"
    (tmp_path / "sesgrid_evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "evil.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(5, name="d")]).save(path)
    edit_config(path, {"module": module, "class_name": "Evil", "registered_name": "Evil"})
    card = {**CARD, "model_id": "evil", "sha256": file_sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelMismatchError, match=r"evil\.keras cannot be read") as raised:
        ModelRef.open(path).load()
    assert re.search(r"Could not (locate|deserialize) class 'Evil'", str(raised.value.__cause__))
    assert not ran.exists()


def edit_config(path, changes):
    """Change how the file names the class of its dense layer."""
    with zipfile.ZipFile(path) as file:
        content = {n: file.read(n) for n in file.namelist()}
    config = json.loads(content["config.json"])
    next(x for x in config["config"]["layers"] if x["class_name"] == "Dense").update(changes)
    content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


@pytest.mark.parametrize("leave", [0, 8192])
def test_on_a_full_disk_the_model_before_stays(tiny_backbone, small_disk, leave):
    keras.utils.set_random_seed(0)
    models = [build_network(NetworkSpec(64, 5, backbone=tiny_backbone), None) for _ in range(2)]
    path = small_disk / "m.keras"
    before = save_model(models[0], path, model_id="x", card=CARD)
    fill(small_disk, leave=leave)
    with pytest.raises(StoreError, match=r"m\.keras: the model cannot be written .*checkpoint"):
        save_model(models[1], path, model_id="x", card=CARD)
    assert ModelRef.open(path) == before
    assert {p.name for p in small_disk.iterdir()} == {"m.keras", "m.json", "filler"}
    np.testing.assert_array_equal(
        before.load().get_layer("stem").kernel, models[0].get_layer("stem").kernel
    )


def test_without_room_for_the_card_the_model_before_stays(tiny_backbone, tmp_path, monkeypatch):
    model = build_network(NetworkSpec(64, 5, backbone=tiny_backbone), None)
    before = save_model(model, tmp_path / "m.keras", model_id="x", card=CARD)

    def full(path, content):
        raise StoreError(f"{path} cannot be written (No space left on device)")

    monkeypatch.setattr(models, "write_atomically", full)
    with pytest.raises(StoreError, match=r"m\.keras: the model cannot be written .*before stays"):
        save_model(model, tmp_path / "m.keras", model_id="y", card=CARD)
    assert ModelRef.open(tmp_path / "m.keras") == before
    assert {p.name for p in tmp_path.iterdir()} == {"m.keras", "m.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "opening",
    [
        "from sesgrid.store.models import ModelRef; load = lambda path: ModelRef.open(path).load()",
        "import sesgrid, keras; load = keras.saving.load_model",
        "import keras, sesgrid.errors; load = keras.saving.load_model",
        "import sesgrid; from importlib.util import find_spec; find_spec('keras');"
        "from keras.models import load_model as load",
    ],
    ids=["ModelRef", "sesgrid first", "keras first", "keras looked for"],
)
def test_a_process_that_never_built_a_network_loads_it(tmp_path, opening):
    """With every layer of ours, in safe mode, and by plain Keras."""
    features = MinMaxScaling()(CaffeScaling()(image := keras.Input((None, None, 3))))
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    for head in HEADS:
        model = keras.Model(image, add_head(pooled, head, 5))
        save_model(model, tmp_path / f"{head}.keras", model_id=head, card=CARD)
        x = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
        np.savez(tmp_path / f"{head}.npz", x=x, y=model(x))
    code = (
        f"{opening}; import sys, numpy as np; from pathlib import Path; folder = Path(sys.argv[1]);"
        "files = {n: np.load(folder / f'{n}.npz') for n in sys.argv[2:]};"
        "[np.testing.assert_array_equal(load(folder / f'{n}.keras')(f['x']), f['y'])"
        " for n, f in files.items()]"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), *HEADS], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
