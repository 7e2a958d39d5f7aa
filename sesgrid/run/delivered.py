"""Before the first stage: are the sources what was delivered, as far as ``.md5`` files beside them tell?"""

from __future__ import annotations

from collections.abc import Callable

from sesgrid.errors import SesgridError, one_line
from sesgrid.run.config import Config
from sesgrid.sources.checksums import Delivered, compare_checksums, delivered_checksums

__all__ = ["check_delivered"]


def check_delivered(config: Config, tell: Callable[[str], None]) -> None:
    """Compare the sources with the ``.md5`` beside them, if ``sources.check`` asks for it, and tell.

    Raises
    ------
    ReadError
        A file is not what was delivered.
    FormatError, UnsafePathError
        A ``.md5`` is no list of checksums, or names files elsewhere; only where it is asked for.
    """
    s = config.sources
    paths = [
        s.census,
        *s.ortho,
        *(p for p in (s.landcover, s.boundary) if p is not None),
        *s.cities,
    ]
    try:
        delivered = delivered_checksums(paths)
    except SesgridError:
        if s.check:
            raise
        return  # the sources' own readers tell what they cannot read
    if s.check:
        compare_checksums(delivered)
        tell(f"check: {_told(delivered)}")
    elif delivered.files:
        tell(
            f"check: {len(delivered.files)} files have a .md5 beside them that is not compared; "
            "sources.check = true does so"
        )


def _told(delivered: Delivered) -> str:
    """What was compared, and what of the ``.md5`` could not be used."""
    n, unmatched, unread = len(delivered.files), delivered.unmatched, delivered.unread
    told = f"{n} files are what their .md5 says" if n else "no file has a .md5"
    if not n and (unmatched or unread):
        told = "no file is compared, although there are .md5"
    if unmatched:
        name, by = unmatched[0]
        told += f"; {len(unmatched)} names in them match no file here, first {name} in {by.name}"
    if unread:
        line, by = unread[0]
        told += f"; {len(unread)} lines are no checksum, first {one_line(line, 60)!r} in {by.name}"
    return told
