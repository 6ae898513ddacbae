"""Life cycle of the process: bring up, tear down, in the middle of a match, and interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus
from matcher_process import (
    PATIENCE,
    Matcher,
    seconds,
    stamp,
)
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from superglue_ros.msg import Matches

pytestmark = pytest.mark.ros


def test_up_down_and_interrupt(start: Callable[..., Matcher]) -> None:
    matcher = start()
    assert matcher.state() == "unconfigured"
    assert matcher.configure()
    assert matcher.state() == "inactive"
    assert matcher.activate()
    assert matcher.state() == "active"
    at = matcher.prime()
    first = matcher.peer.output("features", at).frame.id
    assert matcher.deactivate()
    assert matcher.state() == "inactive"
    assert matcher.cleanup()
    assert matcher.state() == "unconfigured"
    assert matcher.configure()
    assert matcher.activate()
    at = matcher.prime()
    assert matcher.peer.output("features", at).frame.id > first  # ids go on counting
    assert matcher.stop() == 0, matcher.log


def test_autostart_namespace_remapping_and_sim_time(start: Callable[..., Matcher]) -> None:
    """One process for all that is said at its start."""
    topics = {"image": "/rig/front/image_raw", "camera_info": "/rig/front/camera_info"}
    remap = [part for name, to in topics.items() for part in ("-r", f"{name}:={to}")]
    matcher = start(
        {
            "autostart": True,
            "use_sim_time": True,
            "robot": "kim",
            "geometry.treshold_px": 1.0,
            "qos_overrides./rig/front/image_raw.subscription.reliability": "reliable",
        },
        arguments=("-r", "__ns:=/kim", *remap),
        namespace="/kim",
        topics=topics,
    )
    at = matcher.prime()
    matches = matcher.peer.output("matches", at)
    assert matches.query.robot == "kim"
    assert matcher.state() == "active"
    matcher.wait_for_log("geometry.treshold_px is unknown and has no effect: did you mean")
    reliability = matcher.get("qos_overrides./rig/front/image_raw.subscription.reliability")
    assert reliability.string_value == "reliable"
    for topic, expected in (
        ("image", ReliabilityPolicy.RELIABLE),
        ("camera_info", ReliabilityPolicy.BEST_EFFORT),
    ):
        (found,) = matcher.peer.node.get_subscriptions_info_by_topic(topics[topic])
        assert found.qos_profile.reliability == expected, topic
    # The clock goes back: the stamps of the images decide when time has jumped.
    clock = matcher.peer.publisher("/clock", Clock)
    diagnostics = matcher.peer.received["/diagnostics"]

    def told(now: float) -> bool:
        """Publish the time until the node, which stamps its diagnostics, has it."""
        clock.publish(Clock(clock=stamp(now)))
        own = [d for d in diagnostics if "/kim" in d.status[0].name]
        return bool(own) and seconds(own[-1].header.stamp) == pytest.approx(now)

    matcher.peer.wait(lambda: told(at), "the node to have the time")
    matcher.peer.wait(lambda: told(at - 60.0), "the node to have the earlier time")
    assert "time jumped backwards" not in matcher.log
    before = matches.query.id
    matcher.peer.send(at - 59.9)
    after = matcher.peer.output("features", at - 59.9).frame.id
    assert after > before
    matcher.peer.send(at - 59.8)
    assert matcher.peer.output("matches", at - 59.8).reference.id == after
    assert matcher.log.count("time jumped backwards to") == 1
    assert matcher.set(inputs__silent_after=0.5)[0].successful
    said = matcher.peer.wait(
        lambda: [
            status
            for message in diagnostics
            for status in message.status
            if status.message == "nothing comes from /rig/front/image_raw, /rig/front/camera_info"
        ],
        "diagnostics of silent inputs",
    )
    assert said[0].level == DiagnosticStatus.WARN
    assert matcher.stop() == 0, matcher.log


def test_a_lost_device_is_an_error_and_a_hanging_one_ends_the_process(
    start: Callable[..., Matcher], tmp_path: Path
) -> None:
    (tmp_path / "hold-start").touch()
    matcher = start(
        {
            "autostart": True,
            "front_end.name": "held",
            "overlap": "always",
            "watchdog.configure_within": 1.5,
        },
        program=(str(Path(__file__).parent / "held_matcher.py"), str(tmp_path)),
    )

    def said(text: str) -> list[DiagnosticStatus]:
        messages = matcher.peer.received["/diagnostics"]
        return [status for m in messages for status in m.status if text in status.message]

    # What comes before may be over when the test hears the node for the first time.
    slow = matcher.peer.wait(lambda: said("configuring takes"), "that configuring takes long")
    assert slow[0].level == DiagnosticStatus.ERROR
    (tmp_path / "hold-start").unlink()
    matcher.prime()

    (tmp_path / "break").touch()
    for _ in range(10):
        at = matcher.tick()
        matcher.peer.send(at)
        assert matcher.peer.output("matches", at).status == Matches.ERROR
    lost = "10 frames in a row failed: unforeseen RuntimeError: the device is lost"
    assert matcher.peer.wait(lambda: said(lost), lost)[0].level == DiagnosticStatus.ERROR
    (tmp_path / "break").unlink()
    at = matcher.tick()
    matcher.peer.send(at)
    assert matcher.peer.output("matches", at).status == Matches.OK

    results = matcher.set(watchdog__hung_after=0.5, watchdog__exit_on_failure=True)
    assert all(result.successful for result in results)
    (tmp_path / "hold").touch()
    matcher.peer.send(matcher.tick())
    assert matcher.process.wait(PATIENCE) == os.EX_TEMPFAIL, matcher.log
    assert said("does the device hang?")[0].level == DiagnosticStatus.ERROR


def test_values_out_of_range_at_start_are_corrected_in_place(start: Callable[..., Matcher]) -> None:
    matcher = start({"geometry.seed": -3})
    assert not matcher.configure()
    assert matcher.state() == "unconfigured"
    assert "geometry.seed out of range" in matcher.wait_for_log("cannot be configured")
    assert matcher.set(geometry__seed=3)[0].successful
    assert matcher.configure()
    assert matcher.stop() == 0, matcher.log


def test_bad_weights_are_named_and_can_be_corrected(
    configure: Callable[..., Matcher], shared: Matcher, tmp_path: Path
) -> None:
    wrong = tmp_path / "weights.pth"
    wrong.write_bytes(b"these are no weights")
    configure({"front_end.name": "sift", "front_end.weights": ""}, activate=False)
    assert shared.cleanup()
    before = len(shared.log)
    for path, said in ((wrong, "weights.pth"), (tmp_path / "absent.pth", "absent.pth")):
        results = shared.set_parameters(
            {"front_end.name": "superpoint", "front_end.weights": str(path)}
        )
        assert all(result.successful for result in results)
        assert not shared.configure()
        assert shared.state() == "unconfigured"
        assert "cannot be configured" in shared.wait_for_log(said, before)
        diagnosis = shared.peer.wait(
            lambda said=said: [
                s
                for array in shared.peer.received["/diagnostics"]
                for s in array.status
                if said in s.message
            ],
            "diagnostics about the weights",
        )
        assert diagnosis[-1].level == b"\2"
    shared.set_parameters({"front_end.name": "sift", "front_end.weights": ""})
    assert shared.configure()


def test_deactivation_in_the_middle_of_matches(configure: Callable[..., Matcher]) -> None:
    """Frames pour in while the node goes down and up: nothing hangs, what is in hand is counted."""
    matcher = configure({"intake.mode": "lossless", "overlap": "always"})
    matcher.prime()
    for _ in range(3):
        for _ in range(10):
            matcher.peer.send(matcher.tick(), shift=3)
        assert matcher.deactivate()
        published = len(matcher.peer.received["features"])
        assert matcher.activate()
        # Inactive means silent: what came in the meantime was finished before the answer.
        assert len(matcher.peer.received["features"]) - published <= 1
        at = matcher.prime()
        assert matcher.peer.output("matches", at).status == Matches.OK


@pytest.mark.parametrize(
    ("number", "overlap"), [(signal.SIGINT, "never"), (signal.SIGTERM, "always")]
)
def test_a_frame_in_work_is_published_before_the_end(
    start: Callable[..., Matcher], tmp_path: Path, number: int, overlap: str
) -> None:
    """The context was shut down under the worker: the frame was lost, in part with a traceback."""
    matcher = start(
        {
            "autostart": True,
            "intake.mode": "lossless",
            "front_end.name": "held",
            "overlap": overlap,
        },
        program=(str(Path(__file__).parent / "held_matcher.py"), str(tmp_path)),
    )
    matcher.prime()
    (tmp_path / "hold").touch()
    in_work, waiting = matcher.tick(), matcher.tick()
    matcher.peer.send(in_work, shift=3)
    matcher.peer.wait((tmp_path / "held").exists, "the frame in work")
    matcher.peer.send(waiting, shift=3)
    for _ in range(2):  # Ctrl-C reaches a launched node twice
        matcher.process.send_signal(number)
    matcher.wait_for_log(f"the process ends: {signal.Signals(number).name}")
    (tmp_path / "hold").unlink()
    outputs = ("status", "matches", "relative_pose", "features")
    for topic in outputs:  # each waited for: topics have no order among them
        matcher.peer.output(topic, in_work)
    assert matcher.process.wait(PATIENCE) == 0, matcher.log
    for topic in outputs:
        assert len(matcher.peer.outputs(topic, in_work)) == 1, topic
    assert "Traceback" not in matcher.log
    assert not matcher.peer.outputs("features", waiting)


def test_lossless_matches_every_frame_in_order(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"intake.mode": "lossless", "intake.warn_at": 1})
    matcher.prime()
    stamps = [matcher.tick() for _ in range(40)]
    for at in stamps:
        matcher.peer.send(at, shift=2)
    status = matcher.peer.output("status", stamps[-1])
    assert (status.dropped, status.refused) == (0, 0)
    assert status.received == status.matched
    ids = [matcher.peer.output("features", at).frame.id for at in stamps]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


def test_latest_drops_and_counts(configure: Callable[..., Matcher]) -> None:
    matcher = configure({"intake.mode": "latest"})
    matcher.prime()
    end = time.monotonic() + PATIENCE
    while not any(status.dropped for status in matcher.peer.received["status"]):
        assert time.monotonic() < end, "nothing is dropped"
        for _ in range(10):
            matcher.peer.send(matcher.tick(), shift=2)

    def settled() -> dict[str, int] | None:
        """The counts of the newest diagnostics, once nothing is in work."""
        if not matcher.peer.received["/diagnostics"]:
            return None
        values = matcher.peer.received["/diagnostics"][-1].status[0].values
        names = ("received", "matched", "dropped", "refused")
        counts = {v.key: int(v.value) for v in values if v.key in names}
        return counts if counts["received"] == sum(counts.values()) / 2 else None

    counts = matcher.peer.wait(
        lambda: (found := settled()) and found["dropped"] > 0 and found, "all frames accounted for"
    )
    assert counts["matched"] > 0


SIGTERM_BIT = 1 << (signal.SIGTERM - 1)


def handles_sigterm(process: int) -> bool:
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("SigCgt"):
            return bool(int(line.split()[1], 16) & SIGTERM_BIT)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 1.0, 2.5, 4.0, 6.0])
def test_signals_while_it_starts(number: int, delay: float, tmp_path: Path) -> None:
    """Of twelve interrupts during the start, six ended it by the signal, four with a traceback."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "superglue_ros.ros.start", "--ros-args"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "-p", "autostart:=true", "-r", "__ns:=/apart"],
            stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        while not handles_sigterm(process.pid):
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        time.sleep(delay)  # not to wait for anything: the signal comes at any moment
        process.send_signal(number)
        assert process.wait(60) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
