import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superglue_ros.geometry.ground_truth import (
    HOMOGRAPHY,
    INDOOR,
    PAPER,
    LabelRule,
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


OURS = LabelRule(error="mean", ambiguous="ignored")


def labels_of(points0, points1, thresholds=HOMOGRAPHY, rule=PAPER):
    points0, points1 = np.array(points0, float), np.array(points1, float)
    return label_matches(points0, points1, known(points0), known(points1), thresholds, rule)


def test_nearest_under_the_threshold_match():
    labels = labels_of([[10, 10], [50, 50], [90, 10]], [[51, 50], [10, 12], [200, 200]])
    assert labels.matches0.tolist() == [1, 0, -1]
    assert labels.matches1.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("distance", "papers", "ours"), [(2.99, 0, 0), (3, -1, -2), (3.01, -1, -1)]
)
def test_the_threshold_of_homographies_is_exclusive(distance, papers, ours):
    assert labels_of([[0, 0]], [[distance, 0]]).matches0.tolist() == [papers]
    assert labels_of([[0, 0]], [[distance, 0]], rule=OURS).matches0.tolist() == [ours]


def test_between_the_thresholds_a_keypoint_is_ignored():
    assert labels_of([[0, 0]], [[4.9, 0]], INDOOR).matches0.tolist() == [0]
    assert labels_of([[0, 0]], [[10, 0]], INDOOR).matches0.tolist() == [-2]
    assert labels_of([[0, 0]], [[15.1, 0]], INDOOR).matches0.tolist() == [-1]


def test_who_is_near_a_match_but_in_none_is_unmatched_as_in_the_paper_or_ignored():
    """Appendix E: unmatched keypoints are simply the ones that do not appear in M."""
    near, match = [[0, 0], [1, 0]], [[0.8, 0]]
    assert labels_of(near, match).matches0.tolist() == [-1, 0]
    assert labels_of(near, match, rule=OURS).matches0.tolist() == [-2, 0]
    # Indoors both leave it out: its smallest error is not above 15 px.
    assert labels_of(near, match, INDOOR).matches0.tolist() == [-2, 0]


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


@pytest.mark.parametrize(("error", "expected"), [("forward", -1), ("mean", 0)])
def test_the_error_is_that_in_image_1_or_the_mean_of_both_directions(error, expected):
    # Scale 2: 3.9 px in image 1 are 1.95 px in image 0, 2.925 px in the mean.
    homography = np.diag([2.0, 2.0, 1.0])
    points0, points1 = np.array([[10.0, 10.0]]), np.array([[23.9, 20.0]])
    labels = label_matches(
        points0,
        points1,
        project_homography(points0, homography, 100, 100),
        project_homography(points1, np.linalg.inv(homography), 100, 100),
        LabelThresholds(3.0),
        LabelRule(error=error),
    )
    assert labels.matches0.tolist() == [expected]


def test_the_mean_takes_the_direction_that_is_known():
    points0, points1 = np.array([[10.0, 10.0]]), np.array([[12.0, 10.0]])
    unknown = Projection(points0, np.array([False]), np.array([True]))
    labels = [
        label_matches(points0, points1, unknown, known(points1), INDOOR, LabelRule(error=error))
        for error in ("forward", "mean")
    ]
    assert [label.matches0.tolist() for label in labels] == [[-2], [0]]
