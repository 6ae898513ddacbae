"""What the operator is told about a state of health, and about each input."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from matcher_process import Matcher, image_message, picture

from superglue_ros.ros.diagnostics import Counts, Health, judge
from superglue_ros.ros.input_health import InputHealth, InputState, judge_input
from superglue_ros.ros.inputs import CameraInputs
from superglue_ros.ros.node_config import InputsConfig, NodeConfig
from superglue_ros.ros.stamp_gaps import StampGaps
from superglue_ros.ros.window import Window

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.mark.parametrize(
    ("health", "level", "said"),
    [
        (Health("active"), OK, "matching"),
        (Health("inactive", silent=("/image",)), OK, "not active (inactive)"),
        (Health("active", waiting=30, recent=Counts(matched=9)), OK, "matching"),
        (
            Health("active", lossless=True, waiting=868, waiting_mib=840, window=10.0,
                   recent=Counts(received=450, matched=50)),
            WARN, "868 frames wait (840 MiB)",
        ),
        (
            Health("active", lossless=True, waiting=868, window=10.0,
                   recent=Counts(received=2000, matched=2000)),
            OK, "matching",
        ),
        (
            Health("active", lossless=True, waiting=1000, waiting_mib=1024, window=10.0,
                   recent=Counts(received=450, matched=50, dropped=40)),
            ERROR, "40 frames dropped in the last 10 s",
        ),
        (
            Health("active", window=10.0, last_refusal="no picture",
                   recent=Counts(received=12, refused=12)),
            ERROR, "12 of 12 frames refused in the last 10 s: no picture",
        ),
        (Health("active", silent=("/cam/image",)), WARN, "nothing comes from /cam/image"),
        (Health("active", recent=Counts(received=9, dropped=6, matched=3)), WARN, "6 of 9"),
        (
            Health("active", window=10.0, unplaced="no keyframe is recognised",
                   recent=Counts(received=9, matched=9)),
            WARN, "no pose in the map in the last 10 s: no keyframe is recognised",
        ),
        (
            Health("active", unplaced="no keyframe is recognised",
                   recent=Counts(received=9, matched=9, placed=1)),
            OK, "matching",
        ),
        (Health("active", busy_seconds=60), ERROR, "takes 60 s"),
        (Health("configuring", configuring_seconds=60), OK, "not active (configuring)"),
        (Health("configuring", configuring_seconds=400), ERROR, "configuring takes 400 s"),
        (Health("inactive", busy_seconds=60), ERROR, "takes 60 s"),
        (Health("active", busy_seconds=60, hung_after=90), OK, "matching"),
        (Health("active", failures=10, last_refusal="lost"), ERROR, "10 frames in a row failed"),
    ],
)  # fmt: skip
def test_what_needs_attention(health: Health, level: bytes, said: str) -> None:
    found, text = judge(health)
    assert found == level
    assert said in text


@pytest.mark.parametrize(
    ("health", "level", "said"),
    [
        (InputHealth(InputState("/a"), 300, 0, 10.0), OK, "30.0 messages per second"),
        (InputHealth(InputState("/a", silent_s=7.0), 0, 0, 10.0), WARN, "no message for 7 s"),
        (
            InputHealth(InputState("/a", silent_s=7.0), 0, 99, 10.0, lost=99),
            WARN, "no message for 7 s: 99 were lost on the way",
        ),
        (InputHealth(InputState("/a", ahead_s=3600.0), 300, 0, 10.0), WARN, "3600.0 s in the fut"),
        (InputHealth(InputState("/a", ahead_s=0.2), 300, 0, 10.0), OK, ""),
        (InputHealth(InputState("/a", ahead_s=-1e9), 300, 0, 10.0), OK, ""),  # a bag
        (InputHealth(InputState("/a"), 250, 50, 10.0), WARN, "50 of 300 messages are missing"),
        (InputHealth(InputState("/a"), 290, 10, 10.0), OK, ""),
        (InputHealth(InputState("/a"), 12, 2, 10.0), OK, ""),  # too few to tell
        (InputHealth(InputState("/a"), 4, 0, 10.0), WARN, "0.40 messages per second"),
        (InputHealth(InputState("/a"), 0, 0, 1.0), OK, ""),  # it has only begun
        (InputHealth(InputState("/a", one_is_enough=True), 0, 0, 10.0), OK, ""),
    ],
)  # fmt: skip
def test_inputs_are_graded(health: InputHealth, level: bytes, said: str) -> None:
    found, text = judge_input(health, silent_after=5.0, min_rate=1.0, window=10.0)
    assert found == level
    assert said in text


def test_a_window_compares_with_the_past() -> None:
    window = Window(0, now=100.0)
    assert window.look(3, 101.0, seconds=10.0) == (0, 1.0)
    for second in range(102, 116):
        window.look(second, float(second), seconds=10.0)
    assert window.look(116, 116.0, seconds=10.0) == (106, 10.0)
    assert window.look(117, 117.0, seconds=2.0) == (115, 2.0)


@pytest.mark.parametrize("kept", [1.0, 0.7, 0.5])
def test_missing_messages_are_counted_by_their_stamps(kept: float) -> None:
    rng = np.random.default_rng(1)
    period, jitter = 1 / 30, 0.002
    stamps = (np.arange(3000) * period + rng.normal(0, jitter, 3000) + 5.0) * 1e9
    sent = np.concatenate((np.ones(20, bool), rng.random(2980) < kept))
    gaps = StampGaps()
    for at in stamps[sent].astype(int):
        gaps.add(int(at))
    assert gaps.period_s == pytest.approx(period, rel=0.15)
    lost = np.count_nonzero(~sent[: np.flatnonzero(sent)[-1]])
    assert gaps.missing == pytest.approx(lost, rel=0.02)


def test_pauses_jumps_and_wrong_stamps_are_no_gaps() -> None:
    gaps = StampGaps()
    for start in (100.0, 200.0, 50.0, 9000.0):  # a pause, a bag that starts over, another pause
        for number in range(20):
            gaps.add(round((start + number * 0.1) * 1e9))
    gaps.add(round(1e6 * 1e9))
    gaps.add(round(9002.0 * 1e9))
    assert gaps.missing == 0


def told(matcher: Matcher, name: str) -> list[DiagnosticStatus]:
    """What diagnostics said about the node's part of that name so far."""
    messages = matcher.peer.received["/diagnostics"]
    return [s for m in messages for s in m.status if s.name == f"{matcher.name}: {name}"]


@pytest.mark.ros
def test_a_refused_frame_is_an_error_for_a_while(configure: Callable[..., Matcher]) -> None:
    """At 1.2 Hz every second look found no refusal and said OK."""
    matcher = configure({"watchdog.window": 60.0})
    matcher.prime()
    at = matcher.tick()
    matcher.peer.send(at, image=image_message(picture(), at, "chromatic7"))
    matcher.peer.output("matches", at)

    def after_it() -> list[DiagnosticStatus]:
        said = told(matcher, "matching")
        refused = [{v.key: v.value for v in s.values}["refused"] for s in said]
        return said[refused.index("1") :] if "1" in refused else []

    for said in matcher.peer.wait(lambda: after_it()[2:] and after_it(), "three diagnostics")[:3]:
        assert said.level == ERROR
        assert "frames refused in the last" in said.message
        assert "encoding 'chromatic7' is unknown" in said.message


@pytest.mark.ros
def test_lost_messages_are_told_from_a_dead_camera(configure: Callable[..., Matcher]) -> None:
    matcher = configure()
    before = len(matcher.log)
    matcher.prime()
    start = matcher.peer.received["status"][-1].missing
    for number in range(24):
        at = matcher.tick()
        if number < 12 or number % 3 == 0:
            matcher.peer.send(at)
            status = matcher.peer.output("status", at)
    assert status.missing - start == 2 * 2 * 3  # two inputs, two of three frames, three times
    line = matcher.wait_for_log("messages of /image are missing", before)
    assert "qos_overrides./image.subscription.reliability = reliable" in line
    said = matcher.peer.wait(
        lambda: [s for s in told(matcher, "input /image") if s.level == WARN], "a warning"
    )
    assert "are missing, 0 of them lost on the way" in said[0].message
    assert {v.key: v.value for v in said[-1].values}["seconds between stamps"] == "0.1000"


# A camera over UDP only: small images, then large ones in a burst that no buffer holds.
CAMERA = """
import itertools, time
import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("camera", namespace="/lossy")
profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "image", profile)
while not publisher.get_subscription_count():
    time.sleep(0.01)
large = Image(data=bytes(30_000_000))
for number in itertools.count():
    message = large if 20 <= number < 30 else Image()
    message.header.stamp = Time(sec=number)
    publisher.publish(message)
    if message is not large:
        time.sleep(0.02)
"""


@pytest.mark.ros
def test_what_the_transport_lost_is_counted_to_the_message(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A receive buffer that holds one fragment or two, however large the system's may be.
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4?max_msg_size=32KB&sockets_size=64KB")
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("receiver", namespace="/lossy", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    config = NodeConfig(inputs=InputsConfig(camera_info="none"))
    newest: list[int] = []
    inputs = CameraInputs(node, config, lambda bundle: newest.append(bundle.image.header.stamp.sec))
    camera = subprocess.Popen([sys.executable, "-c", CAMERA], env=dict(os.environ))
    try:
        end = time.monotonic() + 60
        while not newest:
            executor.spin_once(0.1)
            assert time.monotonic() < end
        first = inputs.look(60.0)[0].state
        start = newest[-1] - first.heard - first.lost
        health = inputs.look(60.0)[0]
        while newest[-1] < 40 or newest[-1] - health.state.heard - health.state.lost != start:
            executor.spin_once(0.1)
            health = inputs.look(60.0)[0]
            assert time.monotonic() < end, (newest, health)
        assert health.lost > 0
        assert health.missing == health.lost
        (warning,) = inputs.warnings([health], silent_after=60.0)
        assert f"{health.lost} of them lost on the way. Publisher and subscription are" in warning
        assert "qos_overrides./lossy/image.subscription.reliability = reliable" in warning
    finally:
        camera.kill()
        camera.wait()
        inputs.destroy()
        node.destroy_node()
        context.try_shutdown()


@pytest.mark.ros
def test_stamps_of_the_future_and_low_rates(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"watchdog.window": 1.0, "inputs.min_rate": 1000.0})
    clock, matcher.clock = matcher.clock, round(time.time()) + 3600.0
    try:
        matcher.prime()
    finally:
        matcher.clock = clock
    for text in ("synchronise the clocks", "fewer than inputs.min_rate"):
        matcher.peer.wait(
            lambda text=text: [s for s in told(matcher, "input /image") if text in s.message], text
        )
        matcher.prime()  # with stamps of the past
