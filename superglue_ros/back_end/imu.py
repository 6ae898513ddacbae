"""The motion between two frames as an IMU measured it, preintegrated by GTSAM.

Forster et al., "On-Manifold Preintegration for Real-Time Visual-Inertial Odometry", IEEE T-RO 2017.
The body is the IMU. A bias (6,) is that of the specific force [m/s^2], then of the angular rate
[rad/s].
"""

from __future__ import annotations

import gtsam
import numpy as np

from superglue_ros.back_end.scene import Array, Motion, inverse, pose_of
from superglue_ros.data.imu import ImuReadings, Steps
from superglue_ros.data.imu_calibration import ImuCalibration

_LONGEST_S = 5.0  # over which readings are integrated: beyond, they say little
# A bias that moved less than this since the integration is followed to first order.
_BIAS_MOVED = np.repeat([0.05, 0.005], 3)
_REMEMBERED = 1000  # integrals: more than the frames that are adjusted together while running
_INTEGRATION = 1e-8  # variance density of the integration itself [m^2/s^3]


class Imu:
    """Readings of an IMU and their integrals between frames; stamps are those of the camera."""

    def __init__(self, calibration: ImuCalibration, readings: ImuReadings | None = None) -> None:
        self.calibration = calibration
        self.readings = readings or ImuReadings()
        self.T_camera_body = calibration.T_camera_imu
        self.T_body_camera = inverse(calibration.T_camera_imu)
        self._shift_ns = round(calibration.time_shift_s * 1e9)
        self._gravity = np.zeros(3)
        self._known: dict[tuple[int, int], gtsam.PreintegratedCombinedMeasurements] = {}

    def covers(self, start_ns: int, end_ns: int) -> bool:
        """Whether there are readings from one stamp to the other, without a gap."""
        return self._steps(start_ns, end_ns) is not None

    def _steps(self, start_ns: int, end_ns: int) -> Steps | None:
        return self.readings.between(start_ns + self._shift_ns, end_ns + self._shift_ns)

    def preintegrate(
        self, start_ns: int, end_ns: int, bias: Array, gravity: Array
    ) -> gtsam.PreintegratedCombinedMeasurements | None:
        """The motion between two stamps near a ``bias`` (6,), with ``gravity`` (3,) in the world.

        None where the readings do not cover it, or it is longer than 5 s.
        """
        if end_ns - start_ns > _LONGEST_S * 1e9:
            return None
        if not np.array_equal(gravity, self._gravity):
            self._gravity, self._known = gravity.copy(), {}
        found = self._known.get((start_ns, end_ns))
        if found is None or (np.abs(found.biasHatVector() - bias) > _BIAS_MOVED).any():
            steps = self._steps(start_ns, end_ns)
            if steps is None:
                return None
            found = _integrated(steps, _parameters(self.calibration, gravity), bias)
            self._known[start_ns, end_ns] = found
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
        return found

    def predict(
        self, start_ns: int, end_ns: int, pose: Array, motion: Motion, gravity: Array
    ) -> tuple[Array, Motion] | None:
        """``T_world_camera`` (4, 4) and motion at the end, from those at the start.

        None where the readings do not cover the time between.
        """
        measured = self.preintegrate(start_ns, end_ns, motion.bias, gravity)
        if measured is None:
            return None
        start = gtsam.NavState(gtsam.Pose3(pose @ self.T_camera_body), motion.velocity)
        end = measured.predict(start, constant_bias(motion.bias))
        turn, position = end.attitude().matrix(), np.asarray(end.position())
        found = pose_of(turn, position) @ self.T_body_camera
        return np.asarray(found), Motion(np.asarray(end.velocity()), motion.bias)


def constant_bias(bias: Array) -> gtsam.imuBias.ConstantBias:
    """GTSAM's form of a bias (6,)."""
    return gtsam.imuBias.ConstantBias(bias[:3], bias[3:])


def _parameters(calibration: ImuCalibration, gravity: Array) -> gtsam.PreintegrationCombinedParams:
    parameters = gtsam.PreintegrationCombinedParams(gravity)
    one = np.eye(3)
    parameters.setAccelerometerCovariance(calibration.accelerometer_noise_density**2 * one)
    parameters.setGyroscopeCovariance(calibration.gyroscope_noise_density**2 * one)
    parameters.setBiasAccCovariance(calibration.accelerometer_random_walk**2 * one)
    parameters.setBiasOmegaCovariance(calibration.gyroscope_random_walk**2 * one)
    parameters.setIntegrationCovariance(_INTEGRATION * one)
    return parameters


def _integrated(
    steps: Steps, parameters: gtsam.PreintegrationCombinedParams, bias: Array
) -> gtsam.PreintegratedCombinedMeasurements:
    measured = gtsam.PreintegratedCombinedMeasurements(parameters, constant_bias(bias))
    for seconds, force, rate in zip(steps.seconds.tolist(), steps.forces, steps.rates, strict=True):
        if seconds > 0:
            measured.integrateMeasurement(force, rate, seconds)
    return measured
