"""The warp's contract, against pyproj and scipy in float64, and against GDAL's exact transformer."""

from __future__ import annotations

import warnings

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.grid import CELL_M, Grid
from sesgrid.kernels import warp
from sesgrid.kernels.lattice import Lattice, projector
from sesgrid.kernels.warp import RESAMPLINGS

L93, LAEA = "EPSG:2154", "EPSG:3035"
SIDE = 240
SOURCE = Affine(0.25, 0, 650000, 0, -0.25, 6860000)


def around_the_middle(size, pixel_m=0.25):
    """A grid in EPSG:3035, `size` pixels square, centred on the source's middle."""
    middle = 650000 + SIDE / 8, 6860000 - SIDE / 8
    x, y = pyproj.Transformer.from_crs(L93, LAEA, always_xy=True).transform(*middle)
    half = size * pixel_m / 2
    return Affine(pixel_m, 0, round(x) - half, 0, -pixel_m, round(y) + half)


def source_positions(out_shape, out_transform, source_transform=SOURCE, crs=(L93, LAEA)):
    """(y, x) of every output pixel centre in source pixels, the corner of a pixel at integers."""
    a, _, c, _, e, f = tuple(out_transform)[:6]
    rows, cols = np.indices(out_shape) + 0.5
    to_source = pyproj.Transformer.from_crs(crs[1], crs[0], always_xy=True)
    with (
        warnings.catch_warnings()
    ):  # pyproj asks NumPy before 2.4 for an array of one point as a number
        warnings.simplefilter("ignore", DeprecationWarning)
        x, y = to_source.transform(c + a * cols, f + e * rows)
    a, _, c, _, e, f = tuple(source_transform)[:6]
    return (y - f) / e, (x - c) / a


def clear(y, x):
    """Positions whose source pixel is beyond doubt."""
    return np.minimum(abs(y - np.rint(y)), abs(x - np.rint(x))) > 2e-3


def inside(y, x, margin=0.0, side=SIDE):
    return (np.minimum(y, x) >= margin) & (np.maximum(y, x) < side - margin)


def interpolated(image, y, x):
    """float64 bilinear, pixel values at their centres."""
    at = [y - 0.5, x - 0.5]
    return np.stack([ndimage.map_coordinates(b.astype(float), at, order=1) for b in image])


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def smooth():
    rng = np.random.default_rng(1)
    image = np.stack([ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 4) for _ in range(3)])
    return np.uint8((image - image.min()) / np.ptp(image) * 255)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_the_same_grid_gives_the_same_bytes(noise, resampling):
    noise = noise.copy()
    noise[:, 10:20, 10:20] = 0
    pixels, coverage = warp(noise, SOURCE, L93, (SIDE, SIDE), SOURCE, L93, resampling)
    np.testing.assert_array_equal(pixels, noise)
    assert pixels.dtype == coverage.dtype == np.uint8
    assert (coverage == 1).all()


def test_whole_pixel_shifts_are_exact(noise):
    shifted = Affine(0.25, 0, 650000 - 10 * 0.25, 0, -0.25, 6860000 + 7 * 0.25)
    pixels, coverage = warp(noise, SOURCE, L93, (50, 60), shifted, L93)
    np.testing.assert_array_equal(pixels[:, 7:, 10:], noise[:, :43, :50])
    assert coverage[7:, 10:].all()
    assert coverage.sum() == 43 * 50
    assert not pixels[:, :7].any()
    assert not pixels[:, :, :10].any()


@pytest.mark.parametrize("which", ["noise", "smooth"])
def test_bilinear_at_the_same_resolution(which, request):
    image = request.getfixturevalue(which)
    shape, grid = (150, 160), around_the_middle(160)
    pixels, coverage = warp(image, SOURCE, L93, shape, grid, LAEA)
    y, x = source_positions(shape, grid)
    interior = inside(y, x, 1)
    assert interior.mean() > 0.9
    difference = np.abs(pixels - interpolated(image, y, x))[:, interior]
    assert (difference <= 1).mean() >= 0.99
    assert difference.max() <= 2
    assert coverage[interior].all()


def test_coordinates_are_exact_where_the_projection_bends():
    image = np.random.default_rng(2).integers(0, 256, (1, 600, 600), dtype=np.uint8)
    source, grid = Affine(0.02, 0, -5, 0, -0.02, 52), Affine(2500, 0, 3300000, 0, -2500, 3000000)
    pixels, coverage = warp(image, source, "EPSG:4326", (300, 300), grid, LAEA, "nearest")
    y, x = source_positions((300, 300), grid, source, ("EPSG:4326", LAEA))
    assert coverage.all()
    # a tolerance of 0.125 px, GDAL's default, moves thousands of these pixels to a neighbour
    sure = np.minimum(abs(y - np.rint(y)), abs(x - np.rint(x))) > 0.006
    assert sure.mean() > 0.97
    expected = image[0, y.astype(int), x.astype(int)]
    np.testing.assert_array_equal(pixels[0][sure], expected[sure])


@pytest.mark.parametrize("value", [0, 1, 77, 254, 255])
@pytest.mark.parametrize("pixel_m", [0.1, 0.25, 0.8])
def test_a_constant_stays_constant_to_the_border(value, pixel_m):
    image = np.full((2, SIDE, SIDE), value, np.uint8)
    size = int(90 / pixel_m)
    shape, grid = (size, size), around_the_middle(size, pixel_m)
    pixels, coverage = warp(image, SOURCE, L93, shape, grid, LAEA)
    y, x = source_positions(shape, grid)
    clear = np.minimum.reduce([abs(y), abs(x), abs(y - SIDE), abs(x - SIDE)]) > 2e-3
    np.testing.assert_array_equal(coverage[clear], inside(y, x)[clear])
    assert 0.1 < coverage.mean() < 0.9
    assert (pixels == value * coverage).all()


def test_black_is_a_colour(noise):
    image = noise.copy()
    image[:, 60:180, 60:180] = 0
    shape, grid = (160, 160), around_the_middle(160)
    pixels, coverage = warp(image, SOURCE, L93, shape, grid, LAEA)
    y, x = source_positions(shape, grid)
    black = (np.minimum(y, x) > 61) & (np.maximum(y, x) < 179)
    assert coverage[black].all()
    assert not pixels[:, black].any()
    # next to the black, colours are mixed with it
    difference = np.abs(pixels - interpolated(image, y, x))[:, inside(y, x, 1)]
    assert (difference <= 1).mean() >= 0.99


@pytest.mark.parametrize("pixel_m", [0.25, 0.5])
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_invalid_pixels_lend_no_colour(resampling, pixel_m):
    rng = np.random.default_rng(3)
    valid = ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 5) > 0.5
    image = np.where(valid, np.uint8(100), np.uint8(255))[np.newaxis].repeat(3, 0)
    size = int(40 / pixel_m)
    shape, grid = (size, size), around_the_middle(size, pixel_m)
    pixels, coverage = warp(image, SOURCE, L93, shape, grid, LAEA, resampling, valid)
    y, x = source_positions(shape, grid)
    sure = clear(y, x)
    expected = valid[y.astype(int), x.astype(int)]
    np.testing.assert_array_equal(coverage[sure], expected[sure])
    assert 0.2 < coverage.mean() < 0.8
    assert (pixels == 100 * coverage).all()


def test_validity_may_be_any_number(noise):
    valid = np.zeros((SIDE, SIDE), np.uint8)
    valid[50:] = 7
    out = warp(noise, SOURCE, L93, (SIDE, SIDE), SOURCE, L93, source_valid=valid)
    np.testing.assert_array_equal(out[1], valid > 0)
    np.testing.assert_array_equal(out[0], noise * (valid > 0))


def test_a_coarser_grid_averages_what_it_skips():
    stripes = np.zeros((1, SIDE, SIDE), np.uint8)
    stripes[:, :, ::2] = 255
    shape, grid = (40, 40), around_the_middle(40, 1.0)
    pixels, coverage = warp(stripes, SOURCE, L93, shape, grid, LAEA, "box")
    assert coverage.all()
    assert abs(pixels.astype(int) - 127).max() < 12  # four stripes a pixel: grey, no moiré


@pytest.mark.parametrize("pixel_m", [0.3, 0.9, 2.0])
@pytest.mark.parametrize("holes", [False, True])
def test_a_box_is_the_mean_of_its_area(noise, pixel_m, holes):
    size = int(50 / pixel_m)
    shape, grid = (size, size - 3), around_the_middle(size, pixel_m)
    valid = np.ones((SIDE, SIDE), bool)
    if holes:
        valid[::17, 5:] = valid[40:60, 40:90] = False
    pixels, coverage = warp(noise, SOURCE, L93, shape, grid, LAEA, "box", valid)
    y, x = source_positions(shape, grid)
    # the summed area of a box, from the integral of the image; its sides follow the pixel's
    side_y, side_x = (np.hypot(*np.gradient(v)).mean() for v in (y, x))
    weight = integral(valid.astype(float), y, x, side_y, side_x)
    mean = [integral(b * valid, y, x, side_y, side_x) / np.maximum(weight, 1e-9) for b in noise]
    inner = inside(y, x, 2 * side_x) & clear(y, x)
    assert inner.mean() > 0.3
    np.testing.assert_array_equal(
        coverage[inner], valid[y[inner].astype(int), x[inner].astype(int)]
    )
    seen = inner & (coverage == 1)
    assert np.abs(pixels - np.stack(mean))[:, seen].max() <= 1.0


def integral(image, y, x, side_y, side_x):
    """Sum of an image over boxes around (y, x), fractions of pixels included."""
    table = np.pad(image.astype(float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    corners = [(sy, sx) for sy in (-0.5, 0.5) for sx in (-0.5, 0.5)]
    parts = [
        np.sign(sy * sx)
        * ndimage.map_coordinates(
            table, [y + sy * side_y, x + sx * side_x], order=1, mode="nearest"
        )
        for sy, sx in corners
    ]
    return sum(parts)


def test_a_box_no_larger_than_a_pixel_is_bilinear(noise):
    shape, grid = (200, 200), around_the_middle(200, 0.2)
    box, blend = (warp(noise, SOURCE, L93, shape, grid, LAEA, r)[0] for r in ("box", "bilinear"))
    difference = np.abs(box.astype(int) - blend)
    assert (difference <= 1).mean() > 0.99
    assert difference.max() <= 2


@pytest.mark.parametrize("pixel_m", [0.25, 0.5])
def test_blocks_warped_apart_are_the_whole(noise, pixel_m):
    size = int(48 / pixel_m)
    grid, half = around_the_middle(size, pixel_m), size // 2
    whole, covered = warp(noise, SOURCE, L93, (size, size), grid, LAEA)
    a, _, c, _, e, f = tuple(grid)[:6]
    for y in (0, half):
        for x in (0, half):
            part = Affine(a, 0, c + a * x, 0, e, f + e * y)
            pixels, coverage = warp(noise, SOURCE, L93, (half, half), part, LAEA)
            window = slice(y, y + half), slice(x, x + half)
            np.testing.assert_array_equal(coverage, covered[window])
            difference = np.abs(pixels.astype(int) - whole[:, *window])
            assert difference.max() <= 1
            assert (difference > 0).mean() < 3e-3


@pytest.mark.parametrize("shift_m", [100, 5000, 4_000_000])
def test_no_overlap_gives_nothing(noise, shift_m):
    grid = around_the_middle(20)
    away = Affine(0.25, 0, grid.c + shift_m, 0, -0.25, grid.f)
    pixels, coverage = warp(noise, SOURCE, L93, (20, 20), away, LAEA)
    assert pixels.shape == (3, 20, 20)
    assert not pixels.any()
    assert not coverage.any()


def test_nothing_valid_and_no_pixels(noise):
    none = np.zeros((SIDE, SIDE), bool)
    pixels, coverage = warp(noise, SOURCE, L93, (5, 6), SOURCE, L93, source_valid=none)
    assert pixels.shape == (3, 5, 6)
    assert not coverage.any()
    assert warp(noise, SOURCE, L93, (0, 6), SOURCE, L93)[0].shape == (3, 0, 6)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"source": np.zeros((3, 4, 4))}, FormatError, "uint8.*float64"),
        ({"source": np.zeros((4, 4), np.uint8)}, FormatError, "band, y, x"),
        ({"source_valid": np.ones((3, 4), bool)}, GridMismatchError, r"\(3, 4\)"),
        ({"resampling": "bilinaer"}, FormatError, "expected one of nearest, bilinear, box"),
        ({"source_transform": Affine.scale(0)}, FormatError, "cannot be inverted"),
        ({"out_crs": "EPSG:x"}, FormatError, "out_crs.*'EPSG:x'"),
    ],
)
def test_bad_input_is_named(changed, error, words):
    arguments = {
        "source": np.zeros((3, 4, 4), np.uint8),
        "source_transform": SOURCE,
        "source_crs": L93,
        "out_shape": (4, 4),
        "out_transform": SOURCE,
        "out_crs": L93,
    }
    with pytest.raises(error, match=words):
        warp(**{**arguments, **changed})


@settings(max_examples=50, deadline=None)
@given(
    east=st.integers(3_200_000 // CELL_M, 4_300_000 // CELL_M),
    north=st.integers(2_000_000 // CELL_M, 3_150_000 // CELL_M),
    resolution_m=st.sampled_from([0.15, 0.2, 0.5, 5.0]),
    pixels=st.sampled_from([1, 2, 100, 800, 1000]),
)
def test_positions_are_exact_anywhere_in_france(east, north, resolution_m, pixels):
    """Brest to Bastia: every cell, also those of the sea between."""
    cell = Grid(pixels, 8).cell_transform(-north, east)
    source = Affine(resolution_m, 0, 100_000, 0, -resolution_m, 7_200_000)
    project = projector(cell, LAEA, source, L93)
    lattice = Lattice.of((pixels, pixels), project)
    assert lattice.y.size == 4  # one mesh a cell
    at = np.arange(pixels)
    t = at / max(pixels - 1, 1)
    exact = source_positions((pixels, pixels), cell, source)
    for nodes, truth in zip((lattice.y, lattice.x), exact, strict=True):
        columns = nodes[:, :1] + (nodes[:, 1:] - nodes[:, :1]) * t
        guess = columns[:1] + (columns[1:] - columns[:1]) * t[:, None]
        assert np.abs(guess - truth).max() < 0.01


@pytest.mark.parametrize("place", [(650000, 6860000), (150000, 6850000), (1230000, 6130000)])
def test_a_block_of_cells_is_the_oracles(place):
    """0.2 m to 0.25 m, as aerial images come: Paris, Brest, Corsica."""
    west, north = place
    image = np.random.default_rng(5).integers(0, 256, (3, 1300, 1300), dtype=np.uint8)
    source = Affine(0.2, 0, west, 0, -0.2, north)
    x, y = pyproj.Transformer.from_crs(L93, LAEA, always_xy=True).transform(west + 130, north - 130)
    grid = Affine(0.25, 0, round(x) - 100, 0, -0.25, round(y) + 100)
    pixels, coverage = warp(image, source, L93, (800, 800), grid, LAEA)
    y, x = source_positions((800, 800), grid, source)
    seen = inside(y, x, 1, 1300)
    assert seen.all()
    assert coverage.all()
    difference = np.abs(pixels - interpolated(image, y, x))
    assert (difference <= 1).mean() >= 0.999
    assert difference.max() < 1


def gdal_exact(image, source, shape, grid, resampling, valid):
    """GDAL's warp with every position projected and its kernel not widened."""
    bands = np.concatenate([image, valid[np.newaxis] * np.uint8(255)])
    profile = {"driver": "GTiff", "photometric": "MINISBLACK", "alpha": "UNSPECIFIED"}
    count, height, width = bands.shape
    with rasterio.MemoryFile() as memory:
        with memory.open(
            **profile, count=count, height=height, width=width, dtype="uint8",
            transform=source, crs=L93,
        ) as target:  # fmt: skip
            target.write(bands)
        with (
            memory.open() as dataset,
            rasterio.vrt.WarpedVRT(
                dataset, crs=LAEA, transform=grid, height=shape[0], width=shape[1],
                resampling=rasterio.enums.Resampling[resampling], tolerance=1e-3,
                src_alpha=count, XSCALE=1.0, YSCALE=1.0,
            ) as vrt,
        ):  # fmt: skip
            out = vrt.read()
    return out[:-1], out[-1]


@pytest.mark.parametrize("pixel_m", [0.2, 0.25, 0.4])
@pytest.mark.parametrize("holes", [False, True])
def test_differences_from_gdals_exact_warp_are_the_stated_ones(noise, pixel_m, holes):
    valid = np.ones((SIDE, SIDE), bool)
    if holes:
        valid[90:120, 80:140] = False
    size = int(90 / pixel_m)
    shape, grid = (size, size), around_the_middle(size, pixel_m)
    ours, coverage = warp(noise, SOURCE, L93, shape, grid, LAEA, source_valid=valid)
    theirs, alpha = gdal_exact(noise, SOURCE, shape, grid, "bilinear", valid)
    seen = (coverage == 1) & (alpha > 0)
    difference = np.abs(ours.astype(int) - theirs)[:, seen]
    assert difference.max() <= 1
    # wherever we have a colour GDAL has one, and more: up to half a pixel around
    y, x = source_positions(shape, grid)
    assert (alpha > 0)[(coverage == 1) & clear(y, x)].all()
    beyond = (alpha > 0) & (coverage == 0)
    near = ndimage.distance_transform_edt(np.pad(~valid, 1, constant_values=True))
    at = np.clip(np.floor([y, x]).astype(int) + 1, 0, SIDE + 1)
    assert (near[at[0], at[1]][beyond] <= 1).all()
