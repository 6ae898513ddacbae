"""Small synthetic data: textured pictures, scenes of points, sequences on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.evaluation.pairs.pairs_file import PosePair, write_pairs


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of several sizes: something that SIFT finds again."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width), np.float32)
    for cell in (4, 8, 16, 32):
        noise = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
        out += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(out, [1, 99])
    return np.clip(255 * (out - low) / (high - low), 0, 255).astype(np.uint8)


class PointScene:
    """Cameras that look at a cloud of points; keypoints with descriptors that tell them apart."""

    def __init__(self, points: int = 80, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.points = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (points, 3))
        descriptors = rng.standard_normal((points, 32))
        self.descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        self.width, self.height = 320, 240
        self.intrinsics = np.array([[260.0, 0, 161.5], [0, 255.0, 118.0], [0, 0, 1]])
        self.rng = rng

    def pose(self, angle_deg: float, shift: tuple[float, float, float]) -> np.ndarray:
        """T_camera_world (4, 4)."""
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("yx", [angle_deg, angle_deg / 3], True).as_matrix()
        pose[:3, 3] = shift
        return pose

    def view(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (K, 2) of the points in view, and their indices."""
        seen = self.points @ pose[:3, :3].T + pose[:3, 3]
        pixels = (seen @ self.intrinsics.T)[:, :2] / seen[:, 2:]
        inside = (pixels >= 0).all(1) & (pixels <= [self.width - 1, self.height - 1]).all(1)
        keep = np.flatnonzero(inside & (seen[:, 2] > 0.1))
        return pixels[keep], keep

    def write(self, folder: Path, name: str, pose: np.ndarray, turns: int = 0) -> None:
        """An empty image and a keypoints file for the image turned upright by ``turns``."""
        pixels, index = self.view(pose)
        stored = np.full((self.height, self.width), 127, np.uint8)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "keypoints").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / name), stored)
        width = self.width
        for _ in range(turns):
            pixels = np.stack([pixels[:, 1], width - 1 - pixels[:, 0]], axis=1)
            width = self.height if width == self.width else self.width
        key = f"{name}@{turns}" if turns else name
        np.savez(
            folder / "keypoints" / f"{key}.npz",
            keypoints=pixels,
            descriptors=self.descriptors[index],
            detector="points",
        )


@pytest.fixture
def point_scene(tmp_path: Path) -> Path:
    """``images``, ``keypoints`` and ``pairs.txt`` with three exact pairs, one turned."""
    scene = PointScene()
    poses = {
        "a.png": scene.pose(0, (0, 0, 0)),
        "b.png": scene.pose(8, (0.5, 0.1, 0.0)),
        "c.png": scene.pose(-6, (-0.6, 0.0, 0.2)),
    }
    for name, pose in poses.items():
        scene.write(tmp_path, name, pose, turns=1 if name == "c.png" else 0)
    pairs = [
        PosePair(
            a,
            b,
            int(a == "c.png"),
            int(b == "c.png"),
            scene.intrinsics,
            scene.intrinsics,
            poses[b] @ np.linalg.inv(poses[a]),
        )
        for a, b in (("a.png", "b.png"), ("a.png", "c.png"), ("c.png", "b.png"))
    ]
    write_pairs(tmp_path / "pairs.txt", pairs)
    return tmp_path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of two textured pictures."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(2):
        cv2.imwrite(str(folder / f"{seed}.png"), texture(360, 480, seed))
    return folder
