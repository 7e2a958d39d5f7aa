"""One city as Urban Atlas, OCS GE, CoSIA, a table of one's own and a class raster: one map, by five roads."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import get_args

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.features
import shapely

from sesgrid.batches.blocks import plan_batches
from sesgrid.errors import ConfigError, MissingInputError
from sesgrid.grid import CRS, Extent, Grid
from sesgrid.run.config import Config, load_config
from sesgrid.run.engine import facts_of, settings_key
from sesgrid.run.job import Job, class_table, land_polygons
from sesgrid.run.pixel_stages import landcover_work
from sesgrid.run.published import placeless, published
from sesgrid.run.settings import Sources
from sesgrid.run.workspace import Workspace
from sesgrid.sources import CLASS_TABLES, read_class_table

PX, SIDE = 40, 4
WEST, SOUTH = 3_760_000, 2_880_000
GRID = Grid(PX, SIDE)

KINDS = pd.DataFrame(
    [
        (11100, "CS1.1.1.1", "US5", "homes", "Bâtiment", 1, "building"),
        (12100, "CS1.1.1.1", "US3", "other buildings", "Zone imperméable", 3, "sealed ground"),
        (12220, "CS1.1.1.2", "US4.1.1", "roads", "Zone perméable", 2, "permeable ground"),
        (14100, "CS2.1.1.1", "US3", "green of work and leisure", "Feuillu", 9, "broad-leaved trees"),
        (21000, "CS2.2.1", "US1.1", "fields and orchards", "Culture", 13, "crops"),
        (31000, "CS2.1.1.2", "US1.2", "woodland", "Conifère", 8, "conifers"),
        (50000, "CS1.2.2", None, "water", "Surface eau", 6, "water"),
    ],
    columns=["ua", "code_cs", "code_us", "ocsge", "classe", "numero", "cosia"],
)  # fmt: skip


@pytest.fixture(scope="module")
def city() -> gpd.GeoDataFrame:
    """Sixty plots that fill a square of four by four cells, and the row of `KINDS` that each is."""
    rng = np.random.default_rng(5)
    square = shapely.box(WEST, SOUTH, WEST + 800, SOUTH + 800)
    seeds = shapely.multipoints(rng.uniform(0, 800, (60, 2)) + np.array([WEST, SOUTH]))
    plots = shapely.intersection(
        shapely.get_parts(shapely.voronoi_polygons(seeds, extend_to=square)), square
    )
    return gpd.GeoDataFrame({"kind": rng.integers(0, len(KINDS), 60)}, geometry=plots, crs=CRS)


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    row, col = np.divmod(np.arange(16), 4)
    return pd.DataFrame(
        {"row": -(SOUTH // 200) - 4 + row, "col": WEST // 200 + col, "departement": "75"}
    )


@pytest.fixture(scope="module")
def drawn(city, cells) -> np.ndarray:
    """Rows of `KINDS` + 1, by GDAL."""
    extent = Extent.of_cells(GRID, cells["row"], cells["col"])
    shapes = zip(city.geometry, city["kind"] + 1, strict=True)
    return rasterio.features.rasterize(
        shapes, extent.shape_px, transform=extent.transform, dtype="uint8"
    )


def configure(folder: Path, landcover: str, classes: str | None, more: str = "") -> Config:
    for name in ("census.csv", "ortho.tif"):
        (folder / name).touch()
    (folder / "city.toml").write_text(
        f'name = "Ville"\noutput = "out"\n[sources]\ncensus = "census.csv"\northo = "ortho.tif"\n'
        f'landcover = "{landcover}"\n'
        + (f'landcover_classes = "{classes}"\n' if classes else "")
        + f"[grid]\npixels_per_cell = {PX}\ncells_per_block = {SIDE}\n{more}"
    )
    return load_config(folder / "city.toml")


def burnt(config: Config, cells: pd.DataFrame) -> np.ndarray:
    """The class pixels, as the stage of a run makes them."""
    job = Job(config, Workspace.of(config), None, "key")
    plan = plan_batches(GRID, cells)
    work = landcover_work(job, cells, plan)
    extent = Extent.of_cells(GRID, cells["row"], cells["col"])
    out = np.zeros(extent.shape_px, np.uint8)
    for batch in plan:
        for result in work.stage(work.items(batch.blocks)):
            at = extent.block_slices(result.block.block_row, result.block.block_col)
            out[at] = result.arrays["landcover"]
    return out


def values_of(table: pd.DataFrame, names: pd.Series) -> np.ndarray:
    """Pixel value of each class, 0 before them."""
    value = dict(zip(table["landcover_class"], table["value"], strict=True))
    return np.array([0, *(value[n] for n in names)], np.uint8)


def of_kinds(city: gpd.GeoDataFrame, *columns: str) -> gpd.GeoDataFrame:
    told = KINDS.loc[city["kind"], list(columns)].reset_index(drop=True)
    return gpd.GeoDataFrame(told, geometry=city.geometry, crs=CRS)


def write_urban_atlas(city, folder: Path) -> str:
    frame = of_kinds(city, "ua").rename(columns={"ua": "code_2018"})
    frame.astype({"code_2018": str}).to_file(folder / "ua.gpkg", layer="FR001L1_VILLE_UA2018")
    return "ua.gpkg"


def test_urban_atlas(city, cells, drawn, tmp_path):
    config = configure(tmp_path, write_urban_atlas(city, tmp_path), None)
    from sesgrid import landcover_classes

    value = landcover_classes().loc[KINDS["ua"], "value"].to_numpy()
    np.testing.assert_array_equal(burnt(config, cells), np.array([0, *value], np.uint8)[drawn])


def test_ocsge(city, cells, drawn, tmp_path):
    wanted = values_of(read_class_table("ocsge"), KINDS["ocsge"])[drawn]
    frame = of_kinds(city, "code_cs", "code_us")
    inside = (
        "OCS-GE_2-0__GPKG_LAMB93_D075_2021-01-01/OCS-GE/1_DONNEES/OCSGE_2-0_GPKG_LAMB93_D75-2021"
    )
    for crs in (3035, 2154):
        frame.to_crs(crs).to_file(tmp_path / f"{crs}.gpkg", layer="OCCUPATION_SOL")
        with zipfile.ZipFile(tmp_path / f"{crs}.zip", "w") as z:
            z.write(tmp_path / f"{crs}.gpkg", f"{inside}/OCCUPATION_SOL.gpkg")
    np.testing.assert_array_equal(burnt(configure(tmp_path, "3035.zip", "ocsge"), cells), wanted)
    # the plots' edges are straight in another CRS: a centre beside one may change sides
    apart = burnt(configure(tmp_path, "2154.zip", "ocsge"), cells) != wanted
    assert apart.mean() < 1e-3


def test_cosia(city, cells, drawn, tmp_path):
    wanted = values_of(read_class_table("cosia"), KINDS["cosia"])[drawn]
    frame = of_kinds(city, "numero", "classe")
    tile = (city.geometry.centroid.x > WEST + 400) * 2 + (city.geometry.centroid.y > SOUTH + 400)
    far = frame.translate(1e5, 0)
    (tmp_path / "COSIA").mkdir()
    for k in range(4):
        frame[tile == k].to_file(tmp_path / "COSIA" / f"D075_2021_650_68{k}0_vecto.gpkg")
    frame.set_geometry(far).to_file(tmp_path / "COSIA" / "D075_2021_750_6800_vecto.gpkg")
    config = configure(tmp_path, "COSIA", "cosia")
    np.testing.assert_array_equal(burnt(config, cells), wanted)
    # of the tile far away nothing is kept
    assert len(land_polygons(config, GRID, cells)) == len(city)


def test_a_table_of_ones_own_for_polygons_and_for_rasters(city, cells, drawn, tmp_path):
    lines = [f"{code},c{row % 3},g{row % 3}" for row, code in enumerate(KINDS["ua"])]
    (tmp_path / "mine.csv").write_text("\n".join(["code,landcover_class,group", *lines, ""]))
    wanted = np.array([0, *(1 + row % 3 for row in range(len(KINDS)))], np.uint8)[drawn]
    config = configure(tmp_path, write_urban_atlas(city, tmp_path), "mine.csv")
    np.testing.assert_array_equal(burnt(config, cells), wanted)
    extent = Extent.of_cells(GRID, cells["row"], cells["col"])
    with rasterio.open(
        tmp_path / "classes.tif", "w", driver="GTiff", count=1, dtype="uint16", crs=CRS, nodata=0,
        transform=extent.transform, height=extent.shape_px[0], width=extent.shape_px[1],
    ) as raster:  # fmt: skip
        raster.write(np.array([0, *KINDS["ua"]], np.uint16)[drawn], 1)
    config = configure(tmp_path, "classes.tif", "mine.csv")
    np.testing.assert_array_equal(burnt(config, cells), wanted)


def test_cells_elsewhere_have_no_land_cover(city, cells, tmp_path):
    of_kinds(city, "classe").to_file(tmp_path / "a.gpkg")
    config = configure(tmp_path, "a.gpkg", "cosia")
    moved = cells.assign(row=cells["row"] + 400)
    with pytest.raises(
        MissingInputError, match=r"a\.gpkg: none of its 1 layers has a polygon within E "
    ):
        burnt(config, moved)


def test_a_table_by_its_name_is_a_setting_like_any_other(tmp_path):
    (tmp_path / "land.gpkg").touch()
    (tmp_path / "t.csv").write_text("code,landcover_class\n1,a\n")
    before = dict.fromkeys(("cells", "mosaic", "landcover", "predict"), "as before")
    keys = set()
    for classes in ("ocsge", "cosia", "t.csv"):
        config = configure(tmp_path, "land.gpkg", classes)
        assert class_table(config).attrs["source"] == classes
        told = published(config)
        assert told["sources"]["landcover_classes"] == classes
        assert str(tmp_path) not in json.dumps(told)
        assert placeless(f"cannot read {tmp_path}/land.gpkg", config) == "cannot read land.gpkg"
        Workspace.of(config).take(config)
        facts = facts_of("landcover", config, before)
        # only a file can change behind a name
        assert len(facts["input landcover_classes"]) == (classes == "t.csv")
        keys.add(settings_key("landcover", facts))
    assert len(keys) == 3
    assert {*get_args(get_args(Sources.model_fields["landcover_classes"].annotation)[0])} == {
        *CLASS_TABLES
    }


def test_a_table_that_is_neither_a_file_nor_a_name_is_refused(tmp_path):
    (tmp_path / "land.gpkg").touch()
    with pytest.raises(
        MissingInputError, match=r"ocs-ge does not exist; expected 'ocsge', 'cosia' or"
    ):
        configure(tmp_path, "land.gpkg", "ocs-ge")


def test_fragments_are_of_polygons_and_not_of_rasters(tmp_path):
    (tmp_path / "COSIA").mkdir()
    (tmp_path / "COSIA" / "D033_2021_400_6400_vecto.gpkg").touch()
    more = "[explain]\nfragments = true\n"
    assert configure(tmp_path, "COSIA", "cosia", more).explain.fragments
    (tmp_path / "clc.tif").touch()
    with pytest.raises(
        ConfigError, match=r"fragments needs polygons, and .* is a classified raster"
    ):
        configure(tmp_path, "clc.tif", "cosia", more)
