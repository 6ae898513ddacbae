"""What an IMU would have read along a trajectory, with noise and biases that walk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.data.imu import GRAVITY, ImuReadings
from superglue_ros.data.imu_calibration import ImuCalibration
from superglue_ros.geometry.rotation import log

_STEP_S = 1e-3  # of the central differences


def adis16448(T_camera_imu: NDArray[np.float64]) -> ImuCalibration:
    """The noise of EuRoC's ADIS16448, as given with that data set (Burri et al., IJRR 2016)."""
    return ImuCalibration(
        T_camera_imu=T_camera_imu,
        accelerometer_noise_density=2.0e-3,
        accelerometer_random_walk=3.0e-3,
        gyroscope_noise_density=1.6968e-4,
        gyroscope_random_walk=1.9393e-5,
    )


def simulate(
    pose_at: Callable[[float], NDArray[np.float64]],
    end_s: float,
    calibration: ImuCalibration,
    *,
    bias: ArrayLike = (0.0,) * 6,
    down: ArrayLike = (0.0, 0.0, -1.0),
    start_ns: int = 0,
    rate_hz: float = 200.0,
    seed: int = 0,
) -> ImuReadings:
    """Readings from 0 to ``end_s`` along ``T_world_camera`` (4, 4) = ``pose_at(seconds)``.

    Rates and specific forces are central differences of the poses of the IMU, with the white noise
    of the calibration. ``bias`` (6,) is that of the first reading, specific force [m/s^2] before
    rate [rad/s]; it walks from there. ``down`` (3,) is the direction of gravity in the world.
    ``start_ns`` is the stamp of second 0 on the camera's clock.
    """
    rng, readings = np.random.default_rng(seed), ImuReadings()
    gravity = GRAVITY * np.asarray(down, float)
    force, rate = calibration.accelerometer_noise_density, calibration.gyroscope_noise_density
    white = np.repeat([force, rate], 3) * np.sqrt(rate_hz)
    walks = calibration.accelerometer_random_walk, calibration.gyroscope_random_walk
    walk = np.repeat(walks, 3) / np.sqrt(rate_hz)
    start_ns += round(calibration.time_shift_s * 1e9)
    now = np.array(bias, float)
    for number in range(int(end_s * rate_hz) + 1):
        seconds = number / rate_hz
        before, here, after = (
            pose_at(seconds + step) @ calibration.T_camera_imu for step in (-_STEP_S, 0.0, _STEP_S)
        )
        acceleration = (before[:3, 3] - 2 * here[:3, 3] + after[:3, 3]) / _STEP_S**2
        turned = log(before[:3, :3].T @ after[:3, :3]) / (2 * _STEP_S)
        exact = np.concatenate((here[:3, :3].T @ (acceleration - gravity), turned))
        noisy = exact + now + white * rng.standard_normal(6)
        readings.add(start_ns + round(seconds * 1e9), noisy[:3], noisy[3:])
        now += walk * rng.standard_normal(6)
    return readings
