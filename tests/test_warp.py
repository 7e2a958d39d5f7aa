"""The warp's contract, against pyproj and scipy in float64: the same tests serve its successor."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
from affine import Affine
from scipy import ndimage

from sesgrid.errors import FormatError, GridMismatchError
from sesgrid.kernels import warp

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
    x, y = to_source.transform(c + a * cols, f + e * rows)
    a, _, c, _, e, f = tuple(source_transform)[:6]
    return (y - f) / e, (x - c) / a


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


@pytest.mark.parametrize("resampling", ["bilinear", "nearest", "cubic"])
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
    # GDAL's default of 0.125 px moves thousands of these pixels to a neighbour
    assert (pixels[0] != image[0, y.astype(int), x.astype(int)]).sum() <= 2


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
@pytest.mark.parametrize("resampling", ["bilinear", "nearest", "cubic", "average"])
def test_invalid_pixels_lend_no_colour(resampling, pixel_m):
    rng = np.random.default_rng(3)
    valid = ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 5) > 0.5
    image = np.where(valid, np.uint8(100), np.uint8(255))[np.newaxis].repeat(3, 0)
    size = int(40 / pixel_m)
    shape, grid = (size, size), around_the_middle(size, pixel_m)
    pixels, coverage = warp(image, SOURCE, L93, shape, grid, LAEA, resampling, valid)
    y, x = source_positions(shape, grid)
    clear = np.minimum(abs(y - np.rint(y)), abs(x - np.rint(x))) > 2e-3
    expected = valid[y.astype(int), x.astype(int)]
    np.testing.assert_array_equal(coverage[clear], expected[clear])
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
    pixels, coverage = warp(stripes, SOURCE, L93, shape, grid, LAEA)
    assert coverage.all()
    assert abs(pixels.astype(int) - 127).max() < 12  # four stripes a pixel: grey, no moiré


def test_a_coarser_grid_follows_a_smooth_image():
    x = np.arange(SIDE) / SIDE * 255
    image = np.broadcast_to(x, (1, SIDE, SIDE)).astype(np.uint8)
    shape, grid = (45, 45), around_the_middle(45, 0.9)
    pixels, _ = warp(image, SOURCE, L93, shape, grid, LAEA)
    y, x = source_positions(shape, grid)
    assert np.abs(pixels - interpolated(image, y, x)).max() <= 1.6


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
            assert (difference > 0).mean() < 1e-3


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
        ({"resampling": "bilinaer"}, FormatError, "expected one of nearest, bilinear"),
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
