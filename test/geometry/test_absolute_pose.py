"""Pose of a camera among known points: exact, with noise, with outliers; its covariance."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry.absolute_pose import absolute_pose
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.rotation import exp

CAMERA = Camera(
    width=640,
    height=480,
    matrix=np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]),
    distortion=np.array([-0.2, 0.05, 0, 0]),
)
ROTATION, CENTRE = exp(np.array([0.1, 0.7, -0.2])), np.array([1.0, -2.0, 0.5])
EXACT = GeometryConfig(systematic_px=0.0)


def views(rng: np.random.Generator, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    seen = rng.uniform([-1.2, -0.9, 2], [1.2, 0.9, 5], (count, 3)) * [[1, 1, 1]]
    pixels = CAMERA.project(seen) + rng.normal(0, noise, (count, 2))
    return seen @ ROTATION.T + CENTRE, pixels


def test_outliers_do_not_count() -> None:
    rng = np.random.default_rng(0)
    points, pixels = views(rng, 100, 0.0)
    pixels[:40] = rng.uniform(0, 480, (40, 2))
    found = absolute_pose(points, pixels, np.ones(100), CAMERA, EXACT)
    assert found is not None
    np.testing.assert_allclose(found.rotation, ROTATION, atol=1e-4)
    np.testing.assert_allclose(found.translation, CENTRE, atol=1e-3)
    assert found.inliers[40:].all()
    assert found.inliers[:40].sum() < 3


def test_the_covariance_says_how_far_off_the_pose_is() -> None:
    """The mean squared Mahalanobis distance of six parameters is six."""
    rng = np.random.default_rng(1)
    distances = []
    for _ in range(60):
        points, pixels = views(rng, 60, 0.7)
        found = absolute_pose(points, pixels, np.ones(60), CAMERA, EXACT)
        assert found is not None
        turn = found.rotation @ ROTATION.T
        angles = np.array(
            [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
        )
        error = np.concatenate([found.translation - CENTRE, angles / 2])
        distances.append(error @ np.linalg.solve(found.covariance, error))
    assert 4.5 < np.mean(distances) < 8


@pytest.mark.parametrize("count", [0, 3, 8])
def test_too_few_points_give_no_pose(count: int) -> None:
    points, pixels = views(np.random.default_rng(2), count, 0.5)
    assert absolute_pose(points, pixels, np.ones(count), CAMERA, EXACT) is None


def test_points_without_any_order_give_no_pose() -> None:
    rng = np.random.default_rng(3)
    points, _ = views(rng, 100, 0)
    pixels = rng.uniform([0, 0], [640, 480], (100, 2))
    assert absolute_pose(points, pixels, np.ones(100), CAMERA, EXACT) is None
