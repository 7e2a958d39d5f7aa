"""``.md5`` of deliveries, as md5sum and IGN write them, compared before a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sesgrid.errors import FormatError, ReadError, UnsafePathError
from sesgrid.run.config import Config
from sesgrid.run.delivered import check_delivered
from sesgrid.sources.checksums import compare_checksums, delivered_checksums


def md5sum(*files: Path, tag: bool = False) -> str:
    """What coreutils says, with names as they are beside the list."""
    said = subprocess.run(
        ["md5sum", *(["--tag"] if tag else []), *(f.name for f in files)],
        cwd=files[0].parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return said.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A delivery: two tiles, and a census beside them."""
    (tmp_path / "ortho").mkdir()
    for name in ("ortho/a.jp2", "ortho/b.jp2", "census.7z"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return tmp_path


def config(folder: Path, **sources: object) -> Config:
    given = {"census": str(folder / "census.7z"), "ortho": [str(folder / "ortho")], **sources}
    return Config.model_validate({"name": "x", "output": str(folder / "out"), "sources": given})


FORMS = (
    "md5sum", "binary", "bsd", "alone", "capitals", "bom", "absolute", "windows", "other case",
    "other folder", "name first",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_checksum_finds_a_changed_file(source: Path, form: str) -> None:
    a, beside = source / "ortho" / "a.jp2", source / "ortho" / "a.jp2.md5"
    text = md5sum(a, tag=form == "bsd")
    text = {
        "binary": text.replace("  ", " *"),
        "alone": text.split()[0],
        "capitals": text.replace(text.split()[0], text.split()[0].upper()).replace("\n", "\r\n"),
        "bom": "\ufeff" + text,
        "absolute": text.replace("a.jp2", "/etc/a.jp2"),
        "windows": text.replace("a.jp2", r"D:\prod\a.jp2"),
        "other case": text.replace("a.jp2", "A.JP2"),
        "other folder": text.replace("a.jp2", "delivery/a.jp2"),
        "name first": f"a.jp2: {text.split()[0]}\n",
    }.get(form, text)
    beside.write_text(text, encoding="utf-8")
    for given in (source / "ortho", a):
        found = delivered_checksums([given])
        assert list(found.files) == [a]
        compare_checksums(found)
    a.write_bytes(a.read_bytes()[:-1])
    with pytest.raises(
        ReadError, match=r"1 of 1 files are not as delivered, first .*a\.jp2: a\.jp2\.md5"
    ):
        compare_checksums(delivered_checksums([a]))


def test_a_run_compares_where_it_is_asked_and_tells_otherwise(source: Path) -> None:
    told: list[str] = []
    check_delivered(config(source), told.append)
    assert told == []
    check_delivered(config(source, check=True), told.append)
    assert told == ["check: no file has a .md5"]
    tiles = [source / "ortho" / "a.jp2", source / "ortho" / "b.jp2"]
    (source / "ortho" / "list.md5").write_text(md5sum(*tiles) + f"{'0' * 32}  gone.jp2\n")
    (source / "census.7z.md5").write_text(md5sum(source / "census.7z"))
    (source / "other.md5").write_text(f"{'0' * 32}  other\n")
    told.clear()
    check_delivered(config(source), told.append)
    check_delivered(config(source, check=True), told.append)
    assert told == [
        "check: 3 files have a .md5 beside them that is not compared; sources.check = true does so",
        "check: 3 files are what their .md5 says; 1 names in them match no file here, first gone.jp2 in "
        "list.md5",
    ]
    (source / "census.7z").write_bytes(b"x")
    check_delivered(config(source), told.append)
    with pytest.raises(ReadError, match=r"1 of 3 files .*census\.7z"):
        check_delivered(config(source, check=True), told.append)


def test_volumes_have_one_each(source: Path) -> None:
    (source / "census.7z").unlink()
    parts = [source / f"census.7z.{k:03}" for k in (1, 2)]
    for part in parts:
        part.write_bytes(part.name.encode())
        part.with_name(part.name + ".md5").write_text(md5sum(part))
    assert sorted(delivered_checksums([parts[0]]).files) == parts


def test_lists_that_are_none_or_lead_elsewhere(source: Path) -> None:
    beside = source / "ortho" / "a.jp2.md5"
    beside.write_text("<html>404</html>")
    check_delivered(config(source), [].append)
    with pytest.raises(FormatError, match=r"a\.jp2\.md5 holds no MD5"):
        check_delivered(config(source, check=True), [].append)
    beside.write_text(f"{'0' * 32}  ../../secret\n")
    with pytest.raises(UnsafePathError, match="leads out"):
        check_delivered(config(source, check=True), [].append)


def test_a_md5_that_matches_nothing_does_not_reassure(source: Path) -> None:
    beside, told = source / "census.7z.md5", []
    beside.write_text(f"{'0' * 32}  renamed.7z\nDate: 2021\n# a remark\n")
    check_delivered(config(source, check=True), told.append)
    assert told == [
        "check: no file is compared, although there are .md5; 1 names in them match no file here, first "
        "renamed.7z in census.7z.md5; 1 lines are no checksum, first 'Date: 2021' in census.7z.md5"
    ]
    beside.write_text(md5sum(source / "census.7z"))
    check_delivered(config(source, check=True), told.append)
    assert told[1:] == ["check: 1 files are what their .md5 says"]


def test_lists_beside_a_file_that_do_not_name_it_are_not_asked(source: Path) -> None:
    (source / "other.md5").write_text("<html>404</html>")
    (source / "another.md5").write_text(f"{'0' * 32}  ../../secret\n")
    assert not delivered_checksums([source / "census.7z"]).files
    (source / "all.md5").write_text(md5sum(source / "census.7z") + f"{'0' * 32}  other.csv\n")
    found = delivered_checksums([source / "census.7z"])
    assert (list(found.files), found.unmatched) == ([source / "census.7z"], [])


def test_a_list_made_elsewhere_names_files_by_their_last_part_if_that_is_one(source: Path) -> None:
    tiles = [source / "ortho" / "a.jp2", source / "ortho" / "b.jp2"]
    text = md5sum(*tiles).replace("a.jp2", "/data/prod/a.jp2").replace("b.jp2", "/data/b.jp2")
    (source / "ortho" / "list.md5").write_text(text)
    assert sorted(delivered_checksums([source / "ortho"]).files) == tiles
    (source / "ortho" / "part").mkdir()
    (source / "ortho" / "part" / "b.jp2").write_bytes(b"another")
    found = delivered_checksums([source / "ortho"])
    assert list(found.files) == tiles[:1]
    assert [name for name, _ in found.unmatched] == ["/data/b.jp2"]


def test_a_list_in_utf_16_is_read(source: Path) -> None:
    text = md5sum(source / "census.7z")
    (source / "census.7z.md5").write_text(text, encoding="utf-16")
    compare_checksums(found := delivered_checksums([source / "census.7z"]))
    assert list(found.files) == [source / "census.7z"]
