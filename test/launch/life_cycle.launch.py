"""Launched with autostart:=false, the node is brought up and down through its services."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import launch_testing
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "ros"))

from matcher_process import Peer  # noqa: E402


def generate_test_description() -> LaunchDescription:
    arguments = {"params_file": str(HERE / "quick.yaml"), "autostart": "false"}
    source = PythonLaunchDescriptionSource(str(HERE.parents[1] / "launch" / "matcher.launch.py"))
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=arguments.items()),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestLifeCycle(unittest.TestCase):
    def test_transitions(self) -> None:
        peer = Peer()
        steps = [
            (Transition.TRANSITION_CONFIGURE, "inactive"),
            (Transition.TRANSITION_ACTIVATE, "active"),
            (Transition.TRANSITION_DEACTIVATE, "inactive"),
            (Transition.TRANSITION_CLEANUP, "unconfigured"),
        ]
        try:
            for number, state in steps:
                request = ChangeState.Request(transition=Transition(id=number))
                assert peer.call("/matcher/change_state", ChangeState, request).success
                answer = peer.call("/matcher/get_state", GetState, GetState.Request())
                assert answer.current_state.label == state
        finally:
            peer.close()


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    def test_exit_code_is_zero(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, allowable_exit_codes=[0])
