"""A classified raster's VRT: its parts lie in its own folder, and nothing in it computes.

GDAL's virtual rasters can name any file or URL, run Python, warp and filter. Of all that, land cover
needs the plain mosaic that ``gdalbuildvrt`` writes. So the XML is read here, only what is known to be
plain is kept, and GDAL is given that text instead of the file.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import rasterio

from sesgrid.errors import FormatError, MissingInputError, ReadError, UnsafePathError
from sesgrid.foreign import reading, refuse_special
from sesgrid.sources.opening import MASKS, check_companions, open_raster

__all__ = ["open_vrt", "parts_of_vrt"]

_PLAIN = {
    "VRTDataset", "SRS", "GeoTransform", "Metadata", "MDI", "VRTRasterBand", "ColorInterp", "NoDataValue",
    "HideNoDataValue", "ColorTable", "Entry", "CategoryNames", "Category", "Description", "UnitType",
    "Offset", "Scale", "SimpleSource", "ComplexSource", "SourceFilename", "SourceBand",
    "SourceProperties", "SrcRect", "DstRect", "NODATA", "UseMaskBand", "MaskBand", "BlockXSize",
    "BlockYSize", "Histograms", "HistItem", "HistMin", "HistMax", "BucketCount", "IncludeOutOfRange",
    "Approximate", "HistCounts", "GDALRasterAttributeTable", "FieldDefn", "Name", "Type", "Usage", "Row",
    "F",
}  # fmt: skip
"""Elements that are kept."""

_SOURCES = frozenset({"SimpleSource", "ComplexSource"})

_KEEP_CODES = frozenset({"near", "nearest", "mode"})
"""Ways to make pixels of another size that give codes which were there; of others come means of codes."""

_ROUNDED_PX = 0.5
"""How far the numbers of a VRT may lead beyond a part, pixels."""

_DROPPED = frozenset({"OverviewList", "Overview"})
"""Levels, none of which is read of codes."""

_ADVICE = "make a plain mosaic with 'gdalbuildvrt', or give the rasters themselves"


def open_vrt(path: Path) -> rasterio.DatasetReader:
    """Open a VRT whose parts lie in its folder; to be called under ``rasterio.Env(**STRICT)``.

    Raises
    ------
    MissingInputError
        A part of it is not there.
    ReadError
        It, or a part of it, is damaged or may not be read.
    FormatError
        It is no VRT, or a part is of another kind than its suffix says.
    UnsafePathError
        It names files outside its folder or other VRTs, or does more than laying rasters side by side.
    """
    with reading(path, ReadError):
        status = os.stat(path)
    refuse_special(path, "a VRT")
    check_companions(path)
    masks = (path.with_name(path.name + suffix) for suffix in MASKS)
    mask = next((p.absolute() for p in masks if p.is_file()), None)
    text = _checked(path.absolute(), status.st_mtime_ns, status.st_size, mask)
    with reading(path, ReadError):
        return rasterio.open(text, driver="VRT")


@lru_cache(maxsize=64)
def _checked(path: Path, _mtime_ns: int, _size: int, mask: Path | None) -> str:
    """Its XML with absolute names, and the mask beside it; the file's state is only a key of the cache."""
    with reading(path, advice=_ADVICE):
        root = ElementTree.fromstring(path.read_bytes())
    if root.tag != "VRTDataset":
        raise FormatError(f"{path}: expected <VRTDataset>, received <{root.tag}>; {_ADVICE}")
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag in _DROPPED:
                parent.remove(child)
    for element in root.iter():
        # GDAL takes names of attributes in small letters as in capitals, and an item's first as its name
        given = {name.lower(): value for name, value in element.attrib.items()}
        subclass = given.get("subclass", "VRTSourcedRasterBand")
        if element.tag not in _PLAIN or subclass != "VRTSourcedRasterBand":
            told = element.tag if element.tag not in _PLAIN else subclass
            raise UnsafePathError(
                f"{path} has <{told}>: expected rasters laid side by side and no more; {_ADVICE}"
            )
        if any("OVERVIEW_FILE" in value.upper() for value in given.values()):
            raise UnsafePathError(f"{path} names another file as overviews; {_ADVICE}")
        if element.tag in _SOURCES:
            _read_nearest(element)
            _place_part(path, element)
    if mask is not None and root.find("MaskBand") is None:
        root.append(_mask_band(mask))
    return ElementTree.tostring(root, encoding="unicode")


def _mask_band(mask: Path) -> ElementTree.Element:
    """What GDAL would make of a file beside a VRT, were it given the VRT's name and not its text."""
    element = ElementTree.Element("MaskBand")
    band = ElementTree.SubElement(element, "VRTRasterBand", dataType="Byte")
    source = ElementTree.SubElement(band, "SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = str(mask)
    ElementTree.SubElement(source, "SourceBand").text = "1"
    return element


def _read_nearest(source: ElementTree.Element) -> None:
    for name, value in [*source.attrib.items()]:
        if name.lower() == "resampling" and value.lower() not in _KEEP_CODES:
            del source.attrib[name]


def _place_part(path: Path, source: ElementTree.Element) -> None:
    """Give a source the absolute name of its part, which must be as large as the VRT says.

    GDAL fills with zeros what a smaller one lacks.
    """
    for element in source.iter("SourceFilename"):
        part = _part(path, element)
        with open_raster(part) as raster:
            width, height = raster.width, raster.height
        with reading(path, advice=_ADVICE):
            fits = _fits(source, width, height)
        if not fits:
            raise FormatError(
                f"{path}: its part {element.text} has {width} × {height} pixels, which is not what the VRT "
                "tells: it was made of another file; make it again"
            )
        element.text = str(part)
        element.set("relativeToVRT", "0")


def _fits(source: ElementTree.Element, width: int, height: int) -> bool:
    """Whether a part has the size, and the pixels, that a VRT tells it to have."""
    for element in source:
        told = {name.lower(): value for name, value in element.attrib.items()}
        if element.tag == "SourceProperties":
            sides = told.get("rasterxsize", width), told.get("rasterysize", height)
            if (int(sides[0]), int(sides[1])) != (width, height):
                return False
        if element.tag == "SrcRect":
            for side, offset, size in ((width, "xoff", "xsize"), (height, "yoff", "ysize")):
                end = float(told.get(offset, 0)) + float(told.get(size, 0))
                if not end < side + _ROUNDED_PX:
                    return False
    return True


def _part(path: Path, element: ElementTree.Element) -> Path:
    """The file that a source names, inside the VRT's folder and a plain raster."""
    name = element.text or ""
    part = Path(os.path.normpath(path.parent / name))
    if not part.is_relative_to(path.parent) or not part.resolve().is_relative_to(
        path.parent.resolve()
    ):
        raise UnsafePathError(
            f"{path} names {name}, outside its folder: expected rasters in or below it; put them there "
            "and make the VRT again"
        )
    if not part.is_file():
        raise MissingInputError(f"{path} names {name}, which is not there: fetch it, too")
    if part.suffix.lower() == ".vrt":
        raise UnsafePathError(f"{path} names another VRT, {name}: {_ADVICE}")
    return part


def parts_of_vrt(path: Path) -> list[Path]:
    """Files inside its folder that a VRT names, as far as it can be read; none of them is opened."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError):
        return []
    named = {e.text for e in root.iter("SourceFilename") if e.text and "\0" not in e.text}
    parts = (Path(os.path.normpath(path.parent / name)) for name in named)
    return sorted(p for p in parts if p.is_relative_to(path.parent))
