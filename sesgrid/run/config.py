"""The TOML of a run: strict, every key documented, every path relative to the file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.stages.protocol import Schedule
from sesgrid.stages.tiles import PREFER, Preference
from sesgrid.store.codec import CodecName
from sesgrid.store.location import is_remote

__all__ = ["Config", "load_config"]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sources(_Section):
    """Where the data lie."""

    census: Path
    """Filosofi 200 m cells: CSV, GeoPackage, shapefile or parquet, plain or in .zip/.7z."""
    census_layer: str | None = None
    """Layer of the census file, where it holds several."""
    vintage: Annotated[str | None, BeforeValidator(_text)] = None
    """Census year, where neither columns nor file name tell."""
    ortho: Annotated[list[Path], BeforeValidator(_listed), Field(min_length=1)]
    """BD ORTHO deliveries, folders of rasters or single rasters."""
    ortho_crs: str | None = None
    """CRS of tiles that carry none."""
    landcover: Path | None = None
    """Urban Atlas, or classified rasters (a raster, or a folder of some) with a table of their classes;
    without it nothing is explained per class."""
    landcover_classes: Path | None = None
    """Table of a classified raster's codes: CSV with code, landcover_class and group."""
    landcover_layer: str | None = None
    """Layer of the land cover's file, where its name does not tell."""
    boundary: Path | None = None
    """Polygon of the city; default: the Urban Atlas boundary, else wherever there is imagery."""
    boundary_layer: str | None = None
    """Layer of the boundary's file, where it holds several."""
    cities: Annotated[list[Path], BeforeValidator(_listed)] = []
    """Boundaries or Urban Atlas files of all the cities whose cells make the quantiles, this one among
    them; for cells.quantiles = "cities"."""


class GridSettings(_Section):
    """How finely the cells are drawn."""

    pixels_per_cell: Annotated[int, Field(ge=32)] = 800
    cells_per_block: Annotated[int, Field(ge=1)] = 8


class CubeSettings(_Section):
    """Where the pixels are kept, and how they are encoded."""

    path: str | None = None
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
    classes: Annotated[int, Field(ge=2)] = 5
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
    folds: Annotated[int, Field(ge=2)] = 5
    folds_kind: Literal["random", "spatial"] | None = None
    """Random within classes, as in the study, or of squares of cells; default: random."""
    fold_block_cells: Annotated[int, Field(ge=1)] = 8
    """Side of the squares of spatial folds, in cells."""
    buffer_cells: Annotated[int, Field(ge=0)] | None = None
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
    backbone: str | None = None
    head: Literal["binomial", "softmax", "ordinal"] | None = None
    max_pool: bool | None = None
    scaling: Literal["backbone", "minmax"] | None = None
    weights: str | None = None
    """"imagenet" (downloaded, or from Keras' cache), "random", or a weight file of Keras' backbone
    without top. Keras' own ImageNet file of EfficientNetB0 is refused: only by name is it scaled rightly."""
    weights_sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    batch_norm_momentum: Annotated[float, Field(ge=0, lt=1)] | Literal["own"] | None = None
    """"own": the backbone's, also where the protocol has another."""
    drop_connect_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    samples_per_epoch: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    """"all": every training cell once, also where the protocol has a number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    schedule: Schedule | None = None
    schedule_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    schedule_epochs: Annotated[int, Field(ge=1)] | None = None
    min_learning_rate: Annotated[float, Field(ge=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    restarts: Annotated[int, Field(ge=0)] | None = None
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

    cities: Annotated[list[Path], BeforeValidator(_listed), Field(min_length=1)]
    """Output folders of finished runs. Each cell of these cities takes the model that did not see it."""
    elsewhere: str = "nearest"
    """Whose models look at all other cells: a city by its name, the "nearest", or "none"."""


class ExplainSettings(_Section):
    """How activations are computed; what is not given comes from the preset."""

    preset: Literal["paper", "reference"] = "paper"
    layer: str | None = None
    """Layer of the network on whose output the class activation map is made."""
    gates: Literal["guided", "none"] | None = None
    cam: Literal["relu", "centred"] | None = None
    clip_percentile: Annotated[float, Field(gt=0, le=100)] | None = None
    channels: Literal["rgb", "bgr"] | None = None
    fragments: bool = False
    """Whether statistics are kept of every polygon in every cell, in fragments.parquet."""
    maps: Literal["none", "all"] | list[str] = "none"
    """Whose activation maps are kept in the cube: of all cells, or of these (INSEE ids), as bytes."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's passes while explaining; bfloat16 is for GPUs."""


class AnalyseSettings(_Section):
    """How findings are tested."""

    bootstrap: Annotated[int, Field(ge=100)] = 2000
    seed: Seed = 0


class TlsSettings(_Section):
    """Certificates: all parts of the cluster then speak TLS, and none is let in without one."""

    ca: Path
    """Certificate of the authority that signs the others, PEM."""
    cert: Path
    """This machine's certificate, PEM."""
    key: Path
    """Its key, PEM."""


class Adaptive(_Section):
    """Bounds within which a cluster follows the work; workers that go are replaced."""

    minimum: Annotated[int, Field(ge=1)] = 1
    """With none the work would not begin: what a run sends depends on how many workers there are."""
    maximum: Annotated[int, Field(ge=1)]


class ClusterSettings(_Section):
    """Where the work runs: a local cluster, any other class of one, or one that runs already."""

    address: str | None = None
    """Of a running Dask scheduler, such as "tls://host:8786"; --scheduler goes before it."""
    kind: str | None = None
    """A class by its full name: "distributed.LocalCluster", "dask_jobqueue.SLURMCluster",
    "dask_kubernetes.operator.KubeCluster", "dask_cuda.LocalCUDACluster", …; default: a local cluster
    sized to the machine, with one process a GPU where dask-cuda is installed."""
    options: dict[str, Any] = {}
    """What the class is made with, as its own documentation tells."""
    adapt: Adaptive | None = None
    """Of a class by its name; without it, what its options ask for is all there is."""
    tls: TlsSettings | None = None
    patience_s: Annotated[float, Field(gt=0)] = 60
    """How long a cluster may have no worker at the start; more where jobs wait in a queue."""
    workers: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    memory: str = "auto"
    """Per worker, as Dask writes it: "4GB"."""
    gdal_cache_mb: Annotated[int, Field(ge=16)] = 128


class Config(_Section):
    """One run."""

    name: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^/\\\x00]+$")
    ]
    """Of the city; names the models."""
    output: Path
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


def load_config(path: str | Path) -> Config:
    """Read and check a run's TOML.

    Raises
    ------
    MissingInputError
        The file, or an input that it names, is missing.
    ConfigError
        Not TOML; an unknown, misspelt, missing or ill-typed key (with the nearest known key).
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"no configuration at {path}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder: expected a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from error
    return _absolute(config, path.resolve().parent)


def _explain(path: Path, error: ValidationError) -> str:
    lines = [f"{path}:"]
    for problem in error.errors():
        where = [str(p) for p in problem["loc"]]
        key = ".".join(where)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(where[:-1])
            near = difflib.get_close_matches(where[-1], known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"  unknown key '{key}': {hint}")
        elif problem["type"] == "missing":
            lines.append(f"  missing key '{key}'")
        else:
            lines.append(f"  '{key}': {problem['msg']}, received {problem['input']!r}")
    return "\n".join(lines)


def _known_keys(section: list[str]) -> list[str]:
    model: Any = Config
    for name in section:
        model = model.model_fields[name].annotation
    return sorted(model.model_fields)


def _require_quantiles(config: Config) -> None:
    """Check that the settings of the classes' thresholds go together."""
    c = config.cells
    if c.thresholds is not None and (c.quantiles, c.quantile_weight) != ("city", "cells"):
        raise ConfigError(
            "cells.thresholds are given, so there are no quantiles to take: leave out cells.thresholds, or "
            "cells.quantiles and cells.quantile_weight"
        )
    if (c.quantiles == "cities") != bool(config.sources.cities):
        raise ConfigError(
            "cells.quantiles = 'cities' and sources.cities (the boundaries of these cities) belong "
            f"together: received {c.quantiles!r} and {len(config.sources.cities)} boundaries"
        )


def _absolute(config: Config, base: Path) -> Config:
    def at(p: Path | None) -> Path | None:
        return None if p is None else (base / p.expanduser()).resolve()

    s = config.sources
    sources = s.model_copy(
        update={
            "census": at(s.census),
            "ortho": [at(p) for p in s.ortho],
            "landcover": at(s.landcover),
            "landcover_classes": at(s.landcover_classes),
            "boundary": at(s.boundary),
            "cities": [at(p) for p in s.cities],
        }
    )
    for name in ("census", "landcover", "landcover_classes", "boundary"):
        found = getattr(sources, name)
        if found is not None and not found.exists():
            raise MissingInputError(f"sources.{name}: {found} does not exist")
    for name in ("ortho", "cities"):
        for p in getattr(sources, name):
            if not p.exists():
                raise MissingInputError(f"sources.{name}: {p} does not exist")
    _require_quantiles(config)
    if s.landcover is None and (s.landcover_classes is not None or config.explain.fragments):
        raise ConfigError(
            "sources.landcover is missing: sources.landcover_classes and explain.fragments are about it"
        )
    if s.landcover_classes is not None and config.explain.fragments:
        raise ConfigError(
            "explain.fragments needs polygons, and sources.landcover is a classified raster: leave it out"
        )
    cube = config.cube
    if cube.path is not None and not is_remote(cube.path):
        cube = cube.model_copy(update={"path": str(at(Path(cube.path)))})
    cluster = _placed_cluster(config.cluster, at)
    train = config.train
    if train.weights not in (None, "imagenet", "random"):
        weights = at(Path(str(train.weights)))
        if weights is None or not weights.exists():
            raise MissingInputError(
                f"train.weights: {weights} does not exist; expected 'imagenet', 'random' or a file"
            )
        train = train.model_copy(update={"weights": str(weights)})
    models = config.models
    if models is not None:
        models = models.model_copy(update={"cities": [at(p) for p in models.cities]})
    return config.model_copy(
        update={
            "models": models,
            "sources": sources,
            "output": at(config.output),
            "cube": cube,
            "train": train,
            "cluster": cluster,
        }
    )


def _placed_cluster(
    cluster: ClusterSettings, at: Callable[[Path | None], Path | None]
) -> ClusterSettings:
    """The settings with the certificates' paths made absolute."""
    if cluster.address is not None and cluster.kind is not None:
        raise ConfigError(
            "cluster.address is of a cluster that runs, cluster.kind of one to be started: give one of them"
        )
    if cluster.kind is None and (cluster.options or cluster.adapt):
        raise ConfigError(
            "cluster.options and cluster.adapt belong to cluster.kind: name the class"
        )
    if cluster.tls is None:
        return cluster
    paths = {name: at(getattr(cluster.tls, name)) for name in ("ca", "cert", "key")}
    for name, path in paths.items():
        if path is None or not path.is_file():
            raise MissingInputError(f"cluster.tls.{name}: {path} does not exist")
    return cluster.model_copy(update={"tls": cluster.tls.model_copy(update=paths)})
