"""The halves of a pair are brought together."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from superglue_ros.ros.pair_buffer import PairBuffer
from superglue_ros.types import FrameId, Matches, RelativePose

from ..pair_results import QUERY, matches, pose


def half(kind, query):
    return pose(query=query) if kind is RelativePose else matches(query=query)


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
