"""Rectified stereo: matches along rows, depth from disparity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.errors import CalibrationError, FeaturesError
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.covariance import noise_scale

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Standard deviation of the difference of two values that are rounded to whole steps.
_ROUNDING_OF_A_DIFFERENCE = 1 / np.sqrt(6)
_WIDEST_GRID_PX = 16.0


@dataclass(frozen=True, eq=False)
class StereoRig:
    """A rectified pair: same rows, left camera as reference, ``baseline`` in metres (> 0)."""

    left: Camera
    right: Camera
    baseline: float


@dataclass(frozen=True, eq=False)
class StereoDepth:
    """Per match: ``depth`` (K,) metres along the left optical axis, 0 where the match is no
    ``inlier`` (K,), and its standard deviation ``sigma`` (K,) metres.
    """

    depth: Array
    sigma: Array
    inlier: BoolArray


def stereo_rig(left: Camera, right: Camera, p_right: Sequence[float] | Array) -> StereoRig:
    """The rig of two rectified cameras; ``p_right`` (12) is the right CameraInfo's P, whose fourth
    value is -fx times the baseline.

    Raises :class:`CalibrationError` where P holds no baseline or an image is not rectified.
    """
    projection = np.asarray(p_right, np.float64).ravel()
    if projection.size != 12 or not np.isfinite(projection).all() or projection[0] <= 0:
        raise CalibrationError(
            "P of the right camera is not a projection matrix: calibrate the pair"
        )
    if projection[3] == 0:
        raise CalibrationError(
            "P[3] of the right camera is 0, so the baseline is missing: calibrate the pair as "
            "stereo, so that P[3] is -fx times the baseline in metres"
        )
    baseline = -projection[3] / projection[0]
    if baseline <= 0:
        raise CalibrationError(
            f"P[3] of the right camera gives a baseline of {baseline:g} m: it must be -fx times "
            "the baseline; are left and right swapped?"
        )
    if left.distorted or right.distorted:
        raise CalibrationError("a stereo camera still has distortion: use the rectified images")
    return StereoRig(left, right, float(baseline))


def stereo_depth(
    points_left: ArrayLike,
    points_right: ArrayLike,
    rig: StereoRig,
    config: GeometryConfig,
    sigma_px: ArrayLike | None = None,
) -> StereoDepth:
    """Depth of matched keypoints (K, 2) and (K, 2), pixels of the rectified images.

    Inliers lie on the same row, to within ``config.threshold_px`` per image, and have a positive
    disparity. ``sigma_px`` (K,) is the standard deviation of the disparity, by default sqrt(2) px.
    """
    left = np.asarray(points_left, np.float64).reshape(-1, 2)
    right = np.asarray(points_right, np.float64).reshape(-1, 2)
    if len(left) != len(right):
        raise FeaturesError(
            f"{len(left)} left points against {len(right)} right points: give them in pairs"
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise FeaturesError("stereo points hold NaN or infinite pixels: drop these matches")
    rays_left, rays_right = rig.left.rays(left), rig.right.rays(right)
    offset = rays_left - rays_right
    # The Sampson distance of a rectified pair: the row difference shared by both images.
    row_px = np.abs(offset[:, 1]) * rig.left.focal / np.sqrt(2)
    inlier = (row_px <= config.threshold_px) & (offset[:, 0] > 1e-6)
    disparity = np.where(inlier, offset[:, 0], 1.0)
    depth = np.where(inlier, rig.baseline / disparity, 0.0)
    sigma = np.full(len(left), np.sqrt(2)) if sigma_px is None else np.asarray(sigma_px, np.float64)
    spread = depth**2 / rig.baseline * sigma / rig.left.matrix[0, 0]
    return StereoDepth(depth, spread, inlier)


def disparity_sigma(
    points_left: ArrayLike,
    points_right: ArrayLike,
    rig: StereoRig,
    config: GeometryConfig,
    sigma_px: ArrayLike,
) -> Array:
    """Standard deviation (K,) in pixels of the disparities of K matched keypoints.

    ``sigma_px`` (K,) are those of the keypoints. True rows are equal, so the spread of the row
    differences estimates that of the disparities too. But where keypoints lie on a grid, as those
    of a network do, rows are rounded alike and disparities are not; the rounding error is added.
    """
    left = np.asarray(points_left, np.float64).reshape(-1, 2)
    right = np.asarray(points_right, np.float64).reshape(-1, 2)
    claimed = np.asarray(sigma_px, np.float64)
    rows = (rig.left.rays(left) - rig.right.rays(right))[:, 1] * rig.left.focal
    limit = np.sqrt(2) * config.threshold_px / max(float(np.median(claimed)), 1e-3)
    scale = noise_scale(rows / claimed, 1.0, limit)
    steps = np.diff(np.unique(np.concatenate((left[:, 0], right[:, 0]))))
    grid = min(float(steps[steps > 1e-3].min(initial=np.inf)), _WIDEST_GRID_PX)
    return np.hypot(scale * claimed, grid * _ROUNDING_OF_A_DIFFERENCE)
