from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from superglue_ros.evaluation.pairs.match_truth import UprightTruth
from superglue_ros.evaluation.pairs.repeated_poses import (
    PoseEstimatorConfig,
    estimates_of,
    mean_auc,
    pose_summary,
    repeated_poses,
)
from superglue_ros.geometry import angle_errors
from superglue_ros.geometry.estimators import make_estimator

BOTH = (PoseEstimatorConfig(), PoseEstimatorConfig("poselib"))


@pytest.fixture
def noisy_pair():
    """Pixels of two views with noise and outliers, intrinsics, and the true motion."""
    rng = np.random.default_rng(0)
    intrinsics = np.array([[400.0, 0, 320], [0, 400, 240], [0, 0, 1]])
    rotation = Rotation.from_euler("yx", [6, 2], True).as_matrix()
    translation = np.array([0.5, 0.1, 0.05])
    points = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (120, 3))
    views = []
    for seen in (points, points @ rotation.T + translation):
        views.append((seen @ intrinsics.T)[:, :2] / seen[:, 2:] + rng.normal(0, 0.6, (120, 2)))
    views[1][:40] = rng.uniform([0, 0], [640, 480], (40, 2))
    truth = UprightTruth(intrinsics, intrinsics, rotation, translation)
    return views[0], views[1], intrinsics, intrinsics, truth


def test_one_repeat_takes_the_matches_in_their_order(noisy_pair):
    points0, points1, k0, k1, truth = noisy_pair
    for config in BOTH:
        (row,) = repeated_poses(*noisy_pair, [config], 1)
        direct = make_estimator(config.name).relative_pose(points0, points1, k0, k1, config.options)
        assert row["inliers"] == direct.inliers.sum() > 40
        expected = angle_errors.rotation_error_deg(direct.rotation, truth.rotation)
        assert row["rotation_error_deg"] == expected < 2


def test_repeats_differ_among_each_other_and_not_between_runs(noisy_pair):
    rows = repeated_poses(*noisy_pair, BOTH, 4)
    assert [(row["estimator"], row["repeat"]) for row in rows] == [
        (name, k) for name in ("opencv-ransac", "poselib") for k in range(4)
    ]
    # OpenCV ignores the seed: it is the order of the matches that makes its repeats differ.
    errors = [row["pose_error_deg"] for row in rows[:4]]
    assert len(set(errors)) > 1
    assert min(errors) < 3
    assert repeated_poses(*noisy_pair, BOTH, 4) == rows
    alone = repeated_poses(*noisy_pair, BOTH[1:], 4)
    assert alone == rows[4:]  # an estimator's result does not depend on its neighbours


def test_without_a_pose_or_a_baseline(noisy_pair):
    points0, points1, *rest = noisy_pair
    rows = repeated_poses(points0[:3], points1[:3], *rest, BOTH, 2)
    assert all(row["pose_error_deg"] == np.inf and row["inliers"] == 0 for row in rows)
    rows = repeated_poses(*noisy_pair, BOTH, 1, rotation_only=True)
    assert all(np.isnan(row["direction_error_deg"]) for row in rows)
    assert all(row["pose_error_deg"] == row["rotation_error_deg"] for row in rows)


def test_summary_is_mean_and_deviation_of_the_repeats():
    errors = np.array([[0, np.inf], [0, np.inf]])  # all right once, all failed once
    summary = pose_summary(errors, np.array([[np.inf, np.inf], [0, np.inf]]), seed=0)
    for t in ("5", "10", "20"):
        assert summary["auc"][t] == 50
        assert summary["auc_deviation"][t] == pytest.approx(100 / np.sqrt(2))
        assert summary["auc_interval"][t] == [50, 50]
        assert summary["auc_signed_direction"][t] == 25
    assert summary["failures"] == 1
    assert mean_auc(errors[:, :1], 5) == 100
    assert np.isnan(pose_summary(errors[:, :1], errors[:, :1], 0)["auc_deviation"]["5"])


def test_estimates_become_pairs_by_repeats():
    records = [
        {"estimates": [{"estimator": name, "e": 10 * pair + k} for k in range(3) for name in "ab"]}
        for pair in range(2)
    ]
    np.testing.assert_array_equal(estimates_of(records, "b", "e"), [[0, 1, 2], [10, 11, 12]])
