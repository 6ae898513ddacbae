import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.geometry.ground_truth import (
    HOMOGRAPHY,
    INDOOR,
    LabelThresholds,
    Projection,
    inside,
    label_matches,
    project_homography,
    subset,
)

IDENTITY = np.eye(3)


def known(points: np.ndarray) -> Projection:
    none = np.zeros(len(points), bool)
    return Projection(np.asarray(points, float), none, none)


def labels_of(points0, points1, thresholds=HOMOGRAPHY):
    points0, points1 = np.array(points0, float), np.array(points1, float)
    return label_matches(points0, points1, known(points0), known(points1), thresholds)


def test_nearest_under_the_threshold_match():
    labels = labels_of([[10, 10], [50, 50], [90, 10]], [[51, 50], [10, 12], [200, 200]])
    assert labels.matches0.tolist() == [1, 0, -1]
    assert labels.matches1.tolist() == [1, 0, -1]


def test_the_threshold_is_exclusive():
    assert labels_of([[0, 0]], [[3, 0]]).matches0.tolist() == [-2]
    assert labels_of([[0, 0]], [[2.99, 0]]).matches0.tolist() == [0]
    assert labels_of([[0, 0]], [[3.01, 0]]).matches0.tolist() == [-1]


def test_between_the_thresholds_a_keypoint_is_ignored():
    assert labels_of([[0, 0]], [[4.9, 0]], INDOOR).matches0.tolist() == [0]
    assert labels_of([[0, 0]], [[10, 0]], INDOOR).matches0.tolist() == [-2]
    assert labels_of([[0, 0]], [[15.1, 0]], INDOOR).matches0.tolist() == [-1]


def test_who_is_not_the_nearest_of_its_nearest_is_ignored_when_close():
    labels = labels_of([[0, 0], [1, 0]], [[0.8, 0]])
    assert labels.matches0.tolist() == [-2, 0]
    assert labels.matches1.tolist() == [1]


def test_hidden_is_unmatched_and_unknown_is_ignored():
    points = np.array([[0, 0], [10, 0], [20, 0.0]])
    hidden = np.array([True, False, False])
    unknown = np.array([False, True, False])
    forward = Projection(points, hidden, unknown)
    labels = label_matches(points, points + 100, forward, known(points + 500), INDOOR)
    assert labels.matches0.tolist() == [-1, -2, -1]


def test_empty_sets_give_empty_labels():
    none = np.empty((0, 2))
    labels = labels_of(none, [[1, 1]])
    assert labels.matches0.tolist() == []
    assert labels.matches1.tolist() == [-1]


def test_points_behind_the_camera_of_a_homography_are_hidden():
    homography = np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1.0]])
    projection = project_homography(np.array([[10.0, 5.0], [90.0, 5.0]]), homography, 640, 480)
    assert projection.hidden.tolist() == [False, True]
    np.testing.assert_allclose(projection.points[0], [12.5, 6.25])


def test_inside_includes_the_border_pixels_whole():
    points = np.array([[-0.5, 0], [-0.6, 0], [9.4, 4.4], [9.5, 0], [np.nan, 0]])
    assert inside(points, 10, 5).tolist() == [True, False, True, False, False]


def test_a_lost_partner_leaves_unmatched():
    labels = labels_of([[10, 10], [50, 50]], [[50, 50], [10, 10]])
    kept = subset(labels, np.array([1, 0]), np.array([1]))
    assert kept.matches0.tolist() == [-1, 0]
    assert kept.matches1.tolist() == [1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 30))
def test_labels_are_one_to_one_and_symmetric(seed, m, n):
    rng = np.random.default_rng(seed)
    points0, points1 = rng.uniform(0, 40, (m, 2)), rng.uniform(0, 40, (n, 2))
    labels = labels_of(points0, points1, INDOOR)
    for i, j in enumerate(labels.matches0):
        assert j >= -2
        if j >= 0:
            assert labels.matches1[j] == i
            assert np.linalg.norm(points0[i] - points1[j]) < INDOOR.match
    swapped = labels_of(points1, points0, INDOOR)
    assert swapped.matches0.tolist() == labels.matches1.tolist()


def test_the_error_is_the_mean_of_both_directions():
    # Scale 2: an offset of 1 px in image 0 is 2 px in image 1.
    homography = np.diag([2.0, 2.0, 1.0])
    points0, points1 = np.array([[10.0, 10.0]]), np.array([[23.9, 20.0]])
    labels = label_matches(
        points0,
        points1,
        project_homography(points0, homography, 100, 100),
        project_homography(points1, np.linalg.inv(homography), 100, 100),
        LabelThresholds(3.0, 3.0),
    )
    assert labels.matches0.tolist() == [0]  # (3.9 + 1.95) / 2 < 3
    assert pytest.approx(2.925) == (3.9 + 1.95) / 2
