"""A run found by its cube: its tables lie beside it, or where the run's configuration says.

A cube and the folder that it lies in may come from anybody. Nothing in them decides where else is looked,
what is imported or what is connected to: sources and clusters are named by the configuration that the user
gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from sesgrid.errors import ConfigError, FormatError, MissingInputError, SesgridError
from sesgrid.run.config import Config
from sesgrid.run.tables import CellTable
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import Cube, owner_of
from sesgrid.store.location import is_remote

__all__ = ["config_of_cube", "files_of_cube"]


def files_of_cube(path: str, config: Config | None = None) -> Workspace:
    """Where the tables of the run lie that makes, or made, a cube.

    Parameters
    ----------
    path : str
        Of the cube, which need not be whole.
    config : Config, optional
        Of the run, for a cube that does not lie beside its run's ``work`` folder.

    Raises
    ------
    MissingInputError
        There are no such tables.
    FormatError
        They are another run's.
    """
    at = path if is_remote(path) else str(Path(path).resolve())
    folders = [] if is_remote(path) else [Path(at).parent]
    if config is not None:
        folders.append(config.output)
    for folder in folders:
        files = Workspace(folder, at)
        if files.table("cells").exists() or files.mark.path.exists():
            _require_same_run(files)
            return files
    raise MissingInputError(
        f"the tables of the run that makes {path} were not found in "
        f"{' or '.join(map(str, folders)) or 'a folder beside it'}: put the cube beside its run's work "
        "folder, or name the run's configuration with --config"
    )


def _require_same_run(files: Workspace) -> None:
    owner = owner_of(files.cube)
    if owner is not None and owner != _told(files.mark.run_id, owner):
        raise FormatError(
            f"{files.cube} is not the cube of the run whose tables lie in {files.output}: put it beside its "
            "own run's work folder, or name that run's configuration with --config"
        )


def _told(ask: Callable[[], str | None], damaged: str | None) -> str | None:
    """What the mark of a run tells, or something else where it is damaged or gone."""
    try:
        told = ask()
    except FormatError:
        return damaged
    return damaged if told is None else told


def _name_of(files: Workspace) -> str | None:
    """The name of a run by its mark, or by what else bears it where that is damaged or gone."""
    return _told(files.mark.name, None) or next(_told_elsewhere(files), None)


def _told_elsewhere(files: Workspace) -> Iterator[str]:
    asks: tuple[Callable[[], object], ...] = (
        lambda: CellTable(files.table("cells")).attrs.get("city"),
        lambda: Cube.open(files.cube).attribute("title"),
    )
    for ask in asks:
        with suppress(SesgridError, KeyError):
            name = ask()
            if isinstance(name, str):
                yield name


def config_of_cube(path: str, config: Config) -> Config:
    """The configuration of a run whose cube and tables may have been moved since.

    Raises
    ------
    MissingInputError, FormatError
        As `files_of_cube`.
    ConfigError
        The configuration is another run's.
    """
    files = files_of_cube(path, config)
    name = _name_of(files) or config.name
    if name != config.name:
        raise ConfigError(
            f"--config is of the run {config.name!r}, and {path} of {name!r}: give the configuration of "
            "that run"
        )
    # a cube that lies where it would without being named is not named: its mosaic would count as changed
    usual = config.cube.path is None and files.cube == Workspace(files.output).cube
    cube = config.cube if usual else config.cube.model_copy(update={"path": files.cube})
    return config.model_copy(update={"output": files.output, "cube": cube})
