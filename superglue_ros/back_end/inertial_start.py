"""Scale, gravity, velocities and biases from the poses of a map and the readings of an IMU.

As VINS-Mono (Qin et al., IEEE T-RO 2018, section V.B) and ORB-SLAM3 (Campos et al., IEEE T-RO 2021,
section V.B) start: the gyroscope's bias from rotations; then all that is linear without knowing
gravity's magnitude; then Gauss-Newton with it, weighted by the covariances of the preintegrated
motions. The map's positions are no constants there: each has an error of its own, in proportion to
the distance of the landmarks, so that the scale is not biased and its variance is honest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gtsam
import numpy as np

from superglue_ros.back_end.imu import Imu, constant_bias
from superglue_ros.back_end.scene import Array
from superglue_ros.data.imu import GRAVITY
from superglue_ros.geometry.rotation import log, tangent_basis

_BIAS_SIGMA = np.repeat([0.3, 0.1], 3)  # before anything is known [m/s^2, rad/s]
_STEPS = 6  # of Gauss-Newton, the first ones without gravity's magnitude
_FREE_STEPS = 3
_HUBER = 6.0  # norm of the nine whitened numbers of a pair, 3 at the median
_ANGLE, _POSITION, _VELOCITY = slice(0, 3), slice(3, 6), slice(6, 9)


@dataclass(frozen=True, eq=False)
class InertialState:
    """What poses and readings say together.

    ``scale``: metres in a unit of the map, with the standard deviation of its logarithm;
    ``gravity`` (3,) [m/s^2] in the world, with that of its direction [rad]; ``bias`` (6,);
    ``chi2``: squared error per number, of the pairs in the median or of the biases as they are
    expected to be, whichever is larger: below one where all is as it says it is.
    """

    scale: float
    log_scale_sigma: float
    gravity: Array
    gravity_sigma_rad: float
    bias: Array
    chi2: float


def estimate(
    stamps_ns: Sequence[int], poses: Array, imu: Imu, pose_sigma: float, depth: float, metric: bool
) -> InertialState | None:
    """The state along frames at ``stamps_ns`` (N,) with ``poses`` (N, 4, 4) ``T_world_camera``.

    A pose is known to ``pose_sigma`` [rad], and to this part of the landmarks' ``depth`` (in the
    unit of the map). ``metric``: the unit of the map is the metre. None where the readings do not
    cover all of the time, or there is no solution.
    """
    bias = np.zeros(6)
    turns = poses[:, :3, :3] @ imu.T_camera_body[:3, :3]
    for _ in range(2):
        pairs = _pairs(stamps_ns, turns, imu, bias)
        if pairs is None:
            return None
        bias[3:] += _gyroscope_bias(pairs)
    pairs = _pairs(stamps_ns, turns, imu, bias)
    assert pairs is not None  # the readings are the same
    solver = _Solver(pairs, poses, imu, pose_sigma, depth, metric, bias)
    try:
        return solver.solve()
    except np.linalg.LinAlgError:
        return None


@dataclass(frozen=True, eq=False)
class _Pair:
    """A preintegrated motion over ``seconds``, without gravity.

    ``start`` and ``end`` (3, 3) ``R_world_body``; ``covariance`` (9, 9) of rotation, position and
    velocity.
    """

    seconds: float
    start: Array
    end: Array
    measured: gtsam.PreintegratedCombinedMeasurements
    covariance: Array

    def motion(self, bias: Array) -> tuple[Array, Array, Array]:
        """Rotation (3, 3), change of position and of velocity (3,) with another bias."""
        state = self.measured.predict(gtsam.NavState(), constant_bias(bias))
        turn = state.attitude().matrix()
        return turn, np.asarray(state.position()), np.asarray(state.velocity())

    def error_of_rotation(self, turn: Array) -> Array:
        return log(turn.T @ self.start.T @ self.end)


def _pairs(stamps_ns: Sequence[int], turns: Array, imu: Imu, bias: Array) -> list[_Pair] | None:
    found = []
    for i in range(len(stamps_ns) - 1):
        measured = imu.preintegrate(stamps_ns[i], stamps_ns[i + 1], bias, np.zeros(3))
        if measured is None:
            return None
        covariance = np.asarray(measured.preintMeasCov())[:9, :9]
        seconds = (stamps_ns[i + 1] - stamps_ns[i]) * 1e-9
        found.append(
            _Pair(
                seconds=seconds,
                start=turns[i],
                end=turns[i + 1],
                measured=measured,
                covariance=covariance,
            )
        )
    return found


def _gyroscope_bias(pairs: list[_Pair]) -> Array:
    """The change of the gyroscope's bias (3,) that explains the rotations best."""
    rows, right = [], []
    for pair in pairs:
        bias = pair.measured.biasHatVector()
        error = pair.error_of_rotation(pair.motion(bias)[0])
        rows.append(_slopes(pair, bias)[_ANGLE, 3:])
        right.append(-error)
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]


def _slopes(pair: _Pair, bias: Array) -> Array:
    """(9, 6) derivative of the errors of rotation, position and velocity by the bias."""
    turn, position, velocity = pair.motion(bias)
    slopes = np.zeros((9, 6))
    step = 1e-4
    for k in range(6):
        moved = bias.copy()
        moved[k] += step
        turn_k, position_k, velocity_k = pair.motion(moved)
        slopes[_ANGLE, k] = -log(turn.T @ turn_k) / step
        slopes[_POSITION, k] = -(position_k - position) / step
        slopes[_VELOCITY, k] = -(velocity_k - velocity) / step
    return slopes


class _Solver:
    """Gauss-Newton over scale, gravity, bias, velocities and the errors of the positions.

    The unknowns in this order: scale (1), gravity (3, or 2 across it), bias (6), velocities (3N),
    errors of positions (3N) [m].
    """

    def __init__(
        self,
        pairs: list[_Pair],
        poses: Array,
        imu: Imu,
        pose_sigma: float,
        depth: float,
        metric: bool,
        bias: Array,
    ) -> None:
        self._pairs = pairs
        self._centres = poses[:, :3, 3] - poses[:, :3, 3].mean(0)
        self._levers = poses[:, :3, :3] @ imu.T_camera_body[:3, 3]
        self._pose_sigma = pose_sigma
        self._depth = depth
        self._metric = metric
        self._scale = 1.0
        self._gravity = np.zeros(3)
        self._bias = bias
        count = len(poses)
        self._velocities, self._errors = np.zeros((count, 3)), np.zeros((count, 3))

    def solve(self) -> InertialState | None:
        for number in range(_STEPS):
            free = number < _FREE_STEPS
            if number == _FREE_STEPS:
                self._gravity *= GRAVITY / np.linalg.norm(self._gravity)
            gravity_basis = np.eye(3) if free else GRAVITY * tangent_basis(self._gravity / GRAVITY)
            matrix, right, norms = self._system(gravity_basis)
            information = matrix.T @ matrix
            step = np.asarray(np.linalg.solve(information, matrix.T @ right), np.float64)
            self._move(step, gravity_basis)
            if not self._scale > 0:
                return None
        covariance = np.linalg.inv(information)
        return InertialState(
            scale=self._scale,
            log_scale_sigma=float(np.sqrt(max(covariance[0, 0], 0.0))) / self._scale,
            gravity=self._gravity,
            gravity_sigma_rad=float(np.sqrt(np.linalg.eigvalsh(covariance[1:3, 1:3])[-1])),
            bias=self._bias,
            chi2=max(float(np.median(norms)), float(np.mean((self._bias / _BIAS_SIGMA) ** 2))),
        )

    def _move(self, step: Array, gravity_basis: Array) -> None:
        width = gravity_basis.shape[1]
        start = 1 + width + 6
        count = len(self._centres)
        self._scale += step[0]
        self._gravity = self._gravity + gravity_basis @ step[1 : 1 + width]
        if width == 2:
            self._gravity *= GRAVITY / np.linalg.norm(self._gravity)
        self._bias = self._bias + step[1 + width : start]
        self._velocities += step[start : start + 3 * count].reshape(-1, 3)
        self._errors += step[start + 3 * count :].reshape(-1, 3)

    def _system(self, gravity_basis: Array) -> tuple[Array, Array, Array]:
        """The whitened linear system of the next step, and the mean squared error of each pair."""
        count, width = len(self._centres), gravity_basis.shape[1]
        start = 1 + width + 6
        size = start + 6 * count
        rows, right, norms = [], [], []
        for i, pair in enumerate(self._pairs):
            error, slope = self._pair(i, pair, gravity_basis, size)
            whitening = np.linalg.inv(np.linalg.cholesky(self._covariance(pair)))
            error, slope = whitening @ error, whitening @ slope
            norms.append(float(error @ error) / 9)
            weight = np.sqrt(min(1.0, _HUBER / max(float(np.linalg.norm(error)), 1e-12)))
            rows.append(weight * slope)
            right.append(-weight * error)
        # What is known of the unknowns: of a metric scale, of the biases, of the positions.
        known = np.zeros((1 + 6 + 3 * count, size))
        said = np.zeros(len(known))
        known[0, 0] = 1e6 if self._metric else 0.0
        known[1:7, 1 + width : start] = np.diag(1 / _BIAS_SIGMA)
        said[1:7] = -self._bias / _BIAS_SIGMA
        sigma = self._pose_sigma * self._depth * self._scale
        known[7:, start + 3 * count :] = np.eye(3 * count) / sigma
        said[7:] = -self._errors.ravel() / sigma
        matrix = np.concatenate((*rows, known))
        return matrix, np.concatenate((*right, said)), np.array(norms)

    def _covariance(self, pair: _Pair) -> Array:
        """Of the nine errors: that of the IMU, and what the rotations of the poses add."""
        covariance = pair.covariance.copy()
        turn = self._pose_sigma**2
        covariance[_ANGLE, _ANGLE] += 2 * turn * np.eye(3)
        falls = GRAVITY * pair.seconds**2 / 2, GRAVITY * pair.seconds
        for part, length in zip((_POSITION, _VELOCITY), falls, strict=True):
            covariance[part, part] += turn * length**2 * np.eye(3)
        return covariance

    def _pair(self, i: int, pair: _Pair, gravity_basis: Array, size: int) -> tuple[Array, Array]:
        """The nine errors of a pair and their derivative by all unknowns."""
        turn, position, velocity = pair.motion(self._bias)
        centres, width, count = self._centres, gravity_basis.shape[1], len(self._centres)
        seconds, to_body = pair.seconds, pair.start.T
        placed = self._scale * centres + self._errors + self._levers
        moved = placed[i + 1] - placed[i] - seconds * self._velocities[i]
        fallen = seconds**2 / 2 * self._gravity
        faster = self._velocities[i + 1] - self._velocities[i] - seconds * self._gravity
        error = np.concatenate(
            (
                pair.error_of_rotation(turn),
                to_body @ (moved - fallen) - position,
                to_body @ faster - velocity,
            )
        )
        slope = np.zeros((9, size))
        slope[_POSITION, 0] = to_body @ (centres[i + 1] - centres[i])
        slope[_POSITION, 1 : 1 + width] = -(seconds**2) / 2 * to_body @ gravity_basis
        slope[_VELOCITY, 1 : 1 + width] = -seconds * to_body @ gravity_basis
        start = 1 + width
        slope[:, start : start + 6] = _slopes(pair, self._bias)
        at = start + 6 + 3 * i
        slope[_POSITION, at : at + 3] = -seconds * to_body
        slope[_VELOCITY, at : at + 3] = -to_body
        slope[_VELOCITY, at + 3 : at + 6] = to_body
        at += 3 * count
        slope[_POSITION, at : at + 3] = -to_body
        slope[_POSITION, at + 3 : at + 6] = to_body
        return error, slope
