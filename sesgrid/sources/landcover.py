"""The land-cover nomenclature as data: 27 Urban Atlas codes → the study's 19 classes.

The one table is ``landcover_classes.csv`` beside this file. Codes are the key, never names:
names vary between deliveries by double spaces and an ellipsis character.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import pandas as pd

__all__ = ["N_CLASSES", "UNCLASSIFIED", "class_groups", "class_names", "landcover_classes"]

N_CLASSES = 19
"""Classes of the study; their pixel values are 1…19."""

UNCLASSIFIED = 0
"""Pixel value of what belongs to no class: outside the map, airports, no data."""


@lru_cache(maxsize=1)
def _table() -> pd.DataFrame:
    resource = files("sesgrid.sources").joinpath("landcover_classes.csv")
    with resource.open(encoding="utf-8") as file:
        types = {"name": "string", "landcover_class": "string", "group": "string", "value": "uint8"}
        return pd.read_csv(file, dtype=types).set_index("code")


def landcover_classes() -> pd.DataFrame:
    """Return the table of codes.

    Returns
    -------
    DataFrame
        Indexed by ``code`` (int64): ``name`` of the code, ``landcover_class`` and ``group`` (NA for
        airports and no data), ``value`` (uint8, the class's pixel value 1…19; 0 for no class).

    Examples
    --------
    >>> landcover_classes().loc[13300, ["landcover_class", "group"]].tolist()
    ['construction and dump', 'functional']
    """
    return _table().copy()


def class_names() -> tuple[str, ...]:
    """Names of the 19 classes in the order of their pixel values 1…19.

    >>> class_names()[0], class_names()[-1]
    ('continuous urban fabric', 'water')
    """
    classes = _table().query("value > 0").drop_duplicates("value").sort_values("value")
    return tuple(classes["landcover_class"])


def class_groups() -> dict[str, str]:
    """Class → group: residential, functional, infrastructure, nature or no use.

    >>> class_groups()["railways"]
    'infrastructure'
    """
    classes = _table().query("value > 0").drop_duplicates("value").sort_values("value")
    return dict(zip(classes["landcover_class"], classes["group"], strict=True))
