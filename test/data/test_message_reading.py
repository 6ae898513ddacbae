"""What is read from the messages is what the matcher put in."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from superglue_ros.data.message_reading import matches_from_message, pose_from_message
from superglue_ros.errors import FeaturesError, IdentifierError
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


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", 77), ("status", 250), ("u_ref", np.nan), ("sigma_px", np.inf), ("index_ref", -1)],
)
def test_matches_without_meaning_are_refused(name, value):
    message = matches_to_message(matches(count=5))
    column = getattr(message, name)
    setattr(message, name, value if isinstance(column, int) else [value] * 5)
    with pytest.raises(FeaturesError, match=name):
        matches_from_message(message)


def test_poses_without_meaning_are_refused():
    def changed(change):
        message = pose_to_message(pose())
        change(message)
        return message

    def no_rotation(message):
        for axis in "xyzw":
            setattr(message.pose.pose.orientation, axis, 0.0)

    for said, change in (
        ("status", lambda m: setattr(m, "status", 99)),
        ("method", lambda m: setattr(m, "method", 99)),
        ("quaternion", no_rotation),
        ("quaternion", lambda m: setattr(m.pose.pose.orientation, "w", float("nan"))),
        ("quaternion", lambda m: setattr(m.pose.pose.position, "x", float("inf"))),
        ("covariance", lambda m: m.pose.covariance.__setitem__(7, float("nan"))),
    ):
        with pytest.raises(FeaturesError, match=said):
            pose_from_message(changed(change))


def test_frames_that_cannot_be_are_refused():
    message = matches_to_message(matches())
    message.query.id = 2**64 - 1
    with pytest.raises(IdentifierError, match="id of a frame"):
        matches_from_message(message)
