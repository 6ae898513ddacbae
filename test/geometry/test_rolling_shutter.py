"""Rolling shutters: what a moving camera sees row by row, and at once."""

import numpy as np
import pytest

from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.rolling_shutter import (
    Motion,
    global_shutter_shift,
    motion_between,
    motions_along,
)
from superglue_ros.geometry.rotation import exp

CAMERA = Camera(
    width=640,
    height=480,
    matrix=np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]),
    distortion=np.array([-0.1, 0.02, 0.001, 0]),
)
MOTION = Motion(angular=np.array([0.4, 0.8, -0.3]), linear=np.array([0.5, -0.2, 0.9]))


def pose_after(seconds: float) -> np.ndarray:
    """``T_start_camera`` after a time of constant velocity."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = exp(MOTION.angular * seconds), MOTION.linear * seconds
    return pose


def test_motion_is_that_between_the_poses_in_the_axes_of_the_camera():
    start = np.eye(4)
    start[:3, :3], start[:3, 3] = exp(np.array([0.3, -1.0, 0.2])), [4.0, 5, 6]
    before, after = start @ pose_after(-0.02), start @ pose_after(0.02)
    found = motion_between(before, start, after, 0.04)
    np.testing.assert_allclose(found.angular, MOTION.angular, atol=1e-9)
    np.testing.assert_allclose(found.linear, MOTION.linear, atol=1e-9)


def test_motions_of_a_sequence_come_from_neighbours_that_are_near():
    stamps = np.array([0, 0.1, 0.2, 0.2, 0.6, 0.7, 1.3])
    found = motions_along(stamps, [pose_after(t) for t in stamps])
    known = [motion is not None for motion in found]
    assert known == [True, True, True, False, True, True, False]
    for motion in filter(None, found):
        np.testing.assert_allclose(motion.angular, MOTION.angular, atol=1e-9)
    assert motions_along(stamps[:1], [np.eye(4)]) == [None]


@pytest.mark.parametrize("readout_s", [0.03, -0.03])
def test_the_shift_leads_from_the_row_as_exposed_to_the_middle_of_the_image(readout_s):
    points = np.array([[0.2, -0.9, 2.5], [-1.0, 1.1, 3], [0.3, 0.0, 1.5], [1, 1, 9]])
    middle = CAMERA.project(points)
    for point, expected in zip(points, middle, strict=True):
        seen = expected
        for _ in range(20):
            pose = pose_after(readout_s * ((seen[1] + 0.5) / 480 - 0.5))
            seen = CAMERA.project((point - pose[:3, 3]) @ pose[:3, :3])[0]
        assert np.linalg.norm(seen - expected) > 0.5 or abs(expected[1] - 239.5) < 60
        shift = global_shutter_shift(point[None], seen[None, 1], CAMERA, MOTION, readout_s)
        np.testing.assert_allclose(seen + shift[0], expected, atol=1e-6)


def test_what_is_not_in_front_of_the_camera_is_not_moved():
    shift = global_shutter_shift(np.array([[0.0, 0, -1]]), np.array([9.0]), CAMERA, MOTION, 0.03)
    assert not shift.any()
