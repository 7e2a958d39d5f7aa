"""The land-cover nomenclature as data: 27 Urban Atlas codes → the study's 19 classes.

The one table is ``landcover_classes.csv`` beside this file. Codes are the key, never names:
names vary between deliveries by double spaces and an ellipsis character.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from sesgrid.errors import FormatError, MissingInputError

__all__ = [
    "N_CLASSES",
    "UNCLASSIFIED",
    "class_groups",
    "class_names",
    "landcover_classes",
    "read_class_table",
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


def read_class_table(path: str | Path) -> pd.DataFrame:
    """Read the table that gives meaning to the codes of a classified raster.

    Parameters
    ----------
    path : str or Path
        CSV with the columns ``code`` (0 to 65535, each once), ``landcover_class`` (a name, several codes may
        share it; empty = belongs to no class) and, if wanted, ``group`` (residential, functional,
        infrastructure, nature, …).

    Returns
    -------
    DataFrame
        As `landcover_classes`: indexed by ``code``, with ``landcover_class``, ``group`` and ``value``,
        which counts the classes 1, 2, … as they appear.

    Raises
    ------
    MissingInputError
        No such file.
    FormatError
        Columns are missing, a code is no whole number or comes twice, or there are more than 255 classes.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"no table of classes at {path}")
    try:
        table = pd.read_csv(path, dtype="string", keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:  # an encoding, an empty file, ragged lines
        raise FormatError(f"{path} is not a CSV in UTF-8: {error}") from error
    table.columns = table.columns.str.strip()
    missing = {"code", "landcover_class"} - set(table)
    if missing:
        raise FormatError(
            f"{path}: expected the columns code, landcover_class (and group), missing "
            f"{', '.join(sorted(missing))}; received {', '.join(table.columns)}"
        )
    table = table.apply(lambda column: column.str.strip())
    number = pd.to_numeric(table["code"].where(table["code"].str.fullmatch(r"\d{1,9}")))
    wrong = number.isna() | (number > 65_535) | number.duplicated()
    if wrong.any():
        raise FormatError(
            f"{path}: expected every code once, as a whole number from 0 to 65535; received "
            f"{table['code'][wrong].iloc[0]!r} in line {int(wrong.to_numpy().argmax()) + 2}"
        )
    name = table["landcover_class"].replace("", pd.NA)
    kinds = {c: k for k, c in enumerate(dict.fromkeys(name.dropna()), start=1)}
    if not 1 <= len(kinds) <= 255:
        raise FormatError(f"{path}: expected 1 to 255 classes, received {len(kinds)}")
    group = table["group"] if "group" in table else pd.Series("", index=table.index, dtype="string")
    out = pd.DataFrame(
        {
            "landcover_class": name.astype("string"),
            "group": group.replace("", "other").astype("string"),
            "value": name.map(kinds).fillna(0).astype("uint8"),
        }
    )
    out.index = pd.Index(number.astype(int), name="code")
    return out


def class_names(table: pd.DataFrame | None = None) -> tuple[str, ...]:
    """Names of the classes in the order of their pixel values 1, 2, …

    Parameters
    ----------
    table : DataFrame, optional
        From `read_class_table`; the study's 19 classes by default.

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
