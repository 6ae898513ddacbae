"""Metric poses from depth."""

from dataclasses import replace

import numpy as np
import pytest

from superglue_ros.config import GeometryConfig
from superglue_ros.geometry.rotation import angle
from superglue_ros.geometry.two_view import estimate_two_view
from superglue_ros.types import PoseMethod, PoseStatus

CONFIG = GeometryConfig()


@pytest.mark.parametrize("estimator", ["poselib", "usac-magsac"])
def test_depth_gives_metres(scene, estimator):
    data = scene(1, outliers=0.3)
    config = replace(CONFIG, estimator=estimator)
    result = estimate_two_view(*data.views, config, depth_ref=data.depth)
    assert (result.status, result.method) == (PoseStatus.VALID, PoseMethod.PNP)
    assert result.scale_known
    np.testing.assert_allclose(result.translation, data.translation, atol=0.02)
    assert np.rad2deg(angle(result.rotation @ data.rotation.T)) < 0.2
    assert result.inliers[data.right].mean() > 0.9
    assert result.inliers[~data.right].mean() < 0.1
    assert np.linalg.matrix_rank(result.covariance, tol=1e-14) == 6


@pytest.mark.parametrize("move", [(0, 0, 0), (0.01, 0, 0)])
def test_depth_makes_a_short_baseline_valid(scene, move):
    data = scene(2, move=move)
    result = estimate_two_view(*data.views, CONFIG, depth_ref=data.depth)
    assert (result.status, result.method) == (PoseStatus.VALID, PoseMethod.PNP)
    np.testing.assert_allclose(result.translation, move, atol=0.01)


def test_planar_scenes_are_no_trouble_with_depth(scene):
    data = scene(3, planar=True)
    result = estimate_two_view(*data.views, CONFIG, depth_ref=data.depth)
    assert (result.status, result.method) == (PoseStatus.VALID, PoseMethod.PNP)
    np.testing.assert_allclose(result.translation, data.translation, atol=0.02)


def test_matches_without_depth_are_judged_by_their_epipolar_line(scene):
    data = scene(4, outliers=0.2)
    depth = np.where(np.arange(200) % 2, data.depth, np.nan)
    result = estimate_two_view(*data.views, CONFIG, depth_ref=depth)
    assert result.method is PoseMethod.PNP
    assert result.inliers[data.right & np.isnan(depth)].mean() > 0.85
    assert result.inliers[~data.right].mean() < 0.15


def test_too_few_depths_fall_back_to_the_essential_matrix(scene):
    data = scene(5)
    few = np.where(np.arange(200) < 195, 0.0, data.depth)
    assert estimate_two_view(*data.views, CONFIG, depth_ref=few).method is PoseMethod.ESSENTIAL


def test_noisier_depth_is_trusted_less(scene):
    data = scene(6)
    sure, unsure = (
        estimate_two_view(
            *data.views, replace(CONFIG, depth_noise=noise), depth_ref=data.depth
        ).covariance
        for noise in (0.0, 0.1)
    )
    assert np.trace(unsure[:3, :3]) > 1.5 * np.trace(sure[:3, :3])


def test_each_depth_counts_as_its_own_standard_deviation_says(scene):
    """Far points of a stereo pair: their depths are off, which is known, and do less harm."""
    off = []
    for seed in range(6):
        data = scene(seed, noise=0.1, outliers=0.0)
        sigma = np.where(data.depth > 4, 0.3, 0.005) * data.depth
        noise = np.random.default_rng(seed).standard_normal(len(sigma))
        told, untold, unknown = (
            estimate_two_view(
                *data.views, CONFIG, depth_ref=data.depth + sigma * noise, depth_sigma=given
            )
            for given in (sigma, None, sigma * np.nan)
        )
        np.testing.assert_array_equal(unknown.translation, untold.translation)
        off.append([np.linalg.norm(r.translation - data.translation) for r in (told, untold)])
    told_off, untold_off = np.mean(off, axis=0)
    assert told_off < 0.004
    assert untold_off > 1.5 * told_off
