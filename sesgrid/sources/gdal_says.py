"""What GDAL remarks while a raster is opened: rasterio sends it to the log, where nobody looks."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sesgrid.errors import SesgridWarning

__all__ = ["remarks", "warn_of_remarks"]


class _Collector(logging.Handler):
    """Keeps the warnings of the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread, self.texts = threading.get_ident(), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.texts.append(record.getMessage())


@contextmanager
def remarks() -> Iterator[list[str]]:
    """What GDAL warns of meanwhile, in this thread."""
    collector, logger = _Collector(), logging.getLogger("rasterio")
    logger.addHandler(collector)
    try:
        yield collector.texts
    finally:
        logger.removeHandler(collector)


def warn_of_remarks(said: Sequence[tuple[str, Sequence[str]]], stacklevel: int) -> None:
    """Tell of rasters that GDAL opens with remarks: name and remarks of each."""
    odd = [(name, texts[0]) for name, texts in said if texts]
    if odd:
        warnings.warn(
            f"GDAL opens {len(odd)} rasters with remarks, first {odd[0][0]} ({odd[0][1][:200]}): they may be "
            "damaged, and read otherwise than they were meant; fetch them again if they look wrong",
            SesgridWarning,
            stacklevel=stacklevel + 1,
        )
