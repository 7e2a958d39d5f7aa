"""The state of a training after an epoch, in one file that is whole or absent.

Arrays in an ``.npz`` (never pickled), beside them what else must be known as JSON. The file of the epoch
before stays until the new one is complete: a full disk or a killed process costs one epoch.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sesgrid.errors import FormatError, StoreError
from sesgrid.foreign import refuse_pipe

__all__ = ["Checkpoint"]

_FACTS = "facts"


@dataclass(frozen=True)
class Checkpoint:
    """What a training goes on from."""

    facts: dict[str, Any]
    """JSON values."""
    last: list[np.ndarray]
    """Variables of network and optimiser after the last epoch, in the network's own order."""
    best: list[np.ndarray]
    """Variables of the network after the best epoch."""

    def save(self, path: str | Path) -> None:
        """Write it in the place of the one before.

        Raises
        ------
        StoreError
            The disk is full or read-only; what was there stays.
        """
        path = Path(path)
        arrays = {
            f"{kind}_{k:05d}": a
            for kind, values in (("last", self.last), ("best", self.best))
            for k, a in enumerate(values)
        }
        temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                np.savez(file, **{_FACTS: np.array(json.dumps(self.facts))}, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            kept = (
                f"that of the epoch before is still at {path}" if path.exists() else "none before"
            )
            raise StoreError(
                f"{path}: the checkpoint cannot be written ({error.strerror or error}); {kept}: make "
                "room or give write access, then run again, and the training goes on from there"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint | None:
        """Read it; None where there is none.

        Raises
        ------
        FormatError
            The file is damaged.
        """
        path = Path(path)
        if not path.exists():
            return None
        refuse_pipe(path)
        try:
            # opened here: numpy leaves a file open that is no archive
            with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
                facts = json.loads(str(file[_FACTS]))
                names = sorted(set(file.files) - {_FACTS})
                last, best = (
                    [file[n] for n in names if n.startswith(f"{kind}_")]
                    for kind in ("last", "best")
                )
        except Exception as error:  # whatever zipfile, numpy and json say of damaged bytes
            raise FormatError(
                f"{path} is not a readable checkpoint ({error}): delete it, and the training begins anew"
            ) from error
        return cls(facts, last, best)


def fits(saved: Sequence[np.ndarray], variables: Sequence[Any]) -> bool:
    """Whether arrays have the shapes of variables."""
    return [a.shape for a in saved] == [tuple(v.shape) for v in variables]
