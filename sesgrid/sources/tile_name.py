"""What the name of a BD ORTHO tile tells: département, year, corner, resolution, infrared."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["TileName", "is_infrared", "parse_tile_name", "year_of_delivery"]

_TILE = re.compile(
    r"(?P<department>\d{1,3}|2[AB])-(?P<year>(?:19|20)\d\d)-(?P<x>\d{4})-(?P<y>\d{4})"
    r"-(?:(?P<la93>LA93)|[A-Z]\w{2,7})"  # overseas U20N, U22N, U40S …
    r"(?:-(?P<m>\d+)M(?P<cm>\d+))?(?P<ir>-IRC)?(?:-E\d+)?(?P<rest>.*)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TileName:
    """A parsed tile name."""

    department: str
    """``75``, ``2A``, ``974`` …"""

    year: int
    """Year of the survey."""

    left_m: float | None
    """Easting of the north-west corner in EPSG:2154; None for a part of a tile (something follows the name),
    and in other projections."""

    top_m: float | None
    """Northing of the north-west corner; None where `left_m` is."""

    resolution_m: float | None
    """Pixel size, to the centimetre; None in older names, which do not tell."""

    lambert_93: bool = True
    """Whether the name says EPSG:2154 (``LA93``)."""


def parse_tile_name(stem: str) -> TileName | None:
    """Read a tile's file name without its suffix; None when it is no BD ORTHO name.

    >>> parse_tile_name("75-2021-0650-6865-LA93-0M20-E080")
    TileName(department='75', year=2021, left_m=650000.0, top_m=6865000.0, resolution_m=0.2, lambert_93=True)
    >>> parse_tile_name("2A-2019-1175-6070-LA93-0M50-E080_p12").left_m is None
    True
    >>> parse_tile_name("75-2008-0640-6860-LA93").resolution_m is None
    True
    >>> parse_tile_name("photo") is None
    True
    """
    match = _TILE.fullmatch(stem)
    if match is None:
        return None
    lambert_93 = match["la93"] is not None
    whole = lambert_93 and match["rest"] == ""
    return TileName(
        department=match["department"].upper(),
        year=int(match["year"]),
        left_m=int(match["x"]) * 1000.0 if whole else None,
        top_m=int(match["y"]) * 1000.0 if whole else None,
        resolution_m=float(f"{match['m']}.{match['cm']}") if match["m"] else None,
        lambert_93=lambert_93,
    )


def is_infrared(name: str) -> bool:
    """Whether a file or folder name says infrared colours (``IRC`` as a word of its own).

    >>> is_infrared("75-2021-0650-6865-LA93-0M20-IRC-E080.jp2"), is_infrared("OHR_IRC_0M20")
    (True, True)
    >>> is_infrared("CIRCUIT")
    False
    """
    return re.search(r"(?<![A-Za-z])IRC(?![A-Za-z])", name, re.IGNORECASE) is not None


def year_of_delivery(name: str) -> int | None:
    """Survey year of a delivery's folder name, ``…_D075_2021-01-01``.

    >>> year_of_delivery("ORTHOHR_1-0_RVB-0M20_JP2-E080_LAMB93_D075_2021-01-01")
    2021
    """
    match = re.search(r"_D\w{2,3}[_-]((?:19|20)\d\d)(?!\d)", name)
    return int(match[1]) if match else None
