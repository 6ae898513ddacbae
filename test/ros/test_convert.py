"""Messages to types and back: values, units and errors."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation

from superglue_ros.data.message_reading import frame_id_from_message, stamp_to_ns
from superglue_ros.errors import CalibrationError, FeaturesError
from superglue_ros.geometry.camera import Camera
from superglue_ros.msg import Matches as MatchesMessage
from superglue_ros.msg import RelativePose as RelativePoseMessage
from superglue_ros.ros import convert
from superglue_ros.types import (
    Features,
    FrameId,
    Matches,
    MatchKind,
    MatchStatus,
    PoseMethod,
    PoseStatus,
    RelativePose,
)

FRAME = FrameId(id=7, stamp_ns=12_345_678_901, frame_id="cam", robot="kim", camera_index=2)
LIMIT = 10_000_000


def over_the_wire(message):  # type: ignore[no-untyped-def]
    return deserialize_message(serialize_message(message), type(message))


def features(count: int = 5, dim: int = 4) -> Features:
    rng = np.random.default_rng(1)
    return Features(
        rng.uniform(0, 90, (count, 2)).astype(np.float32),
        rng.uniform(0, 1, count).astype(np.float32),
        100,
        100,
        "kind",
        rng.normal(size=(count, dim)).astype(np.float32),
        rng.uniform(0.5, 2, count).astype(np.float32),
        rng.integers(-1, 2**60, count),
    )


@pytest.mark.parametrize(("descriptors", "tolerance"), [("float32", 0), ("float16", 2e-3)])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_features_there_and_back(descriptors: str, tolerance: float, count: int) -> None:
    sent = features(count)
    message = over_the_wire(convert.features_to_message(sent, FRAME, True, descriptors))
    assert message.rectified
    assert frame_id_from_message(message.frame) == FRAME
    assert stamp_to_ns(message.header.stamp) == FRAME.stamp_ns
    got = convert.features_from_message(message, 100, 100)
    for name in ("keypoints", "scores", "sigma_px", "track_ids"):
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))
    np.testing.assert_allclose(got.descriptors, sent.descriptors, atol=tolerance, rtol=tolerance)
    assert got.detector == "kind"


def test_features_without_descriptors() -> None:
    message = convert.features_to_message(features(), FRAME, False)
    assert (message.descriptor_dim, len(message.descriptors)) == (0, 0)
    got = convert.features_from_message(message, 100, 100)
    assert got.descriptors is None


def test_a_frame_of_another_robot_there_and_back() -> None:
    sent = features(6)
    depth = np.array([1.5, 0, 2, np.nan, -1, 4], np.float32)
    sigma = np.array([0.1, 0, 0.2, np.nan, 0.3, np.inf], np.float32)
    matrix = np.array([[80.0, 0, 49], [0, 81, 51], [0, 0, 1]])
    camera = Camera(100, 100, matrix, np.array([0.1, 0.01, 0, 0]), "equidistant")
    message = over_the_wire(
        convert.features_to_message(sent, FRAME, False, "float32", camera, depth, sigma)
    )
    got = convert.keyframe_from_message(message)
    assert got.id == FRAME
    np.testing.assert_array_equal(got.features.descriptors, sent.descriptors)
    assert got.camera is not None
    assert (got.camera.width, got.camera.height, got.camera.model) == (100, 100, "equidistant")
    np.testing.assert_array_equal(got.camera.matrix, matrix)
    np.testing.assert_array_equal(got.camera.distortion, camera.distortion)
    np.testing.assert_array_equal(got.depth, [1.5, 0, 2, 0, 0, 4])
    np.testing.assert_array_equal(got.depth_sigma, np.float32([0.1, 0, 0.2, 0, 0.3, 0]))


def test_a_frame_of_another_robot_without_calibration_and_depth() -> None:
    message = over_the_wire(convert.features_to_message(features(), FRAME, True, "float16"))
    got = convert.keyframe_from_message(message)
    assert (got.camera, got.depth, got.depth_sigma, got.rectified) == (None, None, None, True)


@given(
    st.lists(st.floats(width=32), max_size=7),
    st.lists(st.floats(), max_size=6),
    st.lists(st.floats(), min_size=9, max_size=9),
    st.sampled_from(["", "plumb_bob", "equidistant", "rational_polynomial", "x"]),
    st.integers(0, 101),
)
@settings(deadline=None, max_examples=60)
def test_any_calibration_and_depth_are_taken_or_refused(
    depth: list[float], d: list[float], k: list[float], model: str, width: int
) -> None:
    message = convert.features_to_message(features(), FRAME, True, "float32")
    message.depth, message.d, message.k = depth, d, k
    message.distortion_model, message.width = model, width
    try:
        got = convert.keyframe_from_message(message)
    except (CalibrationError, FeaturesError):
        return
    assert (got.camera is None) == (k[0] == 0)
    assert got.depth is None or (np.isfinite(got.depth).all() and (got.depth >= 0).all())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 640}, "keypoints are of a 640x100 image"),
        ({"scores": [0.5]}, "1 values of scores for 5 of u"),
        ({"descriptor_dim": 3}, "5 keypoints of 3 values of 4 bytes take 60"),
        ({"descriptor_type": 9}, "descriptor_type 9 is unknown"),
    ],
)
def test_features_that_contradict_themselves(change: dict[str, object], said: str) -> None:
    message = convert.features_to_message(features(), FRAME, False, "float32")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(FeaturesError, match=said):
        convert.features_from_message(message, 100, 100)


def matches(count: int) -> Matches:
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 90, (2, count, 2)).astype(np.float32)
    return Matches(
        FrameId(3, 1_000_000_000, "ref"), FRAME, MatchKind.LOOP, MatchStatus.FEW,
        np.arange(count, dtype=np.int32), np.arange(count, dtype=np.int32)[::-1],
        points[0], points[1], rng.uniform(0, 1, count).astype(np.float32),
        rng.integers(0, 2, count).astype(bool), np.ones(count, np.float32),
        rng.integers(-1, 2**60, count), True,
        np.array([5], np.int64), np.array([2], np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 6])
def test_matches(count: int) -> None:
    sent = matches(count)
    message = over_the_wire(convert.matches_to_message(sent))
    assert message.header.frame_id == "cam"
    assert stamp_to_ns(message.header.stamp) == FRAME.stamp_ns
    assert frame_id_from_message(message.reference) == sent.reference
    assert frame_id_from_message(message.query) == FRAME
    assert (message.kind, message.status) == (MatchesMessage.LOOP, MatchesMessage.FEW)
    assert message.rectified
    np.testing.assert_array_equal(message.index_ref, sent.index_ref)
    np.testing.assert_array_equal(message.index_query, sent.index_query)
    np.testing.assert_array_equal(np.column_stack((message.u_ref, message.v_ref)), sent.points_ref)
    np.testing.assert_array_equal(
        np.column_stack((message.u_query, message.v_query)), sent.points_query
    )
    np.testing.assert_array_equal(message.scores, sent.scores)
    np.testing.assert_array_equal(message.inlier, sent.inlier)
    np.testing.assert_array_equal(message.track_ids, sent.track_ids)
    assert (list(message.merged_from), list(message.merged_into)) == ([5], [2])


def test_enumerations_are_those_of_the_messages() -> None:
    for kind in MatchKind:
        assert getattr(MatchesMessage, kind.name) == kind
    for status in MatchStatus:
        assert getattr(MatchesMessage, status.name) == status
    for method in PoseMethod:
        assert getattr(RelativePoseMessage, method.name) == method
    for pose_status in PoseStatus:
        assert getattr(RelativePoseMessage, pose_status.name) == pose_status


def test_relative_pose() -> None:
    rotation = Rotation.from_rotvec([0.1, -0.2, 0.3]).as_matrix()
    covariance = np.diag([1.0, 2, 3, 4, 5, 6])
    pose = RelativePose(
        FrameId(3, 1_000_000_000, "ref"), FRAME, PoseStatus.PLANAR, PoseMethod.HOMOGRAPHY,
        rotation, np.array([0.6, 0.0, 0.8]), covariance, False, 40, 30, 1.5, 0.4, 0.02,
    )  # fmt: skip
    message = over_the_wire(convert.pose_to_message(pose))
    assert message.header.frame_id == "ref"  # the reference's frame, the query's stamp
    assert stamp_to_ns(message.header.stamp) == FRAME.stamp_ns
    assert (message.status, message.method) == (
        RelativePoseMessage.PLANAR, RelativePoseMessage.HOMOGRAPHY,
    )  # fmt: skip
    assert (message.num_matches, message.num_inliers) == (40, 30)
    q = message.pose.pose.orientation
    np.testing.assert_allclose(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), rotation)
    np.testing.assert_allclose(np.reshape(message.pose.covariance, (6, 6)), covariance)


@given(hnp.arrays(np.float64, 3, elements=st.floats(-4, 4)))
@settings(deadline=None)
def test_quaternions_at_every_angle(vector: np.ndarray) -> None:
    rotation = Rotation.from_rotvec(vector)
    found = convert.quaternion(rotation.as_matrix())
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found[3] >= 0
    assert (Rotation.from_quat(found) * rotation.inv()).magnitude() < 1e-7


def test_descriptors_take_the_fast_path() -> None:
    """2048 descriptors of 256 values are converted in milliseconds, not in tens of them."""
    many = features(2048, 256)
    best = min(_seconds_of(many) for _ in range(5))
    assert best < 0.05


def _seconds_of(many: Features) -> float:
    started = time.perf_counter()
    convert.features_to_message(many, FRAME, False, "float32")
    return time.perf_counter() - started
