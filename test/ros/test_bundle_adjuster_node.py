"""The back-end as a process: pairs and calibration in, path, odometry and landmarks out."""

from __future__ import annotations

import copy
import importlib
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("gtsam")

import rclpy
from nav_msgs.msg import Odometry, Path
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Imu, PointCloud2

from superglue_ros.config import Config
from superglue_ros.msg import Matches, RelativePose
from superglue_ros.pipeline import Pipeline
from superglue_ros.ros.convert import matches_to_message, pose_of, pose_to_message
from superglue_ros.ros.qos import output_profile
from superglue_ros.settings import from_flat

from ..inertial_world import CALIBRATION, DOWN, RATE_HZ, pose_at, readings
from ..landmark_world import CAMERA, HEIGHT, WIDTH, LandmarkWorld, heading

pytestmark = pytest.mark.ros
FRAMES = 8
LOSSLESS = QoSProfile(depth=1000)
# Apart from the matcher that other tests share: it and its peer use the same topics.
NAMESPACE = ("--ros-args", "-r", "__ns:=/back_end")


@pytest.fixture
def start_node(domain, tmp_path):
    """The node as a process of its own; ends with exit code 0 however often it is interrupted."""
    children = []
    with open(tmp_path / "node.log", "w") as log:

        def start(*more):
            command = [sys.executable, "-m", "superglue_ros.ros.bundle_adjuster", *NAMESPACE, *more]
            children.append(subprocess.Popen(command, stdout=log, stderr=log))

        yield start
        (child,) = children
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


class Consumer:
    """Sends the pairs and collects what comes back."""

    def __init__(self, **topics):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("consumer", namespace="/back_end", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received = {topic: [] for topic in topics}
        for topic, kind in topics.items():
            name = topic if topic.startswith("/") else f"bundle_adjuster/{topic}"
            self.node.create_subscription(kind, name, self.received[topic].append, output_profile())

    def run(self, waits_for, before=lambda consumer: None, pairs=messages, with_each=None):
        """Send all pairs; returns their number once ``waits_for`` has one message of each.

        ``with_each`` is called with the message before each pair.
        """
        info = self.node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        matches = self.node.create_publisher(Matches, "matches", output_profile())
        poses = self.node.create_publisher(RelativePose, "relative_pose", output_profile())
        try:
            deadline = time.monotonic() + 90
            while matches.get_subscription_count() == 0 or poses.get_subscription_count() == 0:
                assert time.monotonic() < deadline, "the node did not come up"
                self.executor.spin_once(0.1)
            before(self)
            for _ in range(10):
                info.publish(calibration())
                self.executor.spin_once(0.05)
            sent = 0
            for one, other in pairs():
                if with_each is not None:
                    with_each(one)
                # Either may come first.
                for publisher, message in ((matches, one), (poses, other))[:: 1 - 2 * (sent % 2)]:
                    publisher.publish(message)
                sent += 1
            while len(self.received[waits_for]) < sent - 1 and time.monotonic() < deadline:
                self.executor.spin_once(0.1)
        finally:
            self.node.destroy_node()
            rclpy.shutdown(context=self.context)
        return sent


def test_a_path_comes_out_in_metres(start_node):
    start_node()
    consumer = Consumer(path=Path, odometry=Odometry, landmarks=PointCloud2)
    assert consumer.run("landmarks") == FRAMES
    received = consumer.received

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
    covariance = odometry.pose.covariance.reshape(6, 6)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert np.sqrt(np.trace(covariance[:3, :3])) < 0.05
    cloud = received["landmarks"][-1]
    assert cloud.width > 50
    assert len(cloud.data) == cloud.width * cloud.point_step


# Not skipped within: the process that the fixture starts would end before it takes signals.
@pytest.mark.skipif(importlib.util.find_spec("tf2_ros") is None, reason="tf2_ros is not installed")
def test_drifting_odometry_is_corrected_by_map_to_odom(start_node):
    """The map begins where odom is at the first frame; what odom drifts from then on comes back."""
    start_node("-p", "publish_tf:=true")
    import tf2_ros
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    drift = 0.02  # metres a frame, along x
    world = LandmarkWorld(count=10)

    def odometry(consumer):
        broadcaster = tf2_ros.TransformBroadcaster(consumer.node)
        turn = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        for number in range(FRAMES):
            rotation = heading(6.0 * number)
            frame, _ = world.frame(number, rotation, rotation @ [0, 0, 1.0])
            position = turn @ (rotation @ [0, 0, 1.0]) + [drift * number, 0, 0]
            message = TransformStamped()
            message.header.frame_id, message.child_frame_id = "odom", frame.id.frame_id
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(
                frame.id.stamp_ns, 10**9
            )
            pose = pose_of(turn @ rotation, position)
            t = message.transform.translation
            t.x, t.y, t.z = pose.position.x, pose.position.y, pose.position.z
            message.transform.rotation = pose.orientation
            broadcaster.sendTransform(message)

    consumer = Consumer(odometry=Odometry, **{"/tf": TFMessage})
    consumer.run("odometry", odometry)
    found = [
        one
        for message in consumer.received["/tf"]
        for one in message.transforms
        if (one.header.frame_id, one.child_frame_id) == ("map", "odom")
    ]
    assert len(found) == FRAMES - 1
    first, last = found[0].transform, found[-1].transform
    assert (first.translation.x, first.rotation.w) == pytest.approx((0, 1), abs=1e-6)
    moved = last.translation
    expected = [-drift * (FRAMES - 2), 0, 0]
    np.testing.assert_allclose([moved.x, moved.y, moved.z], expected, atol=0.03)
    assert abs(last.rotation.w) == pytest.approx(1, abs=1e-3)
    stamp = consumer.received["odometry"][-1].header.stamp
    ahead = (
        found[-1].header.stamp.sec
        - stamp.sec
        + 1e-9 * (found[-1].header.stamp.nanosec - stamp.nanosec)
    )
    assert ahead == pytest.approx(0.5)


def monocular():
    """Pairs along the path with an IMU, without scale; the reference keyframe's only."""
    settings = {"device": "cpu", "front_end.name": "sift", "matcher.name": "ratio"}
    settings |= {"keyframes.window": 1, "keyframes.loop_candidates": 0}
    world, pipeline = LandmarkWorld(count=900), Pipeline(from_flat(Config, settings))
    for number in range(36):
        pose = pose_at(number / RATE_HZ)
        frame, _ = world.frame(number, pose[:3, :3], pose[:3, 3], keypoints=120)
        for pair in pipeline.process(frame).pairs:
            yield matches_to_message(pair.matches), pose_to_message(pair.pose)


@pytest.fixture
def calibrated(tmp_path):
    """Kalibr's two files of the IMU; the name of the first."""
    T = CALIBRATION.T_camera_imu.tolist()
    (tmp_path / "camchain-imucam.yaml").write_text(f"cam0: {{T_cam_imu: {T}}}\n")
    noise = {f.name: getattr(CALIBRATION, f.name) for f in fields(CALIBRATION) if "_" in f.name}
    lines = [f"{k}: {v}\n" for k, v in noise.items() if k.startswith(("acc", "gyr"))]
    (tmp_path / "imu.yaml").write_text("".join(lines))
    return tmp_path / "camchain-imucam.yaml"


def test_with_an_imu_the_path_is_metric_and_upright(calibrated, start_node):
    start_node("-p", f"imu_calibration:={calibrated}")
    consumer = Consumer(odometry=Odometry)
    imu = consumer.node.create_publisher(Imu, "imu", LOSSLESS)
    source = readings()
    rows = zip(source.stamps_ns.tolist(), source.forces, source.rates, strict=True)

    def up_to_the_frame(matches):
        stamp = matches.query.stamp.sec * 10**9 + matches.query.stamp.nanosec
        for at, force, rate in rows:
            message = Imu()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(at, 10**9)
            a, w = message.linear_acceleration, message.angular_velocity
            (a.x, a.y, a.z), (w.x, w.y, w.z) = force.tolist(), rate.tolist()
            imu.publish(message)
            if at > stamp:
                break

    def until_it_listens(consumer):
        while imu.get_subscription_count() == 0:
            consumer.executor.spin_once(0.1)

    consumer.run("odometry", until_it_listens, monocular, up_to_the_frame)
    last = consumer.received["odometry"][-1]
    x, y, z, w = (getattr(last.pose.pose.orientation, name) for name in "xyzw")
    found = Rotation.from_quat([x, y, z, w]).as_matrix()
    true = pose_at((last.header.stamp.sec * 10**9 + last.header.stamp.nanosec) * 1e-9)
    down = found @ true[:3, :3].T @ DOWN
    np.testing.assert_allclose(down, [0, 0, -1], atol=0.02)
    p = last.pose.pose.position
    moved = np.linalg.norm(true[:3, 3] - pose_at(0)[:3, 3])
    assert np.linalg.norm([p.x, p.y, p.z]) == pytest.approx(moved, rel=0.05)


def test_a_calibration_that_is_not_there_ends_the_node_with_its_name(tmp_path):
    command = [sys.executable, "-m", "superglue_ros.ros.bundle_adjuster", "--ros-args"]
    command += ["-p", f"imu_calibration:={tmp_path / 'none.yaml'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "none.yaml does not exist" in done.stderr


def test_the_matcher_does_not_depend_on_the_back_end():
    code = (
        "import sys, superglue_ros.pipeline, superglue_ros.ros.node;"
        "print([m for m in sys.modules if 'back_end' in m or m == 'gtsam'])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert importlib.util.find_spec("superglue_ros.back_end") is not None  # the name still holds
