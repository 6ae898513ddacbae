"""Robust estimators of essential matrix, homography and absolute pose behind one call each.

All take rays and focal lengths and work on ``focal * ray``, pixels of an ideal camera without
distortion, so that thresholds are in pixels. All are deterministic for a given seed; OpenCV's
classical RANSAC always starts from the same state and ignores it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.errors import ConfigError
from superglue_ros.geometry.epipolar import decompose_essential

Array = NDArray[np.float64]
Pose = tuple[Array, Array]


def robust_relative_pose(
    rays_ref: Array, rays_query: Array, focal_ref: float, focal_query: float, config: GeometryConfig
) -> Pose | None:
    """``(R, t)``, ``x_ref = R x_query + t``, |t| = 1, or None where the estimator finds none."""
    if len(rays_ref) < 5:
        return None
    ref, query = focal_ref * rays_ref, focal_query * rays_query
    if config.estimator == "poselib":
        # PoseLib maps its first image to its second.
        pose, _ = _poselib().estimate_relative_pose(
            query, ref, _pinhole(focal_query), _pinhole(focal_ref), _ransac_options(config), {}
        )
        return _unit(_checked(np.asarray(pose.R), np.asarray(pose.t)))
    essential = _opencv_essential(ref, query, focal_ref, focal_query, config)
    if essential is None or essential.shape != (3, 3):
        return None
    return _unit(_checked(*decompose_essential(essential, rays_ref, rays_query)))


def robust_homography(
    rays_ref: Array, rays_query: Array, focal_ref: float, focal_query: float, config: GeometryConfig
) -> Array | None:
    """``H`` (3, 3) with ``x_ref ~ H x_query`` on rays, or None where the estimator finds none."""
    if len(rays_ref) < 4:
        return None
    ref, query = focal_ref * rays_ref, focal_query * rays_query
    if config.estimator == "poselib":
        matrix, _ = _poselib().estimate_homography(query, ref, _ransac_options(config), {})
    else:
        method = cv2.USAC_MAGSAC if config.estimator == "usac-magsac" else cv2.RANSAC
        matrix, _ = cv2.findHomography(
            query,
            ref,
            method,
            config.threshold_px,
            maxIters=config.max_iterations,
            confidence=config.confidence,
        )
    if matrix is None or not np.isfinite(matrix).all():
        return None
    scale_ref = np.diag([1 / focal_ref, 1 / focal_ref, 1.0])
    return scale_ref @ np.asarray(matrix, np.float64) @ np.diag([focal_query, focal_query, 1.0])


def robust_absolute_pose(
    points_ref: Array, rays_query: Array, focal_query: float, config: GeometryConfig
) -> Pose | None:
    """``(R, t)`` with ``x_ref = R x_query + t`` from points (K, 3) in the reference frame."""
    if len(points_ref) < 4:
        return None
    query = focal_query * rays_query
    if config.estimator == "poselib":
        pose, _ = _poselib().estimate_absolute_pose(
            query, points_ref, _pinhole(focal_query), _ransac_options(config), {}
        )
        rotation, translation = np.asarray(pose.R), np.asarray(pose.t)
    else:
        cv2.setRNGSeed(config.seed)
        found, vector, translation, _ = cv2.solvePnPRansac(
            points_ref,
            query,
            np.diag([focal_query, focal_query, 1.0]),
            None,
            iterationsCount=config.max_iterations,
            reprojectionError=config.threshold_px,
            confidence=config.confidence,
            flags=cv2.SOLVEPNP_SQPNP if len(points_ref) == 4 else cv2.SOLVEPNP_EPNP,
        )
        if not found:
            return None
        rotation, translation = np.asarray(cv2.Rodrigues(vector)[0]), translation.ravel()
    return _checked(rotation.T, -rotation.T @ translation)


def _opencv_essential(
    ref: Array, query: Array, focal_ref: float, focal_query: float, config: GeometryConfig
) -> Array | None:
    k_ref, k_query = (np.diag([f, f, 1.0]) for f in (focal_ref, focal_query))
    try:
        if config.estimator == "usac-magsac":
            parameters = cv2.UsacParams()
            parameters.score = cv2.SCORE_METHOD_MAGSAC
            parameters.sampler = cv2.SAMPLING_UNIFORM
            parameters.loMethod = cv2.LOCAL_OPTIM_SIGMA
            parameters.final_polisher = cv2.MAGSAC
            parameters.final_polisher_iterations = 3
            parameters.loIterations = 10
            parameters.loSampleSize = 20
            parameters.confidence = config.confidence
            parameters.maxIterations = config.max_iterations
            parameters.threshold = config.threshold_px
            parameters.randomGeneratorState = config.seed
            essential, _ = cv2.findEssentialMat(query, ref, k_query, k_ref, None, None, parameters)
        else:
            # One camera matrix only: rays scaled to one focal length keep the threshold in pixels.
            focal = float(np.sqrt(focal_ref * focal_query))
            essential, _ = cv2.findEssentialMat(
                query * (focal / focal_query),
                ref * (focal / focal_ref),
                np.diag([focal, focal, 1.0]),
                method=cv2.RANSAC,
                prob=config.confidence,
                threshold=config.threshold_px,
                maxIters=config.max_iterations,
            )
    except cv2.error:
        # Degenerate samples (all points alike) end in OpenCV's own assertions.
        return None
    return None if essential is None else np.asarray(essential, np.float64)[:3]


def _checked(rotation: Array, translation: Array) -> Pose | None:
    if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
        return None
    return rotation, translation


def _unit(pose: Pose | None) -> Pose | None:
    """The pose with its translation scaled to unit length; None where it has no direction."""
    length = 0.0 if pose is None else float(np.linalg.norm(pose[1]))
    return None if pose is None or length == 0 else (pose[0], pose[1] / length)


def _poselib() -> Any:
    try:
        import poselib
    except ImportError as error:
        raise ConfigError(
            "geometry.estimator is poselib but PoseLib is not installed: "
            "pip install poselib, or set geometry.estimator to usac-magsac"
        ) from error
    return poselib


def _pinhole(focal: float) -> dict[str, Any]:
    # PoseLib asks for an image size it does not use here.
    return {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [focal, 0.0, 0.0]}


def _ransac_options(config: GeometryConfig) -> dict[str, Any]:
    return {
        "max_epipolar_error": config.threshold_px,
        "max_reproj_error": config.threshold_px,
        "max_iterations": config.max_iterations,
        "min_iterations": min(100, config.max_iterations),
        "success_prob": config.confidence,
        "seed": config.seed,
    }
