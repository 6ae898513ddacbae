"""Synchronisation by stamp with every message accounted for, also over time jumps."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo

from superglue_ros.data.message_reading import stamp_to_ns
from superglue_ros.ros.synchroniser import Synchroniser


def message(milliseconds: int) -> CameraInfo:
    found = CameraInfo()
    found.header.stamp.sec = milliseconds // 1000
    found.header.stamp.nanosec = milliseconds % 1000 * 1_000_000
    return found


class Sets:
    """Collects the stamps, in milliseconds, of complete sets."""

    def __init__(self, slop: float | None = None, queue: int = 5, inputs: int = 2) -> None:
        self.found: list[tuple[int, ...]] = []
        self.synchroniser = Synchroniser(inputs, self._store, slop=slop, queue=queue)

    def _store(self, messages: Any) -> None:
        self.found.append(tuple(stamp_to_ns(m.header.stamp) // 1_000_000 for m in messages))

    def add(self, index: int, *milliseconds: int) -> None:
        for stamp in milliseconds:
            self.synchroniser.add(index, message(stamp))


def test_equal_stamps_meet_in_any_order() -> None:
    sets = Sets()
    sets.add(0, 10, 20, 30)
    sets.add(1, 20, 30)
    sets.add(1, 40)
    sets.add(0, 40)
    assert sets.found == [(20, 20), (30, 30), (40, 40)]


def test_approximate_stamps_meet_within_the_slop() -> None:
    sets = Sets(slop=0.005)
    sets.add(0, 100, 200)
    sets.add(1, 103, 210, 300)
    sets.add(0, 297)
    assert sets.found == [(100, 103), (297, 300)]


def test_what_never_meets_is_counted() -> None:
    sets = Sets(queue=3)
    sets.add(0, 1, 2, 3, 4, 5)  # two fall out of the queue
    sets.add(1, 4)
    assert sets.found == [(4, 4)]
    assert sets.synchroniser.unsynchronised == 2
    sets.synchroniser.clear()
    assert sets.synchroniser.unsynchronised == 4
    sets.add(1, 5)
    assert sets.found == [(4, 4)]


@pytest.mark.parametrize("slop", [None, 0.005])
def test_a_full_queue_of_old_futures_does_not_block_after_a_jump(slop: float | None) -> None:
    sets = Sets(slop=slop, queue=3)
    sets.add(0, 90_000, 90_100, 90_200)  # a bag's end, without partners
    sets.add(1, 89_000)
    for stamp in (1_000, 1_100, 1_200, 1_300):  # it starts again
        sets.add(0, stamp)
        sets.add(1, stamp)
    assert sets.found == [(s, s) for s in (1_000, 1_100, 1_200, 1_300)]
    assert sets.synchroniser.unsynchronised == 4


def test_nothing_is_lost_where_the_inputs_jump_one_after_the_other() -> None:
    sets = Sets(queue=100)
    times = list(range(10_000, 15_000, 100))
    sets.add(0, 9_900)
    sets.add(1, 9_900)
    for _ in range(3):  # a bag of 5 s, three times; all images come before all calibrations
        sets.add(0, *times)
    for _ in range(3):
        sets.add(1, *times)
    assert sets.found == [(9_900, 9_900), *[(t, t) for t in times] * 3]
    assert sets.synchroniser.unsynchronised == 0


def test_an_input_that_missed_the_jump_is_fetched() -> None:
    sets = Sets(queue=3)
    sets.add(0, 50_000)
    sets.add(1, 1_000)  # then silent; time jumps back, and its next stamp is no step back
    for stamp in range(2_000, 3_000, 100):
        sets.add(1, stamp)
        sets.add(0, stamp)
    assert (2_900, 2_900) in sets.found
    assert len(sets.found) >= 5


def test_disorder_is_no_jump() -> None:
    sets = Sets()
    sets.add(0, 1_000, 1_200, 1_100)
    sets.add(1, 1_000, 1_100, 1_200)
    assert sets.found == [(1_000, 1_000), (1_100, 1_100), (1_200, 1_200)]


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 12) | st.sampled_from([60_000, 60_001, 10**6])),
        max_size=60,
    ),
    st.integers(1, 4),
    st.booleans(),
)
def test_every_message_is_in_a_set_or_waits_or_is_counted(
    arrivals: list[tuple[int, int]], queue: int, approximate: bool
) -> None:
    sets = Sets(slop=0.002 if approximate else None, queue=queue)
    for index, stamp in arrivals:
        sets.add(index, stamp)
    sets.synchroniser.clear()
    assert len(arrivals) == 2 * len(sets.found) + sets.synchroniser.unsynchronised
    for first, second in sets.found:
        assert abs(first - second) < (2 if approximate else 1)


def test_one_stamp_an_hour_ahead_costs_one_set() -> None:
    """It took all that followed for a jump back, and its partners waited in vain."""
    for wrong in (0, 1):
        sets = Sets(queue=10)
        for stamp in range(1_000, 4_000, 100):
            for index in (0, 1):
                hour = 3_600_000 if (stamp, index) == (2_000, wrong) else 0
                sets.add(index, stamp + hour)
        expected = [(s, s) for s in range(1_000, 4_000, 100) if s != 2_000]
        assert sets.found == expected
        sets.synchroniser.clear()
        assert sets.synchroniser.unsynchronised == 2


def test_a_gap_costs_nothing() -> None:
    sets = Sets()
    for stamp in (1_000, 1_100, 60_000, 60_100, 200_000, 200_100):
        sets.add(0, stamp)
        sets.add(1, stamp)
    assert [a for a, _ in sets.found] == [1_000, 1_100, 60_000, 60_100, 200_000, 200_100]
    sets.add(0, 400_000, 400_100)  # one input is ahead of the other
    sets.add(1, 400_000, 400_100)
    assert sets.found[-2:] == [(400_000, 400_000), (400_100, 400_100)]
    assert sets.synchroniser.unsynchronised == 0


def test_calibrations_of_a_slow_camera_that_changed_places() -> None:
    sets = Sets(queue=10)
    for index, stamps in enumerate(([1, 2, 3, 4, 5, 6], [1, 2, 4, 3, 5, 6])):
        sets.add(index, *(1_000 * s for s in stamps))
    assert sorted(a for a, _ in sets.found) == [1_000 * s for s in range(1, 7)]
    assert sets.synchroniser.unsynchronised == 0
