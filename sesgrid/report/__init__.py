"""The findings of a city as one HTML file."""

from __future__ import annotations

from sesgrid.report.gallery import CellThumbnail
from sesgrid.report.render import SHOWN, write_report

__all__ = ["SHOWN", "CellThumbnail", "write_report"]
