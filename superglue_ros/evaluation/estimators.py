"""Robust and direct estimators of homographies and relative poses, as the evaluations fix them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.metrics import normalise

Floats = NDArray[np.float64]

POSE_ESTIMATORS = ("opencv-ransac", "usac-magsac", "poselib")


@dataclass(frozen=True)
class PoseEstimatorConfig:
    """Estimator of the relative pose; ``threshold_px`` is divided by the mean focal length.

    ``opencv-ransac`` at 1 px is the paper's (appendix E). ``max_iterations`` 0 takes 1000 for it
    (OpenCV's default) and 10000 for the others. ``seed`` is used by poselib only: the estimators
    of OpenCV start from a fixed state.
    """

    name: str = "opencv-ransac"
    threshold_px: float = 1.0
    confidence: float = 0.99999
    max_iterations: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in POSE_ESTIMATORS:
            raise ConfigError(f"estimator {self.name!r}: known are {', '.join(POSE_ESTIMATORS)}")

    @property
    def iterations(self) -> int:
        """Most iterations, with the estimator's default filled in."""
        return self.max_iterations or (1000 if self.name == "opencv-ransac" else 10000)

    def mapping(self) -> dict[str, object]:
        """For result files."""
        return {**asdict(self), "max_iterations": self.iterations}


@dataclass(frozen=True, eq=False)
class EstimatedPose:
    """``x_1 = R x_0 + t`` with unit ``translation`` (3,), and the inliers (K,) bool."""

    rotation: Floats
    translation: Floats
    inliers: NDArray[np.bool_]


def estimate_pose(
    points0: NDArray,
    points1: NDArray,
    intrinsics0: NDArray,
    intrinsics1: NDArray,
    config: PoseEstimatorConfig = PoseEstimatorConfig(),
) -> EstimatedPose | None:
    """Relative pose of two views from matched pixels (K, 2), or None where there is none.

    Intrinsics are 3x3, pixels. Five matches are the least.
    """
    if len(points0) < 5:
        return None
    rays0, rays1 = normalise(points0, intrinsics0), normalise(points1, intrinsics1)
    focal = np.mean([k[i, i] for k in (intrinsics0, intrinsics1) for i in (0, 1)])
    if config.name == "poselib":
        return _poselib(points0, points1, intrinsics0, intrinsics1, config)
    method = cv2.RANSAC if config.name == "opencv-ransac" else cv2.USAC_MAGSAC
    try:
        essentials, mask = cv2.findEssentialMat(
            rays0,
            rays1,
            np.eye(3),
            method=method,
            prob=config.confidence,
            threshold=config.threshold_px / focal,
            maxIters=config.iterations,
        )
    except cv2.error:  # degenerate samples make OpenCV raise instead of returning nothing
        return None
    if essentials is None or mask is None or not np.isfinite(essentials).all():
        return None
    return _decompose(essentials, rays0, rays1, mask)


def _decompose(
    essentials: NDArray, rays0: Floats, rays1: Floats, mask: NDArray
) -> EstimatedPose | None:
    """The pose with most points in front of both cameras, among all essential matrices returned."""
    best: EstimatedPose | None = None
    most = 0
    for essential in essentials.reshape(-1, 3, 3):
        # Far points are as good as near ones: the default limit of 50 baselines would drop them.
        count, rotation, translation, front, _ = cv2.recoverPose(
            essential, rays0, rays1, np.eye(3), distanceThresh=1e9, mask=mask.copy()
        )
        if count > most and np.isfinite(rotation).all():
            most = count
            best = EstimatedPose(
                np.asarray(rotation, np.float64),
                np.asarray(translation, np.float64).ravel(),
                np.asarray(front).ravel() > 0,
            )
    return best


def _poselib(
    points0: NDArray,
    points1: NDArray,
    intrinsics0: NDArray,
    intrinsics1: NDArray,
    config: PoseEstimatorConfig,
) -> EstimatedPose | None:
    cameras = [_poselib_camera(k) for k in (intrinsics0, intrinsics1)]
    options = {
        "max_epipolar_error": config.threshold_px,
        "success_prob": config.confidence,
        "max_iterations": config.iterations,
        "seed": config.seed,
    }
    pose, info = poselib.estimate_relative_pose(
        np.asarray(points0, np.float64), np.asarray(points1, np.float64), *cameras, options, {}
    )
    inliers = np.asarray(info["inliers"], bool)
    rotation, translation = np.asarray(pose.R), np.asarray(pose.t)
    length = float(np.linalg.norm(translation))
    if not inliers.any() or length == 0 or not np.isfinite(rotation).all():
        return None
    return EstimatedPose(rotation, translation / length, inliers)


def _poselib_camera(intrinsics: NDArray) -> dict[str, object]:
    fx, fy, cx, cy = (float(intrinsics[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    width, height = math.ceil(2 * cx), math.ceil(2 * cy)
    return {"model": "PINHOLE", "width": width, "height": height, "params": [fx, fy, cx, cy]}


def ransac_homography(
    points0: NDArray, points1: NDArray, threshold_px: float = 3.0, iterations: int = 3000
) -> Floats | None:
    """OpenCV's RANSAC homography with the paper's settings (appendix E); None where it fails."""
    if len(points0) < 4:
        return None
    estimate, _ = cv2.findHomography(
        np.asarray(points0, np.float64),
        np.asarray(points1, np.float64),
        cv2.RANSAC,
        threshold_px,
        maxIters=iterations,
    )
    return None if estimate is None else np.asarray(estimate, np.float64)


def dlt_homography(points0: NDArray, points1: NDArray) -> Floats | None:
    """Direct linear transform with normalised points (Hartley and Zisserman, algorithm 4.2).

    Least squares over all matches without any robustness; None below four matches.
    """
    if len(points0) < 4:
        return None
    similarity0, similarity1 = _conditioning(points0), _conditioning(points1)
    x0 = np.c_[points0, np.ones(len(points0))] @ similarity0.T
    x1 = np.c_[points1, np.ones(len(points1))] @ similarity1.T
    zero = np.zeros_like(x0)
    rows_x = np.hstack([x0, zero, -x1[:, :1] * x0])
    rows_y = np.hstack([zero, x0, -x1[:, 1:2] * x0])
    # The null vector of A is that of the small matrix AᵀA; the points are conditioned.
    system = np.vstack([rows_x, rows_y])
    _, vectors = np.linalg.eigh(system.T @ system)
    estimate = np.linalg.inv(similarity1) @ vectors[:, 0].reshape(3, 3) @ similarity0
    return estimate if np.isfinite(estimate).all() else None


def _conditioning(points: NDArray) -> Floats:
    """Similarity that moves points to the origin at a mean distance of sqrt(2)."""
    centre: Floats = np.asarray(points, np.float64).mean(axis=0)
    spread = float(np.linalg.norm(points - centre, axis=1).mean())
    scale = math.sqrt(2) / max(spread, 1e-12)
    x, y = -scale * centre
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]])
