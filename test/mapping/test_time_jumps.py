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
