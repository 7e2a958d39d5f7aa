"""The INSEE 200 m grid in integers: ids, cells, blocks and pixel slices.

Everything lies in EPSG:3035. A **cell** is a 200 m square named by the
easting and northing of its south-west corner. Cells are counted from the
projection's origin: ``col`` grows eastward and ``row`` grows **southward**, so
that a row of cells is a row of an array (row 0 of any array is its northern
edge). Metropolitan France lies north of the origin, hence its rows are
negative; nothing depends on that.

**Blocks** are squares of ``cells_per_block`` × ``cells_per_block`` cells, anchored to the same origin,
so that cubes of different cities share their block borders. All ranges are half-open.

Floats (transforms, coordinates) are derived from the integers once, at the end.

References
----------
INSPIRE Specification on Geographical Grid Systems (D2.8.I.2), the grid
``Grid_ETRS89-LAEA``: ids name the lower-left corner of the cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from affine import Affine

from sesgrid.errors import CellIdError, ConfigError, GridMismatchError

__all__ = [
    "CELL_M",
    "CRS",
    "MAX_CELLS",
    "Extent",
    "Grid",
    "cell_id_of",
    "format_cell_id",
    "parse_cell_id",
    "place_codes",
    "rowcol_of_ids",
]

CELL_M = 200
"""Side of a cell, in metres."""

CRS = "EPSG:3035"
"""The grid's coordinate reference system (ETRS89-LAEA Europe), axes as (easting, northing)."""

MAX_CELLS = 150_000_000
"""Of the rectangle around all cells: four times that of metropolitan France."""

_ID = re.compile(r"CRS(?P<crs>\d{4,5})RES(?P<res>\d+)mN(?P<n>-?\d+)E(?P<e>-?\d+)", re.ASCII)
_PREFIX = f"CRS3035RES{CELL_M}m"
_DIGITS = 7
"""Of a coordinate in metropolitan France."""


def parse_cell_id(cell_id: str) -> tuple[int, int]:
    """Read an INSEE cell id.

    Parameters
    ----------
    cell_id : str
        ``CRS3035RES200mN{northing}E{easting}``; the numbers are metres.

    Returns
    -------
    northing_m, easting_m : int
        The **south-west** corner of the cell in EPSG:3035, metres.

    Raises
    ------
    CellIdError
        Malformed, another CRS (overseas), another cell size, or off the 200 m lattice.

    Examples
    --------
    >>> parse_cell_id("CRS3035RES200mN2881200E3759200")
    (2881200, 3759200)
    """
    match = _ID.fullmatch(cell_id) if isinstance(cell_id, str) else None
    if match is None:
        raise CellIdError(
            f"expected a cell id like '{_PREFIX}N2881200E3759200', received {cell_id!r}"
        )
    if match["crs"] != "3035":
        raise CellIdError(
            f"cell id {cell_id!r} is in CRS {match['crs']}: the grid is EPSG:3035, metropolitan "
            "France only (overseas territories have grids of their own); remove these cells"
        )
    if match["res"] != str(CELL_M):
        raise CellIdError(
            f"cell id {cell_id!r} names a {match['res']} m cell: expected {CELL_M} m; "
            "use the 200 m file of the Filosofi release"
        )
    northing, easting = int(match["n"]), int(match["e"])
    if northing % CELL_M or easting % CELL_M:
        raise CellIdError(
            f"cell id {cell_id!r} is off the {CELL_M} m lattice: northing and easting must be "
            f"multiples of {CELL_M}"
        )
    return northing, easting


def format_cell_id(northing_m: int, easting_m: int) -> str:
    """Write the id of the cell whose south-west corner is given.

    Parameters
    ----------
    northing_m, easting_m : int
        EPSG:3035 metres, multiples of 200.

    Raises
    ------
    CellIdError
        A coordinate is not an integer multiple of 200.

    Examples
    --------
    >>> format_cell_id(2881200, 3759200)
    'CRS3035RES200mN2881200E3759200'
    """
    for name, value in (("northing_m", northing_m), ("easting_m", easting_m)):
        if value != int(value) or int(value) % CELL_M:
            raise CellIdError(f"{name} must be a multiple of {CELL_M} m, received {value!r}")
    return f"{_PREFIX}N{int(northing_m)}E{int(easting_m)}"


def cell_id_of(row: int, col: int) -> str:
    """Id of the cell at a global (row, col).

    >>> cell_id_of(*rowcol_of_ids(["CRS3035RES200mN2881200E3759200"])[0])
    'CRS3035RES200mN2881200E3759200'
    """
    return format_cell_id((-int(row) - 1) * CELL_M, int(col) * CELL_M)


def rowcol_of_ids(cell_ids: Iterable[str]) -> np.ndarray:
    """Global cell indices of many ids.

    Returns
    -------
    np.ndarray
        int64 ``(cell, 2)``: row (growing southward) and col (growing eastward).

    Examples
    --------
    >>> rowcol_of_ids(["CRS3035RES200mN200E400"]).tolist()
    [[-2, 2]]
    """
    # some at a time: a nation's ids as pairs of Python's own integers would take half a gigabyte
    ids = iter(cell_ids)
    parts = [np.empty((0, 2), dtype=np.int64)]
    while some := list(islice(ids, 100_000)):
        corners_of_some = _corners_of_like_ids(some)
        if corners_of_some is None:
            corners_of_some = np.array([parse_cell_id(i) for i in some], dtype=np.int64)
        parts.append(corners_of_some)
    corners = np.concatenate(parts)
    rows = -(corners[:, 0] // CELL_M) - 1
    return np.stack([rows, corners[:, 1] // CELL_M], axis=1)


def _corners_of_like_ids(cell_ids: list[str]) -> np.ndarray | None:
    """``(cell, 2)`` northing and easting of ids that are as long as ``…N2881200E3759200``; None: not all are.

    A nation's are read digit by digit of all at once; `parse_cell_id` takes what is out of the ordinary, and
    says what is wrong.
    """
    size = len(_PREFIX) + 2 * (1 + _DIGITS)
    if not all(type(i) is str and len(i) == size for i in cell_ids):
        return None
    try:
        letters = np.frombuffer("".join(cell_ids).encode("ascii"), np.uint8).reshape(-1, size)
    except UnicodeEncodeError:
        return None
    numbers = letters[:, len(_PREFIX) :].reshape(-1, 2, 1 + _DIGITS)
    digits = numbers[:, :, 1:].astype(np.int64) - ord("0")
    metres = digits @ 10 ** np.arange(_DIGITS - 1, -1, -1)
    ordinary = (
        (letters[:, : len(_PREFIX)] == np.frombuffer(_PREFIX.encode(), np.uint8)).all()
        and (numbers[:, :, 0] == np.frombuffer(b"NE", np.uint8)).all()
        and ((digits >= 0) & (digits <= 9)).all()
        and not (metres % CELL_M).any()
    )
    return metres if ordinary else None


def place_codes(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """One number per place, in the order of rows and, in a row, of columns.

    Parameters
    ----------
    rows, cols : np.ndarray
        int64 ``(place,)``, of cells, or of squares of cells; from −2³¹ to 2³¹ − 1.

    Returns
    -------
    np.ndarray
        int64 ``(place,)``.

    Examples
    --------
    >>> np.argsort(place_codes(np.array([1, 0, -1]), np.array([-5, 9, 0]))).tolist()
    [2, 1, 0]
    """
    return (np.asarray(rows, np.int64) << 32) + np.asarray(cols, np.int64)


def _require_bounded(rows: np.ndarray, cols: np.ndarray) -> None:
    n = (int(rows.max()) - int(rows.min()) + 1) * (int(cols.max()) - int(cols.min()) + 1)
    if n > MAX_CELLS:
        at = (rows.argmin(), rows.argmax(), cols.argmin(), cols.argmax())
        outermost = dict.fromkeys(cell_id_of(rows[k], cols[k]) for k in at)
        raise GridMismatchError(
            f"the cells lie so far apart that their grid would have {n:,} cells, expected {MAX_CELLS:,} at "
            f"most (France's has 35 million): check the outermost ({', '.join(outermost)}), or make a cube "
            "for each area"
        )


@dataclass(frozen=True)
class Grid:
    """How finely the cells are drawn, and how they are grouped.

    Examples
    --------
    >>> grid = Grid(pixels_per_cell=800)
    >>> grid.pixel_m
    0.25
    >>> grid.block_of(-1, 17), grid.block_px
    ((-1, 2), 6400)
    """

    pixels_per_cell: int = 800
    """Pixels along one side of a cell."""

    cells_per_block: int = 8
    """Cells along one side of a block (= one shard of the cube = one dask chunk)."""

    def __post_init__(self) -> None:
        for name in ("pixels_per_cell", "cells_per_block"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")

    @property
    def pixel_m(self) -> float:
        """Side of a pixel, metres."""
        return CELL_M / self.pixels_per_cell

    @property
    def block_px(self) -> int:
        """Pixels along one side of a block."""
        return self.pixels_per_cell * self.cells_per_block

    @property
    def block_m(self) -> int:
        """Side of a block, metres."""
        return CELL_M * self.cells_per_block

    def block_of(self, row: int, col: int) -> tuple[int, int]:
        """Global (block_row, block_col) of the cell at global (row, col)."""
        return int(row) // self.cells_per_block, int(col) // self.cells_per_block

    def block_bounds(self, block_row: int, block_col: int) -> tuple[int, int, int, int]:
        """(west, south, east, north) of a block in metres, exact."""
        size = self.block_m
        return (
            block_col * size,
            -(block_row + 1) * size,
            (block_col + 1) * size,
            -block_row * size,
        )

    def block_transform(self, block_row: int, block_col: int) -> Affine:
        """Affine of a block's pixels: (col, row) of a pixel corner → (easting, northing), metres."""
        west, _, _, north = self.block_bounds(block_row, block_col)
        return Affine(self.pixel_m, 0.0, west, 0.0, -self.pixel_m, north)

    def cell_transform(self, row: int, col: int) -> Affine:
        """Affine of one cell's pixels."""
        return Affine(self.pixel_m, 0.0, col * CELL_M, 0.0, -self.pixel_m, -row * CELL_M)

    def cell_in_block(self, row: int, col: int) -> tuple[int, int]:
        """(cell_y, cell_x) of a cell inside its own block, each in [0, cells_per_block)."""
        return int(row) % self.cells_per_block, int(col) % self.cells_per_block

    def cell_slices(self, cell_y: int, cell_x: int) -> tuple[slice, slice]:
        """(y, x) pixel slices of the cell at array position (cell_y, cell_x), half-open."""
        p = self.pixels_per_cell
        return slice(cell_y * p, (cell_y + 1) * p), slice(cell_x * p, (cell_x + 1) * p)


@dataclass(frozen=True)
class Extent:
    """A rectangle of whole blocks: the address space of a cube.

    Examples
    --------
    >>> extent = Extent.of_cells(Grid(100, 8), [-1, -9], [0, 3])
    >>> extent.shape_cells, extent.shape_px
    ((16, 8), (1600, 800))
    >>> extent.cell_slices(-9, 3)
    (slice(700, 800, None), slice(300, 400, None))
    """

    grid: Grid
    block_row: int
    """Global block row of the northern edge."""
    block_col: int
    """Global block column of the western edge."""
    n_block_rows: int
    n_block_cols: int

    @classmethod
    def of_cells(cls, grid: Grid, rows: Iterable[int], cols: Iterable[int]) -> Extent:
        """Smallest extent that holds all the cells (global indices).

        Raises
        ------
        GridMismatchError
            There is none, or they lie so far apart that the extent would have more than `MAX_CELLS`.
        """
        r, c = np.asarray(list(rows), dtype=np.int64), np.asarray(list(cols), dtype=np.int64)
        if r.size == 0:
            raise GridMismatchError("an extent needs at least one cell, received none")
        _require_bounded(r, c)
        r, c = r // grid.cells_per_block, c // grid.cells_per_block
        return cls(
            grid,
            int(r.min()),
            int(c.min()),
            int(r.max() - r.min()) + 1,
            int(c.max() - c.min()) + 1,
        )

    def attributes(self) -> dict[str, int]:
        """The integers that describe the extent, as a cube keeps them."""
        return {
            "pixels_per_cell": self.grid.pixels_per_cell,
            "cells_per_block": self.grid.cells_per_block,
            "block_row": self.block_row,
            "block_col": self.block_col,
            "n_block_rows": self.n_block_rows,
            "n_block_cols": self.n_block_cols,
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[Any, Any]) -> Extent:
        """The extent that `attributes` described.

        Raises
        ------
        GridMismatchError
            One is missing: the data were not made on this grid.
        """
        names = ("block_row", "block_col", "n_block_rows", "n_block_cols")
        try:
            grid = Grid(int(attributes["pixels_per_cell"]), int(attributes["cells_per_block"]))
            return cls(grid, *(int(attributes[n]) for n in names))
        except KeyError as error:
            raise GridMismatchError(
                f"the attribute {error.args[0]!r}, which places pixels on the 200 m grid, is missing: "
                "expected a dataset made by sesgrid.mosaic or opened by sesgrid.open_cube"
            ) from error

    @property
    def row(self) -> int:
        """Global row of the northernmost cells."""
        return self.block_row * self.grid.cells_per_block

    @property
    def col(self) -> int:
        """Global column of the westernmost cells."""
        return self.block_col * self.grid.cells_per_block

    @property
    def shape_cells(self) -> tuple[int, int]:
        """(cell_y, cell_x)."""
        n = self.grid.cells_per_block
        return self.n_block_rows * n, self.n_block_cols * n

    @property
    def shape_px(self) -> tuple[int, int]:
        """(y, x)."""
        n = self.grid.block_px
        return self.n_block_rows * n, self.n_block_cols * n

    @property
    def transform(self) -> Affine:
        """Affine of the extent's pixels: (col, row) → (easting, northing), metres."""
        return self.grid.block_transform(self.block_row, self.block_col)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(west, south, east, north), metres, exact."""
        west, _, _, north = self.grid.block_bounds(self.block_row, self.block_col)
        size = self.grid.block_m
        return west, north - self.n_block_rows * size, west + self.n_block_cols * size, north

    def block_position(self, block_row: int, block_col: int) -> tuple[int, int]:
        """Position (i, j) of a global block inside the extent.

        Raises
        ------
        GridMismatchError
            The block lies outside.
        """
        i, j = block_row - self.block_row, block_col - self.block_col
        if not (0 <= i < self.n_block_rows and 0 <= j < self.n_block_cols):
            raise GridMismatchError(
                f"block ({block_row}, {block_col}) lies outside the extent of "
                f"{self.n_block_rows} × {self.n_block_cols} blocks that starts at "
                f"({self.block_row}, {self.block_col})"
            )
        return i, j

    def block_slices(self, block_row: int, block_col: int) -> tuple[slice, slice]:
        """(y, x) pixel slices of a global block."""
        i, j = self.block_position(block_row, block_col)
        n = self.grid.block_px
        return slice(i * n, (i + 1) * n), slice(j * n, (j + 1) * n)

    def cell_slices(self, row: int, col: int) -> tuple[slice, slice]:
        """(y, x) pixel slices of the cell at global (row, col)."""
        self.block_position(*self.grid.block_of(row, col))
        return self.grid.cell_slices(row - self.row, col - self.col)

    def pixel_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixel-centre coordinates (y descending, x ascending) in metres, float64."""
        west, _, _, north = self.bounds
        ny, nx = self.shape_px
        step = self.grid.pixel_m
        return north - (np.arange(ny) + 0.5) * step, west + (np.arange(nx) + 0.5) * step
