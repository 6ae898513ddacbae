"""A long run from a looping bag: memory flat, every frame accounted for, nothing hangs.

``SOAK_FRAMES`` sets the length: 100 in the suite, 10000 for a real soak.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import Matcher, camera_info, image_message, picture
from sensor_msgs.msg import CameraInfo, Image

pytestmark = pytest.mark.ros

FRAMES = int(os.environ.get("SOAK_FRAMES", "100"))
LOOP = 40  # frames after which the stamps start again
AHEAD = 20  # frames sent before their results are waited for
GROWTH_MIB = 40.0  # of the resident memory after the first third


def resident_mib(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


@pytest.mark.slow
@pytest.mark.timeout(max(180, FRAMES))
def test_a_looping_bag(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"intake.mode": "lossless", "keyframes.max_keyframes": 20})
    peer = matcher.peer
    matcher.prime()
    base = {name: count(matcher, name) for name in ("received", "refused", "resets")}
    rng = np.random.default_rng(0)
    pictures = [picture(int(shift)) for shift in rng.integers(0, 30, 16)]
    start, memory, bad, loops = matcher.tick(), [], 0, 0
    subscription = None
    for number in range(FRAMES):
        at = start + 0.1 * (number % LOOP)
        loops += number > 0 and number % LOOP == 0
        image = image_message(pictures[number % len(pictures)], at)
        if number % 37 == 5:
            image.encoding, bad = "nonsense", bad + 1
        peer.send(at, image=image)
        if number % AHEAD == AHEAD - 1:
            sent = number + 1
            peer.wait(lambda sent=sent: done(matcher) - base["received"] >= sent, f"{sent} frames")
            # Subscribers come and go.
            if subscription is None:
                subscription = peer.subscribe("matches_image", Image)
            else:
                peer.node.destroy_subscription(subscription)
                subscription = None
            memory.append(resident_mib(matcher.process.pid))
            newest = peer.received["status"][-1]
            for messages in peer.received.values():
                messages.clear()
            peer.received["status"].append(newest)
    if subscription is not None:
        peer.node.destroy_subscription(subscription)
    peer.wait(lambda: done(matcher) - base["received"] >= FRAMES, "all frames")
    status = peer.received["status"][-1]
    assert status.received - base["received"] == FRAMES
    assert status.received == status.matched + status.refused
    assert status.refused - base["refused"] == bad
    assert status.dropped == status.unsynchronised == 0
    assert status.resets - base["resets"] == loops
    assert status.keyframes <= 20
    settled = memory[len(memory) // 3 :]
    print(f"\nresident memory [MiB]: {[round(value) for value in memory]}")
    assert settled[-1] - settled[0] < GROWTH_MIB
    assert matcher.state() == "active"


def count(matcher: Matcher, name: str) -> int:
    return getattr(matcher.peer.received["status"][-1], name)


def done(matcher: Matcher) -> int:
    """Frames that are matched or refused."""
    return count(matcher, "matched") + count(matcher, "refused")


def test_a_camera_that_stalls_and_half_a_frame(configure: Callable[..., Matcher]) -> None:
    """Images without calibration, then calibrations without images, then both again."""
    matcher = configure({"sync.queue": 5, "inputs.silent_after": 1.0})
    matcher.prime()
    before = len(matcher.log)
    images = matcher.peer.publisher("image", Image)
    infos = matcher.peer.publisher("camera_info", CameraInfo)
    for _ in range(12):
        images.publish(image_message(picture(), matcher.tick()))
    for _ in range(12):
        infos.publish(camera_info(matcher.tick()))
    matcher.wait_for_log("no image on", before)
    matcher.prime()

    def accounted_for() -> bool:
        status = matcher.peer.received["status"][-1]
        return status.received == status.matched + status.dropped + status.refused

    matcher.peer.wait(accounted_for, "all frames accounted for")
    assert matcher.peer.received["status"][-1].unsynchronised > 0
