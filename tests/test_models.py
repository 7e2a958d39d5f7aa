"""Model files: hashed, matched with their card, loaded in safe mode."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from sesgrid.errors import MissingInputError, ModelMismatchError
from sesgrid.store.models import ModelRef, save_model

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


@pytest.mark.parametrize("text", ["{", "[]", '{"model_id": "x"}', "null"])
def test_a_broken_card_is_named(tmp_path, text):
    path = tmp_path / "fold-0.keras"
    path.touch()
    path.with_suffix(".json").write_text(text)
    with pytest.raises(ModelMismatchError, match=r"fold-0\.json is not a model's card"):
        ModelRef.open(path)


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
    from sesgrid.store.models import file_sha256

    card = {**CARD, "model_id": "evil", "sha256": file_sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"[Ll]ambda|safe_mode|unsafe"):
        ModelRef.open(path).load()
