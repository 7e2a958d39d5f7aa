"""The findings of a city as one HTML file."""

from __future__ import annotations

from sesgrid.report.gallery import CellThumbnail
from sesgrid.report.render import write_report

__all__ = ["CellThumbnail", "write_report"]
