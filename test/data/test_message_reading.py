"""What is read from the messages is what the matcher put in."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from superglue_ros.data.message_reading import matches_from_message, pose_from_message
from superglue_ros.errors import FeaturesError
from superglue_ros.ros.convert import matches_to_message, pose_to_message

from ..pair_results import matches, pose


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
