"""launch/matcher.launch.py brings the node up in its namespace, and it matches."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import launch_testing
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "ros"))

from matcher_process import Peer  # noqa: E402

TOPICS = {"image": "/rig/image_raw", "camera_info": "/rig/info", "status": "/robot/health"}


def generate_test_description() -> LaunchDescription:
    arguments = {
        "params_file": str(HERE / "quick.yaml"),
        "namespace": "robot",
        "device": "cpu",
        "log_level": "info",
        **TOPICS,
    }
    source = PythonLaunchDescriptionSource(str(HERE.parents[1] / "launch" / "matcher.launch.py"))
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=arguments.items()),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestMatching(unittest.TestCase):
    def test_frames_are_matched(self, proc_output: Any) -> None:
        proc_output.assertWaitFor("ready: sift and mutual on cpu", timeout=60)
        peer = Peer("/robot", TOPICS)
        try:
            # The first frames may pass before the outputs' subscriptions are known to the node.
            for step in range(100):
                peer.send(10.0 + step, shift=5 * (step % 2))
                try:
                    peer.wait(lambda: peer.received["matches"] and peer.received["status"], "", 1.0)
                    break
                except AssertionError:
                    continue
            matches = peer.received["matches"][-1]
            assert len(matches.u_ref) > 50
            assert peer.received["status"][-1].device == "cpu"
        finally:
            peer.close()


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    def test_exit_code_is_zero(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, allowable_exit_codes=[0])
