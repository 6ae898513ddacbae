"""What is read from the messages is what the matcher put in."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from superglue_ros.data.message_reading import matches_from_message, pose_from_message
from superglue_ros.errors import FeaturesError
from superglue_ros.geometry.rotation import exp
from superglue_ros.ros.convert import matches_to_message, pose_to_message
from superglue_ros.types import (
    FrameId,
    Matches,
    MatchKind,
    MatchStatus,
    PoseMethod,
    PoseStatus,
    RelativePose,
)

REFERENCE = FrameId(3, 1_000_000_001, "camera", "robot")
QUERY = FrameId(4, 2_000_000_002, "camera", "robot")


def matches(reference=REFERENCE, query=QUERY, count=5) -> Matches:
    rng = np.random.default_rng(0)
    return Matches(
        reference,
        query,
        MatchKind.LOOP,
        MatchStatus.OK,
        np.arange(count, dtype=np.int32),
        np.arange(count, dtype=np.int32)[::-1].copy(),
        rng.random((count, 2)).astype(np.float32),
        rng.random((count, 2)).astype(np.float32),
        rng.random(count).astype(np.float32),
        np.arange(count) % 2 == 0,
        np.ones(count, np.float32),
        np.arange(count) - 1,
        True,
        np.array([10, 11]),
        np.array([1, 2]),
    )


def pose(reference=REFERENCE, query=QUERY) -> RelativePose:
    return RelativePose(
        reference,
        query,
        PoseStatus.VALID,
        PoseMethod.PNP,
        exp(np.array([0.1, -0.2, 0.3])),
        np.array([1.0, 2.0, 3.0]),
        np.diag(np.arange(1.0, 7.0)),
        True,
        5,
        4,
        1.0,
        0.25,
        0.5,
    )


@pytest.mark.parametrize("count", [0, 5])
def test_matches_come_back(count):
    original = matches(count=count)
    back = matches_from_message(matches_to_message(original))
    for name in (
        "index_ref",
        "index_query",
        "points_ref",
        "points_query",
        "scores",
        "inlier",
        "sigma_px",
        "track_ids",
        "merged_from",
        "merged_into",
    ):
        np.testing.assert_array_equal(getattr(back, name), getattr(original, name), name)
    for name in ("reference", "query", "kind", "status", "rectified"):
        assert getattr(back, name) == getattr(original, name)


def test_poses_come_back():
    original = pose()
    back = pose_from_message(pose_to_message(original))
    for name in ("rotation", "translation", "covariance"):
        np.testing.assert_allclose(getattr(back, name), getattr(original, name), atol=1e-12)
    for name in ("reference", "query", "status", "method", "scale_known", "num_inliers"):
        assert getattr(back, name) == getattr(original, name)


@pytest.mark.parametrize("name", ["track_ids", "u_ref", "merged_into"])
def test_arrays_of_unequal_length_are_refused(name):
    message = matches_to_message(matches())
    setattr(message, name, getattr(message, name)[:-1])
    with pytest.raises(FeaturesError, match=name):
        matches_from_message(message)
