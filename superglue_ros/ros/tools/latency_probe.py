"""Measures the latency of the matcher node: publishes an image, waits for its matches.

    python -m superglue_ros.ros.tools.latency_probe --frames 20

One frame of the built-in sequence at a time, with its calibration. For every answered frame one
line of JSON goes to the standard output: ``latency`` from publishing the image to receiving its
matches and ``processing``, the networks' and geometry's share of it as the node reports it [s].
"""

from __future__ import annotations

import argparse
import array
import json
import sys
import time
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image

from superglue_ros.data.image import to_grey
from superglue_ros.data.sequences.base import SequenceItem
from superglue_ros.msg import MatcherStatus, Matches
from superglue_ros.ros.qos import output_profile
from superglue_ros.synthetic.demo_room import RoomSequence


class LatencyProbe(Node):
    """Acts as camera driver and back-end."""

    def __init__(self) -> None:
        super().__init__("latency_probe")
        profile = output_profile()
        self._image = self.create_publisher(Image, "image", profile)
        self._camera_info = self.create_publisher(CameraInfo, "camera_info", profile)
        self.create_subscription(Matches, "matches", self._hear_matches, profile)
        self.create_subscription(MatcherStatus, "matcher/status", self._hear_status, profile)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._matched = 0.0
        self._status: MatcherStatus | None = None

    def wait_for_node(self, patience: float) -> bool:
        """Wait until the node has subscribed."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)
            if self._image.get_subscription_count() and self._camera_info.get_subscription_count():
                return True
        return False

    def time_frame(self, item: SequenceItem, patience: float) -> dict[str, float] | None:
        """Publish one frame; None if it has no reference to be matched with, or on no answer."""
        image, camera_info = _messages(item)
        self._matched, self._status = 0.0, None
        self._camera_info.publish(camera_info)
        published = time.perf_counter()
        self._image.publish(image)
        end = time.monotonic() + patience
        while self._status is None and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)
        if self._status is None or not self._matched:
            return None
        status = self._status
        processing = status.extract_seconds + status.match_seconds + status.geometry_seconds
        return {"latency": self._matched - published, "processing": processing}

    def _hear_matches(self, _: Matches) -> None:
        self._matched = time.perf_counter()

    def _hear_status(self, status: MatcherStatus) -> None:
        self._status = status


def _messages(item: SequenceItem) -> tuple[Any, Any]:
    grey = to_grey(item.image)
    height, width = grey.shape
    image = Image(height=height, width=width, encoding="mono8", step=width)
    image.data = array.array("B", grey.tobytes())
    camera_info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    assert item.camera is not None
    camera_info.k = np.asarray(item.camera.matrix, np.float64).ravel().tolist()
    seconds, nanoseconds = divmod(item.stamp_ns, 10**9)
    for message in (image, camera_info):
        message.header.stamp = Time(sec=seconds, nanosec=nanoseconds)
        message.header.frame_id = "camera_optical"
    return image, camera_info


def main(args: list[str] | None = None) -> int:
    """Time ``--frames`` frames; exit code 1 where the node does not answer."""
    given = sys.argv if args is None else ["latency_probe", *args]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--patience", type=float, default=120.0, help="longest wait [s]")
    options = parser.parse_args(remove_ros_args(given)[1:])
    rclpy.init(args=given)
    try:
        probe = LatencyProbe()
        if not probe.wait_for_node(options.patience):
            print("latency_probe: no node subscribed to image and camera_info", file=sys.stderr)
            return 1
        room = RoomSequence()
        for index in range(min(options.frames, len(room))):
            timed = probe.time_frame(room[index], options.patience)
            if timed is not None:
                print(json.dumps(timed), flush=True)
        probe.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
