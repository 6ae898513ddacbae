"""For the tests of the campaign: no threads before processes are forked."""

from __future__ import annotations

import cv2
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    cv2.setNumThreads(1)
