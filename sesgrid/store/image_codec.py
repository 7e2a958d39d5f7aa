"""JPEG and JPEG XL for zarr, through imagecodecs, under the names of the package imagecodecs-zarr.

Where that package is installed (Python ≥ 3.12) its own classes are used; elsewhere importing this
module makes the same names known to zarr.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import get_codec_class, register_codec

__all__ = ["Jpeg", "JpegXl", "decode", "encode", "serializer"]


def encode(name: str, image: np.ndarray, options: dict[str, Any]) -> bytes:
    """uint8 ``(y, x, band)`` → a JPEG or JPEG XL file, made by one thread."""
    if name == "imagecodecs_jpeg":
        return bytes(imagecodecs.jpeg8_encode(image, **options))
    return bytes(imagecodecs.jpegxl_encode(image, numthreads=1, **options))


def decode(name: str, data: Any, out: np.ndarray | None = None) -> np.ndarray:
    """A JPEG or JPEG XL file → uint8 ``(y, x, band)``, by one thread; into `out` where it is given."""
    if name == "imagecodecs_jpeg":
        return imagecodecs.jpeg8_decode(data, out=out)
    return imagecodecs.jpegxl_decode(data, numthreads=1, out=out)


@dataclass(frozen=True)
class _ImageCodec(ArrayBytesCodec):
    """uint8 ``(y, x, band)`` of an inner chunk ↔ a file."""

    options: tuple[tuple[str, Any], ...] = ()
    is_fixed_size = False
    name = ""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _ImageCodec:
        return cls(tuple(sorted((data.get("configuration") or {}).items())))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "configuration": dict(self.options)}

    def _decode_sync(self, chunk: Buffer, spec: ArraySpec) -> NDBuffer:
        image = decode(self.name, chunk.to_bytes())
        return spec.prototype.nd_buffer.from_numpy_array(image.reshape(spec.shape))

    def _encode_sync(self, chunk: NDBuffer, spec: ArraySpec) -> Buffer | None:
        image = np.ascontiguousarray(chunk.as_numpy_array())
        return spec.prototype.buffer.from_bytes(encode(self.name, image, dict(self.options)))

    async def _decode_single(self, chunk: Buffer, spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk, spec)

    async def _encode_single(self, chunk: NDBuffer, spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk, spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        # zarr's way to say that the size is not known beforehand
        raise NotImplementedError


@dataclass(frozen=True)
class Jpeg(_ImageCodec):
    """8-bit JPEG."""

    name = "imagecodecs_jpeg"


@dataclass(frozen=True)
class JpegXl(_ImageCodec):
    """JPEG XL."""

    name = "imagecodecs_jpegxl"


def serializer(name: str, options: dict[str, Any]) -> Any:
    """The codec that zarr knows under a name."""
    return get_codec_class(name).from_dict({"name": name, "configuration": dict(options)})


for _codec in (Jpeg, JpegXl):
    try:
        get_codec_class(_codec.name)
    except (KeyError, ValueError):  # from zarr 3.2 on UnknownCodecError, which is a ValueError
        register_codec(_codec.name, _codec)
