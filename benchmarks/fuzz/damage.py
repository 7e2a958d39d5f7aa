"""What happens to files on their way: cut, emptied, replaced, holed, flipped."""

from __future__ import annotations

from pathlib import Path
from random import Random

from benchmarks.fuzz.trial import Damage, Trial

__all__ = ["ANY_FILE", "BLIND", "CUT", "EMPTY", "damage_file", "flip"]

_PAGE = b"<!DOCTYPE html>\n<html><head><title>503 Service Unavailable</title></head></html>\n"
_STARTS = (
    b"", b"\0" * 600, _PAGE, b'{"error": "not found"}', b"PK\x03\x04" + bytes(60),
    b"7z\xbc\xaf\x27\x1c" + bytes(40),
    b"SQLite format 3\0" + bytes(200), b"PAR1" + bytes(40) + b"PAR1", b"\xff\xd8\xff\xe0" + bytes(99),
    b"II*\0\x08\0\0\0" + bytes(50), b"\x1f\x8b\x08" + bytes(30),
    b"version https://git-lfs.github.com/spec/v1\n",
)  # fmt: skip


def damage_file(rng: Random, path: Path, kind: str) -> None:
    """Change the bytes of a file in one of the ways of `ANY_FILE`."""
    content = bytearray(path.read_bytes())
    size = max(len(content), 2)
    if kind == "cut":
        # where it is cut: after the header, anywhere, just before the end
        at = rng.choice(
            [rng.randrange(1, min(size, 200)), rng.randrange(1, size), size - rng.randint(1, 20)]
        )
        content = content[: max(at, 1)]
    elif kind == "empty":
        content = bytearray()
    elif kind == "replaced":
        content = bytearray(rng.choice(_STARTS))
    elif kind == "noise":
        content = bytearray(rng.randbytes(rng.choice([1, 7, 100, 5000])))
    elif kind == "header":
        n = min(size, rng.choice([4, 8, 16, 100]))
        content[:n] = rng.randbytes(n)
    elif kind == "blind":
        for _ in range(rng.choice([1, 4, 20])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "hole":
        a = rng.randrange(size)
        b = min(size, a + max(1, size // rng.choice([3, 10, 50])))
        content[a:b] = bytes(b - a)
    elif kind == "twice":
        content += content[rng.randrange(size) :]
    else:
        raise ValueError(kind)
    path.write_bytes(content)


def flip(rng: Random, path: Path, start: int, stop: int, count: int = 1) -> None:
    """Flip bits within a range of bytes."""
    content = bytearray(path.read_bytes())
    for at in rng.sample(range(start, stop), min(count, stop - start)):
        content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _damage(kind: str, *, detectable: bool = True) -> Damage:
    def do(rng: Random, trial: Trial) -> None:
        damage_file(rng, trial.path, kind)

    return Damage(do, kind, detectable)


CUT, EMPTY = _damage("cut"), _damage("empty")
BLIND = (_damage("blind", detectable=False), _damage("hole", detectable=False))
ANY_FILE = (CUT, EMPTY, _damage("replaced"), _damage("noise"), _damage("header"))
"""Of formats whose header says how long they are."""
