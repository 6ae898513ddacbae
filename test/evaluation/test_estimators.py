from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.errors import ConfigError
from superglue_ros.evaluation import metrics
from superglue_ros.evaluation.estimators import (
    POSE_ESTIMATORS,
    PoseEstimatorConfig,
    estimate_pose,
    ransac_homography,
)
from superglue_ros.geometry import angle_errors
from superglue_ros.synthetic.homographies import sample_homography

INTRINSICS = np.array([[500.0, 0, 320], [0, 490.0, 240], [0, 0, 1]])


def two_views(outliers: int, seed: int = 3):
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_euler("xyz", [4, -9, 3], degrees=True).as_matrix()
    translation = np.array([0.8, -0.1, 0.3])
    points = rng.uniform([-3, -2, 4], [3, 2, 12], (150, 3))
    moved = points @ rotation.T + translation
    pixels = [(p @ INTRINSICS.T)[:, :2] / p[:, 2:] for p in (points, moved)]
    pixels[1] += rng.normal(0, 0.2, pixels[1].shape)
    pixels[1][:outliers] = rng.uniform(0, [640, 480], (outliers, 2))
    return pixels[0], pixels[1], rotation, translation


@pytest.mark.parametrize("name", POSE_ESTIMATORS)
def test_known_pose_is_found_among_outliers(name):
    points0, points1, rotation, translation = two_views(outliers=50)
    config = PoseEstimatorConfig(name)
    found = estimate_pose(points0, points1, INTRINSICS, INTRINSICS, config)
    assert found is not None
    assert angle_errors.rotation_error_deg(found.rotation, rotation) < 0.5
    assert angle_errors.direction_error_deg(found.translation, translation, signed=True) < 3
    assert np.linalg.norm(found.translation) == pytest.approx(1)
    assert found.inliers[50:].mean() > 0.85
    assert found.inliers[:50].mean() < 0.1
    again = estimate_pose(points0, points1, INTRINSICS, INTRINSICS, config)
    np.testing.assert_array_equal(found.rotation, again.rotation)


@pytest.mark.parametrize("name", POSE_ESTIMATORS)
def test_too_few_or_degenerate_matches_give_nothing_or_no_exception(name):
    config = PoseEstimatorConfig(name)
    points = np.array([[10.0, 20], [300, 40], [50, 200], [400, 300]])
    assert estimate_pose(points, points, INTRINSICS, INTRINSICS, config) is None
    same = np.tile([[100.0, 100.0]], (20, 1))
    estimate_pose(same, same, INTRINSICS, INTRINSICS, config)


def test_unknown_estimator_is_refused():
    with pytest.raises(ConfigError, match="opencv-ransac"):
        PoseEstimatorConfig("ransac")


def test_ransac_homography_ignores_outliers_and_fails_below_four():
    rng = np.random.default_rng(1)
    homography = sample_homography(rng)
    points = rng.uniform(0, [639, 479], (100, 2))
    moved = metrics.project(homography, points)
    moved[:40] = rng.uniform(0, [639, 479], (40, 2))
    found = ransac_homography(points, moved)
    assert metrics.corner_error(found, homography, 640, 480) < 0.5
    assert ransac_homography(points[:3], moved[:3]) is None
