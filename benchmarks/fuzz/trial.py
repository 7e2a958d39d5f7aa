"""What is tried: an input on disk, what is done with it, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

__all__ = ["Damage", "Family", "Input", "Trial", "inputs_of"]


@dataclass(frozen=True)
class Trial:
    """One thing to do, in a child of its own."""

    act: Callable[[], object]
    """The reader, or the command, on the input."""
    difference: Callable[[object, bool], str]
    """What of the result is not as it was written, in words, "" = nothing; whether rows may be missing."""
    path: Path
    """The file that is damaged."""
    may_change: Path | None = None
    """A folder below which files may come and go."""
    mine: tuple[Path, ...] = ()
    """Files of the user's below it, which may not."""
    leaves: bool = False
    """Whether files may stay in the folder for temporary ones."""


@dataclass(frozen=True)
class Damage:
    """Something that happens to an input."""

    do: Callable[[Random, Trial], Trial | None]
    """Changes the file, or returns another trial."""
    name: str
    detectable: bool = True
    hostile: bool = False


@dataclass(frozen=True)
class Family:
    """One kind of input."""

    name: str
    write: Callable[[Random, Path], Trial]
    damages: tuple[Damage, ...]
    share: int = 1
    """How many of its inputs are tried for one of the others."""
    seconds: float = 40.0
    """How long one may take, on a machine that others use too."""


@dataclass(frozen=True)
class Input:
    """A family's input by its number; those of one base differ by the damage alone."""

    family: Family
    seed: int
    damage: Damage | None = field(default=None)

    @property
    def name(self) -> str:
        """What ``--only`` takes."""
        return f"{self.family.name}:{self.seed}"

    @classmethod
    def of(cls, family: Family, seed: int) -> Input:
        """The input of a number: every third is healthy."""
        base, which = divmod(seed, 3)
        found = cls(family, seed)
        if which and family.damages:
            order = list(family.damages)
            at = 2 * base + which - 1
            # each in turn, so that a short campaign tries all of them
            return replace(found, damage=order[at % len(order)])
        return found

    def prepare(self, folder: Path) -> Trial:
        """Write it."""
        trial = self.family.write(Random(f"{self.family.name} {self.seed // 3}"), folder)
        if self.damage is not None:
            damaged = self.damage.do(Random(f"{self.name} damage"), trial)
            trial = damaged or trial
        return trial


def inputs_of(families: list[Family], seed: int, count: int) -> Iterator[Input]:
    """So many inputs of all families, in their shares; other seeds give other inputs."""
    total = sum(f.share for f in families)
    for family in families:
        n = max(3, round(count * family.share / total))
        first = 3 * (seed * 10_000)
        for k in range(n):
            yield Input.of(family, first + k)
