"""What the files of a run may tell of it: they are passed on, without places, addresses and credentials."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sesgrid.errors import redacted
from sesgrid.run.config import Config
from sesgrid.store.location import is_remote

__all__ = ["placeless", "published"]


def published(config: Config) -> dict[str, Any]:
    """What a cube says of what it was made from: files by their names alone, and no cluster.

    Returns
    -------
    dict
        JSON values: ``sources``, and ``configuration`` with the settings that results depend on.
    """
    told = json.loads(config.model_dump_json(exclude={"cluster", "output"}))
    told["cube"].pop("path")
    told["sources"] = {name: _names(value) for name, value in told["sources"].items()}
    if told["models"] is not None:
        told["models"]["cities"] = _names(told["models"]["cities"])
    told["train"]["weights"] = _names(told["train"]["weights"])
    return {"sources": told["sources"], "configuration": told}


def _names(value: Any) -> Any:
    """A path, or each of some, without its folders; anything else as it is."""
    if isinstance(value, list):
        return [_names(v) for v in value]
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def placeless(text: str, config: Config) -> str:
    """A message about a run's files with their places left out, and without credentials.

    Paths below a source begin at the source's own name, those below the output folder and the cube at
    theirs.
    """
    s = config.sources
    sources = [s.census, s.landcover, s.landcover_classes, s.boundary, *s.ortho, *s.cities]
    known = {str(p.parent) for p in (*sources, config.output) if isinstance(p, Path)}
    if config.cube.path is not None:
        known.add(os.path.dirname(config.cube.path))
    known |= {str(Path(p).resolve()) for p in known if not is_remote(p)} | {os.path.expanduser("~")}
    # the longest first: one may lie in another; a process of no known user has no home
    for place in sorted(known - {"/", "", "~"}, key=len, reverse=True):
        text = text.replace(f"{place}/", "")
    return redacted(text)
