"""The part of ROS's ``cv_bridge`` that superglue_ros uses, for environments without it.

Same names, same arguments, same results: ``test/compat/test_cv_bridge_contract.py`` passes
unchanged against the real package. Colours are converted by ``rosbags-image``; this adds what it
leaves out: rows with padding, the other byte order, and errors that say what is wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image.image import ImageError, convert_color, to_cvtype
from sensor_msgs.msg import CompressedImage, Image

__all__ = ["CvBridge", "CvBridgeError"]

_TYPE_NAMES = {
    "uint8": "8U",
    "int8": "8S",
    "uint16": "16U",
    "int16": "16S",
    "int32": "32S",
    "float32": "32F",
    "float64": "64F",
}


class CvBridgeError(TypeError):
    """A conversion is not possible; the message says why."""


def _layout(encoding: str) -> tuple[np.dtype, int]:
    """Return the type of an element and the number of channels of an encoding."""
    try:
        _, _, name, channels = to_cvtype(encoding)
    except ImageError as error:
        raise CvBridgeError(f"unrecognized image encoding [{encoding}]") from error
    return np.dtype(name), channels


def _has_colours(encoding: str) -> bool:
    """Return whether an encoding says what its channels mean, and not only their type."""
    return not encoding.startswith(tuple(_TYPE_NAMES.values()))


def _convert(image: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """Convert colours and depth; 8 and 16 bit are scaled to each other's full range."""
    if source == target:
        return image
    (from_type, from_channels), (to_type, to_channels) = _layout(source), _layout(target)
    if _has_colours(source) and _has_colours(target):
        # Colours first, in the source's depth: rosbags-image would cut where this rounds.
        same_depth = target
        if from_type != to_type:
            same_depth = target.replace(*("16", "8") if to_type == np.uint16 else ("8", "16"))
        try:
            image = convert_color(image, source, same_depth)
        except (ImageError, cv2.error) as error:
            raise CvBridgeError(f"cannot convert [{source}] to [{target}]: {error}") from error
    elif _has_colours(target):
        raise CvBridgeError(
            f"[{source}] is not a color format, but [{target}] is: the conversion makes no sense"
        )
    elif from_channels != to_channels:
        raise CvBridgeError(f"[{source}] and [{target}] have different numbers of channels")
    if from_type == to_type:
        return image
    scale = {(np.uint8, np.uint16): 65535 / 255, (np.uint16, np.uint8): 255 / 65535}
    values = image * scale.get((from_type.type, to_type.type), 1.0)
    if to_type.kind == "f":
        return values.astype(to_type)
    limits = np.iinfo(to_type)
    return np.clip(np.rint(values), limits.min, limits.max).astype(to_type)


class CvBridge:
    """Converts between ROS image messages and OpenCV images (NumPy arrays)."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """Return a message's image, (H, W) or (H, W, channels), in native byte order.

        Raises :class:`CvBridgeError` on an unknown encoding, a conversion that makes no sense, or
        data that does not fill the image.
        """
        dtype, channels = _layout(img_msg.encoding)
        row = img_msg.width * channels * dtype.itemsize
        if img_msg.step < row:
            raise CvBridgeError(
                f"image is wrongly formed: step {img_msg.step} is shorter than a row of "
                f"{img_msg.width} pixels of [{img_msg.encoding}], {row} bytes"
            )
        if len(img_msg.data) < img_msg.height * img_msg.step:
            raise CvBridgeError(
                f"image is wrongly formed: {len(img_msg.data)} bytes of data are less than "
                f"height {img_msg.height} x step {img_msg.step}"
            )
        data = np.frombuffer(img_msg.data, np.uint8, count=img_msg.height * img_msg.step)
        rows = np.ascontiguousarray(data.reshape(img_msg.height, img_msg.step)[:, :row])
        order = dtype.newbyteorder(">" if img_msg.is_bigendian else "<")
        shape = (img_msg.height, img_msg.width) + ((channels,) if channels > 1 else ())
        image = np.ndarray(shape, order, rows).astype(dtype)
        if desired_encoding == "passthrough":
            return image
        return _convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: NDArray[Any], encoding: str = "passthrough", header: Any = None
    ) -> Image:
        """Return the message of an image, without a copy of ``header``.

        Raises :class:`CvBridgeError` if the array's type and channels are not the encoding's.
        """
        kind = self._kind(cvim)
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=kind)
        if header is not None:
            message.header = header
        if encoding != "passthrough":
            dtype, channels = _layout(encoding)
            if kind != f"{_TYPE_NAMES[dtype.name]}C{channels}":
                raise CvBridgeError(
                    f"encoding specified as {encoding}, but image has incompatible type {kind}"
                )
            message.encoding = encoding
        big = cvim.dtype.byteorder == ">" or (
            cvim.dtype.byteorder == "=" and sys.byteorder == "big"
        )
        message.is_bigendian = int(big)
        message.data.frombytes(cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> NDArray[Any]:
        """Return a compressed message's image: BGR, BGRA or grey, 8 or 16 bit, as it was stored.

        Raises :class:`CvBridgeError` on data that is no image, or a conversion that makes no sense.
        """
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if image is None:
            raise CvBridgeError(
                f"{data.size} bytes of format [{cmprs_img_msg.format}] are not an image that "
                "OpenCV can decode"
            )
        if desired_encoding == "passthrough":
            return image
        channels = 1 if image.ndim == 2 else image.shape[2]
        names = {1: "mono", 3: "bgr", 4: "bgra"}
        return _convert(image, f"{names[channels]}{8 * image.itemsize}", desired_encoding)

    def cv2_to_compressed_imgmsg(
        self, cvim: NDArray[Any], dst_format: str = "jpg"
    ) -> CompressedImage:
        """Return the compressed message of an image; ``dst_format`` is a file ending of OpenCV.

        Raises :class:`CvBridgeError` if OpenCV cannot write the image in that format.
        """
        self._kind(cvim)
        try:
            _, data = cv2.imencode(f".{dst_format}", cvim)
        except cv2.error as error:
            raise CvBridgeError(f"cannot compress as [{dst_format}]: {error}") from error
        message = CompressedImage(format=dst_format)
        message.data.frombytes(data.tobytes())
        return message

    @staticmethod
    def _kind(image: NDArray[Any]) -> str:
        """Return an array's OpenCV type, for example 8UC3."""
        if not isinstance(image, np.ndarray):
            raise TypeError(f"give a NumPy array, not a {type(image).__name__}")
        if image.dtype.name not in _TYPE_NAMES:
            raise CvBridgeError(f"OpenCV has no images of type {image.dtype.name}")
        channels = 1 if image.ndim < 3 else image.shape[2]
        return f"{_TYPE_NAMES[image.dtype.name]}C{channels}"
