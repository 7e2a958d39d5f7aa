"""Plain Keras opens a saved model after ``import sesgrid``: its layers are registered once keras is loaded.

Keras finds layers that are not its own in its registry alone. Filling that imports keras and, with it,
TensorFlow, which reading a census must not do; so it is filled right after whoever needs keras imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["register_with_keras"]

_HOMES = ("sesgrid.kernels.backbones", "sesgrid.kernels.heads")
"""Importing these registers the layers."""


def register_with_keras() -> None:
    """Register the layers now, if keras is loaded, or else right after it is."""
    if hasattr(sys.modules.get("keras"), "saving"):
        _register()
    elif not any(isinstance(each, _KerasFinder) for each in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


def _register() -> None:
    for home in _HOMES:
        import_module(home)


class _KerasFinder:
    """Finds keras where it is, with a loader that registers the layers at its end."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of keras; None for all else."""
        spec = PathFinder.find_spec(name, path) if name == "keras" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
