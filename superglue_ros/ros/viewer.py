"""The viewer as a node: what matcher and back-end publish, streamed to Rerun.

In: ``image`` or ``image/compressed`` (parameter ``image_transport``), ``camera_info``, ``matches``,
``relative_pose``, ``relocalised_pose``, ``matcher/status``, and of the example back-end, where it
runs, ``bundle_adjuster/path`` and ``bundle_adjuster/landmarks``. Nothing out: a window opens, or
``save`` names a file, or ``connect`` the URL of a viewer that runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from superglue_ros.data.decoding import MAX_PIXELS
from superglue_ros.data.message_reading import (
    matches_from_message,
    pose_from_message,
    stamp_to_ns,
    transform_from_message,
)
from superglue_ros.drawing.live_view import STAGES, Destination, LiveView
from superglue_ros.errors import ConfigError, DataError, SuperglueError
from superglue_ros.geometry.camera import Camera
from superglue_ros.msg import MatcherStatus, Matches, RelativePose
from superglue_ros.ros import sensor_messages
from superglue_ros.ros.beginning import begin
from superglue_ros.ros.ending import Ending, destroy
from superglue_ros.ros.pair_buffer import PairBuffer
from superglue_ros.ros.qos import input_profile, output_profile
from superglue_ros.ros.signals import ignore_further_signals

NODE_NAME = "viewer"
TRANSPORTS: dict[str, tuple[str, type, Callable[[Any, int], Any]]] = {
    "raw": ("image", Image, sensor_messages.image_to_grey),
    "compressed": ("image/compressed", CompressedImage, sensor_messages.compressed_to_grey),
}


class ViewerNode(Node):
    """See the module. Raises :class:`ConfigError` and :class:`DataError`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(NODE_NAME, **kwargs)
        file = self.declare_parameter("save", "").value
        url = self.declare_parameter("connect", "").value
        transport = self.declare_parameter("image_transport", "raw").value
        if transport not in TRANSPORTS:
            raise ConfigError(f"image_transport is {transport!r}: give {' or '.join(TRANSPORTS)}")
        self.view = LiveView(Destination(FilePath(file) if file else None, url), z_up=True)
        self._pairs = PairBuffer()
        self._camera: Camera | None = None
        name, kind, self._to_grey = TRANSPORTS[transport]
        sensor = input_profile(lossless=False)
        self._subscribe(kind, name, self._show_image, sensor)
        self._subscribe(CameraInfo, "camera_info", self._take_camera, sensor)
        self._subscribe(Matches, "matches", self._take_matches)
        self._subscribe(RelativePose, "relative_pose", self._take_pose)
        self._subscribe(PoseWithCovarianceStamped, "relocalised_pose", self._show_relocalised)
        self._subscribe(MatcherStatus, "matcher/status", self._show_status)
        self._subscribe(Path, "bundle_adjuster/path", self._show_path)
        self._subscribe(PointCloud2, "bundle_adjuster/landmarks", self._show_landmarks)

    def _subscribe(
        self, kind: type, name: str, show: Callable[[Any], None], profile: Any = None
    ) -> None:
        """What cannot be shown is warned of, and the next message taken."""

        def take(message: Any) -> None:
            try:
                show(message)
            except (SuperglueError, ValueError) as error:
                self.get_logger().warning(
                    f"a message on {name} is not shown: {error}", throttle_duration_sec=5.0
                )

        self.create_subscription(kind, name, take, profile or output_profile())

    def _show_image(self, message: Any) -> None:
        grey = self._to_grey(message, MAX_PIXELS)
        self.view.add_image(stamp_to_ns(message.header.stamp), grey, self._camera)

    def _take_camera(self, message: CameraInfo) -> None:
        self._camera = sensor_messages.camera_info_to_camera(
            message, message.width, message.height, False
        )

    def _take_matches(self, message: Matches) -> None:
        if message.status != Matches.ERROR:
            self._show_pair(matches_from_message(message))

    def _take_pose(self, message: RelativePose) -> None:
        self._show_pair(pose_from_message(message))

    def _show_pair(self, half: Any) -> None:
        pair = self._pairs.add(half)
        if pair is not None:
            self.view.add_pair(*pair)

    def _show_relocalised(self, message: PoseWithCovarianceStamped) -> None:
        pose = transform_from_message(message.pose.pose)
        self.view.add_relocalised(stamp_to_ns(message.header.stamp), pose)

    def _show_status(self, message: MatcherStatus) -> None:
        seconds = [getattr(message, f"{stage}_seconds") for stage in STAGES]
        self.view.add_seconds(stamp_to_ns(message.header.stamp), seconds)

    def _show_path(self, message: Path) -> None:
        stamps = [stamp_to_ns(one.header.stamp) for one in message.poses]
        poses = np.array([transform_from_message(one.pose) for one in message.poses])
        self.view.add_path(stamps, poses)

    def _show_landmarks(self, message: PointCloud2) -> None:
        columns = message.point_step // 4
        points = np.frombuffer(message.data, "<f4").reshape(message.width, columns)[:, :3]
        self.view.add_landmarks(stamp_to_ns(message.header.stamp), points)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM (exit code 0); 1 where its parameters are wrong."""
    ending = Ending()
    begin(args)
    try:
        node = ViewerNode()
        try:
            with node.view:
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
