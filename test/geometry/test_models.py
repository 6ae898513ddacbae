"""Residual models: derivatives against finite differences, whitening against simulation."""

from functools import partial

import numpy as np
import pytest

from superglue_ros.geometry.homography import planar_motions
from superglue_ros.geometry.least_squares import minimise
from superglue_ros.geometry.pnp import MetricMotion, reprojection
from superglue_ros.geometry.rotation import exp
from superglue_ros.geometry.two_view_models import Motion, RayPairs, epipolar, transfer

ROTATION = exp(np.array([0.05, -0.2, 0.1]))
DIRECTION = np.array([0.8, 0.1, 0.59]) / np.linalg.norm([0.8, 0.1, 0.59])
PLANE = np.array([0.05, -0.02, 0.2])
GENERAL = Motion(ROTATION, DIRECTION)
OVER_PLANE = Motion(ROTATION, DIRECTION, PLANE)


def pairs(noise: float, count: int = 6, seed: int = 0) -> RayPairs:
    """Matches of points on PLANE with noise on both rays."""
    rng = np.random.default_rng(seed)
    query = rng.uniform(-0.5, 0.5, (count, 2))
    mapped = np.column_stack((query, np.ones(count))) @ OVER_PLANE.homography().T
    ref = mapped[:, :2] / mapped[:, 2:]
    sigma = np.full(count, 0.002)
    return RayPairs(
        ref + rng.normal(0, noise, ref.shape),
        query + rng.normal(0, 2 * noise, query.shape),
        sigma,
        2 * sigma,
    )


@pytest.mark.parametrize(
    ("model", "motion", "size"),
    [
        (epipolar, GENERAL, 5),
        (transfer, OVER_PLANE, 8),
        (transfer, GENERAL, 3),
    ],
)
def test_derivatives_are_those_of_finite_differences(model, motion, size):
    data = pairs(1e-5 if model is transfer and size == 8 else 0.002)
    jacobian = model(motion, data).jacobian
    assert jacobian.shape[2] == size
    for parameter in range(size):
        step = np.zeros(size)
        step[parameter] = 1e-6
        ahead, behind = (model(motion.moved(s), data).residuals for s in (step, -step))
        numeric = (ahead - behind) / 2e-6
        # The whitening of transfer errors is held fixed: it matters far from the optimum.
        scale = np.abs(numeric).max()
        tolerance = 0.3 if size == 3 else 1e-3
        np.testing.assert_allclose(jacobian[:, :, parameter], numeric, atol=tolerance * scale)


def test_reprojection_derivatives_are_those_of_finite_differences():
    data, depth = pairs(0.0), np.linspace(2, 6, 6)
    motion = MetricMotion(ROTATION, np.array([0.3, -0.1, 0.2]))
    arguments = {
        "pairs": data,
        "depth": depth,
        "depth_sigma": np.zeros(6),
        "pixel": np.full(6, 0.002),
    }
    points = np.column_stack((data.ref, np.ones(6))) * depth[:, None] - motion.translation
    points = points @ motion.rotation
    exact = RayPairs(data.ref, points[:, :2] / points[:, 2:], data.sigma_ref, data.sigma_query)
    arguments["pairs"] = exact
    found = reprojection(motion, **arguments)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-9)
    for parameter in range(6):
        step = np.zeros(6)
        step[parameter] = 1e-6
        ahead = reprojection(motion.moved(step), **arguments).residuals
        np.testing.assert_allclose(
            found.jacobian[:, :, parameter], ahead / 1e-6, rtol=1e-3, atol=1e-2
        )


@pytest.mark.parametrize(("model", "motion"), [(epipolar, GENERAL), (transfer, OVER_PLANE)])
def test_residuals_have_unit_variance_under_the_declared_noise(model, motion):
    residuals = model(motion, pairs(0.002, count=4000)).residuals
    np.testing.assert_allclose(residuals.std(axis=0), 1.0, rtol=0.05)
    np.testing.assert_allclose(residuals.mean(axis=0), 0.0, atol=0.06)


def test_least_squares_returns_to_the_true_motion():
    data = pairs(0.0, count=40)
    start = OVER_PLANE.moved(np.array([0.02, -0.01, 0.03, 0.1, -0.1, 0.01, 0.02, -0.02]))
    fit = minimise(start, partial(transfer, pairs=data), Motion.moved, np.ones(40), 50.0, 40)
    np.testing.assert_allclose(fit.state.rotation, ROTATION, atol=1e-6)
    np.testing.assert_allclose(fit.state.translation, DIRECTION, atol=1e-5)
    np.testing.assert_allclose(fit.state.plane, PLANE, atol=1e-5)


def test_outliers_have_no_say():
    data = pairs(0.0005, count=60)
    data.ref[:15] += 0.3
    start = OVER_PLANE.moved(np.full(8, 0.002))
    fit = minimise(start, partial(transfer, pairs=data), Motion.moved, np.ones(60), 1.0, 30)
    np.testing.assert_allclose(fit.state.homography(), OVER_PLANE.homography(), atol=5e-3)
    assert (fit.u2[:15] > 1).all()
    assert (fit.u2[15:] < 1).all()


def test_a_homography_gives_back_its_motion_and_at_most_one_twin():
    data = pairs(0.0, count=40)
    motions = planar_motions(3.0 * OVER_PLANE.homography(), data.query)
    assert 1 <= len(motions) <= 2
    errors = [np.abs(m.rotation - ROTATION).max() for m in motions]
    best = motions[int(np.argmin(errors))]
    np.testing.assert_allclose(best.rotation, ROTATION, atol=1e-6)
    np.testing.assert_allclose(best.translation, DIRECTION, atol=1e-6)
    np.testing.assert_allclose(best.plane, PLANE, atol=1e-6)


def test_a_rotation_is_no_motion_over_a_plane():
    assert planar_motions(ROTATION, np.zeros((4, 2))) == []
