"""The first estimate of a new frame's pose, from its landmarks and its relative pose.

Few landmarks give a poor rotation, and a monocular relative pose has no length: neither suffices
alone. The joint estimate takes rotation and direction from the relative pose and the length from
the landmarks if those are few, and mostly follows the landmarks if they are many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import poselib
from scipy.optimize import least_squares

from superglue_ros.back_end.config import BackEndConfig
from superglue_ros.back_end.scene import Array, Edge, Scene, in_camera, inverse, pose_of
from superglue_ros.back_end.triangulation import projection_slope
from superglue_ros.geometry.rotation import exp, log, tangent_basis
from superglue_ros.types import BoolArray, PoseStatus, RelativePose

USABLE = (PoseStatus.VALID, PoseStatus.PLANAR, PoseStatus.ROTATION_ONLY)

_MIN_INLIER_SHARE = 0.5
_LEAST_LANDMARKS = 4  # that agree on a length
_BEHIND = 100.0  # residual, in standard deviations, of a landmark behind the camera
_SPEED = np.log(3.0)  # standard deviation of the logarithm of a step over the one before
_LEAST_STEP = 1e-3  # metres, of one that an IMU expects
_COMPARABLE = 10  # times of two steps: over more than that no speed is constant
_REST_RAD = np.deg2rad(0.5)  # parallax that ROTATION_ONLY may hide


@dataclass(frozen=True, eq=False)
class Seen:
    """Landmarks with a position that a frame sees.

    ``points`` (K, 3) in the world with covariance ``spread`` (K, 3, 3); ``rays`` (K, 2) at depth 1
    with standard deviations ``sigma`` (K,).
    """

    points: Array
    spread: Array
    rays: Array
    sigma: Array

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class Placement:
    """``pose`` (4, 4) ``T_world_camera``; ``agreeing`` (K,) which landmarks agree with it.

    ``scaled``: the length of the step is measured, by landmarks or by depth, and not guessed.
    """

    pose: Array
    agreeing: BoolArray
    scaled: bool


def place(
    scene: Scene,
    relative: RelativePose,
    seen: Seen,
    focal_px: float,
    config: BackEndConfig,
    expected: Array | None = None,
) -> Placement | None:
    """The query's pose from that of the reference and from the landmarks it sees.

    Where an IMU leads one to expect a pose (4, 4), a step of unknown length is taken to be as long.
    None if there are too few landmarks and no usable relative pose.
    """
    starts = []
    resected = resect(seen.points, seen.rays, focal_px, config)
    if resected is not None:
        starts.append(resected[0])
    reference = scene.poses.get(relative.reference)
    if relative.status not in USABLE or reference is None:
        if resected is None:
            return None
        return Placement(resected[0], resected[1], True)

    def after(length: float) -> Array:
        return np.asarray(reference @ pose_of(relative.rotation, length * relative.translation))

    if expected is None:
        usual = _usual_length(scene, relative)
    else:
        usual = max(float(np.linalg.norm(expected[:3, 3] - reference[:3, 3])), _LEAST_STEP)
    guess = after(1.0 if relative.scale_known else usual)
    limit = config.max_error_px / focal_px
    if len(seen) < _LEAST_LANDMARKS:
        return Placement(guess, _agreeing(guess, seen, limit), relative.scale_known)
    length = None if relative.scale_known else _length_by_landmarks(reference, relative, seen)
    starts.append(guess if length is None else after(length))
    fits = [_likeliest(start, reference, relative, usual, seen) for start in starts]
    pose = min(fits, key=lambda fit: fit[1])[0]
    agreeing = _agreeing(pose, seen, limit)
    enough = bool(agreeing.sum() >= max(_LEAST_LANDMARKS, _MIN_INLIER_SHARE * len(seen) / 2))
    if not enough and not relative.scale_known:
        # The landmarks agree on no length: rotation and direction are still valid.
        pose = guess
    return Placement(pose, agreeing, enough or relative.scale_known)


def resect(
    points: Array, rays: Array, focal_px: float, config: BackEndConfig
) -> tuple[Array, BoolArray] | None:
    """Pose ``T_world_camera`` of a camera that sees world ``points`` (K, 3) along ``rays`` (K, 2).

    Also the inliers (K,). None with too few points, or if fewer than half of them agree.
    """
    if len(points) < config.min_landmarks:
        return None
    camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal_px, 0.0, 0.0]}
    camera_pose, information = poselib.estimate_absolute_pose(
        rays * focal_px,
        points,
        camera,
        {"max_reproj_error": config.max_error_px, "min_iterations": 50, "seed": config.seed},
    )
    inliers = np.array(information["inliers"], bool)
    if inliers.sum() < max(config.min_landmarks / 2, _MIN_INLIER_SHARE * len(points)):
        return None
    world_to_camera = pose_of(np.asarray(camera_pose.R), np.asarray(camera_pose.t))
    return inverse(world_to_camera), inliers


def _length_by_landmarks(reference: Array, relative: RelativePose, seen: Seen) -> float | None:
    """Distance of the query along the direction of the relative pose: weighted median over the
    landmarks. None if there are too few, or there is no direction.
    """
    if len(seen) < _LEAST_LANDMARKS or not relative.translation.any():
        return None
    local = in_camera(reference, seen.points)
    rays = np.column_stack((seen.rays, np.ones(len(seen))))
    # The ray is parallel to R^T (x - s t): one linear equation in s, in units of the ray's noise.
    off = np.cross(rays, local @ relative.rotation)
    slope = -np.cross(rays, relative.translation @ relative.rotation)
    noise = np.maximum(local[:, 2], 1e-9) * seen.sigma
    strength = (slope**2).sum(axis=1)
    usable = (local[:, 2] > 0) & (strength > 1e-18)
    if usable.sum() < _LEAST_LANDMARKS:
        return None
    lengths = -(off * slope).sum(axis=1)[usable] / strength[usable]
    weights = np.sqrt(strength[usable]) / noise[usable]
    order = np.argsort(lengths)
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    length = float(lengths[order][min(int(middle), len(order) - 1)])
    return length if length > 0 else None


def _likeliest(
    start: Array, reference: Array, relative: RelativePose, usual: float, seen: Seen
) -> tuple[Array, float]:
    """The most likely pose near ``start`` given landmarks and relative pose, and its cost.

    Cauchy loss on all: each may be wrong. The prior on a step of unknown length is a factor of
    three about the ``usual`` one, or a few wrong landmarks could shrink the scale to zero.
    """
    depth = float(np.median(np.linalg.norm(seen.points - reference[:3, 3], axis=1)))
    prior = _prior(relative, usual, depth)

    def moved(step: Array) -> Array:
        pose = start.copy()
        pose[:3, :3] = start[:3, :3] @ exp(step[:3])
        pose[:3, 3] = start[:3, 3] + depth * step[3:]
        return pose

    whitening = _landmark_whitening(start, seen)

    def residuals(step: Array) -> Array:
        pose = moved(step)
        off = np.einsum("kij,kj->ki", whitening, _off(pose, seen))
        return np.concatenate((off.ravel(), prior(inverse(reference) @ pose)))

    fit = least_squares(residuals, np.zeros(6), loss="cauchy", f_scale=2.0, max_nfev=30)
    return moved(fit.x), float(fit.cost)


def _landmark_whitening(pose: Array, seen: Seen) -> Array:
    """(K, 2, 2) inverse square roots of the covariance of the reprojection errors.

    A landmark that was seen under little parallax is uncertain along its ray: it constrains
    the rotation but hardly the length.
    """
    slope = projection_slope(pose, seen.points)
    covariance = slope @ seen.spread @ slope.transpose(0, 2, 1)
    trace = np.trace(covariance, axis1=1, axis2=2)
    covariance += (seen.sigma**2 + 1e-9 * trace)[:, None, None] * np.eye(2)
    return np.linalg.inv(np.linalg.cholesky(covariance))


def _prior(relative: RelativePose, usual: float, depth: float) -> Callable[[Array], Array]:
    """Whitened deviation of a relative motion (4, 4) from the measured one, as a function."""
    if relative.scale_known:
        factor = _whitening(relative.covariance)

        def metric(step: Array) -> Array:
            shifted = step[:3, 3] - relative.translation
            return np.asarray(factor @ np.concatenate((shifted, _turned(step, relative))))

        return metric
    if not relative.translation.any():
        factor = _whitening(relative.covariance[3:, 3:])

        def at_rest(step: Array) -> Array:
            shifted = step[:3, 3] / (_REST_RAD * depth)
            return np.concatenate((shifted, factor @ _turned(step, relative)))

        return at_rest
    basis = np.zeros((6, 5))
    basis[:3, :2], basis[3:, 2:] = tangent_basis(relative.translation), np.eye(3)
    factor = _whitening(basis.T @ relative.covariance @ basis)

    def direction_and_turn(step: Array) -> Array:
        length = max(float(np.linalg.norm(step[:3, 3])), 1e-12)
        direction = step[:3, 3] / length
        apart = np.concatenate((direction - relative.translation, _turned(step, relative)))
        opposite = max(0.0, -float(direction @ relative.translation)) * _BEHIND
        faster = np.log(length / usual) / _SPEED
        return np.concatenate((factor @ basis.T @ apart, [opposite, faster]))

    return direction_and_turn


def _turned(step: Array, relative: RelativePose) -> Array:
    return log(step[:3, :3] @ relative.rotation.T)


def _whitening(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    floor = max(1e-9 * float(values[-1]), 1e-12)
    return np.asarray(vectors.T / np.sqrt(np.maximum(values, floor))[:, None])


def _off(pose: Array, seen: Seen) -> Array:
    """Reprojection errors (K, 2) at depth 1; far off for landmarks behind the camera."""
    local = in_camera(pose, seen.points)
    front = local[:, 2] > 1e-9
    depth = np.where(front, local[:, 2], 1.0)
    off = local[:, :2] / depth[:, None] - seen.rays
    return np.where(front[:, None], off, _BEHIND * seen.sigma[:, None])


def _agreeing(pose: Array, seen: Seen, limit: float) -> BoolArray:
    return np.asarray(np.linalg.norm(_off(pose, seen), axis=1) <= limit)


def _usual_length(scene: Scene, relative: RelativePose) -> float:
    """Length of the pair's step at the speed of the newest step to or from its reference.

    Else at that of the newest one of all; 1 for the first. As long as that one where the times of
    the two are not comparable: without stamps, or where a loop joins what lies far apart in time.
    """
    known = [edge for edge in scene.edges if {edge.reference, edge.query} <= scene.poses.keys()]
    near = [edge for edge in known if relative.reference in (edge.query, edge.reference)]
    for edge in (*reversed(near), *reversed(known)):
        ends = scene.poses[edge.reference][:3, 3], scene.poses[edge.query][:3, 3]
        length = float(np.linalg.norm(ends[0] - ends[1]))
        if length > 0:
            times = _elapsed_ns(relative), _elapsed_ns(edge)
            comparable = 0 < max(times) <= _COMPARABLE * min(times)
            return length * times[0] / times[1] if comparable else length
    return 1.0


def _elapsed_ns(pair: Edge | RelativePose) -> int:
    """Time between the two frames of a pair, without its sign."""
    return abs(pair.query.stamp_ns - pair.reference.stamp_ns)
