"""Pose of a camera among known points, with its covariance: PnP, robust and then refined.

The robust estimator (PoseLib's LO-P3P by default) gives a pose and the inliers; reweighted least
squares over the reprojection errors refines it, and states its covariance as for the other poses
(:mod:`superglue_ros.geometry.covariance`). The points count as exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry.camera import Camera
from superglue_ros.geometry.covariance import (
    image_cells,
    metric_covariance,
    noise_scale,
    parameter_covariance,
)
from superglue_ros.geometry.least_squares import Linearisation, minimise
from superglue_ros.geometry.pnp import MetricMotion, projection
from superglue_ros.geometry.robust import robust_absolute_pose
from superglue_ros.geometry.two_view_models import whiten

Array = NDArray[np.float64]

LEAST_POINTS = 4
LOOSE = 4.0
"""The robust estimate's threshold in those of the configuration, which are for exact matches."""


@dataclass(frozen=True, eq=False)
class AbsolutePose:
    """``x_world = R x_camera + t``, in the points' unit.

    ``covariance`` (6, 6), order x y z then rotation about fixed axes, world frame; ``inliers`` (K,)
    bool; ``error_px`` median reprojection error of the inliers.
    """

    rotation: Array
    translation: Array
    covariance: Array
    inliers: NDArray[np.bool_]
    error_px: float


def absolute_pose(
    points: Array, pixels: Array, sigma_px: Array, camera: Camera, config: GeometryConfig
) -> AbsolutePose | None:
    """The camera that sees ``points`` (K, 3) at ``pixels`` (K, 2), known to ``sigma_px`` (K,).

    None where fewer than ``config.min_inliers`` points agree on a pose. Their share does not count:
    matches with many images of a map hold those with the wrong ones.
    """
    rays = camera.rays(pixels)
    good = np.isfinite(rays).all(axis=1) & np.isfinite(points).all(axis=1)
    if good.sum() < LEAST_POINTS:
        return None
    loose = replace(config, threshold_px=LOOSE * config.threshold_px)
    found = robust_absolute_pose(points[good], rays[good], camera.focal, loose)
    if found is None:
        return None
    relative = sigma_px[good] / np.median(sigma_px[good])
    pixel = camera.ray_sigma(rays[good], np.ones(int(good.sum())))
    limit, scale = LOOSE * config.threshold_px, float(np.median(sigma_px[good]))
    motion = MetricMotion(*found)
    for _ in range(2):
        model = partial(
            _reprojection,
            points=points[good],
            rays=rays[good],
            sigma=scale * relative * pixel,
            pixel=pixel,
        )
        fit = minimise(motion, model, MetricMotion.moved, np.ones(len(relative)), 1.0)
        motion, residuals = fit.state, fit.linearisation.residuals.ravel()
        scale *= noise_scale(residuals, 1.0, max(limit / scale, 1.0))
    inliers, error = _judged(motion, points, rays, camera, limit)
    if inliers.sum() < config.min_inliers:
        return None
    cells = image_cells(pixels[good], camera.width)
    spread = parameter_covariance(fit, cells, config.systematic_px)
    return AbsolutePose(
        rotation=motion.rotation,
        translation=motion.translation,
        covariance=metric_covariance(spread),
        inliers=inliers,
        error_px=error,
    )


def _reprojection(
    motion: MetricMotion, points: Array, rays: Array, sigma: Array, pixel: Array
) -> Linearisation:
    """Whitened reprojection errors (K, 2), derivative (K, 2, 6), shift by one pixel."""
    predicted, _, jacobian = projection(motion, points)
    covariance = (sigma**2)[:, None, None] * np.eye(2)
    return whiten(predicted - rays, jacobian, covariance, pixel)


def _judged(
    motion: MetricMotion, points: Array, rays: Array, camera: Camera, limit_px: float
) -> tuple[NDArray[np.bool_], float]:
    """Points in front of the camera and within the limit, and their median error in pixels."""
    seen = (points - motion.translation) @ motion.rotation
    predicted, _, _ = projection(motion, points)
    error = np.linalg.norm(predicted - rays, axis=1) * camera.focal
    inliers = (seen[:, 2] > 0) & (np.nan_to_num(error, nan=np.inf) <= limit_px)
    return inliers, float(np.median(error[inliers])) if inliers.any() else np.nan
