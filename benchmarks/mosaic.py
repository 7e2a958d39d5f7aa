"""Aerial tiles → pixels on the grid: the warp, and the whole stage, against what others use.

One thread each: GDAL, zarr's codecs and numba too. ``--json`` ends with one object:

- ``warp_vs_gdal``: `sesgrid.kernels.warp` over `rasterio.warp.reproject`, 0.2 → 0.25 m, 3 bands;
- ``mosaic_vs_odc``, ``mosaic_vs_rioxarray``: JP2 → finished Zarr;
- ``mosaic_over_decode``: the stage over decoding its source units once;
- ``decoded_over_needed``: pixels decoded over distinct ones needed, on a tile of 25,000 pixels;
- ``scaling``: time per cell, the slowest of 64, 256 and 1,024 cells over the fastest, at half the linear
  scale throughout (cells of 400 px, 0.4 m, JPEG 2000 tiles of 512): the geometry of the full scale
  at a quarter of its pixels;
- ``quarter_over_full``: cells a second at a quarter of the linear resolution over those at full;
- ``two_threads``, ``two_processes``: two towns at once over one after the other;
- ``peak_over_projected``: memory of a process that draws, measured over projected, at each size.

What the decoder alone takes bounds three of them: ``bound_…`` says what a stage that did nothing else
would reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.warp
import xarray as xr
import zarr
from affine import Affine
from rasterio.enums import Resampling

from benchmarks.rounds import arguments, describe_machine, interleave, lower_quartile_ratio, report
from benchmarks.scene import L93, town_cells, write_jp2
from sesgrid import RasterReader, read_ortho
from sesgrid.grid import CELL_M, CRS, Extent, Grid
from sesgrid.kernels import warp
from sesgrid.run.memory import mosaic_bytes
from sesgrid.stages.mosaic import Mosaic, TiledBlock, plan_mosaic
from sesgrid.stages.place import group_blocks
from sesgrid.stages.scene import Rehearsal, Units, sources_of
from sesgrid.stages.tiles import Tile, ranked_tiles
from sesgrid.store.cube import Cube

Rivals = dict[str, Callable[[], Any]]
PACKAGES = ["numba", "numpy", "rasterio", "zarr"]


class Job:
    """A town to be mosaicked: its plan, its grid, and where the cube goes."""

    def __init__(self, folder: Path, tile: Path, side: int, pixels_per_cell: int) -> None:
        self.side = side
        self.cells = town_cells(side)
        self.tiles = read_ortho(tile)
        self.grid = Grid(pixels_per_cell, 8)
        self.work: list[TiledBlock] = plan_mosaic(self.grid, self.cells, self.tiles)
        self.extent = Extent.of_cells(self.grid, self.cells["row"], self.cells["col"])
        self.path = folder / f"cube-{side}-{pixels_per_cell}.zarr"

    def _afresh(self) -> None:
        """Make the reader open the tile anew: GDAL's cache must not decode for us."""
        for path in self.tiles["path"]:
            os.utime(path)

    def run(self) -> None:
        """The stage as a run executes it: groups of blocks, each block written as it is made."""
        self._afresh()
        cube = Cube.create(self.path, self.extent, {})
        stage = Mosaic(self.grid, RasterReader())
        for group in group_blocks(self.work):
            for result in stage.each(group):
                block = result.block
                cube.write_block(block.block_row, block.block_col, result.arrays)

    def decode(self) -> None:
        """Only decode the units that the stage needs, once."""
        self._afresh()
        units, needed = Units(RasterReader()), set()
        ranked = ranked_tiles(self.tiles, None, ())
        for cell in self.cells[["row", "col"]].to_numpy():
            for source in sources_of(tuple(cell), ranked, self.grid.pixel_m, units.levels):
                needed |= {u for u, _, _ in units.parts_of(source)}
        for unit in needed:
            units.decode(unit)

    def write(self, image: np.ndarray) -> None:
        """Pixels ``(band, y, x)`` of the town into a cube made like ours, block by block."""
        cube = Cube.create(self.path.with_suffix(".peer.zarr"), self.extent, {})
        n = self.grid.block_px
        for item in self.work:
            y, x = self.extent.block_slices(item.block.block_row, item.block.block_col)
            block = np.zeros((3, n, n), np.uint8)
            block[:] = image[:, y, x]
            cube.write_block(item.block.block_row, item.block.block_col, {"image": block})


def warp_rivals(size: int) -> Rivals:
    """The kernel and GDAL on the same array, ``size`` output pixels square."""
    from pyproj import Transformer

    corner = town_cells(1).total_bounds
    grid = Affine(0.25, 0, corner[0], 0, -0.25, corner[3])
    edge = np.linspace(0, size * 0.25, 9)
    x, y = Transformer.from_crs(CRS, L93, always_xy=True).transform(
        *(a.ravel() for a in np.meshgrid(corner[0] + edge, corner[3] - edge))
    )
    left, top = np.floor(x.min()) - 1, np.ceil(y.max()) + 1
    shape = (3, int((top - y.min() + 2) / 0.2), int((x.max() + 2 - left) / 0.2))
    source = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    at = Affine(0.2, 0, left, 0, -0.2, top)
    out = np.zeros((3, size, size), np.uint8)

    def gdal() -> np.ndarray:
        rasterio.warp.reproject(
            source, out, src_transform=at, src_crs=L93, dst_transform=grid, dst_crs=CRS,
            resampling=Resampling.bilinear, num_threads=1,
        )  # fmt: skip
        return out

    def gdal_plain() -> np.ndarray:
        rasterio.warp.reproject(
            source, out, src_transform=at, src_crs=L93, dst_transform=grid, dst_crs=CRS,
            resampling=Resampling.bilinear, num_threads=1, XSCALE=1, YSCALE=1,
        )  # fmt: skip
        return out

    return {
        "sesgrid.kernels.warp": lambda: warp(source, at, L93, (size, size), grid, CRS),
        "rasterio.warp.reproject": gdal,
        "the same, its kernel not widened": gdal_plain,
    }


def stage_rivals(job: Job, tile: Path) -> Rivals:
    """JP2 → Zarr by the stage, by odc-geo and by rioxarray; and the decoder alone."""
    import rioxarray
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_reproject

    box = GeoBox(job.extent.shape_px, job.extent.transform, CRS)

    def lazy() -> xr.DataArray:
        source = rioxarray.open_rasterio(tile, chunks={"x": 2048, "y": 2048}, lock=False)
        assert isinstance(source, xr.DataArray)
        return source

    def odc() -> None:
        n = job.grid.block_px
        image = xr_reproject(lazy(), box, resampling="bilinear", chunks=(n, n))
        job.write(image.data.compute(scheduler="synchronous"))

    def rio() -> None:
        image = lazy().rio.reproject(
            CRS, shape=job.extent.shape_px, transform=job.extent.transform,
            resampling=Resampling.bilinear,
        )  # fmt: skip
        job.write(np.asarray(image.data))

    return {
        "sesgrid, JP2 to Zarr": job.run,
        "odc-geo, JP2 to Zarr": odc,
        "rioxarray, JP2 to Zarr": rio,
        "only decoding, each unit once": job.decode,
    }


class Jp2Shapes:
    """Unit shapes of a JPEG 2000 as GDAL writes it; for `Rehearsal`."""

    def levels(self, path: str) -> int:
        """As many as are useful."""
        return 5

    def unit_shape(self, path: str, level: int = 0) -> tuple[int, int]:
        """Tiles of 1024 pixels."""
        return 1024, 1024


OFFSETS = ((0, 0), (26, 12), (13, 19), (7, 28))
"""Where a tile may lie against the groups of blocks, cells."""


def decoded_over_needed(side: int = 25) -> dict[str, float]:
    """Tiles of 25,000 pixels at 0.2 m, every cell of them: decoded over distinct pixels, mean and worst
    of some places against the groups, and the most that is held."""
    found = [_decoded_over_needed(side, offset) for offset in OFFSETS]
    ratios, held = zip(*found, strict=True)
    return {
        "decoded_over_needed": float(np.mean(ratios)),
        "decoded_over_needed_worst": max(ratios),
        "held_bytes": max(held),
    }


def _decoded_over_needed(side: int, offset: tuple[int, int]) -> tuple[float, int]:
    grid, cells = Grid(800, 8), town_cells(side, offset)
    size = round(side * CELL_M / 0.2)
    x, y = rasterio.warp.transform(CRS, L93, *([v] for v in cells.total_bounds[[0, 3]]))
    tile = Tile("tile.jp2", L93, float(x[0]), float(y[0]), 0.2, size, size, None)
    blocks = [TiledBlock(b.block, (tile,)) for b in plan_mosaic(grid, cells, _footprint(tile))]
    decoded, peak, needed = 0, 0, set()
    for group in group_blocks(blocks):
        units = Units(Rehearsal(Jp2Shapes()))
        of_cells = [
            sources_of(cell, item.tiles, grid.pixel_m, units.levels)
            for item in group
            for cell in item.block.cells
        ]
        units.rehearse(of_cells)
        needed |= {u for of_cell in of_cells for s in of_cell for u, _, _ in units.parts_of(s)}
        decoded, peak = decoded + units.decoded_px, max(peak, units.peak_bytes)
    distinct = Units(Rehearsal(Jp2Shapes()))
    for unit in needed:
        distinct.decode(unit)
    return decoded / distinct.decoded_px, peak


def _footprint(tile: Tile) -> Any:
    import geopandas as gpd
    from shapely import box

    side = tile.width * tile.resolution_m
    square = box(tile.left, tile.top - side, tile.left + side, tile.top)
    frame = gpd.GeoDataFrame([vars(tile)], geometry=[square], crs=L93).to_crs(CRS)
    return frame


def per_cell(jobs: dict[int, Job], rounds: int) -> tuple[dict[int, float], dict[int, float]]:
    """Seconds a cell by the stage, and by decoding alone; lower quartiles over interleaved rounds."""
    rivals: Rivals = {}
    for n, job in jobs.items():
        rivals |= {f"run {n}": job.run, f"decode {n}": job.decode}
    seconds = interleave(rivals, rounds, repeats=1)

    def quartiles(kind: str) -> dict[int, float]:
        return {n**2: float(np.quantile(seconds[f"{kind} {n}"], 0.25)) / n**2 for n in jobs}

    return quartiles("run"), quartiles("decode")


def side_by_side(jobs: Sequence[Job], rounds: int) -> dict[str, float]:
    """How many times faster two towns are made at once than one after the other."""
    with (
        ThreadPoolExecutor(2) as threads,
        ProcessPoolExecutor(2, get_context("spawn")) as processes,
    ):
        rivals: Rivals = {
            "one after the other": lambda: list(map(Job.run, jobs)),
            "two threads": lambda: list(threads.map(Job.run, jobs)),
            "two processes": lambda: list(processes.map(Job.run, jobs)),
        }
        one, two, apart = interleave(rivals, rounds, repeats=1).values()
    return {
        "two_threads": lower_quartile_ratio(one, two),
        "two_processes": lower_quartile_ratio(one, apart),
    }


def peak_over_projected(job: Job) -> tuple[float, int]:
    """Peak memory of a fresh process that draws the job, over what a run projects; and its bytes."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.mosaic import Job;"
        "folder, tile, side, pixels = sys.argv[1:];"
        "Job(Path(folder), Path(tile), int(side), int(pixels)).run();"
        # not ru_maxrss, which a child inherits from the process that started it
        "status = Path('/proc/self/status').read_text();"
        "print(status.split('VmHWM:')[1].split()[0])"
    )
    job_of = [job.path.parent, job.tiles["path"].iloc[0], job.side, job.grid.pixels_per_cell]
    command = [sys.executable, "-c", code, *map(str, job_of)]
    settings = {**os.environ, "GDAL_CACHEMAX": str(_CACHE_MB)}
    done = subprocess.run(command, env=settings, capture_output=True, check=True)
    measured = int(done.stdout) << 10
    groups = group_blocks(job.work)
    fullest = max(groups, key=lambda g: sum(len(item.block.cells) for item in g))
    projected = mosaic_bytes(Mosaic(job.grid, RasterReader()), fullest, 1, _CACHE_MB)
    return measured / projected, measured


_CACHE_MB = 128


def main(argv: list[str] | None = None) -> None:
    options = arguments(__doc__, argv)
    side, rounds, warped = (2, 5, 400) if options.quick else (8, 5, 3200)
    pixels, sides = (100, (2, 3, 4)) if options.quick else (800, (8, 16, 32))
    result: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1}),
        rasterio.Env(GDAL_NUM_THREADS="1"),
    ):
        folder = Path(name)
        resolution = CELL_M / pixels * 0.8
        tile = write_jp2(folder / "scene.jp2", side, resolution)
        seconds = interleave(warp_rivals(warped), rounds, repeats=1)
        what = f"warp 3 bands to {warped} × {warped} pixels, 0.2 → 0.25 m, 2154 → 3035"
        report(what, seconds, "sesgrid.kernels.warp", PACKAGES, as_json=False)
        ours, peer, _ = seconds.values()
        result["warp_vs_gdal"] = lower_quartile_ratio(peer, ours)

        job = Job(folder, tile, side, pixels)
        seconds = interleave(stage_rivals(job, tile), rounds, repeats=1)
        what = f"\nmosaic of {side * side} cells of {pixels} × {pixels} pixels"
        report(what, seconds, "sesgrid, JP2 to Zarr", [*PACKAGES, "odc-geo", "rioxarray"], False)
        ours, odc, rio, decode = seconds.values()
        result["mosaic_vs_odc"] = lower_quartile_ratio(odc, ours)
        result["bound_vs_odc"] = lower_quartile_ratio(odc, decode)
        result["mosaic_vs_rioxarray"] = lower_quartile_ratio(rio, ours)
        result["bound_vs_rioxarray"] = lower_quartile_ratio(rio, decode)
        result["mosaic_over_decode"] = 1 / lower_quartile_ratio(decode, ours)

        (folder / "b").mkdir()
        pair = [Job(folder, tile, side, pixels), Job(folder / "b", tile, side, pixels)]
        result |= side_by_side(pair, rounds)

        quarter = Job(folder, tile, side, pixels // 4)
        rivals: Rivals = {"full": job.run, "quarter": quarter.run}
        rivals |= {"decode full": job.decode, "decode quarter": quarter.decode}
        both = interleave(rivals, rounds, repeats=1)
        result["quarter_over_full"] = lower_quartile_ratio(both["full"], both["quarter"])
        result["bound_quarter"] = lower_quartile_ratio(both["full"], both["decode quarter"])
        result["decode_quarter_over_full"] = lower_quartile_ratio(
            both["decode full"], both["decode quarter"]
        )

        big = write_jp2(folder / "big.jp2", sides[-1], 2 * resolution, tile_px=512)
        jobs = {n: Job(folder, big, n, pixels // 2) for n in sides}
        run, alone = per_cell(jobs, rounds)
        result["scaling"] = max(run.values()) / min(run.values())
        result["scaling_of_decoding_alone"] = max(alone.values()) / min(alone.values())
        result["ms_per_cell"] = {n: 1e3 * s for n, s in run.items()}
        result["ms_per_cell_decoding_alone"] = {n: 1e3 * s for n, s in alone.items()}
        peaks = {n**2: peak_over_projected(each) for n, each in jobs.items()}
        result["peak_over_projected"] = {n: ratio for n, (ratio, _) in peaks.items()}
        result["peak_mb"] = {n: round(size / 1e6) for n, (_, size) in peaks.items()}
        result["peak_over_projected_full_scale"] = peak_over_projected(job)[0]
    result |= decoded_over_needed(8 if options.quick else 25)
    print(f"\n{describe_machine()}")
    for key, value in result.items():
        print(f"  {key:<30} {value if isinstance(value, dict) else round(value, 3)}")
    if options.json:
        print(json.dumps({**result, "versions": {p: version(p) for p in PACKAGES}}))


if __name__ == "__main__":
    main()
