"""The hand-over between threads: nothing lost, nothing hung, newest wins."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superglue_ros.ros.intake import Intake, Worker

LIMIT = 20.0  # seconds, for anything that should come


@given(st.lists(st.sampled_from(["put", "take"]), max_size=60))
def test_lossless_gives_everything_in_order(steps: list[str]) -> None:
    intake: Intake[int] = Intake(lossless=True)
    sent: list[int] = []
    got = []
    for number, step in enumerate(steps):
        if step == "put":
            assert intake.put(number, source=number % 3) == 0
            sent.append(number)
        elif (frame := intake.take()) is not None:
            got.append(frame)
    while (frame := intake.take()) is not None:
        got.append(frame)
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
        elif (frame := intake.take()) is not None:
            assert frame[1] == newest.pop(frame[0])
            taken += 1
        assert len(intake) == len(newest) <= 3
        assert sent == taken + dropped + len(intake)


def test_sources_take_turns() -> None:
    intake: Intake[str] = Intake(lossless=False)
    for round_ in range(3):
        for source in "ab":
            intake.put(f"{source}{round_}", source)
    assert intake.take() == "a2"
    intake.put("a3", "a")  # a busy camera does not starve the other
    assert intake.take() == "b2"
    assert intake.take() == "a3"
    assert intake.take() is None


def test_jobs_go_before_frames_and_on_the_same_thread() -> None:
    order: list[str] = []
    threads = set()
    started, released = threading.Event(), threading.Event()

    def on_frame(frame: str) -> None:
        started.set()
        assert released.wait(LIMIT)
        threads.add(threading.get_ident())
        order.append(frame)

    def job() -> str:
        threads.add(threading.get_ident())
        order.append("job")
        return "answer"

    worker = Worker(on_frame, lossless=True)
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


def test_an_unforeseen_error_of_a_frame_does_not_end_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []

    def on_frame(frame: int) -> None:
        if frame == 0:
            raise ZeroDivisionError("boom")
        done.append(frame)

    worker = Worker(on_frame, lossless=True)
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

    def on_frame(frame: int) -> None:
        started.set()
        assert released.wait(LIMIT)
        done.append(frame)

    worker = Worker(on_frame, lossless=True)
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


def test_many_threads_put_at_once() -> None:
    seen: list[int] = []
    worker = Worker(seen.append, lossless=True)
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
