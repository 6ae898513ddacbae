"""Images without lens distortion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.geometry.camera import Camera


@dataclass(frozen=True, eq=False)
class Rectification:
    """Maps of ``cv2.remap`` that undistort a camera's images.

    ``camera``: that of the rectified images, with the same intrinsics and size.
    """

    camera: Camera
    map_x: NDArray[np.float32]
    map_y: NDArray[np.float32]

    @classmethod
    def of(cls, camera: Camera) -> Rectification:
        """The maps for the images of ``camera``."""
        width, height = camera.width, camera.height
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
        rays = (np.c_[grid, np.ones(len(grid))] @ np.linalg.inv(camera.matrix).T)[:, :2]
        sources = camera.distort(rays).reshape(height, width, 2).astype(np.float32)
        ideal = Camera(width=width, height=height, matrix=camera.matrix, distortion=np.zeros(0))
        return cls(ideal, sources[..., 0], sources[..., 1])

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image, interpolated linearly; 0 outside the lens's view."""
        return np.asarray(cv2.remap(image, self.map_x, self.map_y, cv2.INTER_LINEAR), np.uint8)

    def depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Depth along the optical axis, of the nearest pixel; 0 outside the lens's view."""
        return np.asarray(cv2.remap(depth, self.map_x, self.map_y, cv2.INTER_NEAREST), np.float32)
