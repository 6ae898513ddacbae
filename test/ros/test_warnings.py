"""Inputs that give nothing: one clear warning each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import Matcher, camera_info, image_message, picture
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

pytestmark = pytest.mark.ros


def test_a_silent_input_is_warned_about_once(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"inputs.silent_after": 1.0})
    before = len(matcher.log)
    matcher.prime()
    line = matcher.wait_for_log("no image on /image for", before)
    assert "its publisher is silent. If it is not, restart it" in line
    silent = len(matcher.log)
    # An image alone: it is the calibration that is missing now.
    later = [matcher.tick() for _ in range(3)]
    for at in later:
        matcher.peer.send(at, camera_info=None)
    matcher.peer.wait(
        lambda: matcher.log[silent:].count("no image on /image for") == 1, "the image again"
    )
    calibration = matcher.wait_for_log("no camera_info on /camera_info for", before)
    assert "No image is matched without its calibration" in calibration
    assert "restart" not in calibration  # small messages always fit
    assert matcher.log[before:].count("no camera_info on") == 1


def test_nobody_publishes(configure: Callable[..., Matcher], shared: Matcher) -> None:
    shared.peer.publisher("depth", Image, ready=False)
    shared.peer.drop_publisher("depth")
    before = len(shared.log)
    matcher = configure({"inputs.silent_after": 0.5, "inputs.depth": True})
    line = matcher.wait_for_log("no depth on /depth for", before)
    assert "it has no publisher" in line


@pytest.mark.parametrize(
    ("mode", "fix"),
    [("exact", "set sync.mode to approximate"), ("approximate", "raise sync.slop")],
)
def test_stamps_that_never_meet(configure: Callable[..., Matcher], mode: str, fix: str) -> None:
    matcher = configure({"inputs.silent_after": 1.0, "sync.mode": mode, "sync.queue": 4})
    before = len(matcher.log)
    images = matcher.peer.publisher("image", Image)
    infos = matcher.peer.publisher("camera_info", CameraInfo)

    def warned() -> bool:
        at = matcher.tick()
        images.publish(image_message(picture(), at))
        infos.publish(camera_info(at + 1000.0))
        return "never meet" in matcher.log[before:]

    matcher.peer.wait(warned, "the warning")
    assert fix in matcher.wait_for_log("never meet", before)
    matcher.prime()  # the next good frame works
    status = matcher.peer.received["status"][-1]
    assert status.unsynchronised > 0


def test_an_incompatible_publisher_is_named(configure: Callable[..., Matcher]) -> None:
    """Lossless listens reliably: a best-effort camera cannot be heard."""
    matcher = configure({"intake.mode": "lossless"})
    before = len(matcher.log)
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = matcher.peer.node.create_publisher(Image, "image", best_effort)
    try:
        line = matcher.wait_for_log("offers a reliability that does not fit", before)
        assert "qos_overrides./image.subscription_lossless.reliability" in line
    finally:
        matcher.peer.node.destroy_publisher(publisher)
    matcher.prime()


def test_best_effort_and_reliable_cameras_are_heard(configure: Callable[..., Matcher]) -> None:
    matcher = configure()
    matcher.prime()
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    matcher.peer.drop_publisher("image")
    matcher.peer.publisher("image", Image, best_effort)
    try:
        matcher.prime()
    finally:
        matcher.peer.drop_publisher("image")
