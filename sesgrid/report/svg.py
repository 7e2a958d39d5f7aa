"""Scalable drawings as text: a tag at a time, every piece of text escaped.

Drawn by hand rather than by a plotting library: the text stays text (it can be
searched, read aloud and set in the page's font), and nothing in a name, neither
markup nor mathematics, is ever interpreted.
"""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup, escape

__all__ = ["drawing", "nice_ticks", "shorten", "tag"]


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One element; children and attribute values are escaped unless they are markup.

    ``_`` in attribute names stands for ``-`` (``class_`` for ``class``); floats get two decimals;
    None leaves an attribute out.

    >>> tag("text", "a < b", x=1.239, text_anchor="end", class_="axis")
    Markup('<text x="1.24" text-anchor="end" class="axis">a &lt; b</text>')
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")  # every part is escaped above


def _value(value: object) -> object:
    if isinstance(value, float | np.floating):
        return f"{float(value):.2f}".rstrip("0").rstrip(".")
    return value


def drawing(
    width: float, height: float, *children: object, label: str, min_width: int | None = None
) -> Markup:
    """A whole drawing that scales with the page; ``label`` is what a screen reader says.

    Parameters
    ----------
    width, height : float
        In drawing units = CSS pixels at full size.
    min_width : int, optional
        Below this many CSS pixels the drawing scrolls instead of shrinking.
    """
    style = f"max-width:{width:.0f}px" + (f";min-width:{min_width}px" if min_width else "")
    return tag(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_label=label,
        style=style,
    )


def nice_ticks(upper: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least ``upper``, about so many steps.

    >>> nice_ticks(2.3)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    rough = max(upper, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(upper / step - 1e-9) + 1)]


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last one an ellipsis where something was cut.

    >>> shorten("discontinuous urban fabric", 14)
    'discontinuous…'
    """
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
