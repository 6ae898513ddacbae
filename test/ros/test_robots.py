"""Two robots, two processes: one's frames match the other's keyframes over DDS."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import PATIENCE, Matcher, image_message, picture

from superglue_ros.msg import Features, Matches

pytestmark = pytest.mark.ros


def test_a_peers_frames_match_our_keyframes(
    configure: Callable[..., Matcher], start: Callable[..., Matcher]
) -> None:
    topics = {"features": "/peer_features"}
    other = start(
        {"autostart": True, "robot": "b", "outputs.descriptors": "float16"},
        arguments=("-r", "__ns:=/b", "-r", "features:=/peer_features"),
        namespace="/b",
        topics=topics,
    )
    ours = configure({"robot": "a", "inputs.peers": True})
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
    shift = np.median(np.array(matches.u_query) - np.array(matches.u_ref))
    assert shift == pytest.approx(-11, abs=0.1)
    # A keypoint's index is the one in the message that the other robot sent.
    np.testing.assert_array_equal(
        np.array(features.u, np.float32)[np.array(matches.index_query)],
        np.array(matches.u_query, np.float32),
    )
    assert other.stop() == 0
    ours.prime()  # the peer is gone, we are not


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
