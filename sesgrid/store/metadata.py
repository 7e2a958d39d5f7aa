"""Are a cube's metadata and coordinates as they were laid out? And what they are written from again.

Whatever of a cube is no pixel follows from its extent, its codec and its attributes, so it is compared with
a cube of these that is laid out beside it, and copied from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from zarr.core.metadata import ArrayV3Metadata

from sesgrid.errors import SesgridError, StoreError
from sesgrid.foreign import reading, scratch
from sesgrid.store.cube import CUBE_VERSION, Cube, owner_of, token_of
from sesgrid.store.cube_layout import TOKEN, VERSION, lay_out
from sesgrid.store.location import cause_of, get, open_group, put, store_failures
from sesgrid.store.written import STAMPS_KEY

__all__ = ["damaged_keys", "write_again"]

_ROOT = "zarr.json"


def damaged_keys(cube: Cube) -> list[str]:
    """Keys of metadata and coordinates that are gone, or not as they should be.

    Parameters
    ----------
    cube : Cube
        What should lie at its path: it need not open.

    Returns
    -------
    list of str
        Such as ``pixels/image/zarr.json``, in the order of the layout. Of the cube's own attributes only
        those that make it this very cube are looked at; the kept maps' layer and the sealed cells are not.
    """
    with scratch() as folder:
        laid = dict(_laid_out(cube, str(folder), {}))
        if owner_of(cube.path) is None and token_of(cube.path) is not None:
            # of sesgrid 0.1, which listed no shards
            laid = {k: v for k, v in laid.items() if k not in (STAMPS_KEY, _ROOT)}
        return [key for key, data in laid.items() if not _is_same(cube, str(folder), key, data)]


def write_again(cube: Cube, attributes: Mapping[str, Any], keys: list[str]) -> None:
    """Write metadata and coordinates anew.

    Parameters
    ----------
    cube : Cube
    attributes : mapping
        Of the cube, beside those that its extent and codec give it.
    keys : list of str
        From `damaged_keys`.

    Raises
    ------
    StoreError
        The store is read-only, full or gone.
    """
    with scratch() as folder:
        laid = dict(_laid_out(cube, str(folder), attributes))
        # the root last: what has none does not open
        for key in sorted(keys, key=lambda k: k == _ROOT):
            put(cube.path, key, iter([laid[key]]))


def _laid_out(
    cube: Cube, folder: str, attributes: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Keys and values of such a cube without pixels."""
    named = {
        TOKEN: cube.token, VERSION: CUBE_VERSION, **cube.codec.attributes(), **cube.extent.attributes(),
        **attributes,
    }  # fmt: skip
    lay_out(folder, cube.extent, cube.codec, named)
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _is_same(cube: Cube, folder: str, key: str, expected: bytes) -> bool:
    try:
        found = get(cube.path, key)
    except store_failures() as error:
        # not damaged: what cannot be reached must not be written anew
        raise StoreError(f"{cube.path}/{key} cannot be read: {cause_of(error)}") from error
    try:
        with reading(f"{cube.path}/{key}"):
            if found is None or found == expected:
                return found is not None
            if not key.endswith(_ROOT):
                # other releases compress to other bytes
                name = key.partition("/c/")[0]
                return np.array_equal(_values(cube.path, name), _values(folder, name))
            now, then = json.loads(found), json.loads(expected)
            told, asked = now.pop("attributes"), then.pop("attributes")
            # groups gain attributes as the run goes on, and lose none
            kept = {name: told.get(name) for name in asked} == asked
            return kept and _of_array(now) == _of_array(then)
    except SesgridError:
        return False


def _values(path: str, name: str) -> np.ndarray:
    return np.asarray(cast(zarr.Array, open_group(path, "r")[name])[...])


def _of_array(document: dict[str, Any]) -> Any:
    """What zarr makes of a document: other releases write other defaults."""
    return ArrayV3Metadata.from_dict(document) if "shape" in document else document
