"""A world of points with exact pixels, descriptors, depths and poses, for tests of the map."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from superglue_ros.geometry.camera import Camera
from superglue_ros.types import Features, Frame, FrameId

WIDTH, HEIGHT = 640, 480
CAMERA = Camera(
    WIDTH, HEIGHT, np.array([[400.0, 0, 319.5], [0, 400.0, 239.5], [0, 0, 1]]), np.zeros(0)
)


def heading(degrees: float) -> np.ndarray:
    """Rotation of a level camera that looks ``degrees`` to the right of +z."""
    return Rotation.from_euler("y", degrees, degrees=True).as_matrix()


class LandmarkWorld:
    """Points in a shell around the origin, 3 to 6 m away, each with a descriptor of its own."""

    def __init__(self, seed: int = 0, count: int = 1500, noise_px: float = 0.3) -> None:
        self._rng = np.random.default_rng(seed)
        azimuth = self._rng.uniform(-np.pi, np.pi, count)
        distance = self._rng.uniform(3, 6, count)
        self.points = np.stack(
            [
                distance * np.sin(azimuth),
                self._rng.uniform(-2, 2, count),
                distance * np.cos(azimuth),
            ],
            axis=1,
        )
        descriptors = self._rng.standard_normal((count, 64)).astype(np.float32)
        self.descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        self._noise_px = noise_px

    def frame(
        self,
        number: int,
        rotation: np.ndarray,
        position: np.ndarray,
        *,
        camera: Camera | None = CAMERA,
        with_depth: bool = False,
        keypoints: int = 300,
        turning: tuple[float, float, float] = (0.0, 0.0, 0.0),
        readout_s: float = 0.0,
    ) -> tuple[Frame, np.ndarray]:
        """The view of a camera at ``T_world_camera``, and the point behind each keypoint.

        With ``readout_s``, the rows are exposed one after the other while the camera turns about
        its centre by ``turning`` [rad/s]; the pose is that in the middle of the image.
        """
        middle = local = (self.points - position) @ rotation
        pixels = _project(middle)
        for _ in range(8 if readout_s else 0):  # the row decides when a point is seen, and where
            times = readout_s * ((pixels[:, 1:].clip(-HEIGHT, 2 * HEIGHT) + 0.5) / HEIGHT - 0.5)
            local = Rotation.from_rotvec(-times * turning).apply(middle)
            pixels = _project(local)
        margin = 3
        seen = np.flatnonzero(
            (local[:, 2] > 0.5)
            & (pixels > margin).all(axis=1)
            & (pixels < [WIDTH - margin, HEIGHT - margin]).all(axis=1)
        )[:keypoints]
        noise = self._noise_px * np.clip(self._rng.standard_normal((len(seen), 2)), -3, 3)
        features = Features(
            (pixels[seen] + noise).astype(np.float32),
            np.ones(len(seen), np.float32),
            WIDTH,
            HEIGHT,
            "landmark-world",
            self.descriptors[seen],
        )
        depth = None
        if with_depth:
            depth = np.zeros((HEIGHT, WIDTH), np.float32)
            column, row = np.rint(features.keypoints).astype(int).T
            depth[row, column] = local[seen, 2]
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        frame = Frame(
            FrameId(number, stamp_ns=number * 100_000_000, frame_id="camera"),
            image,
            camera,
            features,
            depth,
        )
        return frame, seen


def _project(local: np.ndarray) -> np.ndarray:
    pixels = local @ CAMERA.matrix.T
    return pixels[:, :2] / pixels[:, 2:]
