"""Metric relative pose from matches with depth in the reference image (perspective-n-point)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry.covariance import (
    metric_covariance,
    noise_scale,
    parameter_covariance,
)
from superglue_ros.geometry.epipolar import homogeneous
from superglue_ros.geometry.least_squares import Linearisation, minimise
from superglue_ros.geometry.robust import robust_absolute_pose
from superglue_ros.geometry.rotation import exp
from superglue_ros.geometry.two_view_models import Motion, RayPairs, whiten
from superglue_ros.geometry.verdict import PoseMethod, PoseStatus
from superglue_ros.geometry.views import (
    POINT_TO_LINE,
    TwoViewGeometry,
    Views,
    epipolar_inliers,
    pose_of,
)

Array = NDArray[np.float64]

# Reprojections of measured depths are off by the depth's noise too.
_DEPTH_THRESHOLD = 2.0


@dataclass(frozen=True, eq=False)
class MetricMotion:
    """``x_ref = R x_query + t``, t in metres."""

    rotation: Array
    translation: Array

    def moved(self, step: Array) -> MetricMotion:
        """By local parameters (6,): rotation about fixed axes [rad], translation [m]."""
        return MetricMotion(exp(step[:3]) @ self.rotation, self.translation + step[3:])


def projection(motion: MetricMotion, points: Array) -> tuple[Array, Array, Array]:
    """Where the query camera sees ``points`` (K, 3) of the reference frame, with derivatives.

    Normalised coordinates (K, 2); their derivative by the points (K, 2, 3); and that by the local
    parameters of ``motion`` (K, 2, 6).
    """
    arm = points - motion.translation
    seen = arm @ motion.rotation
    z = np.where(seen[:, 2] > 1e-6, seen[:, 2], 1e-6)
    predicted = seen[:, :2] / z[:, None]
    down = np.zeros((len(points), 2, 3))
    down[:, 0, 0] = down[:, 1, 1] = 1 / z
    down[:, :, 2] = -predicted / z[:, None]
    back = down @ motion.rotation.T
    # x_query = R^T (x_ref - t): a turn by delta moves it by R^T [arm]x delta.
    cross = np.zeros((len(points), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2] = -arm[:, 2], arm[:, 1]
    cross[:, 1, 0], cross[:, 1, 2] = arm[:, 2], -arm[:, 0]
    cross[:, 2, 0], cross[:, 2, 1] = -arm[:, 1], arm[:, 0]
    return predicted, back, np.concatenate((back @ cross, -back), axis=2)


def reprojection(
    motion: MetricMotion, pairs: RayPairs, depth: Array, depth_sigma: Array, pixel: Array
) -> Linearisation:
    """Whitened errors of reference points projected into the query image.

    ``depth`` (K,) metres along the reference's optical axis, of standard deviation ``depth_sigma``
    (K,); ``pixel`` (K,) the size of a pixel on the normalised plane. Residuals (K, 2), derivative
    (K, 2, 6). The covariance holds the noise of both keypoints and of the depth, carried through
    the projection. The third column of ``shift`` is the effect of a relative depth error of 1.
    """
    rays = homogeneous(pairs.ref)
    predicted, back, jacobian = projection(motion, depth[:, None] * rays)
    along = np.einsum("kij,kj->ki", back, rays)
    across = back[:, :, :2] * depth[:, None, None]
    covariance = (pairs.sigma_query**2)[:, None, None] * np.eye(2)
    covariance = covariance + (pairs.sigma_ref**2)[:, None, None] * (
        across @ across.transpose(0, 2, 1)
    )
    covariance += (depth_sigma**2)[:, None, None] * (along[:, :, None] * along[:, None, :])
    deeper = (along * depth[:, None])[:, :, None]
    return whiten(predicted - pairs.query, jacobian, covariance, np.sqrt(2) * pixel, deeper)


def metric_pose(views: Views, config: GeometryConfig) -> TwoViewGeometry | None:
    """Pose in metres from the matches with depth; None where too few of them agree on one."""
    known = views.depth > 0
    part = views.select(known)
    points = homogeneous(part.pairs.ref) * part.depth[:, None]
    loose = replace(config, threshold_px=_DEPTH_THRESHOLD * config.threshold_px)
    pose = robust_absolute_pose(points, part.pairs.query, views.focal_query, loose)
    if pose is None:
        return None
    motion, scale = MetricMotion(*pose), views.expected_px
    # The depth's noise is absolute, the keypoints' known up to the scale: whiten with the estimate.
    for _ in range(2):
        model = partial(
            reprojection,
            pairs=part.weighted(scale),
            depth=part.depth,
            depth_sigma=part.depth_sigma,
            pixel=part.pairs.sigma_query,
        )
        fit = minimise(motion, model, MetricMotion.moved, part.prior, 1.0)
        motion, residuals = fit.state, fit.linearisation.residuals.ravel()
        scale *= noise_scale(residuals, 1.0, max(config.threshold_px / scale, 1.0))
    exact = np.zeros_like(part.depth)
    sharp = reprojection(motion, part.pairs, part.depth, exact, part.pairs.sigma_query)
    off = np.linalg.norm(sharp.residuals, axis=1)
    close = off <= _DEPTH_THRESHOLD * POINT_TO_LINE * config.threshold_px
    if close.sum() < max(config.min_inliers, config.min_inlier_share * len(close)):
        return None
    inliers = np.zeros(len(views.pairs), bool)
    inliers[known] = close
    length = float(np.linalg.norm(motion.translation))
    if length > 0:
        unit = Motion(motion.rotation, motion.translation / length)
        inliers[~known] = epipolar_inliers(unit, views.pairs.select(~known), config)
    shared = np.array([config.systematic_px, config.systematic_px, config.depth_systematic])
    spread = parameter_covariance(fit, part.cells, shared)
    return pose_of(
        PoseStatus.VALID,
        PoseMethod.PNP,
        (motion.rotation, motion.translation),
        metric_covariance(spread),
        inliers,
        views.pairs.select(inliers),
        views.focals,
        config,
    )
