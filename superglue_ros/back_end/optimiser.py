"""Bundle adjustment of some frames of a scene and the landmarks they see, on GTSAM.

Gauge: without fixed frames the first one is fixed. Scale: from metric relative poses if there are
any, or from two or more fixed frames; else the distance between the first camera and the one
farthest from it is fixed.

With an IMU (:mod:`superglue_ros.back_end.inertial_factors`) the variables are the poses of the IMU,
which is exact wherever the camera is; the scale is the IMU's, and without fixed frames the first
one may tilt: gravity is known by estimate only.

Only metric relative poses become factors. The others come from the same pixels as the observations
and would count them twice; metric ones also use the depth, which is in no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gtsam
import numpy as np

from superglue_ros.back_end.imu import Imu
from superglue_ros.back_end.inertial_factors import InertialChain
from superglue_ros.back_end.scene import Array, Scene, inverse
from superglue_ros.types import FrameId

_HUBER = 1.345  # standard deviations; 95 % efficiency under Gaussian noise
_HALF_BELIEVED = 5.0  # standard deviations of a relative pose's six numbers together
_HELD = 1e-6  # standard deviation of fixed poses
# Standard deviation of the held distance, relative: nothing pulls at it, but as a stiff bond it
# would forbid its ends to move across it.
_SCALE_HELD = 0.01
_TILT = 0.1  # standard deviation [rad] of the first pose against gravity
_WORSE = 1.3  # errors of observations that contradict the IMU, over those without it
_LEAST_DECREASE = 1e-6  # of the cost in one iteration, relative; the scale changes it very little
_UNIT_CAMERA = gtsam.Cal3_S2(1.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Adjustment:
    """Size of an optimisation problem, and its cost (half the robust squared error, unitless).

    ``covariance`` (6, 6) of the pose that was asked for: x y z, then rotation about fixed axes, in
    the world, given the frames that are held. None where none was asked for or it is not
    determined. ``with_imu``: whether an IMU had a part in it. ``error_by_vision``: the median error
    of the observations, in their standard deviations, after an adjustment without it; None where
    none was made, or there is no IMU.
    """

    frames: int
    landmarks: int
    observations: int
    cost_before: float
    cost_after: float
    covariance: Array | None = None
    with_imu: bool = False
    error_by_vision: float | None = None


def adjust(
    scene: Scene,
    frames: Sequence[FrameId],
    fixed: Sequence[FrameId],
    focal_px: float,
    iterations: int,
    max_error_px: float,
    covariance_of: FrameId | None = None,
    imu: Imu | None = None,
    usual_error: float = float("inf"),
) -> Adjustment | None:
    """Optimise ``frames`` and their landmarks with ``fixed`` frames held fixed.

    ``covariance_of`` names the frame whose covariance is wanted, one of ``frames``. ``imu`` gives
    factors once the scene knows its gravity. Where the median error of the observations would be
    larger with it by 30 % than the ``usual_error`` (in their standard deviations), and than without
    it now, the two contradict each other, and the IMU is left out.
    Afterwards observations with a larger error than ``max_error_px`` are dropped. None if there is
    nothing to optimise.
    """
    problem = _Problem(scene, frames, fixed, imu)
    if not problem.landmarks:
        return None
    solution = problem.solve(iterations)
    by_vision = None
    if imu is not None:
        error = problem.median_error(solution.values)
        if problem.chain is None:
            by_vision = error
        elif error > _WORSE * usual_error:
            # Either the IMU is wrong or the images are worse than they were.
            alone = _Problem(scene, frames, fixed, None)
            other = alone.solve(iterations)
            by_vision = alone.median_error(other.values)
            if error > _WORSE * by_vision:
                problem, solution = alone, other
    problem.write_back(solution.values)
    covariance = None
    if covariance_of is not None and covariance_of in frames:
        covariance = problem.covariance(covariance_of, solution)
    problem.drop_outliers(max_error_px / focal_px)
    return Adjustment(
        frames=len(frames),
        landmarks=len(problem.landmarks),
        observations=len(problem.rays),
        cost_before=solution.cost_before,
        cost_after=solution.graph.error(solution.values),
        covariance=covariance,
        error_by_vision=by_vision,
        with_imu=problem.chain is not None,
    )


@dataclass(frozen=True, eq=False)
class _Solution:
    graph: gtsam.NonlinearFactorGraph
    values: gtsam.Values
    cost_before: float


class _Problem:
    """One factor graph: its frames, landmarks and observations, as flat arrays."""

    def __init__(
        self,
        scene: Scene,
        frames: Sequence[FrameId],
        fixed: Sequence[FrameId],
        imu: Imu | None,
    ) -> None:
        self._scene = scene
        self._frames = [*frames, *fixed]  # the first num_free are moved
        self._num_free = len(frames)
        self._index = {frame: i for i, frame in enumerate(self._frames)}
        self.chain: InertialChain | None = None
        self._T_camera_body = np.eye(4)
        if imu is not None and scene.gravity is not None:
            chain = InertialChain(scene, imu, self._index, self._num_free)
            if len(chain):
                self.chain, self._T_camera_body = chain, imu.T_camera_body
        self.landmarks: list[int] = []
        rays, sigmas, seen_by, seen = [], [], [], []
        for track in sorted(scene.tracks_seen_by(frames)):
            if track not in scene.landmarks:
                continue
            views = [
                (self._index[frame], observation)
                for frame, observation in scene.observations[track].items()
                if frame in self._index
            ]
            if len(views) < 2:
                continue
            for index, observation in views:
                seen_by.append(index)
                seen.append(len(self.landmarks))
                rays.append(observation.ray)
                sigmas.append(observation.sigma)
            self.landmarks.append(track)
        self.rays = np.array(rays, float).reshape(-1, 2)
        self._sigmas = sigmas
        self._seen_by = np.array(seen_by, int)
        self._seen = np.array(seen, int)
        self._noises: dict[float, gtsam.noiseModel.Base] = {}

    def solve(self, iterations: int) -> _Solution:
        """The optimised values; the scene stays as it is."""
        values, graph = self.values(), self.graph()
        # Damping in proportion to the diagonal: with the same for all, the step of a far landmark
        # is too large before that of a rotation is noticeably damped, and the map stays as it is.
        parameters = gtsam.LevenbergMarquardtParams.CeresDefaults()
        parameters.setMaxIterations(iterations)
        parameters.setRelativeErrorTol(_LEAST_DECREASE)
        optimised = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()
        return _Solution(graph, optimised, graph.error(values))

    def values(self) -> gtsam.Values:
        values = gtsam.Values()
        for i, frame in enumerate(self._frames):
            values.insert(_pose(i), self._body(frame))
        if self.chain is not None:
            self.chain.insert(values)
        for i, track in enumerate(self.landmarks):
            values.insert(_landmark(i), self._scene.landmarks[track])
        return values

    def graph(self) -> gtsam.NonlinearFactorGraph:
        graph = gtsam.NonlinearFactorGraph()
        camera = gtsam.Pose3(inverse(self._T_camera_body))
        for index, landmark, ray, sigma in zip(
            self._seen_by.tolist(), self._seen.tolist(), self.rays, self._sigmas, strict=True
        ):
            what = ray, self._noise(sigma), _pose(index), _landmark(landmark), _UNIT_CAMERA
            graph.add(gtsam.GenericProjectionFactorCal3_S2(*what, False, False, camera))
        scaled = self._add_metric_poses(graph)
        held = range(self._num_free, len(self._frames)) or range(1)
        noise: gtsam.noiseModel.Base = gtsam.noiseModel.Isotropic.Sigma(6, _HELD)
        if self.chain is not None:
            self.chain.add(graph)
            if self._num_free == len(self._frames):
                noise = self._tilting(self._frames[0])
        for i in held:
            graph.add(gtsam.PriorFactorPose3(_pose(i), self._body(self._frames[i]), noise))
        if len(held) < 2 and not scaled and self.chain is None:
            self._hold_scale(graph, held[0])
        return graph

    def _body(self, frame: FrameId) -> gtsam.Pose3:
        """The pose of the IMU; without one, of the camera."""
        return gtsam.Pose3(self._scene.poses[frame] @ self._T_camera_body)

    def _tilting(self, frame: FrameId) -> gtsam.noiseModel.Base:
        """Noise of a pose that is held but for roll and pitch."""
        assert self._scene.gravity is not None
        up = self._body(frame).rotation().matrix().T @ self._scene.gravity
        up /= np.linalg.norm(up)
        covariance = _HELD**2 * np.eye(6)
        covariance[:3, :3] += _TILT**2 * (np.eye(3) - np.outer(up, up))
        return gtsam.noiseModel.Gaussian.Covariance(covariance)

    def _noise(self, sigma: float) -> gtsam.noiseModel.Base:
        if sigma not in self._noises:
            huber = gtsam.noiseModel.mEstimator.Huber.Create(_HUBER)
            gaussian = gtsam.noiseModel.Isotropic.Sigma(2, sigma)
            self._noises[sigma] = gtsam.noiseModel.Robust.Create(huber, gaussian)
        return self._noises[sigma]

    def _add_metric_poses(self, graph: gtsam.NonlinearFactorGraph) -> bool:
        added = False
        # A pose from wrong matches can be a metre off and claim millimetres: Huber's loss
        # keeps its full influence, Cauchy's vanishes.
        cauchy = gtsam.noiseModel.mEstimator.Cauchy.Create(_HALF_BELIEVED)
        T_body_camera = inverse(self._T_camera_body)
        to_body = gtsam.Pose3(T_body_camera).AdjointMap()
        for edge in self._scene.edges:
            inside = edge.reference in self._index and edge.query in self._index
            if edge.metric is None or edge.covariance is None or not inside:
                continue
            tangent = to_body @ _tangent(edge.metric, edge.covariance) @ to_body.T
            gaussian = gtsam.noiseModel.Gaussian.Covariance(tangent)
            noise = gtsam.noiseModel.Robust.Create(cauchy, gaussian)
            ends = _pose(self._index[edge.reference]), _pose(self._index[edge.query])
            step = gtsam.Pose3(T_body_camera @ edge.metric @ self._T_camera_body)
            graph.add(gtsam.BetweenFactorPose3(*ends, step, noise))
            added = True
        return added

    def _hold_scale(self, graph: gtsam.NonlinearFactorGraph, anchor: int) -> None:
        centres = np.stack([self._scene.poses[frame][:3, 3] for frame in self._frames])
        away = np.linalg.norm(centres - centres[anchor], axis=1)
        farthest = int(away.argmax())
        if away[farthest] > 0:
            distance = float(away[farthest])
            noise = gtsam.noiseModel.Isotropic.Sigma(1, _SCALE_HELD * distance)
            ends = _pose(anchor), _pose(farthest)
            graph.add(gtsam.RangeFactorPose3(*ends, distance, noise))

    def write_back(self, values: gtsam.Values) -> None:
        for i, frame in enumerate(self._frames[: self._num_free]):
            body = values.atPose3(_pose(i)).matrix()
            self._scene.poses[frame] = np.asarray(body @ inverse(self._T_camera_body))
        if self.chain is not None:
            self.chain.write_back(values)
        for i, track in enumerate(self.landmarks):
            self._scene.landmarks[track] = values.atPoint3(_landmark(i))

    def covariance(self, frame: FrameId, solution: _Solution) -> Array | None:
        """The marginal of a pose, see :class:`Adjustment`; after :meth:`write_back`."""
        try:
            marginals = gtsam.Marginals(solution.graph, solution.values)
            tangent = marginals.marginalCovariance(_pose(self._index[frame]))
        except RuntimeError:  # a landmark or a pose is not determined
            return None
        to_camera = gtsam.Pose3(self._T_camera_body).AdjointMap()
        tangent = to_camera @ tangent @ to_camera.T
        # GTSAM's order is rotation, translation, both in the camera's axes.
        to_world = np.zeros((6, 6))
        to_world[:3, 3:] = to_world[3:, :3] = self._scene.poses[frame][:3, :3]
        return np.asarray(to_world @ tangent @ to_world.T)

    def median_error(self, values: gtsam.Values) -> float:
        """Of the observations, in their standard deviations."""
        back = inverse(self._T_camera_body)
        poses = np.stack(
            [values.atPose3(_pose(i)).matrix() @ back for i in range(len(self._frames))]
        )
        points = np.stack([values.atPoint3(_landmark(i)) for i in range(len(self.landmarks))])
        error, depth = self._errors(poses, points)
        return float(np.median(error / np.maximum(depth, 1e-9) / self._sigmas))

    def _errors(self, poses: Array, points: Array) -> tuple[Array, Array]:
        """Errors of all observations times their depths, and these depths (K,)."""
        poses = poses[self._seen_by]
        local = np.einsum("kji,kj->ki", poses[:, :3, :3], points[self._seen] - poses[:, :3, 3])
        return np.linalg.norm(local[:, :2] - self.rays * local[:, 2:], axis=1), local[:, 2]

    def drop_outliers(self, max_error: float) -> None:
        """Drop observations whose error exceeds ``max_error`` (at depth 1) or that lie behind."""
        if not np.isfinite(max_error):
            return
        poses = np.stack([self._scene.poses[frame] for frame in self._frames])
        error, depth = self._errors(poses, self._scene.points(self.landmarks))
        off = error > max_error * np.maximum(depth, 0)
        for i in np.flatnonzero(off):
            self._scene.forget(self._frames[self._seen_by[i]], self.landmarks[self._seen[i]])


def _tangent(pose: Array, covariance: Array) -> Array:
    """Covariance of a relative pose as GTSAM takes it: rotation first, in the query's axes."""
    to_query = np.zeros((6, 6))
    to_query[:3, 3:] = to_query[3:, :3] = pose[:3, :3].T
    return np.asarray(to_query @ covariance @ to_query.T)


def _pose(index: int) -> int:
    return int(gtsam.symbol("x", index))


def _landmark(index: int) -> int:
    return int(gtsam.symbol("l", index))
