"""Pose up to scale from matches alone: essential matrix, plane or rotation, with covariance."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry import covariance, robust
from superglue_ros.geometry import epipolar as epipolar_geometry
from superglue_ros.geometry.degeneracy import Model, gric, log10_false_alarms
from superglue_ros.geometry.homography import fit_planes
from superglue_ros.geometry.least_squares import Fit, minimise
from superglue_ros.geometry.modes import Mode, find_modes, second_moment
from superglue_ros.geometry.rotation import log, tangent_basis
from superglue_ros.geometry.two_view_models import Motion, epipolar, transfer
from superglue_ros.geometry.verdict import PoseMethod, PoseStatus
from superglue_ros.geometry.views import (
    POINT_TO_LINE,
    TwoViewGeometry,
    Views,
    epipolar_inliers,
    pose_of,
)

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Maximum share of a parameter that one match may determine.
_MOST_LEVERAGE = 0.4


def monocular_pose(views: Views, config: GeometryConfig) -> TwoViewGeometry:
    """The pose of whichever model explains the matches best, with its status and covariance."""
    pairs = views.pairs
    pose = robust.robust_relative_pose(pairs.ref, pairs.query, *views.focals, config, views.prior)
    # Without parallax there may be no essential matrix, but still a rotation.
    start = Motion(*pose) if pose else Motion(np.eye(3), np.array([0.0, 0.0, 1.0]))
    model = partial(epipolar, pairs=views.weighted())
    residuals = model(start).residuals[:, 0]
    scale = covariance.noise_scale(residuals, views.expected_px, config.threshold_px)
    # Systematic errors must count neither as structure nor as evidence.
    noise = float(np.hypot(scale, config.systematic_px / 2))
    general = minimise(start, model, Motion.moved, views.prior, scale)
    views = replace(views, prior=_trusted(general, views))
    inliers = epipolar_inliers(general.state, pairs, config)
    turn = _fit_rotation(general.state, views, scale, config)
    planes = _fit_planes(views, inliers, scale, config)
    starts = [general.state, *(fit.state for fit in planes)]
    modes = find_modes(starts, views.weighted(), views.prior, noise)
    general = minimise(modes[0].fit.state, model, Motion.moved, views.prior, scale)
    scores = {
        Model.GENERAL: gric(general.linearisation.residuals / noise, Model.GENERAL),
        Model.ROTATION: gric(turn.linearisation.residuals / noise, Model.ROTATION),
    }
    if planes:
        scores[Model.PLANE] = gric(planes[0].linearisation.residuals / noise, Model.PLANE)
    chosen = min(scores, key=lambda model: scores[model])
    if chosen is Model.PLANE:
        result = _planar_result(planes, views, noise, config)
    else:
        result = _general_result(general, modes[1:], views, config)
    least = np.deg2rad(config.min_parallax_deg)
    if chosen is Model.ROTATION:
        result = _rotation_result(turn, general, views, config)
    elif not result.inliers.any() or result.median_parallax_rad < least:
        # Too little parallax for a direction, but matches with some parallax are no outliers.
        result = replace(_rotation_result(turn, general, views, config), inliers=result.inliers)
    chance = views.chance_of_point if chosen is Model.ROTATION else views.chance_of_line
    alarms = log10_false_alarms(
        len(pairs), int(result.inliers.sum()), chosen, chance(config.threshold_px)
    )
    if alarms > -config.min_significance:
        result = replace(result, status=PoseStatus.REJECTED)
    return result


def _trusted(fit: Fit[Motion], views: Views) -> Array:
    """The prior weights (K,), zero for matches of excessive leverage.

    A mismatch that happens to lie near its epipolar line has a point behind a camera, or so near to
    one that it alone decides a parameter: its residual then vanishes and no robust cost detects it.
    """
    pairs, motion = views.pairs, fit.state
    front = epipolar_geometry.in_front(pairs.ref, pairs.query, motion.rotation, motion.translation)
    near = fit.u2 < 1
    far = epipolar_geometry.parallax(pairs.ref, pairs.query, motion.rotation)
    prior = np.where(front | (far <= 2 * (pairs.sigma_ref + pairs.sigma_query)), views.prior, 0.0)
    for _ in range(3):
        leverage = covariance.leverage(replace(fit, prior=np.where(near, prior, 0.0)))
        if not (leverage > _MOST_LEVERAGE).any():
            break
        prior = np.where(leverage > _MOST_LEVERAGE, 0.0, prior)
    return prior


def _fit_rotation(start: Motion, views: Views, scale: float, config: GeometryConfig) -> Fit[Motion]:
    """Rotation only, first with a wide scale: the start may explain rotation as translation."""
    model = partial(transfer, pairs=views.weighted())
    wide = 10 * config.threshold_px
    motion = Motion(start.rotation, np.array([0.0, 0.0, 1.0]))
    motion = minimise(motion, model, Motion.moved, views.prior, wide, 5).state
    return minimise(motion, model, Motion.moved, views.prior, scale, 8)


def _fit_planes(
    views: Views, inliers: BoolArray, scale: float, config: GeometryConfig
) -> list[Fit[Motion]]:
    """The motions of a plane among the epipolar inliers, refined on all matches, best first."""
    good = views.pairs.select(inliers)
    # Enough for a plane with half of the inliers; a smaller one changes no status.
    quick = replace(config, max_iterations=min(config.max_iterations, 200))
    homography = robust.robust_homography(good.ref, good.query, *views.focals, quick)
    if homography is None:
        return []
    fits = fit_planes(homography, views.weighted(), views.prior, scale)
    return sorted(fits, key=lambda fit: fit.cost)


def _general_result(
    fit: Fit[Motion], rivals: list[Mode], views: Views, config: GeometryConfig
) -> TwoViewGeometry:
    motion = fit.state
    spread = covariance.parameter_covariance(fit, views.cells, views.systematic(config))
    spread = spread + second_moment(motion, rivals)
    return _direction_result(PoseStatus.VALID, PoseMethod.ESSENTIAL, motion, spread, views, config)


def _planar_result(
    fits: list[Fit[Motion]], views: Views, noise: float, config: GeometryConfig
) -> TwoViewGeometry:
    """The motion that matches off the plane support, with the other as its rival."""
    weighted = views.weighted()
    costs = [Fit(fit.state, epipolar(fit.state, weighted), fit.prior, noise).cost for fit in fits]
    best = int(np.argmin(costs))
    odds = np.exp(costs[best] - np.array(costs))
    rivals = [
        Mode(fit, float(odd / odds.sum()))
        for index, (fit, odd) in enumerate(zip(fits, odds, strict=True))
        if index != best
    ]
    motion = fits[best].state
    spread = covariance.parameter_covariance(fits[best], views.cells, views.systematic(config))
    spread = spread[:5, :5] + second_moment(motion, rivals)
    return _direction_result(
        PoseStatus.PLANAR, PoseMethod.HOMOGRAPHY, motion, spread, views, config
    )


def _direction_result(
    status: PoseStatus,
    method: PoseMethod,
    motion: Motion,
    spread: Array,
    views: Views,
    config: GeometryConfig,
) -> TwoViewGeometry:
    inliers = epipolar_inliers(motion, views.pairs, config)
    return pose_of(
        status,
        method,
        (motion.rotation, motion.translation),
        covariance.unit_translation_covariance(spread, tangent_basis(motion.translation)),
        inliers,
        views.pairs.select(inliers),
        views.focals,
        config,
    )


def _rotation_result(
    fit: Fit[Motion], general: Fit[Motion], views: Views, config: GeometryConfig
) -> TwoViewGeometry:
    """The rotation ``fit``; it absorbs any small translation that the matches cannot separate.

    The rotation of the ``general`` motion, an equally good explanation, shows how large that may
    be: the difference of the two is added to the covariance as that of a rival.
    """
    off = np.linalg.norm(transfer(fit.state, views.pairs).residuals, axis=1)
    inliers = off <= POINT_TO_LINE * config.threshold_px
    spread = covariance.parameter_covariance(fit, views.cells, views.systematic(config))
    apart = log(general.state.rotation @ fit.state.rotation.T)
    spread = spread + np.outer(apart, apart)
    return pose_of(
        PoseStatus.ROTATION_ONLY,
        PoseMethod.HOMOGRAPHY,
        (fit.state.rotation, np.zeros(3)),
        covariance.rotation_covariance(spread),
        inliers,
        views.pairs.select(inliers),
        views.focals,
        config,
    )
