"""A node ends: whichever thread the kernel gives a signal to, and where the middleware hangs."""

from __future__ import annotations

import os
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


HANGS = """
import ctypes
import rclpy
from superglue_ros.ros.ending import destroy
rclpy.init()
node = rclpy.create_node("hangs")
def destroy_for_ever():
    ctypes.PyDLL(None).pause()  # keeps Python's lock, as rclpy does
node.destroy_node = destroy_for_ever
destroy(node, within=0.2)
"""


def test_a_destruction_that_hangs_ends_with_the_process(domain: int) -> None:
    env = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}  # nobody misses it
    done = subprocess.run(
        [sys.executable, "-c", HANGS], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done
    assert "Timeout (0:00:00.200000)!" in done.stderr
    assert "in destroy_for_ever" in done.stderr


ENDS = """
import time
import rclpy
from superglue_ros.ros.ending import destroy
rclpy.init()
node = rclpy.create_node("ends")
destroy(node, within=0.5)
time.sleep(1.0)  # the limit holds for the destruction alone
print("has ended")
"""


def test_one_that_ends_leaves_no_limit(domain: int) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "has ended\n"), done.stderr
