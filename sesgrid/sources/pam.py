"""The ``.aux.xml`` beside a raster: read by GDAL, looked at first.

GDAL, QGIS and ArcGIS write there what a raster cannot hold or may not be changed to say: nodata, colours,
a position put right. GDAL passes over one that it cannot parse, and over what it cannot make a number of;
the raster would be read without its correction, in silence.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from sesgrid.errors import FormatError, UnsafePathError
from sesgrid.foreign import reading
from sesgrid.sources.number_text import is_number_to_c

__all__ = ["check_pam"]

_OVERVIEWS = "OVERVIEW_FILE"

_BEGINS = b"<pamdataset"
"""What GDAL knows one by: it does not look behind a declaration, a comment, or UTF-16."""

_MATTERS = frozenset({"srs", "geotransform", "gcplist", "nodatavalue", "colorinterp"})
"""Elements without which a raster is read otherwise; the rest, statistics as a rule, may be passed over."""

_ADVICE = "the raster's nodata and position may be told there: put it right, or remove it"


def check_pam(path: Path) -> None:
    """Look through ``path.aux.xml``, if there is one.

    Raises
    ------
    FormatError
        It is no XML, not of GDAL's form, or holds what should be numbers and are none.
    UnsafePathError
        It names another file.
    """
    beside = path.with_name(path.name + ".aux.xml")
    if not beside.is_file():
        return
    with reading(beside, advice=_ADVICE):
        content = beside.read_bytes()
        root = ElementTree.fromstring(content)
    if root.tag != "PAMDataset":
        raise FormatError(f"{beside}: expected <PAMDataset>, received <{root.tag}>; {_ADVICE}")
    if _MATTERS & {element.tag.lower() for element in root.iter()}:
        start = content.removeprefix(codecs.BOM_UTF8).lstrip()[: len(_BEGINS)]
        if start.lower() != _BEGINS:
            raise FormatError(
                f"{beside} begins with {start!r}: expected {_BEGINS!r} in UTF-8, for GDAL passes over what "
                f"has a declaration or comment before it; {_ADVICE}"
            )
    if any(_OVERVIEWS in text.upper() for text in _names(root)):
        raise UnsafePathError(
            f"{beside} names another file as overviews (OVERVIEW_FILE): expected none; remove that entry"
        )
    for text, n, name in _numbers(root):
        values = text.split(",")
        if len(values) != n or not all(map(is_number_to_c, values)):
            raise FormatError(
                f"{beside}: expected {n} number(s) as {name}, received {text!r}; {_ADVICE}"
            )


def _names(root: ElementTree.Element) -> Iterator[str]:
    """All that may be taken for an item's name.

    GDAL takes the first attribute of an item whatever it is called, ``xmlns`` too, which a parser makes a
    part of the element's tag; letters may be small or capital.
    """
    for element in root.iter():
        yield element.tag
        yield from element.attrib.values()


def _numbers(root: ElementTree.Element) -> Iterator[tuple[str, int, str]]:
    """Text, how many numbers it must be, and the element's name; GDAL knows names in any case."""
    for element in root:
        if element.tag.lower() == "geotransform":
            yield element.text or "", 6, "GeoTransform"
        if element.tag.lower() == "pamrasterband":
            given = {name.lower(): value for name, value in element.attrib.items()}
            yield given.get("band", ""), 1, "a band"
            for inner in element:
                if inner.tag.lower() == "nodatavalue":
                    yield inner.text or "", 1, "NoDataValue"
