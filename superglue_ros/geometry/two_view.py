"""Relative pose of two calibrated views from matches, with a verdict on how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.errors import FeaturesError
from superglue_ros.geometry import epipolar
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.degeneracy import Model, gric
from superglue_ros.geometry.least_squares import minimise
from superglue_ros.geometry.robust import robust_homography, robust_relative_pose
from superglue_ros.geometry.rotation import nearest
from superglue_ros.geometry.two_view_models import Motion, RayPairs, transfer
from superglue_ros.geometry.two_view_models import epipolar as epipolar_model
from superglue_ros.types import BoolArray, PoseMethod, PoseStatus

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TwoViewGeometry:
    """``x_ref = R x_query + t`` and all that says how far to trust it.

    ``rotation`` (3, 3), ``translation`` (3,) of unit norm unless ``scale_known`` (then metres), and
    zero where its direction is unknown (ROTATION_ONLY, or no pose); ``covariance`` (6, 6), see
    :mod:`superglue_ros.geometry.covariance`; ``inliers`` (K,) bool over the given matches;
    ``threshold_px``, ``median_epipolar_px`` pixels, ``median_parallax_rad`` radians (NaN-free: 0
    where there is nothing to measure).
    """

    status: PoseStatus
    method: PoseMethod
    rotation: Array
    translation: Array
    covariance: Array
    scale_known: bool
    inliers: BoolArray
    threshold_px: float
    median_epipolar_px: float
    median_parallax_rad: float


def no_pose(
    num_matches: int, config: GeometryConfig, status: PoseStatus = PoseStatus.REJECTED
) -> TwoViewGeometry:
    """No estimate: identity, covariance[0, 0] = -1, no inliers."""
    covariance = np.zeros((6, 6))
    covariance[0, 0] = -1.0
    return TwoViewGeometry(
        status,
        PoseMethod.NONE,
        np.eye(3),
        np.zeros(3),
        covariance,
        False,
        np.zeros(num_matches, bool),
        config.threshold_px,
        0.0,
        0.0,
    )


def estimate_two_view(
    points_ref: ArrayLike,
    points_query: ArrayLike,
    camera_ref: Camera,
    camera_query: Camera,
    config: GeometryConfig,
    scores: ArrayLike | None = None,
    sigma_px: ArrayLike | None = None,
    depth_ref: ArrayLike | None = None,
) -> TwoViewGeometry:
    """Pose of the query camera in the reference camera from K matches.

    ``points_ref``, ``points_query`` (K, 2) pixels of the original images; ``scores`` (K,) in [0, 1],
    the probability that a match is right; ``sigma_px`` (K,) pixels, standard deviation of a match,
    that is the root of the sum of both keypoints' variances; ``depth_ref`` (K,) metres along the
    optical axis at the reference points, 0 or NaN = unknown.

    Raises :class:`FeaturesError` on points that are not finite or lengths that differ.
    """
    ref_px, query_px = _points(points_ref, "points_ref"), _points(points_query, "points_query")
    count = len(ref_px)
    if len(query_px) != count:
        raise FeaturesError(
            f"{count} reference points against {len(query_px)} query points: give them in pairs"
        )
    if count < config.min_matches:
        return no_pose(count, config, PoseStatus.FEW)
    rays_ref, rays_query = camera_ref.rays(ref_px), camera_query.rays(query_px)
    seen = np.isfinite(rays_ref).all(axis=1) & np.isfinite(rays_query).all(axis=1)
    rays_ref, rays_query = rays_ref[seen], rays_query[seen]
    pixel = np.ones(len(rays_ref))
    pairs = RayPairs(
        rays_ref,
        rays_query,
        camera_ref.ray_sigma(rays_ref, pixel),
        camera_query.ray_sigma(rays_query, pixel),
    )
    focals = (camera_ref.focal, camera_query.focal)
    pose = robust_relative_pose(rays_ref, rays_query, *focals, config)
    if pose is None:
        return no_pose(count, config)
    prior = np.ones(len(pairs))
    scale = config.threshold_px / 2
    general = minimise(
        Motion(*pose), lambda m: epipolar_model(m, pairs), Motion.moved, prior, scale
    )
    motion = general.state
    status, method = PoseStatus.VALID, PoseMethod.ESSENTIAL
    score = gric(general.linearisation.residuals / scale, Model.GENERAL)
    turn = _rotation(motion, pairs, scale, config)
    turn_score = gric(turn.linearisation.residuals / scale, Model.ROTATION)
    parallax = epipolar.parallax(rays_ref, rays_query, motion.rotation)
    distance = np.abs(epipolar_model(motion, pairs).residuals[:, 0])
    good = (distance <= config.threshold_px) & epipolar.in_front(
        rays_ref, rays_query, motion.rotation, motion.translation
    )
    if turn_score < score or (
        good.any() and np.median(parallax[good]) < np.deg2rad(config.min_parallax_deg)
    ):
        status = PoseStatus.ROTATION_ONLY
        motion = Motion(turn.state.rotation, np.zeros(3))
        parallax = epipolar.parallax(rays_ref, rays_query, motion.rotation)
    else:
        plane_score, plane = _plane(pairs, focals, scale, config)
        if plane is not None and plane_score < score:
            status, method, motion = PoseStatus.PLANAR, PoseMethod.HOMOGRAPHY, plane
            distance = np.abs(epipolar_model(motion, pairs).residuals[:, 0])
            good = distance <= config.threshold_px
    inliers = np.zeros(count, bool)
    inliers[seen] = good
    if good.sum() < max(config.min_inliers, config.min_inlier_share * count):
        status = PoseStatus.REJECTED
    covariance = np.zeros((6, 6))
    essential = epipolar.essential_matrix(motion.rotation, motion.translation)
    symmetric = epipolar.symmetric_distance_px(rays_ref[good], rays_query[good], essential, *focals)
    return TwoViewGeometry(
        status,
        method,
        motion.rotation,
        motion.translation,
        covariance,
        False,
        inliers,
        config.threshold_px,
        float(np.median(symmetric)) if good.any() else 0.0,
        float(np.median(parallax[good])) if good.any() else 0.0,
    )


def _rotation(motion, pairs, scale, config):  # type: ignore[no-untyped-def]
    from superglue_ros.geometry.least_squares import TUKEY  # noqa: F401

    start = Motion(motion.rotation, np.array([0.0, 0.0, 1.0]))
    fit = minimise(
        start, lambda m: transfer(m, pairs), Motion.moved, np.ones(len(pairs)), 10 * scale
    )
    return minimise(
        fit.state, lambda m: transfer(m, pairs), Motion.moved, np.ones(len(pairs)), scale
    )


def _plane(pairs, focals, scale, config):  # type: ignore[no-untyped-def]
    matrix = robust_homography(pairs.ref, pairs.query, *focals, config)
    if matrix is None:
        return np.inf, None
    best = (np.inf, None)
    _, rotations, translations, normals = cv2.decomposeHomographyMat(matrix, np.eye(3))
    for rotation, translation, normal in zip(rotations, translations, normals, strict=True):
        size = np.linalg.norm(translation)
        if size < 1e-6:
            continue
        plane = normal.ravel() * size
        if np.median(epipolar.homogeneous(pairs.query) @ plane) <= 0:
            continue
        start = Motion(nearest(rotation), translation.ravel() / size, plane)
        fit = minimise(
            start, lambda m: transfer(m, pairs), Motion.moved, np.ones(len(pairs)), scale
        )
        score = gric(fit.linearisation.residuals / scale, Model.PLANE)
        if score < best[0]:
            best = (score, fit.state)
    return best


def _points(values: ArrayLike, name: str) -> Array:
    points = np.asarray(values, np.float64)
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise FeaturesError(f"{name} have shape {points.shape}: give (K, 2) pixels")
    if not np.isfinite(points).all():
        raise FeaturesError(f"{name} hold NaN or infinite pixels: drop these matches")
    return points
