"""The transform map -> odom of REP-105, from where the back-end sees the camera.

Odometry (wheels, an IMU) publishes odom -> base; it is smooth and drifts. A localiser corrects it
by the transform from map to odom, and never publishes base's pose itself: a frame has one parent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.time import Time as ClockTime

from superglue_ros.back_end.scene import Array, inverse
from superglue_ros.data.trajectories import pose_from_quaternion
from superglue_ros.errors import ConfigError
from superglue_ros.ros import convert
from superglue_ros.types import FrameId


class MapToOdom:
    """Broadcasts map -> odom; needs the camera's transform in odom at the stamps of its frames.

    ``tolerance_s`` is how far ahead the transform is stamped, so that it can be used until the next
    one comes. Raises :class:`ConfigError` without tf2_ros.
    """

    def __init__(self, node: Node, map_frame: str, odom_frame: str, tolerance_s: float) -> None:
        try:
            from tf2_ros import (
                Buffer,
                TransformBroadcaster,
                TransformException,
                TransformListener,
            )
        except ImportError as error:
            raise ConfigError(
                f"publish_tf needs tf2_ros (apt: ros-*-tf2-ros-py): {error}"
            ) from error
        self._node = node
        self._frames = map_frame, odom_frame
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._unknown = TransformException
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node)
        self._broadcaster = TransformBroadcaster(node)

    def camera_in_odom(self, frame: FrameId) -> Array | None:
        """``T_odom_camera`` (4, 4) at the frame's stamp; None, with a warning, if it is unknown."""
        at = ClockTime(nanoseconds=frame.stamp_ns)
        try:
            found: Any = self._buffer.lookup_transform(self._frames[1], frame.frame_id, at)
        except self._unknown as error:
            self._node.get_logger().warning(
                f"no transform {self._frames[1]} -> {frame.frame_id}, so none {self._frames[0]} -> "
                f"{self._frames[1]}: {error}",
                throttle_duration_sec=5.0,
            )
            return None
        t, q = found.transform.translation, found.transform.rotation
        return pose_from_quaternion(np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w]))

    def broadcast(self, frame: FrameId, T_map_camera: Array, T_odom_camera: Array) -> None:
        """Say where odom is in the map, given the camera in both."""
        T_map_odom = T_map_camera @ inverse(T_odom_camera)
        message = TransformStamped()
        seconds, nanoseconds = divmod(frame.stamp_ns + self._tolerance_ns, 1_000_000_000)
        message.header.stamp = Time(sec=seconds, nanosec=nanoseconds)
        message.header.frame_id, message.child_frame_id = self._frames
        pose = convert.pose_of(T_map_odom[:3, :3], T_map_odom[:3, 3])
        t = message.transform.translation
        t.x, t.y, t.z = pose.position.x, pose.position.y, pose.position.z
        message.transform.rotation = pose.orientation
        self._broadcaster.sendTransform(message)
