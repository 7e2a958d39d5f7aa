"""Tables of the vector formats that GDAL reads: GeoPackage, shapefile, file geodatabase, FlatGeobuf.

GDAL opens a file by its content, whatever its name: a ``.gpkg`` that is in truth a virtual layer reads any
file of the machine, or asks a server. So a file must begin as its suffix says before GDAL sees it, and GDAL
sees only a link to it, alone in a folder, under a name that it cannot take for an address.
What GDAL passes over in silence is found by counting.
"""

from __future__ import annotations

import re
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyogrio

from sesgrid.errors import FormatError, SesgridWarning, UnsafePathError
from sesgrid.foreign import DAMAGED, cause_of, copying, reading, scratch
from sesgrid.sources.geopackage import count_rows, lost_layers, refuse_foreign_code, settle
from sesgrid.sources.space_index import listed_within
from sesgrid.sources.spatial_filter import Bounds, filter_in
from sesgrid.sources.stray_text import left_out_columns, stray_columns, with_stray_text
from sesgrid.sources.table import Table
from sesgrid.sources.text_columns import with_text_decoded
from sesgrid.sources.vector_counts import check_geodatabase, check_shapefile
from sesgrid.sources.wkb import geometries_of_wkb

__all__ = ["GDAL_SUFFIXES", "SHAPEFILE_PARTS", "list_vector", "read_vector"]

SHAPEFILE_PARTS = frozenset({".shp", ".shx", ".dbf", ".prj", ".cpg"})

_FORMATS = {
    ".gpkg": ("GPKG", b"SQLite format 3\0", "a GeoPackage"),
    ".shp": ("ESRI Shapefile", b"\0\0\x27\x0a", "a shapefile"),
    ".fgb": ("FlatGeobuf", b"fgb\x03fgb", "a FlatGeobuf"),
    ".gdb": ("OpenFileGDB", b"", "a file geodatabase"),
}
"""Of each suffix GDAL's driver, how the file begins, and what it is called."""

GDAL_SUFFIXES = frozenset(_FORMATS)

_OUR_FOLDER = re.compile(r"\S*/sesgrid-\w+/")
_NOT_NEWS = re.compile(
    r"Measured \(M\) geometry types are not supported|Field format '.*' not supported"
    r"|geometry column '.*' of type '.*' ignored|table '.*' has multiple geometry fields",
    re.DOTALL,
)
"""Remarks on what makes no difference here: only x and y of one geometry are used, and columns of types that
GDAL does not know are read without it."""
_MOST_TOLD = 5
_EVERY_ROW = "1 = 1"
"""Without a condition GDAL takes the numbers of a GeoPackage's rows to be 1 to as many as there were once."""
_OF_LAYERS = (pyogrio.errors.DataLayerError, pyogrio.errors.DataSourceError)


def list_vector(path: Path) -> list[Table]:
    """The layers of a file.

    Raises
    ------
    FormatError
        It is not what its suffix says, or damaged.
    UnsafePathError
        It would reach outside of itself.
    """
    with _linked(path) as link, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are told of the layer that is read
        tables, failed = _listed(path, link)
    for name, cause in failed.items():
        text = f"{path.name}: its layer {name!r} cannot be read and is left out ({cause})"
        warnings.warn(text, SesgridWarning, stacklevel=4)
    if not tables and path.suffix.lower() != ".gpkg":  # of which one may be empty
        raise FormatError(f"{path.name} holds no layer; {DAMAGED}")
    return tables


def _listed(path: Path, link: Path) -> tuple[list[Table], dict[str, str]]:
    """The layers, and why others cannot be read: of a GeoPackage, whose views may ask for what is gone."""
    tables: list[Table] = []
    failed: dict[str, Exception] = {}
    try:
        for name in map(str, pyogrio.list_layers(link)[:, 0]):
            try:
                tables.append(_table(path, link, name))
            except _OF_LAYERS as error:
                failed[name] = error
                if link.suffix != ".gpkg":
                    raise
        if failed and not tables:
            raise next(iter(failed.values()))
    except pyogrio.errors.GeometryError as error:
        raise FormatError(
            f"{path.name}: a layer is declared to hold surfaces, which are not read as such ({error}); "
            "convert it (ogr2ogr -nlt MULTIPOLYGON)"
        ) from error
    told = {name: cause_of(error) for name, error in failed.items()}
    if link.suffix == ".gpkg":
        told |= dict.fromkeys(lost_layers(link), "its table is not there")
    return tables, told


def read_vector(
    table: Table, columns: Sequence[str], *, geometry: bool, within: Bounds | None = None
) -> pd.DataFrame:
    """Some columns of a layer; a GeoDataFrame when `geometry` is asked for and there is one.

    With bounds `within`, of the rows that may meet them.

    Raises
    ------
    FormatError
        Rows are missing, geometries are damaged, or the file is.

    Warns
    -----
    SesgridWarning
        What GDAL warns of; geometries that were repaired.
    """
    wanted = geometry and table.has_geometry
    label = str(table)
    with _told(label), _linked(table.path) as link:
        types = _types(link, table, columns)
        declared, drawn = _declared_rows(link, table, label, types)
        stray = []
        if link.suffix == ".gpkg":
            left_out = [name for name in columns if name not in types]
            stray = [*stray_columns(link, table.name, types), *left_out]
        bbox, listed = _bbox(link, table, within)
        meta, content = pyogrio.read_arrow(
            link, layer=table.layer, columns=list(types), read_geometry=wanted, bbox=bbox,
            where=_EVERY_ROW if link.suffix == ".gpkg" else None,
            return_fids=bbox is not None or bool(stray),
        )  # fmt: skip
        numbers = meta["fid_column"] or "OGC_FID"
        found = content[numbers].to_pylist() if numbers in content.column_names else ()
        if not listed <= set(found):
            return read_vector(table, columns, geometry=geometry)  # which tells what is wrong
        if stray:
            content = _as_text(content, link, table, stray, numbers)
        lost = [c for c in columns if c not in content.column_names]
        if lost:
            raise FormatError(f"{label}: its columns {', '.join(lost)} cannot be read; {DAMAGED}")
        attributes = content.select(list(columns))
        blobs = content[meta["geometry_name"] or "wkb_geometry"].to_pylist() if wanted else []
        if bbox is None:
            _refuse_fewer(label, "rows", len(content), declared)
            read = sum(blob is not None for blob in blobs)
            _refuse_fewer(label, "geometries", read, drawn if wanted else None)
    with reading(label):
        frame = with_text_decoded(attributes, label).to_pandas()
        if not wanted:
            return frame
        shapes = gpd.GeoSeries(geometries_of_wkb(blobs, label), crs=meta["crs"])
    return gpd.GeoDataFrame(frame, geometry=shapes)


def _types(link: Path, table: Table, columns: Sequence[str]) -> dict[str, str]:
    """Of each column, numpy's name of the type that GDAL reads it as."""
    info = pyogrio.read_info(link, layer=table.layer)
    told = dict(zip(map(str, info["fields"]), map(str, info["dtypes"]), strict=True))
    return {name: told[name] for name in columns if name in told}


def _as_text(
    content: pa.Table, link: Path, table: Table, stray: Sequence[str], numbers: str
) -> pa.Table:
    try:
        return with_stray_text(content, link, table.name, stray, numbers)
    except (sqlite3.OperationalError, KeyError) as error:
        raise FormatError(
            f"{table}: its columns {', '.join(stray)} hold text among numbers, or are of types that GDAL "
            "does not know, and its rows have no numbers by which to read them; correct them, or export the "
            "layer to a new file (ogr2ogr)"
        ) from error


def _refuse_fewer(label: str, what: str, read: int, declared: int | None) -> None:
    if declared is not None and read != declared:
        raise FormatError(
            f"{label} holds {read} of the {declared} {what} that it tells to have; {DAMAGED}"
        )


def _bbox(link: Path, table: Table, within: Bounds | None) -> tuple[Bounds | None, set[int]]:
    """The bounds in the layer's CRS, and rows that surely lie in them; None: all of it is to be read.

    A search by place loses what its index has lost, and geometries that are none; only of a GeoPackage can
    it be known what there should be.
    """
    if within is None or link.suffix != ".gpkg":
        return None, set()
    bbox = filter_in(pyogrio.read_info(link, layer=table.layer)["crs"], within)
    listed = None if bbox is None else listed_within(link, table.name, bbox)
    return (None, set()) if listed is None else (bbox, listed)


def _table(path: Path, link: Path, name: str) -> Table:
    info = pyogrio.read_info(link, layer=name)
    driver = _FORMATS[link.suffix][0]
    if info["driver"] != driver:
        raise UnsafePathError(
            f"{path.name}: expected {_FORMATS[link.suffix][2]}, but GDAL opens it as {info['driver']}; "
            "rename it to what it is, or fetch it again"
        )
    layer = None if name == link.stem and link.suffix in (".shp", ".fgb") else name
    fields = tuple(map(str, info["fields"]))
    if link.suffix == ".gpkg":
        fields += tuple(left_out_columns(link, name, (*fields, str(info["fid_column"]))))
    return Table(path, layer, fields, info["geometry_type"] is not None)


def _declared_rows(
    link: Path, table: Table, label: str, types: Mapping[str, str]
) -> tuple[int | None, int | None]:
    """Rows that the file says the layer has, and those with a geometry; None where it does not say."""
    if link.suffix == ".shp":
        return check_shapefile(link, label, [types.get(name) for name in table.columns])
    if link.suffix == ".gpkg":
        return count_rows(link, table.name, label)
    if link.suffix == ".gdb":
        check_geodatabase(link, label)
    told = pyogrio.read_info(link, layer=table.layer)["features"]
    return told if told > 0 or (told == 0 and link.suffix == ".gdb") else None, None


@contextmanager
def _linked(path: Path) -> Iterator[Path]:
    """A link to the file under a plain name, alone in a folder, once it has been seen to be of its kind."""
    suffix = path.suffix.lower()
    with scratch() as folder, reading(path.name), copying(path.name):
        link = folder / f"source{suffix}"
        _refuse_other_kinds(path, suffix)
        if suffix == ".shp":
            for part in sorted(path.parent.iterdir(), key=lambda p: p.stem != path.stem):
                to = link.with_suffix(part.suffix.lower())
                same = part.stem.lower() == path.stem.lower()
                wanted = same and to.suffix in SHAPEFILE_PARTS and part.is_file()
                if wanted and not to.is_symlink():
                    to.symlink_to(part.absolute())
            if not link.with_suffix(".shx").exists():
                raise FormatError(
                    f"{path.name}: expected its .shx beside it; bring all files of the shapefile"
                )
        else:
            link.symlink_to(path.absolute())
        if suffix == ".gpkg":
            settle(link, path)
            refuse_foreign_code(link, path.name)
        yield link


def _refuse_other_kinds(path: Path, suffix: str) -> None:
    _, begins, called = _FORMATS[suffix]
    if suffix == ".gdb":
        if not (path / "a00000001.gdbtable").is_file():
            raise FormatError(
                f"{path.name}: expected {called}, a folder that holds a00000001.gdbtable; unpack the whole "
                "of it"
            )
        return
    with path.open("rb") as file:
        received = file.read(len(begins))
    if received != begins:
        raise FormatError(
            f"{path.name}: expected {called}, which begins with {begins!r}, received {received!r}; {DAMAGED}"
        )


@contextmanager
def _told(label: str) -> Iterator[None]:
    """What GDAL warns of becomes a note of ours, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told: dict[str, None] = {}
    for one in caught:
        ours = issubclass(one.category, SesgridWarning)
        if issubclass(one.category, RuntimeWarning | UserWarning) and not ours:
            told[_OUR_FOLDER.sub("", str(one.message))] = None
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    news = [text for text in told if not _NOT_NEWS.match(text)]
    for text in news[:_MOST_TOLD]:
        warnings.warn(f"{label}: {text}", SesgridWarning, stacklevel=5)
    if len(news) > _MOST_TOLD:
        more = f"{label}: GDAL has {len(news) - _MOST_TOLD} more remarks like these"
        warnings.warn(more, SesgridWarning, stacklevel=5)
