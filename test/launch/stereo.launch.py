"""launch/matcher.launch.py with a rectified stereo pair under its driver's names."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import launch_testing
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from sensor_msgs.msg import CameraInfo

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "ros")]

from matcher_process import Peer, image_message, stamp  # noqa: E402
from stereo_room import HEIGHT, MATRIX, P_LEFT, P_RIGHT, WIDTH, view  # noqa: E402

from superglue_ros.msg import Matches, RelativePose  # noqa: E402

TOPICS = {
    "left_image": "/stereo/left/image",
    "left_camera_info": "/stereo/left/info",
    "right_image": "/stereo/right/image",
    "right_camera_info": "/stereo/right/info",
}


def generate_test_description() -> LaunchDescription:
    arguments = {
        "params_file": str(HERE / "quick.yaml"),
        "namespace": "robot",
        "device": "cpu",
        "stereo": "true",
        **TOPICS,
    }
    source = PythonLaunchDescriptionSource(str(HERE.parents[1] / "launch" / "matcher.launch.py"))
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=arguments.items()),
            launch_testing.actions.ReadyToTest(),
        ]
    )


def info(at: float, p: Any) -> CameraInfo:
    message = CameraInfo(width=WIDTH, height=HEIGHT, k=MATRIX.ravel().tolist(), p=p.tolist())
    message.header.stamp = stamp(at)
    return message


class TestMatching(unittest.TestCase):
    def test_pairs_give_metric_poses(self, proc_output: Any) -> None:
        proc_output.assertWaitFor("ready: sift and mutual on cpu", timeout=60)
        peer = Peer("/robot", TOPICS)
        try:
            for step in range(100):
                here, at = view(step % 2), 10.0 + step
                for topic, message in {
                    "left_image": image_message(here.left, at),
                    "right_image": image_message(here.right, at),
                    "left_camera_info": info(at, P_LEFT),
                    "right_camera_info": info(at, P_RIGHT),
                }.items():
                    peer.publisher(topic, type(message)).publish(message)
                try:
                    peer.wait(lambda: self._methods(peer) >= {"stereo", "pnp"}, "both", 1.0)
                    break
                except AssertionError:
                    continue
            assert self._methods(peer) >= {"stereo", "pnp"}
            assert Matches.STEREO in {m.kind for m in peer.received["matches"]}
        finally:
            peer.close()

    @staticmethod
    def _methods(peer: Peer) -> set[str]:
        names = {RelativePose.STEREO: "stereo", RelativePose.PNP: "pnp"}
        return {names.get(p.method, "") for p in peer.received["relative_pose"] if p.scale_known}


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    def test_exit_code_is_zero(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, allowable_exit_codes=[0])
