"""The cube of a run as its other files tell that it should be, and what of it is written again from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sesgrid.errors import FormatError, SesgridError
from sesgrid.foreign import reading
from sesgrid.grid import Extent, Grid
from sesgrid.run.config import Config
from sesgrid.run.pixel_blocks import LAYERS_OF, list_layers, written_layers
from sesgrid.run.pixel_stages import described
from sesgrid.run.workspace import Workspace, load_table
from sesgrid.store.codec import PixelCodec
from sesgrid.store.cube import Cube, owner_of, token_of
from sesgrid.store.cube_layout import OWNER
from sesgrid.store.location import is_empty
from sesgrid.store.metadata import damaged_keys, write_again
from sesgrid.store.parts import Parts
from sesgrid.store.written import is_listed

__all__ = ["CubeDamage", "expected_cube"]


def expected_cube(files: Workspace) -> Cube | None:
    """The cube that the record of the mosaic and the cells tell of, as it should lie there.

    None where they do not tell, where nothing lies there at all, and where another cube does.
    """
    record = files.record("mosaic").read()
    try:
        with reading(files.record("mosaic").path):
            facts, token = record["facts"], str(record["summary"]["cube"])
            grid = Grid(facts["grid.pixels_per_cell"], facts["grid.cells_per_block"])
            codec = PixelCodec(facts["cube.codec"], facts["cube.quality"])
            cells = load_table(files.table("cells"), ["row", "col"])
            extent = Extent.of_cells(grid, cells["row"], cells["col"])
    except SesgridError:
        return None
    there, owner = token_of(files.cube), owner_of(files.cube)
    others = there not in (None, token) or owner not in (None, _run_id(files))
    return None if others or is_empty(files.cube) else Cube(files.cube, extent, token, codec)


def _run_id(files: Workspace) -> str | None:
    try:
        return files.mark.run_id() or owner_of(files.cube)
    except FormatError:
        return owner_of(files.cube)


@dataclass(frozen=True)
class CubeDamage:
    """What of a run's cube, beside its shards and sealed cells, is not as it should be."""

    cube: Cube
    keys: list[str]
    """Of metadata and coordinates."""
    unlisted: dict[str, list[str]]
    """Stage → its layers whose shards are not listed as its parts tell."""

    @classmethod
    def of(cls, files: Workspace) -> CubeDamage | None:
        """Of a run's cube; None where all is well, or nothing tells what it should be."""
        cube = expected_cube(files)
        if cube is None:
            return None
        keys = damaged_keys(cube)
        # sesgrid 0.1 listed none; of a damaged root it is not known whose it is
        listing = LAYERS_OF if keys or owner_of(cube.path) is not None else ()
        unlisted = {stage: _unlisted_layers(files, stage, cube) for stage in listing}
        unlisted = {stage: layers for stage, layers in unlisted.items() if layers}
        return cls(cube, keys, unlisted) if keys or unlisted else None

    def mend(
        self, config: Config, files: Workspace, mosaic_key: str, tell: Callable[[str], None]
    ) -> set[str]:
        """Write it again; by one driver alone.

        Parameters
        ----------
        config : Config
        files : Workspace
        mosaic_key : str
            Names what the mosaic was made from.
        tell : callable
            Receives a line for each.

        Returns
        -------
        set of str
            Stages whose results were lost with it; their records are forgotten.
        """
        name = Path(files.cube).name
        if self.keys:
            software = f"sesgrid {files.record('mosaic').read()['facts']['sesgrid']}"
            told = described(config, mosaic_key)
            told |= {"software": software, OWNER: files.mark.run_id()}
            write_again(self.cube, told, self.keys)
        for key in self.keys:
            tell(f"{name}/{key}: was damaged, and is written again")
        for stage in self.unlisted:
            parts = Parts(files.parts(stage))
            list_layers(parts, stage, self.cube, parts.names())
            tell(f"{name}: the shards of {stage} are listed again")
        lost = set()
        # what the metadata told of them is gone with these
        if "pixels/zarr.json" in self.keys and config.explain.maps != "none":
            lost.add("explain")
        if "zarr.json" in self.keys and files.record("analyse").read():
            lost.add("analyse")
        for stage in lost:
            files.record(stage).forget()
        return lost


def _unlisted_layers(files: Workspace, stage: str, cube: Cube) -> list[str]:
    """Layers of a finished stage whose shards the cube does not list as the stage's parts do."""
    if not files.record(stage).read():
        return []
    parts = Parts(files.parts(stage))
    records = [parts.sound(batch) for batch in parts.names()]
    if not all(records):
        return []
    return [
        name
        for name, shards in written_layers(stage, records).items()
        if shards and not is_listed(cube.path, cube.extent, name, shards.items())
    ]
