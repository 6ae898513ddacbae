"""The viewer as a process: it writes down what the matcher publishes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rerun.chunk", reason="rerun-sdk is not installed")

from geometry_msgs.msg import PoseStamped
from matcher_process import Matcher, stamp
from nav_msgs.msg import Path as PathMessage

from ..recordings import entities

pytestmark = pytest.mark.ros


def written(file: Path) -> bool:
    """Whether all that is sent is in the file, which may be in the middle of a write."""
    try:
        return {"counts/matches", "milliseconds/match", "world/trajectory"} <= entities(file).keys()
    except Exception:
        return False


def test_images_matches_timing_and_path_are_written_down(matcher: Matcher, tmp_path: Path) -> None:
    file, log = tmp_path / "live.rrd", tmp_path / "log"
    command = [sys.executable, "-m", "superglue_ros.ros.viewer", "--ros-args"]
    with log.open("wb") as output:
        viewer = subprocess.Popen(
            [*command, "-p", f"save:={file}"], stdout=output, stderr=subprocess.STDOUT
        )
    peer = matcher.peer
    try:
        path = peer.publisher("bundle_adjuster/path", PathMessage)  # its last subscription but one
        others = ("matches", "relative_pose", "matcher/status")
        peer.wait(
            lambda: all(peer.node.count_subscribers(name) == 2 for name in others), "the viewer"
        )
        at = matcher.tick()
        peer.send(at, shift=7)
        matches, status = peer.output("matches", at), peer.output("status", at)
        message = PathMessage()
        for number in range(2):
            pose = PoseStamped()
            pose.header.stamp = stamp(at - 0.1 + 0.1 * number)
            pose.pose.position.x = float(number)
            pose.pose.orientation.w = 1.0
            message.poses.append(pose)
        path.publish(message)
        peer.wait(lambda: written(file), "what the viewer writes down")
        assert viewer.poll() is None, log.read_text()
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(30) == 0, log.read_text()
    finally:
        viewer.kill()
        viewer.wait()
    assert "is not shown" not in log.read_text()
    found = entities(file)
    assert found["counts/matches"]["Scalars:scalars"][-1][1] == [len(matches.u_ref)]
    assert found["counts/inliers"]["Scalars:scalars"][-1][1] == [sum(matches.inlier)]
    assert found["milliseconds/match"]["Scalars:scalars"][-1][1] == pytest.approx(
        [1000 * status.match_seconds]
    )
    (lines,) = [values for _, values in found["world/trajectory"]["LineStrips3D:strips"]]
    np.testing.assert_allclose(lines, [[[0, 0, 0], [1, 0, 0]]])
    assert len(found["world/camera/image"]["EncodedImage:blob"]) >= 1
