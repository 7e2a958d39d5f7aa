"""What leaves the cube, read back by rasterio and geopandas."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from click.testing import CliRunner
from rasterio._err import CPLE_FileIOError
from shapely import box

from sesgrid.commands.cli import main
from sesgrid.errors import ConfigError, FormatError, MissingInputError, StoreError
from sesgrid.grid import CELL_M, CRS, Extent, Grid, cell_id_of
from sesgrid.run.export import export
from sesgrid.sources import RasterReader
from sesgrid.store.cube import Cube
from tests.conftest import fill

EXTENT = Extent.of_cells(Grid(20, 4), [-9, -2], [3, 11])


@pytest.fixture(scope="module")
def cells():
    rowcol = [(-9, 3), (-8, 4), (-2, 11), (-2, 10)]
    r, c = np.array(rowcol).T
    return gpd.GeoDataFrame(
        {
            "row": r,
            "col": c,
            "income": [1e4, 2e4, np.nan, 3e4],
            "ses_predicted": pd.array([1, 2, pd.NA, 5], dtype="Int64"),
            "ortho_source": pd.array(["b.jp2", "a.jp2", pd.NA, "b.jp2"], dtype="string"),
        },
        geometry=box(c * CELL_M, -(r + 1) * CELL_M, (c + 1) * CELL_M, -r * CELL_M),
        crs=CRS,
        index=pd.Index([cell_id_of(*rc) for rc in rowcol], name="cell_id"),
    )


@pytest.fixture(scope="module")
def cube(tmp_path_factory, cells):
    made = Cube.create(tmp_path_factory.mktemp("cube") / "cube.zarr", EXTENT, {})
    rng = np.random.default_rng(0)
    for i in range(EXTENT.n_block_rows):
        for j in range(EXTENT.n_block_cols):
            image = rng.integers(0, 256, (3, 80, 80), dtype=np.uint8)
            at = EXTENT.block_row + i, EXTENT.block_col + j
            made.write_block(*at, {"image": image, "coverage": image[0] % 4})
    made.seal(cells.__getitem__, ["income", "ses_predicted", "ortho_source"], {})
    return made


@pytest.mark.parametrize("variable", ["image", "coverage"])
def test_pixels_come_out_whole_and_in_their_place(cube, tmp_path, variable):
    path = export(cube.path, tmp_path / "all.tif", variable)
    with rasterio.open(path) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.crs.to_epsg() == 3035
        assert raster.transform == EXTENT.transform
        expected = np.asarray(cube.pixels()[variable].variable)
        np.testing.assert_array_equal(raster.read().squeeze(), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["all.tif"]


def test_a_box_is_widened_to_whole_cells(cube, tmp_path):
    west, _, _, north = EXTENT.bounds
    wanted = (west + 250, north - 790, west + 610, north - 400)
    path = tmp_path / "part.tif"
    said = CliRunner().invoke(
        main, ["export", cube.path, "-o", str(path), "--bbox", *map(str, wanted)]
    )
    assert said.exit_code == 0, said.output
    with rasterio.open(path) as raster:
        assert raster.bounds == (west + 200, north - 800, west + 800, north - 400)
        part = cube.pixels()["image"].values[:, 40:80, 20:80]
        np.testing.assert_array_equal(raster.read(), part)


def test_a_variable_of_the_cells_is_a_raster_of_200_m(cube, cells, tmp_path):
    with rasterio.open(export(cube.path, tmp_path / "c.tif", "income")) as raster:
        assert raster.res == (200, 200)
        assert np.isnan(raster.nodata)
        values = raster.read(1)
        for row, col, income in cells[["row", "col", "income"]].to_numpy():
            x, y = (col + 0.5) * CELL_M, -(row + 0.5) * CELL_M
            np.testing.assert_equal(values[raster.index(x, y)], income)
        assert np.isfinite(values).sum() == 3


def test_cells_come_out_as_they_went_in(cube, cells, tmp_path):
    table = gpd.read_parquet(export(cube.path, tmp_path / "cells.parquet")).set_index("cell_id")
    known = cells.drop(index=cells.index[2])  # nothing is known of it
    assert set(table.index) == set(known.index)
    table = table.loc[known.index]
    assert table.crs == CRS
    assert table.geometry.geom_equals(known.geometry).all()
    assert table["income"].tolist() == known["income"].tolist()
    assert table["ses_predicted"].tolist() == known["ses_predicted"].tolist()
    assert table["ortho_source"].tolist() == ["b.jp2", "a.jp2", "b.jp2"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.png", {}, r"ending in \.tif or \.parquet"),
        ("x.tif", {"variable": "incom"}, "one of coverage, image, income, landcover, ortho_source"),
        ("x.tif", {"variable": "x"}, "one of coverage, image, income, landcover, ortho_source"),
        ("x.tif", {"variable": "spatial_ref"}, "received 'spatial_ref'"),
        ("x.tif", {"bounds": (-500, 0, -300, 200)}, "meet nothing of the cube"),
    ],
)
def test_what_cannot_be_exported_is_named(cube, tmp_path, name, options, message):
    with pytest.raises(ConfigError, match=message):
        export(cube.path, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_lost_coverage_is_not_replaced_by_that_of_the_cells(tmp_path):
    made = Cube.create(tmp_path / "cube.zarr", EXTENT, {})
    table = pd.DataFrame({"row": [EXTENT.row], "col": [EXTENT.col], "coverage": [0.5]})
    made.seal(table.__getitem__, ["coverage"], {})
    shutil.rmtree(tmp_path / "cube.zarr/pixels/coverage")
    for variable in ("image", "coverage"):
        with pytest.raises(FormatError, match="pixels/coverage is gone"):
            export(made.path, tmp_path / "x.tif", variable)
    assert not (tmp_path / "x.tif").exists()


def test_bounds_are_numbers(cube, tmp_path):
    for bounds in [(np.nan,) * 4, (0, 0, np.inf, np.inf)]:
        with pytest.raises(ConfigError, match="bounds: expected metres"):
            export(cube.path, tmp_path / "x.tif", bounds=bounds)


@pytest.mark.parametrize("suffix", ["tif", "parquet"])
def test_where_nothing_can_be_written_is_named(cube, tmp_path, suffix):
    (tmp_path / "file").touch()
    for name in (f"file/x.{suffix}", f"{'x' * 300}.{suffix}"):
        with pytest.raises(StoreError, match="make room or give write access"):
            export(cube.path, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_told_before_the_work_and_within(cube, small_disk, monkeypatch, capfd):
    fill(small_disk, leave=10_000)
    with pytest.raises(StoreError, match=r"has 0\.0 MB of room, and 0\.\d MB are needed"):
        export(cube.path, small_disk / "x.tif")
    monkeypatch.setattr("sesgrid.run.export._require_room", lambda *_: None)  # it was filled since
    with pytest.raises(StoreError, match=r"x\.tif cannot be written"):
        export(cube.path, small_disk / "x.tif")
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


def test_a_cube_without_cells_says_so(tmp_path):
    Cube.create(tmp_path / "bare.zarr", EXTENT, {})
    with pytest.raises(MissingInputError, match="holds no cells yet"):
        export(tmp_path / "bare.zarr", tmp_path / "cells.parquet")


def test_what_was_not_observed_is_masked(cube, tmp_path):
    coverage = np.asarray(cube.pixels()["coverage"].variable)
    with rasterio.open(export(cube.path, tmp_path / "image.tif")) as raster:
        assert raster.nodata is None
        np.testing.assert_array_equal(raster.dataset_mask() > 0, coverage == 1)
    with rasterio.open(export(cube.path, tmp_path / "coverage.tif", "coverage")) as raster:
        assert (raster.dataset_mask() > 0).all()  # it says so itself
    with rasterio.open(export(cube.path, tmp_path / "landcover.tif", "landcover")) as raster:
        assert raster.nodata == 0
    assert len(list(tmp_path.iterdir())) == 3
    _, valid = RasterReader().read(tmp_path / "image.tif", (0, 80, 0, 80))
    np.testing.assert_array_equal(valid, coverage[:80, :80] == 1)


@pytest.mark.parametrize("suffix", [".tif", ".parquet"])
def test_where_nothing_can_be_written(cube, tmp_path, monkeypatch, suffix):
    (tmp_path / "file").write_text("x")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"folder{suffix}" / "x").write_text("x")
    for place in (
        tmp_path / "file" / f"x{suffix}",
        Path(f"/proc/x{suffix}"),  # nobody may write there
        tmp_path / f"{'x' * 300}{suffix}",
        tmp_path / f"folder{suffix}",
    ):
        with pytest.raises(StoreError, match="write access") as caught:
            export(cube.path, place)
        assert len(str(caught.value)) <= 500
    monkeypatch.setattr("sesgrid.run.export.copy_raster", _full)
    if suffix == ".tif":
        with pytest.raises(StoreError, match="No space left"):
            export(cube.path, tmp_path / "x.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", f"folder{suffix}"]


def _full(*_: object, **__: object) -> None:
    raise CPLE_FileIOError(3, 3, "No space left on device")
