"""Explaining cells: one pass for all classes, summed per land-cover class, against the obvious ways.

Everybody is given the same cells in memory (uint8) and their class pixels, and returns the sums of the low
and the high map per class. All passes are compiled, on one backend (``--backend tensorflow`` or ``jax``).

- ``explain_vs_naive``: per class a batched forward and backward pass;
- ``explain_vs_reference``: the released code's pattern: per class a batched forward pass with a backward
  pass through the head, and a forward and backward pass image by image;
- ``explain_over_fwd_bwd``: the stage over the bare passes that it needs, forward and backward to the
  input once (preset ``reference``) or forward and twice backward (``paper``).

``--backend jax`` on a GPU also tells cells per second in float32 and bfloat16, and what bounds them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.rounds import describe_machine, interleave, lower_quartile_ratio, report

N_VALUES = 20
_TASKS = 24


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, one preset")
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
    parser.add_argument("--cells", type=int, help="cells to explain")
    parser.add_argument("--part", choices=("all", "contest", "gpu"), default="all")
    return parser.parse_args(argv)


def scene(cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``(cell, y, x, band)`` and classes uint8 ``(cell, y, x)`` in patches, by a seed."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (cells, size // 8, size // 8, 3), dtype=np.uint8)
    grain = rng.integers(0, 128, (cells, size, size, 3), dtype=np.uint8)
    image = image.repeat(8, 1).repeat(8, 2) // 2 + grain
    patches = -(-size // 40)
    classes = rng.integers(0, N_VALUES, (cells, patches, patches), dtype=np.uint8)
    classes = classes.repeat(40, 1).repeat(40, 2)[:, :size, :size]
    return image, np.ascontiguousarray(classes)


class Contest:
    """One architecture, one method, one batch of cells."""

    def __init__(self, preset: str, n_classes: int, image: np.ndarray, classes: np.ndarray) -> None:
        import keras

        from sesgrid.kernels.method import PRESETS
        from sesgrid.kernels.network import NetworkSpec, build_network
        from sesgrid.kernels.saliency import Explainer

        self.method, self.n_classes = PRESETS[preset], n_classes
        self.image, self.classes = image, classes
        keras.utils.set_random_seed(0)
        spec = NetworkSpec(image.shape[1], n_classes, max_pool=preset == "paper")
        self.model = build_network(spec, None)
        for _ in range(8):  # batch statistics of these images, so that nothing vanishes on the way
            self.model(image[:2, :128, :128].astype(np.float32), training=True)
        self.explainer = Explainer(self.model, self.method)
        self.weights = self.explainer.weights_of(self.model)

    def batches(self) -> list[slice]:
        """The batches that a run makes on this device; the naive and the bare passes are given the same."""
        from sesgrid.kernels.device import batch_size_for

        step = batch_size_for(self.image.shape[1])
        return [slice(i, i + step) for i in range(0, len(self.image), step)]

    def stage(self) -> np.ndarray:
        """Ours."""
        from sesgrid.kernels.attribution import attributed_sums

        out = []
        for part in self.batches():
            _, evidence, sensitivity = self.explainer.factors(self.weights, self.image[part])
            out.append(
                attributed_sums(evidence, sensitivity, self.classes[part], N_VALUES, self.method)
            )
        return np.concatenate(out)

    def bare(self) -> Callable[[], Any]:
        """Forward to the logit and backward to the input, once; twice backward where gates need it."""
        from keras import ops

        from sesgrid.kernels.backend import to_numpy
        from sesgrid.kernels.gradient import compiled, vjp

        e = self.explainer

        def passes(trunk, head, image):
            def logit_of(x):
                return e._output_of(e._head, head, e._features(trunk, x))

            logit, back = vjp(logit_of, e._shown(image))
            signs = (-1.0, 1.0) if self.method.gates == "guided" else (1.0,)
            # something small to wait for
            return logit, [
                ops.sum(back(sign * ops.ones_like(logit)), axis=(1, 2)) for sign in signs
            ]

        call = compiled(passes)

        def run() -> None:
            for part in self.batches():
                to_numpy(call(*self.weights, self.image[part])[1][-1])

        return run

    def naive(self, by_image: bool, maps: list[int]) -> Callable[[], np.ndarray]:
        """Class by class; ``by_image``: the released code's pattern."""
        from keras import ops

        from sesgrid.kernels.backend import to_numpy
        from sesgrid.kernels.binomial import log_binomials
        from sesgrid.kernels.gradient import compiled, vjp
        from sesgrid.kernels.saliency import _evidence, _strength

        e, k_all = self.explainer, np.arange(self.n_classes, dtype=np.float32)
        constant = log_binomials(self.n_classes).astype(np.float32)

        def probability(head, features, chosen):
            z = e._output_of(e._gated_head, head, features)[:, None]
            top = self.n_classes - 1
            logs = constant + k_all * ops.log_sigmoid(z) + (top - k_all) * ops.log_sigmoid(-z)
            return ops.sum(ops.exp(logs) * chosen, axis=1)

        def cam_of(trunk, head, image, chosen):
            features = e._features(trunk, e._shown(image))
            p, back = vjp(lambda a: probability(head, a, chosen), features)
            return _evidence(back(ops.ones_like(p)), features)

        def both_of(trunk, head, image, chosen):
            features, to_image = vjp(lambda x: e._features(trunk, x), e._shown(image))
            p, to_features = vjp(lambda a: probability(head, a, chosen), features)
            gradient = to_features(ops.ones_like(p))
            return _evidence(gradient, features), _strength(to_image(gradient))

        def one_of(trunk, head, image, chosen):
            p, back = vjp(
                lambda x: probability(head, e._features(trunk, x), chosen), e._shown(image)
            )
            return _strength(back(ops.ones_like(p)))

        cams, both, one = compiled(cam_of), compiled(both_of), compiled(one_of)

        def run() -> np.ndarray:
            sums = np.zeros((len(self.image), len(maps), N_VALUES))
            for m, k in enumerate(maps):
                chosen = (k_all == k).astype(np.float32)
                if by_image:
                    cam = to_numpy(cams(*self.weights, self.image, chosen))
                    singles = [self.image[i : i + 1] for i in range(len(self.image))]
                    sensitivity = np.concatenate(
                        [to_numpy(one(*self.weights, x, chosen)) for x in singles]
                    )
                else:
                    pairs = [
                        tuple(map(to_numpy, both(*self.weights, self.image[part], chosen)))
                        for part in self.batches()
                    ]
                    cam, sensitivity = (np.concatenate(p) for p in zip(*pairs, strict=True))
                for i, values in enumerate(sensitivity):
                    product = self._finished(cam[i], values)
                    flat = self.classes[i].ravel()
                    sums[i, m] = np.bincount(flat, product.ravel(), N_VALUES)
            return sums

        return run

    def _finished(self, cam: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Enlarge (two small matrix products), multiply, clip."""
        up = _bilinear(len(cam), len(values))

        def enlarge(a: np.ndarray) -> np.ndarray:
            return up @ a @ up.T

        if self.method.cam == "relu":
            product = enlarge(np.maximum(cam, 0)) * values
        else:
            cam = cam - cam.mean()
            cam = np.maximum(enlarge(cam / np.linalg.norm(cam)), 0)
            product = cam / (cam.max() or 1) * values
        q = self.method.clip_percentile
        return product if q is None else np.minimum(product, np.percentile(product, q))


def _bilinear(nodes: int, pixels: int) -> np.ndarray:
    """The weights of nodes ``(pixel, node)``, half-pixel centres."""
    at = np.clip((np.arange(pixels) + 0.5) * nodes / pixels - 0.5, 0, nodes - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(nodes))).astype(np.float32)


def same_findings(ours: np.ndarray, theirs: np.ndarray) -> None:
    """A contest between different answers is none: shares per class, to 1e-3."""
    shares = [a / np.maximum(a.sum(axis=-1, keepdims=True), 1e-300) for a in (ours, theirs)]
    apart = np.abs(shares[0] - shares[1]).max()
    if apart > 1e-3:
        raise SystemExit(f"the contenders disagree: shares of classes differ by {apart:.2g}")


def contest(preset: str, image: np.ndarray, classes: np.ndarray, rounds: int) -> dict[str, float]:
    c = Contest(preset, 5, image, classes)
    rivals = {
        "sesgrid, all classes": c.stage,
        "naive, two classes": c.naive(False, [0, 4]),
        "the released pattern": c.naive(True, [0, 4]),
        "bare passes": c.bare(),
    }
    ours = rivals["sesgrid, all classes"]()
    for name in ("naive, two classes", "the released pattern"):
        same_findings(ours, rivals[name]())
    seconds = interleave(rivals, rounds, repeats=2)
    what = f"\npreset {preset}: {len(image)} cells of {image.shape[1]} px"
    import keras

    report(
        what, seconds, "sesgrid, all classes", ["keras", keras.backend.backend(), "numba"], False
    )
    stage, naive, released, bare = seconds.values()
    return {
        "explain_vs_naive": lower_quartile_ratio(naive, stage),
        "explain_vs_reference": lower_quartile_ratio(released, stage),
        "explain_over_fwd_bwd": 1 / lower_quartile_ratio(bare, stage),
        "cells_per_second": len(image) / float(np.median(stage)),
    }


def ten_classes(image: np.ndarray, classes: np.ndarray, rounds: int) -> dict[str, float]:
    c = Contest("reference", 10, image, classes)
    rivals = {"ours": c.stage, "naive": c.naive(False, list(range(10)))}
    seconds = interleave(rivals, rounds, repeats=1)
    return {"explain_vs_naive_10_classes": lower_quartile_ratio(seconds["naive"], seconds["ours"])}


def precision_effect(image: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """What bfloat16 does to activation ratios: largest and median |difference| of shares."""
    from sesgrid.kernels.attribution import attributed_sums
    from sesgrid.kernels.saliency import Explainer

    c = Contest("reference", 5, image, classes)
    shares = []
    for precision in ("float32", "bfloat16"):
        e = Explainer(c.model, c.method, precision=precision)
        _, evidence, sensitivity = e.factors(c.weights, image)
        sums = attributed_sums(evidence, sensitivity, classes, N_VALUES, c.method)
        shares.append(sums / np.maximum(sums.sum(axis=-1, keepdims=True), 1e-300))
    area = np.stack([np.bincount(x.ravel(), minlength=N_VALUES) / x.size for x in classes])
    ratios = [s / np.where(area > 0, area, np.nan)[:, np.newaxis] for s in shares]
    apart = np.abs(ratios[1] - ratios[0])
    apart = apart[np.isfinite(apart)]
    return {
        "bfloat16_ratio_difference_median": float(np.median(apart)),
        "bfloat16_ratio_difference_largest": float(apart.max()),
    }


def on_a_gpu(image: np.ndarray, classes: np.ndarray, threads: int = 6) -> dict[str, Any]:
    """Cells per second of the whole stage fed from memory, and what bounds them (JAX)."""
    import jax

    found: dict[str, Any] = {"device": str(jax.devices()[0].device_kind)}
    for preset in ("reference", "paper"):
        c = Contest(preset, 5, image, classes)
        for precision in ("float32", "bfloat16"):
            name = f"{preset}, {precision}"
            found[name] = _fed_from_memory(c, precision, threads)
            print(f"  {name}: {found[name]}", flush=True)
    return found


def _fed_from_memory(c: Contest, precision: str, threads: int) -> dict[str, float]:
    import jax

    from sesgrid.kernels.attribution import attributed_sums
    from sesgrid.kernels.backend import to_numpy
    from sesgrid.kernels.device import DEVICE_LOCK
    from sesgrid.kernels.saliency import Explainer

    e: Any = Explainer(c.model, c.method, precision=precision)
    held = jax.device_put(c.image)
    start = time.perf_counter()
    ready = e._factors = e._factors.lower(*c.weights, held).compile()
    compiling = time.perf_counter() - start
    jax.block_until_ready(ready(*c.weights, held))
    start = time.perf_counter()
    jax.block_until_ready([ready(*c.weights, held) for _ in range(8)])
    busy = (time.perf_counter() - start) / 8

    def task(number: int) -> np.ndarray:
        with DEVICE_LOCK:
            pending = e.start("factors", c.weights, c.image)
        _, evidence, sensitivity = map(to_numpy, pending)
        return attributed_sums(evidence, sensitivity, c.classes, N_VALUES, c.method)

    task(0)
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(task, range(_TASKS)))
        seconds = (time.perf_counter() - start) / _TASKS
    cost = ready.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "cells_per_second": len(c.image) / seconds,
        "cells_per_second_device_only": len(c.image) / busy,
        "gpu_waits": max(0.0, 1 - busy / seconds),
        "tflop_per_second": cost.get("flops", 0) / busy / 1e12,
        "gb_per_second": cost.get("bytes accessed", 0) / busy / 1e9,
        "device_gb": ready.memory_analysis().temp_size_in_bytes / 1e9,
        "compiling_s": compiling,
    }


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    os.environ["KERAS_BACKEND"] = options.backend
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != options.backend:
        raise SystemExit("Keras runs on another backend in this process")
    from sesgrid.kernels.backend import gpu_bytes, start_backend

    start_backend()
    cells = options.cells or (2 if options.quick else 16 if gpu_bytes() else 4)
    image, classes = scene(cells, 64 if options.quick else 800)
    rounds = 5
    result: dict[str, Any] = {}
    if options.part == "gpu" or (options.part == "all" and gpu_bytes()):
        result["gpu"] = on_a_gpu(image, classes)
    if options.part != "gpu":
        result |= contest("reference", image, classes, rounds)
        if not options.quick:
            result |= precision_effect(image, classes)
            paper = contest("paper", image, classes, rounds)
            result |= {f"{k}_paper": v for k, v in paper.items()}
            few = slice(0, max(1, cells // 2))
            result |= ten_classes(image[few], classes[few], rounds)
    print(f"\n{describe_machine()}; {cells} cells")
    for key, value in result.items():
        print(f"  {key:<36} {value}")
    if options.json:
        packages = ["keras", options.backend, "numba", "numpy"]
        versions = dict(zip(packages, map(version, packages), strict=True))
        print(json.dumps({**result, "versions": versions}))


if __name__ == "__main__":
    main()
