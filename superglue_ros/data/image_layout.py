"""The layout of raw images in messages: encodings, rows, padding, depth, masks.

Works on any object with the fields of a ``sensor_msgs/Image``: that of rclpy, and that of a bag
read without ROS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ImageError

BYTES_PER_PIXEL = {
    "mono8": 1, "mono16": 2,
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4,
    "rgb16": 6, "bgr16": 6, "rgba16": 8, "bgra16": 8,
    "yuv422": 2, "yuv422_yuy2": 2, "uyvy": 2, "yuyv": 2,
    "8UC1": 1, "8UC3": 3, "8UC4": 4, "16UC1": 2,
}  # fmt: skip
"""Of every encoding that is read as an image."""
BYTES_PER_PIXEL |= {
    f"bayer_{pattern}{bits}": bits // 8
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}
_DEPTH_TYPES = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}


def pixel_rows(message: Any, max_pixels: int) -> NDArray[np.uint8]:
    """The rows of an image (H, W * bytes per pixel), without padding.

    Raises :class:`ImageError` on an unknown encoding, a size of zero or above ``max_pixels``, and
    data that are shorter than the size and the step say.
    """
    if message.encoding not in BYTES_PER_PIXEL:
        raise ImageError(
            f"image encoding {message.encoding!r} is unknown: "
            f"known are {', '.join(sorted(BYTES_PER_PIXEL))}"
        )
    return _rows(message, "image", BYTES_PER_PIXEL[message.encoding], max_pixels)


def depth_metres(message: Any) -> NDArray[np.float32]:
    """A depth image, 16UC1 in millimetres or 32FC1 in metres, as (H, W) float32 metres.

    Unknown depth stays 0 or NaN. Raises :class:`ImageError`.
    """
    if message.encoding not in _DEPTH_TYPES:
        raise ImageError(
            f"depth encoding {message.encoding!r} is unknown: give 16UC1 (mm) or 32FC1 (m)"
        )
    kind = np.dtype(_DEPTH_TYPES[message.encoding])
    rows = _rows(message, "depth", kind.itemsize, None)
    depth = np.ascontiguousarray(rows).view(kind.newbyteorder(">" if message.is_bigendian else "<"))
    if kind == np.uint16:
        return depth.astype(np.float32) * np.float32(0.001)
    return depth.astype(np.float32)


def usable_pixels(message: Any) -> NDArray[np.bool_]:
    """A mask, mono8 or 8UC1, as (H, W) bool: True where it is not zero. Raises ImageError."""
    if message.encoding not in ("mono8", "8UC1"):
        raise ImageError(
            f"mask encoding {message.encoding!r} is unknown: give mono8, nonzero where the image "
            f"is to be used"
        )
    return _rows(message, "mask", 1, None) != 0


def check_size(width: int, height: int, name: str, max_pixels: int | None) -> None:
    """Raise :class:`ImageError` where there are no pixels, or more than ``max_pixels``."""
    if not width or not height:
        raise ImageError(f"{name} has zero size: {width}x{height}")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name} of {width}x{height} has more than {max_pixels} pixels: "
            f"send smaller images or raise limits.max_pixels"
        )


def _rows(message: Any, name: str, pixel_bytes: int, max_pixels: int | None) -> NDArray[np.uint8]:
    check_size(message.width, message.height, name, max_pixels)
    width = message.width * pixel_bytes
    if message.step < width:
        raise ImageError(
            f"{name} has step {message.step}, but a row of {message.width} pixels of "
            f"{message.encoding} takes {width} bytes"
        )
    if message.step % pixel_bytes and message.encoding.endswith(("16", "16UC1", "32FC1")):
        raise ImageError(
            f"{name} has step {message.step}, not a multiple of the {pixel_bytes} bytes of a pixel"
        )
    size = message.step * message.height
    if len(message.data) < size:
        raise ImageError(
            f"{name} has {len(message.data)} bytes of data, but {message.height} rows of step "
            f"{message.step} take {size}"
        )
    rows = np.frombuffer(message.data, np.uint8)[:size].reshape(message.height, message.step)
    return rows[:, :width]
