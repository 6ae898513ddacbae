"""The short form of `make soak`: faults over a real process, and every frame accounted for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import faults
from matcher_process import Matcher, camera_info, image_message, picture
from sensor_msgs.msg import CameraInfo, Image
from soak import MAX_GROWTH, PARAMETERS, Run, Sample, judge_growth

pytestmark = pytest.mark.ros

FAULTS = (
    faults.time_jumps_back, faults.another_size, faults.bad_frames, faults.services,
    faults.time_jumps_forward, faults.mutated_frames, faults.full_disk, faults.one_wrong_stamp,
    faults.reset, faults.subscriber_comes_or_goes, faults.parameters, faults.life_cycle,
    faults.subscriber_comes_or_goes,
)  # fmt: skip


@pytest.mark.slow
def test_every_frame_is_accounted_for_whatever_happens(
    configure: Callable[..., Matcher], tmp_path: Path
) -> None:
    parameters = {name: value for name, value in PARAMETERS.items() if name != "autostart"}
    changed = {"matcher.ratio": 0.8, "keyframes.window": 1, "maps.folder": str(tmp_path / "maps")}
    matcher = configure({**parameters, **changed})
    run = Run(tmp_path, matcher, faults.LimitedFiles())
    before = len(matcher.log)
    for fault in FAULTS:
        run.batch(6)
        run.strike(fault)
    assert run.totals["received"] == run.totals["matched"] + run.totals["refused"]
    assert run.totals["received"] > 6 * len(FAULTS) + 20
    assert run.totals["refused"] >= 3
    assert matcher.state() == "active"
    assert "Traceback" not in matcher.log[before:]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run with processes and a domain of its own."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(random.SystemRandom().randint(10, 210)))
    run = Run(tmp_path)
    yield run
    run.matcher.kill()


@pytest.mark.slow
def test_the_camera_and_the_node_are_killed(alone: Run) -> None:
    for fault in (faults.camera_is_killed, faults.node_is_killed):
        alone.batch(6)
        alone.strike(fault)
    assert alone.life == 2
    assert alone.lost_with_the_node <= 5


def run_of(memory: list[float], threads: list[int]) -> Run:
    run = Run.__new__(Run)
    run.life, run.violations = 1, []
    run.samples = [Sample(n, n, 1, m, t, 20) for n, (m, t) in enumerate(zip(memory, threads))]  # noqa: B905
    return run


def test_growth_after_the_warm_up_is_a_violation() -> None:
    flat = [100.0] * 30 + [200.0] * 70
    run = run_of(flat, [9] * 100)
    assert judge_growth(run)["growth"] == 0.0
    assert not run.violations
    run = run_of([m * (1 + 2 * MAX_GROWTH * n / 100) for n, m in enumerate(flat)], [9] * 100)
    judge_growth(run)
    assert [text.split(" by ")[0] for text in run.violations] == ["memory grew"]
    run = run_of(flat, list(range(100)))
    judge_growth(run)
    assert [text.split(":")[0] for text in run.violations] == ["threads grew"]


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
