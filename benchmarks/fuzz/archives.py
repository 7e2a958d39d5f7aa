"""Archives as they are delivered, and as somebody might make them to do harm."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from pathlib import Path
from random import Random

import py7zr

from benchmarks.fuzz.damage import ANY_FILE, flip
from benchmarks.fuzz.trial import Damage, Trial

__all__ = ["ARCHIVE_DAMAGES", "pack"]


def pack(rng: Random, folder: Path, target: Path) -> Path:
    """Pack a folder in one of the ways that deliveries come in; what was packed is removed."""
    kind = rng.choice(["zip", "zip", "7z", "7z in zip"])
    inner = rng.choice(["", "Filosofi/", "a/b/données é/"])
    if kind == "7z":
        path = _seven(folder, target / "delivery.7z", inner)
    elif kind == "zip":
        path = _zip(rng, folder, target / "delivery.zip", inner)
    else:
        seven = _seven(folder, target / "inner.7z", inner)
        path = target / "delivery.zip"
        with zipfile.ZipFile(path, "w") as z:
            z.write(seven, "inner.7z")
        seven.unlink()
    shutil.rmtree(folder)
    return path


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _seven(folder: Path, path: Path, inner: str) -> Path:
    with py7zr.SevenZipFile(path, "w") as z:
        for file in _files(folder):
            z.write(file, inner + file.relative_to(folder).as_posix())
    return path


def _zip(rng: Random, folder: Path, path: Path, inner: str) -> Path:
    way = rng.choice(
        [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    sink = _Stream() if rng.random() < 0.3 else path  # a stream's sizes come behind the members
    with zipfile.ZipFile(sink, "w", way) as z:
        if inner and rng.random() < 0.5:
            z.writestr(inner, b"")
        for file in _files(folder):
            z.write(file, inner + file.relative_to(folder).as_posix())
        if rng.random() < 0.4:
            z.writestr(
                "__MACOSX/" + inner + "._" + _files(folder)[0].name, b"\0\x05\x16\x07" + bytes(80)
            )
        if rng.random() < 0.4:
            z.writestr(inner + "LISEZ-MOI.pdf", b"%PDF")
        z.comment = rng.choice([b"", b"made by INSEE"])
    if isinstance(sink, _Stream):
        path.write_bytes(sink.getvalue())
    return path


class _Stream(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise OSError("no seeking here")

    def tell(self) -> int:
        raise OSError("no telling here")


def _flip_member(rng: Random, trial: Trial) -> None:
    """Flip a bit of what is packed: the archive has a checksum of it."""
    if trial.path.suffix == ".7z":
        size = struct.unpack("<Q", trial.path.read_bytes()[12:20])[0]  # bytes up to the index
        flip(rng, trial.path, 32, 32 + size)
        return
    with zipfile.ZipFile(trial.path) as z:
        members = [i for i in z.infolist() if i.compress_size]
        info = max(members, key=lambda i: i.compress_size)
    start = info.header_offset + 30 + len(info.filename.encode()) + 40
    flip(
        rng,
        trial.path,
        min(start, info.header_offset + 30 + info.compress_size - 1),
        info.header_offset + 30 + info.compress_size,
    )


def _with_member(name: str, *, link: bool = False) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        path = trial.path
        if path.suffix != ".zip":
            path.write_bytes(b"PK\x05\x06" + bytes(18))
        info = zipfile.ZipInfo(name.replace("{aside}", str(path.parent)))
        if link:
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "a") as z:
            z.writestr(info, "/etc/passwd" if link else "idcar_200m,ind,ind_snv\n")

    return Damage(do, f"member {name}{' link' if link else ''}")


def _encrypted(rng: Random, trial: Trial) -> None:
    path = trial.path
    if path.suffix == ".7z":
        with py7zr.SevenZipFile(path, "w", password="secret") as z:
            z.writestr(b"idcar_200m,ind,ind_snv\n", "a.csv")
        return
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        k = content.find(mark)
        while k >= 0:
            content[k + at] |= 1
            k = content.find(mark, k + 4)
    path.write_bytes(content)


def _bomb(rng: Random, trial: Trial) -> None:
    """A member that is larger than it says, or says that it is too large for any disk."""
    with zipfile.ZipFile(trial.path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("cells.csv", b"idcar_200m,ind,ind_snv\n" + bytes(40_000_000))
    content = bytearray(trial.path.read_bytes())
    k = content.find(b"PK\x01\x02")
    content[k + 24 : k + 28] = struct.pack("<I", rng.choice([20, 0xFFFFFFF0]))
    trial.path.write_bytes(content)


def _nested(rng: Random, trial: Trial) -> None:
    content = trial.path.read_bytes()
    for _ in range(6):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as z:
            z.writestr(f"inner{trial.path.suffix}", content)
        content = sink.getvalue()
        trial.path.write_bytes(content) if trial.path.suffix == ".zip" else None
    trial.path.write_bytes(content)


def _unknown_way(rng: Random, trial: Trial) -> None:
    if trial.path.suffix == ".7z":
        trial.path.write_bytes(trial.path.read_bytes()[:32])
        return
    content = bytearray(trial.path.read_bytes())
    k = content.find(b"PK\x01\x02")
    content[k + 10 : k + 12] = struct.pack("<H", rng.choice([9, 95, 98, 255]))
    trial.path.write_bytes(content)


ARCHIVE_DAMAGES = (
    *ANY_FILE,
    Damage(_flip_member, "flip in a member"),
    _with_member("../escaped.csv"),
    _with_member("{aside}/escaped.csv"),
    _with_member("C:\\escaped.csv"),
    _with_member("link.csv", link=True),
    _with_member("b\\..\\..\\escaped.csv"),
    Damage(_encrypted, "encrypted"),
    Damage(_bomb, "bomb"),
    Damage(_nested, "nested"),
    Damage(_unknown_way, "unknown method"),
)
