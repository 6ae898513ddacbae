"""Inputs and the clock switched on by launch arguments; a node that is killed comes back."""

from __future__ import annotations

import os
import signal
import sys
import unittest
from pathlib import Path
from typing import Any

import launch_testing
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "ros"))

from matcher_process import Peer  # noqa: E402

EXPECTED = {"inputs.keypoints": True, "inputs.depth": True, "use_sim_time": True}


def generate_test_description() -> LaunchDescription:
    arguments = {
        "params_file": str(HERE / "quick.yaml"),
        "keypoints": "/front_end/keypoints",
        "depth": "true",
        "use_sim_time": "True",
        "respawn": "true",
    }
    source = PythonLaunchDescriptionSource(str(HERE.parents[1] / "launch" / "matcher.launch.py"))
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=arguments.items()),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestSwitches(unittest.TestCase):
    def test_parameters_topics_and_respawn(self, proc_output: Any, proc_info: Any) -> None:
        ready = "ready: sift and mutual on cpu"
        proc_output.assertWaitFor(ready, timeout=60)
        peer = Peer()
        try:
            request = GetParameters.Request(names=list(EXPECTED))
            answer = peer.call("/matcher/get_parameters", GetParameters, request)
            assert [one.bool_value for one in answer.values] == list(EXPECTED.values())
            counts = peer.node.count_subscribers
            assert (counts("/front_end/keypoints"), counts("/depth")) == (1, 1)
            (name,) = proc_info.process_names()
            before = len([1 for one in proc_output[name] if ready.encode() in one.text])
            os.kill(self.node_pid(), signal.SIGKILL)
            peer.wait(
                lambda: (
                    len([1 for one in proc_output[name] if ready.encode() in one.text]) > before
                ),
                "the node again",
                60.0,
            )
            for _ in range(20):  # the first may still go to the one that was killed
                try:
                    state = peer.call("/matcher/get_state", GetState, GetState.Request(), 2.0)
                    break
                except AssertionError:
                    continue
            assert state.current_state.label == "active"
        finally:
            peer.close()

    @staticmethod
    def node_pid() -> int:
        """The child of this process that is the matcher."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and b"superglue_ros/matcher" in command:
                return int(entry.name)
        raise AssertionError("the launched matcher is not running")
