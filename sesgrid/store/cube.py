"""The cube: one Zarr v3 group whose addresses are dense and whose bytes are sparse.

``pixels`` holds ``image`` (band, y, x), ``coverage`` and ``landcover`` (y, x), and, where a run keeps its
maps, ``activation`` (map, y, x), all uint8. A block is a shard, a cell an inner chunk: cells where nobody
lives are absent. ``cells`` holds 200 m arrays once the run is sealed.
One writer a shard: zarr accepts a region smaller than a shard as read-modify-write, which loses
data under concurrency, so only whole blocks can be written here.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from sesgrid.errors import FormatError, GridMismatchError, MissingInputError, StoreError
from sesgrid.foreign import reading
from sesgrid.grid import CELL_M, Extent
from sesgrid.store.checked import CheckedStore
from sesgrid.store.codec import LOSSLESS, PixelCodec
from sesgrid.store.cube_layout import (
    ACTIVATION,
    LAYERS,
    OF_ACTIVATION,
    OWNER,
    TOKEN,
    VERSION,
    create_layer,
    lay_out,
    write_spatial_ref,
)
from sesgrid.store.georeference import BANDS
from sesgrid.store.location import (
    cause_of,
    changed_at,
    get,
    is_empty,
    is_remote,
    open_group,
    put,
    remove,
    sizes,
    store_failures,
    writing,
)
from sesgrid.store.replaceable import require_outside, require_own
from sesgrid.store.sealed_cells import CELLS, SealedCells
from sesgrid.store.shard import encode_shard, is_checked
from sesgrid.store.written import Shard

__all__ = [
    "CUBE_VERSION",
    "Cube",
    "open_cube",
    "owner_of",
    "replacing",
    "require_owner",
    "token_of",
]

_REMAKE = "make it again with `sesgrid mosaic`, or `sesgrid verify --redo`"

CUBE_VERSION = 2
"""Version of the layout; a cube of another version is refused."""


@dataclass(frozen=True)
class Cube:
    """A cube's address: small and picklable, so a task can carry it."""

    path: str
    extent: Extent
    token: str
    """Drawn when the cube was made: another cube at the same path is another cube."""
    codec: PixelCodec = LOSSLESS
    """What the image is encoded with."""

    @classmethod
    def create(
        cls,
        path: str | Path,
        extent: Extent,
        attributes: Mapping[str, Any],
        codec: PixelCodec = LOSSLESS,
        *,
        ready: bool = True,
        owner: str | None = None,
    ) -> Cube:
        """Make an empty cube; a cube of the same owner at ``path`` is replaced, and nothing else.

        Parameters
        ----------
        path : str or Path
            A folder, or a URL such as ``s3://bucket/city.zarr``.
        extent : Extent
        attributes : mapping
        codec : PixelCodec
            Of the image; coverage and land cover are codes, and always lossless.
        ready : bool
            False: it does not open as a cube until `mark_ready`.
        owner : str, optional
            Names the run whose it is; None: it is no run's.

        Raises
        ------
        FormatError
            ``path`` exists, or something lies below the URL, and is not a cube, or another owner's; or
            it lies in another zarr store.
        StoreError
            It cannot be written.
        CodecError
            The codec's package is not installed.
        """
        codec.require()
        path, token = str(path), uuid.uuid4().hex
        named = {
            TOKEN: token,
            **({} if owner is None else {OWNER: owner}),
            **({VERSION: CUBE_VERSION} if ready else {}),
            **codec.attributes(),
            **extent.attributes(),
            **attributes,
        }
        if not _is_free(path):
            require_owner(path, owner)
        with writing(path):
            if is_remote(path):
                _remove_cube(path, owner)
                lay_out(path, extent, codec, named)
            else:
                with replacing(path, owner) as beside:
                    lay_out(beside, extent, codec, named)
        return cls(path, extent, token, codec)

    @classmethod
    def open(cls, path: str | Path) -> Cube:
        """Open an existing cube.

        Raises
        ------
        MissingInputError
            Nothing there.
        FormatError
            Not a cube, or a cube of another version.
        CodecError
            Its pixels are encoded with a codec that is not installed.
        """
        with reading(f"{path}: the cube's zarr.json", advice=_REMAKE):
            attributes = dict(_root(path).attrs)
        version = attributes.get(VERSION)
        if version != CUBE_VERSION:
            raise FormatError(
                f"{path}: expected a sesgrid cube of version {CUBE_VERSION}, received version "
                f"{version!r}; make it again with `sesgrid mosaic`"
            )
        with reading(f"{path}: the attributes of the cube", advice=_REMAKE):
            codec = PixelCodec.from_attributes(attributes)
            extent = Extent.from_attributes(attributes)
            token = str(attributes[TOKEN])
        codec.require()
        return cls(str(path), extent, token, codec)

    def mark_ready(self) -> None:
        """From now on it opens as a cube."""
        with writing(self.path):
            open_group(self.path, "r+").update_attributes({VERSION: CUBE_VERSION})

    def attribute(self, name: str) -> Any:
        """An attribute of the cube, or None."""
        return _root(self.path).attrs.get(name)

    def describe(self, attributes: Mapping[str, Any]) -> None:
        """Change attributes of the cube; nothing is written where they are what they should be."""
        if any(self.attribute(name) != value for name, value in attributes.items()):
            with writing(self.path):
                open_group(self.path, "r+").update_attributes(dict(attributes))

    def require(self, extent: Extent) -> None:
        """Refuse another grid.

        Raises
        ------
        GridMismatchError
            The cube lies on another grid or extent.
        """
        if self.extent != extent:
            raise GridMismatchError(
                f"{self.path} lies on another grid: expected {extent}, the cube has {self.extent}"
            )

    def write_block(
        self, block_row: int, block_col: int, arrays: Mapping[str, np.ndarray]
    ) -> dict[str, Shard]:
        """Write arrays of a global block, each as one whole shard.

        A shard appears whole or not at all.

        Returns
        -------
        dict
            Bytes and crc32 of every array's shard, for `shard_fault`; (0, 0) where the block is zero
            throughout and there is no shard.

        Raises
        ------
        GridMismatchError
            An array is not exactly one block, or the block lies outside the cube.
        StoreError
            The store is read-only, full or gone.
        """
        n = self.extent.grid.block_px
        y, x = self.extent.block_slices(block_row, block_col)
        for name, array in arrays.items():
            bands = LAYERS.get(name)
            expected = (*((bands,) if bands else ()), n, n)
            if bands is None or array.shape != expected or array.dtype != np.uint8:
                raise GridMismatchError(
                    f"block ({block_row}, {block_col}): expected {name} as uint8 {expected}, "
                    f"received {array.dtype} "
                    f"{array.shape}"
                )
        at = y.start // n, x.start // n
        with writing(self.path, f"block ({block_row}, {block_col})"):
            if _token_at(self.path) != self.token:
                raise StoreError(
                    f"{self.path}: another cube has taken the place of the one that block ({block_row}, "
                    f"{block_col}) belongs to; is another run writing there?"
                )
            return {name: self._write_shard(name, at, array) for name, array in arrays.items()}

    def _write_shard(self, name: str, at: tuple[int, int], array: np.ndarray) -> Shard:
        side = self.extent.grid.pixels_per_cell
        codec = self.codec if name == "image" else LOSSLESS
        return put(self.path, self._shard_key(name, at), encode_shard(array, side, codec.encode))

    def _shard_key(self, name: str, at: tuple[int, int]) -> str:
        stored = _array(self.path, name, self.token)
        lead = (0,) * (stored.ndim - 2)
        return f"{stored.path}/{stored.metadata.encode_chunk_key((*lead, *at))}"

    def shard_fault(self, name: str, block_row: int, block_col: int, written: Shard) -> str | None:
        """What is wrong with a block's shard, from its stored bytes alone.

        Parameters
        ----------
        name : str
            A variable of ``pixels``.
        block_row, block_col : int
            Global.
        written : tuple of int
            What `write_block` returned of it.

        Returns
        -------
        str or None
            None: it holds the very bytes that were written.
        """
        n = self.extent.grid.block_px
        y, x = self.extent.block_slices(block_row, block_col)
        data = get(self.path, self._shard_key(name, (y.start // n, x.start // n)))
        size, check = written
        if data is None:
            return None if size == 0 else "missing"
        if len(data) != size:
            return "empty" if not data else f"{len(data)} bytes instead of {size}"
        return None if is_checked(data, check) else "its bytes are not those written"

    def shard_sizes(self, name: str) -> dict[tuple[int, int], int]:
        """Bytes of every shard that lies there of a variable, by global (block_row, block_col)."""
        lead = "0/" if LAYERS[name] else ""
        prefix, found = f"pixels/{name}/c/{lead}", {}
        for key, size in sizes(self.path, prefix.rstrip("/")).items():
            y, _, x = key.removeprefix(prefix).partition("/")
            if y.isdigit() and x.isdigit():
                found[self.extent.block_row + int(y), self.extent.block_col + int(x)] = size
        return found

    @property
    def keeps_activation(self) -> bool:
        """Whether room for activation maps was made, damaged or gone since or not."""
        key, _ = _activation_room(_pixel_group(self.path, "r"))
        return key is not None

    @property
    def has_activation(self) -> bool:
        """Whether there is room for activation maps; none where its metadata are damaged."""
        return _has_activation(_pixel_group(self.path, "r"))

    def keep_activation(self, key: str | None) -> str:
        """Make room for activation maps; those of another explanation than ``key``'s are removed.

        Parameters
        ----------
        key : str or None
            Names the explanation; None: no maps are kept.

        Returns
        -------
        str
            Names this room: drawn when it was made, so that what was written into one that is gone is not
            looked for in another. Empty without a key.

        Raises
        ------
        StoreError
            The store is read-only, full or gone.
        """
        pixels, token = _pixel_group(self.path, "r"), uuid.uuid4().hex if key is not None else ""
        if _has_activation(pixels) == (key is not None):
            known, kept = _activation_room(pixels)
            if known == key:
                return kept
        with writing(self.path, "the activation maps"):
            pixels = _pixel_group(self.path, "r+")
            # the name goes first and comes last: what is half removed or half made has none
            pixels.update_attributes({"activation_room": (None, "")})
            # also where no metadata name it: shards may lie there, and would be in the new room
            del pixels[ACTIVATION]
            if key is not None:
                create_layer(pixels, ACTIVATION, self.extent, LOSSLESS, OF_ACTIVATION)
                pixels.update_attributes({"activation_room": (key, token)})
        return token

    def pixels(self, *, chunked: bool = False) -> xr.Dataset:
        """The pixels: read only where touched (default), or as dask arrays of one chunk a block.

        Raises
        ------
        FormatError
            The metadata of a layer are damaged; those of the sealed cells are not looked at.
        """
        with reading(f"{self.path}: the metadata of a layer", advice=_LOOK):
            return _open_pixels(CheckedStore(self.path, self.extent), self.extent, chunked)

    def seal(
        self,
        read: Callable[[list[str]], pd.DataFrame],
        names: Sequence[str],
        attributes: Mapping[str, Any],
    ) -> None:
        """Write the cells' columns as 200 m arrays ``(y, x)``, float64, NaN where there is no cell.

        A column of text becomes numbers 0, 1, … that count in the array's attribute ``categories``.

        Parameters
        ----------
        read : callable
            Some columns of the cells, ``row`` and ``col`` among them: one is written after the other, so
            that no more than one need be in memory.
        names : sequence of str
        attributes : mapping
            Of the cube.

        Raises
        ------
        StoreError
            The store is read-only, full or gone.
        FormatError
            Files of others lie among the cells that were sealed before.
        """
        require_own(self.path, CELLS)
        with writing(self.path, "the cells"):
            self._seal(read, names, attributes)

    def _seal(
        self,
        read: Callable[[list[str]], pd.DataFrame],
        names: Sequence[str],
        attributes: Mapping[str, Any],
    ) -> None:
        root = open_group(self.path, "r+")
        group = root.create_group(CELLS, overwrite=True, attributes={"cell_m": CELL_M})
        shape = self.extent.shape_cells
        at = read(["row", "col"])
        y = at["row"].to_numpy() - self.extent.row
        x = at["col"].to_numpy() - self.extent.col
        for name in names:
            column, described = read([name])[name], {}
            if pd.api.types.is_string_dtype(column):
                kinds = pd.Categorical(column)
                described["categories"] = kinds.categories.tolist()
                column = pd.Series(kinds.codes, index=column.index).astype("Int64")
                column = column.mask(column < 0)
            values = column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
            array = group.create_array(
                name,
                shape=shape,
                dtype="float64",
                chunks=tuple(min(n, 2048) for n in shape),
                dimension_names=("y", "x"),
                fill_value=np.nan,
                attributes={"grid_mapping": "spatial_ref", **described},
            )
            # a row of chunks at a time: a nation's grid is ten times its cells
            for top in range(0, shape[0], 2048):
                rows = np.full((min(2048, shape[0] - top), shape[1]), np.nan)
                mine = (y >= top) & (y < top + 2048)
                rows[y[mine] - top, x[mine]] = values[mine]
                array[top : top + 2048] = rows
        west, _, _, north = self.extent.bounds
        for name, data in (
            ("y", north - (np.arange(shape[0]) + 0.5) * CELL_M),
            ("x", west + (np.arange(shape[1]) + 0.5) * CELL_M),
        ):
            group.create_array(name, data=data, chunks=(len(data),), dimension_names=(name,))
        write_spatial_ref(group, self.extent, CELL_M)
        group.update_attributes(SealedCells.written_now(self.path))
        root.update_attributes(dict(attributes))


def _pixel_group(path: str, mode: str) -> zarr.Group:
    with reading(f"{path}: the metadata of its pixels", advice=_REMAKE):
        pixels = open_group(path, mode).get("pixels")
    if not isinstance(pixels, zarr.Group):
        raise FormatError(f"{path}: pixels is not a group")
    return pixels


def _activation_room(pixels: zarr.Group) -> tuple[str | None, str]:
    """Key of the explanation whose maps are kept, and the name of their room."""
    key, name = cast(Any, pixels.attrs.get("activation_room", (None, "")))
    return key, str(name)


def _has_activation(pixels: zarr.Group) -> bool:
    try:
        return ACTIVATION in pixels
    except (ValueError, KeyError, TypeError):
        return False


def _root(path: str | Path) -> zarr.Group:
    try:
        return open_group(path, "r")
    except FileNotFoundError as error:
        raise MissingInputError(
            f"no cube at {path}: make it with `sesgrid mosaic`, or check the path"
        ) from error


_TOKENS: dict[str, tuple[object, str | None]] = {}
"""Of each cube, what its root looked like when its token was read last, and the token."""


def _token_at(path: str) -> str | None:
    """Token of the cube that lies there now; its root is read anew only when it has changed."""
    seen = changed_at(path)
    known = _TOKENS.get(path)
    if known is None or known[0] != seen:
        token = _root(path).attrs.get(TOKEN)
        known = _TOKENS[path] = (seen, None if token is None else str(token))
    return known[1]


@contextmanager
def replacing(path: str, owner: str | None = None) -> Iterator[str]:
    """Where to make a local cube that then takes the place of another one of the same owner."""
    if _is_free(path):
        require_outside(path)
    # a name of its own: another run may be making one for the same place
    beside = Path(path).with_name(f".{Path(path).name}.{uuid.uuid4().hex}.new")
    try:
        yield str(beside)
        _remove_cube(path, owner)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _remove_cube(path: str, owner: str | None) -> None:
    """Remove a cube of an owner, finished or not, and nothing else."""
    if _is_free(path):
        return
    require_owner(path, owner)
    require_own(path)
    remove(path)


def _is_free(path: str) -> bool:
    """Whether nothing lies at a path but, at most, an empty folder."""
    local = None if is_remote(path) else Path(path)
    return is_empty(path) or (local is not None and local.is_dir() and not any(local.iterdir()))


def owner_of(path: str) -> str | None:
    """The run whose a cube is; None where it is no run's, there is none, or it is damaged."""
    return _named(path, OWNER)


def token_of(path: str) -> str | None:
    """What names a cube; None where there is none, or it is damaged."""
    return _named(path, TOKEN)


def _named(path: str, attribute: str) -> str | None:
    try:
        with reading(path):
            found = open_group(path, "r").attrs.get(attribute)
    except (MissingInputError, FormatError):
        return None
    return None if found is None else str(found)


def require_owner(path: str, owner: str | None) -> None:
    """Refuse what is no cube, or belongs to another run: None, no run.

    Raises
    ------
    FormatError
    """
    try:
        with reading(path):
            attributes = dict(open_group(path, "r").attrs)
    except (MissingInputError, FormatError):
        attributes = {}  # a damaged one may be anybody's
    if not {VERSION, TOKEN} & set(attributes):
        raise FormatError(f"{path} holds something that is no sesgrid cube: move it away")
    if attributes.get(OWNER) != owner:
        whose = (
            f"of another run ({attributes.get('title', 'no name')!r})"
            if attributes.get(OWNER)
            else ("that was made from Python, or by sesgrid 0.1")
        )
        raise FormatError(
            f"{path} is a cube {whose}, and is left as it is: move it away, or choose another place "
            "(cube.path)"
        )


@lru_cache(maxsize=16)
def _array(path: str, name: str, token: str) -> zarr.Array:
    try:
        array = open_group(path, "r")[f"pixels/{name}"]
    except store_failures():
        raise
    except Exception as error:  # whatever zarr makes of damaged metadata
        raise FormatError(
            f"{path}: the metadata of pixels/{name} are gone or damaged ({cause_of(error)}): "
            + ("explain again" if name == ACTIVATION else "delete the cube, and run again")
        ) from error
    if not isinstance(array, zarr.Array):
        raise FormatError(f"{path}: pixels/{name} is not an array")
    return array


def _require_layout(pixels: xr.Dataset, extent: Extent) -> None:
    """Refuse layers that their metadata describe as others than were laid out: they would be read wrongly."""
    for name, bands in LAYERS.items():
        expected = (*((bands,) if bands else ()), *extent.shape_px)
        layer = pixels.get(name)
        if layer is None or (layer.shape, layer.dtype, layer.dims[-2:]) == (
            expected, np.uint8, ("y", "x"),
        ):  # fmt: skip
            continue
        raise ValueError(
            f"{name}: expected uint8 {expected}, received {layer.dtype} {layer.dims} {layer.shape}"
        )


def open_cube(path: str | Path, *, chunked: bool = True) -> xr.DataTree:
    """Open a cube for looking and computing.

    Parameters
    ----------
    path : str or Path
    chunked : bool
        Dask arrays, one chunk a block (default), or arrays that are read where they are indexed.

    Returns
    -------
    xarray.DataTree
        ``/pixels`` (``image`` uint8 (band, y, x), ``coverage`` and ``landcover`` uint8 (y, x)) and, once the
        run is sealed, ``/cells`` (200 m arrays). EPSG:3035; ``.rio`` works on every dataset.

    Raises
    ------
    MissingInputError, FormatError
        See `Cube.open`.
    """
    extent, opened = Cube.open(path).extent, str(path)
    with reading(f"{path}: the metadata of a layer", advice=_LOOK):
        store = CheckedStore(opened, extent, cells=SealedCells.of(opened))
        root = _root(path)
        nodes = {
            "/": xr.Dataset(attrs=dict(root.attrs)),
            "/pixels": _open_pixels(store, extent, chunked),
        }
        if "cells" in root:
            nodes["/cells"] = _open_group(store, "cells", None)
    return xr.DataTree.from_dict(nodes)


_LOOK = "they are damaged: `sesgrid verify` tells of which"


def _open_pixels(store: CheckedStore, extent: Extent, chunked: bool) -> xr.Dataset:
    size = extent.grid.block_px
    chunks = {"band": -1, "map": -1, "y": size, "x": size} if chunked else None
    pixels = _open_group(store, "pixels", chunks)
    _require_layout(pixels, extent)
    if "band" in pixels.dims:
        pixels = pixels.assign_coords(band=list(BANDS))
    if ACTIVATION in pixels:
        pixels = pixels.assign_coords(map=pixels[ACTIVATION].attrs["maps"])
    return pixels


def _open_group(store: Any, group: str, chunks: Mapping[str, int] | None) -> xr.Dataset:
    options: dict[str, Any] = {"engine": "zarr", "consolidated": False, "decode_coords": "all"}
    # cache: indexing a part must never keep the whole; metadata of version 2 may name any codec
    options |= {"cache": False, "zarr_format": 3}
    return xr.open_dataset(store, group=group, chunks=chunks, **options)
