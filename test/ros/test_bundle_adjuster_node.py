"""The back-end as a process: pairs and calibration in, path, odometry and landmarks out."""

from __future__ import annotations

import copy
import importlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("gtsam")

import rclpy
from nav_msgs.msg import Odometry, Path
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, PointCloud2

from superglue_ros.config import Config
from superglue_ros.msg import Matches, RelativePose
from superglue_ros.pipeline import Pipeline
from superglue_ros.ros.convert import matches_to_message, pose_to_message
from superglue_ros.ros.qos import output_profile
from superglue_ros.settings import from_flat

from ..landmark_world import CAMERA, HEIGHT, WIDTH, LandmarkWorld, heading

pytestmark = pytest.mark.ros
FRAMES = 8
# Apart from the matcher that other tests share: it and its peer use the same topics.
NAMESPACE = ("--ros-args", "-r", "__ns:=/back_end")


@pytest.fixture
def process(domain, tmp_path):
    """The node as a process of its own; ends with exit code 0 however often it is interrupted."""
    with open(tmp_path / "node.log", "w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "superglue_ros.ros.bundle_adjuster", *NAMESPACE],
            stdout=log,
            stderr=log,
        )
        yield child
        deadline = time.monotonic() + 30
        while (code := child.poll()) is None and time.monotonic() < deadline:
            child.send_signal(signal.SIGINT)
            time.sleep(0.02)
    assert code == 0, (tmp_path / "node.log").read_text()


def messages():
    """Pairs of a camera on a circle, with metric scale, as the matcher would publish them.

    Two have overtaken each other, and one is of another camera of the rig.
    """
    settings = {"device": "cpu", "front_end.name": "sift", "matcher.name": "ratio"}
    world, pipeline = LandmarkWorld(count=900), Pipeline(from_flat(Config, settings))
    found = []
    for number in range(FRAMES):
        rotation = heading(6.0 * number)
        frame, _ = world.frame(number, rotation, rotation @ [0, 0, 1.0], with_depth=True)
        for pair in pipeline.process(frame).pairs:
            found.append((matches_to_message(pair.matches), pose_to_message(pair.pose)))
    found[3], found[4] = found[4], found[3]
    elsewhere = copy.deepcopy(found[-1])
    for message in elsewhere:
        message.query.camera_index = 1
    return [elsewhere, *found]


def calibration() -> CameraInfo:
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
    info.k = CAMERA.matrix.ravel()
    info.d = [0.0] * 5
    info.r = np.eye(3).ravel()
    info.p = np.hstack([CAMERA.matrix, np.zeros((3, 1))]).ravel()
    return info


def test_a_path_comes_out_in_metres(process):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("consumer", namespace="/back_end", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    received: dict[str, list] = {"path": [], "odometry": [], "landmarks": []}
    for name, kind in (("path", Path), ("odometry", Odometry), ("landmarks", PointCloud2)):
        node.create_subscription(
            kind, f"bundle_adjuster/{name}", received[name].append, output_profile()
        )
    info = node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
    matches = node.create_publisher(Matches, "matches", output_profile())
    poses = node.create_publisher(RelativePose, "relative_pose", output_profile())
    try:
        deadline = time.monotonic() + 90
        while matches.get_subscription_count() == 0 or poses.get_subscription_count() == 0:
            assert time.monotonic() < deadline, "the node did not come up"
            executor.spin_once(0.1)
        for _ in range(10):
            info.publish(calibration())
            executor.spin_once(0.05)
        sent = 0
        for one, other in messages():
            # Either may come first.
            for publisher, message in ((matches, one), (poses, other))[:: 1 - 2 * (sent % 2)]:
                publisher.publish(message)
            sent += 1
        while len(received["landmarks"]) < sent - 1 and time.monotonic() < deadline:
            executor.spin_once(0.1)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)

    assert sent == FRAMES
    path = received["path"][-1]
    assert path.header.frame_id == "map"
    assert len(path.poses) == FRAMES
    position = path.poses[-1].pose.position
    # 42 degrees along a circle of 1 m to the right of where the first camera looks, which is +x.
    angle = np.deg2rad(6.0 * (FRAMES - 1))
    np.testing.assert_allclose(
        [position.x, position.y, position.z], [np.cos(angle) - 1, -np.sin(angle), 0], atol=0.05
    )
    odometry = received["odometry"][-1]
    assert odometry.header.stamp == path.poses[-1].header.stamp
    assert odometry.child_frame_id == "camera"
    cloud = received["landmarks"][-1]
    assert cloud.width > 50
    assert len(cloud.data) == cloud.width * cloud.point_step


def test_the_matcher_does_not_depend_on_the_back_end():
    code = (
        "import sys, superglue_ros.pipeline, superglue_ros.ros.node;"
        "print([m for m in sys.modules if 'back_end' in m or m == 'gtsam'])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert importlib.util.find_spec("superglue_ros.back_end") is not None  # the name still holds
