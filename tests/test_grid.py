"""The grid: exact in integers, and the same corners as the published ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from sesgrid import format_cell_id, parse_cell_id
from sesgrid.errors import CellIdError, ConfigError, GridMismatchError
from sesgrid.grid import CELL_M, Extent, Grid, cell_id_of, rowcol_of_ids

lattice = st.integers(-30_000, 30_000).map(lambda k: k * CELL_M)
index = st.integers(-40_000, 40_000)


@given(northing=lattice, easting=lattice)
def test_ids_round_trip(northing, easting):
    assert parse_cell_id(format_cell_id(northing, easting)) == (northing, easting)


@given(row=index, col=index)
def test_rowcol_round_trip(row, col):
    assert rowcol_of_ids([cell_id_of(row, col)]).tolist() == [[row, col]]


@given(northing=lattice, easting=lattice)
def test_rows_grow_southward_columns_eastward(northing, easting):
    here, north, east = rowcol_of_ids(
        [
            format_cell_id(northing, easting),
            format_cell_id(northing + CELL_M, easting),
            format_cell_id(northing, easting + CELL_M),
        ]
    )
    assert (here - north).tolist() == [1, 0]
    assert (east - here).tolist() == [0, 1]


@given(row=index, col=index, p=st.integers(1, 1000), n=st.integers(1, 20))
def test_a_cell_lies_in_its_block_and_its_transforms_agree(row, col, p, n):
    grid = Grid(p, n)
    block = grid.block_of(row, col)
    y, x = grid.cell_in_block(row, col)
    assert 0 <= y < n
    assert 0 <= x < n
    west, south, east, north = grid.block_bounds(*block)
    assert west <= col * CELL_M < east
    assert south <= -(row + 1) * CELL_M < north
    rows, cols = grid.cell_slices(y, x)
    corner = grid.block_transform(*block) * (cols.start, rows.start)
    assert corner == pytest.approx(grid.cell_transform(row, col) * (0, 0), abs=1e-6)


@given(
    cells=st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=20),
    p=st.integers(1, 9),
    n=st.integers(1, 9),
)
def test_cells_of_an_extent_never_share_a_pixel(cells, p, n):
    cells = sorted(set(cells))
    extent = Extent.of_cells(Grid(p, n), *zip(*cells, strict=True))
    counts = np.zeros(extent.shape_px, dtype=int)
    for cell in cells:
        counts[extent.cell_slices(*cell)] += 1
    assert counts.max() == 1
    assert counts.sum() == len(cells) * p * p
    y, x = extent.pixel_centres()
    row, col = cells[0]
    rows, cols = extent.cell_slices(row, col)
    assert y[rows].mean() == pytest.approx(-(row + 0.5) * CELL_M)
    assert x[cols].mean() == pytest.approx((col + 0.5) * CELL_M)
    assert Extent.from_attributes(extent.attributes()) == extent


def test_a_published_cell_lies_where_the_census_draws_it():
    # Filosofi 2019: the cell under the Louvre; Lambert-93 corners must be those of its id
    northing, easting = parse_cell_id("CRS3035RES200mN2889600E3760400")
    x, y = Transformer.from_crs(3035, 2154, always_xy=True).transform(easting, northing)
    assert (x, y) == (pytest.approx(651_500, abs=3000), pytest.approx(6_862_000, abs=3000))


@pytest.mark.parametrize(
    ("cell_id", "why"),
    [
        ("CRS5490RES200mN2881200E3759200", "overseas"),
        ("CRS3035RES1000mN2881000E3759000", "200 m"),
        ("CRS3035RES200mN2881300E3759200", "lattice"),
        ("CRS3035RES200mN2881200", "expected a cell id"),
        ("", "expected a cell id"),
        (None, "expected a cell id"),
        (" CRS3035RES200mN2881200E3759200", "expected a cell id"),
        ("CRS3035RES200mN2881200E3759200\n", "expected a cell id"),
    ],
)
def test_bad_ids_are_refused_with_the_reason(cell_id, why):
    with pytest.raises(CellIdError, match=why):
        parse_cell_id(cell_id)


@pytest.mark.parametrize("corner", [(100, 0), (0, 150.5), (0.5, 200)])
def test_corners_off_the_lattice_are_refused(corner):
    with pytest.raises(CellIdError, match="multiple of 200"):
        format_cell_id(*corner)


@pytest.mark.parametrize("values", [(0, 8), (800, 0), (12.5, 8), (True, 8)])
def test_a_grid_wants_positive_whole_numbers(values):
    with pytest.raises(ConfigError, match="whole number"):
        Grid(*values)


def test_an_extent_refuses_what_lies_outside():
    extent = Extent.of_cells(Grid(10, 8), [0], [0])
    with pytest.raises(GridMismatchError, match="outside"):
        extent.cell_slices(8, 0)
    with pytest.raises(GridMismatchError, match="at least one cell"):
        Extent.of_cells(Grid(10, 8), [], [])
    with pytest.raises(GridMismatchError, match="pixels_per_cell"):
        Extent.from_attributes({})


IDS = st.one_of(
    st.builds(cell_id_of, st.integers(-25_000, -5), st.integers(3, 40_000)),
    st.sampled_from(
        ["CRS3035RES200mN2881200E3759200", "CRS3035RES200mN2881201E3759200",
         "CRS3035RES200mN28812O0E3759200", "CRS3035RES200mN2881200W3759200",
         "CRS3035RES100mN2881200E3759200", "CRS3035RES200mN+881200E3759200",
         "CRS3035RES200mN288120\u0660E3759200", "CRS3035RES200mN-881200E3759200", None]
    ),
)  # fmt: skip


@given(st.lists(IDS, max_size=5))
def test_many_ids_are_read_as_one_by_one(ids):
    """Also the ones that are as long as France's, and wrong."""

    def told(read):
        try:
            return read()
        except CellIdError as error:
            return str(error)

    one_by_one = told(lambda: [parse_cell_id(i) for i in ids])
    if isinstance(one_by_one, list):
        one_by_one = [[-(north // CELL_M) - 1, east // CELL_M] for north, east in one_by_one]
    assert told(lambda: rowcol_of_ids(ids).tolist()) == one_by_one


def test_cells_too_far_apart_for_one_grid_are_refused_and_named() -> None:
    side = 12_247  # the square of it is below the limit, that of the next above
    assert Extent.of_cells(Grid(10, 8), [0, side - 1], [0, side - 1]).shape_cells[0] >= side
    with pytest.raises(GridMismatchError, match=r"150,0\d\d,\d{3} cells.*N-200E0, CRS.*E2449400\)"):
        Extent.of_cells(Grid(10, 8), [0, side], [0, side])
