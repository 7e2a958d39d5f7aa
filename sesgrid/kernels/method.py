"""Variants of guided Grad-CAM, by name or by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sesgrid.errors import ConfigError

__all__ = ["PRESETS", "Method", "method_named"]


@dataclass(frozen=True)
class Method:
    """How a cell is explained.

    For a class k with probability P(k), features A of a layer and the image I::

        cam_k         = Σ_c mean_yx(dP(k)/dA_c) · A_c, on the layer's own grid
        sensitivity_k = Σ_band |dP(k)/dI|, through gates or not
        map_k         = normalised(cam_k), resized bilinearly · sensitivity_k, clipped

    Abitbol & Karsai 2020 describe ``paper``; ``reference`` is what their released code computes.
    """

    name: str = "paper"
    layer: str = "top_activation"
    """Whose output the cam is made on; any layer with spatial axes."""
    gates: Literal["guided", "none"] = "guided"
    """"guided": at every swish only positive gradients pass, and only through positive activations
    (squeeze-and-excite is not gated); "none": the plain gradient."""
    cam: Literal["relu", "centred"] = "relu"
    """"relu": ReLU, then resized. "centred": the mean taken off, resized, ReLU, divided by its maximum."""
    clip_percentile: float | None = None
    """Values of a cell's map above this percentile of all its pixels are set to it; None: no clipping."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order in which the image is shown to the network."""

    def __post_init__(self) -> None:
        choices = {
            "gates": ("guided", "none"), "cam": ("relu", "centred"), "channels": ("rgb", "bgr"),
        }  # fmt: skip
        for key, known in choices.items():
            if getattr(self, key) not in known:
                raise ConfigError(
                    f"{key}: expected one of {', '.join(known)}, received {getattr(self, key)!r}"
                )
        q = self.clip_percentile
        if q is not None and not 0 < q <= 100:
            raise ConfigError(f"clip_percentile: expected above 0 and up to 100, received {q}")


PRESETS = {
    "paper": Method(),
    "reference": Method("reference", "top_conv", "none", "centred", 99.0, "bgr"),
}


def method_named(preset: str, **changes: object) -> Method:
    """A preset, with changes that are not None; a changed one is named ``preset, changed: …``.

    Raises
    ------
    ConfigError
        No such preset, or a change that is not one of a method's choices.

    Examples
    --------
    >>> method_named("paper", clip_percentile=99.0).name
    'paper, changed: clip_percentile=99.0'
    """
    from dataclasses import replace

    if preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, received {preset!r}")
    base = PRESETS[preset]
    real = {k: v for k, v in changes.items() if v is not None and v != getattr(base, k)}
    if not real:
        return base
    name = ", ".join(f"{k}={v}" for k, v in real.items())
    return replace(base, name=f"{preset}, changed: {name}", **real)  # type: ignore[arg-type]
