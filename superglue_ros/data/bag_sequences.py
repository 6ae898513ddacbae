"""Image sequences to bags, and bags as image sequences.

Poses are of the camera's optical frame in a fixed world, in any message type.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image import ImageConversionError, message_to_cvimage
from rosbags.image import ImageError as MessageError

from superglue_ros.data.bags import BagReader, BagWriter, typestore
from superglue_ros.data.decoding import MAX_PIXELS, declared_size, decode
from superglue_ros.data.image_layout import depth_metres, pixel_rows
from superglue_ros.data.imu import ImuReadings, readings_of_messages
from superglue_ros.data.message_reading import (
    camera_from_message,
    stamp_to_ns,
    transform_from_message,
)
from superglue_ros.data.sequences.base import ImageSequence, SequenceItem
from superglue_ros.data.trajectories import Trajectory, quaternion_of
from superglue_ros.errors import DataError, ImageError
from superglue_ros.geometry.camera import Camera

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
IMU = "sensor_msgs/msg/Imu"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSES = {
    "geometry_msgs/msg/PoseStamped": lambda m: m.pose,
    "geometry_msgs/msg/PoseWithCovarianceStamped": lambda m: m.pose.pose,
    "nav_msgs/msg/Odometry": lambda m: m.pose.pose,
}
CAMERA_FRAME, WORLD_FRAME = "camera_optical_frame", "world"
_MAX_DEPTH_DELAY_NS = 20_000_000
_MAX_WAITING = 30  # images kept until their depth arrives


@dataclass(frozen=True)
class SequenceTopics:
    """Names of a sequence's topics; "" = there is none."""

    image: str = "/camera/image_raw"
    camera_info: str = "/camera/camera_info"
    depth: str = "/camera/depth/image_raw"
    ground_truth: str = "/ground_truth/pose"


def write_bag(
    sequence: ImageSequence,
    path: str | Path,
    topics: SequenceTopics = SequenceTopics(),
    storage: str = "mcap",
    jpeg_quality: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a sequence as a rosbag2 directory; the time of recording is the image's.

    Images are raw, or JPEG with ``jpeg_quality`` (1 to 100) as ``CompressedImage`` on the topic
    ``<image>/compressed``. Depth is 16UC1 in millimetres. ``progress`` is called with the number of
    frames written.
    """
    image_topic = f"{topics.image}/compressed" if jpeg_quality else topics.image
    with BagWriter(path, storage, overwrite) as bag:
        bag.add_topic(image_topic, COMPRESSED if jpeg_quality else IMAGE)
        for name, kind in (
            (topics.camera_info, CAMERA_INFO),
            (topics.depth, IMAGE),
            (topics.ground_truth, "geometry_msgs/msg/PoseStamped"),
        ):
            if name:
                bag.add_topic(name, kind)
        for count, item in enumerate(sequence, start=1):
            stamp = item.stamp_ns
            if topics.ground_truth and item.T_world_camera is not None:
                pose = _pose_message(stamp, item.T_world_camera)
                bag.write(topics.ground_truth, stamp, pose)
            if topics.camera_info and item.camera is not None:
                bag.write(topics.camera_info, stamp, _camera_info(stamp, item.camera))
            if topics.depth and item.depth is not None:
                millimetres = np.nan_to_num(np.rint(item.depth * 1000.0))
                millimetres[millimetres > 65535] = 0  # farther than the encoding reaches: unknown
                depth = _image(stamp, millimetres.astype(np.uint16), "16UC1")
                bag.write(topics.depth, stamp, depth)
            if jpeg_quality:
                bag.write(image_topic, stamp, _jpeg(stamp, item.image, jpeg_quality))
            else:
                encoding = "mono8" if item.image.ndim == 2 else "bgr8"
                bag.write(image_topic, stamp, _image(stamp, item.image, encoding))
            if progress:
                progress(count)


class BagSequence:
    """A bag as a sequence of frames.

    ``image`` names the image topic, raw or compressed; "" selects the only one. Other topics with
    empty names are selected likewise, or not used. ``grey`` gives grey images, converted as the
    node does it. Raises :class:`DataError` that lists the bag's topics where one is missing or
    ambiguous.
    """

    def __init__(
        self,
        path: str | Path,
        image: str = "",
        camera_info: str = "",
        depth: str = "",
        ground_truth: str = "",
        grey: bool = False,
    ) -> None:
        self.path = Path(path)
        self._grey = grey
        self.name = self.path.name
        with BagReader(self.path) as bag:
            self.topics = resolve_topics(bag, image, camera_info, depth, ground_truth)
            self._length = bag.topics[self.topics.image].count
            self.camera = _first_camera(bag, self.topics.camera_info)
            self.trajectory = read_poses(bag, self.topics.ground_truth)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[SequenceItem]:
        """Frames in the order of recording; depth is the one within 20 ms, or None."""
        names = [name for name in (self.topics.image, self.topics.depth) if name]
        waiting: deque[tuple[int, NDArray[np.uint8]]] = deque()
        depths: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=_MAX_WAITING)
        with BagReader(self.path) as bag:
            for name, _, message in bag.messages(names):
                stamp_ns = stamp_of(message)
                if name == self.topics.image:
                    waiting.append((stamp_ns, (grey_of if self._grey else image_of)(message)))
                else:
                    depths.append((stamp_ns, depth_of(message)))
                while waiting and self._is_due(waiting, depths):
                    yield self._item(*waiting.popleft(), depths)
        for stamp_ns, image in waiting:
            yield self._item(stamp_ns, image, depths)

    def images_at(self, stamps_ns: Collection[int]) -> dict[int, NDArray[np.uint8]]:
        """The images with these stamps; no others are decoded."""
        found = {}
        with BagReader(self.path) as bag:
            for _, _, message in bag.messages([self.topics.image]):
                if (stamp_ns := stamp_of(message)) in stamps_ns:
                    found[stamp_ns] = image_of(message)
        return found

    def _is_due(self, waiting: deque[Any], depths: deque[Any]) -> bool:
        """Whether no later depth can match the oldest waiting image better."""
        if not self.topics.depth or len(waiting) > _MAX_WAITING:
            return True
        return bool(depths) and depths[-1][0] >= waiting[0][0]

    def _item(self, stamp_ns: int, image: NDArray[np.uint8], depths: deque[Any]) -> SequenceItem:
        depth = None
        if depths:
            nearest = min(depths, key=lambda entry: abs(entry[0] - stamp_ns))
            if abs(nearest[0] - stamp_ns) <= _MAX_DEPTH_DELAY_NS:
                depth = nearest[1]
        pose = None if self.trajectory is None else self.trajectory.at(stamp_ns)
        return SequenceItem(
            stamp_ns=stamp_ns, image=image, camera=self.camera, depth=depth, T_world_camera=pose
        )


def resolve_topics(
    bag: BagReader, image: str = "", camera_info: str = "", depth: str = "", ground_truth: str = ""
) -> SequenceTopics:
    """The topics to read: those named, or the only ones that fit; raises :class:`DataError`."""
    if image:
        bag.require(image, (IMAGE, COMPRESSED))
    else:
        image = _only(bag, (IMAGE, COMPRESSED), "image")
    if camera_info:
        bag.require(camera_info, (CAMERA_INFO,))
    else:
        sibling = image.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        found = [t.name for t in bag.topics.values() if t.type == CAMERA_INFO and t.count]
        camera_info = sibling if sibling in found else (found[0] if len(found) == 1 else "")
    if depth:
        bag.require(depth, (IMAGE,))
    if ground_truth:
        bag.require(ground_truth, tuple(POSES))
    elif SequenceTopics.ground_truth in bag.topics:
        ground_truth = SequenceTopics.ground_truth
    return SequenceTopics(image, camera_info, depth, ground_truth)


def read_poses(bag: BagReader, name: str) -> Trajectory | None:
    """All poses of a topic by their stamps; None without a topic or without messages."""
    if not name:
        return None
    pick = POSES[bag.require(name, tuple(POSES)).type]
    poses = {}
    for _, _, message in bag.messages([name]):
        poses[stamp_of(message)] = transform_from_message(pick(message))
    if not poses:
        return None
    stamps = sorted(poses)
    return Trajectory(np.array(stamps, np.int64), np.array([poses[stamp] for stamp in stamps]))


def read_imu(bag: BagReader, name: str) -> ImuReadings:
    """All readings of a topic of ``sensor_msgs/Imu``; raises :class:`DataError` without any."""
    bag.require(name, (IMU,))
    messages = (message for _, _, message in bag.messages([name]))
    return readings_of_messages(messages, f"topic {name!r} of bag {bag.path}")


def stamp_of(message: Any) -> int:
    """Header stamp in nanoseconds."""
    return stamp_to_ns(message.header.stamp)


def image_of(message: Any) -> NDArray[np.uint8]:
    """A raw or compressed image message as grey (H, W) or BGR (H, W, 3) uint8."""
    grey = getattr(message, "encoding", "") in ("mono8", "8UC1", "mono16")
    return _decoded(message, "mono8" if grey else "bgr8")


def grey_of(message: Any) -> NDArray[np.uint8]:
    """A raw or compressed image message as grey (H, W) uint8, bit-identical to the node's."""
    if hasattr(message, "encoding"):
        return _decoded(message, "mono8")
    # A JPEG's luminance differs by rounding from that of its decoded colours.
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return np.asarray(decode(message.data, flags, MAX_PIXELS), np.uint8)
    except ImageError as error:
        raise DataError(f"an image of the bag cannot be decoded: {error}") from error


def _decoded(message: Any, encoding: str) -> NDArray[np.uint8]:
    try:
        if hasattr(message, "encoding"):
            message = _without_padding(message)
        elif math.prod(declared_size(message.data)) > MAX_PIXELS:
            raise ImageError(f"it has more than {MAX_PIXELS} pixels")
        image = message_to_cvimage(message, encoding)
    except (
        ImageError,
        MessageError,
        ImageConversionError,
        cv2.error,
        ValueError,
        AssertionError,
    ) as error:
        # rosbags-image asserts that OpenCV could decode a compressed image.
        raise DataError(f"an image of the bag cannot be decoded: {error!r}") from error
    return np.asarray(image, np.uint8)


def depth_of(message: Any) -> NDArray[np.float32]:
    """A depth message, 16UC1 in millimetres or 32FC1 in metres, as (H, W) float32 metres."""
    try:
        return depth_metres(message)
    except ImageError as error:
        raise DataError(f"a depth image of the bag cannot be read: {error}") from error


def _without_padding(message: Any) -> Any:
    """The message with rows that follow each other directly, as rosbags-image reads them."""
    rows = pixel_rows(message, MAX_PIXELS)
    if message.step == rows.shape[1]:
        return message
    values = {name: getattr(message, name) for name in ("header", "height", "width", "encoding")}
    return type(message)(
        **values,
        is_bigendian=message.is_bigendian,
        step=rows.shape[1],
        data=np.ascontiguousarray(rows).ravel(),
    )


def _only(bag: BagReader, types: tuple[str, ...], what: str) -> str:
    found = [
        t.name for t in bag.topics.values() if t.type in types and t.count and "depth" not in t.name
    ]
    raw = [name for name in found if not name.endswith("/compressed")]
    for candidates in (found, raw):
        if len(candidates) == 1:
            return candidates[0]
    problem = f"has {len(found)} {what} topics" if found else f"has no {what} topic"
    raise DataError(f"bag {bag.path} {problem}: say which one. Its topics:\n{bag.describe()}")


def _first_camera(bag: BagReader, name: str) -> Camera | None:
    if not name:
        return None
    for _, _, message in bag.messages([name]):
        return camera_from_message(message)
    return None


def _type(name: str) -> Any:
    return typestore().types[name]


def _header(stamp_ns: int, frame_id: str) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    stamp = _type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
    return _type("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)


def _image(stamp_ns: int, image: NDArray, encoding: str) -> Any:
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image).view(np.uint8).ravel()
    return _type(IMAGE)(
        header=_header(stamp_ns, CAMERA_FRAME),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=data,
    )


def _jpeg(stamp_ns: int, image: NDArray[np.uint8], quality: int) -> Any:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"an image of shape {image.shape} cannot be written as JPEG")
    return _type(COMPRESSED)(
        header=_header(stamp_ns, CAMERA_FRAME), format="jpeg", data=np.asarray(data).ravel()
    )


def _camera_info(stamp_ns: int, camera: Camera) -> Any:
    size = {"rational_polynomial": 8, "equidistant": 4}.get(camera.model, 5)
    distortion = np.zeros(size)
    distortion[: camera.distortion.size] = camera.distortion
    return _type(CAMERA_INFO)(
        header=_header(stamp_ns, CAMERA_FRAME),
        height=camera.height,
        width=camera.width,
        distortion_model=camera.model,
        d=distortion,
        k=camera.matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([camera.matrix, np.zeros(3)]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=_type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def _pose_message(stamp_ns: int, T_world_camera: NDArray[np.float64]) -> Any:
    x, y, z = (float(value) for value in T_world_camera[:3, 3])
    qx, qy, qz, qw = (float(value) for value in quaternion_of(T_world_camera[:3, :3]))
    pose = _type("geometry_msgs/msg/Pose")(
        position=_type("geometry_msgs/msg/Point")(x=x, y=y, z=z),
        orientation=_type("geometry_msgs/msg/Quaternion")(x=qx, y=qy, z=qz, w=qw),
    )
    return _type("geometry_msgs/msg/PoseStamped")(header=_header(stamp_ns, WORLD_FRAME), pose=pose)
