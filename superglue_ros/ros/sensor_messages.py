"""Images, depth and calibrations of ``sensor_msgs`` to arrays and back.

Every function raises an error of :mod:`superglue_ros.errors` that names what is wrong with the
message.
"""

from __future__ import annotations

import array

import cv2
import numpy as np
from cv_bridge import CvBridge, CvBridgeError
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from superglue_ros.data.decoding import decode
from superglue_ros.data.message_reading import camera_from_message
from superglue_ros.errors import CalibrationError, ImageError
from superglue_ros.geometry.camera import Camera
from superglue_ros.ros.convert import header_of
from superglue_ros.types import FloatArray, FrameId

_BRIDGE = CvBridge()

# Bytes per pixel of sensor_msgs' image encodings; bayer and type-and-channels ones follow below.
_BYTES_PER_PIXEL = {
    "mono8": 1, "mono16": 2,
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4,
    "rgb16": 6, "bgr16": 6, "rgba16": 8, "bgra16": 8,
    "yuv422": 2, "yuv422_yuy2": 2, "uyvy": 2, "yuyv": 2,
    "8UC1": 1, "8UC3": 3, "8UC4": 4, "16UC1": 2,
}  # fmt: skip
_BYTES_PER_PIXEL |= {
    f"bayer_{pattern}{bits}": bits // 8
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}
# These encodings have no colour meaning, so cv_bridge needs an explicit one.
_MEANING = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16"}
_DEPTH_TYPES = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}


def image_to_grey(message: Image, max_pixels: int) -> NDArray[np.uint8]:
    """A raw image as grey (H, W) uint8. Raises :class:`ImageError`."""
    if message.encoding not in _BYTES_PER_PIXEL:
        raise ImageError(
            f"image encoding {message.encoding!r} is unknown: "
            f"known are {', '.join(sorted(_BYTES_PER_PIXEL))}"
        )
    pixel_bytes = _BYTES_PER_PIXEL[message.encoding]
    _check_layout(message, "image", pixel_bytes, max_pixels)
    step, data = message.width * pixel_bytes, message.data
    if message.step != step:  # cv_bridge reads a step in whole pixels: other padding would skew
        rows = np.frombuffer(data, np.uint8)[: message.step * message.height]
        data = array.array("B", rows.reshape(message.height, -1)[:, :step].tobytes())
    if message.step != step or message.encoding in _MEANING:
        message = Image(
            header=message.header, height=message.height, width=message.width,
            encoding=_MEANING.get(message.encoding, message.encoding),
            is_bigendian=message.is_bigendian, step=step, data=data,
        )  # fmt: skip
    try:
        grey = _BRIDGE.imgmsg_to_cv2(message, desired_encoding="mono8")
    except (CvBridgeError, cv2.error, ValueError) as error:
        raise ImageError(
            f"image of encoding {message.encoding!r} cannot be read: {error}"
        ) from error
    return np.ascontiguousarray(grey, np.uint8).reshape(message.height, message.width)


def compressed_to_grey(message: CompressedImage, max_pixels: int) -> NDArray[np.uint8]:
    """A compressed image (JPEG, PNG, ...) as grey (H, W) uint8. Raises :class:`ImageError`."""
    # Stored orientation is ignored: the calibration holds for the sensor's rows and columns.
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    grey = decode(message.data, flags, max_pixels)
    _check_size(grey.shape[1], grey.shape[0], "image", max_pixels)
    return np.asarray(grey, np.uint8)


def depth_to_metres(message: Image, width: int, height: int) -> FloatArray:
    """A depth image, 16UC1 in millimetres or 32FC1 in metres, as (H, W) float32 metres.

    Unknown depth stays 0 or NaN. Raises :class:`ImageError`.
    """
    if message.encoding not in _DEPTH_TYPES:
        raise ImageError(
            f"depth encoding {message.encoding!r} is unknown: give 16UC1 (mm) or 32FC1 (m)"
        )
    kind = np.dtype(_DEPTH_TYPES[message.encoding])
    _check_layout(message, "depth", kind.itemsize, max_pixels=None)
    if (message.width, message.height) != (width, height):
        raise ImageError(
            f"depth is {message.width}x{message.height} but the image is {width}x{height}: "
            f"register the depth to the image"
        )
    rows = np.frombuffer(message.data, np.uint8)[: message.step * message.height]
    rows = rows.reshape(message.height, message.step)[:, : message.width * kind.itemsize]
    order = kind.newbyteorder(">" if message.is_bigendian else "<")
    depth = np.ascontiguousarray(rows).view(order)
    if kind == np.uint16:
        return depth.astype(np.float32) * np.float32(0.001)
    return depth.astype(np.float32)


def camera_info_to_camera(
    message: CameraInfo, width: int, height: int, rectified: bool
) -> Camera | None:
    """Calibration for an image of ``width`` x ``height``; None where it is uncalibrated (K[0] = 0).

    Raises :class:`CalibrationError` on invalid intrinsics or another image size.
    """
    if not message.k[0]:
        return None
    camera = camera_from_message(message, rectified)
    if camera is not None and (camera.width, camera.height) != (width, height):
        raise CalibrationError(
            f"camera_info is for images of {camera.width}x{camera.height} but the image is "
            f"{width}x{height}: publish the calibration of this size, with its binning and roi"
        )
    return camera


def image_to_message(image: NDArray[np.uint8], frame: FrameId) -> Image:
    """A BGR picture (H, W, 3) uint8 with the stamp and frame of the image it shows."""
    message = _BRIDGE.cv2_to_imgmsg(image, encoding="bgr8")
    message.header = header_of(frame)
    return message


def _check_size(width: int, height: int, name: str, max_pixels: int | None) -> None:
    if not width or not height:
        raise ImageError(f"{name} has zero size: {width}x{height}")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name} of {width}x{height} has more than {max_pixels} pixels: "
            f"send smaller images or raise limits.max_pixels"
        )


def _check_layout(message: Image, name: str, pixel_bytes: int, max_pixels: int | None) -> None:
    _check_size(message.width, message.height, name, max_pixels)
    if message.step < message.width * pixel_bytes:
        raise ImageError(
            f"{name} has step {message.step}, but a row of {message.width} pixels of "
            f"{message.encoding} takes {message.width * pixel_bytes} bytes"
        )
    if message.step % pixel_bytes and message.encoding.endswith(("16", "16UC1", "32FC1")):
        raise ImageError(
            f"{name} has step {message.step}, not a multiple of the {pixel_bytes} bytes of a pixel"
        )
    if len(message.data) < message.step * message.height:
        raise ImageError(
            f"{name} has {len(message.data)} bytes of data, but {message.height} rows of step "
            f"{message.step} take {message.step * message.height}"
        )
