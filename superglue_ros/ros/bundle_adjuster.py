"""The example back-end as a node: an adapter between topics and the bundle adjuster.

In: ``matches``, ``relative_pose``, ``camera_info`` (the newest is used). Out: ``~/path``
(nav_msgs/Path, the current estimate of all poses), ``~/odometry`` (nav_msgs/Odometry, the newest
pose with its covariance, given the frames that are held) and ``~/landmarks``
(sensor_msgs/PointCloud2), in ``world_frame``: x forward, y left, z up of the first camera. The unit
is the metre if the matcher knows the scale, else the first baseline. The orientation is that of the
camera's optical frame. Of a rig only the camera of index 0 is followed.

With ``imu_calibration`` also ``imu`` (sensor_msgs/Imu) comes in. Once the motion tells scale and
gravity, the unit is the metre and z of the map is up.

With ``publish_tf`` the map begins where odom is at the first frame, and map -> odom is broadcast
(REP-105) for as long as the scale is metric; otherwise no TF is published.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from sensor_msgs.msg import Imu as ImuMessage

from superglue_ros.back_end.bundle_adjuster import BundleAdjuster
from superglue_ros.back_end.config import BackEndConfig
from superglue_ros.back_end.imu import Imu
from superglue_ros.back_end.scene import Array, Scene, inverse
from superglue_ros.data.imu import add_message
from superglue_ros.data.imu_calibration import read_imu_calibration
from superglue_ros.data.message_reading import matches_from_message, pose_from_message
from superglue_ros.errors import ConfigError, DataError, SuperglueError
from superglue_ros.geometry.camera import Camera
from superglue_ros.mapping.time_jumps import TimeJumps
from superglue_ros.msg import Matches, RelativePose
from superglue_ros.ros import convert, sensor_messages
from superglue_ros.ros.beginning import begin
from superglue_ros.ros.ending import Ending, destroy
from superglue_ros.ros.map_to_odom import MapToOdom
from superglue_ros.ros.pair_buffer import PairBuffer
from superglue_ros.ros.parameters import descriptor
from superglue_ros.ros.qos import input_profile, output_profile
from superglue_ros.ros.signals import ignore_further_signals
from superglue_ros.settings import from_flat, leaves
from superglue_ros.types import FrameId, MatchKind

NODE_NAME = "bundle_adjuster"
_INPUT_DEPTH = 1000  # optimising takes longer than a frame; no message may be lost
_IMU_DEPTH = 5000  # of readings, likewise


class BundleAdjusterNode(Node):
    """See the module."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(NODE_NAME, **kwargs)
        settings = {
            name: self.declare_parameter(name, item.default, descriptor(item, kind)).value
            for name, item, kind in leaves(BackEndConfig)
        }
        self._world = self.declare_parameter("world_frame", "map").value
        publish_tf = self.declare_parameter("publish_tf", False).value
        odom_frame = self.declare_parameter("odom_frame", "odom").value
        tolerance_s = self.declare_parameter("tf_tolerance", 0.5).value
        self._tf = MapToOdom(self, self._world, odom_frame, tolerance_s) if publish_tf else None
        file = self.declare_parameter("imu_calibration", "").value
        self._imu_calibration = read_imu_calibration(file) if file else None
        self._config: BackEndConfig = from_flat(BackEndConfig, settings)
        self._begin()
        self._pairs = PairBuffer()
        self._camera: Camera | None = None
        self._time = TimeJumps()
        profile = output_profile()
        self._path = self.create_publisher(Path, "~/path", profile)
        self._odometry = self.create_publisher(Odometry, "~/odometry", profile)
        self._landmarks = self.create_publisher(PointCloud2, "~/landmarks", profile)
        inputs = output_profile()
        inputs.depth = _INPUT_DEPTH
        self.create_subscription(Matches, "matches", self._take_matches, inputs)
        self.create_subscription(RelativePose, "relative_pose", self._take_pose, inputs)
        self.create_subscription(
            CameraInfo, "camera_info", self._take_camera, rclpy.qos.qos_profile_sensor_data
        )
        if self._imu is not None:
            readings = input_profile(lossless=False)
            readings.depth = _IMU_DEPTH
            self._readings = self.create_subscription(ImuMessage, "imu", self._take_imu, readings)

    def _begin(self) -> None:
        """An empty map."""
        calibration = self._imu_calibration
        self._imu = None if calibration is None else Imu(calibration)
        self._back_end = BundleAdjuster(self._config, self._imu)
        self._map_in_odom: Array | None = None

    def _take_imu(self, message: ImuMessage) -> None:
        assert self._imu is not None
        readings = self._imu.readings
        self._refusing(lambda: add_message(readings, message))

    def _take_camera(self, message: CameraInfo) -> None:
        if self._camera is None:
            self._camera = self._refusing(
                lambda: sensor_messages.camera_info_to_camera(
                    message, message.width, message.height, False
                )
            )

    def _take_waiting_readings(self) -> None:
        """All that have arrived: the executor takes one for each message of the other topics."""
        while True:
            with self._readings.handle:
                taken = self._readings.handle.take_message(ImuMessage, False)
            if taken is None:
                return
            self._take_imu(taken[0])

    def _take_matches(self, message: Matches) -> None:
        if message.status != Matches.ERROR:
            self._take(self._refusing(lambda: matches_from_message(message)))

    def _take_pose(self, message: RelativePose) -> None:
        self._take(self._refusing(lambda: pose_from_message(message)))

    def _refusing(self, convert_message: Any) -> Any:
        """The converted message; None, with a warning, if it is invalid."""
        try:
            return convert_message()
        except (SuperglueError, ValueError) as error:
            self.get_logger().warning(f"message refused: {error}", throttle_duration_sec=5.0)
            return None

    def _take(self, half: Any) -> None:
        pair = None if half is None else self._pairs.add(half)
        if pair is None:
            return
        if self._camera is None:
            self.get_logger().warning(
                "no calibration on camera_info yet: pairs are dropped", throttle_duration_sec=5.0
            )
            return
        matches, relative = pair
        if matches.kind is MatchKind.STEREO:
            return  # two cameras at one instant: no motion
        if matches.query.camera_index or matches.reference.camera_index:
            return  # its pose on the rig is unknown
        if self._time.passed(matches.query.stamp_ns):
            self.get_logger().info("time jumped backwards: the map starts over")
            self._begin()
        if self._imu is not None:
            self._take_waiting_readings()
        if self._back_end.add(matches, relative, self._camera):
            adjustment = self._back_end.optimise(self._camera, matches.query)
            covariance = None if adjustment is None else adjustment.covariance
            self._publish(matches.query, covariance)

    def _publish(self, newest: FrameId, covariance: Array | None) -> None:
        scene = self._back_end.scene
        self._broadcast(newest, scene)
        # From the world, a first camera: to where odom was, else level.
        to_map = scene.level if self._map_in_odom is None else self._map_in_odom
        path = Path()
        path.header = convert.header_of(newest)
        path.header.frame_id = self._world
        for frame, pose in sorted(scene.trajectory.items(), key=lambda entry: entry[0].stamp_ns):
            stamped = PoseStamped()
            stamped.header = convert.header_of(frame)
            stamped.header.frame_id = self._world
            stamped.pose = _pose_message(to_map @ pose)
            path.poses.append(stamped)
        self._path.publish(path)
        odometry = Odometry(header=path.header, child_frame_id=newest.frame_id)
        odometry.pose.pose = _pose_message(to_map @ scene.poses[newest])
        if covariance is not None:
            turn = np.kron(np.eye(2), to_map[:3, :3])
            odometry.pose.covariance = (turn @ covariance @ turn.T).ravel()
        self._odometry.publish(odometry)
        points = scene.points(scene.landmarks) @ to_map[:3, :3].T + to_map[:3, 3]
        self._landmarks.publish(_cloud(path.header, points.astype(np.float32)))

    def _broadcast(self, newest: FrameId, scene: Scene) -> None:
        """The transform map -> odom; the first one says where the map begins."""
        if self._tf is None:
            return
        if not scene.metric:
            self.get_logger().warning(
                "without metric scale no transform is published: give the matcher depth or stereo, "
                "or this node an IMU",
                throttle_duration_sec=5.0,
            )
            return
        in_odom = self._tf.camera_in_odom(newest)
        if in_odom is None:
            return
        if self._map_in_odom is None:
            self._map_in_odom = in_odom @ inverse(scene.poses[newest])
        self._tf.broadcast(newest, self._map_in_odom @ scene.poses[newest], in_odom)


def _pose_message(pose: Array) -> Any:
    return convert.pose_of(pose[:3, :3], pose[:3, 3])


def _cloud(header: Any, points: np.ndarray) -> PointCloud2:
    """(N, 3) float32 points as an unordered cloud."""
    cloud = PointCloud2(header=header, height=1, width=len(points), is_dense=True)
    cloud.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    cloud.point_step, cloud.row_step = 12, 12 * len(points)
    cloud.data = points.astype("<f4").tobytes()
    return cloud


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM (exit code 0); 1 where its parameters are wrong."""
    ending = Ending()
    begin(args)
    try:
        node = BundleAdjusterNode()
        try:
            return ending.spin(node)
        finally:
            destroy(node)
    except (ConfigError, DataError) as error:
        print(f"{NODE_NAME}: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.shutdown()
        ignore_further_signals()


if __name__ == "__main__":
    sys.exit(main())
