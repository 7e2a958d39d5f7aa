"""The settings of a run, a class a table of its TOML: every key documented, its type strict, its range told.

Types are strict, as TOML tells them apart: ``folds = true`` is no 1, ``seed = "7"`` no 7. Numbers are finite
and bounded, so that one with a digit too many is refused here and not by whatever it would fill.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from sesgrid.stages.protocol import Schedule
from sesgrid.stages.tiles import PREFER, Preference
from sesgrid.store.codec import CodecName

__all__ = [
    "Adaptive",
    "AnalyseSettings",
    "CellSettings",
    "ClusterSettings",
    "Config",
    "CubeSettings",
    "ExplainSettings",
    "GridSettings",
    "ModelSettings",
    "MosaicSettings",
    "Sources",
    "TlsSettings",
    "TrainSettings",
    "bytes_of",
]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _path(value: object) -> object:
    """Refuse what the system would take for another path, or for none."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("a path, and not an empty one")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a path without NUL characters")
    return value


def _local(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError("a path on this machine, and no URL")
    return _path(value)


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("text of one line, without control characters")
    return value


def _file_name(value: str) -> str:
    if _printable(value) in (".", "..") or not {"/", "\\"}.isdisjoint(value):
        raise ValueError("a name without / and \\")
    return value


def bytes_of(text: str) -> int | None:
    """Bytes of a worker, as Dask writes memory; None for "auto": whatever there is.

    Raises
    ------
    ValueError
        It is no amount.

    Examples
    --------
    >>> bytes_of("4GB"), bytes_of("1.5 GiB"), bytes_of("auto")
    (4000000000, 1610612736, None)
    """
    if text == "auto":
        return None
    if not re.fullmatch(r"\d{1,18}(\.\d{0,9})?\s*([kmgtp]i?)?b?", text, re.ASCII | re.IGNORECASE):
        raise ValueError("'auto' or an amount such as '4GB'")
    return int(parse_bytes(text))


def _amount(value: str) -> str:
    bytes_of(value)
    return value


Seed = Annotated[int, Field(ge=0, lt=2**32)]
FilePath = Annotated[Path, Field(strict=False), BeforeValidator(_local)]
"""Relative to the TOML; in the place of a string."""
FilePaths = Annotated[list[FilePath], BeforeValidator(_listed)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]
"""A name, which is never empty."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Sources(_Section):
    """Where the data lie."""

    census: FilePath
    """Filosofi 200 m cells: CSV, GeoPackage, shapefile or parquet, plain or in .zip/.7z."""
    census_layer: Word | None = None
    """Layer of the census file, where it holds several."""
    vintage: Annotated[Word | None, BeforeValidator(_text)] = None
    """Census year, where neither columns nor file name tell."""
    ortho: Annotated[FilePaths, Field(min_length=1)]
    """BD ORTHO deliveries, folders of rasters or single rasters."""
    ortho_crs: Word | None = None
    """CRS of tiles that carry none."""
    landcover: FilePath | None = None
    """Urban Atlas; or, with landcover_classes, any other polygons (a file, an archive, a folder of tiles) or
    classified rasters (a raster, or a folder of some). Without it nothing is explained per class."""
    landcover_classes: Literal["ocsge", "cosia"] | FilePath | None = None
    """What the land cover's codes mean: "ocsge", "cosia", or a CSV with landcover_class, group and code, or
    columns of codes named as the land cover names them."""
    landcover_layer: Word | None = None
    """Layer of the land cover's file, where its name does not tell."""
    boundary: FilePath | None = None
    """Polygon of the city; default: the Urban Atlas boundary, else wherever there is imagery."""
    boundary_layer: Word | None = None
    """Layer of the boundary's file, where it holds several."""
    cities: FilePaths = []
    """Boundaries or Urban Atlas files of all the cities whose cells make the quantiles, this one among
    them; for cells.quantiles = "cities"."""
    check: bool = False
    """Whether every run compares the sources with the .md5 files beside them, before its first stage."""


class GridSettings(_Section):
    """How finely the cells are drawn."""

    pixels_per_cell: Annotated[int, Field(ge=32, le=20_000)] = 800
    cells_per_block: Annotated[int, Field(ge=1, le=1000)] = 8


class CubeSettings(_Section):
    """Where the pixels are kept, and how they are encoded."""

    path: Annotated[Word, BeforeValidator(_path)] | None = None
    """A folder, or a URL such as "s3://bucket/city.zarr"; default: cube.zarr in the output folder."""
    codec: CodecName = "zstd"
    """"zstd" loses nothing; "jpeg" and "jpegxl" make the cube about ten times smaller and change
    pixels, but for "jpegxl" at quality 100."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Of the image codecs."""


class CellSettings(_Section):
    """Which cells, and how they are labelled."""

    rule: Literal["within", "centre", "touching", "all"] = "centre"
    """Which cells make the city, with respect to its boundary; "all": every cell of the census."""
    classes: Annotated[int, Field(ge=2, le=100)] = 5
    thresholds: list[float] | None = None
    """The incomes (euros a year, rising, one fewer than classes) that part the classes; default:
    quantiles."""
    quantiles: Literal["city", "cities", "nation"] = "city"
    """Of which cells: this city's, those of all sources.cities, or the whole census file's."""
    quantile_weight: Literal["cells", "individuals"] = "cells"
    """Whether every class holds as many cells, or as many people."""
    labels: Literal["observed", "all", "weighted"] | None = None
    """Which cells train and make the quantiles; "weighted": all, imputed ones counting for less in
    training. Default: the protocol's."""
    imputed_weight: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Of imputed cells where labels are "weighted"."""
    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    folds_kind: Literal["random", "spatial"] | None = None
    """Random within classes, as in the study, or of squares of cells; default: random."""
    fold_block_cells: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Side of the squares of spatial folds, in cells."""
    buffer_cells: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Cells this near to a tested one do not train its model, with spatial folds; default: 1 where no
    labelled cell may be imputed, else 4."""
    compare_folds: bool = True
    """Whether the other kind of folds is trained as well, to tell how much the random ones leak."""
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Cells with a smaller observed share are neither trained on nor predicted."""
    max_void: Annotated[float, Field(ge=0, le=1)] | None = None
    """Nor are cells with a larger share of subpixels of value 0; default: the protocol's, 1 = no limit."""
    seed: Seed = 0


class MosaicSettings(_Section):
    """How tiles become pixels."""

    prefer: Annotated[list[Preference], Field(min_length=1)] = list(PREFER)
    """What decides between tiles that show the same place; the first decides first."""
    fill_values: list[Annotated[int, Field(ge=0, le=255)]] = []
    """Pixels that have one of these values in all three colours are no imagery: [255] for tiles filled with
    white, [0] for black, which deep shadow may have as well."""


class TrainSettings(_Section):
    """How the networks are trained; what is not given comes from the protocol.

    What each setting means is told by the field of its name in `sesgrid.stages.protocol.Protocol`.
    """

    protocol: Literal["paper", "reference", "scratch"] = "paper"
    backbone: Word | None = None
    head: Literal["binomial", "softmax", "ordinal"] | None = None
    max_pool: bool | None = None
    scaling: Literal["backbone", "minmax"] | None = None
    weights: Annotated[Word, BeforeValidator(_local)] | None = None
    """"imagenet" (downloaded, or from Keras' cache), "random", or a weight file of Keras' backbone
    without top. Keras' own ImageNet file of EfficientNetB0 is refused: only by name is it scaled rightly."""
    weights_sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    batch_norm_momentum: Annotated[float, Field(ge=0, lt=1)] | Literal["own"] | None = None
    """"own": the backbone's, also where the protocol has another."""
    drop_connect_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    epochs: Count | None = None
    batch_size: Count | None = None
    samples_per_epoch: Annotated[int, Field(ge=1, lt=2**31)] | Literal["all"] | None = None
    """"all": every training cell once, also where the protocol has a number."""
    learning_rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    schedule: Schedule | None = None
    schedule_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    schedule_epochs: Count | None = None
    min_learning_rate: Annotated[float, Field(ge=0, le=1000)] | None = None
    patience: Count | None = None
    restarts: Annotated[int, Field(ge=0, le=1000)] | None = None
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    flips: bool | None = None
    flip_validation: bool | None = None
    crop_share: Annotated[float, Field(gt=0, le=1)] | None = None
    shuffle: Literal["full", "blocks"] | None = None
    data_parallel: bool | None = None
    deterministic: bool | None = None
    seed: Seed = 0


class ModelSettings(_Section):
    """Models that were trained elsewhere, in the place of this run's own."""

    cities: Annotated[FilePaths, Field(min_length=1)]
    """Output folders of finished runs. Each cell of these cities takes the model that did not see it."""
    elsewhere: Word = "nearest"
    """Whose models look at all other cells: a city by its name, the "nearest", or "none"."""


class ExplainSettings(_Section):
    """How activations are computed; what is not given comes from the preset."""

    preset: Literal["paper", "reference"] = "paper"
    layer: Word | None = None
    """Layer of the network on whose output the class activation map is made."""
    gates: Literal["guided", "none"] | None = None
    cam: Literal["relu", "centred"] | None = None
    clip_percentile: Annotated[float, Field(gt=0, le=100)] | None = None
    channels: Literal["rgb", "bgr"] | None = None
    fragments: bool = False
    """Whether statistics are kept of every polygon in every cell, in fragments.parquet."""
    maps: Literal["none", "all"] | list[Word] = "none"
    """Whose activation maps are kept in the cube: of all cells, or of these (INSEE ids), as bytes."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's passes while explaining; bfloat16 is for GPUs."""


class AnalyseSettings(_Section):
    """How findings are tested."""

    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    seed: Seed = 0


class TlsSettings(_Section):
    """Certificates: all parts of the cluster then speak TLS, and none is let in without one."""

    ca: FilePath
    """Certificate of the authority that signs the others, PEM."""
    cert: FilePath
    """This machine's certificate, PEM."""
    key: FilePath
    """Its key, PEM."""


class Adaptive(_Section):
    """Bounds within which a cluster follows the work; workers that go are replaced."""

    minimum: Count = 1
    """With none the work would not begin: what a run sends depends on how many workers there are."""
    maximum: Count

    @model_validator(mode="after")
    def _ordered(self) -> Adaptive:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum ({self.minimum}) of at most maximum ({self.maximum})")
        return self


class ClusterSettings(_Section):
    """Where the work runs: a local cluster, any other class of one, or one that runs already."""

    address: Word | None = None
    """Of a running Dask scheduler, such as "tls://host:8786"; --scheduler goes before it."""
    kind: Word | None = None
    """A class by its full name: "distributed.LocalCluster", "dask_jobqueue.SLURMCluster",
    "dask_kubernetes.operator.KubeCluster", "dask_cuda.LocalCUDACluster", …, one of
    `sesgrid.run.cluster_kind.KINDS`; default: a local cluster sized to the machine, with one process a
    GPU where dask-cuda is installed."""
    options: dict[str, Any] = {}
    """What the class is made with, as its own documentation tells; none that name code, see
    `sesgrid.run.cluster_options`."""
    adapt: Adaptive | None = None
    """Of a class by its name; without it, what its options ask for is all there is."""
    tls: TlsSettings | None = None
    patience_s: Annotated[float, Field(gt=0, le=10_000_000)] = 60
    """How long a cluster may have no worker at the start; more where jobs wait in a queue."""
    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    threads: Annotated[int, Field(ge=1, le=10_000)] | None = None
    memory: Annotated[Word, AfterValidator(_amount)] = "auto"
    """Per worker, as Dask writes it: "4GB"."""
    gdal_cache_mb: Annotated[int, Field(ge=16, le=1_000_000)] = 128


class Config(_Section):
    """One run."""

    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
        AfterValidator(_file_name),
    ]
    """Of the city; names the models."""
    output: FilePath
    """Folder for everything that the run makes."""
    sources: Sources
    grid: GridSettings = GridSettings()
    cube: CubeSettings = CubeSettings()
    cells: CellSettings = CellSettings()
    mosaic: MosaicSettings = MosaicSettings()
    train: TrainSettings = TrainSettings()
    models: ModelSettings | None = None
    explain: ExplainSettings = ExplainSettings()
    analyse: AnalyseSettings = AnalyseSettings()
    cluster: ClusterSettings = ClusterSettings()
