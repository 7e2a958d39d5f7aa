"""Tables of the vector formats that GDAL reads: GeoPackage, shapefile, geodatabase, FlatGeobuf, GeoJSON."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyogrio

from sesgrid.errors import FormatError
from sesgrid.sources.table import Table

__all__ = ["list_vector", "read_vector"]


def list_vector(path: Path) -> list[Table]:
    """The layers of a file."""
    try:
        with _quiet_gdal():
            names = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
            infos = [pyogrio.read_info(path, layer=name) for name in names]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise FormatError(
            f"cannot open {path.name}: {error}; the file is damaged, incomplete or no {path.suffix.lower()}"
        ) from error
    return [
        Table(path, name, tuple(map(str, info["fields"])), info["geometry_type"] is not None)
        for name, info in zip(names, infos, strict=True)
    ]


def read_vector(table: Table, columns: Sequence[str], *, geometry: bool) -> pd.DataFrame:
    """Some columns of a layer; a GeoDataFrame when `geometry` is asked for and there is one."""
    try:
        with _quiet_gdal():
            return pyogrio.read_dataframe(
                table.path,
                layer=table.layer,
                columns=list(columns),
                read_geometry=geometry and table.has_geometry,
                use_arrow=True,
            )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as e:
        raise FormatError(
            f"cannot read {table}: {e}; the file is damaged or no {table.path.suffix.lower()}"
        ) from e


class _quiet_gdal(warnings.catch_warnings):
    """GDAL's remarks on odd but readable files (undefined CRS, measured types) are not news."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="pyogrio")
