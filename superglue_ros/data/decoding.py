"""Compressed images: the size is read from the header and checked before anything is decoded.

A kilobyte can declare an image of gibibytes, which a decoder allocates before it finds the end of
the data.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from superglue_ros.errors import ImageError
from superglue_ros.files import open_regular

MAX_PIXELS = 50_000_000
"""Of an image in a file or bag; the node has a limit of its own (``limits.max_pixels``)."""
MAX_BYTES = 512 << 20
"""Of an image file."""
_PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")


def decode(data: bytes | memoryview | NDArray[np.uint8], flags: int, max_pixels: int) -> Any:
    """The image that OpenCV decodes with ``flags`` from ``data``.

    Raises :class:`ImageError` where it is of none of ``FORMATS``, damaged, or has more than
    ``max_pixels``.
    """
    content = np.frombuffer(data, np.uint8)
    if not content.size:
        raise ImageError("compressed image has no data")
    encoded = bytes(content.data)
    width, height = declared_size(encoded)
    if width * height > max_pixels:
        raise ImageError(
            f"compressed image of {width}x{height} has more than {max_pixels} pixels: "
            f"send smaller images or raise limits.max_pixels"
        )
    _check_png_chunks(encoded)
    try:
        image = cv2.imdecode(content, flags)
    except cv2.error as error:
        raise ImageError(f"compressed image cannot be decoded: {error}") from error
    if image is None:
        raise ImageError(f"compressed image of {content.size} bytes cannot be decoded: damaged")
    return image


def declared_size(data: bytes) -> tuple[int, int]:
    """Width and height that the header declares; nothing is decoded. Raises :class:`ImageError`."""
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"compressed image is far too large: {error}") from error
    except Exception as error:  # a parser of many formats, on any bytes
        raise _unreadable(data) from error


def _check_png_chunks(data: bytes) -> None:
    """Raise :class:`ImageError` where a chunk is longer than the data.

    OpenCV allocates and fills what a chunk declares: half a gibibyte for a hundred bytes.
    """
    if not data.startswith(_PNG):
        return
    place = len(_PNG)
    while place < len(data):
        place += 12 + int.from_bytes(data[place : place + 4], "big")  # length, type, CRC
    if place > len(data):
        raise _unreadable(data)


def read(path: Path, flags: int) -> Any:
    """As :func:`decode` of a file; raises :class:`ImageError` naming it."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            data = file.read()
        return decode(data, flags, MAX_PIXELS)
    except FileNotFoundError:
        raise ImageError(f"image {path} does not exist") from None
    except OSError as error:
        raise ImageError(f"image {path} cannot be read: {error.strerror or error}") from error
    except ImageError as error:
        raise ImageError(f"image {path} cannot be read: {error}") from error


def _unreadable(data: bytes) -> ImageError:
    return ImageError(
        f"compressed image of {len(data)} bytes cannot be decoded: give a whole file of "
        f"{', '.join(FORMATS)}"
    )
