"""Masks: the pixels of an image that keypoints may lie on. Nonzero = use, as in OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from superglue_ros.data import decoding
from superglue_ros.errors import ConfigError, ImageError
from superglue_ros.ros import sensor_messages
from superglue_ros.ros.node_config import NodeConfig

Usable = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class StaticMask:
    """A mask that holds for all images of a camera: ``usable`` (H, W), read from ``path``."""

    path: str
    usable: Usable


def read_static_masks(config: NodeConfig) -> list[StaticMask | None]:
    """The static mask of each camera, None where it has none. Raises :class:`ConfigError`."""
    return [_read(path) if path else None for path in config.mask_files]


def usable_pixels(
    message: Image | None, static: StaticMask | None, width: int, height: int
) -> Usable | None:
    """(H, W): the pixels that both masks leave; None without a mask. Raises :class:`ImageError`."""
    usable = None if message is None else sensor_messages.mask_to_usable(message, width, height)
    if static is None:
        return usable
    if static.usable.shape != (height, width):
        raise ImageError(
            f"the mask of inputs.mask_file {static.path} is {static.usable.shape[1]}x"
            f"{static.usable.shape[0]} but the image is {width}x{height}: make one of this size"
        )
    return static.usable if usable is None else usable & static.usable


def _read(path: str) -> StaticMask:
    try:
        found = decoding.read(Path(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except ImageError as error:
        raise ConfigError(f"inputs.mask_file: {error}") from error
    usable: Usable = np.asarray(found) != 0
    if not usable.any():
        raise ConfigError(f"inputs.mask_file {path} is zero everywhere: nonzero pixels are used")
    return StaticMask(path, usable)
