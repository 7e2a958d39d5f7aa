"""Explained maps of socioeconomic status from aerial orthophotos, the census grid and land cover.

Data flow one way, and the stages read in that order::

    sources → cells → mosaic → landcover → train → predict → explain → analyse → report

Every stage is a function from xarray / GeoDataFrame to xarray / GeoDataFrame. Names are imported
when they are first used, so that reading a census file does not load TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sesgrid.saved_layers import register_with_keras

__version__ = "0.2.0.dev0"

_HOMES = {
    "Extent": "sesgrid.grid",
    "Grid": "sesgrid.grid",
    "format_cell_id": "sesgrid.grid",
    "parse_cell_id": "sesgrid.grid",
    "SesgridError": "sesgrid.errors",
    "SesgridWarning": "sesgrid.errors",
    "ClassReader": "sesgrid.sources",
    "RasterReader": "sesgrid.sources",
    "class_groups": "sesgrid.sources",
    "class_names": "sesgrid.sources",
    "landcover_classes": "sesgrid.sources",
    "read_boundary": "sesgrid.sources",
    "read_class_rasters": "sesgrid.sources",
    "read_class_table": "sesgrid.sources",
    "read_filosofi": "sesgrid.sources",
    "read_landcover": "sesgrid.sources",
    "read_ortho": "sesgrid.sources",
    "read_urban_atlas": "sesgrid.sources",
    "select_cells": "sesgrid.sources",
    "Thresholds": "sesgrid.stages.labels",
    "income_thresholds": "sesgrid.stages.labels",
    "cells": "sesgrid.stages.cells",
    "mosaic": "sesgrid.stages.mosaic",
    "landcover": "sesgrid.stages.landcover",
    "classified": "sesgrid.stages.classified",
    "other_kind": "sesgrid.stages.folds",
    "train": "sesgrid.stages.train",
    "protocol_named": "sesgrid.stages.protocol",
    "predict": "sesgrid.stages.predict",
    "explain": "sesgrid.stages.explain",
    "explain_maps": "sesgrid.stages.explain",
    "kept_maps": "sesgrid.stages.explain",
    "features": "sesgrid.stages.baselines",
    "baselines": "sesgrid.stages.baselines",
    "analyse": "sesgrid.stages.analyse",
    "metrics": "sesgrid.stages.score",
    "compare_folds": "sesgrid.stages.leakage",
    "audit": "sesgrid.stages.audit",
    "write_report": "sesgrid.report",
    "ModelRef": "sesgrid.store.models",
    "open_cube": "sesgrid.store.cube",
    "write_cube": "sesgrid.store.lazy",
    "write_city": "sesgrid.synth",
}

__all__ = ["__version__", *sorted(_HOMES)]


_FOLDERS = ("kernels", "report", "run", "sources", "stages", "store", "synth")


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f"sesgrid.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'sesgrid' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


register_with_keras()
