"""Metrics against closed forms, properties, and independent brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from superglue_ros.evaluation import metrics
from superglue_ros.geometry import angle_errors
from superglue_ros.geometry.dlt import dlt_homography
from superglue_ros.synthetic.homographies import sample_homography

errors = st.lists(
    st.one_of(st.floats(0, 50), st.just(float("inf")), st.just(float("nan"))), min_size=1
)


def brute_force_area(values, threshold, interpolate, steps=200_000):
    """Midpoint rule on the curve evaluated point by point."""
    finite = sorted(v if v == v else float("inf") for v in values)
    n = len(finite)
    inside = [v for v in finite if v < threshold]
    x = (np.arange(steps) + 0.5) * threshold / steps
    if not interpolate:
        y = np.searchsorted(inside, x, side="right") / n
    else:
        knots = np.concatenate([[0.0], inside])
        shares = np.arange(len(knots)) / n
        # np.interp takes the last of equal knots only beyond them: nudge equal errors apart.
        knots = knots + np.arange(len(knots)) * 1e-12
        y = np.interp(x, knots, shares)
    return float(y.mean())


@given(errors, st.sampled_from([5.0, 10.0, 20.0]), st.booleans())
def test_auc_agrees_with_brute_force(values, threshold, interpolate):
    got = metrics.auc(values, threshold, interpolate)
    assert got == pytest.approx(brute_force_area(values, threshold, interpolate), abs=2e-4)


@given(errors)
def test_auc_grows_with_threshold_and_lies_in_unit_interval(values):
    areas = [metrics.auc(values, t) for t in (1.0, 5.0, 10.0, 20.0, 100.0)]
    assert all(0 <= a <= 1 for a in areas)
    assert metrics.auc(values, 5.0, interpolate=False) <= metrics.auc(values, 5.0) + 1e-12


def test_auc_closed_forms():
    assert metrics.auc([0.0, 0.0], 5.0) == 1.0
    assert metrics.auc([np.inf, np.nan], 5.0) == 0.0
    # One error of 5 under 10: a ramp of area 2.5 and a plateau of area 5.
    assert metrics.auc([5.0], 10.0) == pytest.approx(0.75)
    assert metrics.auc([5.0], 10.0, interpolate=False) == pytest.approx(0.5)
    assert np.isnan(metrics.auc([], 5.0))


def test_the_auc_of_repeats_is_their_mean_and_not_that_of_all_their_errors():
    repeats = np.array([[1.0, 9.0], [3.0, np.inf]])
    each = [metrics.auc(one, 10.0) for one in ([1.0, 3.0], [9.0, np.inf])]
    assert metrics.mean_auc(repeats, 10.0) == pytest.approx(np.mean(each))
    assert metrics.mean_auc(repeats[:, 0], 10.0) == each[0]
    assert metrics.auc(repeats.ravel(), 10.0) != pytest.approx(np.mean(each), abs=0.01)


def test_approximate_auc_is_the_mean_recall_at_multiples_of_five_degrees():
    values = [1.0, 6.0, 12.0, np.inf]
    assert metrics.auc_approximate(values, 5.0) == 0.25
    assert metrics.auc_approximate(values, 10.0) == pytest.approx((0.25 + 0.5) / 2)
    assert metrics.auc_approximate(values, 20.0) == pytest.approx((0.25 + 0.5 + 0.75 + 0.75) / 4)
    with pytest.raises(ValueError, match="multiple"):
        metrics.auc_approximate(values, 7.0)


@given(errors)
def test_approximate_auc_overestimates(values):
    # Table 6: coarse bins count an error at the left edge of its bin.
    assert metrics.auc_approximate(values, 20.0) >= metrics.auc(values, 20.0, False) - 1e-12


def test_cumulative_curve_counts_failures_in_the_denominator():
    x, y = metrics.cumulative_curve([2.0, np.inf, 1.0, np.nan])
    np.testing.assert_allclose(x, [0, 1, 2])
    np.testing.assert_allclose(y, [0, 0.25, 0.5])


def test_match_quality_closed_form():
    correct = np.array([True, True, False, False, False])
    quality = metrics.match_quality(correct, 2, 4, 10, np.array([1.0, 2.0, 9.0, 9.0, 9.0]))
    assert quality.precision == pytest.approx(0.4)
    assert quality.recall == pytest.approx(0.5)
    assert quality.f1 == pytest.approx(2 * 0.4 * 0.5 / 0.9)
    assert quality.matching_score == pytest.approx(0.2)
    assert quality.outlier_ratio == pytest.approx(0.6)
    assert quality.mean_distance_px == pytest.approx(6.0)


def test_match_quality_without_matches_counts_as_zero_and_without_truth_as_unknown():
    nothing = metrics.match_quality(np.zeros(0, bool), 0, 3, 8, np.zeros(0))
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.matching_score) == (0, 0, 0, 0)
    assert np.isnan(nothing.mean_distance_px)
    unknown = metrics.match_quality(np.array([False]), 0, 0, 8, np.array([30.0]))
    assert np.isnan(unknown.recall)
    assert metrics.mean_defined([0.5, float("nan"), 1.0]) == 0.75


def test_ground_truth_matches_find_a_shuffled_copy_and_drop_the_rest():
    rng = np.random.default_rng(0)
    homography = sample_homography(rng)
    # A grid wide enough that a shift of 1 px can't confuse neighbours.
    grid = np.stack(np.meshgrid(np.arange(40, 600, 60), np.arange(40, 440, 60)), -1).reshape(-1, 2)
    moved = metrics.project(homography, grid) + rng.uniform(-0.7, 0.7, grid.shape)
    order = rng.permutation(len(grid))
    moved = moved[order]
    moved[:5] += 500  # no partner within 3 px any more
    found = metrics.ground_truth_matches(grid, moved, homography)
    expected = {(int(order[j]), j) for j in range(5, len(order))}
    assert {tuple(row) for row in found.tolist()} == expected
    assert metrics.count_recovered(found[:7], found) == 7
    empty = np.zeros((0, 2))
    assert metrics.ground_truth_matches(empty, moved, homography).shape == (0, 2)


@given(st.integers(0, 10_000), st.floats(-3, 3).filter(lambda s: abs(s) > 0.1))
def test_projection_inverts_and_ignores_the_scale_of_the_matrix(seed, scale):
    rng = np.random.default_rng(seed)
    homography = sample_homography(rng)
    points = rng.uniform(0, [639, 479], (8, 2))
    there = metrics.project(homography * scale, points)
    back = metrics.project(np.linalg.inv(homography), there)
    np.testing.assert_allclose(back, points, atol=1e-5)


def test_points_behind_the_plane_of_view_have_no_projection():
    homography = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])
    mapped = metrics.project(homography, np.array([[50.0, 0.0], [150.0, 0.0]]))
    np.testing.assert_allclose(mapped[0], [100, 0])
    assert np.isnan(mapped[1]).all()


def test_corner_error_of_a_translation_is_its_length():
    shift = np.array([[1, 0, 3], [0, 1, 4], [0, 0, 1.0]])
    assert metrics.corner_error(shift, np.eye(3), 640, 480) == pytest.approx(5.0)
    assert metrics.corner_error(-2 * shift, np.eye(3), 640, 480) == pytest.approx(5.0)
    assert metrics.corner_error(None, np.eye(3), 640, 480) == np.inf
    assert metrics.corner_error(np.full((3, 3), np.nan), np.eye(3), 640, 480) == np.inf


@given(st.floats(0, 180), st.integers(0, 1000))
def test_rotation_error_is_the_angle_between(angle, seed):
    rng = np.random.default_rng(seed)
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    base = Rotation.random(random_state=seed).as_matrix()
    turned = base @ Rotation.from_rotvec(np.radians(angle) * axis).as_matrix()
    assert angle_errors.rotation_error_deg(base, turned) == pytest.approx(angle, abs=1e-5)


def test_rotation_error_resolves_tiny_angles():
    turned = Rotation.from_rotvec([0, 1e-7, 0]).as_matrix()
    assert angle_errors.rotation_error_deg(np.eye(3), turned) == pytest.approx(
        np.degrees(1e-7), rel=1e-5
    )


def test_direction_error_folds_the_sign_unless_told_otherwise():
    ahead, aside = np.array([0, 0, 2.0]), np.array([0, 1.0, 1.0])
    assert angle_errors.direction_error_deg(ahead, aside) == pytest.approx(45)
    assert angle_errors.direction_error_deg(-ahead, aside) == pytest.approx(45)
    assert angle_errors.direction_error_deg(-ahead, aside, signed=True) == pytest.approx(135)
    assert angle_errors.direction_error_deg(np.zeros(3), aside) == np.inf
    assert np.isnan(angle_errors.direction_error_deg(ahead, np.zeros(3)))


def test_pose_error_is_the_larger_one():
    assert angle_errors.pose_error_deg(3.0, 7.0) == 7.0
    assert angle_errors.pose_error_deg(3.0, float("nan")) == 3.0
    assert angle_errors.pose_error_deg(float("inf"), 7.0) == np.inf


def test_epipolar_distance_of_a_sideways_motion_is_the_vertical_disparity():
    # t along x: epipolar lines are rows, the distance to each is the difference in y.
    essential = metrics.essential_matrix(np.eye(3), np.array([2.0, 0, 0]))
    rays0 = np.array([[0.1, 0.2], [0.0, 0.0]])
    rays1 = np.array([[0.3, 0.2], [0.5, 0.01]])
    got = metrics.squared_epipolar_distance(rays0, rays1, essential)
    np.testing.assert_allclose(got, [0.0, 2 * 0.01**2], atol=1e-15)


@given(st.integers(0, 1000))
def test_true_correspondences_have_no_epipolar_distance_and_swap_is_symmetric(seed):
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(rng.uniform(-0.5, 0.5, 3)).as_matrix()
    translation = rng.standard_normal(3)
    points = rng.uniform([-2, -2, 4], [2, 2, 9], (20, 3))
    moved = points @ rotation.T + translation
    essential = metrics.essential_matrix(rotation, translation)
    rays0, rays1 = points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]
    assert metrics.squared_epipolar_distance(rays0, rays1, essential).max() < 1e-20
    noisy = rays1 + rng.normal(0, 0.01, rays1.shape)
    forward = metrics.squared_epipolar_distance(rays0, noisy, essential)
    backward = metrics.squared_epipolar_distance(noisy, rays0, essential.T)
    np.testing.assert_allclose(forward, backward, rtol=1e-9)


def test_precision_curve_drops_matches_below_the_threshold():
    scores = [np.array([0.9, 0.5, 0.1]), np.array([0.4])]
    correct = [np.array([True, True, False]), np.array([False])]
    counts, precision = metrics.precision_curve(scores, correct, [0.0, 0.3, 0.45, 0.95])
    np.testing.assert_allclose(counts, [1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(precision[:3], [(2 / 3 + 0) / 2, 0.5, 1.0])
    assert np.isnan(precision[3])


@given(st.integers(0, 500))
def test_dlt_recovers_a_homography_from_exact_points(seed):
    rng = np.random.default_rng(seed)
    homography = sample_homography(rng)
    points = rng.uniform(0, [639, 479], (12, 2))
    estimate = dlt_homography(points, metrics.project(homography, points))
    assert metrics.corner_error(estimate, homography, 640, 480) < 1e-4


def test_dlt_fails_below_four_points_and_is_not_robust():
    points = np.array([[0, 0], [600, 0], [600, 400], [0, 400], [300, 200]], float)
    assert dlt_homography(points[:3], points[:3]) is None
    moved = points.copy()
    moved[4] += 100
    assert metrics.corner_error(dlt_homography(points, moved), np.eye(3), 640, 480) > 5


def test_reliability_by_hand_and_of_a_calibrated_confidence():
    confidence, correct = [0.05, 0.95, 0.85, 0.95, 1.0], [0, 1, 1, 0, 1]
    found = metrics.reliability(confidence, correct)
    assert found.count.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 3]
    assert found.accuracy[[0, 8, 9]].tolist() == pytest.approx([0, 1, 2 / 3])
    expected = (0.05 + 0.15 + 3 * abs(2 / 3 - 2.9 / 3)) / 5
    assert found.expected_error == pytest.approx(expected)
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    assert metrics.reliability(p, rng.random(20_000) < p).expected_error < 0.02
    assert np.isnan(metrics.reliability([], []).expected_error)
