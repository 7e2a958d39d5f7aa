"""The TOML of a run: read, checked against its settings, and its paths made absolute."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sesgrid.errors import ConfigError, MissingInputError, SesgridError
from sesgrid.foreign import cause_of, reading
from sesgrid.run.cluster_kind import require_known
from sesgrid.run.cluster_options import require_harmless
from sesgrid.run.config_errors import faults_of
from sesgrid.run.settings import ClusterSettings, Config, MosaicSettings, Sources, TrainSettings
from sesgrid.sources import CLASS_TABLES, holds_rasters
from sesgrid.stages.labels import Thresholds
from sesgrid.store.location import is_remote

__all__ = ["Config", "MosaicSettings", "load_config"]

_LARGEST = 1 << 20
"""Bytes of a configuration, at most."""

_BLOCK_PX = 32_768
"""Pixels on a side of a block, at most: three gigabytes."""


def load_config(path: str | Path) -> Config:
    """Read and check a run's TOML.

    Returns
    -------
    Config
        Its paths are absolute; those in the TOML are relative to it.

    Raises
    ------
    MissingInputError
        The file, or an input that it names, is missing.
    ReadError
        The file, or the folder of an input, may not be read.
    ConfigError
        Not TOML; an unknown, misspelt, missing or ill-typed key (with the nearest known key); settings that
        contradict each other.
    """
    path = Path(path)
    with _told_of(path):
        raw = _parsed(_text(path))
        try:
            config = Config.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(faults_of(error, Config)) from error
        _require_agreement(config)
        return _placed(config, path)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Errors name the configuration that they are about."""
    try:
        yield
    except SesgridError as error:
        raise type(error)(f"{path}: {error}") from error


def _text(path: Path) -> str:
    try:
        with reading("the configuration", ConfigError, "give the path of a run's TOML"):
            if path.is_dir():
                raise ConfigError("this is a folder: expected a TOML file")
            with open(path, "rb") as file:
                found = file.read(_LARGEST + 1)
    except MissingInputError as error:
        raise MissingInputError("there is no configuration of this name: check the path") from error
    if len(found) > _LARGEST:
        raise ConfigError(f"this is no configuration: it is larger than {_LARGEST >> 20} MB")
    if found.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError("it is written in UTF-16, and TOML is UTF-8: save it as UTF-8")
    try:
        # Notepad and PowerShell write a mark before UTF-8
        text = found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = found.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"it is not UTF-8, as TOML is (byte 0x{found[error.start]:02x} in line {line}): save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError("it is not valid TOML: brackets lie too deep in each other") from error
    except ValueError as error:
        raise ConfigError(f"it is not valid TOML: {cause_of(error)}") from error


def _require_agreement(config: Config) -> None:
    """Check what no setting tells alone."""
    _require_quantiles(config)
    side = config.grid.pixels_per_cell * config.grid.cells_per_block
    if side > _BLOCK_PX:
        raise ConfigError(
            f"grid.pixels_per_cell × grid.cells_per_block make blocks of {side:,} pixels on a side: expected "
            f"{_BLOCK_PX:,} at most; choose one of them smaller"
        )
    about_it = config.sources.landcover_classes is not None or config.explain.fragments
    if config.sources.landcover is None and about_it:
        raise ConfigError(
            "sources.landcover is missing: sources.landcover_classes and explain.fragments are about it"
        )
    _require_one_cluster(config.cluster)


def _require_quantiles(config: Config) -> None:
    """Check that the settings of the classes' thresholds go together."""
    c = config.cells
    if c.thresholds is not None:
        given = Thresholds(tuple(c.thresholds))
        if given.classes != c.classes:
            raise ConfigError(
                f"cells.thresholds part {given.classes} classes, and cells.classes is {c.classes}: give as "
                "many thresholds as classes less one"
            )
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


def _require_one_cluster(cluster: ClusterSettings) -> None:
    if cluster.address is not None and cluster.kind is not None:
        raise ConfigError(
            "cluster.address is of a cluster that runs, cluster.kind of one to be started: give one of them"
        )
    if cluster.kind is None and (cluster.options or cluster.adapt):
        raise ConfigError(
            "cluster.options and cluster.adapt belong to cluster.kind: name the class"
        )
    if cluster.kind is not None:
        require_known(cluster.kind)
        require_harmless(cluster.kind, cluster.options)


def _placed(config: Config, toml: Path) -> Config:
    """The configuration with absolute paths; those that are read are there."""
    with reading("the folder of the configuration", ConfigError):
        base = toml.resolve().parent
    changes: dict[str, Any] = {
        "output": _at(base, "output", config.output),
        "sources": _placed_sources(config.sources, base),
        "train": _placed_weights(config.train, base),
    }
    landcover = changes["sources"].landcover
    if config.explain.fragments and landcover is not None and holds_rasters(landcover):
        raise ConfigError(
            "explain.fragments needs polygons, and sources.landcover is a classified raster: leave it out"
        )
    cube = config.cube.path
    if cube is not None and not is_remote(cube):
        path = str(_at(base, "cube.path", Path(cube)))
        changes["cube"] = config.cube.model_copy(update={"path": path})
    if config.cluster.tls is not None:
        tls = {k: _at(base, f"cluster.tls.{k}", p, True) for k, p in config.cluster.tls}
        placed = config.cluster.tls.model_copy(update=tls)
        changes["cluster"] = config.cluster.model_copy(update={"tls": placed})
    if config.models is not None:
        cities = [_at(base, "models.cities", p) for p in config.models.cities]
        changes["models"] = config.models.model_copy(update={"cities": cities})
    return config.model_copy(update=changes)


def _placed_sources(sources: Sources, base: Path) -> Sources:
    changes: dict[str, Any] = {}
    for name, value in sources:
        if name == "landcover_classes":
            changes[name] = _placed_or(tuple(CLASS_TABLES), value, base, f"sources.{name}")
        elif isinstance(value, Path):
            changes[name] = _at(base, f"sources.{name}", value, True)
        elif isinstance(value, list):
            changes[name] = [_at(base, f"sources.{name}", p, True) for p in value]
    return sources.model_copy(update=changes)


def _placed_weights(train: TrainSettings, base: Path) -> TrainSettings:
    path = _placed_or(("imagenet", "random"), train.weights, base, "train.weights")
    return train.model_copy(update={"weights": None if path is None else str(path)})


def _placed_or(
    names: Sequence[str], value: str | Path | None, base: Path, key: str
) -> str | Path | None:
    """A file's path made absolute, or one of the names."""
    if value is None or value in names:
        return value
    try:
        return _at(base, key, Path(value), True)
    except MissingInputError as error:
        known = ", ".join(map(repr, names))
        raise MissingInputError(f"{error}; expected {known} or a file") from error


def _at(base: Path, key: str, path: Path, there: bool = False) -> Path:
    """A path made absolute; one that must be there, is."""
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{key}: {path} begins with '~', and there is no such user's home: write the path in full"
        ) from error
    with reading(f"{key}: {path}", ConfigError, "give a path that leads to a file or a folder"):
        path = (base / path).resolve()
        with suppress(FileNotFoundError, NotADirectoryError):  # but a name that no file can have
            path.lstat()
    if there:
        try:
            with reading(f"{key}: {path}"):
                path.stat()
        except MissingInputError as error:
            raise MissingInputError(f"{key}: {path} does not exist") from error
    return path
