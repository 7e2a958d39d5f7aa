"""Before the first stage: are the sources what was delivered, as far as ``.md5`` files beside them tell?"""

from __future__ import annotations

from collections.abc import Callable

from sesgrid.errors import SesgridError
from sesgrid.run.config import Config
from sesgrid.sources.checksums import compare_checksums, delivered_checksums

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
        what = (
            f"{len(delivered)} files are what their .md5 says"
            if delivered
            else "no file has a .md5"
        )
        tell(f"check: {what}")
    elif delivered:
        tell(
            f"check: {len(delivered)} files have a .md5 beside them that is not compared; "
            "sources.check = true does so"
        )
