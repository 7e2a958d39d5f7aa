"""Classified rasters (CLC+, OSO, FLAIR's output …) as an index of tiles, and their values.

The index has the columns of `sesgrid.read_ortho`, so that the same planning serves both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from rasterio.windows import Window

from sesgrid.errors import FormatError, MissingInputError, ReadError
from sesgrid.foreign import reading, refuse_unreadable
from sesgrid.grid import CRS
from sesgrid.sources.archive_entries import is_archive
from sesgrid.sources.class_table import normal_codes
from sesgrid.sources.deflated import refuse_damaged_blocks
from sesgrid.sources.gdal_says import remarks, warn_of_remarks
from sesgrid.sources.georeference import footprints, pixel_size
from sesgrid.sources.opening import STRICT, open_raster
from sesgrid.sources.tables import POLYGON_SUFFIXES
from sesgrid.sources.validity import Validity
from sesgrid.sources.vrt import open_vrt

__all__ = ["ClassReader", "holds_rasters", "read_class_rasters"]

_SUFFIXES = (".tif", ".tiff", ".vrt", ".img", ".jp2", ".png")


def holds_rasters(path: str | Path) -> bool:
    """Whether a land cover is classified rasters, by the names of its files; otherwise it is polygons.

    Pictures (``.png``) that lie beside polygons are none.

    Raises
    ------
    MissingInputError, ReadError
        The path, or a folder below it, cannot be looked into.
    FormatError
        A folder holds both.

    Examples
    --------
    >>> holds_rasters("clc.tif"), holds_rasters("OCS-GE_2-0__GPKG_LAMB93_D013_2023-01-01.7z")
    (True, False)
    """
    path = Path(path)
    with reading(path, ReadError):
        folder = path.is_dir() and path.suffix.lower() != ".gdb"
    if not folder:
        return path.suffix.lower() in _SUFFIXES
    polygons, pictures, rasters = None, None, None
    for file in _below(path):
        suffix = file.suffix.lower()
        if suffix in POLYGON_SUFFIXES:
            polygons = polygons or file
        elif suffix == ".png":
            pictures = file
        elif suffix in _SUFFIXES:
            rasters = rasters or file
    if polygons and rasters:
        raise FormatError(
            f"{path} holds polygons, {polygons.relative_to(path)}, and rasters, {rasters.relative_to(path)}: "
            "expected a land cover of one kind; give the file itself, or the folder without the others"
        )
    return bool(rasters or (pictures and not polygons))


def read_class_rasters(path: str | Path | Sequence[str | Path]) -> gpd.GeoDataFrame:
    """Index classified rasters.

    Parameters
    ----------
    path : path or list of paths
        Rasters, or folders of rasters: one band of codes each, uint8 or uint16, north-up, in metres.

    Returns
    -------
    GeoDataFrame
        A row per raster, by path: ``path``, ``crs``, ``resolution_m``, ``year`` (NA), ``left``, ``top``,
        ``width``, ``height``, and the footprint in EPSG:3035.

    Raises
    ------
    MissingInputError
        No such path, or no raster in it.
    ReadError
        A raster, or a folder, cannot be opened.
    UnsafePathError
        A raster would have others read, or a VRT names files outside its folder.
    FormatError
        An archive, of another kind than its suffix says, another number of bands or type, no CRS, units
        other than metres, rotated or oblong pixels, or a ``.aux.xml`` that is damaged.
    """
    given = [path] if isinstance(path, str | Path) else list(path)
    files: list[Path] = []
    for one in map(Path, given):
        inside = _files(one)
        if not inside:
            raise MissingInputError(f"{one}: expected a classified raster, or a folder of some")
        files += inside
    rows, said = [], []
    for file in sorted(files):
        with remarks() as texts:
            rows.append(_header(file))
        said.append((file.name, texts))
    warn_of_remarks(said, stacklevel=2)
    frame = pd.DataFrame(rows).astype({"year": "Int64"})
    return gpd.GeoDataFrame(frame, geometry=footprints(frame), crs=CRS)


def _files(path: Path) -> list[Path]:
    """A raster, or the rasters in and below a folder."""
    with reading(path, ReadError):
        folder, there = path.is_dir(), path.exists()
    if is_archive(path) and there and not folder:
        raise FormatError(
            f"{path} is an archive: expected rasters as they are; unpack it, and give the folder"
        )
    if folder:
        return [p for p in _below(path) if p.suffix.lower() in _SUFFIXES]
    return [path] if there else []


def _below(top: Path) -> Iterator[Path]:
    """Files in and below a folder, and geodatabases; not what macOS and others hide beside files."""
    for folder, folders, names in os.walk(top, onerror=refuse_unreadable):
        shown = [n for n in sorted(folders) if not n.startswith((".", "__MACOSX"))]
        yield from (Path(folder, n) for n in shown if n.lower().endswith(".gdb"))
        folders[:] = [n for n in shown if not n.lower().endswith(".gdb")]
        yield from (Path(folder, n) for n in sorted(names) if not n.startswith("."))


def _header(path: Path) -> dict:
    with rasterio.Env(**STRICT), _open(path) as raster:
        at, crs, kinds = raster.transform, raster.crs, raster.dtypes
        width, height = raster.width, raster.height
    if len(kinds) != 1 or kinds[0] not in ("uint8", "uint16"):
        raise FormatError(
            f"{path}: expected one band of codes, uint8 or uint16, received {', '.join(kinds)}"
        )
    if crs is None:
        raise FormatError(
            f"{path}: expected a CRS in metres, received none; tell the one that it is in with 'gdal_edit "
            f"-a_srs EPSG:2154 {path.name}'"
        )
    # by its length, for the unit has many names
    if not crs.is_projected or crs.units_factor[1] != 1:
        raise FormatError(
            f"{path}: expected a CRS in metres, received {crs.to_string()}; bring it to one with 'gdalwarp "
            f"-r near -t_srs EPSG:2154 {path.name} out.tif'"
        )
    epsg = crs.to_epsg()
    return {
        "path": str(path.resolve()), "crs": f"EPSG:{epsg}" if epsg else crs.to_wkt(),
        "resolution_m": pixel_size(path, at, width, height), "year": None,
        "left": at.c, "top": at.f, "width": width, "height": height,
    }  # fmt: skip


def _open(path: str | Path) -> rasterio.DatasetReader:
    path = Path(path)
    return open_vrt(path) if path.suffix.lower() == ".vrt" else open_raster(path)


@dataclass(frozen=True)
class ClassReader:
    """Reads windows of classified rasters as class values; a reader as the mosaic knows them.

    Parameters
    ----------
    codes, values : tuple of int
        Codes of the raster, and the pixel value of each; 0 = belongs to no class.
    """

    codes: tuple[int, ...]
    values: tuple[int, ...]
    bands: ClassVar[int] = 1

    @classmethod
    def of(cls, table: pd.DataFrame) -> ClassReader:
        """For a table of `sesgrid.sources.read_class_table`.

        Raises
        ------
        FormatError
            A code is no whole number from 0 to 65535, or the table has several columns of them.
        """
        codes = table.index
        plain = normal_codes(pd.Series(list(map(str, codes)))).fillna("")
        wrong = [c for c, text in zip(codes, plain, strict=True) if not _is_pixel_value(text)]
        if wrong:
            raise FormatError(
                f"{table.attrs.get('source', 'the table of classes')}: a raster's codes are one column of "
                f"whole numbers from 0 to 65535, received {wrong[0]!r} in "
                f"{', '.join(map(str, codes.names))}"
            )
        return cls(tuple(map(int, table.index)), tuple(map(int, table["value"])))

    def levels(self, path: str) -> int:
        """Codes have no coarser levels: their means are no codes."""
        return 0

    def unit_shape(self, path: str, level: int = 0) -> tuple[int, int]:
        """(y, x) of what is read at once, pixels."""
        return 1024, 1024

    def read(
        self, path: str, window: tuple[int, int, int, int], level: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class values of a window.

        Returns
        -------
        values : np.ndarray
            uint8 ``(band=1, y, x)``.
        valid : np.ndarray
            bool ``(y, x)``: False where nodata or a mask of the raster's says that nothing is known.

        Raises
        ------
        ReadError
            The file is gone or damaged.
        FormatError
            A code that the table does not know.
        """
        row0, row1, col0, col1 = window
        part = Window(col0, row0, col1 - col0, row1 - row0)
        with rasterio.Env(**STRICT), _open(path) as raster:
            validity = Validity.of(raster, [1], None)
            with reading(path, ReadError):
                (codes,), valid = validity.read(raster, [1], part)
            refuse_damaged_blocks(raster, part)
        if valid is None:
            valid = np.ones(codes.shape, bool)
        lookup = np.full(1 << 16, -1, np.int16)
        lookup[list(self.codes)] = self.values
        values = lookup[codes]
        values[~valid] = 0
        if (values < 0).any():
            unknown = np.unique(codes[values < 0])
            raise FormatError(
                f"{path}: the codes {', '.join(map(str, unknown[:8]))} are not in the table of classes; "
                "add them, with an empty landcover_class where they belong to none"
            )
        return values.astype(np.uint8)[np.newaxis], valid


def _is_pixel_value(code: str) -> bool:
    return code.isdecimal() and int(code) <= 65_535
