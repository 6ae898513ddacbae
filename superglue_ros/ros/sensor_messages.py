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
from superglue_ros.data.image_layout import check_size, depth_metres, pixel_rows, usable_pixels
from superglue_ros.data.message_reading import camera_from_message
from superglue_ros.errors import CalibrationError, ImageError
from superglue_ros.geometry.camera import Camera
from superglue_ros.ros.convert import header_of
from superglue_ros.types import FloatArray, FrameId

_BRIDGE = CvBridge()

# These encodings have no colour meaning, so cv_bridge needs an explicit one.
_MEANING = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16"}


def image_to_grey(message: Image, max_pixels: int) -> NDArray[np.uint8]:
    """A raw image as grey (H, W) uint8. Raises :class:`ImageError`."""
    rows = pixel_rows(message, max_pixels)
    step, data = rows.shape[1], message.data
    if message.step != step:  # cv_bridge reads a step in whole pixels: other padding would skew
        data = array.array("B", rows.tobytes())
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
    check_size(grey.shape[1], grey.shape[0], "image", max_pixels)
    return np.asarray(grey, np.uint8)


def depth_to_metres(message: Image, width: int, height: int) -> FloatArray:
    """A depth image, 16UC1 in millimetres or 32FC1 in metres, as (H, W) float32 metres.

    Unknown depth stays 0 or NaN. Raises :class:`ImageError`.
    """
    depth = depth_metres(message)
    if (message.width, message.height) != (width, height):
        raise ImageError(
            f"depth is {message.width}x{message.height} but the image is {width}x{height}: "
            f"register the depth to the image"
        )
    return depth


def mask_to_usable(message: Image, width: int, height: int) -> NDArray[np.bool_]:
    """A mask, mono8 or 8UC1, as (H, W) bool: nonzero = use. Raises :class:`ImageError`."""
    usable = usable_pixels(message)
    if (message.width, message.height) != (width, height):
        raise ImageError(
            f"mask is {message.width}x{message.height} but the image is {width}x{height}: "
            f"give a mask of the image's size"
        )
    return usable


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
