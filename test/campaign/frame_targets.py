"""Whole frames through the pipeline, as the node's worker does it, and good frames after them.

A frame may be refused; the good ones that follow must be answered. Conversion alone does not show
what a plausible nonsense does to the map.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from file_targets import forge_map, made
from matcher_process import (
    HEIGHT,
    WIDTH,
    camera_info,
    compressed_message,
    image_message,
    keypoints_message,
    picture,
)
from mutation import mutate_message
from rclpy.serialization import deserialize_message, serialize_message
from targets import Files, FileTarget, Target

from superglue_ros.config import Config
from superglue_ros.data.message_reading import frame_id_from_message
from superglue_ros.errors import SuperglueError
from superglue_ros.pipeline import FrameResult, Pipeline
from superglue_ros.rig import Rig
from superglue_ros.ros import convert
from superglue_ros.ros.announcer import Announcer
from superglue_ros.ros.frames import FrameMaker, FrameNumbers
from superglue_ros.ros.inputs import Bundle
from superglue_ros.ros.parameters import Settings, settings_from_flat
from superglue_ros.settings import from_flat
from superglue_ros.types import MatchStatus

PIPELINE = {"device": "cpu", "front_end.name": "sift", "front_end.max_keypoints": 80,
            "matcher.name": "mutual", "geometry.max_iterations": 100}  # fmt: skip
GOOD_FRAMES = 4  # one of which must be matched: a wrong stamp may cost some
Messages = Mapping[str, Any]


class Lost(AssertionError):
    """A good frame after the bad one was not matched."""


class Node:
    """The part of the node that takes one camera's frames, without ROS's transport."""

    def __init__(self, stereo: bool = False) -> None:
        self.settings = _settings(stereo)
        self.pipeline = Pipeline(self.settings.core, _rig())
        announcer = Announcer(logging.getLogger("campaign"))
        self._maker = FrameMaker(self.settings, FrameNumbers(), announcer, masks=[None])

    def take(self, messages: Messages) -> Any:
        """Convert and process one frame. Raises :class:`SuperglueError`."""
        bundle = Bundle(
            camera_index=0, arrived=time.monotonic(), keypoints=messages.get("keypoints"),
            depth=messages.get("depth"), image=messages["image"],
            camera_info=messages.get("camera_info"), right_image=messages.get("right_image"),
            right_info=messages.get("right_info"), mask=messages.get("mask"),
        )  # fmt: skip
        frame_id = self._maker.name(bundle.image.header, 0)
        return self.pipeline.process(self._maker.frame(bundle, frame_id))


@functools.cache
def _settings(stereo: bool) -> Settings:
    return settings_from_flat({**PIPELINE, "inputs.stereo": stereo})


@functools.cache
def _rig() -> Rig:
    return Rig(from_flat(Config, PIPELINE))


@dataclass
class FrameTarget:
    """Frames of several messages; ``make_messages`` makes those of a good frame at a time."""

    name: str
    make_messages: Callable[[float], Messages]
    share: float = 1.0
    stereo: bool = False
    group: str = "frames"

    def make(self, rng: random.Random) -> Messages:
        """One of the messages, or two, changed."""
        messages = self.make_messages(1.1)
        for _ in range(rng.choice([1, 1, 2, 4])):
            mutate_message(messages[rng.choice(sorted(messages))], rng)
        return messages

    def read(self, case: Messages) -> None:
        """A good frame, the case, and good frames again."""
        node = Node(self.stereo)
        node.take(self.make_messages(1.0))
        try:
            node.take(case)
        finally:
            good = (self.make_messages(1.2 + 0.1 * n) for n in range(GOOD_FRAMES))
            if not any(_matched(_attempt(node, messages)) for messages in good):
                raise Lost("the frames after it are not matched")

    def to_files(self, case: Messages) -> Files:
        """See :class:`targets.Target`."""
        return {f"{name}.cdr": serialize_message(message) for name, message in case.items()}

    def from_files(self, files: Files) -> Messages:
        """See :class:`targets.Target`."""
        kinds = {name: type(message) for name, message in self.make_messages(1.0).items()}
        return {name: deserialize_message(files[f"{name}.cdr"], kinds[name]) for name in kinds}


@dataclass
class PeerTarget:
    """Another robot's features against the keyframes of this one."""

    name: str = "peer against the map"
    share: float = 1.0
    group: str = "frames"

    def make(self, rng: random.Random) -> Any:
        """See :class:`targets.Target`."""
        message = described(1.0)
        for _ in range(rng.choice([1, 1, 2, 4])):
            mutate_message(message, rng)
        return message

    def read(self, case: Any) -> None:
        """See :class:`targets.Target`."""
        node = Node()
        node.take(plain(1.0))
        frame_id_from_message(case.frame)
        pairs = node.pipeline.match_peer(convert.keyframe_from_message(case), 3)
        for pair in pairs:
            convert.matches_to_message(pair.matches)
            convert.pose_to_message(pair.pose)

    def to_files(self, case: Any) -> Files:
        """See :class:`targets.Target`."""
        return {"message.cdr": serialize_message(case)}

    def from_files(self, files: Files) -> Any:
        """See :class:`targets.Target`."""
        return deserialize_message(files["message.cdr"], type(described(1.0)))


def frame_targets() -> Sequence[Target]:
    """All of them."""
    return [
        FrameTarget("frame", plain, share=2),
        FrameTarget("compressed frame", compressed),
        FrameTarget("frame with keypoints", with_keypoints, share=2),
        FrameTarget("frame with depth", with_depth, share=2),
        FrameTarget("frame with a mask", with_mask),
        FrameTarget("stereo frame", stereo, share=2, stereo=True),
        PeerTarget(),
        FileTarget(
            "map in use", [made(_save_map)], _use_map, {}, forgers=[forge_map], group="frames",
        ),
    ]  # fmt: skip


def _matched(result: FrameResult | None) -> bool:
    return result is not None and any(
        pair.matches.status is MatchStatus.OK for pair in result.pairs
    )


def _attempt(node: Node, messages: Messages) -> Any:
    with contextlib.suppress(SuperglueError):
        return node.take(messages)
    return None


def _shift(at: float) -> int:
    """Pixels: the camera moves."""
    return round(10 * (at - 1.0)) % 30


def plain(at: float) -> Messages:
    """A raw image with its calibration."""
    return {"image": image_message(picture(_shift(at)), at), "camera_info": camera_info(at)}


def compressed(at: float) -> Messages:
    """A compressed image with its calibration."""
    return {**plain(at), "image": compressed_message(picture(_shift(at)), at)}


def described(at: float) -> Any:
    """Another robot's features, with descriptors, calibration and depth."""
    points, descriptors = _features()
    message = keypoints_message(points, at)
    message.frame.robot, message.frame.id = "other", 7
    message.detector, message.descriptor_dim = "sift-root", descriptors.shape[1]
    message.descriptors = descriptors.tobytes()
    message.k, message.distortion_model = camera_info(at).k, "plumb_bob"
    message.d, message.depth = [0.0] * 5, np.full(len(points), 2.0, np.float32)
    return message


@functools.cache
def _features() -> tuple[np.ndarray, np.ndarray]:
    found = _rig().front_end.extract_all([picture()])[0]
    return found.keypoints, found.descriptors


def with_keypoints(at: float) -> Messages:
    """The keypoints of an outside front-end, with descriptors, always the same."""
    return {**plain(at), "keypoints": described(at)}


def with_depth(at: float) -> Messages:
    """A wall, 2 m away."""
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    return {**plain(at), "depth": image_message(depth, at, "32FC1")}


def with_mask(at: float) -> Messages:
    """The lowest rows are the robot's own body."""
    usable = np.ones((HEIGHT, WIDTH), np.uint8)
    usable[-20:] = 0
    return {**plain(at), "mask": image_message(usable, at)}


def stereo(at: float) -> Messages:
    """A rectified pair."""
    info = camera_info(at)
    info.p[3] = -200.0 * 0.1
    right = image_message(picture(_shift(at) + 10), at)
    return {**plain(at), "right_image": right, "right_info": info}


def _save_map(folder: Path) -> None:
    node = Node()
    for number in range(3):
        node.take(with_depth(1.0 + number))
    assert node.pipeline.save_map(folder / "a.safetensors", 3)


def _use_map(folder: Path) -> None:
    """Load it, and go on with good frames; nobody has to match such a map, but none may fail."""
    node = Node()
    node.pipeline.load_map(folder / "a.safetensors")
    for number in range(3):
        node.take(plain(1.0 + 0.1 * number))
