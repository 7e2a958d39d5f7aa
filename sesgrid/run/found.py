"""A run found by its cube."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.run.config import Config
from sesgrid.run.workspace import Workspace
from sesgrid.store.cube import Cube
from sesgrid.store.location import is_remote

__all__ = ["candidates", "run_of_cube"]


def candidates(path: str) -> Iterator[Config]:
    """The configuration in a cube, with each of the output folders where its run's tables may lie.

    Beside the cube first, so that an output folder may be moved; then where the run had them.

    Raises
    ------
    MissingInputError
        No cube, or none that a run made.
    FormatError
        The configuration in the cube's attributes is none.
    """
    raw = Cube.open(path).attribute("configuration")
    if raw is None:
        raise MissingInputError(f"{path} was made by no run: it has no attribute 'configuration'")
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise FormatError(
            f"{path}: its attribute 'configuration' is not one of this version ({error}); run again"
        ) from error
    at = path if is_remote(path) else str(Path(path).resolve())
    place = config.cube.model_copy(update={"path": at})
    for folder in [config.output] if is_remote(path) else [Path(at).parent, config.output]:
        yield config.model_copy(update={"output": folder, "cube": place})


def run_of_cube(path: str) -> Config:
    """The configuration of the run that makes, or made, a cube; finished or not.

    Raises
    ------
    MissingInputError, FormatError
        As `candidates`; or the run's tables are not found.
    """
    looked = []
    for config in candidates(path):
        files = Workspace.of(config)
        if files.table("cells").exists():
            return config
        looked.append(str(config.output))
    raise MissingInputError(
        f"the tables of the run that makes {path} were not found in {' or '.join(looked)}: put the cube "
        "beside its run's work folder"
    )
