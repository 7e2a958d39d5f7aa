"""All families, tried in turn, and their verdicts counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from benchmarks.fuzz.judge import FAULTS, Verdict
from benchmarks.fuzz.trial import Family, Input

__all__ = ["Tally", "chosen", "digest", "families", "table"]


def families(*, own: bool = True) -> list[Family]:
    """All of them, or those that need no finished run; imports what they try."""
    # what the readers import only when they are called
    import_module("pyarrow.dataset")
    import_module("sesgrid.sources")
    from benchmarks.fuzz import census, classes, config, landcover, landuse, orthophotos

    found = [
        *config.FAMILIES,
        *census.FAMILIES,
        *landuse.FAMILIES,
        *landcover.FAMILIES,
        *classes.FAMILIES,
        *orthophotos.FAMILIES,
    ]
    if own:
        for name in (
            "commands.cli",
            "run.audit",
            "run.engine",
            "run.export",
            "run.found",
            "run.redo",
            "run.status",
        ):
            import_module(f"sesgrid.{name}")
        from benchmarks.fuzz import own_files

        found += own_files.FAMILIES
    return found


class Tally:
    """Counts verdicts, in all and by family."""

    def __init__(self) -> None:
        self.by_family: dict[str, Counter[str]] = {}
        self.causes: Counter[str] = Counter()
        self.faults: list[tuple[Input, Verdict]] = []
        self._clear = self._wrong = self.healthy = 0

    def add(self, tried: Input, verdict: Verdict) -> None:
        """Count one."""
        self.by_family.setdefault(tried.family.name, Counter())[verdict.outcome] += 1
        self.causes.update(set(verdict.causes))
        self.healthy += not verdict.wrong
        if verdict.outcome in (*FAULTS, "unmade"):
            self.faults.append((tried, verdict))
        if verdict.wrong and verdict.outcome not in ("right", "undetectable", "unmade"):
            self._wrong += 1
            self._clear += verdict.outcome in ("clear", "warned")

    def summary(self) -> dict[str, Any]:
        """The figures of a campaign."""
        total: Counter[str] = sum(self.by_family.values(), Counter())
        return {
            "inputs": total.total(),
            "healthy": self.healthy,
            "right": total["right"],
            "clear": total["clear"],
            "warned": total["warned"],
            "undetectable": total["undetectable"],
            "tracebacks": total["traceback"],
            "silent": total["silent"],
            "hangs": total["hang"],
            "lost_files": total["lost_files"],
            "executed": total["executed"],
            "wrongly_refused": total["wrongly_refused"],
            "unmade": total["unmade"],
            "clear_share": round(self._clear / self._wrong, 4) if self._wrong else 1.0,
            "families": {name: dict(sorted(c.items())) for name, c in self.by_family.items()},
            "causes": dict(sorted(self.causes.items())),
        }


def digest(tally: Tally) -> Iterable[str]:
    """A line for each sort of fault, with the first input that has it."""
    sorts: dict[tuple[str, ...], list[tuple[Input, Verdict]]] = {}
    for tried, verdict in tally.faults:
        what = tried.damage.name if tried.damage else "healthy"
        sort = (verdict.outcome, tried.family.name, what, verdict.where)
        sorts.setdefault(sort, []).append((tried, verdict))
    for (outcome, _, what, where), found in sorted(sorts.items()):
        tried, verdict = found[0]
        yield f"{outcome} × {len(found)}: --only {tried.name} ({what}) {where}: {verdict.told[:200]}"


def table(tally: Tally) -> Iterable[str]:
    """A line a family."""
    kinds = ("right", "clear", "warned", "undetectable", *FAULTS)
    width = max(map(len, [*tally.by_family, "family"]))
    yield f"{'family':{width}}  " + "  ".join(kinds)
    for name, counts in tally.by_family.items():
        yield f"{name:{width}}  " + "  ".join(f"{counts[k] or '·':>{len(k)}}" for k in kinds)


def chosen(
    known: list[Family], only: list[str], seed: int, count: int,
    draw: Callable[[list[Family], int, int], Iterable[Input]],
) -> list[Input]:  # fmt: skip
    """The inputs of a campaign, or those named: ``FAMILY`` or ``FAMILY:NUMBER``."""
    if not only:
        return list(draw(known, seed, count))
    by_name, found = {f.name: f for f in known}, list[Input]()
    for name in only:
        family, _, number = name.partition(":")
        if number:
            found.append(Input.of(by_name[family], int(number)))
        else:
            found += draw([by_name[family]], seed, count)
    return found
