"""Covariances: what they claim is what happens."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.stats import chi2

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry.covariance import image_cells, noise_scale
from superglue_ros.geometry.rotation import log, tangent_basis
from superglue_ros.geometry.two_view import estimate_two_view
from superglue_ros.types import PoseStatus

INDEPENDENT = GeometryConfig(systematic_px=0.0, depth_systematic=0.0)


def normalised_error(result, data, metric: bool = False) -> float:
    """Squared Mahalanobis distance of the true pose: chi-square of 5 (metric: 6) if honest."""
    turned = log(data.rotation @ result.rotation.T)
    if metric:
        error = np.concatenate((data.translation - result.translation, turned))
        return error @ np.linalg.solve(result.covariance, error)
    true = data.translation / np.linalg.norm(data.translation)
    basis = np.zeros((6, 5))
    basis[:3, :2] = tangent_basis(result.translation)
    basis[3:, 2:] = np.eye(3)
    error = basis.T @ np.concatenate((true - result.translation, turned))
    return error @ np.linalg.solve(basis.T @ result.covariance @ basis, error)


def test_monocular_errors_have_the_spread_that_is_claimed(scene):
    values = []
    for seed in range(40):
        data = scene(seed, count=120, noise=0.4, outliers=0.2)
        result = estimate_two_view(*data.views, INDEPENDENT)
        assert result.status is PoseStatus.VALID
        values.append(normalised_error(result, data))
    values = np.array(values)
    # 40 values of chi-square with 5 degrees: mean 5 +- 0.5, 95 % below 11.1.
    assert 3.5 < values.mean() < 7.5
    assert 0.5 < np.median(values) / chi2.median(5) < 1.6
    assert np.mean(values < chi2.ppf(0.95, 5)) > 0.8


def test_planar_errors_have_the_spread_that_is_claimed(scene):
    values = []
    for seed in range(16):
        data = scene(seed, count=120, noise=0.4, outliers=0.2, planar=True)
        result = estimate_two_view(*data.views, INDEPENDENT)
        if result.status is PoseStatus.PLANAR:
            values.append(normalised_error(result, data))
    assert len(values) >= 12
    assert 0.3 < np.median(values) / chi2.median(5) < 2.0


def test_metric_errors_have_the_spread_that_is_claimed(scene):
    values, known = [], []
    for seed in range(30):
        data = scene(seed, count=100, noise=0.4, outliers=0.2)
        rng = np.random.default_rng(seed)
        depth = data.depth * (1 + 0.02 * rng.normal(size=100))
        result = estimate_two_view(*data.views, INDEPENDENT, depth_ref=depth)
        known.append(result.scale_known)
        values.append(normalised_error(result, data, metric=True))
    assert all(known)
    assert 0.5 < np.median(values) / chi2.median(6) < 1.8
    assert np.mean(np.array(values) < chi2.ppf(0.95, 6)) > 0.75


def field_over_cells(rng, pixels: np.ndarray) -> np.ndarray:
    """Values (K,) of unit variance that the matches of one image cell share."""
    _, cell = np.unique(image_cells(pixels, 640), return_inverse=True)
    return rng.normal(size=cell.max() + 1)[cell]


def test_depth_errors_that_neighbours_share_are_covered_once_declared(scene):
    """A depth camera 3 % off in each part of the image: no number of matches averages that out."""
    config = replace(INDEPENDENT, depth_noise=0.02, depth_systematic=0.03)
    declared, ignored, exact = [], [], []
    for seed in range(30):
        data = scene(seed, count=200, noise=0.3, outliers=0.1)
        rng = np.random.default_rng(seed)
        independent = data.depth * (1 + 0.02 * rng.normal(size=200))
        shared = independent * (1 + 0.03 * field_over_cells(rng, data.query))
        for depth, rules, found in (
            (shared, config, declared),
            (shared, INDEPENDENT, ignored),
            (independent, INDEPENDENT, exact),
        ):
            result = estimate_two_view(*data.views, rules, depth_ref=depth)
            assert result.scale_known
            found.append(normalised_error(result, data, metric=True))
    usual = chi2.median(6)
    assert 0.6 < np.median(exact) / usual < 1.6
    assert 0.6 < np.median(declared) / usual < 1.6
    assert np.mean(np.array(declared) < chi2.ppf(0.95, 6)) > 0.8
    assert np.median(ignored) > 1.5 * np.median(declared)


def test_rotation_errors_have_the_spread_that_is_claimed(scene):
    values = []
    for seed in range(20):
        data = scene(seed, count=100, noise=0.4, outliers=0.2, move=(0, 0, 0))
        result = estimate_two_view(*data.views, INDEPENDENT)
        assert result.status is PoseStatus.ROTATION_ONLY
        error = log(data.rotation @ result.rotation.T)
        values.append(error @ np.linalg.solve(result.covariance[3:, 3:], error))
    assert 0.25 < np.median(values) / chi2.median(3) < 1.8


@pytest.mark.parametrize("move", [(0.03, 0, 0), (0.03, 0, 0.06)])
def test_a_rotation_that_holds_a_small_translation_admits_it(scene, move):
    """A third of a degree of parallax: too little for a direction, enough to turn the rotation."""
    values = []
    for seed in range(12):
        data = scene(seed, count=150, move=move)
        result = estimate_two_view(*data.views, GeometryConfig())
        if result.status is PoseStatus.ROTATION_ONLY:
            error = log(data.rotation @ result.rotation.T)
            values.append(error @ np.linalg.solve(result.covariance[3:, 3:], error))
    assert len(values) >= 8
    assert 0.1 < np.median(values) / chi2.median(3) < 1.8
    assert np.mean(np.array(values) < chi2.ppf(0.95, 3)) > 0.7


@pytest.mark.parametrize("baseline", [0.07, 0.1])
def test_seven_tenths_of_a_degree_give_a_direction(scene, baseline):
    statuses = [
        estimate_two_view(
            *scene(seed, count=150, move=(baseline, 0, 0)).views, GeometryConfig()
        ).status
        for seed in range(8)
    ]
    assert statuses.count(PoseStatus.VALID) >= 7


def test_errors_that_neighbours_share_are_covered_once_declared(scene):
    """A smooth field of displacements, as a poor calibration makes it, 1 px in strength."""
    declared, ignored = [], []
    for seed in range(16):
        data = scene(seed, count=300, noise=0.2, outliers=0.0)
        rng = np.random.default_rng(seed)
        field = cv2.resize(rng.normal(size=(4, 5, 2)), (640, 480), interpolation=cv2.INTER_CUBIC)
        x, y = np.rint(data.query).astype(int).T.clip(0, [[639], [479]])
        query = data.query + field[y, x] / field.std()
        views = (data.ref, query, data.camera_ref, data.camera_query)
        config = replace(INDEPENDENT, systematic_px=1.0)
        declared.append(normalised_error(estimate_two_view(*views, config), data))
        ignored.append(normalised_error(estimate_two_view(*views, INDEPENDENT), data))
    assert 0.1 < np.median(declared) / chi2.median(5) < 2.5
    assert np.median(ignored) > 8 * np.median(declared)


def test_the_monocular_baseline_has_no_length_to_be_sure_of(scene):
    result = estimate_two_view(*scene().views, GeometryConfig())
    radial = np.concatenate((result.translation, np.zeros(3)))
    np.testing.assert_allclose(result.covariance @ radial, 0, atol=1e-15)
    assert np.linalg.matrix_rank(result.covariance, tol=1e-12) == 5
    np.testing.assert_allclose(result.covariance, result.covariance.T)
    assert np.linalg.eigvalsh(result.covariance)[0] > -1e-15


def test_more_matches_and_less_noise_say_more(scene):
    def size(**arguments):
        data = scene(3, outliers=0.0, **arguments)
        return np.trace(estimate_two_view(*data.views, INDEPENDENT).covariance)

    assert size(count=400) < 0.6 * size(count=100)
    assert size(noise=0.2) < 0.3 * size(noise=0.6)


def test_systematic_errors_only_add(scene):
    data = scene(4)
    small = estimate_two_view(*data.views, INDEPENDENT).covariance
    large = estimate_two_view(*data.views, replace(INDEPENDENT, systematic_px=0.5)).covariance
    assert np.linalg.eigvalsh(large - small)[0] > -1e-6 * np.trace(large)
    assert np.trace(large) > np.trace(small)


def test_an_undecided_plane_covers_its_twin(scene):
    covered = 0
    for seed in range(6):
        data = scene(seed, planar=True, noise=0.3, outliers=0.0)
        result = estimate_two_view(*data.views, GeometryConfig())
        covered += normalised_error(result, data) < chi2.ppf(0.99, 5)
    assert covered == 6


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.9])
def test_noise_is_found_among_outliers(sigma):
    rng = np.random.default_rng(0)
    residuals = np.concatenate((rng.normal(0, sigma, 600), rng.uniform(-50, 50, 400)))
    assert noise_scale(residuals, 1.0, 1.5) == pytest.approx(sigma, rel=0.12)


def test_noise_of_nothing_is_what_was_expected():
    assert noise_scale(np.zeros(0), 0.7, 2.0) == 0.7
    assert noise_scale(np.zeros(0), 5.0, 2.0) == 2.0


def test_image_cells_are_a_quarter_of_the_width():
    cells = image_cells(np.array([[0, 0], [159, 159], [160, 0], [0, 160]]), 640)
    assert cells[0] == cells[1]
    assert len(set(cells.tolist())) == 3
