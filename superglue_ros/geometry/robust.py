"""Robust poses and homographies between rays, by the configured estimator.

Rays times a focal length are pixels of an ideal camera without distortion: thresholds stay pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry.estimators import Pose, RansacOptions, make_estimator

Array = NDArray[np.float64]


def robust_relative_pose(
    rays_ref: Array,
    rays_query: Array,
    focal_ref: float,
    focal_query: float,
    config: GeometryConfig,
    weights: Array | None = None,
) -> Pose | None:
    """``(R, t)``, ``x_ref = R x_query + t``, |t| = 1, or None where the estimator finds none.

    ``weights`` (K,) of the matches, for an estimator that samples by them.
    """
    found = make_estimator(config.estimator).relative_pose(
        focal_query * rays_query,
        focal_ref * rays_ref,
        _intrinsics(focal_query),
        _intrinsics(focal_ref),
        _options(config),
        weights,
    )
    return None if found is None else (found.rotation, found.translation)


def robust_homography(
    rays_ref: Array, rays_query: Array, focal_ref: float, focal_query: float, config: GeometryConfig
) -> Array | None:
    """``H`` (3, 3) with ``x_ref ~ H x_query`` on rays, or None where the estimator finds none."""
    matrix = make_estimator(config.estimator).homography(
        focal_query * rays_query, focal_ref * rays_ref, _options(config)
    )
    if matrix is None:
        return None
    return np.diag([1 / focal_ref, 1 / focal_ref, 1.0]) @ matrix @ _intrinsics(focal_query)


def robust_absolute_pose(
    points_ref: Array, rays_query: Array, focal_query: float, config: GeometryConfig
) -> Pose | None:
    """``(R, t)`` with ``x_ref = R x_query + t`` from points (K, 3) in the reference frame."""
    found = make_estimator(config.estimator).absolute_pose(
        points_ref, focal_query * rays_query, _intrinsics(focal_query), _options(config)
    )
    if found is None:
        return None
    rotation, translation = found
    return rotation.T, -rotation.T @ translation


def _intrinsics(focal: float) -> Array:
    return np.diag([focal, focal, 1.0])


def _options(config: GeometryConfig) -> RansacOptions:
    return RansacOptions(
        threshold_px=config.threshold_px,
        confidence=config.confidence,
        max_iterations=config.max_iterations,
        seed=config.seed,
        min_iterations=100,  # most pairs are easy, and time per frame is limited
    )
