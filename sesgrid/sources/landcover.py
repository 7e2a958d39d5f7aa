"""The land-cover nomenclature as data: 27 Urban Atlas codes → the study's 19 classes.

The one table is ``landcover_classes.csv`` beside this file. Codes are the key, never names:
names vary between deliveries by double spaces and an ellipsis character.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import pandas as pd

__all__ = [
    "N_CLASSES",
    "UNCLASSIFIED",
    "class_groups",
    "class_names",
    "landcover_classes",
]

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


def class_names(table: pd.DataFrame | None = None) -> tuple[str, ...]:
    """Names of the classes in the order of their pixel values 1, 2, …

    Parameters
    ----------
    table : DataFrame, optional
        From `sesgrid.read_class_table`; the study's 19 classes by default.

    Examples
    --------
    >>> class_names()[0], class_names()[-1]
    ('continuous urban fabric', 'water')
    """
    return tuple(_classes(table)["landcover_class"])


def class_groups(table: pd.DataFrame | None = None) -> dict[str, str]:
    """Class → group: residential, functional, infrastructure, nature or no use.

    >>> class_groups()["railways"]
    'infrastructure'
    """
    classes = _classes(table)
    return dict(zip(classes["landcover_class"], classes["group"], strict=True))


def _classes(table: pd.DataFrame | None) -> pd.DataFrame:
    known = _table() if table is None else table
    return known.query("value > 0").drop_duplicates("value").sort_values("value")
