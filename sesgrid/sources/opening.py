"""Rasters opened as what their name says, and nothing else with them.

GDAL opens by content: a ``.tif`` may be a VRT or a WMS description, and so may the ``.ovr`` and ``.msk``
beside it; metadata may name yet another file as overviews. Each of these would read any file of the
machine, or ask a server. So the suffix chooses the one driver, the first bytes must be that driver's, and
companions are looked at before GDAL meets them. A classified raster's VRT has rules of its own, in
`sesgrid.sources.vrt`.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from sesgrid.errors import FormatError, ReadError, UnsafePathError
from sesgrid.foreign import DAMAGED, reading, refuse_special
from sesgrid.sources.pam import check_pam
from sesgrid.sources.world_file import check_world_file

__all__ = ["KINDS", "MASKS", "STRICT", "check_companions", "open_raster", "require_kind"]

STRICT = {
    # a cut JPEG (alone or inside a TIFF) otherwise decodes to grey; a cut JPEG 2000 raises anyway
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # with threads of its own, GDAL 3.10 reads a broken JPEG 2000 at a coarser level as black, and says
    # so to standard error alone; a worker has its own threads anyway
    "GDAL_NUM_THREADS": "1",
    # nodata and georeferencing are read from .aux.xml; it is written only where statistics or colours
    # are asked for or set, which nothing here does
    "GDAL_PAM_ENABLED": "YES",
    # a folder may hold a nation: companions are looked for by name, not in a list of all its files
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # no file names a URL, and if one did it would not be asked
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}
"""Options of GDAL under which sources are read."""


@dataclass(frozen=True)
class _Kind:
    name: str
    driver: str
    """GDAL's."""
    starts: tuple[bytes, ...]
    """First bytes of a file."""


_TIFF = _Kind("GeoTIFF", "GTiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
_JP2 = _Kind("JPEG 2000", "JP2OpenJPEG", (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))
_JPEG = _Kind("JPEG", "JPEG", (b"\xff\xd8\xff",))
_PNG = _Kind("PNG", "PNG", (b"\x89PNG\r\n\x1a\n",))
_HFA = _Kind("Erdas Imagine", "HFA", (b"EHFA_HEADER_TAG",))

KINDS = {
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jp2": _JP2,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": _PNG,
    ".img": _HFA,
}
"""What each suffix stands for."""

MASKS = (".msk", ".MSK")
"""What GDAL reads beside a raster as its mask."""

_COMPANIONS = (*MASKS, ".ovr", ".OVR")
"""What GDAL opens beside a raster, whatever it is; read as TIFF, which is what GDAL writes."""

_OPENING = threading.Lock()


def open_raster(path: str | Path, **options: int) -> rasterio.DatasetReader:
    """Open a raster with the driver of its suffix; to be called under ``rasterio.Env(**STRICT)``.

    What GDAL warns of meanwhile is known to `sesgrid.sources.gdal_says.remarks`.

    Raises
    ------
    ReadError
        The file, or its mask or overviews beside it, is gone, truncated or damaged, or may not be read.
    FormatError
        It is of another kind than its suffix says, or its ``.aux.xml`` is damaged.
    UnsafePathError
        It, or something beside it, would have GDAL read other files.
    """
    path = Path(path)
    kind = require_kind(path)
    check_companions(path)
    dataset = _open(path, kind, **options)
    _require_mask(dataset, path)
    return dataset


def require_kind(path: Path, kind: _Kind | None = None) -> _Kind:
    """The kind that the suffix stands for, where the first bytes say the same; errors as `open_raster`."""
    kind = kind or KINDS.get(path.suffix.lower())
    if kind is None:
        raise FormatError(
            f"{path}: expected a raster ending in {', '.join(KINDS)}, received {path.suffix!r}"
        )
    with reading(path, ReadError):
        refuse_special(path, kind.name)
        with path.open("rb") as file:
            start = file.read(64)
    if start.startswith(kind.starts):
        return kind
    if start.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").startswith(b"<"):
        raise UnsafePathError(
            f"{path} is XML, which may have GDAL read other files or ask servers: expected {kind.name}; "
            "give the rasters that it describes, or fetch the file again"
        )
    other = next((k.name for k in KINDS.values() if start.startswith(k.starts)), None)
    if other is not None:
        raise FormatError(f"{path} is {other}: expected {kind.name}, as its name says; rename it")
    raise ReadError(
        f"{path} cannot be read as a raster: it does not begin as {kind.name} does; {DAMAGED}"
    )


def check_companions(path: Path) -> None:
    """Whatever GDAL may open together with a raster must be plain itself, and readable.

    GDAL passes over a damaged mask in silence, and its raster would count as seen everywhere.
    """
    check_pam(path)
    check_world_file(path)
    for suffix in _COMPANIONS:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            require_kind(companion, _TIFF)
            check_companions(companion)
            _open(companion, _TIFF).close()


def _require_mask(dataset: rasterio.DatasetReader, path: Path) -> None:
    """A mask that a raster has must be one that GDAL can take."""
    beside = [p for s in MASKS if (p := path.with_name(path.name + s)).is_file()]
    try:
        with reading(path, ReadError):
            flags = dataset.mask_flag_enums[0]
            # an error in looking for the mask stays pending, and is raised by what is asked next
            _ = dataset.colorinterp
        if beside and MaskFlags.per_dataset not in flags:
            raise ReadError(f"{beside[0]} cannot be read as the mask of {path.name}; {DAMAGED}")
    except ReadError:
        dataset.close()
        raise


def _open(path: Path, kind: _Kind, **options: int) -> rasterio.DatasetReader:
    # the lock: warning filters belong to the whole process
    with _OPENING, warnings.catch_warnings(), reading(path, ReadError):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # a Path, for text may be taken for a URL
        dataset = rasterio.open(path, driver=kind.driver, **options)
        overviews = dataset.tags(ns="OVERVIEWS")
    # names of items are the same to GDAL in capitals and in small letters
    naming = [key for key in overviews if "FILE" in key.upper()]
    if naming:
        dataset.close()
        raise UnsafePathError(
            f"{path} names another file as its overviews ({naming[0]}): expected a raster that is "
            f"whole in itself; make a plain one with 'gdal_translate {path.name} out.tif'"
        )
    if kind is _HFA:
        _require_beside(dataset, path)
    return dataset


def _require_beside(dataset: rasterio.DatasetReader, path: Path) -> None:
    """An .img may keep its pixels in another file."""
    folder = path.absolute().parent
    with reading(path, ReadError):
        files = [Path(file).absolute() for file in dataset.files]
    outside = [file for file in files if ".." in file.parts or file.parent != folder]
    if outside:
        dataset.close()
        raise UnsafePathError(
            f"{path} keeps its pixels in {outside[0]}, outside its folder: expected a raster that is "
            f"whole in itself; make one with 'gdal_translate {path.name} out.tif'"
        )
