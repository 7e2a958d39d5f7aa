"""Where a cube lies: a folder, or a prefix in an object store (``s3://bucket/city.zarr``).

An object store is reached through obstore, which takes its endpoint, region and credentials from the
usual environment variables (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, …); workers
need them too.
"""

from __future__ import annotations

import importlib
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore

from sesgrid.errors import CodecError, StoreError
from sesgrid.foreign import refuse_pipe

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "cause_of",
    "exists",
    "get",
    "is_empty",
    "is_remote",
    "open_group",
    "put",
    "remove",
    "sizes",
    "store_at",
    "store_failures",
    "writing",
]


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL.

    >>> is_remote("s3://bucket/city.zarr"), is_remote("build/city.zarr")
    (True, False)
    """
    return "://" in str(path)


class _Folder(LocalStore):
    """A store of files, which waits for no pipe and reads no device."""

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Buffer | None:
        """A value, or a part of it."""
        refuse_pipe(self.root / key)
        return await super().get(key, *args, **kwargs)

    # zarr may ask in a way that passes `get` by, where a store supports it
    @property
    def _supports_sync_io(self) -> bool:
        return False


def store_at(path: str | Path, *, read_only: bool = False) -> Store:
    """A zarr store over a folder or a prefix.

    Raises
    ------
    CodecError
        A URL, and the package obstore is not installed.
    StoreError
        The URL is of a kind that obstore does not know.
    """
    if not is_remote(path):
        return _Folder(path, read_only=read_only)
    try:
        obstore = importlib.import_module("obstore.store")
    except ImportError as error:
        raise CodecError(
            f"{path} is in an object store, which needs the package obstore: "
            "pip install 'sesgrid[s3]'"
        ) from error
    refusals: tuple[type[Exception], ...] = (ValueError, *store_failures())
    try:
        # a store on one's own machine or network rarely speaks https
        remote = obstore.from_url(str(path), client_options={"allow_http": True})
    except refusals as error:
        raise StoreError(
            f"{path}: expected a folder or a URL such as s3://bucket/city.zarr ({cause_of(error)})"
        ) from error
    return ObjectStore(remote, read_only=read_only)


def open_group(path: str | Path, mode: str, attributes: dict[str, Any] | None = None) -> zarr.Group:
    """The group at a path; for reading (``"r"``), changing (``"r+"``) or made anew (``"w"``).

    Made anew, it has the attributes from the first moment on, and whatever lay below the path is gone.

    Raises
    ------
    FileNotFoundError
        Nothing there, and it was not to be made.
    StoreError
        The store cannot be reached or written.
    """
    try:
        return zarr.open_group(
            store_at(path, read_only=mode == "r"),
            mode=mode,  # type: ignore[arg-type]
            zarr_format=3,
            attributes=attributes,
        )
    except (FileNotFoundError, StoreError):
        raise
    except store_failures() as error:
        raise StoreError(f"{path} cannot be opened: {cause_of(error)}") from error


def exists(path: str | Path) -> bool:
    """Whether there is a zarr group."""
    try:
        open_group(path, "r")
    except (FileNotFoundError, ValueError):
        return False
    return True


def is_empty(path: str) -> bool:
    """Whether nothing at all lies at a path, or below a URL.

    Raises
    ------
    StoreError
        The store cannot be reached.
    """
    if not is_remote(path):
        return not Path(path).exists()

    async def first() -> bool:
        async for _ in store_at(path, read_only=True).list_prefix(""):
            return False
        return True

    try:
        return sync(first())
    except store_failures() as error:
        raise StoreError(f"{path} cannot be reached: {cause_of(error)}") from error


def remove(path: str) -> None:
    """Remove everything below a path."""
    if is_remote(path):
        sync(store_at(path).clear())
    else:
        shutil.rmtree(path)


def put(path: str, key: str, pieces: Iterator[bytes]) -> tuple[int, int]:
    """Write a value as it is made, so that it appears whole or not at all; no pieces, no value.

    Returns
    -------
    tuple of int
        Bytes of the value and their crc32; (0, 0): there is no value.
    """
    first = next(pieces, None)
    if first is None:
        _drop(path, key)
        return 0, 0
    size = check = 0

    def measured() -> Iterator[bytes]:
        nonlocal size, check
        for piece in chain([first], pieces):
            size += len(piece)
            check = zlib.crc32(piece, check)
            yield piece

    if is_remote(path):
        value = default_buffer_prototype().buffer.from_bytes(b"".join(measured()))
        sync(store_at(path).set(key, value))
    else:
        _put_file(Path(path) / key, measured())
    return size, check


def _drop(path: str, key: str) -> None:
    if is_remote(path):
        sync(store_at(path).delete(key))
    else:
        (Path(path) / key).unlink(missing_ok=True)


def _put_file(target: Path, pieces: Iterator[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(temporary, "wb") as file:
            file.writelines(pieces)
        if target.is_dir() and not target.is_symlink():
            target.rmdir()  # one with files in it is somebody's
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def get(path: str, key: str) -> bytes | None:
    """A value's bytes; None: there is none."""
    if is_remote(path):
        found = sync(store_at(path, read_only=True).get(key, default_buffer_prototype()))
        return None if found is None else found.to_bytes()
    refuse_pipe(Path(path) / key)
    try:
        return (Path(path) / key).read_bytes()
    except FileNotFoundError:
        return None


def sizes(path: str, prefix: str) -> dict[str, int]:
    """Bytes of every value below a prefix, by key, from the store's listing alone."""
    if is_remote(path):
        remote = store_at(path, read_only=True).store  # type: ignore[attr-defined]
        listed = importlib.import_module("obstore").list(remote, prefix)
        return {found["path"]: int(found["size"]) for some in listed for found in some}
    root = Path(path)
    return {
        (Path(folder) / name).relative_to(root).as_posix(): os.stat(Path(folder) / name).st_size
        for folder, _, names in os.walk(root / prefix)
        for name in names
        if not name.startswith(".")
    }


def changed_at(path: str) -> object:
    """Something that is another when the group's own metadata are: what the file system says of their file.

    An object store has to be asked each time, which is little beside what is written.
    """
    if is_remote(path):
        return object()
    found = os.stat(Path(path) / "zarr.json")
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def writing(path: str, what: str = "the cube") -> Iterator[None]:
    """Whatever the store raises inside becomes a `StoreError` that names what could not be written."""
    try:
        yield
    except StoreError:
        raise
    except store_failures() as error:
        raise StoreError(
            f"{path}: {what} cannot be written ({cause_of(error)}); what was finished before stays valid: "
            "make room or give write access, then run again, and it goes on from there"
        ) from error


def store_failures() -> tuple[type[Exception], ...]:
    """What stores raise: the system's errors, and obstore's own."""
    try:
        own = importlib.import_module("obstore.exceptions").BaseError
    except ImportError:
        return (OSError,)
    return (OSError, own)


def cause_of(error: Exception) -> str:
    """First line of an error; an object store's goes on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0]
