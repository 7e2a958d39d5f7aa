"""Which files of a BD ORTHO delivery, or of any folder of rasters, are the tiles to read.

A delivery looks like ``BDORTHO_…_D075_2021-01-01/ORTHOHR/{1_DONNEES_LIVRAISON_…/OHR_RVB_…/*.jp2,
2_METADONNEES_…, 3_SUPPLEMENTS_…/OHR_RVB_…/dalles.shp}``. The field NOM of ``dalles.shp`` is
the index where there is one; it is text from outside, and may not lead out of the delivery.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sesgrid.errors import FormatError, MissingInputError, ReadError, SesgridWarning
from sesgrid.foreign import reading, refuse_unreadable
from sesgrid.sources.archive import is_archive, safe_relative_path
from sesgrid.sources.tables import list_tables, match_columns, read_table
from sesgrid.sources.tile_name import is_infrared
from sesgrid.sources.volumes import is_volume, volumes_of

__all__ = ["RASTER_SUFFIXES", "TileFile", "find_tiles"]

RASTER_SUFFIXES = frozenset({".jp2", ".tif", ".tiff", ".jpg", ".jpeg"})

_PART = re.compile(r"[123]_(DONN|META|SUPP)", re.IGNORECASE)
_ASIDE = re.compile(r"[23]_(META|SUPP)|vignette|thumb|quicklook|apercu", re.IGNORECASE)
_PRODUCT = re.compile(r"(BDORTHO|ORTHOHR)_.+_D\w{2,3}", re.IGNORECASE)


@dataclass(frozen=True)
class TileFile:
    """A raster to read."""

    path: Path
    """Absolute."""

    delivery: str
    """Name of the delivery's folder, or of the folder that holds the raster."""


def find_tiles(path: str | Path | Sequence[str | Path]) -> list[TileFile]:
    """List the RGB tiles of a raster, a delivery, a folder of either, or a list of those.

    Returns
    -------
    list of TileFile
        In the order of their paths, each file once.

    Raises
    ------
    MissingInputError
        A path is missing, or holds no raster.
    FormatError
        All rasters are infrared, or a path is an archive or another kind of file.
    ReadError
        A folder may not be read.
    UnsafePathError
        A name in ``dalles.shp`` leads out of the delivery.

    Warns
    -----
    SesgridWarning
        Infrared tiles, tiles listed but missing, tiles there but not listed: left out, counted; an index
        that lists none.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise MissingInputError("expected at least one path to orthophotos, received an empty list")
    tiles: dict[Path, TileFile] = {}
    infrared: list[Path] = []
    for top in (Path(os.path.abspath(p)) for p in paths):
        found, left = _find_under(top)
        tiles |= {tile.path: tile for tile in found}
        infrared += left
    if not tiles:
        raise FormatError(
            f"{', '.join(map(str, paths))}: all {len(infrared)} tiles are infrared (IRC), first "
            f"{infrared[0].name}; expected the RGB product (RVB)"
        )
    if infrared:
        _warn(f"{len(infrared)} infrared (IRC) tiles are left out, first {infrared[0].name}")
    return [tiles[p] for p in sorted(tiles)]


def _find_under(top: Path) -> tuple[list[TileFile], list[Path]]:
    """Tiles and left-out infrared rasters of one path given by the user."""
    with reading(top, ReadError):
        there, one = top.exists(), top.is_file()
    if not there:
        raise MissingInputError(f"no such file or folder: {top}; check the path")
    if one:
        if top.suffix.lower() not in RASTER_SUFFIXES:
            raise FormatError(f"{top}: {_not_a_raster(top)}")
        tile = TileFile(top, _delivery_name(top.parent))
        return ([], [top]) if is_infrared(top.name) else ([tile], [])
    rasters, indexes = _walk(top)

    def says_infrared(file: Path) -> bool:
        return any(map(is_infrared, (top.name, *file.relative_to(top).parts)))

    infrared = [p for p in rasters if says_infrared(p)]
    colour = [p for p in rasters if not says_infrared(p)]
    colour = _keep_indexed(colour, [p for p in indexes if not says_infrared(p)], top)
    if not rasters:
        raise MissingInputError(f"{top} holds no raster: {_what_instead(top)}")
    return [TileFile(p, _delivery_name(_root(p.parent, top))) for p in colour], infrared


def _what_instead(top: Path) -> str:
    with reading(top, ReadError):
        archive = next((p for p in sorted(top.iterdir()) if is_archive(p)), None)
    what = (
        "a delivery that is still a .7z must be unpacked first"
        if archive is None
        else f"it holds {archive.name}: {_how_to_unpack(archive)}"
    )
    return f"expected files ending in {', '.join(sorted(RASTER_SUFFIXES))} in it or below; {what}"


def _walk(top: Path) -> tuple[list[Path], list[Path]]:
    """Rasters and ``dalles.shp`` files below a folder; thumbnails and side folders left out."""
    rasters, indexes = [], []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(top, onerror=refuse_unreadable, followlinks=True):
        if os.path.realpath(folder) in seen:  # a link back up
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        subfolders[:] = sorted(s for s in subfolders if not s.startswith((".", "__MACOSX")))
        aside = any(map(_ASIDE.match, Path(folder).relative_to(top).parts))
        for name in sorted(names):
            path = Path(folder, name)
            if name.lower() == "dalles.shp" and path.is_file():
                indexes.append(path)
            elif (
                path.suffix.lower() in RASTER_SUFFIXES
                and not aside
                and not name.startswith(".")
                and not re.search(r"thumb|quicklook|vignette", name, re.IGNORECASE)
            ):
                rasters.append(path)
    return rasters, indexes


def _keep_indexed(rasters: list[Path], indexes: list[Path], top: Path) -> list[Path]:
    """Keep what the indexes list; rasters outside the reach of any index are kept too."""
    kept, reached = set(), set()
    missing: list[str] = []
    for index in indexes:
        root = _root(index.parent, top)
        within = [p for p in rasters if p.is_relative_to(root)]
        if not within and root == index.parent != top:  # the index in a folder beside the tiles
            within = [p for p in rasters if p.is_relative_to(root.parent)]
        listed, absent = _match_index(index, within)
        if absent and not listed:
            raise MissingInputError(
                f"{index}: none of the {len(absent)} tiles it lists is there, first {absent[0]}; "
                "is the delivery complete?"
            )
        if not listed:
            if within:
                _warn(f"{index} names no RGB tile: the {len(within)} that are there are all read")
            continue
        kept |= set(listed)
        reached |= set(within)
        missing += absent
    if missing:
        _warn(f"{len(missing)} tiles listed in dalles.shp are missing, first {missing[0]}")
    unlisted = sorted(reached - kept)
    if unlisted:
        _warn(
            f"{len(unlisted)} rasters that dalles.shp does not list are left out, first "
            f"{unlisted[0].name}"
        )
    return [p for p in rasters if p in kept or p not in reached]


def _match_index(index: Path, rasters: list[Path]) -> tuple[list[Path], list[str]]:
    """Rasters that a ``dalles.shp`` names, and the names that no raster has."""
    by_name = defaultdict(list)
    for raster in rasters:
        by_name[raster.name.lower()].append(raster)
    listed, missing = [], []
    for nom in _read_names(index):
        relative = safe_relative_path(nom, f"{index}, field NOM")
        if is_infrared(relative.name):
            continue
        end = tuple(part.lower() for part in relative.parts)
        hits = [
            p
            for p in by_name[relative.name.lower()]
            if tuple(part.lower() for part in p.parts[-len(end) :]) == end
        ]
        # the folder under 1_DONNEES… with the tiles has the name of the one with the index
        namesakes = [p for p in hits if p.parents[len(end) - 1].name == index.parent.name]
        listed += namesakes or hits
        if not hits:
            missing.append(nom)
    return listed, missing


def _read_names(index: Path) -> list[str]:
    table = list_tables(index, frozenset({".shp"}))[0]
    column = match_columns(table, {"nom": ("nom",)}).get("nom")
    if column is None:
        raise FormatError(
            f"{index} lacks the field NOM (tile names); its fields are {', '.join(table.columns)}; "
            "remove the file to find the tiles by their names"
        )
    names: pd.Series = read_table(table, [column], geometry=False)[column]
    return [str(name) for name in names.dropna() if str(name).strip()]


def _root(folder: Path, top: Path) -> Path:
    """The folder above ``1_DONNEES…`` / ``3_SUPPLEMENTS…``, else the folder itself."""
    for ancestor in (folder, *folder.parents):
        if ancestor == top:
            break
        if _PART.match(ancestor.name):
            return ancestor.parent
    return folder


def _delivery_name(root: Path) -> str:
    for ancestor in (root, *root.parents):
        if _PRODUCT.match(ancestor.name):
            return ancestor.name
    return root.name


def _not_a_raster(path: Path) -> str:
    if is_archive(path):
        return f"an archive; {_how_to_unpack(path)}"
    return f"expected a raster ending in {', '.join(sorted(RASTER_SUFFIXES))}, or a folder"


def _how_to_unpack(archive: Path) -> str:
    """Orthophotos are read where they lie: one delivery has tens of gigabytes."""
    first, more = volumes_of(archive)[0], " takes all its volumes" if is_volume(archive) else ""
    return f"unpack the delivery first ('7z x {first.name}'{more}), and give the folder"


def _warn(message: str) -> None:
    warnings.warn(message, SesgridWarning, stacklevel=4)
