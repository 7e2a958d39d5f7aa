"""A run that is killed, changed, damaged, verified, moved and run again, in any order, against a model.

The model is what an undisturbed run makes of the same settings and tiles. After each run the cube equals it;
what was damaged is told by `verify`, and made again by a run or by ``--redo``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from benchmarks.fuzz.commands import Told, command
from benchmarks.fuzz.own_files import pixels_of
from sesgrid.store.parts import Parts
from sesgrid.synth import write_city

pytestmark = pytest.mark.long

SIDES = (32, 40)
"""Pixels a cell: a setting that changes every pixel."""

CITY = """
name = "Modelville"
output = "out"
[sources]
census = "{census}"
ortho = "{ortho}"
landcover = "{landcover}"
[grid]
pixels_per_cell = {side}
cells_per_block = 4
[cells]
folds = 2
classes = 3
compare_folds = false
"""


class Killed(BaseException):
    """Nothing of ours handles it."""


class World:
    """The city's sources in two states, and what an undisturbed run makes of them."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.folder, self.scheduler = folder, scheduler
        city = write_city(folder / "city", cells=5, seed=4, resolution_m=1.6)
        names = ("census", "ortho", "landcover")
        self.names = {n: str(Path(getattr(city, n)).relative_to(folder / "city")) for n in names}
        (tile, *_) = sorted((folder / "city").rglob("*.jp2"))
        self.tile = tile.relative_to(folder / "city")
        with rasterio.open(tile) as raster:
            pixels, profile = raster.read(), raster.profile
        other = folder / "other.jp2"
        with rasterio.open(
            other, "w", **(profile | {"QUALITY": 100, "REVERSIBLE": "YES"})
        ) as raster:
            raster.write(255 - pixels)
        self.tiles = (tile.read_bytes(), other.read_bytes())
        self._made: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def place(self, folder: Path, side: int, tile: int) -> None:
        """Write the city with a setting and a tile."""
        if not folder.exists():
            shutil.copytree(self.folder / "city", folder)
        (folder / "city.toml").write_text(CITY.format(side=side, **self.names))
        if (folder / self.tile).read_bytes() != self.tiles[tile]:
            (folder / self.tile).write_bytes(self.tiles[tile])

    def run(self, folder: Path) -> None:
        command("landcover", folder / "city.toml", "--scheduler", self.scheduler)

    def wanted(self, side: int, tile: int) -> dict[str, np.ndarray]:
        """The pixels of an undisturbed run."""
        if (side, tile) not in self._made:
            folder = self.folder / f"undisturbed-{side}-{tile}"
            self.place(folder, side, tile)
            self.run(folder)
            self._made[side, tile] = pixels_of(folder / "out" / "cube.zarr")
        return self._made[side, tile]


def machine(world: World) -> type[RuleBasedStateMachine]:
    """The model, of a world."""

    class Run(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.top = Path(tempfile.mkdtemp(dir=world.folder))
            self.folder, self.side, self.tile = self.top / "a", SIDES[0], 0
            self.made: tuple[int, int] | None = None
            """What the cube was made from; None: not known to be whole."""
            self.damaged = False
            world.place(self.folder, self.side, self.tile)

        def teardown(self) -> None:
            shutil.rmtree(self.top)

        @property
        def cube(self) -> Path:
            return self.folder / "out" / "cube.zarr"

        def equals_the_model(self) -> None:
            wanted, got = world.wanted(self.side, self.tile), pixels_of(self.cube)
            for name, pixels in wanted.items():
                np.testing.assert_array_equal(got[name], pixels, err_msg=name)

        @rule()
        def run(self) -> None:
            world.run(self.folder)
            self.equals_the_model()
            assert command("verify", self.cube).out == "0 faults\n"
            self.made, self.damaged = (self.side, self.tile), False

        @rule(lines=st.integers(1, 14))
        def kill_between_two_lines(self, lines: int) -> None:
            left = iter(range(lines))

            def echo(*_: object, **__: object) -> None:
                if next(left, None) is None:
                    raise Killed

            with mock.patch("click.echo", echo):
                self.killed()

        @rule()
        def kill_before_a_part_is_recorded(self) -> None:
            with mock.patch.object(Parts, "write", side_effect=Killed):
                self.killed()

        def killed(self) -> None:
            try:
                world.run(self.folder)
            except Killed:
                self.made = None
                return
            self.equals_the_model()
            self.made, self.damaged = (self.side, self.tile), False

        @rule(side=st.sampled_from(SIDES))
        def change_a_setting(self, side: int) -> None:
            self.side = side
            world.place(self.folder, self.side, self.tile)

        @rule(tile=st.sampled_from((0, 1)))
        def change_a_tile(self, tile: int) -> None:
            self.tile = tile
            world.place(self.folder, self.side, self.tile)

        @precondition(lambda self: self.made is not None and not self.damaged)
        @rule(data=st.data(), way=st.sampled_from(("gone", "cut", "empty")))
        def damage_a_shard(self, data: st.DataObject, way: str) -> None:
            self._damage(
                data, self.cube / "pixels", "c/**/*", way, ("image", "coverage", "landcover")
            )

        @precondition(lambda self: self.made is not None and not self.damaged)
        @rule(data=st.data(), way=st.sampled_from(("gone", "cut", "empty")))
        def damage_a_table(self, data: st.DataObject, way: str) -> None:
            self._damage(data, self.folder / "out", "work/**/*.parquet", way, (".",))

        def _damage(
            self, data: st.DataObject, top: Path, pattern: str, way: str, below: tuple[str, ...]
        ) -> None:
            found = sorted(p for b in below for p in (top / b).glob(pattern) if p.is_file())
            path = data.draw(st.sampled_from(found), label="damaged")
            if way == "gone":
                path.unlink()
            else:
                path.write_bytes(
                    path.read_bytes()[: path.stat().st_size // 2 if way == "cut" else 0]
                )
            self.damaged = True

        @precondition(lambda self: self.made is not None)
        @rule()
        def verify(self) -> None:
            try:
                told = command("verify", self.cube).out
            except Told:
                assert self.damaged
            else:
                assert not self.damaged, told

        @precondition(lambda self: self.made is not None and self.damaged)
        @rule()
        def redo(self) -> None:
            options = (
                "--redo",
                "--config",
                self.folder / "city.toml",
                "--scheduler",
                world.scheduler,
            )
            try:
                command("verify", self.cube, *options)
            except Told:
                return  # it says what another run has to do
            self.damaged = False
            if self.made == (self.side, self.tile):
                self.equals_the_model()

        @rule()
        def move(self) -> None:
            self.folder = self.folder.rename(self.top / ("b" if self.folder.name == "a" else "a"))

    return Run


def test_whatever_happens_between_runs_the_cube_equals_an_undisturbed_one(tmp_path, scheduler):
    run_state_machine_as_test(
        machine(World(tmp_path, scheduler)),
        settings=settings(
            max_examples=5, stateful_step_count=8, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
