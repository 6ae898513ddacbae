"""Two-view estimates against known motions: poses, statuses, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from superglue_ros.config import GeometryConfig
from superglue_ros.errors import FeaturesError
from superglue_ros.geometry.camera import camera_from_info
from superglue_ros.geometry.rotation import angle, exp, log
from superglue_ros.geometry.two_view import estimate_two_view, no_pose
from superglue_ros.geometry.views import inverse
from superglue_ros.types import PoseMethod, PoseStatus

CONFIG = GeometryConfig()
ESTIMATORS = ("poselib", "usac-magsac", "opencv-ransac")


def errors_deg(result, scene) -> tuple[float, float]:
    """Rotation error and angle between translations."""
    direction = scene.translation / np.linalg.norm(scene.translation)
    found = result.translation / np.linalg.norm(result.translation)
    aside = np.arctan2(np.linalg.norm(np.cross(found, direction)), found @ direction)
    return np.rad2deg(angle(result.rotation @ scene.rotation.T)), np.rad2deg(aside)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_general_motion(scene, estimator):
    data = scene(outliers=0.3)
    result = estimate_two_view(*data.views, replace(CONFIG, estimator=estimator))
    assert (result.status, result.method) == (PoseStatus.VALID, PoseMethod.ESSENTIAL)
    turn, aside = errors_deg(result, data)
    assert turn < 0.2
    assert aside < 2.0
    assert np.linalg.norm(result.translation) == pytest.approx(1.0)
    assert not result.scale_known
    # Noise of 0.5 px makes 95 % of first-order distances smaller than 1 px.
    assert result.inliers[data.right].mean() > 0.9
    assert result.inliers[~data.right].mean() < 0.1
    assert 0.2 < result.median_epipolar_px < 0.7
    assert result.threshold_px == 1.0


@pytest.mark.parametrize("seed", [1, 2])
def test_sixty_percent_outliers(scene, seed):
    data = scene(seed, count=300, outliers=0.6)
    result = estimate_two_view(*data.views, CONFIG)
    assert result.status is PoseStatus.VALID
    turn, aside = errors_deg(result, data)
    assert turn < 0.4
    assert aside < 3.0
    assert result.inliers[data.right].mean() > 0.85


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_planar_scene(scene, estimator):
    data = scene(3, planar=True, outliers=0.3)
    result = estimate_two_view(*data.views, replace(CONFIG, estimator=estimator))
    assert (result.status, result.method) == (PoseStatus.PLANAR, PoseMethod.HOMOGRAPHY)
    # Either the true motion, or its twin with a covariance that says so.
    turn, aside = errors_deg(result, data)
    spread = np.rad2deg(np.sqrt(np.linalg.eigvalsh(result.covariance)[-1]))
    assert aside < max(3.0, 3 * spread)
    assert turn < max(0.5, 3 * spread)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pure_rotation(scene, estimator):
    data = scene(4, move=(0, 0, 0), outliers=0.3)
    result = estimate_two_view(*data.views, replace(CONFIG, estimator=estimator))
    assert (result.status, result.method) == (PoseStatus.ROTATION_ONLY, PoseMethod.HOMOGRAPHY)
    assert np.rad2deg(angle(result.rotation @ data.rotation.T)) < 0.1
    np.testing.assert_array_equal(result.translation, 0)
    np.testing.assert_allclose(result.covariance[:3, :3], np.eye(3) / 3)
    assert result.inliers[data.right].mean() > 0.9
    assert result.inliers[~data.right].mean() < 0.05
    assert result.median_parallax_rad < np.deg2rad(0.2)
    assert 0 < result.median_epipolar_px < 1.5


def test_too_little_parallax_gives_a_rotation_only(scene):
    data = scene(5, move=(0.1, 0, 0), noise=0.1, outliers=0.0)
    moving = estimate_two_view(*data.views, CONFIG)
    assert moving.status is PoseStatus.VALID
    low = np.rad2deg(moving.median_parallax_rad)
    strict = estimate_two_view(*data.views, replace(CONFIG, min_parallax_deg=low + 0.1))
    assert strict.status is PoseStatus.ROTATION_ONLY


def test_random_matches_are_rejected(scene):
    for seed in range(3):
        data = scene(seed, count=60, outliers=1.0)
        result = estimate_two_view(*data.views, CONFIG)
        assert result.status is PoseStatus.REJECTED


@pytest.mark.parametrize("count", [0, 1, 4, 5, 14])
def test_few_matches(scene, count):
    data = scene(count=20)
    result = estimate_two_view(
        data.ref[:count], data.query[:count], data.camera_ref, data.camera_query, CONFIG
    )
    assert (result.status, result.method) == (PoseStatus.FEW, PoseMethod.NONE)
    assert result.inliers.shape == (count,)
    assert result.covariance[0, 0] == -1
    np.testing.assert_array_equal(result.rotation, np.eye(3))


def test_fewest_matches_allowed_need_not_crash(scene):
    data = scene(count=5, outliers=0.0)
    config = replace(CONFIG, min_matches=5, min_inliers=5, min_significance=-1000)
    for estimator in ESTIMATORS:
        result = estimate_two_view(*data.views, replace(config, estimator=estimator))
        assert np.isfinite(result.covariance).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_degenerate_points_do_not_crash(estimator):
    camera = camera_from_info(640, 480, [500, 0, 320, 0, 500, 240, 0, 0, 1])
    config = replace(CONFIG, estimator=estimator)
    same = np.full((30, 2), 100.0)
    line = np.column_stack((np.linspace(0, 600, 30), np.full(30, 240.0)))
    for ref, query in ((same, same), (line, line), (line, line + 3.0)):
        result = estimate_two_view(ref, query, camera, camera, config)
        assert np.isfinite(result.rotation).all()
        assert np.isfinite(result.covariance).all()
        assert result.status is not PoseStatus.VALID


def test_the_same_image_twice_is_a_rotation_by_nothing(scene):
    data = scene(noise=0.0, outliers=0.0)
    result = estimate_two_view(data.ref, data.ref, data.camera_ref, data.camera_ref, CONFIG)
    assert result.status is PoseStatus.ROTATION_ONLY
    assert angle(result.rotation) < 1e-6


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_same_seed_same_result(scene, estimator):
    data = scene(6, outliers=0.3)
    config = replace(CONFIG, estimator=estimator, seed=7)
    first, second = (estimate_two_view(*data.views, config) for _ in range(2))
    np.testing.assert_array_equal(first.rotation, second.rotation)
    np.testing.assert_array_equal(first.translation, second.translation)
    np.testing.assert_array_equal(first.inliers, second.inliers)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 1000),
    st.tuples(*[st.floats(-0.12, 0.12)] * 3),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)).filter(
        lambda move: np.linalg.norm(move) > 0.3
    ),
)
def test_any_motion_is_found_and_its_inverse_when_the_views_are_swapped(scene, seed, turn, move):
    data = scene(seed, turn=turn, move=move, noise=0.2, outliers=0.1)
    result = estimate_two_view(*data.views, CONFIG)
    assert result.status is PoseStatus.VALID
    turn_error, aside = errors_deg(result, data)
    assert turn_error < 0.2
    assert aside < 3.0
    back = estimate_two_view(data.query, data.ref, data.camera_query, data.camera_ref, CONFIG)
    assert angle(back.rotation @ result.rotation) < np.deg2rad(0.2)
    np.testing.assert_allclose(-back.rotation.T @ back.translation, result.translation, atol=0.05)


def test_cameras_may_differ(scene):
    wide = camera_from_info(
        1280, 960, [620, 0, 640, 0, 600, 480, 0, 0, 1], [0.05, 0.01, 0.0, 0.0], model="equidistant"
    )
    data = scene(8, camera_query=wide)
    result = estimate_two_view(*data.views, CONFIG)
    assert result.status is PoseStatus.VALID
    turn, aside = errors_deg(result, data)
    assert turn < 0.3
    assert aside < 3.0


def test_matches_without_rays_are_outliers_not_errors(scene):
    folded = camera_from_info(640, 480, [500, 0, 320, 0, 500, 240, 0, 0, 1], [-0.7, 0, 0, 0, 0])
    data = scene(9, outliers=0.0, camera_query=folded, turn=(0, 0, 0))
    query = data.query.copy()
    query[:5] = [0, 0]
    assert np.isnan(folded.rays(query[:1])).all()
    result = estimate_two_view(data.ref, query, data.camera_ref, folded, CONFIG)
    assert result.status is PoseStatus.VALID
    assert not result.inliers[:5].any()


def test_confident_matches_weigh_more(scene):
    data = scene(10, noise=0.2, outliers=0.0)
    rng = np.random.default_rng(0)
    query = data.query.copy()
    query[100:] += rng.normal(0, 1.5, (100, 2))
    scores = np.where(np.arange(200) < 100, 1.0, 0.05)
    plain = estimate_two_view(data.ref, query, data.camera_ref, data.camera_query, CONFIG)
    weighed = estimate_two_view(
        data.ref, query, data.camera_ref, data.camera_query, CONFIG, scores=scores
    )
    assert errors_deg(weighed, data)[1] < errors_deg(plain, data)[1]


def test_arguments_that_do_not_fit_are_named(scene):
    data = scene(count=30)
    ref, query, camera, _ = data.views
    bad = ref.copy()
    bad[3, 0] = np.nan
    with pytest.raises(FeaturesError, match="points_ref hold NaN"):
        estimate_two_view(bad, query, camera, camera, CONFIG)
    with pytest.raises(FeaturesError, match="30 reference points against 29 query points"):
        estimate_two_view(ref, query[:-1], camera, camera, CONFIG)
    with pytest.raises(FeaturesError, match=r"points_query have shape \(30, 3\)"):
        estimate_two_view(ref, np.zeros((30, 3)), camera, camera, CONFIG)
    with pytest.raises(FeaturesError, match="scores has 3 values for 30 matches"):
        estimate_two_view(ref, query, camera, camera, CONFIG, scores=[1, 1, 1])
    with pytest.raises(FeaturesError, match="sigma_px hold NaN"):
        estimate_two_view(ref, query, camera, camera, CONFIG, sigma_px=np.full(30, np.nan))


def test_no_pose_keeps_its_promises():
    result = no_pose(7, CONFIG)
    assert result.status is PoseStatus.REJECTED
    assert result.inliers.shape == (7,)
    assert result.covariance[0, 0] == -1


def test_the_inverse_of_a_pose_carries_its_covariance(scene):
    data = scene(5)
    forward = estimate_two_view(*data.views, CONFIG, depth_ref=data.depth)
    backward = inverse(forward)
    np.testing.assert_allclose(backward.rotation @ forward.rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(
        forward.rotation @ backward.translation + forward.translation, 0, atol=1e-12
    )
    again = inverse(backward)
    np.testing.assert_allclose(again.translation, forward.translation, atol=1e-12)
    np.testing.assert_allclose(again.covariance, forward.covariance, rtol=1e-6, atol=1e-16)
    # The spread of inverted samples is the covariance of the inverse.
    rng = np.random.default_rng(0)
    samples = rng.multivariate_normal(np.zeros(6), forward.covariance, 4000)
    errors = []
    for sample in samples:
        moved = inverse(
            replace(
                forward,
                rotation=exp(sample[3:]) @ forward.rotation,
                translation=forward.translation + sample[:3],
            )
        )
        turn = log(moved.rotation @ backward.rotation.T)
        errors.append(np.concatenate((moved.translation - backward.translation, turn)))
    scale = np.sqrt(np.diag(backward.covariance))
    found = np.cov(np.array(errors).T) / np.outer(scale, scale)
    np.testing.assert_allclose(found, backward.covariance / np.outer(scale, scale), atol=0.08)
    unknown = inverse(no_pose(3, CONFIG))
    assert unknown.covariance[0, 0] == -1
    assert not unknown.covariance[1:].any()
