"""A synthetic city: plan, income, picture, census and land cover, written as users get them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from sesgrid.errors import ConfigError
from sesgrid.grid import CELL_M
from sesgrid.synth.census import Census, census_table, count_people, write_census
from sesgrid.synth.classes import BEARING, NAMES, RESIDENTIAL
from sesgrid.synth.draw_homes import POOR_M, RICH_M, house_size_m
from sesgrid.synth.income import IncomeField, choose_field, income_of_rank
from sesgrid.synth.landcover import land_use_table, write_landcover
from sesgrid.synth.layout import MARGIN_M, Layout, cell_shares, make_layout
from sesgrid.synth.ortho import tile_size_px, write_ortho
from sesgrid.synth.scene import Scene, make_scene
from sesgrid.synth.strokes import Frame

__all__ = ["City", "SynthCity", "make_city", "write_city"]

WEST_M, SOUTH_M = 3_600_000, 2_500_000
"""South-west corner of every synthetic city, EPSG:3035: in the south-west of France."""

_VERSION = 1
_MIN_CELLS = 4
_INHABITED_SHARE = 0.15
"""A cell with fewer homes than this share of its area has no residents."""
_INCOME_NOISE = 0.025
"""Standard deviation of a cell's rank about the field."""


@dataclass(frozen=True)
class SynthCity:
    """Where the parts of a written city lie."""

    directory: Path
    ortho: Path
    """The BD ORTHO delivery, a folder."""
    census: Path
    """The Filosofi CSV."""
    landcover: Path
    """The Urban Atlas GeoPackage."""
    truth: Path
    """What was planted: ``truth.json``."""


@dataclass(frozen=True)
class City:
    """A city in memory."""

    cells: int
    layout: Layout
    shares: np.ndarray
    """float64 ``(cell, class)``, cells row by row from the north-west."""
    classes: np.ndarray
    """int64 ``(class,)``, the codes of the columns of ``shares``."""
    inhabited: np.ndarray
    """bool ``(cell,)``."""
    field: IncomeField
    rank: np.ndarray
    """float64 ``(cell,)``: the field at the cell's centre."""
    census: Census
    """Of the inhabited cells, in the same order."""

    @property
    def side_m(self) -> float:
        """Side of the city's square."""
        return float(self.cells * CELL_M)

    @property
    def bearing_share(self) -> np.ndarray:
        """float64 ``(cell,)``: share of a cell in classes that bear income."""
        return self.shares[:, np.isin(self.classes, BEARING)].sum(axis=1)

    def frame(self) -> Frame:
        """Local metres to Lambert-93."""
        return Frame(WEST_M, SOUTH_M, self.side_m, MARGIN_M)

    def scene(self, seed: int, field: IncomeField | None = None) -> Scene:
        """The picture; another field than the city's own redraws the homes, and nothing else."""
        seeds = np.random.SeedSequence([seed, 3]).spawn(5)
        return make_scene(self.layout, field or self.field, self.frame(), seeds)


def make_city(cells: int, seed: int, imputed_share: float) -> City:
    """Plan a city and settle its people; nothing is drawn or written.

    Plan, income, census and picture each have random numbers of their own.
    """
    layout = make_layout(cells, np.random.default_rng([seed, 1]))
    shares, classes = cell_shares(*layout.polygons(), cells)
    inhabited = shares[:, np.isin(classes, BEARING)].sum(axis=1) >= _INHABITED_SHARE
    top, left = np.divmod(np.arange(cells * cells), cells)
    south, west = (cells - 1 - top) * CELL_M, left * CELL_M
    x, y = west + CELL_M / 2, south + CELL_M / 2
    field = choose_field(
        np.random.default_rng([seed, 2]),
        float(cells * CELL_M),
        x[inhabited],
        y[inhabited],
        shares[inhabited],
    )
    rng = np.random.default_rng([seed, 4])
    rank = field.rank(x, y)
    noisy = rank[inhabited] + rng.normal(0, _INCOME_NOISE, int(inhabited.sum()))
    noisy = 1 - np.abs(1 - np.abs(noisy))  # reflected at 0 and at 1, so that no income piles up
    density = np.array([RESIDENTIAL.get(int(c), 0.0) for c in classes]) * CELL_M**2 / 1e4
    people = count_people((shares @ density)[inhabited], imputed_share, rng)
    census = Census(
        SOUTH_M + south[inhabited], WEST_M + west[inhabited], income_of_rank(noisy), *people
    )
    return City(cells, layout, shares, classes, inhabited, field, rank, census)


def write_city(
    directory: str | Path,
    *,
    cells: int = 20,
    seed: int = 0,
    resolution_m: float = 0.8,
    imputed_share: float = 0.1,
) -> SynthCity:
    """Write a synthetic French city in the formats and folders of the real sources.

    Aerial pictures lie in a BD ORTHO delivery (JPEG 2000, Lambert-93), the census in a Filosofi
    2019 CSV, land cover in an Urban Atlas 2018 GeoPackage. Income varies smoothly in space and
    shows only in the homes of three residential classes, in sizes and densities rather than in
    colour: ``truth.json`` says in which, and how. The same arguments write the same pixels.

    Parameters
    ----------
    directory : str or Path
        Made when absent. A city that was written there with the same arguments is kept.
    cells : int
        200 m cells along one side, at least 4.
    seed : int
        Not negative.
    resolution_m : float
        Side of a pixel; divides a tile of 1 km in whole centimetres.
    imputed_share : float
        Share in [0, 1) of the inhabited cells, those with the fewest households, whose values are
        spread over their square kilometre (``i_est_200`` = 1).

    Returns
    -------
    SynthCity
        The paths.

    Raises
    ------
    ConfigError
        An argument is out of range, or the folder holds another city.
    """
    settings = _checked(cells, seed, resolution_m, imputed_share)
    directory = Path(directory)
    known = _written(directory, settings)
    if known is not None:
        return known
    city = make_city(cells, seed, imputed_share)
    partial = directory / ".synth-partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    ortho, _ = write_ortho(partial, city.scene(seed), _lambert_square(city), float(resolution_m))
    table = census_table(city.census, np.random.default_rng([seed, 5]))
    census = write_census(partial, table)
    land_use = land_use_table(*city.layout.polygons(), WEST_M, SOUTH_M, city.side_m)
    square = shapely.box(WEST_M, SOUTH_M, WEST_M + city.side_m, SOUTH_M + city.side_m)
    landcover = write_landcover(partial, land_use, square)
    truth = partial / "truth.json"
    paths = {"ortho": ortho, "census": census, "landcover": landcover}
    names = {k: p.relative_to(partial).as_posix() for k, p in paths.items()}
    text = json.dumps(_truth(city, settings, names), indent=1, ensure_ascii=False)
    truth.write_text(text + "\n", encoding="utf-8")
    _move_in(partial, directory)
    return _paths(directory, names)


def _checked(cells: int, seed: int, resolution_m: float, imputed_share: float) -> dict[str, Any]:
    """The arguments as the settings of ``truth.json``, or an error."""
    for name, value, least in (("cells", cells, _MIN_CELLS), ("seed", seed, 0)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            raise ConfigError(
                f"{name} must be a whole number of at least {least}, received {value!r}"
            )
    tile_size_px(resolution_m)
    if not 0 <= imputed_share < 1:
        raise ConfigError(f"imputed_share must lie in [0, 1), received {imputed_share!r}")
    return {
        "version": _VERSION,
        "cells": int(cells),
        "seed": int(seed),
        "resolution_m": float(resolution_m),
        "imputed_share": float(imputed_share),
    }


def _written(directory: Path, settings: dict[str, Any]) -> SynthCity | None:
    """The city that the folder holds already, if any; another one is an error."""
    truth = directory / "truth.json"
    if not truth.is_file():
        return None
    try:
        found = json.loads(truth.read_text(encoding="utf-8"))
        held, files = found["settings"], found["files"]
        city = _paths(directory, files)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{truth} was not written by `sesgrid synth`: choose an empty folder"
        ) from error
    if held != settings:
        raise ConfigError(
            f"{directory} holds a synthetic city with {held}, asked for {settings}: "
            "choose another folder, or delete this one"
        )
    return city if all(p.exists() for p in (city.ortho, city.census, city.landcover)) else None


def _paths(directory: Path, files: dict[str, str]) -> SynthCity:
    """The parts of a city, from their names in ``truth.json``."""
    return SynthCity(
        directory,
        ortho=directory / files["ortho"],
        census=directory / files["census"],
        landcover=directory / files["landcover"],
        truth=directory / "truth.json",
    )


def _move_in(partial: Path, directory: Path) -> None:
    """Put the finished files in place, ``truth.json`` last: it says that the city is whole.

    Only what a city of ours left there is replaced: a damaged one (its truth has been checked), or
    one whose move was interrupted (its files are in the marker).
    """
    files = sorted(_files(partial), key=lambda name: (name == "truth.json", name))
    marker = directory / ".synth-moving"
    left = marker.read_text(encoding="utf-8").split("\n") if marker.exists() else []
    ours = {*left, *(files if (directory / "truth.json").is_file() else ())}
    parts = sorted({name.split("/")[0] for name in files})
    found = [f for part in parts for f in _files(directory / part, directory)]
    taken = [name for name in found if name not in ours]
    if taken:
        raise ConfigError(
            f"{directory} already holds {taken[0]!r}, but no whole synthetic city: choose an empty folder, "
            "or move it away"
        )
    # also what another city's interrupted move left and this one has not
    marker.write_text("\n".join({*found, *files}), encoding="utf-8")
    for name in set(found) - set(files):
        (directory / name).unlink()
    for name in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(directory / name)
    shutil.rmtree(partial)
    marker.unlink()


def _files(path: Path, below: Path | None = None) -> list[str]:
    """Names of all files of a folder, or of one file."""
    below = path if below is None else below
    found = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return [
        p.relative_to(below).as_posix()
        for p in found
        if os.path.lexists(p) and (p.is_symlink() or not p.is_dir())
    ]


def _lambert_square(city: City) -> shapely.Polygon:
    """The city's outline in Lambert-93."""
    frame = city.frame()
    outline = shapely.segmentize(shapely.box(0, 0, city.side_m, city.side_m), CELL_M)
    return shapely.transform(outline, lambda xy: frame.lambert(xy) + frame.base_m)


def _truth(city: City, settings: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    """What was planted, for later checks."""
    others = [int(c) for c in city.classes if int(c) not in BEARING]
    census = city.census
    cells = [
        {
            "cell_id": cell_id,
            "income": round(float(income), 1),
            "rank": round(float(rank), 5),
            "house_size_m": round(float(house_size_m(rank)), 3),
            "bearing_share": round(float(share), 5),
            "imputed": bool(imputed),
        }
        for cell_id, income, rank, share, imputed in zip(
            census.ids,
            census.income,
            city.rank[city.inhabited],
            city.bearing_share[city.inhabited],
            census.imputed,
            strict=True,
        )
    ]
    return {
        "settings": settings,
        "files": files,
        "crs": "EPSG:3035",
        "south_west_m": {"northing": SOUTH_M, "easting": WEST_M},
        "inhabited_cells": len(cells),
        "bearing_classes": {str(c): NAMES[c] for c in BEARING},
        "other_classes": {str(c): NAMES[c] for c in others},
        "planted": {
            "poor_house_m": POOR_M,
            "rich_house_m": RICH_M,
            "rank_noise": _INCOME_NOISE,
            "varies_with_income": [
                "size of houses (geometric in the rank of income)",
                "size of plots, hedges, drives, tree crowns, pools and shadows, in proportion",
                "hence the number of houses, trees and hedges in an area",
                "how freely houses are placed and turned in their plots",
                "pools (rich) or square tarpaulins of the same colour and area (poor)",
            ],
            "does_not_vary": [
                "shares of area: roofs, canopy, paving, lawn",
                "colours: drawn anew for each block, whatever the income",
                "land cover, streets, and everything drawn outside the bearing classes",
            ],
        },
        "cells": cells,
    }
