"""Extraction a frame ahead of matching: the same results, and errors at the right frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from superglue_ros.config import Config
from superglue_ros.data.image import to_grey
from superglue_ros.pipeline import (
    Extraction,
    FrameResult,
    Pipeline,
    extract_together,
    match_together,
)
from superglue_ros.rig import Rig
from superglue_ros.ros.intake import Worker
from superglue_ros.settings import from_flat
from superglue_ros.synthetic.demo_room import RoomSequence
from superglue_ros.types import Frame, FrameId

if TYPE_CHECKING:
    from matcher_process import Matcher

LIMIT = 120.0  # seconds


def flat(value: Any) -> Any:
    """Everything in a result, but the seconds, as lists."""
    if dataclasses.is_dataclass(value):
        fields = (f.name for f in dataclasses.fields(value) if f.name != "seconds")
        return [flat(getattr(value, name)) for name in fields]
    if isinstance(value, (list, tuple)):
        return [flat(one) for one in value]
    return np.nan_to_num(value, nan=-7.0).tolist() if isinstance(value, np.ndarray) else repr(value)


def test_the_demo_room_gives_the_same_with_and_without() -> None:
    """To the bit: the second stage of one frame and the first of the next share nothing."""
    settings = {
        "device": "cpu",
        "precision": "float32",
        "front_end.max_keypoints": 150,
        "front_end.max_size": 320,
        "matcher.sinkhorn_iterations": 20,
        "keyframes.window": 2,
        "keyframes.sequential": True,
        "front_end.rotation": "quarter",
    }
    rig = Rig(from_flat(Config, settings))
    room = RoomSequence()
    # The last one lies on its side, so that the second stage needs the front-end too.
    images = [to_grey(room[index].image) for index in (0, 4, 8, 12, 16)]
    frames = [
        Frame(FrameId(n + 1, n * 10**8), image, room[0].camera) for n, image in enumerate(images)
    ]
    side = np.ascontiguousarray(np.rot90(images[-1]))
    frames.append(Frame(FrameId(6, 5 * 10**8), side, None))
    alone = Pipeline(rig.config, rig)
    expected = [alone.process(frame) for frame in frames]
    assert sum(len(result.pairs) for result in expected) >= 8
    assert sum(len(pair.matches) for pair in expected[4].pairs) > 50
    assert sum(len(pair.matches) for pair in expected[5].pairs) > 50, "turned"

    rig = Rig(rig.config, rig.front_end, rig.matcher)
    pipeline, found = Pipeline(rig.config, rig), []
    worker: Worker[Frame, Extraction] = Worker(
        lambda together: extract_together(rig, together),
        lambda extraction: found.extend(match_together([pipeline], extraction)),
        overlap=True,
        lossless=True,
    )
    for frame in frames:
        worker.put(frame)
    assert worker.wait_idle(LIMIT)
    assert worker.stop(LIMIT)
    assert [result.frame_id.id for result in found] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, FrameResult), one
        assert flat(one) == flat(other)


@pytest.mark.ros
def test_errors_of_either_stage_are_those_of_their_frame(
    configure: Callable[..., Matcher],
) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from test_bad_input import foreign_descriptors, good_keypoints, nan_keypoints

    from superglue_ros.msg import Matches

    matcher = configure({"overlap": "always", "intake.mode": "lossless", "inputs.keypoints": True})
    matcher.prime(keypoints=good_keypoints)
    # One that cannot be converted, before the features are taken, and one that cannot be matched.
    kinds = [good_keypoints, nan_keypoints, good_keypoints, foreign_descriptors] * 3
    stamps = [matcher.tick() for _ in kinds]
    for at, make in zip(stamps, kinds, strict=True):
        matcher.peer.send(at, keypoints=make(at))
    status = matcher.peer.output("status", stamps[-1])
    assert (status.refused, status.dropped) == (6, 0)
    assert status.received == status.matched + status.refused
    found = [matcher.peer.output("matches", at) for at in stamps]
    expected = [Matches.OK if make is good_keypoints else Matches.ERROR for make in kinds]
    assert [one.status for one in found] == expected
    numbers = [one.query.id for one in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(kinds)))
