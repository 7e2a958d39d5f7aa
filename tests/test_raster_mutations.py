"""Rasters and what lies beside them, damaged by seed: the same result, or a word; never a traceback.

What a format carries no checksum of (a digit of a coordinate, pixels of a JPEG) may differ unnoticed; what is
cut off may not.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from sesgrid.errors import MAX_MESSAGE, FormatError, ReadError, SesgridError, SesgridWarning
from sesgrid.sources import RasterReader, read_class_rasters, read_ortho
from tests.test_opening import AT, CODES, codes, pam, state, vrt
from tests.test_ortho import PX, picture, write

SEEN = np.broadcast_to(np.arange(PX) >= 20, (PX, PX))
WHOLE = (0, PX, 0, PX)
PACKED = {"compress": "deflate", "transform": AT}


def mask(path: Path, *, inside: bool) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as raster:
        raster.write_mask(SEEN)
    return path


def world(path: Path, suffix: str) -> None:
    path.with_suffix(suffix).write_text("2.0\n0.0\n0.0\n-2.0\n650001.0\n6859999.0\n")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("whole")
    mask(write(top / "tif" / "a.tif", **PACKED), inside=True)
    nodata = (f'<PAMRasterBand band="{b + 1}"><NoDataValue>{v}</NoDataValue></PAMRasterBand>'
              for b, v in enumerate(picture()[:, 0, 0]))  # fmt: skip
    pam(write(top / "jp2" / "a.jp2", transform=AT), "".join(nodata))
    world(write(top / "jpg" / "a.jpg", transform=None), ".jgw")
    for stale in (top / "jpg").glob("*.aux.xml"):
        stale.write_text("<PAMDataset><SRS>EPSG:2154</SRS></PAMDataset>")
    world(mask(codes(top / "class" / "c.tif", compress="deflate"), inside=False), ".tfw")
    codes(top / "vrt" / "parts" / "c.tif", compress="deflate")
    (top / "vrt" / "all.vrt").write_text(vrt("parts/c.tif"))
    return top


def read_all(folder: Path) -> list[object]:
    """Places and pixels of what lies in a folder."""
    if folder.name in ("class", "vrt"):
        frame = read_class_rasters(folder / {"class": "c.tif", "vrt": "all.vrt"}[folder.name])
        read: Callable = CODES.read
    else:
        frame, read = read_ortho(folder), RasterReader().read
    found: list[object] = frame[["crs", "left", "top", "resolution_m"]].to_numpy().tolist()
    for path, width, height in zip(frame["path"], frame["width"], frame["height"], strict=True):
        pixels, valid = read(path, (0, min(height, PX), 0, min(width, PX)))
        found += [np.where(True if valid is None else valid, pixels, 0).tolist(), valid is None]
    return found


def outcome(folder: Path) -> list[object] | str:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = read_all(folder)
        except SesgridError as error:
            text = str(error)
            return "refused" if len(text) <= MAX_MESSAGE and "\n" not in text else f"long: {text}"
    told = any(isinstance(w.message, SesgridWarning) for w in said)
    return "told" if told else found


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    how = rng.choice(["cut", "flip", "zero", "insert"])
    at = rng.randrange(min(len(data), rng.choice([300, 10**6])))
    if how == "cut":
        return how, data[:at]
    if how == "insert":
        return how, data[:at] + rng.randbytes(3) + data[at:]
    middle = bytes([data[at] ^ 1 << rng.randrange(8)]) if how == "flip" else bytes(9)
    return how, data[:at] + middle + data[at + len(middle) :]


@pytest.mark.parametrize("seed", range(5))
def test_damaged_by_seed(sources: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    for kind in ("tif", "jp2", "jpg", "class", "vrt"):
        whole = outcome(sources / kind)
        assert isinstance(whole, list)
        for k in range(3):
            folder = tmp_path / str(k) / kind
            shutil.copytree(sources / kind, folder)
            victim = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
            how, data = damaged(victim.read_bytes(), rng)
            victim.write_bytes(data)
            before = state(folder)
            found = outcome(folder)
            assert state(folder) == before
            assert not str(found).startswith("long")
            # a world file may end in a digit less
            if how == "cut" and victim.suffix not in (".jgw", ".tfw"):
                assert found in ("refused", "told") or found == whole, f"{victim}: {how}"


@pytest.mark.parametrize("kind", ["tif", "jp2", "jpg", "class", "vrt"])
def test_the_same_without_damage(sources: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(sources / kind, tmp_path / kind)
    assert outcome(tmp_path / kind) == outcome(sources / kind) != "refused"


def test_a_mask_inside_that_cannot_be_read_is_not_passed_over(
    sources: Path, tmp_path: Path
) -> None:
    whole = (sources / "tif" / "a.tif").read_bytes()
    path, wrong = tmp_path / "a.tif", 0
    for at in range(8, len(whole) - 4, len(whole) // 12):
        path.write_bytes(whole[:at] + whole[at + 4 :])
        try:
            _, valid = RasterReader().read(path, WHOLE)
        except SesgridError:
            wrong += 1
        else:
            assert valid is not None
    assert wrong > 5


@pytest.mark.parametrize(
    "text",
    [
        "2\n0\n0\n-2\n650_001\n6859999\n",
        "2\n0\n0\n-2\x0b650001\n6859999\n0\n",
        "2\n0\n0\n-2\n650001\n",
        "2\n0\n0\n-2\nx650001\n6859999\n",
        "",
        "\0" * 40,
    ],
)
def test_world_files_that_are_none(tmp_path: Path, text: str) -> None:
    for suffix, beside in ((".tif", ".tfw"), (".jpg", ".jgw"), (".tif", ".TFW"), (".tif", ".wld")):
        path = write(tmp_path / beside / f"a{suffix}", crs=None, transform=None)
        for stale in path.parent.glob("*.aux.xml"):
            stale.unlink()
        world(path, beside)
        assert read_ortho(path, default_crs="EPSG:2154")["left"].tolist() == [650000]
        path.with_suffix(beside).write_text("2,0\n0\n0\n-2,0\n650001,0\n6859999,0\n\n")
        assert read_ortho(path, default_crs="EPSG:2154")["top"].tolist() == [6860000]
        path.with_suffix(beside).write_text(text)
        with pytest.raises(FormatError, match=r"six lines of one number each, received .* in line"):
            read_ortho(path, default_crs="EPSG:2154")


def test_what_gdal_remarks_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    data = path.read_bytes()
    # a tag that GDAL does not know, before all others: the directory is not in order
    at = data.index((256).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    path.write_bytes(data[:at] + data[at + 12 : at + 24] + data[at : at + 12] + data[at + 24 :])
    with pytest.warns(
        SesgridWarning, match=r"GDAL opens 1 rasters with remarks, first a\.tif \(.*order"
    ):
        read_ortho(path)
    assert np.array_equal(RasterReader().read(path, WHOLE)[0], picture())
    one = codes(tmp_path / "c.tif")
    one.with_name("c.tif.msk").write_bytes(write(tmp_path / "other.tif").read_bytes())
    with pytest.raises(ReadError, match=r"c\.tif\.msk cannot be read as the mask of c\.tif"):
        read_class_rasters(one)
