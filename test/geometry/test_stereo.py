"""Rectified stereo on closed forms."""

import numpy as np
import pytest

from superglue_ros.config import GeometryConfig
from superglue_ros.errors import CalibrationError, FeaturesError
from superglue_ros.geometry.camera import camera_from_info
from superglue_ros.geometry.stereo import disparity_sigma, stereo_depth, stereo_rig
from superglue_ros.geometry.two_view import estimate_stereo
from superglue_ros.types import PoseMethod, PoseStatus

K = [400.0, 0, 320, 0, 400, 240, 0, 0, 1]
P_RIGHT = [400.0, 0, 320, -48, 0, 400, 240, 0, 0, 0, 1, 0]
CAMERA = camera_from_info(640, 480, K)
CONFIG = GeometryConfig()


def rig():
    return stereo_rig(CAMERA, CAMERA, P_RIGHT)


def matches(count: int = 50):
    rng = np.random.default_rng(0)
    points = np.column_stack((rng.uniform(-1, 1, (count, 2)), rng.uniform(2, 8, count)))
    return CAMERA.project(points), CAMERA.project(points - [0.12, 0, 0]), points[:, 2]


def test_baseline_stands_in_p():
    assert rig().baseline == pytest.approx(0.12)


def test_depth_is_focal_times_baseline_over_disparity():
    left, right, depth = matches()
    found = stereo_depth(left, right, rig(), CONFIG)
    assert found.inlier.all()
    np.testing.assert_allclose(found.depth, depth)
    np.testing.assert_allclose(found.sigma, depth**2 / (400 * 0.12) * np.sqrt(2))


def test_other_rows_and_negative_disparities_are_outliers():
    left, right, _ = matches()
    right[0, 1] += 3
    right[1, 0] = left[1, 0] + 5
    found = stereo_depth(left, right, rig(), CONFIG)
    np.testing.assert_array_equal(np.flatnonzero(~found.inlier), [0, 1])
    np.testing.assert_array_equal(found.depth[:2], 0)


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_the_rows_tell_how_uncertain_a_disparity_is(noise):
    """Whatever the keypoints claim of themselves."""
    left, right, _ = matches(1000)
    right = right + np.random.default_rng(1).normal(0, noise, right.shape)
    sigma = disparity_sigma(left, right, rig(), CONFIG, np.full(1000, np.sqrt(2)))
    np.testing.assert_allclose(sigma, noise, atol=0.05)


@pytest.mark.parametrize("grid", [1.0, 2.5])
def test_keypoints_on_a_grid_have_rounded_disparities(grid):
    left, right, _ = matches(1000)
    left, rounded = np.round(left / grid) * grid, np.round(right / grid) * grid
    rounded[:, 1] = left[:, 1]
    sigma = disparity_sigma(left, rounded, rig(), CONFIG, np.ones(1000))
    off = (left - rounded)[:, 0] - (matches(1000)[0] - right)[:, 0]
    np.testing.assert_allclose(sigma, off.std(), rtol=0.15)


def test_the_pose_is_the_calibration():
    left, right, _ = matches()
    right[:10, 1] += 5
    result = estimate_stereo(left, right, rig(), CONFIG)
    assert (result.status, result.method) == (PoseStatus.VALID, PoseMethod.STEREO)
    assert result.scale_known
    np.testing.assert_array_equal(result.rotation, np.eye(3))
    np.testing.assert_allclose(result.translation, [0.12, 0, 0])
    np.testing.assert_array_equal(result.inliers, np.arange(50) >= 10)
    assert result.median_epipolar_px == pytest.approx(0, abs=1e-9)
    right[:, 1] += 5
    assert estimate_stereo(left, right, rig(), CONFIG).status is PoseStatus.REJECTED
    assert estimate_stereo(left[:3], right[:3], rig(), CONFIG).status is PoseStatus.FEW
    empty = np.zeros((0, 2))
    assert estimate_stereo(empty, empty, rig(), CONFIG).status is PoseStatus.FEW


def test_bad_rigs_are_refused():
    with pytest.raises(CalibrationError, match="left and right swapped"):
        stereo_rig(CAMERA, CAMERA, [*P_RIGHT[:3], 48, *P_RIGHT[4:]])
    with pytest.raises(CalibrationError, match=r"P\[3\] of the right camera is 0"):
        stereo_rig(CAMERA, CAMERA, [*P_RIGHT[:3], 0, *P_RIGHT[4:]])
    with pytest.raises(CalibrationError, match="not a projection matrix"):
        stereo_rig(CAMERA, CAMERA, np.zeros(12))
    bent = camera_from_info(640, 480, K, [0.1, 0, 0, 0, 0])
    with pytest.raises(CalibrationError, match="use the rectified images"):
        stereo_rig(bent, CAMERA, P_RIGHT)
    left, right, _ = matches()
    with pytest.raises(FeaturesError, match="50 left points against 49 right"):
        stereo_depth(left, right[:-1], rig(), CONFIG)
    right[0] = np.inf
    with pytest.raises(FeaturesError, match="NaN or infinite"):
        stereo_depth(left, right, rig(), CONFIG)
