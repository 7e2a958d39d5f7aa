"""The city drawn cell by cell, and the confusion of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from sesgrid.grid import CELL_M
from sesgrid.report.content import percent
from sesgrid.report.images import ses_image
from sesgrid.report.palette import INK, MUTED, ramp, ses_colours, text_on, to_hex
from sesgrid.report.svg import drawing, tag

__all__ = ["confusion_chart", "scale_bar_m", "ses_map"]

_MAP_PX = 520
_LARGEST_IMAGE = 1600
_CONFUSION_RAMP = ("#ffffff", "#c3d3e0", "#6d93b3", "#1f4e79")


def ses_map(cells: pd.DataFrame, column: str, n_classes: int, label: str) -> Markup:
    """A map of one column of classes: a square a cell, with a scale bar.

    Parameters
    ----------
    cells : DataFrame
        ``row``, ``col`` and the column, nullable 1…K; at least one cell.
    column : str
        ``ses_true`` or ``ses_predicted``.
    n_classes : int
        K.
    label : str
        Said by screen readers.
    """
    uri, (ny, nx), step = ses_image(
        cells["row"].to_numpy(np.int64),
        cells["col"].to_numpy(np.int64),
        cells[column].to_numpy(np.float64, na_value=np.nan),
        ses_colours(n_classes),
        _LARGEST_IMAGE,
    )
    px = _MAP_PX / max(ny, nx)
    width, height = nx * px, ny * px
    left = (_MAP_PX - width) / 2
    length_m = scale_bar_m(_MAP_PX / px * CELL_M * step)
    bar = length_m / (CELL_M * step) * px
    y = height + 22
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m} m"
    return drawing(
        _MAP_PX,
        height + 34,
        tag(
            "image",
            href=uri,
            x=left,
            y=0,
            width=width,
            height=height,
            preserveAspectRatio="none",
            style="image-rendering:pixelated",
        ),
        tag("path", d=f"M{left:.1f} {y - 4}v4h{bar:.1f}v-4", fill="none", stroke=INK),
        tag("text", text, x=left + bar + 8, y=y + 1, class_="small", fill=MUTED),
        label=label,
    )


def scale_bar_m(span_m: float) -> int:
    """A round length between a tenth and a third of the span, metres.

    >>> scale_bar_m(12_000), scale_bar_m(2_000)
    (2000, 500)
    """
    power = 10 ** int(np.floor(np.log10(span_m / 4)))
    return int(max(m * power for m in (1, 2, 5) if m * power <= span_m / 4))


def confusion_chart(confusion: Sequence[Sequence[int]]) -> Markup:
    """Shares of the predicted classes within each true class, with counts.

    Parameters
    ----------
    confusion : sequence of sequence of int
        ``(true, predicted)`` counts, K × K.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    n = counts.shape[0]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    side, left, top = 72.0, 60.0, 44.0
    parts: list[Markup] = [
        tag("text", "Predicted class", x=left + n * side / 2, y=14, text_anchor="middle"),
        tag("text", "True class", transform=f"translate(14 {top + n * side / 2}) rotate(-90)",
            text_anchor="middle"),
    ]  # fmt: skip
    for k in range(n):
        middle = (k + 0.5) * side
        parts.append(tag("text", k + 1, x=left + middle, y=top - 10, text_anchor="middle"))
        parts.append(tag("text", k + 1, x=left - 14, y=top + middle + 5, text_anchor="middle"))
        parts += [
            _confusion_cell(left + j * side, top + k * side, side, shares[k, j], counts[k, j])
            for j in range(n)
        ]
    per_class = "; ".join(
        f"of true class {k + 1}, {percent(shares[k, k])} were predicted as {k + 1}"
        for k in range(n)
    )
    return drawing(
        left + n * side + 4,
        top + n * side + 4,
        *parts,
        label=f"Confusion matrix of {int(counts.sum())} cells, rows are true classes: {per_class}.",
    )


def _confusion_cell(x: float, y: float, side: float, share: float, count: int) -> Markup:
    fill = to_hex(ramp(_CONFUSION_RAMP, np.nan_to_num(share)))
    ink = text_on(fill)
    return tag(
        "g",
        tag("rect", x=x + 1, y=y + 1, width=side - 2, height=side - 2, fill=fill, stroke="#dcdbd5"),
        tag("text", percent(share), x=x + side / 2, y=y + side / 2 + 2, text_anchor="middle",
            fill=ink),
        tag("text", f"{count:,}", x=x + side / 2, y=y + side / 2 + 18, text_anchor="middle",
            class_="small", fill=ink, fill_opacity=0.75),
    )  # fmt: skip
