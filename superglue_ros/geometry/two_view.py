"""Relative pose of two calibrated views from matches, with a status of its quality.

    pixels -> rays -> pose (monocular, with depth, or of a stereo pair) -> status

docs/geometry.md describes the steps and the thresholds of every status.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.errors import FeaturesError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.covariance import image_cells
from superglue_ros.geometry.monocular import monocular_pose
from superglue_ros.geometry.pnp import metric_pose
from superglue_ros.geometry.stereo import StereoRig, stereo_depth
from superglue_ros.geometry.two_view_models import RayPairs
from superglue_ros.geometry.verdict import PoseMethod, PoseStatus
from superglue_ros.geometry.views import TwoViewGeometry, Views, no_pose, pose_of

__all__ = ["TwoViewGeometry", "estimate_stereo", "estimate_two_view", "no_pose"]

Array = NDArray[np.float64]

# Minimum number of matches with depth for a metric pose.
LEAST_DEPTHS = 8
# Minimum weight of a match: a matcher's confidence is not calibrated well enough for less.
_LEAST_WEIGHT = 0.05
# A rotation less certain than this (radians, about its worst axis) is rejected.
_MOST_ROTATION_SIGMA = 0.5


def estimate_two_view(
    points_ref: ArrayLike,
    points_query: ArrayLike,
    camera_ref: Camera,
    camera_query: Camera,
    config: GeometryConfig,
    scores: ArrayLike | None = None,
    sigma_px: ArrayLike | None = None,
    depth_ref: ArrayLike | None = None,
    depth_sigma: ArrayLike | None = None,
) -> TwoViewGeometry:
    """Pose of the query camera in the reference camera from K matches.

    ``points_ref``, ``points_query`` (K, 2) pixels of the original images; ``scores`` (K,), the
    probability that a match is right, its weight in the pose (section 4 of the paper);
    ``sigma_px`` (K,) pixels, standard deviation of a match, that is the root of the sum of both
    keypoints' variances; ``depth_ref`` (K,) metres along the optical axis at the reference points,
    0 or NaN = unknown: where enough are known, the pose is metric (method PNP); ``depth_sigma``
    (K,) metres, their standard deviations, by default and where 0 or NaN ``geometry.depth_noise``
    of the depth.

    Raises :class:`FeaturesError` on points that are not finite or lengths that differ.
    """
    ref_px, query_px = _points(points_ref, "points_ref"), _points(points_query, "points_query")
    count = len(ref_px)
    if len(query_px) != count:
        raise FeaturesError(
            f"{count} reference points against {len(query_px)} query points: give them in pairs"
        )
    score = _values(scores, "scores", count, 1.0)
    sigma = _values(sigma_px, "sigma_px", count, np.sqrt(2.0))
    depth = _values(depth_ref, "depth_ref", count, 0.0, finite=False)
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)
    spread = _values(depth_sigma, "depth_sigma", count, 0.0, finite=False)
    spread = np.where(np.isfinite(spread) & (spread > 0), spread, config.depth_noise * depth)
    if count < config.min_matches:
        return no_pose(count, config, PoseStatus.FEW)
    rays_ref, rays_query = camera_ref.rays(ref_px), camera_query.rays(query_px)
    seen = np.isfinite(np.column_stack((rays_ref, rays_query))).all(axis=1)
    expected = max(float(np.median(sigma)), 1e-3)
    # A match is not worth more than the systematic errors allow, however exact its pixels are.
    total = np.hypot(sigma, config.systematic_px / np.sqrt(2.0))
    views = Views(
        pairs=RayPairs(
            rays_ref,
            rays_query,
            camera_ref.ray_sigma(rays_ref, np.ones(count)),
            camera_query.ray_sigma(rays_query, np.ones(count)),
        ),
        focal_ref=camera_ref.focal,
        focal_query=camera_query.focal,
        relative_sigma=np.clip(total / max(float(np.median(total)), 1e-3), 0.1, 10.0),
        expected_px=expected / np.sqrt(2.0),
        prior=np.clip(score, _LEAST_WEIGHT, 1.0),
        cells=image_cells(query_px, camera_query.width),
        depth=depth,
        depth_sigma=spread,
        size_query=(camera_query.width, camera_query.height),
    ).select(np.asarray(seen))
    result = metric_pose(views, config) if (views.depth > 0).sum() >= LEAST_DEPTHS else None
    if result is None:
        result = monocular_pose(views, config)
    inliers = np.zeros(count, bool)
    inliers[seen] = result.inliers
    return _verdict(replace(result, inliers=inliers), config)


def estimate_stereo(
    points_left: ArrayLike, points_right: ArrayLike, rig: StereoRig, config: GeometryConfig
) -> TwoViewGeometry:
    """The known geometry of a rectified pair, checked by K matches: pose of the right camera.

    The pose is the calibration's; its covariance is unknown (all zero). Inliers are as in
    :func:`superglue_ros.geometry.stereo.stereo_depth`, which gives the depths.
    """
    left, right = _points(points_left, "points_left"), _points(points_right, "points_right")
    inliers = stereo_depth(left, right, rig, config).inlier
    if len(left) < config.min_matches:
        return no_pose(len(left), config, PoseStatus.FEW)
    ones = np.ones(int(inliers.sum()))
    good = RayPairs(
        rig.left.rays(left[inliers]),
        rig.right.rays(right[inliers]),
        ones / rig.left.focal,
        ones / rig.right.focal,
    )
    result = pose_of(
        PoseStatus.VALID,
        PoseMethod.STEREO,
        (np.eye(3), np.array([rig.baseline, 0.0, 0.0])),
        np.zeros((6, 6)),
        inliers,
        good,
        (rig.left.focal, rig.right.focal),
        config,
    )
    return _verdict(result, config)


def _verdict(result: TwoViewGeometry, config: GeometryConfig) -> TwoViewGeometry:
    """REJECTED if too few matches agree, or the rotation is not determined."""
    needed = max(config.min_inliers, config.min_inlier_share * len(result.inliers))
    turn = float(np.sqrt(np.linalg.eigvalsh(result.covariance[3:, 3:])[-1]))
    if result.inliers.sum() >= needed and turn < _MOST_ROTATION_SIGMA:
        return result
    return replace(result, status=PoseStatus.REJECTED)


def _points(values: ArrayLike, name: str) -> Array:
    points = np.asarray(values, np.float64)
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise FeaturesError(f"{name} have shape {points.shape}: give (K, 2) pixels")
    if not np.isfinite(points).all():
        raise FeaturesError(f"{name} hold NaN or infinite pixels: drop these matches")
    return points


def _values(
    values: ArrayLike | None, name: str, count: int, default: float, *, finite: bool = True
) -> Array:
    if values is None:
        return np.full(count, default)
    array = np.asarray(values, np.float64).ravel()
    if len(array) != count:
        raise FeaturesError(f"{name} has {len(array)} values for {count} matches: give one each")
    if finite and not np.isfinite(array).all():
        raise FeaturesError(f"{name} hold NaN or infinite values: drop these matches")
    return array
