"""Every message that the node, its tools or the offline commands take, and its conversion."""

from __future__ import annotations

import array
import contextlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from matcher_process import camera_info, image_message, keypoints_message, stamp
from nav_msgs.msg import Odometry
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image, Imu
from targets import MessageTarget

from superglue_ros.data import bag_sequences
from superglue_ros.data.bags import typestore
from superglue_ros.data.imu import ImuReadings, add_message
from superglue_ros.data.message_reading import (
    camera_from_message,
    frame_id_from_message,
    matches_from_message,
    pose_from_message,
)
from superglue_ros.errors import CalibrationError
from superglue_ros.msg import Features, Matches, RelativePose
from superglue_ros.ros import convert, sensor_messages
from superglue_ros.ros.node_config import LimitsConfig

WIDTH, HEIGHT = 32, 24
LIMIT = LimitsConfig().max_pixels
COUNT = 30  # keypoints, matches
DIM = 8  # values of a descriptor

_BYTES = {
    "mono8": 1, "8UC1": 1, "bayer_rggb8": 1, "bayer_gbrg8": 1,
    "mono16": 2, "16UC1": 2, "bayer_bggr16": 2, "yuv422": 2, "yuv422_yuy2": 2, "uyvy": 2,
    "rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC4": 4,
    "rgb16": 6, "bgr16": 6, "rgba16": 8, "bgra16": 8,
}  # fmt: skip
_NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 8), np.uint8)
ENDINGS = (".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm", ".jp2")


def encoded(ending: str) -> bytes:
    """A small colour picture in a format."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return cv2.imencode(ending, picture)[1].tobytes()


def _raw(encoding: str, size: int, padding: int = 0) -> Callable[[], Image]:
    rows = np.ascontiguousarray(_NOISE[..., :size]).reshape(HEIGHT, WIDTH * size)
    rows = np.pad(rows, ((0, 0), (0, padding)))

    def make() -> Image:
        message = image_message(rows, 1.0, encoding)
        message.width = WIDTH
        return message

    return make


def _compressed(ending: str) -> Callable[[], CompressedImage]:
    data = encoded(ending)

    def make() -> CompressedImage:
        message = CompressedImage(format=ending[1:], data=array.array("B", data))
        message.header.stamp = stamp(1.0)
        return message

    return make


def _depth(encoding: str, dtype: type) -> Callable[[], Image]:
    values = np.full((HEIGHT, WIDTH), 1500, dtype)
    return lambda: image_message(values, 1.0, encoding)


def _info(model: str, count: int, roi: bool = False) -> Callable[[], Any]:
    def make() -> Any:
        message = camera_info(1.0, WIDTH, HEIGHT)
        message.distortion_model, message.d = model, [0.01] * count
        if roi:
            message.width, message.height, message.binning_x, message.binning_y = 96, 80, 2, 2
            message.roi.x_offset, message.roi.y_offset = 8, 4
            message.roi.width, message.roi.height = 2 * WIDTH, 2 * HEIGHT
        return message

    return make


def keypoints() -> Features:
    """Keypoints without descriptors."""
    message = keypoints_message(_POINTS, 1.0)
    message.width, message.height = WIDTH, HEIGHT
    return message


_POINTS = np.random.default_rng(1).uniform((0, 0), (WIDTH - 1, HEIGHT - 1), (COUNT, 2))
_DESCRIPTORS = np.random.default_rng(2).random((COUNT, DIM), np.float32)


def described(half: bool = False) -> Features:
    """Another robot's features: descriptors, calibration, depth, tracks."""
    message = keypoints()
    message.frame.robot, message.frame.id, message.frame.stamp = "other", 7, stamp(1.0)
    message.detector, message.descriptor_dim = "sift-root", DIM
    message.descriptor_type = Features.F16 if half else Features.F32
    message.descriptors = _DESCRIPTORS.astype("<f2" if half else "<f4").tobytes()
    message.k = camera_info(1.0, WIDTH, HEIGHT).k
    message.d, message.distortion_model = [0.0] * 5, "plumb_bob"
    ones = array.array("f", [1.0] * COUNT)
    message.scores, message.sigma_px, message.depth, message.depth_sigma = ones, ones, ones, ones
    message.track_ids = array.array("q", range(COUNT))
    return message


def matches() -> Matches:
    """Matches of two frames, with inliers, tracks and merged landmarks."""
    message = Matches(kind=Matches.LOOP, status=Matches.OK)
    message.header.stamp = message.query.stamp = stamp(2.0)
    message.reference.stamp, message.reference.id, message.query.id = stamp(1.0), 1, 2
    message.index_ref = message.index_query = array.array("i", range(COUNT))
    for name in ("u_ref", "v_ref", "u_query", "v_query", "scores", "sigma_px"):
        setattr(message, name, array.array("f", [0.5] * COUNT))
    message.inlier = array.array("B", [1] * COUNT)
    message.track_ids = array.array("q", range(COUNT))
    message.merged_from, message.merged_into = array.array("q", [8, 9]), array.array("q", [1, 2])
    return message


def relative_pose() -> RelativePose:
    """A valid pose with covariance."""
    message = RelativePose(status=RelativePose.VALID, method=RelativePose.ESSENTIAL)
    message.reference.id, message.query.id = 1, 2
    message.reference.stamp, message.query.stamp = stamp(1.0), stamp(2.0)
    message.num_matches, message.num_inliers, message.inlier_threshold_px = 40, 30, 1.0
    message.pose.pose.position.x = 1.0
    message.pose.covariance = np.eye(6).ravel()
    return message


def imu() -> Imu:
    """A reading at rest."""
    message = Imu()
    message.header.stamp = stamp(1.0)
    message.linear_acceleration.z = 9.81
    return message


def odometry() -> Odometry:
    """Ground truth of a bag."""
    message = Odometry()
    message.header.stamp = stamp(1.0)
    message.pose.pose.orientation.w = 1.0
    return message


def from_bag(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``read`` on the message as a bag's reader gives it."""

    def deserialised(message: Any) -> Any:
        kind = type(message)
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        return read(typestore().deserialize_cdr(serialize_message(message), name))

    return deserialised


_RAW = [_raw(*item) for item in _BYTES.items()]
_RAW += [_raw(encoding, _BYTES[encoding], 6) for encoding in ("mono8", "bgr8", "mono16", "uyvy")]
_COMPRESSED = [_compressed(ending) for ending in ENDINGS]
_DEPTHS = [_depth("16UC1", np.uint16), _depth("mono16", np.uint16), _depth("32FC1", np.float32)]
_INFOS = [
    _info("plumb_bob", 5), _info("rational_polynomial", 8), _info("equidistant", 4),
    _info("plumb_bob", 0), _info("plumb_bob", 5, roi=True),
]  # fmt: skip


def message_targets() -> list[MessageTarget]:
    """All of them; the node's own inputs have the largest shares."""
    features = [described, lambda: described(half=True)]
    return [
        MessageTarget("image", _RAW, lambda m: sensor_messages.image_to_grey(m, LIMIT), share=4),
        MessageTarget(
            "compressed image",
            _COMPRESSED,
            lambda m: sensor_messages.compressed_to_grey(m, LIMIT),
            share=4,
        ),
        MessageTarget(
            "depth", _DEPTHS, lambda m: sensor_messages.depth_to_metres(m, WIDTH, HEIGHT), share=2
        ),
        MessageTarget("camera_info", _INFOS, _read_camera_info, share=3),
        MessageTarget(
            "keypoints",
            [keypoints, *features],
            lambda m: convert.features_from_message(m, WIDTH, HEIGHT),
            share=3,
        ),
        MessageTarget("peer_features", features, _read_peer, share=3),
        MessageTarget("matches", [matches], matches_from_message, share=2),
        MessageTarget("relative_pose", [relative_pose], pose_from_message, share=2),
        MessageTarget("imu", [imu], lambda m: add_message(ImuReadings(), m)),
        MessageTarget("image in a bag", _RAW, from_bag(bag_sequences.image_of)),
        MessageTarget("grey image in a bag", _RAW + _COMPRESSED, from_bag(bag_sequences.grey_of)),
        MessageTarget("compressed in a bag", _COMPRESSED, from_bag(bag_sequences.image_of)),
        MessageTarget("depth in a bag", _DEPTHS, from_bag(bag_sequences.depth_of)),
        MessageTarget("calibration in a bag", _INFOS, from_bag(camera_from_message)),
        MessageTarget("odometry in a bag", [odometry], from_bag(_read_odometry)),
    ]


def _read_camera_info(message: Any) -> None:
    with contextlib.suppress(CalibrationError):
        sensor_messages.camera_info_to_camera(message, WIDTH, HEIGHT, rectified=True)
    sensor_messages.camera_info_to_camera(message, WIDTH, HEIGHT, rectified=False)


def _read_peer(message: Any) -> None:
    frame_id_from_message(message.frame)
    convert.keyframe_from_message(message)


def _read_odometry(message: Any) -> None:
    bag_sequences.stamp_of(message)
    bag_sequences.transform_from_message(message.pose.pose)
