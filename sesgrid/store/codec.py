"""How pixels are written: losslessly by default, or as JPEG or JPEG XL, with the loss stated.

The image codecs carry the names that the package imagecodecs-zarr registers, so that plain zarr reads
the cube wherever that is installed (Python ≥ 3.12); `sesgrid.store.image_codec` takes its place elsewhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numcodecs import zstd
from zarr.codecs import Crc32cCodec, TransposeCodec, ZstdCodec

from sesgrid.errors import CodecError, ConfigError, FormatError, ReadError
from sesgrid.store.shard import checksum, is_intact

__all__ = ["LOSSLESS", "CodecName", "PixelCodec"]

CodecName = Literal["zstd", "jpeg", "jpegxl"]

_ZSTD_LEVEL = 1
"""On aerial pixels level 3 saves 4 % and costs twice the time."""

_JPEGXL_EFFORT = 1
"""Higher efforts save 5 % on aerial pixels and cost up to twice the time."""


@dataclass(frozen=True)
class PixelCodec:
    """What the ``image`` of a cube is encoded with; its codes are always lossless.

    Parameters
    ----------
    name : {"zstd", "jpeg", "jpegxl"}
    quality : int
        1 to 100, for the image codecs. 100 is lossless with JPEG XL.

    Examples
    --------
    >>> PixelCodec().loss, PixelCodec("jpegxl", 100).loss
    ('none', 'none')
    >>> PixelCodec("jpeg", 90).loss
    'JPEG of quality 90, colours at half resolution: pixels differ from the lossless ones'
    """

    name: CodecName = "zstd"
    quality: int = 90

    def __post_init__(self) -> None:
        if self.name not in get_args(CodecName) or not 1 <= self.quality <= 100:
            raise ConfigError(
                f"cube.codec: expected one of {', '.join(get_args(CodecName))} and a quality from 1 to "
                f"100, received {self.name!r} and {self.quality}"
            )

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> PixelCodec:
        """The codec that a cube says it was written with."""
        try:
            return cls(attributes["image_codec"], int(attributes["image_quality"]))
        except KeyError as error:
            raise FormatError(
                f"the cube lacks the attribute {error}; make it again with `sesgrid mosaic`"
            ) from error

    def attributes(self) -> dict[str, Any]:
        """For the cube: the codec and what it loses."""
        return {
            "image_codec": self.name,
            "image_quality": self.quality,
            "image_loss": self.loss,
        }

    @property
    def lossless(self) -> bool:
        """Whether the pixels come back as they were."""
        return self.name == "zstd" or (self.name == "jpegxl" and self.quality == 100)

    @property
    def loss(self) -> str:
        """What is lost, in words."""
        if self.lossless:
            return "none"
        if self.name == "jpeg":
            kind = f"JPEG of quality {self.quality}, colours at half resolution"
        else:
            kind = f"JPEG XL of Butteraugli distance {self._distance}"
        return f"{kind}: pixels differ from the lossless ones"

    @property
    def _distance(self) -> float:
        """libjxl's own mapping of qualities from 30 on; 0 is lossless."""
        q = self.quality
        return 0.0 if q == 100 else round(0.1 + (100 - q) * 0.09, 4)

    def for_zarr(self, bands: int) -> dict[str, Any]:
        """Filters, serializer and compressors for ``zarr.create_array``.

        Parameters
        ----------
        bands : int
            0: no band axis. Only images of three bands are given to an image codec.
        """
        if self.name == "zstd" or bands != 3:
            return {"compressors": [ZstdCodec(level=_ZSTD_LEVEL), Crc32cCodec()]}
        self.require()
        from sesgrid.store.image_codec import serializer

        return {
            "filters": [TransposeCodec(order=(1, 2, 0))],
            "serializer": serializer(*self._as_imagecodecs()),
            "compressors": [Crc32cCodec()],
        }

    def _as_imagecodecs(self) -> tuple[str, dict[str, Any]]:
        """Name and configuration as imagecodecs-zarr spells them."""
        if self.name == "jpeg":
            return "imagecodecs_jpeg", {"level": self.quality, "subsampling": "420"}
        if self.quality == 100:
            return "imagecodecs_jpegxl", {"effort": _JPEGXL_EFFORT, "lossless": True}
        return "imagecodecs_jpegxl", {"effort": _JPEGXL_EFFORT, "distance": self._distance}

    def require(self) -> None:
        """Refuse a codec whose package is not installed, and make it known to zarr.

        Raises
        ------
        CodecError
        """
        if self.name == "zstd":
            return
        try:
            importlib.import_module("imagecodecs")
        except ImportError as error:
            raise CodecError(
                f"the codec {self.name!r} needs the package imagecodecs: pip install 'sesgrid[image]', "
                'or write the cube with cube.codec = "zstd"'
            ) from error
        importlib.import_module("sesgrid.store.image_codec")

    def encode(self, cell: np.ndarray) -> bytes:
        """Contiguous uint8 ``([band,] y, x)`` of a cell → what zarr decodes."""
        if self.name == "zstd" or cell.ndim == 2:
            data = zstd.compress(cell, _ZSTD_LEVEL)
        else:
            from sesgrid.store.image_codec import encode

            name, options = self._as_imagecodecs()
            data = encode(name, np.ascontiguousarray(cell.transpose(1, 2, 0)), options)
        return data + checksum(data)

    def decode(
        self, data: bytes | np.ndarray, shape: tuple[int, ...], room: np.ndarray | None = None
    ) -> np.ndarray:
        """What `encode` made of a cell → its pixels; without the GIL, so that threads run side by side.

        Parameters
        ----------
        data : bytes or np.ndarray
            Of an array, read-only uint8.
        shape : tuple of int
            ``([band,] y, x)``.
        room : np.ndarray, optional
            uint8, contiguous, of the cell's size: decoded into. Fresh memory costs as much as half of
            the decoding.

        Returns
        -------
        np.ndarray
            uint8 of that shape, of any strides; a view of `room` where it is given.

        Raises
        ------
        ReadError
            The bytes are not those that were written.

        Examples
        --------
        >>> cell = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
        >>> bool((LOSSLESS.decode(LOSSLESS.encode(cell), (3, 2, 2)) == cell).all())
        True
        """
        if not is_intact(data):
            raise ReadError(f"{len(data)} bytes that do not match their checksum")
        room = np.empty(shape, np.uint8) if room is None else room
        try:
            if self.name == "zstd" or len(shape) == 2:
                zstd.decompress(memoryview(data)[:-4], room)  # type: ignore[arg-type]
                return room.reshape(shape)
            from sesgrid.store.image_codec import decode

            bands, *sides = shape
            image = decode(self._as_imagecodecs()[0], data[:-4], room.reshape(*sides, bands))
            return image.transpose(2, 0, 1)
        except (RuntimeError, ValueError) as error:
            raise ReadError(f"bytes that are no {self.name} of shape {shape} ({error})") from error


LOSSLESS = PixelCodec()
