"""Two robots, two processes: one's frames match the other's keyframes over DDS."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import PATIENCE, Matcher, image_message, picture, stamp
from sensor_msgs.msg import CameraInfo

from superglue_ros.config import Config
from superglue_ros.msg import Features, Matches, RelativePose
from superglue_ros.pipeline import Pipeline
from superglue_ros.ros import convert
from superglue_ros.settings import from_flat

from ..stereo_room import CAMERA, HEIGHT, MATRIX, WIDTH, motion, view

pytestmark = pytest.mark.ros


def test_a_peers_frames_match_our_keyframes(
    configure: Callable[..., Matcher], start: Callable[..., Matcher]
) -> None:
    topics = {"features": "/peer_features"}
    other = start(
        {"autostart": True, "robot": "b", "outputs.descriptors": "float16"},
        arguments=("-r", "__ns:=/b", "-r", "~/features:=/peer_features"),
        namespace="/b",
        topics=topics,
    )
    # Fewer keypoints than the other robot sends: the best are taken, and keep their index.
    ours = configure({"robot": "a", "inputs.peers": True, "front_end.max_keypoints": 200})
    ours.prime()
    other.prime()
    sent: dict[int, Features] = {}

    def matched_by_us() -> list[Matches]:
        received = ours.peer.received["matches"]
        return [m for m in received if m.query.robot == "b" and m.query.id in sent]

    # Sent until it is heard: our node may come to know the other's publisher late.
    end = time.monotonic() + PATIENCE
    while not matched_by_us():
        assert time.monotonic() < end, "no matches of the other robot's frames"
        at = other.tick()
        other.peer.send(at, image=image_message(picture(11), at))
        features = other.peer.output("features", at)
        assert (features.frame.robot, features.descriptor_type) == ("b", Features.F16)
        sent[features.frame.id] = features
        with contextlib.suppress(AssertionError):
            ours.peer.wait(matched_by_us, "matches of the other robot's frame", 2.0)
    matches = matched_by_us()[0]
    features = sent[matches.query.id]
    assert matches.kind == Matches.LOOP
    assert matches.reference.robot == "a"
    assert len(matches.u_ref) > 50
    assert len(features.u) > 200
    shift = np.median(np.array(matches.u_query) - np.array(matches.u_ref))
    assert shift == pytest.approx(-11, abs=0.1)
    # A keypoint's index is the one in the message that the other robot sent.
    np.testing.assert_array_equal(
        np.array(features.u, np.float32)[np.array(matches.index_query)],
        np.array(matches.u_query, np.float32),
    )
    # Its calibration comes with its features, so there is a pose in our keyframe.
    pose = ours.peer.wait(
        lambda: [p for p in ours.peer.received["relative_pose"] if p.query == matches.query],
        "the pose of the other robot's frame",
    )[0]
    assert pose.reference == matches.reference
    assert pose.header.frame_id == matches.reference.frame_id
    assert pose.status in (RelativePose.PLANAR, RelativePose.ROTATION_ONLY)
    assert pose.num_inliers == sum(matches.inlier) > 40
    assert other.stop() == 0
    ours.prime()  # the peer is gone, we are not


def test_a_robot_with_depth_is_found_in_metres(configure: Callable[..., Matcher]) -> None:
    """Our camera is monocular; the depth of the other's keypoints gives the scale."""
    ours = configure({"robot": "a", "inputs.peers": True, "matcher.name": "ratio"})

    def info(at: float) -> CameraInfo:
        message = CameraInfo(width=WIDTH, height=HEIGHT, k=MATRIX.ravel().tolist())
        message.header.stamp = stamp(at)
        return message

    ours.prime(image=lambda at: image_message(view(0).left, at), camera_info=info)
    settings = {"device": "cpu", "front_end.name": "sift", "matcher.name": "ratio"}
    theirs = Pipeline(from_flat(Config, settings)).process(view(1).frame(1, 10**9))
    frame = replace(theirs.frame_id, robot="b")
    message = convert.features_to_message(
        theirs.features, frame, True, "float16", CAMERA, theirs.depth, theirs.depth_sigma
    )
    publisher = ours.peer.publisher("peer_features", Features)

    def found() -> RelativePose | None:
        """Sent until it is heard: the node may know the publisher later than the reverse."""
        publisher.publish(message)
        poses = [p for p in ours.peer.received["relative_pose"] if p.query.robot == "b"]
        return poses[0] if poses else None

    pose = ours.peer.wait(found, "the pose of the other robot's frame")
    assert (pose.method, pose.status) == (RelativePose.PNP, RelativePose.VALID)
    assert pose.scale_known
    assert (pose.reference.robot, pose.query.camera_index) == ("a", 0)
    position = pose.pose.pose.position
    error = np.array([position.x, position.y, position.z]) - motion(0, 1)[:3, 3]
    assert np.linalg.norm(error) < 0.015, "metres"
    spread = np.array(pose.pose.covariance).reshape(6, 6)[:3, :3]
    assert error @ np.linalg.inv(spread) @ error < 11.3  # 99 % of chi-square, 3 degrees of freedom


def test_a_robot_that_sends_no_descriptors_is_warned_about(
    configure: Callable[..., Matcher],
) -> None:
    matcher = configure({"robot": "a", "inputs.peers": True})
    matcher.prime()
    before = len(matcher.log)
    bare = Features(width=200, height=150, u=[10.0], v=[10.0])
    bare.frame.robot = "d"
    publisher = matcher.peer.publisher("peer_features", Features)

    def warned() -> bool:
        publisher.publish(bare)
        return "bring no descriptors" in matcher.log[before:]

    matcher.peer.wait(warned, "the warning")
    assert "features of robot 'd'" in matcher.wait_for_log("bring no descriptors", before)
    at = matcher.prime()
    assert matcher.log[before:].count("bring no descriptors") == 1
    status = matcher.peer.output("status", at)
    assert status.refused == 0


def test_features_that_do_not_fit_are_refused(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"robot": "a", "inputs.peers": True})
    matcher.prime()
    before = len(matcher.log)
    bad = Features(width=200, height=150, detector="other", descriptor_dim=8)
    bad.frame.robot = "c"
    bad.u = bad.v = [10.0]
    bad.descriptors = np.ones(8, np.float32).tobytes()
    publisher = matcher.peer.publisher("peer_features", Features)

    def refused() -> bool:
        """Sent until it is heard: the node may know the publisher later than the reverse."""
        publisher.publish(bad)
        return "frame refused" in matcher.log[before:]

    matcher.peer.wait(refused, "the refusal in the log")
    assert "features of robot 'c'" in matcher.log[before:]
    matcher.prime()
