"""Preparation of images for a network: grey, size, tensor.

The one place where pixels are rescaled, and its inverse. With the origin in the centre of the
top-left pixel a change of size maps ``x' = (x + 0.5) / scale - 0.5``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superglue_ros.errors import ImageError


def to_grey(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A grey, BGR or BGRA image, 8 or 16 bit, as (H, W) uint8. Raises :class:`ImageError`."""
    if image.size == 0 or image.ndim not in (2, 3):
        raise ImageError(
            f"image has shape {image.shape}: give a non-empty (H, W) or (H, W, C) image"
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # type: ignore[operator]
    if image.dtype != np.uint8:
        raise ImageError(f"image has type {image.dtype}: give uint8 or uint16")
    if image.ndim == 2:
        return np.ascontiguousarray(image, np.uint8)
    codes = {3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[:, :, 0], np.uint8)
    if image.shape[2] not in codes:
        raise ImageError(f"image has {image.shape[2]} channels: give grey, BGR or BGRA")
    return np.asarray(cv2.cvtColor(np.asarray(image), codes[image.shape[2]]), np.uint8)


@dataclass(frozen=True, eq=False)
class Resized:
    """An image at the network's size, with the mapping back.

    ``scale_x``, ``scale_y``: pixels of the original per pixel of ``image``.
    """

    image: NDArray[np.uint8]
    scale_x: float
    scale_y: float

    def to_original(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pixels (N, 2) of the resized image as pixels of the original."""
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        return np.asarray((points + 0.5) * scale - 0.5, np.float32)

    def to_resized(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pixels (N, 2) of the original as pixels of the resized image."""
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        return np.asarray((points + 0.5) / scale - 0.5, np.float32)


def resize(image: NDArray[np.uint8], max_size: int) -> Resized:
    """Shrink (H, W) so that the longer side is at most ``max_size``; 0 leaves it as it is."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if not max_size or longest <= max_size:
        return Resized(image, 1.0, 1.0)
    new_width = max(1, round(width * max_size / longest))
    new_height = max(1, round(height * max_size / longest))
    small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return Resized(np.asarray(small, np.uint8), width / new_width, height / new_height)


def padded(image: NDArray[np.uint8], multiple: int = 8) -> NDArray[np.uint8]:
    """Grey (H, W) as (H', W') whose sides are the next multiples of ``multiple``.

    The last row and column are repeated, so that nothing is cropped and every pixel keeps its
    coordinates.
    """
    height, width = image.shape
    bottom, right = -height % multiple, -width % multiple
    if bottom or right:
        image = np.pad(image, ((0, bottom), (0, right)), mode="edge")
    return np.ascontiguousarray(image)


def to_tensor(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Grey (H, W) uint8, :func:`padded`, to (1, 1, H', W') float32 in [0, 1]."""
    return torch.from_numpy(padded(image)).to(device)[None, None].float() / 255
