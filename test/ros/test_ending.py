"""A signal ends a node, whichever thread the kernel gives it to."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

pytestmark = pytest.mark.ros

TAKEN_BY_THE_EXECUTOR = """
import signal, threading
import rclpy
from rclpy.signals import SignalHandlerOptions
from superglue_ros.ros.ending import Ending
ending = Ending()
rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
node = rclpy.create_node("ends")
def kill():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
node.create_timer(0.3, kill)
code = ending.spin(node)
node.destroy_node()
rclpy.shutdown()
print("ended with", code)
"""


def test_a_signal_that_another_thread_takes(domain: int) -> None:
    """The main thread waited without a limit and never ran Python's handler."""
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_BY_THE_EXECUTOR], capture_output=True, text=True, timeout=60
    )
    assert "ended with 0" in done.stdout, done.stderr
