"""Mutated messages through every conversion: a result, or a typed error that is short.

``HOSTILE_MESSAGES`` sets how many: 2,000 in the suite, with a fixed seed.
"""

from __future__ import annotations

import array
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from matcher_process import (
    HEIGHT,
    WIDTH,
    camera_info,
    compressed_message,
    image_message,
    keypoints_message,
    picture,
)

from superglue_ros.data.message_reading import matches_from_message, pose_from_message
from superglue_ros.errors import SuperglueError
from superglue_ros.ros import convert, sensor_messages

from ..pair_results import matches, pose

COUNT = int(os.environ.get("HOSTILE_MESSAGES", "2000"))
LIMIT = 1_000_000
FLOATS = [0.0, -0.0, -1.0, 1e-300, 1e30, -1e30, 1e160, 1e308, np.nan, np.inf, -np.inf]
TEXTS = ["", "x" * 10_000, "mono8\x00", "\U0001f600", "../../etc/passwd", "16UC1", "bgr8"]


def described() -> Any:
    rng = np.random.default_rng(0)
    message = keypoints_message(rng.uniform((10, 10), (190, 140), (30, 2)), 1.0)
    message.detector, message.descriptor_dim = "sift-root", 8
    message.descriptors = rng.random((30, 8), np.float32).tobytes()
    message.k = camera_info(1.0).k
    message.distortion_model = "plumb_bob"
    return message


TARGETS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "image": (
        lambda: image_message(picture(), 1.0),
        lambda m: sensor_messages.image_to_grey(m, LIMIT),
    ),
    "compressed": (
        lambda: compressed_message(picture(), 1.0),
        lambda m: sensor_messages.compressed_to_grey(m, LIMIT),
    ),
    "depth": (
        lambda: image_message(np.ones((HEIGHT, WIDTH), np.float32), 1.0, "32FC1"),
        lambda m: sensor_messages.depth_to_metres(m, WIDTH, HEIGHT),
    ),
    "camera_info": (
        lambda: camera_info(1.0),
        lambda m: sensor_messages.camera_info_to_camera(m, WIDTH, HEIGHT, rectified=False),
    ),
    "keypoints": (described, lambda m: convert.features_from_message(m, WIDTH, HEIGHT)),
    "peer_features": (described, convert.keyframe_from_message),
    "matches": (lambda: convert.matches_to_message(matches()), matches_from_message),
    "relative_pose": (lambda: convert.pose_to_message(pose()), pose_from_message),
}


def mutate(message: Any, rng: random.Random) -> None:
    """Change one field, however deep, to another value of its type."""
    name = rng.choice(list(message.get_fields_and_field_types()))
    value = getattr(message, name)
    if hasattr(value, "get_fields_and_field_types"):
        mutate(value, rng)
    elif isinstance(value, bool):
        setattr(message, name, not value)
    elif isinstance(value, int):
        kind = message.get_fields_and_field_types()[name]
        if kind == "octet":
            return
        bits = int("".join(c for c in kind if c.isdigit()))
        low, high = (0, 2**bits) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        setattr(message, name, rng.choice([0, 1, low, high - 1, rng.randrange(low, high)]))
    elif isinstance(value, float):
        setattr(message, name, rng.choice(FLOATS))
    elif isinstance(value, str):
        setattr(message, name, rng.choice(TEXTS))
    elif isinstance(value, (array.array, np.ndarray)) and len(value):
        changed = (
            value.copy() if isinstance(value, np.ndarray) else array.array(value.typecode, value)
        )
        place = rng.randrange(len(changed))
        whole = not isinstance(changed[place], float)
        if isinstance(value, np.ndarray) or rng.random() < 0.7:
            changed[place] = rng.choice([0, 1, 127] if whole else FLOATS)
        else:
            changed = changed[: rng.randrange(len(changed))]
        setattr(message, name, changed)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(max(300, COUNT // 50))
def test_mutated_messages_give_a_result_or_a_typed_error(name: str) -> None:
    make, read = TARGETS[name]
    rng = random.Random(name)
    refused = 0
    for _ in range(COUNT // len(TARGETS)):
        message = make()
        for _ in range(rng.choice([1, 1, 2, 5])):
            mutate(message, rng)
        try:
            read(message)
        except SuperglueError as error:
            refused += 1
            text = str(error)
            assert text
            assert len(text) < 2000, text
    assert refused > 0
