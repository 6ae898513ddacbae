"""IMU factors between the frames of a problem that follow each other in the map.

Every frame with such a factor has a velocity and a bias beside its pose, which is that of the IMU
here. GTSAM's ``CombinedImuFactor`` also lets the bias walk from frame to frame. Frames that were
culled in between cost nothing: the readings are integrated over the gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import gtsam
import numpy as np

from superglue_ros.back_end.imu import Imu, constant_bias
from superglue_ros.back_end.scene import Array, Motion, Scene
from superglue_ros.types import FrameId

# What is known of the bias where a chain of factors begins [m/s^2, rad/s]: in a map whose older
# frames are held, it was estimated with them, and a short window can tell it no better.
_BIAS_BEFORE = np.repeat([0.3, 0.05], 3)
_BIAS_HELD = np.repeat([0.02, 0.001], 3)
_SPEED = 3.0  # m/s, of a chain's first velocity: hardly known


class InertialChain:
    """The factors, variables and results of an IMU in one problem.

    ``index`` numbers the frames of the problem; the first ``num_free`` are moved. The scene's
    gravity has to be known.
    """

    def __init__(self, scene: Scene, imu: Imu, index: Mapping[FrameId, int], num_free: int) -> None:
        self._scene = scene
        self._index = index
        self._bias_sigma = _BIAS_HELD if num_free < len(index) else _BIAS_BEFORE
        self._factors: list[gtsam.CombinedImuFactor] = []
        self._motions: dict[FrameId, Motion] = {}
        self._firsts: list[FrameId] = []
        assert scene.gravity is not None
        for before, after in pairwise(sorted(scene.poses, key=lambda frame: frame.stamp_ns)):
            if before not in index or after not in index:
                continue
            if min(index[before], index[after]) >= num_free:
                continue  # both are held
            start = self._motions.get(before) or scene.motions.get(before)
            bias = start.bias if start else scene.bias
            measured = imu.preintegrate(before.stamp_ns, after.stamp_ns, bias, scene.gravity)
            if measured is None:
                continue
            ends = (scene.poses[before] @ imu.T_camera_body, scene.poses[after] @ imu.T_camera_body)
            if start is None:
                start = Motion(_first_velocity(measured, *ends, bias), bias)
            if before not in self._motions:
                self._firsts.append(before)
                self._motions[before] = start
            known = scene.motions.get(after)
            if known is None:
                velocity = np.asarray(_state_after(measured, ends[0], start).velocity())
                known = Motion(velocity, start.bias)
            self._motions[after] = known
            a, b = index[before], index[after]
            keys = _pose(a), _velocity(a), _pose(b), _velocity(b), _bias(a), _bias(b)
            self._factors.append(gtsam.CombinedImuFactor(*keys, measured))

    def __len__(self) -> int:
        """Number of factors."""
        return len(self._factors)

    def insert(self, values: gtsam.Values) -> None:
        """Add the velocities and biases."""
        for frame, motion in self._motions.items():
            values.insert(_velocity(self._index[frame]), motion.velocity)
            values.insert(_bias(self._index[frame]), constant_bias(motion.bias))

    def add(self, graph: gtsam.NonlinearFactorGraph) -> None:
        """Add the factors, and what is known where a chain of them begins."""
        for factor in self._factors:
            graph.add(factor)
        speed = gtsam.noiseModel.Isotropic.Sigma(3, _SPEED)
        bias = gtsam.noiseModel.Diagonal.Sigmas(self._bias_sigma)
        for frame in self._firsts:
            motion, number = self._motions[frame], self._index[frame]
            graph.add(gtsam.PriorFactorVector(_velocity(number), motion.velocity, speed))
            known = constant_bias(motion.bias)
            graph.add(gtsam.PriorFactorConstantBias(_bias(number), known, bias))

    def write_back(self, values: gtsam.Values) -> None:
        """Motions of all frames that have a factor."""
        for frame in self._motions:
            number = self._index[frame]
            velocity = np.asarray(values.atVector(_velocity(number)))
            bias = np.asarray(values.atConstantBias(_bias(number)).vector())
            self._scene.motions[frame] = Motion(velocity, bias)
        newest = max(self._scene.motions, key=lambda frame: frame.stamp_ns)
        self._scene.bias = self._scene.motions[newest].bias


def _first_velocity(
    measured: gtsam.PreintegratedCombinedMeasurements, start: Array, end: Array, bias: Array
) -> Array:
    """The velocity that leads from one pose of the body to the other."""
    from_rest = _state_after(measured, start, Motion(np.zeros(3), bias))
    return np.asarray(end[:3, 3] - from_rest.position()) / measured.deltaTij()


def _state_after(
    measured: gtsam.PreintegratedCombinedMeasurements, start: Array, motion: Motion
) -> gtsam.NavState:
    state = gtsam.NavState(gtsam.Pose3(start), motion.velocity)
    return measured.predict(state, constant_bias(motion.bias))


def _pose(index: int) -> int:
    return int(gtsam.symbol("x", index))


def _velocity(index: int) -> int:
    return int(gtsam.symbol("v", index))


def _bias(index: int) -> int:
    return int(gtsam.symbol("b", index))
