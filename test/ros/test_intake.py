"""The hand-over between threads: nothing lost, nothing hung, newest wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superglue_ros.errors import BusyError
from superglue_ros.ros.intake import MAX_REQUESTS, MAX_SOURCES, Intake, Worker

LIMIT = 20.0  # seconds, for anything that should come


def make_worker(
    on_frames: Callable[[list[Any]], None], *, overlap: bool = False, lossless: bool = True
) -> Worker[Any, list[Any]]:
    """A worker whose first stage does nothing."""
    return Worker(lambda frames: frames, on_frames, overlap=overlap, lossless=lossless)


@given(st.lists(st.sampled_from(["put", "take"]), max_size=60))
def test_lossless_gives_everything_in_order(steps: list[str]) -> None:
    intake: Intake[int] = Intake(lossless=True)
    sent: list[int] = []
    got = []
    for number, step in enumerate(steps):
        if step == "put":
            assert intake.put(number, source=number % 3) == 0
            sent.append(number)
        else:
            got += intake.take()
    while together := intake.take():
        assert len({number % 3 for number in together}) == len(together)
        got += together
    assert got == sent


@given(st.lists(st.tuples(st.sampled_from(["put", "take"]), st.integers(0, 2)), max_size=60))
def test_latest_keeps_the_newest_of_each_source_and_counts(steps: list[tuple[str, int]]) -> None:
    intake: Intake[tuple[int, int]] = Intake(lossless=False)
    newest: dict[int, int] = {}
    sent = dropped = taken = 0
    for number, (step, source) in enumerate(steps):
        if step == "put":
            dropped += intake.put((source, number), source)
            newest[source] = number
            sent += 1
        else:
            together = intake.take()
            assert dict(together) == newest
            taken += len(together)
            newest.clear()
        assert len(intake) == len(newest) <= 3
        assert sent == taken + dropped + len(intake)


def test_what_waits_together_is_taken_together() -> None:
    for lossless in (False, True):
        intake: Intake[str] = Intake(lossless)
        for source in "abc":
            intake.put(f"{source}0", source)
        intake.put("a1", "a")
        assert intake.take() == (["a0", "b0", "c0"] if lossless else ["a1", "b0", "c0"])
        assert intake.take() == (["a1"] if lossless else [])


@pytest.mark.parametrize("lossless", [False, True])
def test_sources_that_go_alone_take_turns(lossless: bool) -> None:
    intake: Intake[str] = Intake(lossless, together=lambda frame: frame[0] in "ab")
    for source in "acbd":
        intake.put(f"{source}0", source)
    if lossless:
        assert [intake.take() for _ in range(4)] == [["a0"], ["c0"], ["b0"], ["d0"]]
        return
    assert intake.take() == ["a0", "b0"]
    intake.put("a1", "a")  # busy cameras do not starve the others
    assert intake.take() == ["c0"]
    intake.put("c1", "c")
    assert intake.take() == ["d0"]
    assert intake.take() == ["a1"]
    assert intake.take() == ["c1"]
    assert intake.take() == []


def test_jobs_go_before_frames_and_on_the_same_thread() -> None:
    order: list[str] = []
    threads = set()
    started, released = threading.Event(), threading.Event()

    def on_frames(frames: list[str]) -> None:
        started.set()
        assert released.wait(LIMIT)
        threads.add(threading.get_ident())
        order.extend(frames)

    def job() -> str:
        threads.add(threading.get_ident())
        order.append("job")
        return "answer"

    worker = make_worker(on_frames)
    worker.put("first")
    assert started.wait(LIMIT)
    worker.put("second")
    future = worker.submit(job)
    released.set()
    assert future.result(LIMIT) == "answer"
    assert worker.wait_idle(LIMIT)
    assert order == ["first", "job", "second"]
    assert len(threads) == 1
    assert worker.stop(LIMIT)


@pytest.mark.parametrize("overlap", [False, True])
def test_an_unforeseen_error_of_a_frame_does_not_end_the_worker(
    caplog: pytest.LogCaptureFixture, overlap: bool
) -> None:
    done: list[int] = []

    def on_frames(frames: list[int]) -> None:
        if 0 in frames:
            raise ZeroDivisionError("boom")
        done.extend(frames)

    worker = make_worker(on_frames, overlap=overlap)
    worker.put(0)
    worker.put(1)
    assert worker.wait_idle(LIMIT)
    assert done == [1]
    assert "boom" in caplog.text
    with pytest.raises(KeyError):
        worker.submit(lambda: {}["absent"]).result(LIMIT)
    assert worker.stop(LIMIT)


def test_stop_finishes_the_frame_in_hand_and_cancels_the_rest() -> None:
    started, released = threading.Event(), threading.Event()
    done: list[int] = []

    def on_frames(frames: list[int]) -> None:
        started.set()
        assert released.wait(LIMIT)
        done.extend(frames)

    worker = make_worker(on_frames)
    for frame in range(3):
        worker.put(frame)
    assert started.wait(LIMIT)
    future = worker.submit(lambda: None)
    assert worker.waiting == 2
    assert worker.drop_waiting() == 2
    assert not worker.wait_idle(0.01)
    assert not worker.stop(0.01)
    released.set()
    assert worker.stop(LIMIT)
    assert done == [0]
    assert future.cancelled()
    with pytest.raises(RuntimeError, match="stopped"):
        worker.submit(lambda: None).result(LIMIT)


@pytest.mark.parametrize("overlap", [False, True])
def test_many_threads_put_at_once(overlap: bool) -> None:
    seen: list[int] = []
    worker = make_worker(seen.extend, overlap=overlap)
    threads = [
        threading.Thread(target=lambda k=k: [worker.put(k * 1000 + i) for i in range(200)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worker.wait_idle(LIMIT)
    assert sorted(seen) == sorted(k * 1000 + i for k in range(4) for i in range(200))
    assert worker.stop(LIMIT)


def test_requests_and_frames_take_turns() -> None:
    """Four clients in a loop kept every frame waiting: jobs always went first."""
    order: list[object] = []
    started, released = threading.Event(), threading.Event()

    def on_frames(frames: list[int]) -> None:
        started.set()
        assert released.wait(LIMIT)
        order.extend(frames)

    worker = make_worker(on_frames)
    worker.put(0)
    assert started.wait(LIMIT)
    for number in (1, 2, 3):
        worker.put(number)
    jobs = [worker.submit(lambda: order.append("job"), request=True) for _ in range(5)]
    released.set()
    for job in jobs:
        job.result(LIMIT)
    assert worker.wait_idle(LIMIT)
    assert order == [0, "job", 1, "job", 2, "job", 3, "job", "job"]
    assert worker.stop(LIMIT)


def test_waiting_requests_are_bounded_and_settings_are_not() -> None:
    started, released = threading.Event(), threading.Event()

    def on_frames(frames: list[int]) -> None:
        started.set()
        assert released.wait(LIMIT)

    worker = make_worker(on_frames)
    worker.put(0)
    assert started.wait(LIMIT)
    assert worker.busy_seconds > 0
    taken = [worker.submit(int, request=True) for _ in range(MAX_REQUESTS)]
    with pytest.raises(BusyError, match="try again"):
        worker.submit(int, request=True).result(LIMIT)
    setting = worker.submit(int)
    released.set()
    assert [one.result(LIMIT) for one in [*taken, setting]] == [0] * (MAX_REQUESTS + 1)
    assert worker.wait_idle(LIMIT)
    assert worker.busy_seconds == 0
    assert worker.stop(LIMIT)


@given(st.lists(st.integers(0, 60), max_size=60))
def test_lossless_holds_no_more_bytes_than_its_bound(sizes: list[int]) -> None:
    intake: Intake[int] = Intake(lossless=True, size=lambda frame: frame, max_bytes=100)
    kept = []
    for size in sizes:
        if not intake.put(size):
            kept.append(size)
        assert intake.bytes == sum(kept) <= 100
    got = []
    while together := intake.take():
        got += together
    assert got == kept
    assert intake.bytes == 0


def test_a_frame_larger_than_the_bound_is_matched_alone() -> None:
    intake: Intake[int] = Intake(lossless=True, size=lambda frame: frame, max_bytes=100)
    assert [intake.put(1000), intake.put(1)] == [0, 1]
    assert intake.take() == [1000]


def test_twenty_thousand_names_of_robots_leave_nothing_behind() -> None:
    intake: Intake[int] = Intake(lossless=False)
    for number in range(20_000):
        intake.put(number, source=f"robot{number}")
        assert len(intake) <= MAX_SOURCES
    while intake.take():
        pass
    assert not intake._queues


def test_settings_go_ahead_of_frames_even_after_one_another():
    done: list[object] = []
    gate = threading.Event()
    worker = make_worker(done.extend, lossless=False)
    worker.submit(gate.wait)
    worker.submit(lambda: done.append("first"))
    worker.submit(lambda: done.append("second"))
    worker.put("frame")
    gate.set()
    assert worker.wait_idle(10)
    worker.stop(10)
    assert done == ["first", "second", "frame"]


class Stages:
    """Two stages that wait for leave, and what they have done."""

    def __init__(self) -> None:
        self.extracted: list[int] = []
        self.matched: list[int] = []
        self.may_extract, self.may_match = threading.Semaphore(0), threading.Semaphore(0)
        self._changed = threading.Condition()
        self.worker: Worker[int, list[int]] = Worker(
            self._extract, self._match, overlap=True, lossless=True
        )

    def _extract(self, frames: list[int]) -> list[int]:
        assert self.may_extract.acquire(timeout=LIMIT)
        self._note(self.extracted, frames)
        return frames

    def _match(self, frames: list[int]) -> None:
        assert self.may_match.acquire(timeout=LIMIT)
        self._note(self.matched, frames)

    def _note(self, done: list[int], frames: list[int]) -> None:
        with self._changed:
            done += frames
            self._changed.notify_all()

    def wait(self, extracted: int, matched: int) -> None:
        with self._changed:
            assert self._changed.wait_for(
                lambda: (len(self.extracted), len(self.matched)) == (extracted, matched), LIMIT
            )


def test_extraction_is_one_frame_ahead_and_no_further() -> None:
    stages = Stages()
    for frame in range(4):
        stages.worker.put(frame)
    stages.may_extract.release(4)
    stages.wait(extracted=2, matched=0)  # 0 is being matched, 1 waits for it
    assert stages.worker.waiting == 2
    assert stages.worker.busy_seconds > 0
    assert not stages.worker.wait_idle(0.01)
    assert stages.extracted == [0, 1]
    for matched in range(1, 5):
        stages.may_match.release()
        stages.wait(extracted=min(matched + 2, 4), matched=matched)
    assert stages.worker.wait_idle(LIMIT)
    assert stages.worker.busy_seconds == 0
    assert stages.matched == [0, 1, 2, 3]
    assert stages.worker.stop(LIMIT)


def test_a_job_has_both_stages_to_itself() -> None:
    stages = Stages()
    for frame in range(3):
        stages.worker.put(frame)
    stages.may_extract.release(2)
    stages.wait(extracted=2, matched=0)
    done = stages.worker.submit(lambda: (list(stages.extracted), list(stages.matched)))
    stages.may_extract.release()  # frame 2 could go, but for the job
    stages.may_match.release()
    stages.wait(extracted=2, matched=1)
    assert not done.done()
    stages.may_match.release()
    assert done.result(LIMIT) == ([0, 1], [0, 1])
    stages.may_match.release()
    assert stages.worker.wait_idle(LIMIT)
    assert stages.matched == [0, 1, 2]
    assert stages.worker.stop(LIMIT)


def test_stop_finishes_the_frames_in_both_stages() -> None:
    stages = Stages()
    for frame in range(3):
        stages.worker.put(frame)
    stages.may_extract.release()
    stages.wait(extracted=1, matched=0)
    while stages.worker.waiting > 1:  # until the second is being extracted
        pass
    assert not stages.worker.stop(0.01)
    stages.may_extract.release()
    stages.may_match.release(2)
    assert stages.worker.stop(LIMIT)
    assert stages.matched == [0, 1]
