"""Archives: what is unpacked, and what is refused before anything is written."""

from __future__ import annotations

import binascii
import errno
import gzip
import os
import random
import stat
import struct
import zipfile
from pathlib import Path

import geopandas as gpd
import py7zr
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sesgrid.errors import (
    FormatError,
    MissingInputError,
    ReadError,
    SesgridError,
    StoreError,
    UnsafePathError,
)
from sesgrid.sources.archive import safe_relative_path, unpacked


def make_zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items():
            z.writestr(name, content)
    return path


def make_7z(path: Path, members: dict[str, bytes], **options: object) -> Path:
    with py7zr.SevenZipFile(path, "w", **options) as z:
        for name, content in members.items():
            z.writestr(content, name)
    return path


def content_of(path: Path, *suffixes: str, **options: int) -> dict[str, bytes]:
    with unpacked(path, set(suffixes), **options) as content:
        return {
            p.relative_to(content).as_posix(): p.read_bytes()
            for p in content.rglob("*")
            if p.is_file()
        }


def rename_in_7z(path: Path, old: str, new: str) -> None:
    """Change a name in a 7z header to one as long, and mend both checksums (7zFormat.txt)."""
    data = bytearray(path.read_bytes())
    a, b = old.encode("utf-16le"), new.encode("utf-16le")
    assert len(a) == len(b)
    assert data.count(a) == 1
    offset, size = struct.unpack_from("<QQ", data, 12)
    data[:] = data.replace(a, b)
    struct.pack_into("<I", data, 28, binascii.crc32(data[32 + offset : 32 + offset + size]))
    struct.pack_into("<I", data, 8, binascii.crc32(data[12:32]))
    path.write_bytes(data)


def test_plain_files_and_folders_are_themselves(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x")
    for path in (file, tmp_path):
        with unpacked(path, {".csv"}) as content:
            assert content == path
    assert file.read_text() == "x"


def test_missing_file(tmp_path: Path) -> None:
    with (
        pytest.raises(MissingInputError, match=r"no such file.*nowhere\.zip"),
        unpacked(tmp_path / "nowhere.zip", {".csv"}),
    ):
        pass


@pytest.mark.parametrize("kind", ["zip", "7z", "7z in zip", "zip in zip"])
def test_only_wanted_members_come_out(tmp_path: Path, kind: str) -> None:
    members = {"d/cells.CSV": b"id", "d/notes.pdf": b"no", "top.csv": b"two"}
    if kind == "7z":
        path = make_7z(tmp_path / "a.7z", members)
    else:
        path = make_zip(tmp_path / "a.zip", **members)
    if kind == "zip in zip":
        path = make_zip(tmp_path / "outer.zip", **{"in/a.zip": path.read_bytes()})
    if kind == "7z in zip":
        inner = make_7z(tmp_path / "a.7z", members)
        path = make_zip(tmp_path / "outer.zip", **{"in/a.7z": inner.read_bytes(), "x.txt": b""})
    found = content_of(path, ".csv")
    assert {Path(name).name: data for name, data in found.items()} == {
        "cells.CSV": b"id",
        "top.csv": b"two",
    }


def test_temporary_folder_is_removed(tmp_path: Path) -> None:
    with unpacked(make_zip(tmp_path / "a.zip", **{"a.csv": b"x"}), {".csv"}) as content:
        assert content.is_dir()
    assert not content.exists()


def test_shapefile_brings_its_side_files(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip", **{f"t.{s}": b"" for s in ("shp", "shx", "dbf", "prj", "cpg", "xml")}
    )
    assert sorted(content_of(path, ".shp")) == ["t.cpg", "t.dbf", "t.prj", "t.shp", "t.shx"]
    assert content_of(path, ".csv") == {}


@pytest.mark.parametrize("layout", ["folder", "top"])
def test_zipped_geodatabase(tmp_path: Path, layout: str) -> None:
    frame = gpd.GeoDataFrame({"code_2018": ["50000"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=3035)
    gdb = tmp_path / "X.gdb"
    pyogrio.write_dataframe(
        frame, gdb, layer="land", driver="OpenFileGDB", geometry_type="MultiPolygon",
        promote_to_multi=True,
    )  # fmt: skip
    prefix = "X.gdb/" if layout == "folder" else ""
    path = make_zip(
        tmp_path / "X.gdb.zip", **{f"{prefix}{p.name}": p.read_bytes() for p in gdb.iterdir()}
    )
    with unpacked(path, {".gdb"}) as content:
        (folder,) = content.glob("*.gdb")
        assert folder.name == "X.gdb"
        assert pyogrio.list_layers(folder)[:, 0].tolist() == ["land"]
    with unpacked(make_zip(tmp_path / "o.zip", **{"X.gdb.zip": path.read_bytes()}), {".gdb"}) as c:
        (folder,) = (p for p in c.rglob("X.gdb") if p.is_dir())
        assert pyogrio.list_layers(folder)[:, 0].tolist() == ["land"]


EVIL = [
    "../evil.csv",
    "/evil.csv",
    "a/../../evil.csv",
    "C:\\evil.csv",
    "..\\evil.csv",
    "../evil.pdf",
]


@pytest.mark.parametrize("name", EVIL)
def test_zip_entry_that_leads_out(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = make_zip(folder / "bad.zip", **{"good.csv": b"x", name: b"x"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnsafePathError, match=r"bad\.zip.*evil") as caught:
        content_of(path, ".csv")
    assert repr(name) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../evil.csv", "/tmp/ev.csv", "C:\\evilcsv", "..\\evil.csv"])
def test_7z_entry_that_leads_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.7z"
    with py7zr.SevenZipFile(path, "w") as z:
        z.set_encoded_header_mode(False)
        z.writestr(b"x", "q" * len(name))
    rename_in_7z(path, "q" * len(name), name)
    outer = make_zip(tmp_path / "outer.zip", **{"bad.7z": path.read_bytes()})
    for archive in (path, outer):
        with pytest.raises(UnsafePathError, match=r"bad\.7z"):
            content_of(archive, ".csv")


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.csv")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr(info, "/etc/passwd")
    (tmp_path / "link.csv").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as z:
        z.write(tmp_path / "link.csv", "link.csv")
    for name in ("a.zip", "a.7z"):
        with pytest.raises(UnsafePathError, match=rf"{name}.*'link.csv' is a link"):
            content_of(tmp_path / name, ".csv")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(["..", ".", "a", "b.csv", "", "C:", "..."]), min_size=1), st.booleans()
)
def test_safe_names_stay_inside(parts: list[str], windows: bool) -> None:
    name = ("\\" if windows else "/").join(parts)
    try:
        relative = safe_relative_path(name, "x.zip")
    except UnsafePathError:
        assert ".." in parts or name[:1] in {"/", "\\"} or name.startswith("C:")
        return
    inside = os.path.normpath(os.path.join("/root/x", *relative.parts))
    assert inside == "/root/x" or inside.startswith("/root/x/")


def test_size_limit_counts_nested_archives_together(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "i.zip", **{"a.csv": bytes(60_000)})
    outer = make_zip(tmp_path / "o.zip", **{"i.zip": inner.read_bytes(), "b.csv": bytes(60_000)})
    assert len(content_of(outer, ".csv", max_bytes=130_000)) == 2
    with pytest.raises(FormatError, match="beyond the limit"):
        content_of(outer, ".csv", max_bytes=100_000)
    bomb = make_7z(tmp_path / "b.7z", {"a.csv": bytes(60_000)})
    with pytest.raises(FormatError, match=r"b\.7z declares"):
        content_of(bomb, ".csv", max_bytes=50_000)
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(bytes(60_000)))
    assert content_of(packed, ".csv", max_bytes=60_000) == {"a.csv": bytes(60_000)}
    with pytest.raises(FormatError, match=r"a\.csv\.gz holds more than the limit"):
        content_of(packed, ".csv", max_bytes=59_999)


def test_nesting_is_limited(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", **{"a.csv": b"x"})
    for _ in range(2):
        path = make_zip(tmp_path / f"{path.stem}a.zip", **{path.name: path.read_bytes()})
    assert len(content_of(path, ".csv")) == 1
    path = make_zip(tmp_path / "last.zip", **{path.name: path.read_bytes()})
    with pytest.raises(FormatError, match="nested more than 3 deep"):
        content_of(path, ".csv")


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9])
@pytest.mark.parametrize("suffix", [".zip", ".7z"])
def test_damaged_archive(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"cut{suffix}"
    body = {"a.csv": os.urandom(5000)}
    _ = make_zip(path, **body) if suffix == ".zip" else make_7z(path, body)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 or keep == 0 else len(data) * keep)])
    with pytest.raises(FormatError, match=rf"cut\{suffix} cannot be unpacked"):
        content_of(path, ".csv")


def test_damage_inside_a_member_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        z.writestr("a.csv", b"income" * 100)
    path.write_bytes(path.read_bytes().replace(b"income", b"incoma", 1))
    with pytest.raises(FormatError, match="cannot be unpacked"):
        content_of(path, ".csv")


def test_encrypted_archive(tmp_path: Path) -> None:
    path = make_7z(tmp_path / "a.7z", {"a.csv": b"x"}, password="secret")
    for hidden in (False, True):  # the names, too
        with py7zr.SevenZipFile(path, "w", password="secret", header_encryption=hidden) as archive:
            archive.writestr(b"x", "a.csv")
        with pytest.raises(FormatError, match=r"^a\.7z is encrypted; unpack it by hand"):
            content_of(path, ".csv")


TWICE = {
    "the same name": ("a.csv", "a.csv"),
    "but for capitals": ("d/Cells.csv", "D/cells.CSV"),
    "two spellings of an accent": ("\u00e9.csv", "e\u0301.csv"),
    "an entry and a folder": ("a.csv", "a.csv/b.csv"),
    "a separator of Windows": ("d/a.csv", "d\\a.csv"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", TWICE)
def test_entries_that_would_become_one_file(tmp_path: Path, kind: str) -> None:
    first, second = TWICE[kind]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr(first, b"x")
        z.writestr(second, b"y")
    with pytest.raises(FormatError, match=r"a\.zip: .* the name of another"):
        content_of(tmp_path / "a.zip", ".csv")
    # what is not wanted may have any name
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as z:
        z.writestr(first.replace(".csv", ".txt"), b"x")
        z.writestr(second, b"y")
    assert list(content_of(tmp_path / "b.zip", ".csv").values()) == [b"y"]


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "d/" * 1500 + "a.csv", "é" * 130 + ".csv"])
def test_names_that_are_too_long(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="the name of an entry is too long") as caught:
        content_of(make_zip(tmp_path / "a.zip", **{name: b"x"}), ".csv")
    assert len(str(caught.value)) < 500
    assert len(content_of(make_zip(tmp_path / "b.zip", **{"é" * 100 + ".csv": b"x"}), ".csv")) == 1


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="File name too long"), unpacked("x" * 300, {".csv"}):
        pass


def test_a_nested_archive_beside_a_folder_of_its_name(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "i.zip", **{"a.csv": b"inner"})
    outer = make_zip(tmp_path / "o.zip", **{"i.zip": inner.read_bytes(), "i.zip.d/a.csv": b"outer"})
    assert sorted(content_of(outer, ".csv").values()) == [b"inner", b"outer"]


def test_encrypted_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", **{"a.csv": b"x"})
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.zip is encrypted; unpack it by hand"):
        content_of(path, ".csv")


def test_an_unknown_method(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", **{"a.csv": b"x"})
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + at] = 9  # deflate64, as Windows writes above 2 GB
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"NotImplementedError.*unpack it by hand"):
        content_of(path, ".csv")


def test_no_room_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(StoreError, match=r"a\.zip cannot be unpacked to .*No space left.*TMPDIR"):
        content_of(make_zip(tmp_path / "a.zip", **{"a.csv": b"x"}), ".csv")


@pytest.mark.parametrize("suffix", [".zip", ".7z"])
def test_changed_bytes_end_in_one_line_or_in_the_content(tmp_path: Path, suffix: str) -> None:
    members = {"d/a.csv": b"income " * 40, "b.csv": bytes(range(256)), "c.txt": b"no"}
    path = tmp_path / f"a{suffix}"
    _ = make_zip(path, **members) if suffix == ".zip" else make_7z(path, members)
    data, told = path.read_bytes(), []
    for seed in range(60):
        chance = random.Random(seed)
        changed = bytearray(data)
        for _ in range(chance.choice([1, 1, 5])):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        path.write_bytes(
            changed[: chance.choice([len(data), len(data), chance.randrange(len(data))])]
        )
        try:
            found = content_of(path, ".csv", max_bytes=2**20)
        except SesgridError as error:
            told.append(str(error))
        else:  # names and times are not covered by any checksum of a zip
            assert set(found.values()) <= set(members.values())
    assert len(told) > 30
    assert not any("\n" in text for text in told)
