"""Robust estimators of relative pose, homography and absolute pose, behind one interface.

Their names are in :data:`superglue_ros.registry.ESTIMATORS`. Inputs are pixels (K, 2) and
intrinsics (3, 3), so that thresholds are in pixels. All are deterministic for a given seed;
OpenCV's classical RANSAC ignores the seed and always starts from the same state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import ConfigError
from superglue_ros.geometry.epipolar import normalise
from superglue_ros.registry import ESTIMATORS

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Pose = tuple[Array, Array]


@dataclass(frozen=True)
class RansacOptions:
    """``threshold_px``: largest error of an inlier, of epipolar lines or of reprojection.

    ``min_iterations`` holds for PoseLib; None takes its own default.
    """

    threshold_px: float = 1.0
    confidence: float = 0.99999
    max_iterations: int = 1000
    seed: int = 0
    min_iterations: int | None = None


@dataclass(frozen=True, eq=False)
class EstimatedPose:
    """``x_1 = R x_0 + t`` with unit ``translation`` (3,), and the inliers (K,) bool."""

    rotation: Array
    translation: Array
    inliers: BoolArray


class Estimator(Protocol):
    """The interface of an estimator. On failure, or degenerate or too few matches: None."""

    def relative_pose(
        self,
        points0: NDArray,
        points1: NDArray,
        intrinsics0: NDArray,
        intrinsics1: NDArray,
        options: RansacOptions,
        weights: NDArray | None = None,
    ) -> EstimatedPose | None:
        """From matched pixels of two views; at least five.

        ``weights`` (K,): how likely each match is right. Only ``guided`` samples by them.
        """
        ...

    def homography(
        self, points0: NDArray, points1: NDArray, options: RansacOptions
    ) -> Array | None:
        """``H`` (3, 3) with ``x_1 ~ H x_0``; at least four matches."""
        ...

    def absolute_pose(
        self, points: NDArray, pixels: NDArray, intrinsics: NDArray, options: RansacOptions
    ) -> Pose | None:
        """``(R, t)`` with ``x_camera = R x + t`` from points (K, 3); at least four."""
        ...


def make_estimator(name: str) -> Estimator:
    """The estimator of that name; raises :class:`ConfigError` where its package is missing."""
    made: Estimator = ESTIMATORS.make(name)
    return made


class PoseLib:
    """PoseLib (Larsson): LO-RANSAC with non-linear refinement."""

    def __init__(self) -> None:
        try:
            import poselib
        except ImportError as error:
            raise ConfigError(
                "estimator poselib needs PoseLib: pip install poselib, or take usac-magsac"
            ) from error
        self._poselib: Any = poselib

    def relative_pose(
        self,
        points0: NDArray,
        points1: NDArray,
        intrinsics0: NDArray,
        intrinsics1: NDArray,
        options: RansacOptions,
        weights: NDArray | None = None,
    ) -> EstimatedPose | None:
        """See :class:`Estimator`."""
        return self._relative_pose(points0, points1, intrinsics0, intrinsics1, options)

    def _relative_pose(
        self,
        points0: NDArray,
        points1: NDArray,
        intrinsics0: NDArray,
        intrinsics1: NDArray,
        options: RansacOptions,
        progressive: bool = False,
    ) -> EstimatedPose | None:
        """``progressive``: the matches come best first, and samples grow to all of them."""
        if len(points0) < 5:
            return None
        given = self._options(options)
        if progressive:
            # All matches are in by the end, not after PoseLib's 100,000 samples.
            given |= {"progressive_sampling": True, "max_prosac_iterations": options.max_iterations}
        cameras = [self._camera(k) for k in (intrinsics0, intrinsics1)]
        pose, info = self._poselib.estimate_relative_pose(
            np.asarray(points0, np.float64),
            np.asarray(points1, np.float64),
            *cameras,
            given,
            {},
        )
        inliers = np.asarray(info["inliers"], bool)
        rotation, translation = np.asarray(pose.R), np.asarray(pose.t)
        length = float(np.linalg.norm(translation))
        if not inliers.any() or length == 0 or not _finite(rotation, translation):
            return None
        return EstimatedPose(rotation, translation / length, inliers)

    def homography(
        self, points0: NDArray, points1: NDArray, options: RansacOptions
    ) -> Array | None:
        """See :class:`Estimator`."""
        if len(points0) < 4:
            return None
        matrix, _ = self._poselib.estimate_homography(points0, points1, self._options(options), {})
        return _matrix(matrix)

    def absolute_pose(
        self, points: NDArray, pixels: NDArray, intrinsics: NDArray, options: RansacOptions
    ) -> Pose | None:
        """See :class:`Estimator`."""
        if len(points) < 4:
            return None
        pose, _ = self._poselib.estimate_absolute_pose(
            pixels, points, self._camera(intrinsics), self._options(options), {}
        )
        rotation, translation = np.asarray(pose.R), np.asarray(pose.t)
        return (rotation, translation) if _finite(rotation, translation) else None

    @staticmethod
    def _camera(intrinsics: NDArray) -> dict[str, Any]:
        fx, fy, cx, cy = (float(intrinsics[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
        # PoseLib asks for an image size it does not use here.
        width, height = max(1, math.ceil(2 * cx)), max(1, math.ceil(2 * cy))
        return {"model": "PINHOLE", "width": width, "height": height, "params": [fx, fy, cx, cy]}

    @staticmethod
    def _options(options: RansacOptions) -> dict[str, Any]:
        given = {
            "max_epipolar_error": options.threshold_px,
            "max_reproj_error": options.threshold_px,
            "max_iterations": options.max_iterations,
            "success_prob": options.confidence,
            "seed": options.seed,
        }
        if options.min_iterations is not None:
            given["min_iterations"] = min(options.min_iterations, options.max_iterations)
        return given


class GuidedPoseLib(PoseLib):
    """PoseLib whose samples of the relative pose start from the most confident matches.

    The samples of NG-RANSAC (Brachmann and Rother, ICCV 2019) are drawn with a filter's weights as
    probabilities. PoseLib takes an order instead, PROSAC's (Chum and Matas, CVPR 2005): samples
    grow from the best matches on, and end as those of plain RANSAC.
    """

    def relative_pose(
        self,
        points0: NDArray,
        points1: NDArray,
        intrinsics0: NDArray,
        intrinsics1: NDArray,
        options: RansacOptions,
        weights: NDArray | None = None,
    ) -> EstimatedPose | None:
        """See :class:`Estimator`; without weights as PoseLib."""
        views = (intrinsics0, intrinsics1, options)
        if weights is None:
            return super().relative_pose(points0, points1, *views)
        order = np.argsort(-np.asarray(weights), kind="stable")
        found = self._relative_pose(points0[order], points1[order], *views, progressive=True)
        if found is None:
            return None
        inliers = np.zeros(len(order), bool)
        inliers[order] = found.inliers
        return replace(found, inliers=inliers)


class OpenCvRansac:
    """OpenCV's classical RANSAC, the paper's estimator (appendix E)."""

    def relative_pose(
        self,
        points0: NDArray,
        points1: NDArray,
        intrinsics0: NDArray,
        intrinsics1: NDArray,
        options: RansacOptions,
        weights: NDArray | None = None,
    ) -> EstimatedPose | None:
        """See :class:`Estimator`; on rays, the threshold over the mean focal length."""
        if len(points0) < 5:
            return None
        rays0, rays1 = normalise(points0, intrinsics0), normalise(points1, intrinsics1)
        focal = np.mean([k[i, i] for k in (intrinsics0, intrinsics1) for i in (0, 1)])
        try:
            essentials, mask = cv2.findEssentialMat(
                rays0,
                rays1,
                np.eye(3),
                method=cv2.RANSAC,
                prob=options.confidence,
                threshold=options.threshold_px / focal,
                maxIters=options.max_iterations,
            )
        except cv2.error:  # degenerate samples make OpenCV raise instead of returning nothing
            return None
        return _decompose(essentials, rays0, rays1, mask)

    def homography(
        self, points0: NDArray, points1: NDArray, options: RansacOptions
    ) -> Array | None:
        """See :class:`Estimator`."""
        return _opencv_homography(points0, points1, options, cv2.RANSAC)

    def absolute_pose(
        self, points: NDArray, pixels: NDArray, intrinsics: NDArray, options: RansacOptions
    ) -> Pose | None:
        """See :class:`Estimator`."""
        if len(points) < 4:
            return None
        cv2.setRNGSeed(options.seed)
        found, vector, translation, _ = cv2.solvePnPRansac(
            points,
            pixels,
            intrinsics,
            None,
            iterationsCount=options.max_iterations,
            reprojectionError=options.threshold_px,
            confidence=options.confidence,
            flags=cv2.SOLVEPNP_SQPNP if len(points) == 4 else cv2.SOLVEPNP_EPNP,
        )
        if not found:
            return None
        rotation = np.asarray(cv2.Rodrigues(vector)[0], np.float64)
        translation = np.asarray(translation, np.float64).ravel()
        return (rotation, translation) if _finite(rotation, translation) else None


class UsacMagsac(OpenCvRansac):
    """OpenCV's USAC framework with MAGSAC++ scores (Barath et al., CVPR 2020); PnP as RANSAC."""

    def relative_pose(
        self,
        points0: NDArray,
        points1: NDArray,
        intrinsics0: NDArray,
        intrinsics1: NDArray,
        options: RansacOptions,
        weights: NDArray | None = None,
    ) -> EstimatedPose | None:
        """See :class:`Estimator`."""
        if len(points0) < 5:
            return None
        parameters = cv2.UsacParams()
        parameters.score = cv2.SCORE_METHOD_MAGSAC
        parameters.sampler = cv2.SAMPLING_UNIFORM
        parameters.loMethod = cv2.LOCAL_OPTIM_SIGMA
        parameters.final_polisher = cv2.MAGSAC
        parameters.final_polisher_iterations = 3
        parameters.loIterations = 10
        parameters.loSampleSize = 20
        parameters.confidence = options.confidence
        parameters.maxIterations = options.max_iterations
        parameters.threshold = options.threshold_px
        parameters.randomGeneratorState = options.seed
        try:
            essentials, mask = cv2.findEssentialMat(
                np.asarray(points0, np.float64),
                np.asarray(points1, np.float64),
                np.asarray(intrinsics0, np.float64),
                np.asarray(intrinsics1, np.float64),
                None,
                None,
                parameters,
            )
        except cv2.error:
            return None
        rays0, rays1 = normalise(points0, intrinsics0), normalise(points1, intrinsics1)
        return _decompose(essentials, rays0, rays1, mask)

    def homography(
        self, points0: NDArray, points1: NDArray, options: RansacOptions
    ) -> Array | None:
        """See :class:`Estimator`."""
        return _opencv_homography(points0, points1, options, cv2.USAC_MAGSAC)


def _decompose(
    essentials: NDArray | None, rays0: Array, rays1: Array, mask: NDArray | None
) -> EstimatedPose | None:
    """The pose with most points in front of both cameras, among all essential matrices returned."""
    if essentials is None or mask is None or not np.isfinite(essentials).all():
        return None
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


def _opencv_homography(
    points0: NDArray, points1: NDArray, options: RansacOptions, method: int
) -> Array | None:
    if len(points0) < 4:
        return None
    matrix, _ = cv2.findHomography(
        np.asarray(points0, np.float64),
        np.asarray(points1, np.float64),
        method,
        options.threshold_px,
        maxIters=options.max_iterations,
        confidence=options.confidence,
    )
    return _matrix(matrix)


def _matrix(matrix: NDArray | None) -> Array | None:
    if matrix is None or not np.isfinite(matrix).all():
        return None
    return np.asarray(matrix, np.float64)


def _finite(rotation: NDArray, translation: NDArray) -> bool:
    return bool(np.isfinite(rotation).all() and np.isfinite(translation).all())
