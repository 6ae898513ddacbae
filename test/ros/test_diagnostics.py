"""What the operator is told about a state of health."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticStatus

from superglue_ros.ros.diagnostics import Counts, Health, judge


@pytest.mark.parametrize(
    ("health", "level", "said"),
    [
        (Health("active"), DiagnosticStatus.OK, "matching"),
        (Health("active", waiting=30, since_last=Counts(matched=9)), DiagnosticStatus.OK, ""),
        (
            Health("active", lossless=True, waiting=868, waiting_mib=840,
                   since_last=Counts(received=45, matched=5)),
            DiagnosticStatus.WARN, "868 frames wait (840 MiB)",
        ),
        (
            Health("active", lossless=True, waiting=1000, waiting_mib=1024,
                   since_last=Counts(received=45, matched=5, dropped=40)),
            DiagnosticStatus.ERROR, "40 frames dropped",
        ),
        (Health("active", busy_seconds=60), DiagnosticStatus.ERROR, "takes 60 s"),
    ],
)  # fmt: skip
def test_what_needs_attention(health: Health, level: bytes, said: str) -> None:
    found, text = judge(health)
    assert found == level
    assert said in text
