"""Weights drawn anew from the top of a network downwards, for the randomisation test of its maps.

An explanation that stays as it is when what the network learnt is taken away explains the image, not the
network (Adebayo et al. 2018, *Sanity Checks for Saliency Maps*, NeurIPS, §3: cascading randomisation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from sesgrid.kernels.saliency import Explainer

__all__ = ["cascade", "reinitialised"]


def reinitialised(model: keras.Model, seed: int) -> keras.Model:
    """The same architecture, untrained: every weight from its layer's own initializer.

    Parameters
    ----------
    model : keras.Model
        Flat and functional.
    seed : int
        The same one gives the same weights.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(1 << 14).tolist())

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        for key, value in config.items():
            if key.endswith("_initializer") and "seed" in (value or {}).get("config", {}):
                value["config"]["seed"] = next(seeds)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=clone)


def cascade(
    explainer: Explainer, model: keras.Model, fresh: keras.Model, steps: int
) -> Iterator[tuple[str, int, tuple[list[Any], list[Any]]]]:
    """The model's weights with ever more layers drawn anew: first the last one alone, at the end all.

    Parameters
    ----------
    explainer : Explainer
        Of the model's architecture.
    model, fresh : keras.Model
        The trained one, and one of the same architecture that is not (`reinitialised`).
    steps : int
        At least 1; fewer are made where the network has fewer layers.

    Yields
    ------
    name : str
        The lowest layer that was drawn anew.
    n_layers : int
        How many were.
    weights : as from `Explainer.weights_of`
    """
    trained, drawn = explainer.weights_of(model), explainer.weights_of(fresh)
    # what scales the image's colours was set, not learnt
    names = [
        x.name for x in reversed(model.layers) if x.weights and not isinstance(x, layers.Normalization)
    ]  # fmt: skip
    ends = np.unique(np.linspace(1, len(names), steps).round().astype(int))
    for end in ends.tolist():
        yield names[end - 1], end, explainer.mixed(trained, drawn, frozenset(names[:end]))
