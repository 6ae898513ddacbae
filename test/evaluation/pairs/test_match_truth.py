"""Two cameras side by side before a wall: x moves by 100 * 0.2 / 2 = 10 px, y not at all."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.evaluation.pairs.match_truth import (
    DepthTruth,
    EpipolarTruth,
    UprightTruth,
    match_record,
    right_or_on_the_line,
)
from superglue_ros.evaluation.pairs.predictions import Prediction

INTRINSICS = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
TRUTH = UprightTruth(INTRINSICS, INTRINSICS, np.eye(3), np.array([0.2, 0, 0]))
POINTS0 = np.array([[20.0, 20], [30, 30], [40, 40], [50, 50], [95, 60]], np.float32)
# Right; along the line by 6; off the line by 4; right; the last leaves the image.
POINTS1 = np.array([[30.0, 20], [46, 30], [50, 44], [60, 50], [10, 60]], np.float32)
EPIPOLAR = EpipolarTruth(TRUTH, 5e-4)  # 100 px of focal length: 1.6 px in either image
DEPTH = DepthTruth(TRUTH, np.full((80, 100), 2.0), np.full((80, 100), 2.0), 5.0)


def prediction(matches: list[list[int]], mutual: list[list[int]] | None) -> Prediction:
    pairs = np.array(matches, np.int32).reshape(-1, 2)
    return Prediction(
        keypoints0=POINTS0,
        keypoints1=POINTS1,
        matches=pairs,
        confidence=np.ones(len(pairs), np.float32),
        seconds=np.zeros(3),
        size0=(100, 80),
        size1=(100, 80),
        mutual=None if mutual is None else np.array(mutual, np.int32).reshape(-1, 2),
    )


def test_epipolar_errors_are_those_of_the_lines():
    # A distance of 4 px in both images: 2 * 0.04^2.
    np.testing.assert_allclose(EPIPOLAR.errors(POINTS0, POINTS1), [0, 0, 0.0032, 0, 0], atol=1e-12)


def test_depth_errors_are_distances_and_know_what_is_hidden_or_unknown():
    np.testing.assert_allclose(DEPTH.errors(POINTS0, POINTS1), [0, 6, 4, 0, np.inf], atol=1e-5)
    holes = np.full((80, 100), 2.0)
    holes[20, 20] = 0
    near = np.full((80, 100), 2.0)
    near[50, 60] = 1.0  # something stands before the fourth point
    errors = DepthTruth(TRUTH, holes, near, 5.0).errors(POINTS0, POINTS1)
    np.testing.assert_allclose(errors, [np.nan, 6, 4, np.inf, np.inf], atol=1e-5)


def test_without_depth_recall_is_the_share_of_mutuals_right_matches():
    mutual = [[0, 0], [1, 1], [2, 2], [3, 3]]  # three of them right
    record = match_record(EPIPOLAR, prediction([[0, 0], [2, 2], [4, 4]], mutual))
    assert (record["matches"], record["judged"], record["correct"]) == (3, 3, 2)
    assert record["precision"] == pytest.approx(2 / 3)
    assert record["possible"] == 3
    assert record["recall"] == pytest.approx(1 / 3)  # (4, 4) is right, but not one of mutual's
    assert record["f1"] == pytest.approx(2 * (2 / 3) * (1 / 3))
    assert record["matching_score"] == pytest.approx(2 / 5)
    assert (record["right"], record["right_mutual"]) == (2, 3)


def test_with_depth_recall_is_over_the_correspondences_there_are():
    mutual = [[0, 0], [1, 1]]
    record = match_record(DEPTH, prediction([[0, 0], [1, 1]], mutual))
    assert record["possible"] == 3  # 0, 2 and 3
    assert record["recall"] == pytest.approx(1 / 3)
    assert record["precision"] == 1 / 2
    assert (record["right"], record["right_mutual"]) == (1, 1)


def test_matches_of_unknown_depth_do_not_enter_precision():
    holes = np.full((80, 100), 2.0)
    holes[30, 30] = 0
    record = match_record(
        DepthTruth(TRUTH, holes, holes, 5.0), prediction([[0, 0], [1, 1]], [[0, 0]])
    )
    assert (record["matches"], record["judged"], record["correct"]) == (2, 1, 1)
    assert record["precision"] == 1


def test_refinement_enters_precision_and_not_the_comparison_with_mutual():
    found = prediction([[0, 0]], [[0, 0]])
    moved = Prediction(**{**vars(found), "refined1": POINTS1[:1] + np.float32([0, 4])})
    record = match_record(EPIPOLAR, moved)
    assert (record["correct"], record["right"], record["right_mutual"]) == (0, 1, 1)


def test_empty_and_old_predictions():
    record = match_record(EPIPOLAR, prediction([], []))
    assert (record["precision"], record["matching_score"], record["possible"]) == (0, 0, 0)
    assert np.isnan(record["recall"])
    record = match_record(EPIPOLAR, prediction([[0, 0]], None))
    assert record["precision"] == 1
    assert np.isnan(record["recall"])
    assert np.isnan(record["right_mutual"])


def test_where_depth_is_unknown_the_line_decides():
    holes = np.full((80, 100), 2.0)
    holes[30, 30] = holes[40, 40] = 0
    truth = DepthTruth(TRUTH, holes, np.full((80, 100), 2.0), 10.0)
    found = prediction([[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]], None)
    # 6 px along the line but unknown: right; 4 px off the line: wrong; hidden: wrong.
    right = right_or_on_the_line(truth, found, EPIPOLAR)
    assert right.tolist() == [True, True, False, True, False]
