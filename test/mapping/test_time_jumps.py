from __future__ import annotations

from superglue_ros.mapping.time_jumps import JUMP_NS, TimeJumps


def test_a_step_back_of_half_a_second_is_a_jump_and_less_is_disorder() -> None:
    time, at = TimeJumps(), 10 * JUMP_NS
    assert not time.passed(at)
    assert not time.passed(at - JUMP_NS + 1)
    assert time.newest_ns() == at  # a late frame is not the newest
    assert time.behind_ns(at - 7) == 7
    assert time.behind_ns(at) == time.behind_ns(at + 1) == 0
    assert time.passed(at - JUMP_NS)
    assert time.newest_ns() == at - JUMP_NS
    assert time.count == 1


def test_sources_are_followed_each_by_itself() -> None:
    time = TimeJumps()
    time.passed(10**12, "left")
    assert not time.passed(0, "right")
    assert (time.newest_ns("left"), time.newest_ns("right")) == (10**12, 0)
    assert time.newest_ns("rear") is None


def test_after_forgetting_any_stamp_may_come() -> None:
    time = TimeJumps()
    time.passed(10**12)
    assert time.passed(0)
    time.forget()
    assert time.newest_ns() is None
    assert not time.passed(-(10**12))
    assert time.count == 1


SECOND = 1_000_000_000


def jumps(*seconds: float) -> list[float]:
    """The stamps that are taken for jumps."""
    time = TimeJumps()
    return [at for at in seconds if time.passed(round(at * SECOND))]


def test_one_stamp_an_hour_ahead_is_no_jump() -> None:
    assert jumps(1, 1.1, 3601, 1.2, 1.3, 1.4) == []
    time = TimeJumps()
    for at in (10, 3610):
        time.passed(at * SECOND)
    assert time.behind_ns(11 * SECOND) == 0  # it goes on where the wrong stamp was put in
    assert time.behind_ns(9 * SECOND) == SECOND
    assert not time.passed(11 * SECOND)
    assert time.newest_ns() == 11 * SECOND


def test_a_bag_that_starts_over_is_a_jump_also_after_a_gap() -> None:
    assert jumps(0, 1, 2, 30, 31, 0, 1) == [0]
    assert jumps(0, 1, 2, 3, 4, 5, 30, 0, 1) == [0]
    assert jumps(50, 51, 52, 100, 100.1, 60, 60.1) == [60]


def test_neighbours_that_changed_places_are_no_jump_at_any_rate() -> None:
    assert jumps(0, 1, 3, 2, 4, 5) == []
    assert jumps(0, 5, 15, 10, 20, 25) == []


def test_stamps_that_go_on_from_a_short_step_back_are_a_jump() -> None:
    """A bag of three frames, at one a second, again and again."""
    assert jumps(0, 1, 2, 0, 1, 2) == [1]
