from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.errors import ConfigError
from superglue_ros.evaluation import metrics
from superglue_ros.geometry import angle_errors
from superglue_ros.geometry.estimators import RansacOptions, make_estimator
from superglue_ros.registry import ESTIMATORS
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


@pytest.mark.parametrize("name", ESTIMATORS)
def test_known_pose_is_found_among_outliers(name):
    points0, points1, rotation, translation = two_views(outliers=50)
    given = (points0, points1, INTRINSICS, INTRINSICS, RansacOptions())
    found = make_estimator(name).relative_pose(*given)
    assert found is not None
    assert angle_errors.rotation_error_deg(found.rotation, rotation) < 0.5
    assert angle_errors.direction_error_deg(found.translation, translation, signed=True) < 3
    assert np.linalg.norm(found.translation) == pytest.approx(1)
    assert found.inliers[50:].mean() > 0.85
    assert found.inliers[:50].mean() < 0.1
    again = make_estimator(name).relative_pose(*given)
    np.testing.assert_array_equal(found.rotation, again.rotation)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_too_few_or_degenerate_matches_give_nothing_or_no_exception(name):
    views = (INTRINSICS, INTRINSICS, RansacOptions())
    estimator = make_estimator(name)
    points = np.array([[10.0, 20], [300, 40], [50, 200], [400, 300]])
    assert estimator.relative_pose(points, points, *views) is None
    same = np.tile([[100.0, 100.0]], (20, 1))
    estimator.relative_pose(same, same, *views)


def test_guided_sampling_finds_with_few_samples_what_the_weights_point_at():
    """135 of 150 matches are wrong: 20 samples of five have no chance but by the weights."""
    points0, points1, rotation, translation = two_views(outliers=135)
    order = np.random.default_rng(0).permutation(150)
    weights = np.r_[np.linspace(0, 0.6, 135), np.linspace(0.5, 1, 15)][order]
    options = RansacOptions(max_iterations=20, min_iterations=20)
    views = (points0[order], points1[order], INTRINSICS, INTRINSICS, options)
    found = make_estimator("guided").relative_pose(*views, weights)
    assert found is not None
    assert angle_errors.rotation_error_deg(found.rotation, rotation) < 1
    assert angle_errors.direction_error_deg(found.translation, translation) < 5
    assert found.inliers[order >= 135].sum() >= 13
    plain = make_estimator("poselib").relative_pose(*views, weights)
    assert plain is None or angle_errors.rotation_error_deg(plain.rotation, rotation) > 2


def test_unknown_estimator_is_refused():
    with pytest.raises(ConfigError, match=r"unknown estimator 'ransac'.*opencv-ransac"):
        make_estimator("ransac")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_homography_ignores_outliers_and_fails_below_four(name):
    rng = np.random.default_rng(1)
    homography = sample_homography(rng)
    points = rng.uniform(0, [639, 479], (100, 2))
    moved = metrics.project(homography, points)
    moved[:40] = rng.uniform(0, [639, 479], (40, 2))
    options = RansacOptions(threshold_px=3.0)
    found = make_estimator(name).homography(points, moved, options)
    assert metrics.corner_error(found, homography, 640, 480) < 0.5
    assert make_estimator(name).homography(points[:3], moved[:3], options) is None


@pytest.mark.parametrize("name", ESTIMATORS)
def test_absolute_pose_ignores_outliers_and_fails_below_four(name):
    rng = np.random.default_rng(5)
    rotation = Rotation.from_euler("xyz", [10, -20, 5], degrees=True).as_matrix()
    translation = np.array([0.3, -0.2, 0.5])
    points = rng.uniform([-3, -2, 4], [3, 2, 12], (100, 3))
    moved = points @ rotation.T + translation
    pixels = (moved @ INTRINSICS.T)[:, :2] / moved[:, 2:]
    pixels[:30] += rng.uniform(20, 90, (30, 2))
    estimator, options = make_estimator(name), RansacOptions(threshold_px=2.0)
    found = estimator.absolute_pose(points, pixels, INTRINSICS, options)
    assert angle_errors.rotation_error_deg(found[0], rotation) < 0.01
    np.testing.assert_allclose(found[1], translation, atol=1e-3)
    assert estimator.absolute_pose(points[:3], pixels[:3], INTRINSICS, options) is None
