"""The course of a training, against Keras' own callbacks on the same losses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesgrid.stages.course import Course
from sesgrid.stages.protocol import PROTOCOLS, protocol_named

losses = st.lists(st.floats(0.1, 3).map(lambda v: round(v, 3)), min_size=1, max_size=40)


def followed(protocol, of_training, of_validation):
    """Courses after each epoch, until it is finished."""
    courses = [Course.begin(protocol)]
    for loss, val_loss in zip(of_training, of_validation, strict=True):
        courses.append(courses[-1].after(protocol, loss, val_loss))
        if courses[-1].finished:
            break
    return courses


class Stub(keras.Model):
    """As much of a model as callbacks touch."""

    def __init__(self, rate):
        super().__init__()
        self.optimizer = keras.optimizers.SGD(rate)
        self.stop_training = False


@given(losses, st.integers(1, 4))
def test_plateau_is_keras(of_training, patience):
    protocol = protocol_named("reference", schedule_epochs=patience, patience=99, restarts=0)
    theirs = keras.callbacks.ReduceLROnPlateau("loss", 0.25, patience, min_lr=1e-8)
    model = Stub(protocol.learning_rate)
    theirs.set_model(model)
    theirs.on_train_begin()
    ours = followed(protocol, of_training, of_training)
    for epoch, loss in enumerate(of_training):
        theirs.on_epoch_end(epoch, {"loss": loss})
        expected = float(np.asarray(model.optimizer.learning_rate))
        assert ours[epoch + 1].learning_rate == pytest.approx(expected, rel=1e-5)


@given(losses, st.integers(1, 6))
def test_stopping_is_keras(of_validation, patience):
    protocol = protocol_named("paper", patience=patience, epochs=60)
    theirs = keras.callbacks.EarlyStopping("val_loss", patience=patience)
    model = Stub(1.0)
    theirs.set_model(model)
    theirs.on_train_begin()
    ours = followed(protocol, of_validation, of_validation)
    for epoch, loss in enumerate(of_validation[: len(ours) - 1]):
        theirs.on_epoch_end(epoch, {"val_loss": loss})
        assert model.stop_training == ours[epoch + 1].finished
    seen = of_validation[: len(ours) - 1]
    assert ours[-1].best == min(seen)
    assert ours[-1].best_epoch == int(np.argmin(seen))


def test_steps_of_the_paper():
    courses = followed(PROTOCOLS["paper"], [1.0] * 9, np.linspace(1, 0.5, 9))
    rates = [c.learning_rate for c in courses]
    assert rates[:9] == pytest.approx([8e-5] * 3 + [8e-6] * 3 + [8e-7] * 3)


def test_cosine_falls_to_zero_and_the_last_epoch_ends():
    protocol = protocol_named("scratch", epochs=4)
    courses = followed(protocol, [1.0] * 9, np.linspace(1, 0.5, 9))
    rates = [c.learning_rate for c in courses]
    half = 0.5 * (1 + np.cos(np.pi * np.arange(5) / 4))
    assert rates == pytest.approx(1e-3 * half)
    assert [c.finished for c in courses] == [False] * 4 + [True]


def test_restarts_take_half_the_rate_and_count_their_own_patience():
    protocol = protocol_named("reference", patience=2, restarts=2, epochs=50)
    courses = followed(protocol, [1.0] * 20, [1.0] + [2.0] * 19)
    assert [c.restart for c in courses] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert [c.restarts_now for c in courses].index(True) == 3
    assert courses[3].learning_rate == pytest.approx(4e-5)
    assert courses[5].learning_rate == pytest.approx(2e-5)
    assert courses[-1].finished
    assert not courses[-1].restarts_now
    assert courses[-1].best_epoch == 0
