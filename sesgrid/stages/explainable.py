"""Can a network be explained? Asked before it is trained for hours."""

from __future__ import annotations

from sesgrid.kernels.backend import start_backend
from sesgrid.kernels.device import DEVICE_LOCK
from sesgrid.kernels.method import Method
from sesgrid.stages.protocol import Protocol

__all__ = ["require_explainable"]

_PIXELS, _CLASSES = 64, 2
"""Neither size nor number of classes matters to the layers."""


def require_explainable(protocol: Protocol, method: Method) -> None:
    """Refuse a network that a method could not explain; builds it with random weights.

    Raises
    ------
    ModelMismatchError
        It has no such layer, or what follows the layer cannot be cut off there.
    """
    with DEVICE_LOCK:
        start_backend()
        from sesgrid.kernels.network import build_network
        from sesgrid.kernels.saliency import Explainer
        from sesgrid.stages.fit import network_spec

        Explainer(build_network(network_spec(protocol, _PIXELS, _CLASSES), weights=None), method)
