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

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from matcher_process import Matcher, stamp
from nav_msgs.msg import Path as PathMessage

from ..recordings import entities

pytestmark = pytest.mark.ros


def written(file: Path) -> bool:
    """Whether all that is sent is in the file, which may be in the middle of a write."""
    try:
        found = entities(file)
    except Exception:
        return False
    names = ("counts/matches", "counts/inliers", "milliseconds/match", "world/trajectory")
    names += ("map/trail", "map/camera/view")
    return all(name in found for name in (*names, "world/camera/image"))


def shown(found: dict, name: str) -> list[float]:
    """The values of a curve in the order of time."""
    return [values[0] for _, values in sorted(found[name]["Scalars:scalars"])]


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
        place = peer.publisher("relocalised_pose", PoseWithCovarianceStamped)
        others = ("matches", "relative_pose", "matcher/status")
        peer.wait(
            lambda: all(peer.node.count_subscribers(name) == 2 for name in others), "the viewer"
        )
        frames = {}
        while not written(file):  # the matcher finds the viewer later than the peer does, maybe
            at = matcher.tick()
            peer.send(at, shift=7)
            frames[at] = peer.output("matches", at), peer.output("status", at)
            message = PathMessage()
            for number in range(2):
                pose = PoseStamped()
                pose.header.stamp = stamp(at - 0.1 + 0.1 * number)
                pose.pose.position.x = float(number)
                pose.pose.orientation.w = 1.0
                message.poses.append(pose)
            path.publish(message)
            found = PoseWithCovarianceStamped()
            found.header.stamp = stamp(at)
            found.pose.pose.position.x, found.pose.pose.position.y = 0.1 * len(frames), 2.0
            found.pose.pose.orientation.z = found.pose.pose.orientation.w = np.sqrt(0.5)
            place.publish(found)
            assert len(frames) < 50, log.read_text()
        assert viewer.poll() is None, log.read_text()
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(30) == 0, log.read_text()
    finally:
        viewer.kill()
        viewer.wait()
    assert "is not shown" not in log.read_text()
    found = entities(file)
    matches = [one for one, _ in frames.values()]
    assert shown(found, "counts/matches")[-1] in {len(one.u_ref) for one in matches}
    assert shown(found, "counts/inliers")[-1] in {sum(one.inlier) for one in matches}
    # From the frame on that was the first it heard, every one.
    sent = [1000 * status.match_seconds for _, status in frames.values()]
    milliseconds = shown(found, "milliseconds/match")
    first = int(np.argmin(np.abs(np.array(sent) - milliseconds[0])))
    np.testing.assert_allclose(milliseconds, sent[first : first + len(milliseconds)], rtol=1e-6)
    lines = found["world/trajectory"]["LineStrips3D:strips"][-1][1]
    np.testing.assert_allclose(lines, [[[0, 0, 0], [1, 0, 0]]])
    (trail,) = found["map/trail"]["LineStrips3D:strips"][-1][1]
    np.testing.assert_allclose(np.diff(trail, axis=0), [[0.1, 0, 0]] * (len(trail) - 1), atol=1e-6)
    np.testing.assert_allclose(np.array(trail)[:, 1:], [[2, 0]] * len(trail))
    camera = found["map/camera"]
    np.testing.assert_allclose(camera["Transform3D:translation"][-1][1], [trail[-1]], atol=1e-6)
    turned = np.reshape(camera["Transform3D:mat3x3"][-1][1], (3, 3)).T  # columns after each other
    np.testing.assert_allclose(turned, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)
    assert len(found["world/camera/image"]["EncodedImage:blob"]) >= 1
