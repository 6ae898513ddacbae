"""A path with an IMU beside the camera, through the world of points."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from superglue_ros.back_end.scene import pose_of
from superglue_ros.data.imu import ImuReadings
from superglue_ros.geometry.rotation import exp
from superglue_ros.synthetic.imu import adis16448, simulate

from .landmark_world import heading

RATE_HZ = 10  # of the frames
BIAS = np.array([0.12, -0.08, 0.1, 0.03, -0.02, 0.04])
DOWN = np.array([0.0, 1, 0])  # the landmark world's y
CALIBRATION = adis16448(pose_of(exp(np.array([0.1, -0.2, 1.5])), np.array([0.05, -0.02, 0.01])))


def pose_at(seconds: float) -> np.ndarray:
    """A camera that looks outwards from a circle, swaying and nodding."""
    ahead = heading(40 * seconds)
    nod = Rotation.from_euler(
        "xz", [6 * np.sin(1.3 * seconds), 5 * np.sin(0.9 * seconds + 1)], degrees=True
    ).as_matrix()
    out = ahead @ [0, 0, 0.8 + 0.15 * np.sin(2.1 * seconds)]
    out[1] += 0.25 * np.sin(1.7 * seconds)
    return pose_of(ahead @ nod, out)


def readings(calibration=CALIBRATION, seed=0, end_s=5.0) -> ImuReadings:
    return simulate(pose_at, end_s, calibration, bias=BIAS, down=DOWN, seed=seed)


def true_velocity(seconds: float) -> np.ndarray:
    """Of the IMU."""
    body = [pose_at(seconds + step) @ CALIBRATION.T_camera_imu for step in (-1e-4, 1e-4)]
    return (body[1][:3, 3] - body[0][:3, 3]) / 2e-4
