"""The halves of a pair are brought together."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from superglue_ros.ros.pair_buffer import PairBuffer
from superglue_ros.types import (
    FrameId,
    Matches,
    MatchKind,
    MatchStatus,
    PoseMethod,
    PoseStatus,
    RelativePose,
)

REFERENCE = FrameId(3, 1_000_000_001, "camera", "robot")
QUERY = FrameId(4, 2_000_000_002, "camera", "robot")


def half(kind, query):
    if kind is RelativePose:
        return RelativePose(
            REFERENCE,
            query,
            PoseStatus.REJECTED,
            PoseMethod.NONE,
            np.eye(3),
            np.zeros(3),
            np.zeros((6, 6)),
            *(False, 0, 0, 1.0, 0.0, 0.0),
        )
    none = np.zeros(0, np.float32)
    return Matches(
        REFERENCE,
        query,
        MatchKind.KEYFRAME,
        MatchStatus.OK,
        none.astype(np.int32),
        none.astype(np.int32),
        none.reshape(0, 2),
        none.reshape(0, 2),
        none,
        none.astype(bool),
        none,
        none.astype(np.int64),
    )


def test_halves_of_a_pair_find_each_other_in_any_order():
    buffer = PairBuffer()
    other = FrameId(9, 3_000_000_000, "camera", "robot")
    assert buffer.add(half(Matches, QUERY)) is None
    assert buffer.add(half(RelativePose, other)) is None
    found = buffer.add(half(RelativePose, QUERY))
    assert (type(found[0]), found[1].query) == (Matches, QUERY)
    assert buffer.add(half(Matches, other))[0].query == other
    assert buffer.add(half(RelativePose, QUERY)) is None


def test_halves_that_wait_are_bounded():
    buffer = PairBuffer(limit=3)
    for number in range(10):
        buffer.add(half(Matches, FrameId(number)))
    assert buffer.add(half(RelativePose, FrameId(0))) is None
    assert buffer.add(half(RelativePose, FrameId(9))) is not None
