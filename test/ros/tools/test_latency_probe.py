"""The probe of the benchmark against a real node."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from matcher_process import PATIENCE, Matcher

from superglue_ros.ros.tools.latency_probe import LatencyProbe, ProbeError

pytestmark = pytest.mark.ros


@pytest.fixture
def probe(configure: Callable[..., Matcher]) -> Iterator[LatencyProbe]:
    configure()
    context = rclpy.Context()
    rclpy.init(context=context)
    made = LatencyProbe(PATIENCE, context=context)
    assert made.wait_for_node()
    yield made
    made.destroy_node()
    context.try_shutdown()


def test_the_held_rate_is_below_the_fastest_and_drops_nothing(probe: LatencyProbe) -> None:
    row = probe.held_rate(keypoints=100, keyframes=2, frames=10)
    assert (row["keypoints"], row["keyframes"]) == (100, 2)
    if row["rate"] is not None:  # on a machine that others use, maybe none is held
        assert row["precision"] == "float32"
        assert row["frames"] == 10
        assert 0 < row["median"] <= row["p95"]
        assert row["rate"] > 0.01
    # A camera that is faster than the node loses frames, and the probe says so.
    fastest = probe._fastest(6)
    assert probe._try(50 * fastest, 10) is None
    slow = probe._try(0.1 * fastest, 2)
    assert slow is not None
    assert [one.references for one in slow] == [2, 2]


def test_settings_that_the_node_refuses_end_it(probe: LatencyProbe) -> None:
    with pytest.raises(ProbeError, match=r"front_end\.max_keypoints"):
        probe.held_rate(keypoints=0, keyframes=1, frames=10)
