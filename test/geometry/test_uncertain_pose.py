"""Poses composed and inverted, their covariance against that of samples."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.geometry.rotation import exp, log
from superglue_ros.geometry.uncertain_pose import UncertainPose

Array = np.ndarray


def some_pose(seed: int, spread: float = 1e-3) -> UncertainPose:
    rng = np.random.default_rng(seed)
    root = spread * rng.standard_normal((6, 6))
    return UncertainPose(exp(rng.standard_normal(3)), rng.standard_normal(3), root @ root.T)


def sample(pose: UncertainPose, rng: np.random.Generator) -> UncertainPose:
    step = rng.multivariate_normal(np.zeros(6), pose.covariance)
    return UncertainPose(
        exp(step[3:]) @ pose.rotation, pose.translation + step[:3], pose.covariance
    )


def matrix(pose: UncertainPose) -> Array:
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = pose.rotation, pose.translation
    return found


def spread_about(mean: UncertainPose, samples: list[UncertainPose]) -> Array:
    errors = [
        np.r_[one.translation - mean.translation, log(one.rotation @ mean.rotation.T)]
        for one in samples
    ]
    return np.cov(np.array(errors).T)


@pytest.mark.parametrize("operation", ["inverse", "composition"])
def test_the_covariance_is_that_of_samples(operation: str) -> None:
    first, second = some_pose(1), some_pose(2)
    rng = np.random.default_rng(3)

    def result(a: UncertainPose, b: UncertainPose) -> UncertainPose:
        return a.inverse() if operation == "inverse" else a @ b

    mean = result(first, second)
    samples = [result(sample(first, rng), sample(second, rng)) for _ in range(4000)]
    expected = matrix(first) @ matrix(second)
    if operation == "inverse":
        expected = np.linalg.inv(matrix(first))
    np.testing.assert_allclose(matrix(mean), expected, atol=1e-12)
    sampled = spread_about(mean, samples)
    np.testing.assert_allclose(mean.covariance, sampled, atol=0.06 * np.abs(sampled).max())


def test_points_go_there_and_back() -> None:
    pose = some_pose(4)
    points = np.random.default_rng(5).standard_normal((7, 3))
    there = points @ pose.rotation.T + pose.translation
    np.testing.assert_allclose(pose.back(there), points, atol=1e-12)
    assert np.abs(pose.inverse().inverse().covariance - pose.covariance).max() < 1e-15
