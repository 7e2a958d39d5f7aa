"""Archives in volumes, and BD ORTHO as it is delivered since 2025."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import py7zr
import pytest

from sesgrid.errors import FormatError, MissingInputError
from sesgrid.sources import read_boundary, read_filosofi, read_ortho, read_urban_atlas, unpacked
from sesgrid.sources.volumes import joined
from tests.test_ortho import write

CONTENT = bytes(range(256)) * 40


def split(archive: Path, n: int = 3) -> list[Path]:
    """Cut as 7-Zip does (``-v``), and remove the whole."""
    data = archive.read_bytes()
    size = -(-len(data) // n)
    parts = [archive.with_name(f"{archive.name}.{k + 1:03}") for k in range(n)]
    for k, part in enumerate(parts):
        part.write_bytes(data[k * size : (k + 1) * size])
    archive.unlink()
    return parts


def packed(path: Path) -> Path:
    if path.suffix == ".7z":
        with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_COPY}]) as archive:
            archive.writestr(CONTENT, "a/cells.csv")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/cells.csv", CONTENT)
    return path


@pytest.mark.parametrize("suffix", [".7z", ".zip"])
def test_volumes_are_read_as_the_archive_they_are_parts_of(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"b{suffix}.001").write_bytes(b"of another archive")
    parts = split(packed(tmp_path / f"a{suffix}"))
    for given in parts:
        with unpacked(given, {".csv"}) as content:
            assert (content / "a" / "cells.csv").read_bytes() == CONTENT
    whole = b"".join(p.read_bytes() for p in parts)
    with joined(parts[0]) as file:
        assert file.read() == whole
        for at, n in ((0, 5), (len(whole) // 3 - 2, 9), (len(whole) - 3, 9), (len(whole) + 5, 1)):
            file.seek(at)
            assert file.read(n) == whole[at : at + n]
        assert file.seek(-4, 2) == len(whole) - 4
        assert file.read() == whole[-4:]


def test_volumes_that_are_missing_or_cut(tmp_path: Path) -> None:
    parts = split(packed(tmp_path / "a.7z"), 4)
    kept = parts[1].read_bytes()
    parts[1].unlink()
    for given in (parts[0], parts[3]):
        with pytest.raises(
            MissingInputError, match=r"volumes 002 are missing.*a\.7z\.001 to \.004"
        ):
            unpacked(given, {".csv"}).__enter__()
    parts[1].write_bytes(kept[:-9])
    with pytest.raises(FormatError, match=r"a\.7z\.002 has .* truncated"):
        unpacked(parts[0], {".csv"}).__enter__()
    parts[1].write_bytes(kept)
    parts[3].unlink()  # that there was one more nobody can know
    with pytest.raises(
        FormatError, match=r"truncated.*here is a\.7z\.003: was there another behind it"
    ):
        unpacked(parts[0], {".csv"}).__enter__()
    with py7zr.SevenZipFile(tmp_path / "whole.7z", "w") as archive:
        archive.writestr(CONTENT, "cells.csv")
    cut = tmp_path / "whole.7z"
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(FormatError) as told:
        unpacked(cut, {".csv"}).__enter__()
    assert "volume" not in str(told.value)


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP splits the archive")
def test_the_parts_of_a_split_zip_are_to_be_joined(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes(np.random.default_rng(0).bytes(200_000))
    subprocess.run(
        ["zip", "-q", "-s", "64k", "a.zip", "cells.csv"], cwd=tmp_path, check=True, timeout=60
    )
    assert (tmp_path / "a.z01").exists()
    for given in ("a.zip", "a.z01"):
        with pytest.raises(FormatError, match=r"a\.z01.*unpack both \('7z x a\.zip'\)"):
            read_filosofi(tmp_path / given)
    (tmp_path / "b.csv").write_text("x")
    with pytest.raises(FormatError) as told:
        read_filosofi(tmp_path / "b.csv")
    assert "7z" not in str(told.value)
    subprocess.run(["zip", "-q", "whole.zip", "cells.csv"], cwd=tmp_path, check=True, timeout=60)
    with unpacked(tmp_path / "whole.zip", {".csv"}) as content:
        assert (content / "cells.csv").read_bytes() == (tmp_path / "cells.csv").read_bytes()


def test_a_folder_that_holds_archives_alone(tmp_path: Path) -> None:
    packed(tmp_path / "Filosofi.7z")
    for read in (read_filosofi, read_boundary, read_urban_atlas):
        with pytest.raises(MissingInputError, match=r"holds Filosofi\.7z: give the path of that"):
            read(tmp_path)


def test_orthophotos_in_volumes_are_to_be_unpacked(tmp_path: Path) -> None:
    name = "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D031_2025-01-01.7z"
    for k in (1, 2, 3):
        (tmp_path / f"{name}.{k:03}").write_bytes(b"7z")
    for given in (tmp_path, tmp_path / f"{name}.002", [tmp_path / f"{name}.001"]):
        with pytest.raises((FormatError, MissingInputError), match=rf"7z x {name}\.001' takes all"):
            read_ortho(given)


def test_a_delivery_of_2025(tmp_path: Path) -> None:
    top = tmp_path / "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D031_2025-01-01"
    data = (
        top
        / "ORTHOHR"
        / "1_DONNEES_LIVRAISON_2026-04-00085"
        / "OHR_RVB_0M20_JP2-E080_LAMB93_D31-2025"
    )
    write(data / "31-2025-0570-6285-LA93-0M20-E080.jp2", 570000, 6285000)
    side = data.parents[1] / "2_METADONNEES_LIVRAISON_2026-04-00085" / data.name
    write(side / "quicklook.jpg", driver="JPEG", crs=None, transform=None)
    for given in (tmp_path, top, data):
        tile = read_ortho(given).iloc[0]
        assert (tile["year"], tile["delivery"]) == (2025, top.name)
        assert (tile["left"], tile["top"]) == (570000, 6285000)


def test_older_names_tell_no_resolution(tmp_path: Path) -> None:
    placed = write(tmp_path / "75-2008-0640-6860-LA93.tif", 640000, 6860000)
    tile = read_ortho(placed).iloc[0]
    assert (tile["year"], tile["resolution_m"], tile["left"]) == (2008, 2.0, 640000)
    lost = write(tmp_path / "75-2008-0645-6860-LA93.tif", crs=None, transform=None)
    with pytest.raises(FormatError, match=r"no georeferencing.*no resolution.*world file"):
        read_ortho(lost)
    contrary = write(tmp_path / "75-2008-0650-6860-LA93.tif", 640000, 6860000)
    with pytest.raises(FormatError, match="the name puts the north-west corner"):
        read_ortho(contrary)
